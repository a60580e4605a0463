//! Limits that change, frozen containers, and what a container uses.

use serde_json::{Value, json};
use std::fs;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::kernel_state::cgroup_mount_of;
use terrarium_tests::{TestBed, eventually, require};

/// A program that counts, a line for each number. It appends: one that writes the file anew may be frozen
/// between emptying and filling it.
const COUNT: &str = "i=0; while :; do i=$((i + 1)); echo $i >> /dev/shm/i; sleep 0.01; done";

fn started<'a>(bed: &'a TestBed, name: &str) -> Bundle<'a> {
    let bundle = Bundle::new(bed, name, &["sh", "-c", COUNT]);
    bundle.change(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }));
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    bundle
}

/// The number that the program wrote last.
fn number(bundle: &Bundle<'_>) -> String {
    let path = bundle.inside("dev/shm/i");
    eventually("the program counts", || {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        text.lines().last().map(str::to_owned).ok_or(text)
    })
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    require!(Root, Program("busybox"), CgroupV2);
    let bed = TestBed::new();
    let bundle = started(&bed, "paused");
    number(&bundle);
    bundle.call("pause", &[]).success();
    assert_eq!(bundle.state()["status"], "paused");
    let before = number(&bundle);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(number(&bundle), before, "nothing runs while it is paused");
    let twice = bundle.call("pause", &[]);
    assert!(twice.code == 1 && twice.stderr.contains("it is paused"), "{twice:?}");
    let inside = bundle.call("exec", &["true"]);
    assert!(inside.code == 1 && inside.stderr.contains("paused"), "{inside:?}");

    bundle.call("resume", &[]).success();
    assert_eq!(bundle.state()["status"], "running");
    eventually("it counts on", || {
        let now = number(&bundle);
        if now == before { Err(now) } else { Ok(()) }
    });
    // A paused container can be killed and removed.
    bundle.call("pause", &[]).success();
    bundle.call("delete", &["--force"]).success();
    bed.assert_nothing_left();
}

#[test]
fn limits_are_changed_as_a_whole_or_not_at_all() {
    require!(Root, Program("busybox"), MemoryController);
    let bed = TestBed::new();
    let bundle = started(&bed, "updated");
    let limits = || {
        let stats: Value =
            serde_json::from_str(&bundle.call("events", &["--stats"]).success()).unwrap();
        let data = &stats["data"];
        (data["memory"]["usage"]["limit"].as_u64(), data["pids"]["limit"].as_u64())
    };
    assert_eq!(limits(), (Some(64 << 20), None));
    // A controller that the container had no use for until now comes along.
    bundle.call("update", &["--memory", "96m", "--pids-limit", "30"]).success();
    assert_eq!(limits(), (Some(96 << 20), Some(30)));
    let pid = bundle.state()["pid"].to_string();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        cgroup.lines().any(|line| line.contains("pids") && line.contains(bundle.id()))
            || cgroup.starts_with("0::"),
        "{cgroup}"
    );

    // One limit is impossible: the other stays as it was.
    let file = bed.folder().join("resources.json");
    let path = file.to_str().expect("paths of tests are UTF-8");
    fs::write(&file, json!({ "cpu": { "cpus": "4095" }, "pids": { "limit": 78 } }).to_string())
        .unwrap();
    let refused = bundle.call("update", &["--resources", path]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(limits().1, Some(30), "{refused:?}");
    bundle.call("delete", &["--force"]).success();
    bed.assert_nothing_left();
}

#[test]
fn processes_and_statistics_are_what_the_kernel_says() {
    require!(Root, Program("busybox"), MemoryController);
    let bed = TestBed::new();
    let bundle = started(&bed, "used");
    let first = bundle.state()["pid"].as_i64().unwrap();
    let pids: Vec<i64> =
        serde_json::from_str(&bundle.call("ps", &["--format", "json"]).success()).unwrap();
    assert!(pids.contains(&first), "{pids:?}");
    let table = bundle.call("ps", &[]).success();
    assert!(table.contains(&first.to_string()), "{table}");
    let stats: Value =
        serde_json::from_str(&bundle.call("events", &["--stats"]).success()).unwrap();
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!(bundle.id())));
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{stats}");
    bundle.call("delete", &["--force"]).success();
    let gone = bundle.call("events", &["--stats"]);
    assert!(gone.code == 1 && gone.stderr.contains("does not exist"), "{gone:?}");
}

