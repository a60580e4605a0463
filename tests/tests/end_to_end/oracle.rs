//! Where runc and crun agree, so does terrarium: one container by each, and what is seen of it.

use serde_json::{Value, json};
use std::fs;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::leak_case::{LeakCase, Runtime};
use terrarium_tests::{TestBed, require};

/// A file of /proc of its first process.
fn proc_file(case: &LeakCase<'_>, name: &str) -> String {
    let path = format!("/proc/{}/{name}", case.state()["pid"]);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn capabilities(status: &str) -> Vec<&str> {
    status.lines().filter(|line| line.starts_with("Cap")).collect()
}

#[test]
fn a_process_for_which_no_capabilities_are_named_has_none() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let process = bed.folder().join("process.json");
    let inside = json!({
        "args": ["grep", "Cap", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
        "user": { "uid": 0, "gid": 0 }
    });
    fs::write(&process, inside.to_string()).expect("the test's folder is writable");
    let process = process.display().to_string();
    for runtime in Runtime::available() {
        let fragment = json!({ "process": { "capabilities": null } });
        let case = LeakCase::start(&bed, runtime, "bare", &fragment);
        let status = proc_file(&case, "status");
        for line in capabilities(&status) {
            assert!(line.ends_with("0000000000000000"), "{runtime:?}: {line}");
        }
        // What enters a container has the container's, not the host's.
        let case = LeakCase::start(&bed, runtime, "usual", &json!({}));
        let usual = proc_file(&case, "status");
        let entered = case.exec_process(&process).success();
        assert_eq!(capabilities(&entered), capabilities(&usual), "{runtime:?}");
    }
}

#[test]
fn home_is_that_of_the_users_line_in_passwd() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let passwd = bed.rootfs().join("etc/passwd");
    fs::create_dir_all(passwd.parent().expect("it has one")).expect("the rootfs is writable");
    fs::write(&passwd, "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/var/me:/bin/sh\n")
        .expect("the rootfs is writable");
    for runtime in Runtime::available() {
        for (uid, env, expected) in [
            (0, json!(["PATH=/bin"]), "/root"),
            (1000, json!(["PATH=/bin"]), "/var/me"),
            (4242, json!(["PATH=/bin"]), "/"),
            (1000, json!(["PATH=/bin", "HOME=/elsewhere"]), "/elsewhere"),
        ] {
            let fragment = json!({ "process": { "user": { "uid": uid, "gid": uid }, "env": env } });
            let case = LeakCase::start(&bed, runtime, "home", &fragment);
            let environment = proc_file(&case, "environ");
            let home = environment.split('\0').find_map(|word| word.strip_prefix("HOME="));
            assert_eq!(home, Some(expected), "{runtime:?}, user {uid}");
            let entered = case.exec(&["sh", "-c", "echo $HOME"]).success();
            assert_eq!(entered.trim(), expected, "{runtime:?}, user {uid}, exec");
        }
    }
}

#[test]
fn a_container_that_was_paused_before_its_start_can_be_started() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "early", &["sleep", "600"]);
    bundle.create(&[]).success();
    let status = || {
        let state: Value =
            serde_json::from_str(&bundle.call("state", &[]).success()).expect("JSON");
        state["status"].as_str().expect("a status").to_owned()
    };
    bundle.call("pause", &[]).success();
    assert_eq!(status(), "paused");
    bundle.call("resume", &[]).success();
    assert_eq!(status(), "created");
    bundle.call("start", &[]).success();
    assert_eq!(status(), "running");
    bundle.call("pause", &[]).success();
    bundle.call("resume", &[]).success();
    assert_eq!(status(), "running");
    bundle.call("delete", &["--force"]).success();
}

/// The cgroup namespace taken away, and one of users added where `mapped`.
fn without_cgroup_namespace(mapped: bool) -> Value {
    let mut kinds = vec!["pid", "network", "ipc", "uts", "mount"];
    kinds.extend(mapped.then_some("user"));
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    let mut linux = json!({ "namespaces": namespaces });
    if mapped {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
    }
    json!({ "linux": linux })
}

#[test]
fn without_a_cgroup_namespace_a_container_sees_its_own_cgroups_and_not_the_hosts() {
    require!(Root, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let mount = terrarium_tests::kernel_state::cgroup_mount_of("memory").expect("required");
    for runtime in Runtime::available() {
        for mapped in [false, true] {
            let case = LeakCase::start(&bed, runtime, "cgroups", &without_cgroup_namespace(mapped));
            let said = format!("{runtime:?}, mapped: {mapped}");
            let see = |path: &str| case.exec(&["cat", path]).success().trim().to_owned();
            if mount.version == 2 {
                // The unified hierarchy is shown from its top, as runc does.
                let path = format!("/sys/fs/cgroup/terrarium-leaks-{}/memory.max", case.id);
                assert_eq!(see(&path), (64_u64 << 20).to_string(), "{said}");
                continue;
            }
            let limit = see("/sys/fs/cgroup/memory/memory.limit_in_bytes");
            assert_eq!(limit, (64_u64 << 20).to_string(), "{said}");
            assert_eq!(see("/sys/fs/cgroup/pids/pids.max"), "128", "{said}");
            // They are shown, not lent.
            let write = case.exec(&["sh", "-c", "echo 5 > /sys/fs/cgroup/pids/pids.max"]);
            assert_ne!(write.code, 0, "{said}: {write:?}");
        }
    }
}
