//! `terrarium leaks`: containers with one opening each, and quiet ones, whoever started them.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::leak_case::{LeakCase, Runtime, assert_quiet};
use terrarium_tests::process::{self, Process};
use terrarium_tests::{Observatory, TestBed, eventually, require, turn};

/// Starts the hardened base with `fragment` by every runtime and asserts that `check` is found, and nothing else above
/// low but what is `allowed`.
#[track_caller]
fn check_in(
    bed: &TestBed,
    fragment: &Value,
    check: &str,
    least: &str,
    names: &str,
    allowed: &[&str],
) {
    for runtime in Runtime::available() {
        let case = LeakCase::start(bed, runtime, check, fragment);
        case.assert_found(check, least, names, allowed);
    }
}

#[track_caller]
fn check(fragment: &Value, check: &str, least: &str, names: &str, allowed: &[&str]) {
    check_in(&TestBed::new(), fragment, check, least, names, allowed);
}

fn without_namespace(kind: &str) -> Value {
    let all = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let rest: Vec<Value> =
        all.iter().filter(|k| **k != kind).map(|k| json!({ "type": k })).collect();
    json!({ "linux": { "namespaces": rest } })
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "mounts+": [
        { "destination": destination, "type": "bind", "source": source, "options": options }
    ] })
}

fn capabilities(names: &[&str]) -> Value {
    json!({ "process": { "capabilities":
        { "bounding+": names, "effective+": names, "permitted+": names } } })
}

/// Both fragments.
fn and(mut one: Value, other: &Value) -> Value {
    for (key, value) in other.as_object().expect("a fragment is an object").clone() {
        one[key] = match one[&key].take() {
            first if first.is_object() => and(first, &value),
            _ => value,
        };
    }
    one
}

/// Says in the stored spec of a container of terrarium's what it was not started with.
fn rewrite_spec(bed: &TestBed, id: &str, change: impl FnOnce(&mut Value)) {
    let path = bed.root().join(id).join("config.json");
    let mut spec = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("JSON");
    change(&mut spec);
    fs::write(&path, spec.to_string()).expect("it is writable");
}

fn pid_of(case: &LeakCase<'_>) -> i64 {
    case.state()["pid"].as_i64().expect("a container that runs has a pid")
}

/// Asserts that `check` is among the findings, and gives it.
#[track_caller]
fn find<'f>(findings: &'f [Value], check: &str) -> &'f Value {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("{check} is not found: {findings:#?}"))
}

#[track_caller]
fn assert_no(findings: &[Value], check: &str) {
    assert!(findings.iter().all(|finding| finding["check"] != check), "{findings:#?}");
}

#[test]
fn the_hardened_base_is_quiet() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "quiet", &json!({}));
        case.assert_quiet();
        assert_eq!(find(&case.leaks(&[]).1, "root-without-user-namespace")["severity"], "low");
        let busy =
            json!({ "process": { "args": ["sh", "-c", "while :; do ls / >/dev/null; done"] } });
        LeakCase::start(&bed, runtime, "busy", &busy).assert_quiet();
        let other = json!({ "process": { "user": { "uid": 1000, "gid": 1000 } } });
        let case = LeakCase::start(&bed, runtime, "user", &other);
        assert_no(&case.leaks(&[]).1, "root-without-user-namespace");
    }
}

#[test]
fn namespaces_of_the_host_that_it_sees() {
    require!(Root, Program("busybox"));
    check(&without_namespace("pid"), "host-pid-namespace", "medium", "4026531836", &[]);
    check(&without_namespace("network"), "host-network-namespace", "medium", "net:[", &[]);
    check(&without_namespace("ipc"), "host-ipc-namespace", "medium", "4026531839", &[]);
}

#[test]
fn namespaces_of_the_host_that_tell_of_it() {
    require!(Root, Program("busybox"));
    check(&without_namespace("uts"), "host-uts-namespace", "low", "4026531838", &[]);
    check(&without_namespace("cgroup"), "host-cgroup-namespace", "low", "4026531835", &[]);
}

