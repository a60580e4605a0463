//! What the observatory tells of itself in the stream of events: what became of containers, findings, residue, losses; and who
//! made what a look at the state finds.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use terrarium_tests::leak_case::{LeakCase, Runtime};
use terrarium_tests::{Observatory, TestBed, events, eventually, process, require};

/// The events of this container whose type has this domain.
fn of(observatory: &Observatory, id: &str, domain: &str) -> Vec<Value> {
    let mut all = observatory.events();
    all.retain(|event| {
        let kind = event["type"].as_str().unwrap_or_default();
        event["container"]["id"] == id && kind.split('.').next() == Some(domain)
    });
    for event in &all {
        assert_eq!(events::fault(event), None);
    }
    all
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["type"].as_str()).collect()
}

#[test]
fn what_becomes_of_a_container_and_of_its_findings_is_told() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let id = bed.unique("story");
    let rootfs = bed.rootfs().display().to_string();
    bed.run(["create", "--bundle"].into_iter().chain([&*bundle(&bed, &rootfs), &id])).success();
    eventually("it was made", || {
        let told = of(&observatory, &id, "container");
        if types(&told).contains(&"container.created") { Ok(()) } else { Err(format!("{told:?}")) }
    });
    bed.run(["start", &id]).success();
    let opened = eventually("its opening is told", || {
        let told = of(&observatory, &id, "finding");
        let opened = |event: &&Value| {
            event["type"] == "finding.open" && event["finding"]["check"] == "host-uts-namespace"
        };
        told.iter().find(opened).cloned().ok_or(format!("{told:?}"))
    });
    assert_eq!(opened["finding"]["source"], "declared", "{opened:#}");
    assert!(opened.get("process").is_none() && opened["finding"].get("container").is_none());
    assert_eq!(opened["container"]["runtime"], "terrarium");
    bed.run(["pause", &id]).success();
    bed.run(["resume", &id]).success();
    bed.run(["delete", "--force", &id]).success();
    let closed = eventually("its opening is closed", || {
        let told = of(&observatory, &id, "finding");
        let closed = |event: &&Value| {
            event["type"] == "finding.close" && event["finding"]["check"] == "host-uts-namespace"
        };
        told.iter().find(closed).cloned().ok_or(format!("{told:?}"))
    });
    assert_eq!(closed["finding"]["closed"], "container_ended", "{closed:#}");
    let told = of(&observatory, &id, "container");
    let of_life = types(&told);
    let mut at = of_life.iter();
    for expected in ["created", "running", "stopped"] {
        let expected = format!("container.{expected}");
        assert!(at.any(|kind| **kind == expected), "{expected} in its order: {of_life:?}");
    }
    assert_eq!(told[0]["container"]["state_before"], Value::Null, "{told:#?}");
    for pair in told.windows(2) {
        assert_eq!(pair[0]["container"]["state"], pair[1]["container"]["state_before"]);
    }
    // A probe's events are the kernel's alone.
    let answer = terrarium_tests::http::get(
        &observatory.url(&format!("/api/v1/events?follow=false&container={id}&probe=cgroup")),
    );
    let all = events::parse(&answer.expect("it serves").body).expect("events are JSON");
    assert!(types(&all).iter().all(|kind| kind.starts_with("cgroup.")), "{all:#?}");
    assert!(!all.is_empty());
    // The same by the command line, in words.
    let mut command = bed.terrarium();
    command.args(["events", "--container", &id, "--type", "finding"]);
    let table = process::run(command.args(["--url", &observatory.url("")])).success();
    assert!(table.contains("finding.open") && table.contains("host-uts-namespace"), "{table}");
}

/// A bundle whose container has the host's host name.
fn bundle(bed: &TestBed, rootfs: &str) -> String {
    let folder = bed.folder().join("bundle");
    std::fs::create_dir(&folder).expect("the test's folder is writable");
    let mut command = bed.terrarium();
    bed.finish(command.args(["spec", "--bundle"]).arg(&folder)).success();
    let path = folder.join("config.json");
    let text = std::fs::read(&path).expect("it was written");
    let mut spec: Value = serde_json::from_slice(&text).expect("it is JSON");
    spec["root"] = json!({ "path": rootfs, "readonly": true });
    spec["process"]["args"] = json!(["sleep", "600"]);
    spec["process"]["terminal"] = json!(false);
    spec.as_object_mut().expect("an object").remove("hostname");
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "uts");
    std::fs::write(path, spec.to_string()).expect("it is writable");
    folder.display().to_string()
}

