//! What is counted and told is chosen in the kernel, and what is left out there is counted as left out.

use crate::counts::Growth;
use serde_json::Value;
use terrarium_tests::{Observatory, TestBed, events, eventually, http, require};

/// The value of a metric about one probe.
fn of_probe(observatory: &Observatory, metric: &str, labels: &[(&str, &str)]) -> u64 {
    observatory.metrics().count(metric, labels)
}

/// Waits until each record of the probe was delivered or is counted as lost.
fn each_record_is_accounted_for(observatory: &Observatory, probe: &str) {
    eventually("produced = delivered + dropped", || {
        let metrics = observatory.metrics();
        let count = |name: &str| metrics.count(name, &[("probe", probe)]);
        let (produced, delivered, dropped) = (
            count("terrarium_events_produced_total"),
            count("terrarium_events_delivered_total"),
            count("terrarium_events_dropped_total"),
        );
        if produced == delivered + dropped {
            Ok(())
        } else {
            Err(format!("{produced} produced, {delivered} delivered, {dropped} dropped"))
        }
    });
}

#[test]
fn only_watched_cgroups_are_counted_and_told() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory =
        Observatory::start(&bed, &["--probes", "task,cgroup", "--watch", "terrarium"]);
    let mut container = bed.container("watched").follow();
    let growth = Growth::since_now(&observatory, container.name());
    for _ in 0..30 {
        let code = std::process::Command::new("true").status().expect("true runs").code();
        assert_eq!(code, Some(0));
    }
    container.call("fork 40");
    growth.is("terrarium_clone_total", &[("kind", "process")], 40);
    let host = [("name", "host")];
    assert_eq!(observatory.metrics().count("terrarium_exec_total", &host), 0);
    let told = observatory.events();
    let foreign = told.iter().find(|event| {
        event["container"]["name"] == "host"
            && event["type"].as_str().is_some_and(|kind| kind.starts_with("process."))
    });
    assert_eq!(foreign, None);
}

#[test]
fn what_cannot_be_chosen_is_told_by_its_name() {
    require!(Root, CgroupV2, Btf);
    let bed = TestBed::new();
    let file = bed.folder().join("no/such/folder/events.jsonl");
    let mut command = bed.terrarium();
    command.args(["observe", "--listen", "127.0.0.1:0", "--probes", "task", "--events-file"]);
    let outcome = bed.finish(command.arg(&file));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains(file.to_str().expect("plain")), "{outcome:?}");
    for (option, wrong) in [("--errno", "EFOO"), ("--type", "mountain"), ("--probe", "disk")] {
        let outcome = bed.run(["events", option, wrong]);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.stderr.contains(option) && outcome.stderr.contains(wrong), "{outcome:?}");
    }
}

#[test]
fn a_cgroup_that_is_not_there_cannot_be_watched() {
    require!(Root, CgroupV2, Btf);
    let bed = TestBed::new();
    let outcome = bed.run(["observe", "--listen", "127.0.0.1:0", "--watch", "/no/such/cgroup"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("/no/such/cgroup"), "{outcome:?}");
}

#[test]
fn probes_without_events_still_count() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let options = ["--probes", "task,cgroup", "--events", "cgroup"];
    let observatory = Observatory::start(&bed, &options);
    let mut container = bed.container("silent").follow();
    let growth = Growth::since_now(&observatory, container.name());
    container.call("fork 100");
    growth.is("terrarium_clone_total", &[("kind", "process")], 100);
    let task = [("probe", "task")];
    assert_eq!(of_probe(&observatory, "terrarium_events_produced_total", &task), 0);
    assert!(observatory.events().iter().all(|event| event["type"] != "process.clone"));
}

#[test]
fn a_noisy_cgroup_is_limited_alone_and_its_counts_stay_exact() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let options = ["--probes", "task,cgroup", "--event-rate", "100", "--watch", "terrarium"];
    let observatory = Observatory::start(&bed, &options);
    let mut noisy = bed.container("noisy").follow();
    let mut quiet = bed.container("quiet").follow();
    let growth = Growth::since_now(&observatory, noisy.name());
    noisy.call("fork 2000");
    quiet.call("fork 3");
    growth.is("terrarium_clone_total", &[("kind", "process")], 2000);
    let limited = [("probe", "task"), ("reason", "rate_limited")];
    assert!(of_probe(&observatory, "terrarium_events_dropped_total", &limited) > 0);
    eventually("the quiet container's forks are told", || {
        let all = observatory.events();
        let told = events::of(&all, quiet.name(), "process.exit").len();
        if told >= 3 { Ok(()) } else { Err(format!("{told} exits")) }
    });
    each_record_is_accounted_for(&observatory, "task");
}