#[test]
fn a_process_without_walls() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let sleep = bed.spawn(Command::new("sleep").arg("600"));
    let pid = sleep.pid().to_string();
    let outcome =
        bed.run(["leaks", "--pid", &pid, "--format", "json", "--check", "host-mount-namespace"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    let finding: Value = serde_json::from_str(&outcome.stdout).expect("one finding");
    assert_eq!((&finding["severity"], &finding["source"]), (&json!("high"), &json!("state")));
    // A root by chroot alone, in mounts of its own.
    let script = "exec unshare -m chroot \"$0\" sleep 600";
    let sleep = bed.spawn(Command::new("sh").args(["-c", script]).arg(bed.rootfs()));
    let pid = sleep.pid().to_string();
    eventually("the root is not pivoted", || {
        let words = ["leaks", "--pid", &pid, "--format", "json", "--check", "root-not-pivoted"];
        let outcome = bed.run(words);
        if outcome.code == 3 && outcome.stdout.contains("rootfs") {
            Ok(())
        } else {
            Err(format!("{outcome:?}"))
        }
    });
}

#[test]
fn users_of_the_host() {
    require!(Root, Program("busybox"));
    let _turn = turn::take();
    let bed = TestBed::new();
    let maps = |host: u64| {
        let map = json!([{ "containerID": 0, "hostID": host, "size": 65536 }]);
        json!({ "linux": { "namespaces+": [{ "type": "user" }], "uidMappings": map, "gidMappings": map } })
    };
    check_in(&bed, &maps(0), "host-root-mapped", "medium", "uid 0", &[]);
    let case = |name: &str, first| LeakCase::start(&bed, Runtime::Terrarium, name, &maps(first));
    let (one, _two, other) = (case("one", 200_000), case("two", 265_535), case("other", 400_000));
    let (_, findings) = one.leaks(&[]);
    assert_eq!(find(&findings, "overlapping-id-map")["severity"], "low", "both specs say so");
    one.assert_quiet();
    rewrite_spec(&bed, &one.id, |spec| spec["linux"]["uidMappings"] = json!([]));
    one.assert_found("overlapping-id-map", "medium", "1 ids of the host from 265535", &[]);
    other.assert_quiet();
    assert_no(&other.leaks(&[]).1, "root-without-user-namespace");
}

#[test]
fn folders_of_the_host() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let etc = bind(Path::new("/etc"), "/srv/conf", &["rbind", "ro"]);
    check_in(&bed, &etc, "host-filesystem-mounted", "medium", "/srv/conf", &[]);
    let bed = TestBed::new();
    let root = bind(Path::new("/"), "/srv/host", &["rbind", "ro"]);
    check_in(&bed, &root, "host-filesystem-mounted", "high", "/srv/host", &[]);
    let volume = bed.folder().join("volume");
    fs::create_dir(&volume).expect("the test's folder is writable");
    let harmless = bind(&volume, "/data", &["rbind"]);
    LeakCase::start(&bed, Runtime::Terrarium, "volume", &harmless).assert_quiet();
}

#[test]
fn sockets_of_engines() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let path = bed.folder().join("docker.sock");
    let _listener = UnixListener::bind(&path).expect("the test's folder is writable");
    let socket = bind(&path, "/run/docker.sock", &["bind"]);
    check_in(&bed, &socket, "engine-socket-mounted", "high", "docker.sock", &[]);
}

#[test]
fn filesystems_of_the_kernel() {
    require!(Root, Program("busybox"));
    let bare = json!({ "linux": { "maskedPaths": [], "readonlyPaths": [] } });
    check(&bare, "kernel-filesystem-exposed", "medium", "/proc/sys writable", &[]);
    let sys = json!({ "mounts+": [
        { "destination": "/srv/sys", "type": "sysfs", "source": "sysfs", "options": ["rw"] }
    ] });
    let bed = TestBed::new();
    // To runc the filesystem is read-only, since its first mount is.
    let case = LeakCase::start(&bed, Runtime::Terrarium, "sysfs", &sys);
    case.assert_found("kernel-filesystem-exposed", "medium", "/srv/sys", &[]);
    drop(case);
    let proc = bind(Path::new("/proc"), "/srv/proc", &["rbind"]);
    check(&proc, "kernel-filesystem-exposed", "medium", "/srv/proc", &[]);
}

#[test]
fn devices() {
    require!(Root, Program("busybox"));
    let device = |kind: &str, major: i64, minor: i64, node: bool| {
        let mut fragment = json!({ "linux": { "resources": { "devices+": [
            { "allow": true, "type": kind, "major": major, "minor": minor, "access": "rw" }
        ] } } });
        if node {
            fragment["linux"]["devices"] =
                json!([{ "path": "/dev/x", "type": kind, "major": major, "minor": minor }]);
        }
        fragment
    };
    check(&device("b", 7, 0, true), "device-exposed", "high", "/dev/x", &[]);
    check(&device("c", 10, 229, true), "device-exposed", "medium", "10:229", &[]);
    check(&device("b", 7, 0, false), "device-exposed", "high", "7:0", &[]);
}

#[test]
fn capabilities_that_lead_out() {
    require!(Root, Program("busybox"));
    check(
        &capabilities(&["CAP_SYS_MODULE"]),
        "dangerous-capability",
        "medium",
        "CAP_SYS_MODULE",
        &[],
    );
    check(&capabilities(&["CAP_SYSLOG"]), "dangerous-capability", "low", "CAP_SYSLOG", &[]);
    let bed = TestBed::new();
    let harmless = capabilities(&["CAP_NET_ADMIN", "CAP_SYS_NICE"]);
    LeakCase::start(&bed, Runtime::Terrarium, "harmless", &harmless).assert_quiet();
}

/// All capabilities and devices, and no filter.
fn privileged() -> Value {
    // By number; a machine may lack some.
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("it has a set");
    let has = u64::from_str_radix(bits.trim(), 16).expect("it is a number");
    let all: Vec<String> = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
        "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
        "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
        "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
        "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
        "PERFMON", "BPF", "CHECKPOINT_RESTORE",
    ]
    .iter()
    .enumerate()
    .filter(|(number, _)| has & (1_u64 << number) != 0)
    .map(|(_, name)| format!("CAP_{name}"))
    .collect();
    json!({
        "process": { "capabilities": { "bounding": all, "effective": all, "permitted": all } },
        "linux": {
            "seccomp": null,
            "resources": { "devices": [{ "allow": true, "access": "rwm" }] }
        }
    })
}

