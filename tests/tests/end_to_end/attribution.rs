//! Containers that terrarium has not made: who they are, and that what they do is counted as theirs.

use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use terrarium_tests::binaries;
use terrarium_tests::kernel_state::{cgroup_mount_of, cgroup_mounts};
use terrarium_tests::podman::Podman;
use terrarium_tests::process::{self, Process};
use terrarium_tests::{Observatory, TestBed, Tree, eventually, http, require};

fn containers(observatory: &Observatory) -> Vec<Value> {
    let response = http::get(&observatory.url("/api/v1/containers")).expect("it serves");
    serde_json::from_str(&response.body).expect("JSON")
}

/// Waits until a container for which `wanted` is true is listed.
fn listed(observatory: &Observatory, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the container is listed", || {
        let all = containers(observatory);
        let names: Vec<String> = all.iter().map(|c| c["name"].to_string()).collect();
        all.into_iter().find(|c| wanted(c)).ok_or(format!("only {names:?}"))
    })
}

#[test]
fn trees_as_engines_make_them_are_told_by_their_paths_and_nested_ones_fold() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let hex = "5eed".repeat(16);
    let uid = "1c2d3e4f-0000-1111-2222-333344445555";
    for (path, runtime, pod) in [
        (format!("docker/{hex}/nested/deep"), "docker", ""),
        (format!("kubepods/burstable/pod{uid}/{hex}"), "containerd", uid),
        (format!("machine.slice/libpod-{hex}.scope/container"), "podman", ""),
    ] {
        let tree = Tree::new(&bed, &path);
        // Each pair of brackets is a process.
        tree.run("for n in 1 2 3 4 5 6 7; do (:); done");
        let found = listed(&observatory, |c| {
            let own = c["cgroup"].as_str().is_some_and(|path| path.contains(&bed.unique("tree")));
            own && c["runtime"] == runtime
        });
        assert_eq!((&found["id"], &found["name"]), (&json!(hex), &json!(hex[..12])));
        assert_eq!(found["pod"], pod);
        eventually("its processes are counted", || {
            let cgroup = found["cgroup"].as_str().expect("a path");
            let count = observatory
                .metrics()
                .count("terrarium_clone_total", &[("id", cgroup), ("kind", "process")]);
            if count == 7 { Ok(()) } else { Err(format!("{count} of 7")) }
        });
    }
}

