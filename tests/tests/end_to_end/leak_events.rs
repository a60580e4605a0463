//! Findings of what containers do, seen by an observatory.

use crate::counts::Growth;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use terrarium_tests::descriptors::give;
use terrarium_tests::leak_case::{LeakCase, Runtime, assert_quiet};
use terrarium_tests::{Observatory, TestBed, events, eventually, http, process, require};

/// Role and name of the processes that events of a container tell of.
fn actors(observatory: &Observatory, id: &str, kind: &str) -> BTreeSet<(String, String)> {
    let path = format!("/api/v1/events?follow=false&container={id}&type={kind}");
    let answer = http::get(&observatory.url(&path)).expect("it serves");
    let events = events::parse(&answer.body).expect("events are JSON");
    let text = |event: &Value, key: &str| event["process"][key].as_str().unwrap_or("").to_owned();
    events.iter().map(|event| (text(event, "role"), text(event, "comm"))).collect()
}

fn set(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(role, comm)| ((*role).to_owned(), (*comm).to_owned())).collect()
}

#[test]
fn what_a_container_does_is_told_and_what_its_runtime_does_is_not() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let unshare = json!({
        "process": { "args": ["sh", "-c", "unshare -U true; sleep 600"] },
        "linux": { "seccomp-": ["unshare"] }
    });
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "unshare", &unshare);
        let quiet = LeakCase::start(&bed, runtime, "quiet", &json!({}));
        let findings = eventually("the user namespace is told", || {
            let findings = observatory.leaks(&bed, &case.id)?;
            let told = findings.iter().any(|f| f["check"] == "user-namespace-created");
            if told { Ok(findings) } else { Err(format!("{findings:?}")) }
        });
        let of_check = findings.iter().filter(|f| f["check"] == "user-namespace-created");
        let [finding] = of_check.collect::<Vec<_>>()[..] else { panic!("{findings:#?}") };
        assert_eq!((&finding["source"], &finding["severity"]), (&json!("event"), &json!("medium")));
        assert_eq!(finding["container"]["id"], case.id);
        assert!(finding["observed"].as_str().is_some_and(|t| t.contains("unshare")), "{finding:#}");
        // From the container's first process to the one that did it.
        let evidence = finding["evidence"].as_array().expect("a list");
        let chain = evidence.iter().find(|one| one["kind"] == "processes").expect("it is told");
        let chain: Vec<_> = chain["value"].as_str().unwrap_or_default().split(" > ").collect();
        assert!(chain.len() == 2 && chain[0].contains("sh ("), "{finding:#}");
        assert!(chain[1].contains("unshare ("), "{finding:#}");
        assert_quiet(&findings, &["user-namespace-created"]);
        let findings = observatory.leaks(&bed, &quiet.id).expect("findings are JSON");
        assert_quiet(&findings, &[]);
        if runtime == Runtime::Terrarium {
            // What sets a container up is the runtime's doing, in its events as well.
            assert_eq!(actors(&observatory, &case.id, "mount"), set(&[("runtime", "terrarium")]));
            let made = actors(&observatory, &case.id, "namespace.create");
            assert!(made.is_superset(&set(&[("workload", "unshare")])), "{made:?}");
        }
    }
    // The same by the HTTP side.
    let answer = http::get(&observatory.url("/api/v1/leaks")).expect("it serves");
    let all: Vec<Value> = serde_json::from_str(&answer.body).expect("an array");
    assert!(all.iter().any(|finding| finding["source"] == "event"), "{all:#?}");
}

#[test]
fn hooks_and_exec_are_told_from_the_containers_own_program() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let busybox = terrarium_tests::requirement::program("busybox").expect("it is required");
    let hook = |applet: &str| json!([{ "path": busybox, "args": ["busybox", applet] }]);
    let inside =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "mount -t tmpfs x /tmp; uname"] }]);
    let fragment = json!({
        "hooks": { "createContainer": hook("arch"), "startContainer": inside },
        "process": { "args": ["sh", "-c", "sleep 0.1; id; sleep 600"] }
    });
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "roles", &fragment);
        case.exec(&["sh", "-c", "/bin/terrarium-workload true; :"]).success();
        // busybox executes its applets as /proc/self/exe.
        let mut expected = set(&[
            ("hook", "sh"),
            ("hook", "exe"),
            ("workload", "sh"),
            ("workload", "exe"),
            ("exec", "sh"),
            ("exec", "terrarium-workl"),
        ]);
        if runtime == Runtime::Terrarium {
            // runc tells of its container after the first hooks.
            expected.insert(("hook".to_owned(), "busybox".to_owned()));
        }
        eventually("all have their roles", || {
            let seen = actors(&observatory, &case.id, "process.exec");
            if seen.is_superset(&expected) { Ok(()) } else { Err(format!("{runtime:?}: {seen:?}")) }
        });
        let mounted = actors(&observatory, &case.id, "mount.mount");
        assert!(
            mounted.iter().all(|(role, _)| role != "workload" && role != "exec"),
            "{mounted:?}"
        );
        let findings = observatory.leaks(&bed, &case.id).expect("findings are JSON");
        let by_hook = findings.iter().find(|finding| finding["check"] == "mount-performed");
        assert_eq!(by_hook, None, "what a hook mounts is no finding");
    }
}