#[test]
fn no_wall_at_all() {
    require!(Root, Program("busybox"));
    check(&privileged(), "privileged", "high", "all capabilities", &[]);
}

#[test]
fn filters_and_privileges() {
    require!(Root, Program("busybox"));
    check(&json!({ "linux": { "seccomp": null } }), "no-seccomp", "low", "Seccomp: 0", &[]);
    let allowed = json!({ "process": { "noNewPrivileges": false } });
    check(&allowed, "new-privileges-allowed", "low", "NoNewPrivs: 0", &[]);
}

#[test]
fn descriptors_and_programs_of_the_host() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let workload = terrarium_tests::binaries::workload().display().to_string();
    for runtime in Runtime::available() {
        let keep = |file: &str, name: &str, fragment: &Value| {
            LeakCase::start_with_descriptor(&bed, runtime, name, fragment, Path::new(file))
        };
        let folder = keep("/etc", "folder", &json!({}));
        folder.assert_found("leaked-descriptor", "critical", "fd/3", &[]);
        let file = keep("/etc/passwd", "file", &json!({}));
        file.assert_found("leaked-descriptor", "high", "/etc/passwd", &[]);
        let program = json!({ "process": { "args": ["/proc/self/fd/3", "sleep", "600"] } });
        let program = keep(&workload, "program", &program);
        program.assert_found("runtime-binary-exposed", "high", "workload", &["leaked-descriptor"]);
    }
}

#[test]
fn abstract_sockets_of_the_host() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let address = SocketAddr::from_abstract_name(bed.unique("service")).expect("it is short");
    let _listener =
        bed.network().enter(|| UnixListener::bind_addr(&address).expect("the name is free"));
    let shared = without_namespace("network");
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "abstract", &shared);
        case.assert_found("host-network-namespace", "medium", "net:[", &[]);
        let (_, findings) = case.leaks(&[]);
        let finding = find(&findings, "host-abstract-socket");
        assert!(finding.to_string().contains(&bed.unique("service")), "{finding:#}");
        let case = LeakCase::start(&bed, runtime, "private", &json!({}));
        case.assert_quiet();
    }
}

#[test]
fn limits() {
    require!(Root, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let none = json!({ "linux": { "resources": { "memory": null } } });
    check_in(&bed, &none, "limit-missing", "low", "no limit of memory", &[]);
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "limit", &json!({}));
        let mount = terrarium_tests::kernel_state::cgroup_mount_of("memory").expect("required");
        let file = if mount.version == 2 { "memory.max" } else { "memory.limit_in_bytes" };
        let folder = mount.path.join(format!("terrarium-leaks-{}", case.id));
        // Swap and memory together are limited to no less than memory.
        let _ = fs::write(folder.join("memory.memsw.limit_in_bytes"), "-1");
        let more = (128_u64 << 20).to_string();
        fs::write(folder.join(file), &more).expect("root sets limits");
        case.assert_found("limit-not-applied", "high", &more, &[]);
    }
}

#[test]
fn shared_memory_of_the_host() {
    require!(Root, Program("busybox"));
    let shm = bind(Path::new("/dev/shm"), "/srv/shm", &["rbind"]);
    check(&shm, "shared-memory-object", "low", "/srv/shm", &[]);
}

#[test]
fn mounts_that_reach_the_host() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let folder = bed.folder().join("shared");
    fs::create_dir(&folder).expect("the test's folder is writable");
    let none: Option<&str> = None;
    mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), none).expect("root mounts");
    mount(none, &folder, none, MsFlags::MS_SHARED, none).expect("root mounts");
    let fragment = and(
        bind(&folder, "/shared", &["rbind", "rshared"]),
        &json!({ "linux": { "rootfsPropagation": "shared" } }),
    );
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "shared", &fragment);
        case.assert_found("shared-propagation", "medium", "/shared", &[]);
        let (_, findings) = case.leaks(&["--check", "shared-propagation", "--suggest"]);
        let suggestion = &find(&findings, "shared-propagation")["suggestion"];
        let closed = case.start_patched(&suggestion["config"]);
        assert!(closed.leaks(&["--check", "shared-propagation"]).1.is_empty());
    }
    let slave = bind(&folder, "/shared", &["rbind", "rslave"]);
    LeakCase::start(&bed, Runtime::Terrarium, "slave", &slave).assert_quiet();
    umount2(&folder, MntFlags::MNT_DETACH).expect("it is mounted");
}

#[test]
fn namespaces_made_inside() {
    require!(Root, Program("busybox"));
    let user = json!({
        "process": { "args": ["sh", "-c", "unshare -U sleep 600 & wait"] },
        "linux": { "seccomp-": ["unshare"] }
    });
    let bed = TestBed::new();
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "user", &user);
        eventually("its user namespace is seen", || {
            let (_, findings) = case.leaks(&["--check", "user-namespace-created"]);
            if findings.len() == 1 { Ok(()) } else { Err(format!("{findings:?}")) }
        });
        case.assert_found("user-namespace-created", "medium", "sleep", &[]);
    }
    let name = and(
        capabilities(&["CAP_SYS_ADMIN"]),
        &json!({
            "process": { "args": ["sh", "-c", "unshare -u sleep 600 & wait"] },
            "linux": { "seccomp-": ["unshare"] }
        }),
    );
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "drift", &name);
        eventually("its namespace is seen", || {
            let (_, findings) = case.leaks(&["--check", "namespace-drift"]);
            if findings.len() == 1 { Ok(()) } else { Err(format!("{findings:?}")) }
        });
        case.assert_found("namespace-drift", "high", "uts:[", &["dangerous-capability"]);
    }
}

