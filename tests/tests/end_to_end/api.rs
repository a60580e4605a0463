//! What `/api/v1` serves to programs.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use terrarium_tests::descriptors::give;
use terrarium_tests::{Observatory, TestBed, deadline, events, eventually, http, require};

fn container(observatory: &Observatory, name: &str) -> Option<Value> {
    let response = http::get(&observatory.url("/api/v1/containers")).expect("it serves");
    assert_eq!((response.status, response.content_type.as_str()), (200, "application/json"));
    let all: Vec<Value> = serde_json::from_str(&response.body).expect("JSON");
    all.into_iter().find(|container| container["name"] == name)
}

#[test]
fn containers_tell_who_they_are_what_they_use_and_what_was_counted() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let options = [
        "--memory", "64m", "--pids-limit", "50", "--label", "tier=front", "--cap-add", "SYS_ADMIN",
    ];
    let mut running = bed.container("listed").with(options).follow();
    observatory.wait_for(running.name());
    let before = container(&observatory, running.name()).expect("it is listed");
    running.call("fork 7");
    running.call("mount 3");
    let after = container(&observatory, running.name()).expect("it is listed");
    let state = running.state();
    assert_eq!(after["pid"], state["pid"], "{after:#}");
    assert_eq!(after["id"], state["id"]);
    assert_eq!(
        after["started"].as_str().map(|t| &t[..19]),
        state["created"].as_str().map(|t| &t[..19])
    );
    assert_eq!((&after["state"], &after["runtime"]), (&"running".into(), &"terrarium".into()));
    assert_eq!(after["labels"]["tier"], "front");
    assert_eq!(after["limits"]["memory_bytes"], 64 << 20, "{after:#}");
    assert_eq!(after["limits"]["pids"], 50);
    let number = |pointer: &str| {
        after
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("{pointer}: {after:#}"))
    };
    assert!(number("/memory/usage_bytes") > 0 && number("/memory/usage_bytes") <= 64 << 20);
    assert!(number("/memory/working_set_bytes") <= number("/memory/usage_bytes"));
    assert!(number("/cpu/usage_ns") > 0);
    let (processes, threads) = (number("/tasks/processes"), number("/tasks/threads"));
    assert!(threads >= processes && processes > 0, "{processes} processes, {threads} threads");
    let counted = |pointer: &str| {
        let then = before.pointer(pointer).and_then(Value::as_u64).expect("a number");
        number(pointer) - then
    };
    assert_eq!(counted("/counters/processes"), 7);
    assert_eq!(counted("/counters/mount_operations"), 6, "each mount was undone");
    let unified = running.cgroup("unified").expect("a cgroup");
    let id = std::os::unix::fs::MetadataExt::ino(&unified.metadata().expect("it is there"));
    let cgroups = after["cgroups"].as_array().expect("a list");
    assert!(cgroups.iter().any(|cgroup| cgroup["id"] == id), "{cgroups:?}");
    let phases = after["start_phases"].as_array().expect("a list");
    let names: Vec<_> = phases.iter().filter_map(|phase| phase["phase"].as_str()).collect();
    assert_eq!(names, ["cgroup", "clone", "mounts", "pivot", "seccomp", "exec"], "{phases:?}");
    assert!(phases.iter().all(|phase| phase["ns"].as_u64().is_some()), "{phases:?}");
    running.finish();
    eventually("it has stopped", || {
        let state = container(&observatory, after["name"].as_str().expect("a name"));
        match state {
            Some(container) if container["state"] == "stopped" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn events_are_chosen_by_type_error_and_time_and_told_to_browsers() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut running = bed.container("chosen").with(["--cap-add", "SYS_ADMIN"]).follow();
    running.call("fork 3");
    running.call("mount 2");
    let name = running.name().to_owned();
    let ask = |query: &str| {
        let url = observatory.url(&format!("/api/v1/events?follow=false&container={name}&{query}"));
        let response = http::get(&url).expect("it serves");
        (response.status, events::parse(&response.body).unwrap_or_default())
    };
    eventually("the mounts are told", || {
        let (_, events) = ask("type=mount.mount");
        if events.len() >= 2 { Ok(()) } else { Err(format!("{} mounts", events.len())) }
    });
    let (_, mounts) = ask("type=mount");
    assert!(
        mounts.iter().all(|event| event["type"].as_str().is_some_and(|t| t.starts_with("mount.")))
    );
    let numbers: Vec<u64> = mounts.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=mounts.len() as u64).collect::<Vec<_>>(), "no gaps in what is chosen");
    assert_eq!(ask("errno=ENOTTY").1.len(), 0);
    assert!(!ask("since=10m").1.is_empty());
    assert_eq!(ask("until=10m").1.len(), 0);
    for wrong in ["since=soon", "probe=none", "until=2026"] {
        assert_eq!(ask(wrong).0, 400, "{wrong}");
    }

    // As a browser's EventSource asks.
    let mut stream = TcpStream::connect(observatory.address()).expect("it listens");
    stream.set_read_timeout(Some(deadline::PATIENCE)).expect("a timeout");
    let path = format!("/api/v1/events?follow=false&type=mount.mount&container={name}");
    let head = format!("GET {path} HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("send");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("receive");
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert!(
        data.len() >= 2 && text.contains("\nevent: mount.mount\n") && text.contains("id: 1\n"),
        "{text}"
    );
    for line in data {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(events::fault(&event), None);
    }
}

/// Says of every object that it has the properties that are named and no other.
fn allow_no_other(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            // A condition says nothing of other properties.
            let parts = object.iter_mut().filter(|(name, _)| *name != "if");
            parts.for_each(|(_, part)| allow_no_other(part));
        }
        Value::Array(all) => all.iter_mut().for_each(allow_no_other),
        _ => {}
    }
}

