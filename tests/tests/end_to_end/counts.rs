//! N operations inside a container are N in its metric, not more and not less.
//!
//! The workload waits between two instructions, so what the counters grow by in between is what the instruction did:
//! nothing has to be known about what the runtime does while it sets the container up.

use terrarium_tests::{
    Metrics, Observatory, TestBed, deadline, events, eventually, require, rootfs,
};

/// How much the series of the container called `name` have grown.
pub(crate) struct Growth<'a> {
    observatory: &'a Observatory,
    name: String,
    before: Metrics,
}

impl<'a> Growth<'a> {
    pub(crate) fn since_now(observatory: &'a Observatory, name: &str) -> Self {
        observatory.wait_for(name);
        Self { observatory, name: name.to_owned(), before: observatory.metrics() }
    }

    pub(crate) fn of(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        let mut labels = labels.to_vec();
        labels.push(("name", &self.name));
        self.observatory.metrics().count(metric, &labels) - self.before.count(metric, &labels)
    }

    /// Asserts growth by exactly `expected`: waits until it is reached, and looks again whether it is passed.
    #[track_caller]
    pub(crate) fn is(&self, metric: &str, labels: &[(&str, &str)], expected: u64) {
        let _ = deadline::within(std::time::Duration::from_secs(3), || {
            let found = self.of(metric, labels);
            if found >= expected { Ok(()) } else { Err(found.to_string()) }
        });
        let found = self.of(metric, labels);
        assert_eq!(found, expected, "{metric}{labels:?} of {}", self.name);
    }
}

#[test]
fn forks_in_a_container_are_counted_exactly_while_another_container_and_the_host_fork() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut counted = bed.container("counted").follow();
    let mut beside = bed.container("beside").follow();
    let growth = Growth::since_now(&observatory, counted.name());
    let growth_beside = Growth::since_now(&observatory, beside.name());

    std::thread::scope(|scope| {
        scope.spawn(|| beside.call("fork 700"));
        scope.spawn(|| {
            for _ in 0..100 {
                let code = std::process::Command::new("true").status().expect("true runs").code();
                assert_eq!(code, Some(0));
            }
        });
        assert_eq!(counted.call("fork 1000")["forks"], 1000);
    });

    growth.is("terrarium_clone_total", &[("kind", "process")], 1000);
    growth.is("terrarium_clone_total", &[("kind", "thread")], 0);
    growth.is("terrarium_exit_total", &[("cause", "exit")], 1000);
    growth_beside.is("terrarium_clone_total", &[("kind", "process")], 700);
}

#[test]
fn threads_and_execs_are_counted_apart_from_processes() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("threads").follow();

    let growth = Growth::since_now(&observatory, container.name());
    container.call("threads 300");
    growth.is("terrarium_clone_total", &[("kind", "thread")], 300);
    growth.is("terrarium_clone_total", &[("kind", "process")], 0);

    let growth = Growth::since_now(&observatory, container.name());
    container.call("exec 50");
    growth.is("terrarium_exec_total", &[], 50);
    growth.is("terrarium_clone_total", &[("kind", "process")], 50);
}

#[test]
fn namespaces_made_and_entered_are_counted_by_kind_and_result() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("namespaces").with(ADMIN).follow();
    let mut beside = bed.container("beside").with(ADMIN).follow();
    let growth = Growth::since_now(&observatory, container.name());
    let growth_beside = Growth::since_now(&observatory, beside.name());

    assert_eq!(container.call("unshare uts 40")["succeeded"], 40);
    assert_eq!(container.call("unshare ipc 30")["succeeded"], 30);
    assert_eq!(container.call("setns uts 70")["succeeded"], 70);
    assert_eq!(container.call("setns mnt 20")["succeeded"], 20);
    assert_eq!(beside.call("setns uts 5")["succeeded"], 5);
    container.call("cap-sys-admin off");
    assert_eq!(container.call("unshare uts 13")["failed"]["EPERM"], 13);
    assert_eq!(container.call("setns uts 17")["failed"]["EPERM"], 17);

    let create = "terrarium_namespace_create_total";
    growth.is(create, &[("ns", "uts"), ("via", "unshare"), ("result", "ok")], 40);
    growth.is(create, &[("ns", "ipc"), ("via", "unshare"), ("result", "ok")], 30);
    growth.is(create, &[("ns", "uts"), ("via", "unshare"), ("result", "error")], 13);
    growth.is(create, &[("via", "clone")], 0);
    let enter = "terrarium_namespace_enter_total";
    growth.is(enter, &[("ns", "uts"), ("result", "ok")], 70);
    growth.is(enter, &[("ns", "mnt"), ("result", "ok")], 20);
    growth.is(enter, &[("ns", "uts"), ("result", "error")], 17);
    growth_beside.is(enter, &[("ns", "uts")], 5);
    growth_beside.is(create, &[], 0);

    let name = container.name();
    eventually("each refused setns and unshare is an event that says EPERM", || {
        let events = observatory.events();
        let refused = |kind: &str| {
            events::of(&events, name, kind)
                .iter()
                .filter(|event| {
                    event["result"]["errno"] == "EPERM" && event["result"]["ok"] == false
                })
                .count()
        };
        let found = (refused("namespace.create"), refused("namespace.enter"));
        if found == (13, 17) { Ok(()) } else { Err(format!("found {found:?}")) }
    });
}

