//! The textbook example of cgroups: a memory cgroup with a limit, which its children inherit.

use std::fs;
use terrarium_tests::{TestBed, kernel_state, require};

const LIMIT: u64 = 32 << 20;

#[test]
fn a_memory_limit_stands_in_the_containers_cgroup_and_holds_for_its_processes() {
    require!(Root, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("limited").with(["--memory", "32m"]).follow();
    let mount = kernel_state::cgroup_mount_of("memory").expect("the test requires the controller");
    let (hierarchy, file) = match mount.version {
        1 => ("memory", "memory.limit_in_bytes"),
        _ => ("unified", "memory.max"),
    };
    let cgroup = container.cgroup(hierarchy).expect("state.json names the memory cgroup");
    assert!(cgroup.starts_with(&mount.path) && cgroup != mount.path, "{}", cgroup.display());
    let limit = fs::read_to_string(cgroup.join(file)).expect("the cgroup has a limit");
    assert_eq!(limit.trim().parse(), Ok(LIMIT));

    let pid = container.state()["pid"].to_string();
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).expect("the cgroup has members");
    assert!(members.lines().any(|line| line == pid), "{pid} is in {members:?}");
    assert_eq!(container.call("touch-in-child 16000000")["code"], 0);
    assert_eq!(container.call("touch-in-child 64000000")["code"], 137);
}

#[test]
fn a_child_cgroup_cannot_pass_the_limit_of_its_parent() {
    require!(Root, CgroupV1Memory, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("parent").with(["--memory", "32m"]).follow();
    let parent = container.cgroup("memory").expect("state.json names the memory cgroup");
    let child = parent.join("child");
    fs::create_dir(&child).expect("root may make a child cgroup");
    // Twice what the parent has; the kernel takes it, and the parent's limit holds all the same.
    fs::write(child.join("memory.limit_in_bytes"), (LIMIT * 2).to_string())
        .expect("a limit is taken");
    let nap = container.call("nap")["pid"].clone();
    let holder = container.call("hold 20000000")["pid"].clone();
    let members = fs::read_to_string(parent.join("cgroup.procs")).expect("the cgroup has members");
    assert_eq!(members.lines().count(), 3, "the workload, {nap} and {holder}: {members}");
    // The workload itself moves down; what it forks is in the child cgroup from its first instruction.
    fs::write(child.join("cgroup.procs"), container.state()["pid"].to_string()).expect("it moves");
    assert_eq!(container.call("touch-in-child 48000000")["code"], 137, "the parent's limit holds");
    container.call(&format!("wake {nap}"));
    container.call(&format!("wake {holder}"));
    // The cgroup that the test made goes with the container's.
    assert_eq!(container.finish().code, 0);
    bed.assert_nothing_left();
}

#[test]
fn a_pids_limit_holds() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("few").with(["--pids", "5"]).follow();
    let naps: Vec<_> = std::iter::from_fn(|| container.attempt("nap").ok()).take(10).collect();
    assert_eq!(naps.len(), 4, "the workload and four more");
}

#[test]
fn a_cpu_limit_stands_in_the_containers_cgroup() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let container = bed.container("slow").with(["--cpus", "0.5"]).follow();
    let mount = kernel_state::cgroup_mount_of("cpu").expect("the kernel has the cpu controller");
    let ratio = if mount.version == 1 {
        let cgroup = container.cgroup("cpu").expect("state.json names the cpu cgroup");
        let read = |name: &str| fs::read_to_string(cgroup.join(name)).expect("the cgroup has it");
        format!("{} {}", read("cpu.cfs_quota_us").trim(), read("cpu.cfs_period_us").trim())
    } else {
        let cgroup = container.cgroup("unified").expect("state.json names the cgroup");
        fs::read_to_string(cgroup.join("cpu.max")).expect("the cgroup has it").trim().to_owned()
    };
    assert_eq!(ratio, "50000 100000");
}
