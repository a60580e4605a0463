//! The memory limit: who stands at it, and whom the kernel kills for it.

use std::path::Path;
use std::process::Stdio;
use terrarium_tests::process::Process;
use terrarium_tests::{
    Observatory, Running, TestBed, events, eventually, kernel_state, require, rootfs,
};

const LIMIT: [&str; 2] = ["--memory", "32m"];

/// The folder of the container's cgroup in the hierarchy of the memory controller.
fn memory_cgroup(container: &Running<'_>) -> std::path::PathBuf {
    let mount = kernel_state::cgroup_mount_of("memory").expect("the test requires the controller");
    let hierarchy = if mount.version == 1 { "memory" } else { "unified" };
    container.cgroup(hierarchy).expect("state.json names the memory cgroup")
}

/// OOM kills as the kernel itself counts them.
fn oom_kills(cgroup: &Path) -> u64 {
    let (v1, v2) = (cgroup.join("memory.oom_control"), cgroup.join("memory.events"));
    let file = if v1.exists() { v1 } else { v2 };
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("{} has no oom_kill: {text}", file.display()))
}

#[track_caller]
fn metric_equals_kernel(observatory: &Observatory, container: &Running<'_>, expected: u64) {
    assert_eq!(oom_kills(&memory_cgroup(container)), expected, "the kernel's own count");
    let name = container.name();
    eventually("the metric has the kernel's count", || {
        let found = observatory.metrics().count("terrarium_oom_kills_total", &[("name", name)]);
        if found == expected {
            return Ok(());
        }
        let events = observatory.events();
        let victims = events::of(&events, name, "memory.oom");
        Err(format!("terrarium_oom_kills_total is {found}; the victims: {victims:#?}"))
    });
}

#[test]
fn an_oom_kill_at_the_limit_is_counted_for_its_container_as_the_kernel_counts_it() {
    require!(Root, CgroupV2, MemoryController, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("full").with(LIMIT).follow();
    let mut beside = bed.container("beside").with(LIMIT).follow();
    observatory.wait_for(container.name());
    observatory.wait_for(beside.name());

    // The task that runs into the limit is not the one that the kernel takes: that is the holder. Before its memory has come
    // back the kernel may find no other way than to take the task as well.
    let holder = container.call("hold 20000000")["pid"].clone();
    let toucher = container.call("touch-in-child 20000000")["code"].clone();
    assert_eq!(container.call(&format!("wake {holder}"))["code"], 137);
    assert_eq!(beside.call("touch-in-child 8000000")["code"], 0);
    let kills = 1 + u64::from(toucher == 137);

    metric_equals_kernel(&observatory, &container, kills);
    metric_equals_kernel(&observatory, &beside, 0);
    let metrics = observatory.metrics();
    let hits = |name: &str| metrics.count("terrarium_memory_limit_hits_total", &[("name", name)]);
    assert!(hits(container.name()) > 0, "the container stood at its limit");
    assert_eq!(hits(beside.name()), 0, "the other one did not");
    let stalls =
        metrics.count("terrarium_memory_stall_seconds_count", &[("name", container.name())]);
    assert!(stalls > 0, "each time at the limit is a stall");
    let oom_exits = [("name", container.name()), ("cause", "oom")];
    assert_eq!(metrics.count("terrarium_exit_total", &oom_exits), kills);
}

#[test]
fn an_oom_kill_that_a_task_of_another_cgroup_brings_about_is_counted_for_the_victims_container() {
    require!(Root, CgroupV2, CgroupV1Memory, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    // Before the victim's memory has come back the kernel may take the task at the limit as well, which then says nothing.
    let shown = (0..5).any(|attempt| {
        let mut container = bed.container(&format!("victim{attempt}")).with(LIMIT).follow();
        observatory.wait_for(container.name());
        let holder = container.call("hold 24000000")["pid"].clone();
        let elsewhere = counted_for_the_root(&observatory);
        let survived = touch_as_a_task_of_the_host(&bed, &memory_cgroup(&container));
        assert_eq!(container.call(&format!("wake {holder}"))["code"], 137);
        if survived {
            metric_equals_kernel(&observatory, &container, 1);
            let now = counted_for_the_root(&observatory);
            assert_eq!(now, elsewhere, "counted for the cgroup of the task that ran");
        }
        survived
    });
    assert!(shown, "the task at the limit was the victim each time");
}

/// OOM kills that stand under the root cgroup, where the task that ran is for the probes.
fn counted_for_the_root(observatory: &Observatory) -> Vec<u64> {
    let metrics = observatory.metrics();
    let samples = metrics.select("terrarium_oom_kills_total", &[("id", "/")]);
    samples.map(|sample| sample.value.to_bits()).collect()
}

/// A task that for the memory controller is in `cgroup`, and in every other hierarchy, the unified one that the probes
/// go by included, where this process is. It goes over the limit with what the container holds; whether it survived.
fn touch_as_a_task_of_the_host(bed: &TestBed, cgroup: &Path) -> bool {
    let mut trigger = Process::spawn(
        std::process::Command::new(bed.rootfs().join(&rootfs::WORKLOAD[1..]))
            .arg("follow")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let procs = cgroup.join("cgroup.procs");
    std::fs::write(&procs, trigger.pid().to_string())
        .unwrap_or_else(|error| panic!("write {}: {error}", procs.display()));
    let mut instructions = trigger.child().stdin.take().expect("stdin is piped");
    std::io::Write::write_all(&mut instructions, b"touch 12000000\n").expect("it reads");
    drop(instructions);
    trigger.wait() == 0
}
