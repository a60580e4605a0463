//! Fields of the OCI spec that few people use.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::requirement::skip;
use terrarium_tests::{NetworkNamespace, TestBed, eventually, require};

#[test]
fn a_time_namespace_has_its_own_clocks() {
    require!(Root, Program("busybox"));
    if !Path::new("/proc/self/timens_offsets").exists() {
        return skip("fields::a_time_namespace_has_its_own_clocks", &"needs CONFIG_TIME_NS");
    }
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "time", &["sh", "-c", "cut -d. -f1 /proc/uptime; sleep 100"]);
    bundle.change(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.push(json!({ "type": "time" }));
        spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000, "nanosecs": 5 } });
    });
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    let uptime = bundle.call("exec", &["cut", "-d.", "-f1", "/proc/uptime"]).success();
    assert!(uptime.trim().parse::<u64>().is_ok_and(|seconds| seconds > 1_000_000), "{uptime}");
    bundle.call("delete", &["--force"]).success();

    let bundle = Bundle::new(&bed, "no-time", &["true"]);
    bundle.change(|spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } }));
    let outcome = bundle.run();
    assert!(outcome.code == 125 && outcome.stderr.contains("time namespace"), "{outcome:?}");
    bundle.change(|spec| spec["linux"]["timeOffsets"] = json!({ "realtime": { "secs": 1 } }));
    let outcome = bundle.run();
    assert!(outcome.stderr.contains("monotonic and boottime"), "{outcome:?}");
}

#[test]
fn personality_scheduler_and_io_priority_are_set() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let script = "uname -m; ionice -p $$; cut -d' ' -f41,19 /proc/self/stat";
    let bundle = Bundle::new(&bed, "attributes", &["sh", "-c", script]);
    bundle.change(|spec| {
        spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
        spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
        spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
    });
    let machine = if cfg!(target_arch = "x86_64") { "i686" } else { std::env::consts::ARCH };
    // SCHED_BATCH is 3.
    assert_eq!(bundle.run().success(), format!("{machine}\nidle\n5 3\n"));
}

#[test]
fn a_volume_can_have_other_owners_inside() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let data = bed.folder().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "x").unwrap();
    chown(data.join("file"), Some(0), Some(7)).unwrap();
    let script = "stat -c '%u %g' /data/file; echo new > /data/new; stat -c '%u %g' /data/new";
    let bundle = Bundle::new(&bed, "idmap", &["sh", "-c", script]);
    let volume = |options: Value, map: Value| {
        bundle.change(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("a list");
            mounts.retain(|mount| mount["destination"] != "/data");
            let mut mount = json!({ "destination": "/data", "type": "bind", "source": data });
            mount["options"] = options;
            if !map.is_null() {
                (mount["uidMappings"], mount["gidMappings"]) = (map.clone(), map);
            }
            mounts.push(mount);
        });
    };
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    volume(json!(["rbind", "ridmap"]), map.clone());
    bundle.change(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let outcome = bundle.run();
    if outcome.stderr.contains("cannot do it") {
        return skip("fields::a_volume_can_have_other_owners_inside", &outcome.stderr);
    }
    assert_eq!(outcome.success(), "1000 1007\n1000 1000\n");
    // On the host it is root's, as all of the volume.
    let new = fs::metadata(data.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
    fs::remove_file(data.join("new")).unwrap();

    // The container's own map, where the mount says no more than idmap.
    volume(json!(["bind", "idmap"]), Value::Null);
    let refused = bundle.run();
    assert!(refused.stderr.contains("without a user namespace"), "{refused:?}");
    bundle.change(|spec| {
        spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
    });
    assert_eq!(bundle.run().success(), "0 7\n0 0\n");
    let new = fs::metadata(data.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));

    volume(json!(["bind"]), json!([{ "containerID": 0, "hostID": 0, "size": 0 }]));
    let refused = bundle.run();
    assert!(refused.code == 125 && refused.stderr.contains("id map"), "{refused:?}");
    bed.assert_nothing_left();
}

