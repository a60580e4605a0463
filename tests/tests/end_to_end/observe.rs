//! What the observatory serves, and what it says about itself.

use crate::counts::Growth;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use terrarium_tests::process::{self, Process};
use terrarium_tests::{Observatory, TestBed, events, eventually, http, require, rootfs};

/// Metrics that are there whatever happens on the host, their types, and the labels of every sample.
const ALWAYS: &[(&str, &str, &[&str])] = &[
    ("terrarium_build_info", "gauge", &["version", "revision"]),
    ("terrarium_probe_attached", "gauge", &["probe", "mechanism"]),
    ("terrarium_events_produced_total", "counter", &["probe"]),
    ("terrarium_events_delivered_total", "counter", &["probe"]),
    ("terrarium_events_dropped_total", "counter", &["probe", "reason"]),
    ("terrarium_series", "gauge", &[]),
    ("terrarium_series_dropped_total", "counter", &[]),
    ("machine_memory_bytes", "gauge", &[]),
];

/// Metrics that every known container has, from 0, and their labels beside `id` and `name`.
const OF_A_CONTAINER: &[(&str, &str, &[&str])] = &[
    ("terrarium_container_info", "gauge", &["image", "runtime"]),
    ("terrarium_clone_total", "counter", &["kind"]),
    ("terrarium_exec_total", "counter", &[]),
    ("terrarium_exit_total", "counter", &["cause"]),
    ("terrarium_namespace_create_total", "counter", &["ns", "via", "result"]),
    ("terrarium_namespace_enter_total", "counter", &["ns", "target", "role", "result"]),
    ("terrarium_mount_operations_total", "counter", &["op", "result"]),
    ("terrarium_memory_limit_hits_total", "counter", &["scope"]),
    ("terrarium_memory_stall_seconds", "histogram", &[]),
    ("terrarium_memory_reclaimed_bytes_total", "counter", &[]),
    ("terrarium_oom_kills_total", "counter", &["scope"]),
];

/// Labels that would let a series a task or a path into Prometheus.
const UNBOUNDED: &[&str] = &["pid", "tid", "comm", "path", "exe", "errno_text", "uid"];

#[test]
fn metrics_have_help_type_and_the_names_and_labels_of_the_contract() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let container = bed.container("named").follow();
    observatory.wait_for(container.name());

    let response = http::get(&observatory.url("/metrics")).expect("it serves");
    assert!(response.content_type.starts_with("text/plain"), "{}", response.content_type);
    let metrics = observatory.metrics();
    assert_eq!(metrics.faults(), Vec::<String>::new());
    let named: &[(&str, &str)] = &[("name", container.name())];
    for (table, labels) in [(ALWAYS, &[][..]), (OF_A_CONTAINER, named)] {
        for (name, kind, expected) in table {
            assert_eq!(metrics.kinds.get(*name).map(String::as_str), Some(*kind), "type of {name}");
            let part =
                if *kind == "histogram" { format!("{name}_count") } else { (*name).to_owned() };
            let samples: Vec<_> = metrics.select(&part, labels).collect();
            assert!(!samples.is_empty(), "{name}{labels:?} has no sample");
            for sample in samples {
                for label in *expected {
                    assert!(sample.labels.contains_key(*label), "{name} lacks {label}: {sample:?}");
                }
            }
        }
    }
    for sample in &metrics.samples {
        for label in UNBOUNDED {
            assert!(!sample.labels.contains_key(*label), "unbounded label {label} in {sample:?}");
        }
    }
    let id = metrics
        .select("terrarium_clone_total", named)
        .map(|sample| sample.labels["id"].clone())
        .next();
    let unified = container.state()["cgroups"]
        .as_array()
        .and_then(|cgroups| cgroups.iter().find(|cgroup| cgroup["hierarchy"] == "unified"))
        .and_then(|cgroup| cgroup["path"].as_str().map(str::to_owned));
    assert_eq!(id, unified, "id is the path of the cgroup");
}