#[test]
fn stalls_at_a_limit_are_limited_apart_from_what_else_a_container_does() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    // More than the start of a container writes.
    let options = ["--event-rate", "1000", "--watch", "terrarium"];
    let observatory = Observatory::start(&bed, &options);
    let mut container = bed.container("thrashing").with(["--memory", "16m"]).follow();
    let name = container.name().to_owned();
    let kills_wanted = 40;
    for _ in 0..kills_wanted {
        // Before the kernel kills it, it stands at the limit again and again.
        container.call("touch-in-child 32000000");
    }
    let limited = [("probe", "memory"), ("reason", "rate_limited")];
    eventually("stalls are left out", || {
        match of_probe(&observatory, "terrarium_events_dropped_total", &limited) {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    });
    eventually("each OOM kill and each end is told", || {
        let all = observatory.events();
        let told = |kind| events::of(&all, &name, kind).len();
        let (kills, exits) = (told("memory.oom"), told("process.exit"));
        if told("memory.limit") > 0 && kills == kills_wanted && exits >= kills_wanted {
            Ok(())
        } else {
            Err(format!("{kills} kills, {exits} exits"))
        }
    });
    let of_tasks = [("probe", "task"), ("reason", "rate_limited")];
    assert_eq!(of_probe(&observatory, "terrarium_events_dropped_total", &of_tasks), 0);
    each_record_is_accounted_for(&observatory, "memory");
}

#[test]
fn a_flood_loses_no_count_and_the_observatory_stays_small() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let options = ["--probes", "namespace,mount,task,cgroup", "--event-rate", "0"];
    let mut observatory = Observatory::start(&bed, &options);
    let mut container = bed.container("flood").with(["--cap-add", "SYS_ADMIN"]).follow();
    let growth = Growth::since_now(&observatory, container.name());
    container.call("mount 2000");
    container.call("fork 2000");
    std::thread::scope(|scope| {
        // In pieces, for each is to be answered within a minute: an emulated processor takes longer for all of it.
        let flood = scope.spawn(|| {
            for _ in 0..10 {
                assert_eq!(container.call("setns uts 100000")["succeeded"], 100_000);
            }
        });
        let mut scrapes = 0;
        while !flood.is_finished() {
            observatory.metrics();
            scrapes += 1;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        flood.join().expect("it obeys");
        assert!(scrapes > 1);
    });
    let entered = [("ns", "uts"), ("target", "own"), ("result", "ok")];
    growth.is("terrarium_namespace_enter_total", &entered, 1_000_000);
    each_record_is_accounted_for(&observatory, "namespace");
    let of_namespaces = [("probe", "namespace")];
    let produced = of_probe(&observatory, "terrarium_events_produced_total", &of_namespaces);
    assert!(produced >= 1_000_000, "{produced}");
    let operations = "terrarium_mount_operations_total";
    growth.is(operations, &[("op", "mount"), ("result", "ok")], 2000);
    growth.is(operations, &[("op", "umount"), ("result", "ok")], 2000);
    growth.is("terrarium_clone_total", &[("kind", "process")], 2000);
    assert_eq!(http::get(&observatory.url("/healthz")).expect("it answers").status, 200);
    let pid = observatory.process().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let resident: u64 = status
        .lines()
        // Its own memory: pages of the executable, which a debug build has many of, can be dropped at any time.
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .expect("RssAnon is there");
    assert!(resident < 64 << 10, "{resident} KiB resident");
}

#[test]
fn arguments_are_told_only_when_asked_for() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let long = "x".repeat(400);
    for (options, told) in [(&["--argv"][..], true), (&[][..], false)] {
        let options: Vec<&str> =
            ["--probes", "task,cgroup"].iter().chain(options).copied().collect();
        let observatory = Observatory::start(&bed, &options);
        let mut container = bed.container(if told { "told" } else { "untold" }).follow();
        container.call("run /bin/busybox echo one two");
        container.call(&format!("run /bin/busybox echo {long}"));
        let name = container.name();
        let execs = eventually("both programs are told", || {
            let all = observatory.events();
            let execs: Vec<Value> = events::of(&all, name, "process.exec")
                .into_iter()
                .filter(|event| event["process"]["exe"] == "/bin/busybox")
                .cloned()
                .collect();
            if execs.len() == 2 { Ok(execs) } else { Err(format!("{}", execs.len())) }
        });
        if told {
            let argv = &execs[0]["process"];
            assert_eq!(argv["argv"], serde_json::json!(["/bin/busybox", "echo", "one", "two"]));
            assert_eq!(argv["argv_truncated"], false);
            assert_eq!(execs[1]["process"]["argv_truncated"], true);
        } else {
            assert!(execs[0]["process"].get("argv").is_none(), "{}", execs[0]);
        }
    }
}