nix::ioctl_readwrite!(receive_notification, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(answer_notification, b'!', 1, libc::seccomp_notif_resp);

/// Takes one listener, answers one call by `errno`, and gives what came with the listener.
fn agent(listener: &UnixListener, errno: i32) -> Value {
    let (stream, _) = listener.accept().expect("the runtime connects");
    let (mut bytes, mut control) = ([0; 4096], nix::cmsg_space!(RawFd));
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())
            .expect("a message comes");
    let Some(ControlMessageOwned::ScmRights(fds)) =
        message.cmsgs().expect("the control data fits").next()
    else {
        panic!("no descriptor came");
    };
    // SAFETY: the kernel has just installed it; nobody else knows its number.
    let seccomp = File::from(unsafe { OwnedFd::from_raw_fd(fds[0]) });
    let length = message.bytes;
    // SAFETY: it is integers only, for which zero is a value.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is the one that the request names, zeroed as the kernel wants it.
    unsafe { receive_notification(seccomp.as_raw_fd(), &raw mut call) }.expect("a call comes");
    let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags: 0 };
    // SAFETY: the structure is the one that the request names.
    unsafe { answer_notification(seccomp.as_raw_fd(), &raw mut answer) }.expect("it waits");
    serde_json::from_slice(&bytes[..length]).expect("the container process state is JSON")
}

#[test]
fn an_agent_answers_for_the_kernel() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let path = bed.folder().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let bundle = Bundle::new(&bed, "notify", &["mkdir", "/dev/shm/x"]);
    bundle.change(|spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "of the test",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
        });
    });
    // The filter is loaded before or behind `start`.
    for no_new_privileges in [true, false] {
        bundle.change(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
        let (outcome, state) = std::thread::scope(|scope| {
            let agent = scope.spawn(|| agent(&listener, libc::ENOSPC));
            (bundle.run(), agent.join().expect("the agent is content"))
        });
        assert!(outcome.stderr.contains("No space left"), "{outcome:?}");
        assert_eq!(
            (&state["fds"], &state["metadata"]),
            (&json!(["seccompFd"]), &json!("of the test"))
        );
        assert_eq!(state["state"]["id"], bundle.id());
        assert!(state["pid"].as_i64() > Some(0), "{state}");
    }
    // The same through create, start and exec.
    bundle.change(|spec| {
        spec["process"]["args"] = json!(["sleep", "100"]);
        spec["process"]["noNewPrivileges"] = json!(true);
    });
    std::thread::scope(|scope| {
        bundle.create(&[]).success();
        // Two listeners come: the program's, which makes no such call before it is killed, and that of exec.
        let agents = scope.spawn(|| {
            let (first, _) = listener.accept().expect("the runtime connects");
            (agent(&listener, libc::EDQUOT), drop(first)).0
        });
        bundle.call("start", &[]).success();
        let outcome = bundle.call("exec", &["mkdir", "/dev/shm/y"]);
        assert!(outcome.stderr.contains("quota exceeded"), "{outcome:?}");
        let state = agents.join().expect("the agent is content");
        assert_ne!(state["pid"], state["state"]["pid"]);
        assert_eq!(state["state"]["status"], "running");
    });
    bundle.call("delete", &["--force"]).success();

    bundle.change(|spec| spec["linux"]["seccomp"]["listenerPath"] = json!("/no/such/socket"));
    let refused = bundle.run();
    assert!(refused.stderr.contains("listenerPath"), "{refused:?}");
    bed.assert_nothing_left();
}

#[test]
fn exec_runs_on_the_cpus_that_it_is_given() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "affinity", &["sleep", "100"]);
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    let file = bed.folder().join("process.json");
    let path = file.to_str().expect("paths of tests are UTF-8");
    let process = |affinity: Value| {
        let script = "grep Cpus_allowed_list /proc/self/status";
        let process = json!({
            "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["sh", "-c", script],
            "env": ["PATH=/bin"], "execCPUAffinity": affinity,
            "capabilities": { "bounding": ["CAP_KILL", "CAP_OF_TOMORROW"] },
            "fieldOfTomorrow": 1
        });
        fs::write(&file, process.to_string()).unwrap();
        bundle.call("exec", &["--process", path])
    };
    let outcome = process(json!({ "initial": "0", "final": "0" }));
    assert_eq!(outcome.stdout, "Cpus_allowed_list:\t0\n", "{outcome:?}");
    assert!(outcome.stderr.contains("CAP_OF_TOMORROW"), "{outcome:?}");
    let wrong = process(json!({ "final": "3-1" }));
    assert!(wrong.code != 0 && wrong.stderr.contains("execCPUAffinity"), "{wrong:?}");
    bundle.call("delete", &["--force"]).success();
}