#[test]
fn mounts_of_a_container_are_told_by_what_they_open() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let names = ["CAP_SYS_ADMIN"];
    let fragment = json!({
        "process": {
            "args": ["sh", "-c",
                "mount -t tmpfs tmpfs /tmp; mount -t cgroup -o memory cgroup /var; sleep 600"],
            "capabilities": { "bounding+": names, "effective+": names, "permitted+": names }
        },
        "linux": { "seccomp-": ["mount"] }
    });
    let case = LeakCase::start(&bed, Runtime::Terrarium, "mounts", &fragment);
    eventually("both mounts are told", || {
        let findings = observatory.leaks(&bed, &case.id)?;
        let severity = |kind: &str| {
            let of = |f: &&Value| f["check"] == "mount-performed" && f.to_string().contains(kind);
            findings.iter().find(of).map(|finding| finding["severity"].clone())
        };
        let (plain, cgroup) = (severity("(tmpfs)"), severity("(cgroup)"));
        if plain == Some(json!("info")) && cgroup == Some(json!("critical")) {
            Ok(())
        } else {
            Err(format!("{findings:#?}"))
        }
    });
}

/// The checks of the findings with this container's id.
fn checks(bed: &TestBed, observatory: &Observatory, id: &str) -> Result<BTreeSet<String>, String> {
    let findings = observatory.leaks(bed, id)?;
    let of_events = findings.iter().filter(|finding| finding["source"] == "event");
    Ok(of_events.filter_map(|finding| finding["check"].as_str().map(str::to_owned)).collect())
}

#[test]
fn guarded_calls_of_a_container_are_findings() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--watch", "terrarium"]);
    // What seccomp refuses never reaches the call.
    let unconfined = ["--security-opt", "seccomp=unconfined"];
    let mut container = bed.container("guarded").with(unconfined).follow();
    let calls = [
        ("bpf 1", "bpf-load"),
        ("init-module 1", "module-load"),
        ("open-by-handle 1", "open-by-handle"),
        ("chroot 1 /", "chroot-performed"),
        ("keyctl 1", "keyring-access"),
        ("userfaultfd 1", "userfaultfd-created"),
        ("perf 1", "perf-opened"),
        ("write-open 1 /proc/sys/kernel/core_pattern", "kernel-tunable-written"),
        ("write-open 1 /proc/self/exe", "runtime-binary-opened-for-write"),
    ];
    let mut expected = BTreeSet::new();
    for (call, check) in calls {
        let answer = container.call(&format!("guard {call}"));
        // A call that the kernel was built without has no place to hook into.
        if answer["failed"]["ENOSYS"].is_null() {
            expected.insert(check.to_owned());
        }
    }
    // What every container may: trace its own, make a null device, set the rights that it has.
    for call in ["ptrace 1", "process-vm-write 1", "pidfd-getfd 1", "mknod 1 /node", "capset 1"] {
        container.call(&format!("guard {call}"));
    }
    eventually("each is a finding, and what is harmless is none", || {
        let found = checks(&bed, &observatory, container.name())?;
        if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
    });
    // The same as a metric.
    let answer = http::get(&observatory.url("/metrics")).expect("it serves").body;
    let line =
        format!("name=\"{}\",check=\"bpf-load\",severity=\"critical\"}} 1", container.name());
    let shown = answer.lines().filter(|line| line.starts_with("terrarium_isolation_findings{"));
    assert!(shown.clone().any(|one| one.ends_with(&line)), "{:#?}", shown.collect::<Vec<_>>());
    let findings = observatory.leaks(&bed, container.name()).expect("findings are JSON");
    let tunable = findings.iter().find(|finding| finding["check"] == "kernel-tunable-written");
    let tunable = tunable.expect("it was found above");
    let observed = tunable["observed"].as_str().unwrap_or_default();
    assert!(observed.contains("core_pattern") && observed.contains("refused with"), "{tunable:#}");
    assert_eq!(tunable["severity"], "critical");
    container.finish();
}