#[test]
fn produced_records_are_delivered_or_counted_as_dropped() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("busy").follow();
    container.call("fork 500");
    // Other tests make records all the time, so the three numbers agree only at a moment between two of them.
    eventually("produced = delivered + dropped for the task probe", || {
        let metrics = observatory.metrics();
        let count = |name: &str| metrics.count(name, &[("probe", "task")]);
        let (produced, delivered, dropped) = (
            count("terrarium_events_produced_total"),
            count("terrarium_events_delivered_total"),
            count("terrarium_events_dropped_total"),
        );
        if produced > 500 && produced == delivered + dropped {
            Ok(())
        } else {
            Err(format!("{produced} produced, {delivered} delivered, {dropped} dropped"))
        }
    });
}

#[test]
fn events_are_json_lines_of_the_contracts_fields_in_a_row_without_gaps() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("told").follow();
    container.call("fork 5");
    let name = container.name();
    let events = eventually("the forks are told", || {
        let events = observatory.events();
        let forks = events::of(&events, name, "process.clone").len();
        if forks >= 5 { Ok(events) } else { Err(format!("{forks} forks of {}", events.len())) }
    });
    let faults: Vec<_> = events.iter().filter_map(events::fault).take(5).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    for pair in events.windows(2) {
        let (before, after) = (&pair[0]["seq"], &pair[1]["seq"]);
        assert_eq!(
            after.as_u64(),
            before.as_u64().map(|seq| seq + 1),
            "{} then {}",
            pair[0],
            pair[1]
        );
    }
    let clone = events::of(&events, name, "process.clone")[0];
    assert_eq!(clone["container"]["id"], container.state()["id"]);
    assert_eq!(clone["container"]["runtime"], "terrarium");
    assert!(clone["process"]["pid"].is_u64(), "{clone}");
    assert!(clone["process"]["comm"].is_string(), "{clone}");
}

#[test]
fn events_follow_prints_what_happens() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut command = bed.terrarium();
    command.args(["events", "--follow", "--format", "json", "--url", &observatory.url("")]);
    let mut follower = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let stdout = follower.child().stdout.take().expect("stdout is piped");
    let container = bed.container("followed");
    let name = container.name().to_owned();
    let (sender, found) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).expect("a line is JSON");
            if event["container"]["name"] == *name && sender.send(event).is_err() {
                break;
            }
        }
    });
    container.run([rootfs::WORKLOAD, "fork", "3"]).success();
    let mut exits = 0;
    while exits < 3 {
        let event = found
            .recv_timeout(terrarium_tests::deadline::PATIENCE)
            .unwrap_or_else(|error| panic!("after {exits} exits: {error}"));
        assert_eq!(events::fault(&event), None);
        exits += usize::from(event["type"] == "process.exit");
    }
    follower.signal(Signal::SIGINT);
    let code = follower.wait();
    // It holds nothing that has to be given back, so the signal itself may end it.
    assert_eq!(code, -(Signal::SIGINT as i32));
}

#[test]
fn sigterm_ends_the_observatory_cleanly() {
    require!(Root, Btf);
    let bed = TestBed::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut observatory = Observatory::start(&bed, &[]);
        observatory.process().signal(signal);
        let code = observatory.process().wait();
        assert_eq!(code, 0, "{signal}: {}", observatory.output());
        assert!(!observatory.output().contains("panicked"), "{}", observatory.output());
        assert!(http::get(&observatory.url("/metrics")).is_err(), "its port is free");
    }
}

#[test]
fn a_removed_containers_series_stay_for_the_grace_time_and_then_go() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--grace", "1s"]);
    let container = bed.container("gone").follow();
    let name = container.name().to_owned();
    observatory.wait_for(&name);
    container.finish();
    eventually("its series go after the grace time", || {
        let metrics = observatory.metrics();
        let left = metrics.select("terrarium_clone_total", &[("name", &name)]).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} series")) }
    });
}