#[test]
fn counts_are_the_same_where_no_event_is_written() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--no-events"]);
    let mut container = bed.container("silent").with(ADMIN).follow();
    let growth = Growth::since_now(&observatory, container.name());

    assert_eq!(container.call("unshare uts 40")["succeeded"], 40);
    assert_eq!(container.call("unshare ipc 30")["succeeded"], 30);
    assert_eq!(container.call("setns uts 20")["succeeded"], 20);
    assert_eq!(container.call("mount 6")["succeeded"], 6);
    container.call("fork 50");
    container.call("cap-sys-admin off");
    assert_eq!(container.call("unshare uts 13")["failed"]["EPERM"], 13);

    let create = "terrarium_namespace_create_total";
    growth.is(create, &[("ns", "uts"), ("via", "unshare"), ("result", "ok")], 40);
    growth.is(create, &[("ns", "ipc"), ("via", "unshare"), ("result", "ok")], 30);
    growth.is(create, &[("result", "error")], 13);
    growth.is("terrarium_namespace_enter_total", &[("ns", "uts"), ("result", "ok")], 20);
    growth.is("terrarium_mount_operations_total", &[("op", "mount"), ("result", "ok")], 6);
    // Each unshare is made in a child of its own.
    growth.is("terrarium_clone_total", &[("kind", "process")], 50 + 40 + 30 + 13);
    let produced = observatory.metrics().count("terrarium_events_produced_total", &[]);
    assert_eq!(produced, 0);
}

#[test]
fn mounts_are_counted_by_operation_and_result() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("mounts").with(ADMIN).follow();
    let mut beside = bed.container("beside").with(ADMIN).follow();
    let growth = Growth::since_now(&observatory, container.name());
    let growth_beside = Growth::since_now(&observatory, beside.name());

    let answer = container.call("mount 60");
    assert_eq!((&answer["succeeded"], &answer["umounts"]["succeeded"]), (&60.into(), &60.into()));
    beside.call("mount 7");
    container.call("cap-sys-admin off");
    assert_eq!(container.call("mount 23")["failed"]["EPERM"], 23);

    let operations = "terrarium_mount_operations_total";
    growth.is(operations, &[("op", "mount"), ("result", "ok")], 60);
    growth.is(operations, &[("op", "umount"), ("result", "ok")], 60);
    growth.is(operations, &[("op", "mount"), ("result", "error")], 23);
    growth.is(operations, &[("op", "umount"), ("result", "error")], 0);
    growth_beside.is(operations, &[("op", "mount"), ("result", "ok")], 7);
    growth_beside.is(operations, &[("result", "error")], 0);

    let name = container.name();
    eventually("each refused mount is an event that says EPERM", || {
        let events = observatory.events();
        let refused = events::of(&events, name, "mount.mount")
            .iter()
            .filter(|event| event["result"]["errno"] == "EPERM")
            .count();
        if refused == 23 { Ok(()) } else { Err(format!("found {refused}")) }
    });
}

#[test]
fn calls_of_more_threads_than_there_are_slots_for_are_counted_exactly() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--no-events"]);
    let mut container = bed.container("crowd").with(ADMIN).follow();
    let growth = Growth::since_now(&observatory, container.name());
    // The probes have 1024 slots for calls in flight, and each of them is taken: what is counted goes another way.
    assert_eq!(container.call("crowd 1500 400")["succeeded"], 400);

    let operations = "terrarium_mount_operations_total";
    growth.is(operations, &[("op", "propagation"), ("result", "ok")], 400);
    growth.is("terrarium_mount_duration_seconds_count", &[], 400);
    assert_eq!(observatory.metrics().count("terrarium_counts_dropped_total", &[]), 0);
}

#[test]
fn a_container_that_lives_for_a_moment_is_told_by_name() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let container = bed.container("moment");
    container.run([rootfs::WORKLOAD, "true"]).success();

    let name = container.name();
    eventually("its exec and its exit are counted and told under its name", || {
        let metrics = observatory.metrics();
        let events = observatory.events();
        let found = (
            metrics.count("terrarium_clone_total", &[("name", name)]) >= 1,
            metrics.count("terrarium_exec_total", &[("name", name)]) >= 1,
            metrics.count("terrarium_exit_total", &[("name", name)]) >= 1,
            events::of(&events, name, "process.exec").len() == 1,
            !events::of(&events, name, "process.exit").is_empty(),
        );
        if found == (true, true, true, true, true) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// Options that give a container the right to mount and to make and enter namespaces, as `terrarium run` has them.
const ADMIN: [&str; 2] = ["--cap-add", "SYS_ADMIN"];
