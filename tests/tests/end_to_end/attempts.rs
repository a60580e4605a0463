//! Published ways out of containers, tried as far as this kernel lets them go: each attempt is seen, told by its name, and told
//! of the container that made it and of no other. All are harmless: what succeeds is undone or changes nothing.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use terrarium_tests::leak_case::{LeakCase, Runtime};
use terrarium_tests::{Observatory, TestBed, eventually, process, require};

/// One way out.
struct Attempt {
    /// Where it was published.
    name: &'static str,
    /// What the container is given that it should not have.
    options: &'static [&'static str],
    /// What its workload does; `{pid}` is a process outside.
    does: &'static str,
    /// The check that tells it.
    check: &'static str,
}

/// What seccomp refuses never reaches the call.
const UNCONFINED: [&str; 2] = ["--security-opt", "seccomp=unconfined"];
const ADMIN: [&str; 4] = ["--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN"];
const HOST_PIDS: [&str; 4] = ["--security-opt", "seccomp=unconfined", "--pid", "host"];

const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "Shocker (2014)",
        options: &["--security-opt", "seccomp=unconfined", "--cap-add", "DAC_READ_SEARCH"],
        does: "guard open-by-handle 1",
        check: "open-by-handle",
    },
    Attempt {
        name: "CVE-2019-5736",
        options: &UNCONFINED,
        does: "guard write-open 1 /proc/self/exe",
        check: "runtime-binary-opened-for-write",
    },
    Attempt {
        name: "CVE-2022-0492, the mount",
        options: &ADMIN,
        does: "run /bin/busybox mount -t cgroup -o rdma cgroup /tmp",
        check: "mount-performed",
    },
    Attempt {
        name: "CVE-2022-0492, the release agent",
        options: &["--volume", "/sys/fs/cgroup:/cgroups"],
        does: "guard write-open 1 /cgroups/memory/release_agent",
        check: "kernel-tunable-written",
    },
    Attempt {
        name: "CVE-2022-0811 (cr8escape)",
        options: &UNCONFINED,
        does: "guard write-open 1 /proc/sys/kernel/core_pattern",
        check: "kernel-tunable-written",
    },
    Attempt {
        name: "uevent_helper (docker issue 21950, 2016)",
        options: &UNCONFINED,
        does: "guard write-open 1 /sys/kernel/uevent_helper",
        check: "kernel-tunable-written",
    },
    Attempt {
        name: "modprobe_path by its sysctl",
        options: &UNCONFINED,
        does: "guard write-open 1 /proc/sys/kernel/modprobe",
        check: "kernel-tunable-written",
    },
    Attempt {
        name: "binfmt_misc (2019)",
        options: &UNCONFINED,
        does: "guard write-open 1 /proc/sys/fs/binfmt_misc/register",
        check: "kernel-tunable-written",
    },
    Attempt {
        name: "CVE-2016-9962",
        options: &HOST_PIDS,
        does: "guard ptrace-of 1 {pid}",
        check: "ptrace-across",
    },
    Attempt {
        name: "CVE-2012-0056 by process_vm_writev",
        options: &HOST_PIDS,
        does: "guard process-vm-write 1 {pid}",
        check: "process-memory-across",
    },
    Attempt {
        name: "CVE-2022-0185, CVE-2021-22555: a user namespace first",
        options: &UNCONFINED,
        does: "run /bin/busybox unshare -U true",
        check: "user-namespace-created",
    },
    Attempt {
        name: "CVE-2021-3490, CVE-2021-31440: a program for the eBPF verifier",
        options: &UNCONFINED,
        does: "guard bpf 1",
        check: "bpf-load",
    },
    Attempt {
        name: "CVE-2013-2094: perf_event_open",
        options: &UNCONFINED,
        does: "guard perf 1",
        check: "perf-opened",
    },
    Attempt {
        name: "CVE-2016-0728: keyctl",
        options: &UNCONFINED,
        does: "guard keyctl 1",
        check: "keyring-access",
    },
    Attempt {
        name: "CVE-2019-18683: userfaultfd to win its race",
        options: &UNCONFINED,
        does: "guard userfaultfd 1",
        check: "userfaultfd-created",
    },
    Attempt {
        name: "a kernel module from a privileged container",
        options: &["--privileged"],
        does: "guard init-module 1",
        check: "module-load",
    },
    Attempt {
        name: "the host's disk by mknod",
        options: &UNCONFINED,
        does: "run /bin/busybox mknod /tmp/disk b 7 0",
        check: "device-node-created",
    },
    Attempt {
        name: "chroot out of a chroot (chw00t)",
        options: &UNCONFINED,
        does: "guard chroot 1 /",
        check: "chroot-performed",
    },
    Attempt {
        name: "nsenter into a process of the host",
        // Whoever reaches for a process needs all the capabilities that it has.
        options: &["--privileged", "--pid", "host"],
        does: "run /bin/busybox nsenter -t {pid} -u true",
        check: "setns-out",
    },
    Attempt {
        name: "out of its limits by a writable cgroup filesystem",
        options: &["--volume", "/sys/fs/cgroup:/cgroups"],
        does: "run /bin/busybox sh /bin/leave-cgroup",
        check: "cgroup-escape",
    },
];

