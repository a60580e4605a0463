//! Neither container sees what is the other's or the host's.

use serde_json::{Value, json};
use std::process::Command;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::rootfs::WORKLOAD;
use terrarium_tests::{Outcome, Running, TestBed, binaries, require};

/// `CAP_SYS_ADMIN`, `CAP_SYS_MODULE`, `CAP_SYS_RAWIO`, `CAP_SYS_PTRACE`, `CAP_SYS_BOOT`, `CAP_SYS_TIME`, `CAP_BPF`: capability(7).
const DANGEROUS: u64 = 1 << 21 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 22 | 1 << 25 | 1 << 39;

fn list(value: &Value) -> Vec<i64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// The inode of a namespace of this process.
fn own_namespace(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}"))
        .expect("/proc is mounted")
        .to_string_lossy()
        .into_owned()
}

fn pair(bed: &TestBed) -> (Running<'_>, Running<'_>) {
    let start =
        |name: &str| bed.container(name).with(["--net", "bridge", "--hostname", name]).follow();
    (start("one"), start("two"))
}

#[test]
fn containers_do_not_see_each_others_processes() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (mut one, mut two) = pair(&bed);
    let nap = one.call("nap")["pid"].as_i64().expect("nap tells its pid");
    assert_eq!(list(&one.call("about")["pids"]), [1, nap]);
    let seen = two.call("about");
    assert_eq!(seen["pid"], 1);
    assert_eq!(list(&seen["pids"]), [1]);
}

#[test]
fn containers_do_not_see_each_others_host_names() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let host = nix::unistd::gethostname().expect("the host has a name");
    let (mut one, mut two) = pair(&bed);
    assert_eq!(one.call("about")["hostname"], "one");
    assert_eq!(two.call("about")["hostname"], "two");
    assert_eq!(nix::unistd::gethostname().expect("the host has a name"), host);
}

#[test]
fn containers_do_not_see_each_others_system_v_ipc_objects() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (mut one, mut two) = pair(&bed);
    one.call("ipc-create 4711");
    let (own, other) = (one.call("ipc-list"), two.call("ipc-list"));
    for kind in ["shm", "msg", "sem"] {
        assert_eq!(list(&own[kind]), [4711], "{kind} of its own");
        assert_eq!(list(&other[kind]), [] as [i64; 0], "{kind} of the other");
        let table = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        assert!(!table.contains(" 4711 "), "{kind} of the host: {table}");
    }
    // The same key is free in the other container.
    two.call("ipc-create 4711");
}

#[test]
fn containers_do_not_see_each_others_mounts_nor_those_of_the_host() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let volume = bed.folder().join("volume");
    std::fs::create_dir(&volume).expect("the test's folder is writable");
    std::fs::write(volume.join("file"), "from outside").expect("the test's folder is writable");
    let source = format!("{}:/volume", volume.display());
    let mut one = bed.container("one").with(["--volume", &source]).follow();
    let mut two = bed.container("two").follow();

    assert_eq!(one.call("read /volume/file")["text"], "from outside");
    let point =
        |about: &Value| about["mounts"].as_str().is_some_and(|text| text.contains(" /volume "));
    assert!(point(&one.call("about")));
    let other = two.call("about");
    assert!(!point(&other));
    // Neither the host's mounts nor the old root are left over after pivot_root.
    let mounts = other["mounts"].as_str().unwrap_or_default();
    for line in mounts.lines() {
        let target = line.split(' ').nth(4).unwrap_or_default();
        let expected = ["/proc", "/sys", "/dev"].iter().any(|known| target.starts_with(known))
            || ["/", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"].contains(&target);
        assert!(expected, "unexpected mount in a container: {line}");
    }
    let host = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    assert!(
        !host.contains(bed.folder().to_str().expect("the path is text")),
        "seen on the host: {host}"
    );
}