#[test]
fn what_a_container_left_is_counted_and_told_until_it_is_gone() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let container = bed.container("left").with(["--memory", "32m"]);
    let mut running = container.follow();
    running.call("true");
    let count = |kind: &str| {
        observatory.metrics().value("terrarium_residue_objects", &[("kind", kind)]).unwrap_or(-1.0)
    };
    assert!(count("state").abs() < 0.5);
    // The supervisor is killed, so that nobody takes away what it made.
    running.signal(Signal::SIGKILL);
    running.outcome();
    eventually("what stayed is counted", || {
        let counts = [count("state"), count("cgroup")];
        if counts.iter().all(|count| *count > 0.5) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    let told = of(&observatory, container.name(), "residue");
    let of_state = told.iter().find(|event| event["residue"]["check"] == "residue-state");
    assert_eq!(of_state.expect("it is told")["type"], "residue.found", "{told:#?}");
    bed.run(["gc"]).success();
    eventually("that it is gone is told", || {
        let told = of(&observatory, container.name(), "residue");
        let gone = types(&told).iter().filter(|kind| **kind == "residue.gone").count();
        if gone * 2 == told.len() { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert!(count("state").abs() < 0.5);
}

/// Waits until the finding of this check tells who made it so; gives that.
fn maker(bed: &TestBed, observatory: &Observatory, id: &str, check: &str) -> Value {
    eventually("it is told who mounted it", || {
        let findings = observatory.leaks(bed, id)?;
        let finding = findings.iter().find(|finding| finding["check"] == check);
        let evidence = finding.and_then(|finding| finding["evidence"].as_array());
        let event = evidence.and_then(|all| all.iter().find(|one| one["kind"] == "event"));
        event.cloned().ok_or(format!("{findings:?}"))
    })
}

#[test]
fn who_mounted_it_is_told_with_what_is_there() {
    require!(Root, Btf, Program("busybox"), Program("nsenter"));
    let bed = TestBed::new();
    let history = bed.folder().join("history");
    let options = ["--history", history.to_str().expect("UTF-8")];
    let observatory = Observatory::start(&bed, &options);
    let mut of_terrarium = None;
    for runtime in Runtime::available() {
        // Mounted by the runtime, since the spec asks for it.
        let etc = json!({ "mounts+": [
            { "destination": "/host", "type": "bind", "source": "/etc", "options": ["bind", "ro"] }
        ] });
        let case = LeakCase::start(&bed, runtime, "asked", &etc);
        let made = maker(&bed, &observatory, &case.id, "host-filesystem-mounted");
        let text = made.to_string();
        assert!(text.contains("runtime") && text.contains("/etc"), "{runtime:?}: {made:#}");
        if runtime == Runtime::Terrarium {
            of_terrarium = Some((case, made));
        }
    }
    // Mounted by somebody who came in from outside.
    let case = LeakCase::start(&bed, Runtime::Terrarium, "quiet", &json!({}));
    eventually("the observatory has looked at it", || {
        let all = terrarium_tests::http::get(&observatory.url("/api/v1/leaks"))?;
        if all.body.contains(&case.id) { Ok(()) } else { Err(all.body) }
    });
    let pid = case.state()["pid"].to_string();
    let mut enter = Command::new("nsenter");
    enter.args(["-t", &pid, "-m", "busybox", "mount", "-t", "sysfs", "none", "/tmp"]);
    process::run(&mut enter).success();
    let made = maker(&bed, &observatory, &case.id, "kernel-filesystem-exposed");
    let who = made["path"].as_str().unwrap_or_default();
    assert!(who.contains("foreign") && who.contains("busybox"), "{made:#}");
    // A later observatory knows from the history what it has not seen.
    let (case, before) = of_terrarium.expect("terrarium is there");
    eventually("the events are on disk", || {
        let mut command = bed.terrarium();
        command.args(["events", "--container", &case.id, "--history"]).arg(Path::new(&history));
        let told = process::run(command.args(["--type", "mount"])).success();
        if told.contains("/etc") { Ok(()) } else { Err(told) }
    });
    drop(observatory);
    let observatory = Observatory::start(&bed, &options);
    let made = maker(&bed, &observatory, &case.id, "host-filesystem-mounted");
    assert_eq!(made["value"], before["value"]);
}

#[test]
fn a_loss_is_told_also_when_nothing_comes_after_it() {
    require!(Root, Btf, CgroupV2, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--event-rate", "50", "--watch", "terrarium"]);
    let mut container = bed.container("loud").follow();
    observatory.wait_for(container.name());
    container.call("unshare uts 500");
    let lost = |events: &[Value]| -> u64 {
        let told = events.iter().filter(|event| event["type"] == "stream.loss");
        told.filter_map(|event| event["stream"]["lost"].as_u64()).sum()
    };
    eventually("as much is told as was lost", || {
        let told = lost(&observatory.events());
        let dropped = observatory.metrics().count("terrarium_events_dropped_total", &[]);
        if told > 400 && told == dropped { Ok(()) } else { Err(format!("{told} of {dropped}")) }
    });
    container.finish();
}