#[test]
fn doctor_tells_each_probe_and_how_it_attaches() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let table = bed.run(["doctor"]).success();
    for word in ["task", "namespace", "mount", "memory", "BTF", "cgroup"] {
        assert!(table.contains(word), "{word} is not in:\n{table}");
    }
    let json = bed.run(["doctor", "--format", "json"]).success();
    let report: Value =
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let probes = report["probes"].as_array().unwrap_or_else(|| panic!("no probes in {json}"));
    for name in ["task", "namespace", "mount", "memory"] {
        let probe = probes
            .iter()
            .find(|probe| probe["name"] == name)
            .unwrap_or_else(|| panic!("no {name} in {json}"));
        assert!(probe["attached"].is_boolean(), "{probe}");
        for hook in probe["hooks"].as_array().unwrap_or_else(|| panic!("no hooks in {probe}")) {
            let why_not = hook["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty());
            assert!(hook["mechanism"].is_string() || why_not, "neither how nor why not: {hook}");
        }
    }
}

#[test]
fn a_probe_that_cannot_attach_is_told_and_does_not_stop_the_others() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    // Many kernels refuse it (no trampolines, lockdown); hooks that have no such way keep theirs.
    let observatory = Observatory::start(&bed, &["--attach", "fentry"]);
    let mut container = bed.container("partial").follow();
    observatory.wait_for(container.name());
    container.call("fork 10");
    let metrics = observatory.metrics();
    let attached = |probe: &str| {
        metrics
            .select("terrarium_probe_attached", &[("probe", probe)])
            .filter(|sample| sample.value > 0.0 && sample.labels["mechanism"] != "none")
            .count()
    };
    if attached("mount") == 0 {
        let none = [("probe", "mount"), ("mechanism", "none")];
        assert_eq!(metrics.value("terrarium_probe_attached", &none), Some(0.0));
        let told = observatory.output();
        assert!(told.contains("probe mount is not attached"), "{told}");
    } else {
        let fentry = [("probe", "mount"), ("mechanism", "fentry")];
        assert_eq!(metrics.value("terrarium_probe_attached", &fentry), Some(1.0));
    }
    assert!(attached("task") > 0);
    assert!(metrics.count("terrarium_clone_total", &[("name", container.name())]) >= 10);
}

#[test]
fn starts_and_ends_of_a_container_are_counted_by_reason() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let name = bed.unique("ends");
    let run = |script: &str, options: &[&str]| {
        let rootfs = bed.rootfs().display().to_string();
        let words = ["run", "--rm", "--name", &name].into_iter().chain(options.iter().copied());
        bed.run(words.chain([&*rootfs, "--", "sh", "-c", script])).code
    };
    assert_eq!(run("true", &[]), 0);
    assert_eq!(run("exit 3", &[]), 3);
    assert_eq!(run("exit 4", &["--net", "bridge"]), 4);
    // Its first process is none in a pid namespace of its own.
    assert_eq!(run("exit 5", &["--pid", "host"]), 5);
    let rootfs = bed.rootfs().display().to_string();
    bed.run(["run", "-d", "--name", &name, &rootfs, "--", "sleep", "600"]).success();
    bed.run(["kill", &name, "KILL"]).success();
    bed.run(["delete", "--force", &name]).success();
    let greedy = [
        "run",
        "--rm",
        "--name",
        &name,
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        &rootfs,
        "--",
        rootfs::WORKLOAD,
        "touch",
        "67108864",
    ];
    assert_eq!(bed.run(greedy).code, 137);
    let labels = |reason: &'static str| [("name", name.clone()), ("reason", reason.to_owned())];
    eventually("starts and ends are told", || {
        let metrics = observatory.metrics();
        let exits = |reason| {
            let labels = labels(reason);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
            metrics.count("terrarium_container_exits_total", &labels)
        };
        let starts = metrics.count("terrarium_container_starts_total", &[("name", &name)]);
        let found = (starts, exits("exit"), exits("error"), exits("signal"), exits("oom"));
        if found == (5, 1, 2, 1, 1) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let durations = observatory.metrics();
    let count = "terrarium_container_start_duration_seconds_count";
    assert!(durations.count(count, &[]) >= 5, "containers of other tests start as well");
    for phase in ["cgroup", "clone", "mounts", "pivot", "seccomp", "exec"] {
        let count = "terrarium_container_start_phase_duration_seconds_count";
        assert!(durations.count(count, &[("phase", phase)]) >= 5, "{phase}");
    }
    let count = "terrarium_container_start_phase_duration_seconds_count";
    assert!(durations.count(count, &[("phase", "network")]) >= 1);
}

#[test]
fn moves_between_cgroups_are_counted_both_ways_where_functions_can_be_hooked() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probes", "cgroup"]);
    let container = bed.container("moves").follow();
    let growth = Growth::since_now(&observatory, container.name());
    let folder = container.cgroup("unified").expect("each container has one");
    let pid = container.state()["pid"].to_string();
    let below = ["a", "b"].map(|name| folder.join(name));
    for folder in &below {
        std::fs::create_dir(folder).expect("make a cgroup below");
    }
    for folder in below.iter().cycle().take(7) {
        std::fs::write(folder.join("cgroup.procs"), &pid).expect("move the first process");
    }
    let metric = "terrarium_cgroup_migrations_total";
    growth.is(metric, &[("direction", "in")], 7);
    let metrics = observatory.metrics();
    let is_hooked = ["fentry", "kprobe"].iter().any(|mechanism| {
        let labels = [("probe", "cgroup"), ("mechanism", mechanism)];
        metrics.value("terrarium_probe_attached", &labels) == Some(1.0)
    });
    growth.is(metric, &[("direction", "out")], if is_hooked { 7 } else { 0 });
}