#[test]
fn every_event_is_as_the_schema_says_and_has_no_field_that_it_does_not_name() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"));
    let text = include_str!("../../../docs/schema/event.v1.json");
    let mut schema: Value = serde_json::from_str(text).expect("it is JSON");
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    allow_no_other(&mut schema);
    let schema = jsonschema::validator_for(&schema).expect("it is a schema");

    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--argv"]);
    let options = ["--memory", "48m", "--cap-add", "SYS_ADMIN", "--cap-add", "MKNOD"];
    let socket = bed.folder().join("socket");
    let listener = UnixListener::bind(&socket).expect("the test's folder is writable");
    let volume = format!("{}:/socket", socket.display());
    let container = bed.container("schema").with(options).with(["--volume", &volume]);
    let mut container = container.follow();
    observatory.wait_for(container.name());
    for instruction in [
        "fork 2", "threads 2", "exec 1", "run /bin/busybox echo one", "unshare uts 1",
        "setns uts 1", "mount 1", "guard chroot 1 /", "guard ptrace 1", "guard capset 1",
        "guard bpf 1", "guard mknod 1 /tmp/node", "guard perf 1", "guard keyctl 1",
    ] {
        // What this kernel refuses is an event as well.
        let _ = container.attempt(instruction);
    }
    let file = std::fs::File::open("/etc/passwd").expect("it is there");
    let giver = give(listener, vec![file]);
    container.call("receive /socket 2");
    giver.join().expect("it gave the file");
    // A signal from outside its cgroups.
    let first = container.state()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let first = nix::unistd::Pid::from_raw(first.expect("it runs"));
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGWINCH).expect("root may signal it");
    let name = container.name().to_owned();
    let mut seen = std::collections::BTreeSet::new();
    eventually("events of most types have come", || {
        let all = observatory.events();
        let ours = all.iter().filter(|event| event["container"]["name"] == name.as_str());
        seen.extend(ours.filter_map(|event| event["type"].as_str().map(str::to_owned)));
        let wanted = [
            "process.clone", "process.exec", "process.exit", "namespace.create", "namespace.enter",
            "mount.mount", "mount.umount", "guard.chroot", "guard.capset", "guard.scm_rights",
        ];
        let is_signal = |event: &Value| {
            event["type"] == "guard.signal" && event["target"]["container"]["name"] == name.as_str()
        };
        if !all.iter().any(is_signal) {
            return Err("no signal".to_owned());
        }
        let lacking: Vec<_> = wanted.into_iter().filter(|kind| !seen.contains(*kind)).collect();
        if lacking.is_empty() { Ok(()) } else { Err(format!("{lacking:?}")) }
    });
    container.finish();
    for event in observatory.events() {
        if let Err(error) = schema.validate(&event) {
            panic!("{error} at {}: {event:#}", error.instance_path());
        }
    }
}