#[test]
fn the_kernels_maps_forget_the_counters_of_a_removed_cgroup_and_their_sums_stay() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let id = "c0de".repeat(16);
    let tree = Tree::new(&bed, &format!("docker/{id}"));
    let path = format!("/{}", bed.unique("tree"));
    let observatory = Observatory::start(&bed, &["--watch", &path]);
    let held = |map: &str| observatory.metrics().count("terrarium_map_entries", &[("map", map)]);
    let all_held = || ["front", "counts", "times"].map(held);
    assert_eq!(all_held(), [0; 3]);
    let capacity =
        |map: &str| observatory.metrics().count("terrarium_map_capacity", &[("map", map)]);
    // A container's mounts are of some ten operations in some three buckets each, as many cells as all else that it does.
    assert_eq!(capacity("counts"), capacity("times"));

    let mounts = "for n in 1 2 3; do busybox mount -t tmpfs none /tmp; busybox umount /tmp; done";
    tree.run(&format!("busybox unshare -m busybox sh -ec '{mounts}'"));
    let own = format!("{path}/docker/{id}");
    let told = |metric: &str| observatory.metrics().count(metric, &[("id", &own)]);
    let (operations, duration) =
        ("terrarium_mount_operations_total", "terrarium_mount_duration_seconds_count");
    // One more makes all mounts private.
    assert_eq!((told(operations), told(duration)), (7, 7));
    assert!(held("front") > 0);

    drop(tree);
    eventually("no counter is left in the kernel", || {
        let left = all_held();
        if left == [0; 3] { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!((told(operations), told(duration)), (7, 7));
}

#[test]
fn a_container_in_a_v1_hierarchy_alone_is_counted_by_its_memory_cgroup() {
    require!(Root, CgroupV1Memory, Btf);
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let id = "1eaf".repeat(16);
    // In the unified hierarchy it stays where the tests are, most likely in the root.
    let memory = cgroup_mount_of("memory").expect("required");
    let folder = memory.path.join(bed.unique("tree")).join("docker").join(&id);
    fs::create_dir_all(&folder).expect("make a cgroup");
    let tree = Tree::of(&bed, vec![folder]);
    tree.run("for n in 1 2 3 4 5; do (:); done");
    let found = listed(&observatory, |c| c["id"] == *id);
    let path = found["cgroup"].as_str().expect("a path");
    let count = |metric: &str| observatory.metrics().count(metric, &[("id", path)]);
    // The shell itself ends there, too.
    assert_eq!((count("terrarium_clone_total"), count("terrarium_exit_total")), (5, 6));
}

#[test]
fn more_containers_than_the_kernels_first_cells_tell_apart_are_counted_exactly() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let unified = cgroup_mounts().into_iter().find(|mount| mount.version == 2).expect("required");
    let parent = unified.path.join(bed.unique("tree")).join("docker");
    let ids: Vec<String> = (0..300).map(|n| format!("{n:064x}")).collect();
    for id in &ids {
        fs::create_dir_all(parent.join(id)).expect("make a cgroup");
    }
    let _removed = Tree::of(&bed, Vec::new());
    let path = format!("/{}", bed.unique("tree"));
    let observatory = Observatory::start(&bed, &["--watch", &path, "--max-series", "0"]);
    // Each pair of brackets is a process; the last one becomes another program twice, and makes all mounts private.
    let script = "for id do echo $$ > $id/cgroup.procs; \
                  for n in 1 2 3; do (:); done; busybox unshare -mui busybox true; done";
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).args(ids.iter().map(|id| parent.join(id)));
    process::run(&mut command).success();
    let metrics = observatory.metrics();
    for id in &ids {
        let own = format!("{path}/docker/{id}");
        let count = |metric: &str| metrics.count(metric, &[("id", &own)]);
        let counted = [
            "terrarium_clone_total",
            "terrarium_exec_total",
            "terrarium_exit_total",
            "terrarium_namespace_create_total",
            "terrarium_mount_operations_total",
        ]
        .map(count);
        // The shell itself ends in the last one.
        let ends = if Some(id) == ids.last() { 5 } else { 4 };
        assert_eq!(counted, [4, 2, ends, 3, 1], "{own}");
    }
    // Two that find the same cell: one of them is counted behind it.
    let held = |map: &str| metrics.count("terrarium_map_entries", &[("map", map)]);
    assert!(held("front") > 1000 && held("counts") > 0, "{} {}", held("front"), held("counts"));
}

#[test]
fn a_bare_container_of_runc_has_its_name_its_labels_and_its_counts() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("runc"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let bundle = bed.folder().join("bundle");
    fs::create_dir(&bundle).expect("make folder");
    process::run(Command::new("runc").arg("spec").arg("--bundle").arg(&bundle)).success();
    let file = bundle.join("config.json");
    let mut spec: Value =
        serde_json::from_slice(&fs::read(&file).expect("runc wrote it")).expect("JSON");
    let script = "for n in 1 2 3 4 5; do (:); done; exec sleep 100";
    spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
    spec["process"]["terminal"] = json!(false);
    spec["process"].as_object_mut().expect("an object").remove("rlimits");
    spec["root"] = json!({"path": bed.rootfs(), "readonly": true});
    spec["annotations"] = json!({"team": "blue"});
    spec["linux"]["cgroupsPath"] = json!(format!("/{}", bed.unique("bare")));
    fs::write(&file, spec.to_string()).expect("write file");
    let name = bed.unique("box");
    // Its own root would be where no observatory looks.
    let mut command = Command::new("runc");
    command.args(["run", "--bundle"]).arg(&bundle).arg(&name);
    let mut running = Process::spawn(&mut command);
    let found = listed(&observatory, |c| c["name"] == *name);
    assert_eq!((&found["runtime"], &found["kind"]), (&json!("runc"), &json!("container")));
    assert_eq!(found["labels"]["team"], "blue");
    assert!(found["pid"].is_u64(), "{found:#}");
    eventually("its processes are counted, the first included", || {
        let wanted = [("name", name.as_str()), ("kind", "process")];
        let count = observatory.metrics().count("terrarium_clone_total", &wanted);
        if count >= 5 { Ok(()) } else { Err(format!("{count} of 5")) }
    });
    process::run(Command::new("runc").args(["delete", "--force", &name])).success();
    running.wait();
}