#[test]
fn memory_comes_from_the_nodes_that_are_named() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "numa", &["cat", "/proc/self/numa_maps"]);
    bundle.change(|spec| {
        spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0" });
    });
    let outcome = bundle.run();
    if outcome.code != 0 {
        assert!(outcome.stderr.contains("CONFIG_NUMA"), "{outcome:?}");
        return skip("fields::memory_comes_from_the_nodes_that_are_named", &outcome.stderr);
    }
    assert!(outcome.stdout.contains(" bind:0 "), "{outcome:?}");
}

#[test]
fn what_this_host_or_terrarium_lacks_is_refused_with_the_reason() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let apparmor = Path::new("/sys/module/apparmor").exists();
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    let check = |name: &str, pointer: &str, value: Value, word: &str| {
        let bundle = Bundle::new(&bed, name, &["true"]);
        bundle.change(|spec| {
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
            spec.pointer_mut(parent).expect("it is there")[field] = value.clone();
        });
        let outcome = bundle.run();
        assert!(outcome.code == 125 && outcome.stderr.contains(word), "{outcome:?}");
        bed.assert_nothing_left();
    };
    if !apparmor {
        check(
            "apparmor",
            "/process/apparmorProfile",
            json!("a-profile"),
            "AppArmor is not enabled",
        );
        let bundle = Bundle::new(&bed, "unconfined", &["true"]);
        bundle.change(|spec| spec["process"]["apparmorProfile"] = json!("unconfined"));
        bundle.run().success();
    }
    if !selinux {
        check("selinux", "/process/selinuxLabel", json!("a:b:c:d"), "SELinux is not enabled");
    }
    check("rdt", "/linux/intelRdt", json!({ "closID": "x" }), "resctrl");
    check("devices", "/linux/netDevices", json!({ "eth9": {} }), "eth9");
    check("label", "/linux/mountLabel", json!("a:b:c:d"), "mountLabel");
}

#[test]
fn every_propagation_of_the_root_is_set() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "root", &["grep", " / / ", "/proc/self/mountinfo"]);
    // The last word of the optional fields; unbindable has one of its own (proc_pid_mountinfo(5)).
    for (kind, word) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
        ("slave", ""),
        ("rslave", ""),
    ] {
        bundle.change(|spec| spec["linux"]["rootfsPropagation"] = json!(kind));
        bundle.change(|spec| {
            spec["process"]["args"] = json!(["head", "-n1", "/proc/self/mountinfo"]);
        });
        let line = bundle.run().success();
        let optional = line.split(" - ").next().expect("it has a part before");
        assert!(optional.contains(word), "{kind}: {line}");
        if word.is_empty() {
            assert!(!optional.contains("shared:") && !optional.contains("unbindable"), "{line}");
        }
    }
    bundle.change(|spec| spec["linux"]["rootfsPropagation"] = json!("loose"));
    assert!(bundle.run().stderr.contains("rootfsPropagation"));
}

#[test]
fn a_domain_name_belongs_to_the_container() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "domain", &["cat", "/proc/sys/kernel/domainname"]);
    bundle.change(|spec| spec["domainname"] = json!("example.internal"));
    assert_eq!(bundle.run().success(), "example.internal\n");
}

#[test]
fn the_oom_killer_is_told_of_a_container_with_other_users() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    for score in ["100", "-5"] {
        let option = format!("--oom-score-adj={score}");
        let container = bed.container("scored").with(["--userns=auto", &option]);
        let outcome = container.run(["cat", "/proc/self/oom_score_adj"]);
        if score.starts_with('-') && outcome.stderr.contains("Permission denied") {
            // Without CAP_SYS_RESOURCE nobody lowers it.
            assert_eq!(outcome.code, 125, "{outcome:?}");
            continue;
        }
        assert_eq!(outcome.success().trim(), score);
    }
}