#[test]
fn processes_that_are_neither_in_nor_out() {
    require!(Root, Program("busybox"), Program("nsenter"));
    let bed = TestBed::new();
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "entered", &json!({}));
        let pid = pid_of(&case).to_string();
        let mut enter = Command::new("nsenter");
        let entered = bed.spawn(enter.args(["-t", &pid, "-m", "-p", "sleep", "600"]));
        eventually("the process that entered is seen", || {
            let (_, findings) = case.leaks(&["--check", "task-outside-cgroup"]);
            if findings.is_empty() { Err(format!("{findings:?}")) } else { Ok(()) }
        });
        case.assert_found("task-outside-cgroup", "critical", "sleep", &[]);
        drop(entered);
        // nsenter forks to get into the pid namespace; what it forked goes with the container.
        drop(case);

        let case = LeakCase::start(&bed, runtime, "put", &json!({}));
        let sleep: Process = bed.spawn(Command::new("sleep").arg("600"));
        let cgroups =
            fs::read_to_string(format!("/proc/{}/cgroup", pid_of(&case))).expect("it runs");
        let mounts = terrarium_tests::kernel_state::cgroup_mounts();
        let mount = mounts.iter().find(|mount| {
            mount.version == 2 || mount.controllers.iter().any(|name| name == "pids")
        });
        let mount = mount.expect("the container has limits");
        let path = cgroups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            (controllers == mount.controllers.join(",")
                || mount.version == 2 && controllers.is_empty())
            .then(|| path.trim_start_matches('/').to_owned())
        });
        let procs = mount.path.join(path.expect("it is in a cgroup")).join("cgroup.procs");
        fs::write(procs, sleep.pid().to_string()).expect("root moves processes");
        case.assert_found(
            "task-outside-namespaces",
            "critical",
            "sleep",
            &["no-seccomp", "dangerous-capability"],
        );
        drop(sleep);
    }
}

#[test]
fn files_that_stand_for_namespaces() {
    require!(Root, Program("busybox"));
    let source = format!("/proc/{}/ns/uts", std::process::id());
    let file = bind(Path::new(&source), "/srv/uts", &["bind"]);
    check(&file, "namespace-file-exposed", "medium", "/srv/uts", &[]);
}

#[test]
fn what_two_containers_share() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let volume = bed.folder().join("volume");
    fs::create_dir(&volume).expect("the test's folder is writable");
    let common = bind(&volume, "/common", &["rbind"]);
    let start =
        |name: &str, fragment: &Value| LeakCase::start(&bed, Runtime::Terrarium, name, fragment);
    let one = start("one", &common);
    let join = json!({ "linux": { "namespaces": [
        { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
        { "type": "network", "path": format!("/proc/{}/ns/net", pid_of(&one)) }
    ] } });
    let two = start("two", &and(common, &join));
    one.assert_quiet();
    two.assert_quiet();
    for case in [&one, &two] {
        rewrite_spec(&bed, &case.id, |spec| {
            spec["mounts"]
                .as_array_mut()
                .expect("a list")
                .retain(|m| m["destination"] != "/common");
        });
    }
    one.assert_found("shared-superblock", "medium", "/common", &[]);
    rewrite_spec(&bed, &two.id, |spec| {
        for namespace in spec["linux"]["namespaces"].as_array_mut().expect("a list") {
            namespace.as_object_mut().expect("an object").remove("path");
        }
    });
    two.assert_found("shared-namespace", "medium", &one.id, &["shared-superblock"]);
}

#[test]
fn default_settings_of_run_are_quiet() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    for (name, options) in [
        ("plain", &[][..]),
        ("bridge", &["--net", "bridge", "--memory", "64m", "--pids", "64"]),
        ("userns", &["--userns=300000:65536"]),
        ("read-only", &["--read-only", "--tmpfs", "/tmp"]),
    ] {
        let mut container = bed.container(name).with(options.iter().copied()).follow();
        let outcome = bed.run(["leaks", container.name(), "--format", "json"]);
        let findings: Vec<Value> = outcome
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("a finding is JSON"))
            .collect();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert_quiet(&findings, &[]);
        container.call("true");
        container.finish();
    }
}

#[test]
fn the_log_of_a_detached_container_is_no_finding() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (name, rootfs) = (bed.unique("logged"), bed.rootfs().display().to_string());
    let words = ["run", "-d", "--name", &name, "--net", "none", &rootfs, "--", "sleep", "600"];
    bed.run(words).success();
    let outcome =
        bed.run(["leaks", &name, "--check", "leaked-descriptor", "--format", "json"]).success();
    assert_eq!(outcome, "");
    bed.run(["delete", "--force", &name]).success();
}