#[test]
fn without_cgroups_and_with_a_relative_path() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "plain", &["cat", "/proc/self/cgroup"]);
    let run = |options: &[&str]| {
        let mut command = bed.terrarium();
        command.args(options).args(["run", "--bundle"]).arg(bundle.folder()).arg(bundle.id());
        bed.finish(&mut command)
    };
    let text = run(&["--cgroup-manager", "disabled"]).success();
    assert!(!text.contains(bundle.id()), "{text}");
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = json!(format!("relative/{}", bundle.id())));
    let text = run(&[]).success();
    // The cgroup namespace hides the path; that nothing is left shows that it was known.
    assert!(text.lines().all(|line| !line.contains("..")), "{text}");
    bed.assert_nothing_left();
}

#[test]
fn stats_show_what_a_container_uses() {
    require!(Root, MemoryController, Program("busybox"), Program("nft"));
    let bed = TestBed::new();
    let options = ["--memory", "64m", "--pids", "50", "--net", "bridge"];
    let mut container = bed.container("used").with(options).follow();
    container.call("hold 20000000");
    container.call("run ping -c 1 -W 2 10.77.0.1");
    let name = container.name().to_owned();
    let said = bed.run(["stats", "--no-stream", "--format", "json"]).success();
    let all: Value = serde_json::from_str(&said).expect("stats prints JSON");
    let one = &all[0];
    assert_eq!(one["id"], name.as_str());
    assert_eq!(one["memory_limit"], 64 << 20);
    let usage = one["memory_usage"].as_u64().expect("it has a memory cgroup");
    assert!((20_000_000..64 << 20).contains(&usage), "{one}");
    assert_eq!(one["pids"], 2, "the workload and the one that holds memory");
    assert!(one["network_sent"].as_u64() > Some(0) && one["cpu_percent"].is_number(), "{one}");
    let table = bed.run(["stats", "--no-stream", &name]).success();
    assert!(table.contains("MEM USAGE / LIMIT") && table.contains("/ 64.0MiB"), "{table}");
    drop(container);
    let gone = bed.run(["stats", "--no-stream", &name]);
    assert!(gone.code == 1 && gone.stderr.contains("does not exist"), "{gone:?}");
    assert_eq!(bed.run(["stats", "--no-stream"]).success().lines().count(), 1, "the head alone");
}

#[test]
fn what_a_container_without_limits_uses_is_counted_where_the_host_counts() {
    require!(Root, Program("busybox"), CgroupV2Memory);
    let bed = TestBed::new();
    let mount = cgroup_mount_of("memory").expect("it is there").path;
    // As systemd has it.
    fs::write(mount.join("cgroup.subtree_control"), "+memory").expect("root may");
    let bundle = Bundle::new(&bed, "counted", &["sleep", "600"]);
    bundle.create(&[]).success();
    let pid = bundle.state()["pid"].to_string();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = cgroup.trim().strip_prefix("0::/").expect("it is in one cgroup");
    let used = fs::read_to_string(mount.join(path).join("memory.current")).unwrap();
    assert_ne!(used, "0\n");
    bundle.call("delete", &["--force"]).success();

    // A parent that has a process of its own hands nothing down: then it runs uncounted.
    let parent = bed.unique("busy");
    let folder = mount.join(&parent);
    fs::create_dir(&folder).expect("root may");
    let mut own = std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts");
    fs::write(folder.join("cgroup.procs"), own.id().to_string()).expect("root may");
    let bundle = Bundle::new(&bed, "uncounted", &["sleep", "600"]);
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{parent}/inner")));
    bundle.create(&[]).success();
    assert!(folder.join("inner/cgroup.procs").exists());
    assert!(!folder.join("inner/memory.current").exists());
    bundle.call("delete", &["--force"]).success();
    own.kill().and_then(|()| own.wait()).expect("it is ours");
    fs::remove_dir(&folder).expect("it is empty");
}