#[test]
fn mount_events_carry_the_options_and_clone_events_both_namespaces() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probes", "task,mount,cgroup"]);
    let mut container = bed.container("options").with(["--cap-add", "SYS_ADMIN"]).follow();
    let mounted = container.call("run /bin/busybox mount -t tmpfs -o size=65536 tmpfs /tmp");
    assert_eq!(mounted["code"], 0, "{mounted}");
    let name = container.name();
    eventually("the mount is told with its data", || {
        let all = observatory.events();
        let told = events::of(&all, name, "mount.mount").into_iter().any(|event| {
            event["mount"]["target"] == "/tmp" && event["mount"]["data"] == "size=65536"
        });
        if told { Ok(()) } else { Err("not told".to_owned()) }
    });
    let all = observatory.events();
    let made = events::of(&all, name, "namespace.create");
    let mnt = made
        .iter()
        .find(|event| event["namespace"]["kind"] == "mnt" && event["namespace"]["via"] == "clone");
    if let Some(event) = mnt {
        let (from, to) = (&event["namespace"]["from"], &event["namespace"]["to"]);
        assert!(from.is_u64() && to.is_u64() && from != to, "{event}");
    }
}

#[test]
fn an_oom_event_tells_the_limit_and_the_victims_size() {
    require!(Root, CgroupV2, MemoryController, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probes", "memory,task,cgroup"]);
    let mut container = bed.container("sized").with(["--memory", "32m"]).follow();
    assert_eq!(container.call("touch-in-child 60000000")["code"], 137);
    let name = container.name();
    let oom = eventually("the kill is told", || {
        let all = observatory.events();
        events::of(&all, name, "memory.oom").first().copied().cloned().ok_or_else(String::new)
    });
    let memory = &oom["memory"];
    assert_eq!(memory["limit_bytes"], 32 << 20, "{oom}");
    let size = memory["victim_rss_bytes"].as_u64();
    assert!(size.is_none_or(|bytes| bytes > 4 << 20 && bytes < 64 << 20), "{oom}");
    let all = observatory.events();
    let stall = events::of(&all, name, "memory.limit").first().copied().cloned();
    assert_eq!(stall.map(|event| event["memory"]["limit"].clone()), Some("max".into()));
}

#[test]
fn a_single_hook_of_a_probe_can_be_chosen_and_the_cost_is_measured() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let json = bed.run(["doctor", "--format", "json", "--probes", "guard.ptrace"]).stdout;
    let report: Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
    let probes = report["probes"].as_array().expect("a list");
    let hooks: Vec<&Value> = probes
        .iter()
        .flat_map(|probe| probe["hooks"].as_array().expect("a list"))
        .map(|hook| &hook["name"])
        .collect();
    assert_eq!(hooks, ["ptrace"]);
    for which in ["without", "with"] {
        assert!(report["system_call_ns"][which].as_f64().is_some_and(|ns| ns > 0.0), "{json}");
    }
}

#[test]
fn what_the_probes_cost_and_how_late_events_come_is_told() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probe-stats"]);
    let mut container = bed.container("cost").follow();
    container.call("fork 100");
    eventually("runs, times and latencies are told", || {
        let metrics = observatory.metrics();
        let task = [("probe", "task")];
        let runs = metrics.count("terrarium_probe_runs_total", &task);
        let seconds = metrics.value("terrarium_probe_run_seconds_total", &task).unwrap_or(0.0);
        let late = metrics.count("terrarium_event_latency_seconds_count", &[]);
        // A clone and an exit for each fork.
        if runs >= 200 && seconds > 0.0 && seconds < 60.0 && late >= 200 {
            Ok(())
        } else {
            Err(format!("{runs} runs, {seconds} s, {late} latencies"))
        }
    });
    let metrics = observatory.metrics();
    assert!(metrics.value("terrarium_residue_objects", &[("kind", "veth")]).is_some());
}