/// Moves itself to the root of the unified hierarchy.
const LEAVE_CGROUP: &str = "\
for folder in /cgroups/unified /cgroups; do
    [ -e $folder/cgroup.controllers ] && echo $$ > $folder/cgroup.procs
done
";

#[test]
fn published_escapes_are_seen_named_and_told_of_who_tried() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    fs::write(bed.rootfs().join("bin/leave-cgroup"), LEAVE_CGROUP).expect("the rootfs is writable");
    let observatory = Observatory::start(&bed, &["--event-rate", "0"]);
    let mut outside = process::Process::spawn(std::process::Command::new("sleep").arg("600"));
    let mut expected: BTreeMap<String, &Attempt> = BTreeMap::new();
    let mut kept = Vec::new();
    for (number, attempt) in ATTEMPTS.iter().enumerate() {
        let mut container = bed.container(&format!("try{number}")).with(attempt.options).follow();
        let does = attempt.does.replace("{pid}", &outside.pid().to_string());
        // What this kernel refuses was tried all the same.
        let answer = container.attempt(&does).unwrap_or_default();
        // A call or a file that it does not have is no way out of it.
        let has = |errno: &str| answer["failed"][errno].is_null();
        if has("ENOSYS") && has("ENOENT") {
            expected.insert(container.name().to_owned(), attempt);
        }
        kept.push(container);
    }
    assert!(expected.len() >= 15, "{}", expected.len());
    eventually("each attempt is told", || {
        let mut lacking = Vec::new();
        for (id, attempt) in &expected {
            let mut command = bed.terrarium();
            command.args(["leaks", id, "--format", "json", "--observatory", &observatory.url("")]);
            let outcome = process::run(&mut command);
            let findings: Vec<Value> = outcome
                .stdout
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()
                .map_err(|error| format!("{error}: {outcome:?}"))?;
            let events = findings.iter().filter(|finding| finding["source"] == "event");
            let checks: Vec<&str> = events.filter_map(|one| one["check"].as_str()).collect();
            // Nothing is told of it that another did.
            if !checks.contains(&attempt.check) || checks.iter().any(|one| *one != attempt.check) {
                lacking.push(format!("{} ({id}): {checks:?}, not {}", attempt.name, attempt.check));
            }
        }
        if lacking.is_empty() { Ok(()) } else { Err(lacking.join("\n")) }
    });
    for container in kept {
        container.finish();
    }
    outside.signal(nix::sys::signal::Signal::SIGKILL);
    outside.wait();
}

/// CVE-2020-15257: a shim of containerd's takes commands by an abstract socket of the host's network.
#[test]
fn a_shims_abstract_socket_is_critical() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let name = format!("/containerd-shim/{}/shim.sock", bed.unique("moby"));
    let address = SocketAddr::from_abstract_name(&name).expect("it is short");
    let _listener =
        bed.network().enter(|| UnixListener::bind_addr(&address).expect("the name is free"));
    let namespaces = json!([
        { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
    ]);
    let shared = json!({ "linux": { "namespaces": namespaces } });
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "shim", &shared);
        case.assert_found("host-abstract-socket", "high", &name, &["host-network-namespace"]);
    }
}