#[test]
fn forms_and_exit_codes() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let case =
        LeakCase::start(&bed, Runtime::Terrarium, "forms", &capabilities(&["CAP_SYS_ADMIN"]));
    let (outcome, findings) = case.leaks(&["--fail-on", "critical"]);
    assert_eq!(outcome.code, 0, "what is declared is one less than critical: {outcome:?}");
    let finding = find(&findings, "dangerous-capability");
    let keys: Vec<&str> =
        finding.as_object().expect("an object").keys().map(String::as_str).collect();
    for key in [
        "check", "severity", "source", "container", "declared", "observed", "evidence", "remedy",
        "first_seen", "last_seen", "count",
    ] {
        assert!(keys.contains(&key), "{key}: {finding:#}");
    }
    assert_eq!(finding["source"], "declared");
    let (outcome, _) = case.leaks(&["--fail-on", "low"]);
    assert_eq!(outcome.code, 3);
    let (outcome, findings) = case.leaks(&["--check", "no-seccomp"]);
    assert_eq!((outcome.code, findings.len()), (0, 0));
    let table = bed.run(["leaks", &case.id]);
    assert!(table.code == 3 && table.stdout.contains("CAP_SYS_ADMIN (bounding"), "{table:?}");
    let sarif = bed.run(["leaks", &case.id, "--format", "sarif"]);
    let sarif: Value = serde_json::from_str(&sarif.stdout).expect("SARIF is JSON");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    assert!(results.iter().any(|r| r["ruleId"] == "dangerous-capability" && r["level"] == "error"));
    for (words, code) in [
        (&["leaks", "no-such"][..], 1),
        (&["leaks", "--pid", "2147483647"], 1),
        (&["leaks", "--check", "no-such", "x"], 2),
        (&["leaks", "--explain", "no-such"], 2),
        (&["leaks"], 2),
        (&["leaks", "--pid", "0"], 2),
        (&["leaks", "x", "--fail-on", "severe"], 2),
        (&["leaks", "--list"], 0),
        (&["leaks", "--explain", "leaked-descriptor"], 0),
    ] {
        let outcome = bed.run(words);
        assert_eq!(outcome.code, code, "{words:?}: {outcome:?}");
        let lines = outcome.stderr.lines().count();
        assert_eq!(lines, usize::from(code != 0), "{words:?}: {outcome:?}");
    }
}

#[test]
fn what_stays_after_the_end_is_told_with_what_holds_it() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let container = bed.container("left").with(["--net", "bridge", "--memory", "32m"]);
    let mut running = container.follow();
    let state = running.state();
    let netns = state["namespaces"]["net"].as_u64().expect("it has a namespace").to_string();
    let held = fs::File::open(format!("/proc/{}/ns/net", state["pid"])).expect("it runs");
    let listed = bed.run(["namespaces", "--tree", &netns]).success();
    assert!(listed.contains(&format!("/proc/{}/fd/", std::process::id())), "{listed}");
    running.call("true");
    // The supervisor is killed, so that nobody takes away what it made.
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.outcome();
    let findings: Vec<Value> = eventually("what stayed is told", || {
        let outcome = bed.run(["leaks", container.name(), "--format", "json"]);
        let lines = outcome.stdout.lines().map(serde_json::from_str);
        let findings: Vec<Value> = lines.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let has = |check: &str| findings.iter().any(|f| f["check"] == check);
        if has("residue-network-namespace") && has("residue-state") {
            Ok(findings)
        } else {
            Err(format!("{outcome:?}"))
        }
    });
    for check in ["residue-cgroup", "residue-address-lease"] {
        assert_eq!(find(&findings, check)["source"], "residue");
    }
    let namespace = find(&findings, "residue-network-namespace");
    assert!(namespace.to_string().contains(&format!("/proc/{}/fd/", std::process::id())));
    drop(held);
    let planned = bed.run(["gc", "--dry-run", "--format", "json"]).success();
    assert!(planned.contains("residue-state") && planned.contains("residue-cgroup"), "{planned}");
    assert!(bed.root().join(container.name()).is_dir(), "--dry-run changes nothing");
    bed.run(["gc"]).success();
    assert_eq!(bed.run(["gc", "--dry-run"]).success(), "");
    assert_eq!(bed.run(["leaks", container.name()]).code, 1, "nothing knows it any more");
}

#[test]
fn run_fails_when_something_stays_and_that_was_not_to_be() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let clean = bed.container("clean").with(["--assert-clean", "--audit"]);
    let outcome = clean.run(["sh", "-c", "sleep 1; exit 4"]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(outcome.stderr.contains("left:    nothing"), "{outcome:?}");
    assert!(outcome.stderr.contains("root-without-user-namespace"), "{outcome:?}");
    // A bundle as well.
    let bundle = Bundle::new(&bed, "audited", &["sh", "-c", "sleep 1; exit 4"]);
    let mut command = bed.runtime();
    command.args(["run", "--audit", "--bundle"]).arg(bundle.folder()).arg(bundle.id());
    let outcome = bed.finish(&mut command);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(outcome.stderr.contains("left:    nothing"), "{outcome:?}");
    // Somebody holds its network namespace.
    let dirty = bed.container("dirty").with(["--assert-clean"]);
    let mut running = dirty.follow();
    let path = format!("/proc/{}/ns/net", running.state()["pid"]);
    let held = fs::File::open(path).expect("it runs");
    running.call("true");
    let outcome = running.finish();
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("is held by"), "{outcome:?}");
    drop(held);
}