#[test]
fn without_the_kernels_types_it_goes_on_with_what_remains() {
    require!(Root, CgroupV2, MemoryController, Program("busybox"), Program("unshare"));
    let bed = TestBed::new();
    let hide = "mount -t tmpfs none /sys/kernel/btf 2>/dev/null; exec \"$@\"";
    let without = |bed: &TestBed| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", hide, "sh"]);
        let terrarium = bed.terrarium();
        command.arg(terrarium.get_program()).args(terrarium.get_args());
        command
    };
    let before = bed.container("before").with(["--memory", "64m"]).follow();
    let observatory = Observatory::start_by(without(&bed), &[]);
    assert!(observatory.output().contains("what remains: names"), "{}", observatory.output());
    let after = bed.container("after").with(["--memory", "64m", "--cap-add", "SYS_ADMIN"]).follow();
    // Nobody tells of a new cgroup: it is looked for.
    for container in [&before, &after] {
        eventually("its limit is shown", || {
            let labels = [("name", container.name())];
            let bytes = observatory.metrics().count("container_spec_memory_limit_bytes", &labels);
            if bytes == 64 << 20 { Ok(()) } else { Err(bytes.to_string()) }
        });
    }
    let findings = observatory.leaks(&bed, after.name()).unwrap();
    assert!(
        findings.iter().any(|finding| finding["check"] == "dangerous-capability"),
        "{findings:?}"
    );
    let metrics = observatory.metrics();
    let attached: Vec<_> = metrics.select("terrarium_probe_attached", &[]).collect();
    assert!(attached.iter().all(|sample| sample.value == 0.0), "{attached:?}");

    let name = after.name().to_owned();
    drop(after);
    eventually("its end is noticed", || {
        let page = http::get(&observatory.url("/api/v1/containers")).unwrap().body;
        let runs = page.contains(&format!("\"{name}\"")) && !page.contains("stopped");
        if runs { Err(page) } else { Ok(()) }
    });
    // The others say why they cannot.
    for (command, code, said) in
        [("selftest", 1, "CONFIG_DEBUG_INFO_BTF"), ("doctor", 1, "what remains")]
    {
        let outcome = process::run(without(&bed).arg(command));
        assert!(outcome.code == code, "{outcome:?}");
        assert!((outcome.stdout + &outcome.stderr).contains(said), "{command}");
    }
}
