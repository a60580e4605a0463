//! Calls that escapes from containers are made of, tried or done.

use crate::counts::Growth;
use serde_json::Value;
use std::collections::HashMap;
use terrarium_tests::{Observatory, TestBed, events, eventually, require};

/// What the workload does, and the event that it is.
const CALLS: &[(&str, &str)] = &[
    ("ptrace 7", "ptrace"),
    ("process-vm-write 6", "process_vm_write"),
    ("bpf 5", "bpf"),
    ("init-module 4", "module_load"),
    ("open-by-handle 8", "open_by_handle_at"),
    ("capset 9", "capset"),
    ("chroot 11 /", "chroot"),
    ("keyctl 12", "keyctl"),
    ("userfaultfd 13", "userfaultfd"),
    ("mknod 14 /node", "mknod_device"),
    ("perf 15", "perf_event_open"),
    ("pidfd-getfd 16", "pidfd_getfd"),
    ("write-open 17 /proc/sys/kernel/core_pattern", "kernel_tunable_write"),
    ("write-open 18 /proc/self/exe", "executable_write"),
    ("write-open 19 /proc/self/uid_map", "id_map_write"),
    ("seccomp 20", "seccomp"),
];

#[test]
fn guarded_calls_are_counted_and_told_by_event_and_result() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory =
        Observatory::start(&bed, &["--probes", "cgroup,guard", "--watch", "terrarium"]);
    // What seccomp refuses never reaches the call.
    let unconfined = ["--security-opt", "seccomp=unconfined"];
    let mut container = bed.container("guarded").with(unconfined).follow();
    let growth = Growth::since_now(&observatory, container.name());
    let metric = "terrarium_guard_events_total";

    let mut last_told = HashMap::new();
    for (call, event) in CALLS {
        let answer = container.call(&format!("guard {call}"));
        let failed = answer["failed"].as_object().expect("a tally");
        // A call that the kernel was built without has no place to hook into.
        let built = !failed.contains_key("ENOSYS");
        let errors = failed.values().filter_map(Value::as_u64).sum::<u64>() * u64::from(built);
        let done = answer["succeeded"].as_u64().expect("a tally");
        growth.is(metric, &[("event", event), ("result", "ok")], done);
        growth.is(metric, &[("event", event), ("result", "error")], errors);
        if built {
            let kind = format!("guard.{event}");
            // Kept at once: on a busy host the observatory soon forgets them for later ones.
            let told = eventually("each call is an event with its result", || {
                let all = observatory.events();
                let told = events::of(&all, container.name(), &kind);
                let wrong = told.iter().find(|event| events::fault(event).is_some());
                assert_eq!(wrong, None);
                let ok = told.iter().filter(|event| event["result"]["ok"] == true).count() as u64;
                // Setting the container up made some, of the runtime's own.
                if ok >= done && told.len() as u64 - ok >= errors {
                    Ok(told.last().copied().cloned().unwrap_or(Value::Null))
                } else {
                    Err(format!("{} of {kind}, {ok} of them ok", told.len()))
                }
            });
            last_told.insert(*event, told);
        }
    }

    let other_ways = [
        ("write-open 3 /proc/self/gid_map", "id_map_write", 19 + 3),
        ("prctl-seccomp 4", "seccomp", 20 + 4),
    ];
    for (call, event, count) in other_ways {
        container.call(&format!("guard {call}"));
        growth.is(metric, &[("event", event), ("result", "ok")], count);
    }

    let before = growth.of(metric, &[]);
    container.call("guard bpf-read 50");
    container.call("guard read-open 50 /proc/self/exe");
    container.call("guard read-open 50 /proc/sys/kernel/core_pattern");
    container.call("guard write-open 50 /dev/null");
    // Looking up a name makes such a socket; only who makes a container is told of.
    container.call("guard route-socket 50");
    growth.is(metric, &[], before);

    let last = |event: &str| last_told.get(event).cloned().unwrap_or(Value::Null);
    let ptrace = last("ptrace");
    assert_eq!(ptrace["guard"]["operation"], "PTRACE_SEIZE", "{ptrace}");
    assert!(ptrace["target"]["process"]["ns_pid"].is_u64(), "{ptrace}");
    assert_eq!(last("chroot")["guard"]["path"], "/");
    let capset = last("capset");
    let effective = capset["guard"]["effective"].as_array().expect("a list");
    assert!(effective.contains(&"CAP_CHOWN".into()), "{capset}");
    let node = last("mknod_device");
    assert_eq!(node["guard"]["device"]["kind"], "char", "{node}");
    assert_eq!(
        (&node["guard"]["device"]["major"], &node["guard"]["device"]["minor"]),
        (&1.into(), &3.into()),
        "{node}"
    );
    let taken = last("pidfd_getfd");
    assert_eq!(taken["target"]["process"]["pid"], taken["process"]["pid"], "{taken}");
    let tunable = last("kernel_tunable_write");
    assert_eq!(tunable["guard"]["path"], "/proc/sys/kernel/core_pattern", "{tunable}");
    assert_eq!(tunable["guard"]["flag_names"][0], "O_WRONLY", "{tunable}");
    assert_eq!(last("executable_write")["result"]["errno"], "ETXTBSY");
    assert_eq!(last("id_map_write")["guard"]["path"], "/proc/self/uid_map");
    assert_eq!(last("seccomp")["guard"]["call"], "seccomp");
}

#[test]
fn a_kernel_tunable_is_recognised_by_whatever_name_it_is_opened() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probes", "cgroup,guard"]);
    // Opened for writing, never written to.
    let volume = ["-v", "/proc/sys/kernel/core_pattern:/tmp/harmless"];
    let mut container = bed.container("disguised").with(volume).follow();
    let growth = Growth::since_now(&observatory, container.name());
    let opened = container.call("guard write-open 3 /tmp/harmless");
    assert_eq!(opened["succeeded"], 3, "{opened}");
    let written = [("event", "kernel_tunable_write"), ("result", "ok")];
    growth.is("terrarium_guard_events_total", &written, 3);
}