#[test]
fn every_namespace_is_private() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (mut one, mut two) = pair(&bed);
    let (one_about, two_about) = (one.call("about"), two.call("about"));
    for kind in ["mnt", "net", "pid", "ipc", "uts", "cgroup"] {
        let (a, b) = (&one_about["namespaces"][kind], &two_about["namespaces"][kind]);
        assert!(a.is_u64(), "{kind} is known: {one_about}");
        assert_ne!(a, b, "{kind} is shared by two containers");
        assert_ne!(format!("{kind}:[{a}]"), own_namespace(kind), "{kind} is the host's");
        assert_eq!(&one.state()["namespaces"][kind], a, "state.json knows the {kind} namespace");
    }
}

/// Keys of whoever calls the runtime (tickets, passwords of file systems) are in his session's keyring, which programs inherit.
#[test]
fn the_keys_of_the_callers_session_stay_his() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let serial = |outcome: Outcome| {
        let answer: Value = serde_json::from_str(&outcome.stdout).expect("it answers in JSON");
        answer["session"].as_u64()
    };
    let command = [WORKLOAD, "keyring"];
    let own = serial(bed.finish(Command::new(binaries::workload()).arg("keyring")));
    if own.is_none() {
        // A kernel without keys has none to take.
        return;
    }
    let bundle = Bundle::new(&bed, "keys", &command);
    let inside = serial(bundle.run());
    assert!(inside.is_some() && inside != own, "{inside:?} inside, {own:?} outside");
    let mut asked = bed.runtime();
    asked.args(["run", "--no-new-keyring", "--bundle"]).arg(bundle.folder()).arg(bundle.id());
    assert_eq!(serial(bed.finish(&mut asked)), own);
    bundle.change(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    let joined = serial(bundle.call("exec", &command));
    assert!(joined.is_some() && joined != own, "{joined:?} by exec, {own:?} outside");
    bundle.call("delete", &["--force"]).success();
}

#[test]
fn the_root_of_the_cgroup_namespace_is_the_containers_cgroup() {
    require!(Root, CgroupV2, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("rooted").with(["--memory", "32m"]).follow();
    let about = container.call("about");
    let cgroups = about["cgroups"].as_str().unwrap_or_default();
    assert!(!cgroups.is_empty());
    for line in cgroups.lines() {
        assert!(line.ends_with(":/"), "a cgroup outside of the namespace's root: {line}");
    }
}

#[test]
fn rights_are_taken_away_unless_asked_for() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("rights").follow();
    let status = container.call("about")["status"].clone();
    assert_eq!(status["NoNewPrivs"], "1");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let text = status[set].as_str().unwrap_or_default();
        let bits =
            u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{set} {text}: {error}"));
        assert_eq!(bits & DANGEROUS, 0, "{set} is {text}");
    }
    let refused = container.call("unshare mnt 1");
    assert_eq!(refused["failed"]["EPERM"], 1, "{refused}");
}

#[test]
fn kernel_interfaces_are_masked_or_read_only() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("masked").follow();
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        if std::path::Path::new(path).exists() {
            let seen = container.attempt(&format!("read {path}"));
            let empty = seen.as_ref().is_ok_and(|answer| answer["text"] == "");
            assert!(empty || seen.is_err(), "{path} is readable in a container");
        }
    }
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"] {
        let answer = container.call(&format!("run dd if=/dev/null of={path}"));
        assert_ne!(answer["code"], 0, "{path} is writable in a container");
    }
    let devices = container.call("run ls /dev");
    let devices = devices["stdout"].as_str().unwrap_or_default();
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd"] {
        assert!(devices.lines().any(|line| line == name), "/dev/{name} is missing: {devices}");
    }
    for name in ["kmsg", "mem", "sda", "vda"] {
        assert!(!devices.lines().any(|line| line == name), "/dev/{name} is the host's");
    }
}

#[test]
fn a_read_only_root_refuses_writes() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let outcome = bed.container("read-only").with(["--read-only"]).run(["touch", "/file"]);
    assert_ne!(outcome.code, 0);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    assert!(!bed.rootfs().join("file").exists());
}