#[test]
fn a_user_namespace_can_be_joined() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let own = |spec: &mut Value| {
        let map = json!([{ "containerID": 0, "hostID": 300_000, "size": 65_536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
    };
    let pod = Bundle::new(&bed, "pod", &["sleep", "600"]);
    pod.change(own);
    pod.create(&[]).success();
    pod.call("start", &[]).success();
    let pid = pod.state()["pid"].clone();
    let of_pod = |kind: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it runs");
        link.display().to_string()
    };
    let script = "for kind in user net mnt; do readlink /proc/self/ns/$kind; done; id -u; \
                  cat /proc/self/uid_map; stat -c %u /bin/busybox; ps; \
                  hostname member && mount -t tmpfs none /tmp && touch /tmp/x && stat -c %u /tmp/x; \
                  cat /proc/self/oom_score_adj; exit 3";
    for joined in [&["user", "network"][..], &["user", "network", "pid"]] {
        let member = Bundle::new(&bed, &format!("member{}", joined.len()), &["sh", "-c", script]);
        member.change(|spec| {
            for namespace in spec["linux"]["namespaces"].as_array_mut().expect("a list") {
                let kind = namespace["type"].as_str().unwrap_or_default().to_owned();
                if joined.contains(&kind.as_str()) {
                    let file = if kind == "network" { "net" } else { &kind };
                    namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
                }
            }
            let path = format!("/proc/{pid}/ns/user");
            let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
            namespaces.push(json!({ "type": "user", "path": path }));
            spec["process"]["oomScoreAdj"] = json!(321);
            let sets = spec["process"]["capabilities"].as_object_mut().expect("an object");
            for set in sets.values_mut().filter_map(Value::as_array_mut) {
                set.push(json!("CAP_SYS_ADMIN"));
            }
        });
        let outcome = member.run();
        assert_eq!(outcome.code, 3, "{outcome:?}");
        let lines: Vec<&str> = outcome.stdout.lines().map(str::trim).collect();
        assert_eq!(lines[..2], [of_pod("user"), of_pod("net")], "{outcome:?}");
        assert_ne!(lines[2], of_pod("mnt"));
        assert_eq!(lines[3], "0");
        assert_eq!(lines[4].split_whitespace().collect::<Vec<_>>(), ["0", "300000", "65536"]);
        let owner = lines[5];
        assert!(["0", "65534"].contains(&owner), "root's, where ids of its files are shifted");
        let sees_pod = lines.iter().any(|line| line.ends_with("sleep 600"));
        assert_eq!(sees_pod, joined.contains(&"pid"), "{outcome:?}");
        assert_eq!(lines[lines.len() - 2..], ["0", "321"], "{outcome:?}");
    }
    // Its own is none to be joined.
    let same = Bundle::new(&bed, "same", &["readlink", "/proc/self/ns/user"]);
    same.change(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.push(json!({ "type": "user", "path": "/proc/self/ns/user" }));
    });
    let hosts = fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
    assert_eq!(same.run().success().trim(), hosts);
    // What is no user namespace.
    same.change(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        let last = namespaces.last_mut().expect("it was added");
        last["path"] = json!(format!("/proc/{pid}/ns/net"));
    });
    let refused = same.run();
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("join namespace"), "{refused:?}");
    pod.call("delete", &["--force"]).success();
    bed.assert_nothing_left();
}

#[test]
fn interfaces_of_the_host_become_the_containers() {
    require!(Root, Program("busybox"), Program("ip"));
    let bed = TestBed::new();
    let beyond = NetworkNamespace::new();
    bed.network().connect("given0", &beyond, "other0");
    bed.network().ip(&["address", "add", "192.0.2.7/24", "dev", "given0"]);
    bed.network().ip(&["address", "add", "2001:db8::7/64", "dev", "given0", "nodad"]);
    beyond.ip(&["address", "add", "192.0.2.8/24", "dev", "other0"]);
    let script = "ip -o address show dev net0; ping -c 1 -W 5 192.0.2.8 >/dev/null && echo reached";
    let bundle = Bundle::new(&bed, "given", &["sh", "-c", script]);
    bundle.change(|spec| {
        spec["linux"]["netDevices"] = json!({ "given0": { "name": "net0" } });
        spec["process"]["capabilities"] =
            json!({ "bounding": ["CAP_NET_RAW"], "effective": ["CAP_NET_RAW"], "permitted": ["CAP_NET_RAW"] });
    });
    let said = bundle.run().success();
    for part in ["192.0.2.7/24", "2001:db8::7/64", "reached"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A virtual one goes with the namespace.
    eventually("it has gone", || {
        let links = bed.network().links();
        if links.contains(&"given0".to_owned()) { Err(format!("{links:?}")) } else { Ok(()) }
    });
    // In the host's namespace it is there already.
    let host = Bundle::new(&bed, "host", &["true"]);
    host.change(|spec| {
        spec["linux"]["netDevices"] = json!({ "lo": {} });
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "network");
    });
    let refused = host.run();
    assert!(refused.code == 125 && refused.stderr.contains("host's network"), "{refused:?}");
    host.change(|spec| spec["linux"]["netDevices"] = json!({ "lo": { "name": "a/b" } }));
    let refused = host.run();
    assert!(
        refused.code == 2 && refused.stderr.contains("the name of an interface"),
        "{refused:?}"
    );
    bed.assert_nothing_left();
}