#[test]
fn two_containers_are_laid_side_by_side() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let rootfs = bed.rootfs().display().to_string();
    let start = |name: &str, options: &[&str]| {
        let id = bed.unique(name);
        let words = ["run", "-d", "--name", &id].into_iter().chain(options.iter().copied());
        bed.run(words.chain([&*rootfs, "--", "sleep", "600"])).success();
        id
    };
    let (plain, same) = (start("plain", &[]), start("same", &[]));
    let open = start("open", &["--pid", "host", "--cap-add", "SYS_ADMIN", "--pids", "77"]);
    let outcome = bed.run(["diff", &plain, &same]);
    assert_eq!((outcome.code, &*outcome.stdout), (0, "Nothing that isolates them differs.\n"));
    let outcome = bed.run(["diff", &plain, &open, "--format", "json"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    let told: Value = serde_json::from_str(&outcome.stdout).expect("it is JSON");
    assert_eq!((&told["one"]["id"], &told["other"]["id"]), (&json!(plain), &json!(open)));
    let walls = told["walls"].as_array().expect("a list");
    let pair = |wall: &str| {
        let found = walls.iter().find(|one| one["wall"] == wall);
        found.map(|one| (one["one"].as_str().unwrap_or(""), one["other"].as_str().unwrap_or("")))
    };
    assert_eq!(pair("namespace pid"), Some(("its own", "the host's")), "{told:#}");
    assert_eq!(pair("limit pids"), Some(("none", "77")), "{told:#}");
    assert_eq!(pair("namespace net"), None, "{told:#}");
    let (few, more) = pair("capabilities bounding").expect("they differ");
    assert!(!few.contains("SYS_ADMIN") && more.contains("SYS_ADMIN"), "{told:#}");
    assert!(pair("finding dangerous-capability").is_some_and(|(one, _)| one.is_empty()));
    let table = bed.run(["diff", &plain, &open]).stdout;
    assert!(table.contains("namespace pid\n"), "{table}");
    assert_eq!(bed.run(["diff", &plain, "nosuch"]).code, 1);
    // With its own spec, and with itself before.
    for id in [&plain, &open] {
        let outcome = bed.run(["diff", id, "--spec"]);
        assert_eq!((outcome.code, &*outcome.stderr), (0, ""), "{outcome:?}");
    }
    rewrite_spec(&bed, &open, |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.push(json!({ "type": "pid" }));
    });
    let outcome = bed.run(["diff", &open, "--spec"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    let expected = "namespace pid\n  spec    its own\n  kernel  the host's\n";
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
    let then = bed.folder().join("then.json").display().to_string();
    bed.run(["diff", &open, "--save", &then]).success();
    assert_eq!(bed.run(["diff", &then, &open]).code, 0);
    bed.run(["update", "--pids-limit", "99", &open]).success();
    let outcome = bed.run(["diff", &then, &open, "--format", "json"]);
    let told: Value = serde_json::from_str(&outcome.stdout).expect("it is JSON");
    let walls = told["walls"].as_array().expect("a list");
    assert!(
        walls.contains(&json!({ "wall": "limit pids", "one": "77", "other": "99" })),
        "{told:#}"
    );
    fs::write(&then, "{}").expect("the test's folder is writable");
    assert_eq!(bed.run(["diff", &then, &open]).code, 1);
    assert_eq!(bed.run(["diff", &open]).code, 2);
    for id in [&plain, &same, &open] {
        bed.run(["delete", "--force", id]).success();
    }
}

#[test]
fn suggestions_close_what_they_are_made_for() {
    require!(Root, Program("busybox"));
    let _turn = turn::take();
    let bed = TestBed::new();
    let socket = bed.folder().join("docker.sock");
    let _listener = UnixListener::bind(&socket).expect("the test's folder is writable");
    let address = SocketAddr::from_abstract_name(bed.unique("closed")).expect("it is short");
    let _service =
        bed.network().enter(|| UnixListener::bind_addr(&address).expect("the name is free"));
    let device = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" });
    let node = json!([{ "path": "/dev/x", "type": "c", "major": 10, "minor": 229 }]);
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    let uts = format!("/proc/{}/ns/uts", std::process::id());
    for (check, fragment) in [
        ("host-pid-namespace", without_namespace("pid")),
        ("host-network-namespace", without_namespace("network")),
        ("host-ipc-namespace", without_namespace("ipc")),
        ("host-uts-namespace", without_namespace("uts")),
        ("host-cgroup-namespace", without_namespace("cgroup")),
        ("host-filesystem-mounted", bind(Path::new("/etc"), "/srv/conf", &["rbind", "ro"])),
        ("engine-socket-mounted", bind(&socket, "/run/docker.sock", &["bind"])),
        ("namespace-file-exposed", bind(Path::new(&uts), "/srv/uts", &["bind"])),
        ("shared-memory-object", bind(Path::new("/dev/shm"), "/srv/shm", &["rbind"])),
        ("kernel-filesystem-exposed", bind(Path::new("/proc"), "/srv/proc", &["rbind"])),
        (
            "kernel-filesystem-exposed",
            json!({ "linux": { "maskedPaths": [], "readonlyPaths": null } }),
        ),
        (
            "kernel-filesystem-exposed",
            json!({ "mounts+": [
                { "destination": "/srv/sys", "type": "sysfs", "source": "sysfs", "options": ["rw"] }
            ] }),
        ),
        (
            "device-exposed",
            json!({ "linux": { "devices": node, "resources": { "devices+": [device] } } }),
        ),
        ("dangerous-capability", capabilities(&["CAP_SYS_PTRACE", "CAP_SYSLOG"])),
        ("new-privileges-allowed", json!({ "process": { "noNewPrivileges": false } })),
        ("privileged", privileged()),
        ("host-abstract-socket", without_namespace("network")),
        (
            "limit-missing",
            json!({ "linux": { "resources": { "memory": { "limit": null, "reservation": 1 << 20 } } } }),
        ),
        ("limit-missing", json!({ "linux": { "resources": { "memory": null } } })),
        ("root-without-user-namespace", json!({})),
        (
            "host-root-mapped",
            json!({ "linux": {
                "namespaces+": [{ "type": "user" }], "uidMappings": map, "gidMappings": map
            } }),
        ),
    ] {
        let open = LeakCase::start(&bed, Runtime::Terrarium, "open", &fragment);
        let (_, findings) = open.leaks(&["--check", check, "--suggest"]);
        let suggestion = &find(&findings, check)["suggestion"];
        assert!(suggestion["run"].as_str().is_some_and(|run| !run.is_empty()), "{findings:#?}");
        assert!(open.leaks(&["--check", check]).1[0].get("suggestion").is_none());
        let closed = open.start_patched(&suggestion["config"]);
        let reserved = |case: &LeakCase<'_>| {
            case.spec()["linux"]["resources"]["memory"]["reservation"].clone()
        };
        assert_eq!(reserved(&open), reserved(&closed), "nothing else is changed");
        let (_, findings) = closed.leaks(&["--check", check]);
        assert!(findings.is_empty(), "{suggestion:#} left {findings:#?}");
        let table = bed.run(["leaks", &open.id, "--check", check, "--suggest"]).stdout;
        assert!(table.contains("          run:      "), "{table}");
    }
}

/// What no container of `terrarium run` can have, and why.
const NOT_IN_THE_LAB: [(&str, &str); 2] = [
    ("host-mount-namespace", "a container always has mounts of its own"),
    ("root-not-pivoted", "a container's root is always pivoted"),
];

#[test]
fn every_opening_of_the_lab_raises_its_finding_and_no_other() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("nsenter"));
    let _turn = turn::take();
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let rootfs = bed.rootfs().display().to_string();
    let lab = |words: &[&str]| {
        let url = observatory.url("");
        let mut command = bed.terrarium();
        process::run(command.arg("lab").args(words).args(["--observatory", &url]))
    };
    let outcome = lab(&["all", &rootfs, "--format", "json"]);
    let told: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    for opening in &told {
        // A kernel without modules, say, has no such opening.
        let made = opening["raised"] == true && opening["exact"] == true;
        assert!(made || opening["skipped"].is_string(), "{opening:#}");
    }
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let made = told.iter().filter(|opening| opening["exact"] == true).count();
    assert!(made >= 46, "{made}: {told:#?}");
    // All that can be opened is in it.
    let names = |text: &str, key: &str| -> BTreeSet<String> {
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let lines = lines.filter(|line: &Value| line["source"] != "residue");
        lines.map(|line| line[key].as_str().expect("a name").to_owned()).collect()
    };
    let listed = names(&bed.run(["lab", "list", "--format", "json"]).success(), "name");
    assert_eq!(told.len(), listed.len());
    let mut checks = names(&bed.run(["leaks", "--list", "--format", "json"]).success(), "check");
    for (check, _) in NOT_IN_THE_LAB {
        assert!(checks.remove(check), "{check}");
    }
    assert_eq!(listed, checks);
    // One by itself, for people; nothing of it stays.
    let outcome = bed.run(["lab", "host-pid-namespace", &rootfs]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("found, and nothing else above low"), "{outcome:?}");
    assert!(outcome.stdout.contains("$ terrarium run --detach"), "{outcome:?}");
    let outcome = lab(&["kernel-tunable-written", &rootfs]);
    assert!(outcome.code == 0 && outcome.stdout.contains("refused with EROFS"), "{outcome:?}");
    // Where nobody watches, what a container does is not seen.
    let outcome = bed.run(["lab", "kernel-tunable-written", &rootfs]);
    assert!(outcome.code == 1 && outcome.stderr.contains("terrarium observe"), "{outcome:?}");
    let kept = bed.run(["lab", "no-seccomp", &rootfs, "--keep"]);
    assert_eq!(kept.code, 0, "{kept:?}");
    assert_eq!(bed.run(["lab", "no-seccomp", &rootfs]).code, 1, "the name is taken");
    bed.run(["delete", "--force", "lab-no-seccomp"]).success();
    assert_eq!(bed.run(["lab", "no-such"]).code, 2);
}