/// Starts a container by Podman, and waits until it has the name that Podman gave it.
fn named_by_podman(bed: &TestBed, podman: &Podman<'_>, observatory: &Observatory) -> String {
    let name = bed.unique("pod");
    podman.run("pod", &["-d", "--net", "none"], &["sleep", "100"]).success();
    let found = listed(observatory, |c| c["name"] == *name);
    assert_eq!((&found["runtime"], &found["state"]), (&json!("podman"), &json!("running")));
    assert!(found["pid"].is_u64(), "{found:#}");
    name
}

#[test]
fn a_container_of_podman_has_the_name_that_podman_gave_it() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("podman"), Program("runc"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    named_by_podman(&bed, &Podman::with_runtime(&bed, "runc"), &observatory);
}

#[test]
fn a_container_of_podman_with_terrarium_as_its_runtime_has_its_name_too() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("podman"));
    let bed = TestBed::new();
    // Podman lets its runtime keep the state where that keeps it by itself.
    let observe = Command::new(binaries::terrarium());
    let observatory = Observatory::start_by(observe, &["--no-history"]);
    let podman = Podman::new(&bed);
    let name = named_by_podman(&bed, &podman, &observatory);
    podman.call(&["pause", &name]).success();
    listed(&observatory, |c| c["name"] == *name && c["state"] == "paused");
    podman.call(&["unpause", &name]).success();
    listed(&observatory, |c| c["name"] == *name && c["state"] == "running");
}

#[test]
fn an_observatory_in_a_cgroup_namespace_of_its_own_sees_as_from_the_hosts() {
    require!(Root, CgroupV2, Btf, Program("busybox"), UtilLinux);
    let bed = TestBed::new();
    let tree = Tree::new(&bed, "inner");
    let observatory = Observatory::start_by(tree.terrarium_in_own_namespace(&bed), &[]);
    let container = bed.container("seen").with(["--memory", "64m"]).follow();
    let uses_memory = |c: &Value| c["memory"]["usage_bytes"].as_u64().is_some_and(|n| n > 0);
    listed(&observatory, |c| c["name"] == *container.name() && uses_memory(c));
    assert!(!observatory.output().contains("cgroup namespace"), "{}", observatory.output());
}

#[test]
fn looks_from_a_cgroup_namespace_of_its_own_find_the_same() {
    require!(Root, CgroupV2, Program("busybox"), UtilLinux);
    let bed = TestBed::new();
    let tree = Tree::new(&bed, "inner");
    let container =
        bed.container("seen").with(["--memory", "64m", "--cap-add", "SYS_ADMIN"]).follow();
    let other = bed.container("other").follow();
    let words: [&[&str]; 3] = [
        &["leaks", container.name(), "--format", "json"],
        &["namespaces", "--format", "json"],
        &["diff", container.name(), other.name(), "--format", "json"],
    ];
    for words in words {
        let outside = bed.run(words);
        let inside = bed.finish(tree.terrarium_in_own_namespace(&bed).args(words));
        assert_eq!(inside.code, outside.code, "{words:?}: {inside:?}");
        let of_containers = |text: &str| {
            let names = [container.name(), other.name()];
            let lines = text.lines().filter(|line| names.iter().any(|name| line.contains(name)));
            let mut checks: Vec<String> = lines
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .map(|line| {
                    ["check", "kind", "inode", "walls"].map(|key| line[key].to_string()).concat()
                })
                .collect();
            checks.sort();
            checks
        };
        assert_eq!(of_containers(&inside.stdout), of_containers(&outside.stdout), "{words:?}");
    }
}

#[test]
fn two_hundred_short_lives_are_all_attributed() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let hex = "feed".repeat(16);
    // The same path again and again: made, one process in it, gone.
    let tree = Tree::new(&bed, "docker");
    let unified = tree.folders().find(|folder| {
        cgroup_mounts().iter().any(|m| m.version == 2 && folder.starts_with(&m.path))
    });
    let folder = unified.expect("a v2 hierarchy").join(&hex);
    let script = format!(
        "n=0; while [ $n -lt 200 ]; do mkdir {0}; sh -c 'echo $$ > {0}/cgroup.procs; (:); :'; rmdir {0}; n=$((n+1)); done",
        folder.display()
    );
    process::run(Command::new("sh").args(["-ec", &script])).success();
    eventually("each life has left its count", || {
        let wanted = [("name", &hex[..12]), ("kind", "process")];
        let count = observatory.metrics().count("terrarium_clone_total", &wanted);
        if count == 200 { Ok(()) } else { Err(format!("{count} of 200")) }
    });
    let found = listed(&observatory, |c| c["id"] == *hex);
    assert_eq!(found["generation"], 200, "{found:#}");
}