#[test]
fn a_container_has_not_done_what_another_of_its_name_did() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--watch", "terrarium"]);
    let container = bed.container("again");
    let mut first = container.follow();
    first.call("guard chroot 1 /");
    let expected = BTreeSet::from(["chroot-performed".to_owned()]);
    eventually("the first one's is told", || {
        let found = checks(&bed, &observatory, container.name())?;
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
    first.finish();
    let answer = http::get(&observatory.url("/api/v1/leaks")).expect("it serves");
    let told: Vec<Value> = serde_json::from_str(&answer.body).expect("an array");
    let of_it = told.iter().filter(|one| one["container"]["id"] == container.name());
    let events = of_it.filter(|one| one["source"] == "event").count();
    assert_eq!(events, 1, "it stays known after its end: {told:#?}");
    let mut second = container.follow();
    let answer = second.call("true");
    assert!(checks(&bed, &observatory, container.name()).expect("JSON").is_empty(), "{answer}");
    let path =
        format!("/api/v1/events?follow=false&container={}&type=finding.close", container.name());
    let told = events::parse(&http::get(&observatory.url(&path)).expect("it serves").body);
    let told = told.expect("events are JSON");
    let closed = told.iter().find(|one| one["finding"]["check"] == "chroot-performed");
    assert_eq!(closed.map(|one| &one["finding"]["closed"]), Some(&json!("container_ended")));
    second.call("guard chroot 1 /");
    eventually("the second one's is told, once", || {
        let findings = observatory.leaks(&bed, container.name())?;
        let told = findings.iter().find(|f| f["check"] == "chroot-performed");
        let told = told.ok_or_else(|| format!("{findings:?}"))?;
        assert_eq!(told["count"], 1, "{told:#}");
        Ok(())
    });
    second.finish();
}

#[test]
fn reaching_for_processes_outside_is_a_finding() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--watch", "terrarium"]);
    let options = ["--security-opt", "seccomp=unconfined", "--pid", "host"];
    let mut container = bed.container("across").with(options).follow();
    let mut outside = process::Process::spawn(std::process::Command::new("sleep").arg("600"));
    let pid = outside.pid();
    for call in ["ptrace-of", "process-vm-write", "pidfd-getfd"] {
        container.call(&format!("guard {call} 1 {pid}"));
    }
    let expected: BTreeSet<_> =
        ["ptrace-across", "process-memory-across", "descriptor-passed"].map(str::to_owned).into();
    eventually("each is a finding", || {
        let found = checks(&bed, &observatory, container.name())?;
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
    outside.signal(nix::sys::signal::Signal::SIGKILL);
    outside.wait();
    container.finish();
}

#[test]
fn descriptors_that_come_over_a_socket_are_counted_and_told() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probes", "guard,task,cgroup"]);
    let other = bed.container("other").follow();
    let folder = bed.folder().join("sockets");
    fs::create_dir(&folder).expect("the test's folder is writable");
    let volume = format!("{}:/sockets", folder.display());
    let mut taker = bed.container("taker").with(["--volume", &volume]).follow();
    let growth = Growth::since_now(&observatory, taker.name());
    let quiet = Growth::since_now(&observatory, other.name());
    let listen = |name: &str| UnixListener::bind(folder.join(name)).expect("it is writable");
    let open = |path: &str| fs::File::open(path).expect("it is there");
    // Of the host, of the other container, of the container itself, and of no mount.
    let pid = |container: &Value| container["pid"].to_string();
    let of = |pid: &str, path: &str| open(&format!("/proc/{pid}/root{path}"));
    let (own, others) = (pid(&taker.state()), pid(&other.state()));
    let memory = nix::sys::memfd::memfd_create(c"memory", nix::sys::memfd::MFdFlags::empty())
        .expect("the kernel makes one");
    let files = vec![
        open("/etc/passwd"),
        of(&others, "/bin/busybox"),
        open("/etc/passwd"),
        of(&own, "/bin/busybox"),
        fs::File::from(memory),
    ];
    let giver = give(listen("all"), files);
    let answer = taker.call("receive /sockets/all 10");
    assert_eq!(answer["descriptors"], 5, "{answer}");
    giver.join().expect("it gave all");
    let metric = "terrarium_guard_events_total";
    growth.is(metric, &[("event", "scm_rights"), ("result", "ok")], 3);
    quiet.is(metric, &[("event", "scm_rights")], 0);
    let told = eventually("each is told", || {
        let path =
            format!("/api/v1/events?follow=false&container={}&type=guard.scm_rights", taker.name());
        let told = events::parse(&http::get(&observatory.url(&path))?.body)?;
        if told.len() == 3 { Ok(told) } else { Err(format!("{told:#?}")) }
    });
    let files: Vec<&str> = told.iter().filter_map(|one| one["guard"]["file"].as_str()).collect();
    assert_eq!(files, ["passwd", "busybox", "passwd"]);
    assert_eq!(told[0]["guard"]["call"], "recvmsg");
    assert!(told.iter().all(|one| one["guard"]["fd"].as_u64() > Some(2)), "{told:#?}");
    let there = other.state()["namespaces"]["mnt"].clone();
    assert_eq!(told[1]["guard"]["mount_namespace"], there);
    assert_ne!(told[0]["guard"]["mount_namespace"], there);
    eventually("both are findings about the taker", || {
        let findings = observatory.leaks(&bed, taker.name())?;
        let passed = findings.iter().filter(|one| one["check"] == "descriptor-passed");
        let mut said: Vec<&str> =
            passed.filter_map(|finding| finding["observed"].as_str()).collect();
        said.sort_unstable();
        let from_other = format!("from a mount of container {}", other.name());
        let mut wanted = ["from a mount of the host", &from_other];
        wanted.sort_unstable();
        let fine = said.len() == 2 && wanted.iter().all(|w| said.iter().any(|s| s.ends_with(w)));
        if fine { Ok(()) } else { Err(format!("{findings:#?}")) }
    });
    assert!(checks(&bed, &observatory, other.name()).expect("JSON").is_empty());
    // The same as edges, though nothing is open any more.
    let mut command = bed.terrarium();
    command.args(["leaks", taker.name(), "--graph", "json", "--observatory", &observatory.url("")]);
    let drawn = process::run(&mut command).success();
    let graph: Value = serde_json::from_str(&drawn).expect("JSON");
    let edges = graph["edges"].as_array().expect("a list");
    let drawn: BTreeSet<String> = edges
        .iter()
        .filter(|edge| edge["kind"] == "descriptor")
        .map(|edge| format!("{} {}: {}", edge["from"], edge["to"], edge["what"]).replace('"', ""))
        .collect();
    let (from, to) = (taker.name(), other.name());
    let expected = [
        format!("{from} {to}: busybox came over a unix socket"),
        format!("{from} host: passwd came over a unix socket, 2 times"),
    ];
    assert_eq!(drawn, BTreeSet::from(expected));
    taker.finish();
    other.finish();
}

#[test]
fn signals_to_another_container_are_counted_told_and_drawn() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probes", "guard,task,cgroup"]);
    let mut target = bed.container("target").follow();
    let with_target = format!("container:{}", target.name());
    let mut sender = bed.container("sender").with(["--pid", &with_target]).follow();
    let growth = Growth::since_now(&observatory, sender.name());
    let quiet = Growth::since_now(&observatory, target.name());
    // Nobody obeys this one. The target's first process is the first of the common pid namespace.
    for _ in 0..3 {
        sender.call("run /bin/busybox kill -WINCH 1");
    }
    // One that is not there, and its own.
    sender.call("run /bin/busybox kill -WINCH 99999");
    sender.call("run /bin/busybox sh -c 'kill -0 $$; kill -CONT $$'");
    target.call("run /bin/busybox sh -c 'kill -CONT $$'");
    let metric = "terrarium_guard_events_total";
    growth.is(metric, &[("event", "signal")], 3);
    quiet.is(metric, &[("event", "signal")], 0);
    let event = eventually("the signal is told", || {
        let path =
            format!("/api/v1/events?follow=false&container={}&type=guard.signal", sender.name());
        let answer = http::get(&observatory.url(&path))?;
        let told = events::parse(&answer.body)?;
        if told.len() == 3 { Ok(told[2].clone()) } else { Err(format!("{told:#?}")) }
    });
    assert_eq!(
        event["guard"],
        json!({
            "event": "signal", "call": "kill", "signal": 28, "signal_name": "SIGWINCH"
        })
    );
    assert_eq!(event["target"]["container"]["id"], target.name());
    let first = target.state()["pid"].clone();
    assert_eq!(event["target"]["process"]["pid"], first);
    assert_eq!(event["process"]["comm"], "busybox");
    eventually("it is a finding about the sender", || {
        let found = checks(&bed, &observatory, sender.name())?;
        let expected = BTreeSet::from(["signal-across".to_owned()]);
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert!(checks(&bed, &observatory, target.name()).expect("JSON").is_empty());
    let url = observatory.url("");
    let mut command = bed.terrarium();
    command.args(["leaks", target.name(), "--graph", "json", "--observatory", &url]);
    let drawn = process::run(&mut command).success();
    let graph: Value = serde_json::from_str(&drawn).expect("JSON");
    let edges = graph["edges"].as_array().expect("a list");
    let drawn: Vec<_> = edges.iter().filter(|edge| edge["kind"] == "signal").collect();
    assert_eq!(
        drawn,
        [&json!({
            "from": sender.name(), "to": target.name(), "kind": "signal", "declared": true,
            "what": format!("SIGWINCH to process {first} (terrarium-workl), 3 times")
        })]
    );
    // The end of a container by its runtime is the host's right.
    sender.finish();
    target.finish();
}

#[test]
fn an_audit_tells_what_the_container_did_and_not_what_its_runtime_did() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--watch", "terrarium"]);
    let url = observatory.url("");
    // Twice by the same name: the first one's deeds are not the second's.
    for (script, chroots) in
        [("chroot / true; chroot / true", Some("2 guard.chroot")), ("true", None)]
    {
        let container = bed.container("audited").with(["--audit", "--observatory", &url]);
        let outcome = process::run(&mut container.command(["sh", "-c", script]));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let line = |word: &str| {
            let lines = outcome.stderr.lines().map(str::trim_start);
            let found = lines.filter(|line| line.starts_with(word)).collect::<Vec<_>>();
            found.first().map_or_else(|| panic!("{word}: {outcome:?}"), |line| (*line).to_owned())
        };
        let did = line("did:");
        assert!(!did.contains("fsopen") && !did.contains("pivot_root"), "{did}");
        assert_eq!(did.contains("guard.chroot"), chroots.is_some(), "{did}");
        assert!(chroots.is_none_or(|chroots| did.contains(chroots)), "{did}");
        assert!(line("ran:").contains("/bin/sh") && !line("ran:").contains("/fd/"), "{outcome:?}");
        assert!(line("set up:").ends_with("steps of the runtime's"), "{outcome:?}");
        let told = outcome.stderr.contains("chroot-performed");
        assert_eq!(told, chroots.is_some(), "{outcome:?}");
    }
}

#[test]
fn who_enters_a_container_from_outside_is_told() {
    require!(Root, Btf, Program("busybox"), Program("nsenter"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let other = LeakCase::start(&bed, Runtime::Terrarium, "alone", &json!({}));
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "visited", &json!({}));
        let pid = case.state()["pid"].to_string();
        // Once, and at once.
        let mut command = std::process::Command::new("sh");
        let script = "nsenter --target $0 --uts --ipc true; true";
        process::run(command.args(["-c", script, &pid])).success();
        let told = eventually("the visitor is told", || {
            let findings = observatory.leaks(&bed, &case.id)?;
            let told = findings.iter().find(|f| f["check"] == "entered-from-outside").cloned();
            told.ok_or_else(|| format!("{findings:?}"))
        });
        assert_eq!((&told["severity"], &told["source"]), (&json!("info"), &json!("event")));
        let observed = told["observed"].as_str().expect("text");
        assert!(observed.contains("nsenter") && observed.contains("setns to "), "{told:#}");
        assert_eq!(told["count"], 2, "both namespaces, and nobody else: {told:#}");
        let chain = told["evidence"][1]["value"].as_str().expect("it is told who came in");
        let names: Vec<&str> = chain.split(" > ").collect();
        assert!(names.len() >= 2, "{chain}");
        assert!(names[names.len() - 2].contains("sh ("), "{chain}");
        assert!(names[names.len() - 1].contains("nsenter ("), "{chain}");
    }
    let findings = observatory.leaks(&bed, &other.id).expect("findings are JSON");
    assert!(findings.iter().all(|f| f["check"] != "entered-from-outside"), "{findings:#?}");
}