/// `terrarium leaks --graph json`, and the edges between these two.
fn edges(bed: &TestBed, wanted: &[&str], from: &str, to: &str) -> Vec<Value> {
    let words = ["leaks", "--graph", "json"].into_iter().chain(wanted.iter().copied());
    let told = bed.run(words).success();
    let graph: Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
    let mut all: Vec<Value> = graph["edges"].as_array().expect("a list").clone();
    let ends = [from, to];
    all.retain(|edge| ends.iter().all(|end| edge["from"] == **end || edge["to"] == **end));
    all
}

#[test]
fn where_containers_touch_is_a_graph() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let volume = bed.folder().join("volume");
    fs::create_dir(&volume).expect("the test's folder is writable");
    let common = bind(&volume, "/common", &["rbind"]);
    let start =
        |name: &str, fragment: &Value| LeakCase::start(&bed, Runtime::Terrarium, name, fragment);
    let one = start("one", &common);
    let alone = start("alone", &json!({}));
    let join = json!({ "linux": { "namespaces": [
        { "type": "pid" }, { "type": "ipc" }, { "type": "mount" }, { "type": "cgroup" },
        { "type": "network", "path": format!("/proc/{}/ns/net", pid_of(&one)) }
    ] } });
    let two = start("two", &and(common, &join));
    let of = |kind: &str, edges: &[Value]| -> Vec<Value> {
        edges.iter().filter(|edge| edge["kind"] == kind).cloned().collect()
    };
    let between = edges(&bed, &[], &one.id, &two.id);
    let [network] = &of("namespace", &between)[..] else { panic!("{between:#?}") };
    assert!(network["what"].as_str().is_some_and(|what| what.starts_with("net:[")), "{network:#}");
    assert_eq!(network["declared"], true);
    let files = of("files", &between);
    let common = files.iter().find(|edge| edge["what"].to_string().contains("/common"));
    assert_eq!(common.expect("they share a folder")["declared"], true);
    let host = edges(&bed, &[&two.id], &two.id, "host");
    assert_eq!(of("namespace", &host).len(), 1, "its uts namespace: {host:#?}");
    assert!(of("namespace", &edges(&bed, &[], &alone.id, &two.id)).is_empty());
    assert!(of("namespace", &edges(&bed, &[&alone.id], &one.id, &two.id)).is_empty());
    // What nobody declared.
    rewrite_spec(&bed, &two.id, |spec| {
        for namespace in spec["linux"]["namespaces"].as_array_mut().expect("a list") {
            namespace.as_object_mut().expect("an object").remove("path");
        }
    });
    let network = of("namespace", &edges(&bed, &[&one.id], &one.id, &two.id));
    assert_eq!(network[0]["declared"], false, "{network:#?}");
    // A tracer outside.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid_of(&one)).expect("a pid"));
    nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty()).expect("root traces");
    let traced = of("trace", &edges(&bed, &[&one.id], &one.id, "host"));
    let who = format!("process {} traces process {pid}", std::process::id());
    assert_eq!((traced.len(), &traced[0]["what"]), (1, &json!(who)), "{traced:#?}");
    drop((one, alone));
    // An abstract socket of one that the other reaches.
    let mut serving = bed.container("serving").follow();
    let of_serving = format!("container:{}", serving.name());
    let beside = bed.container("beside").with(["--net", &of_serving]).follow();
    let name = bed.unique("socket");
    serving.call(&format!("listen-abstract {name}"));
    let sockets = of("socket", &edges(&bed, &[serving.name()], serving.name(), beside.name()));
    let [socket] = &sockets[..] else { panic!("{sockets:#?}") };
    assert_eq!((&socket["from"], &socket["to"]), (&json!(beside.name()), &json!(serving.name())));
    assert!(socket["what"].as_str().is_some_and(|what| what.contains(&name)), "{socket:#}");
    assert_eq!(socket["declared"], true);
    beside.finish();
    serving.finish();
    let dot = bed.run(["leaks", &two.id, "--graph", "dot"]).success();
    assert!(dot.starts_with("digraph crossings {") && dot.contains("dir=none"), "{dot}");
    assert_eq!(bed.run(["leaks", "--graph", "dot", "--check", "no-seccomp"]).code, 2);
}

#[test]
fn rights_that_were_gained() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let program = bed.rootfs().join("bin/sleep-as-root");
    fs::copy(terrarium_tests::binaries::workload(), &program).expect("the rootfs is writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs::set_permissions(&program, mode).expect("the file is ours");
    let user = |no_new_privileges: bool| {
        json!({ "process": {
            "user": { "uid": 1000, "gid": 1000 },
            "noNewPrivileges": no_new_privileges,
            "args": ["sh", "-c", "/bin/sleep-as-root sleep 600 & wait"]
        } })
    };
    for runtime in Runtime::available() {
        let open = LeakCase::start(&bed, runtime, "gained", &user(false));
        eventually("both are seen", || {
            let (_, findings) = open.leaks(&["--check", "uid-gained,capability-gained"]);
            if findings.len() == 2 { Ok(()) } else { Err(format!("{findings:?}")) }
        });
        open.assert_found("uid-gained", "high", "user 1000", &["capability-gained"]);
        open.assert_found("capability-gained", "high", "CAP_CHOWN", &["uid-gained"]);
        let closed = LeakCase::start(&bed, runtime, "kept", &user(true));
        std::thread::sleep(std::time::Duration::from_millis(300));
        closed.assert_quiet();
    }
    // Who enters as root has gained nothing.
    let quiet = json!({ "process": { "user": { "uid": 1000, "gid": 1000 } } });
    let case = LeakCase::start(&bed, Runtime::Terrarium, "entered", &quiet);
    let words = ["exec", "--user", "0", "-d", &case.id, "sleep", "600"];
    bed.run(words).success();
    case.assert_quiet();
}
