//! What `/metrics` says that containers use, against what the kernel and the workload say.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use terrarium_tests::{Metrics, Observatory, TestBed, eventually, http, require};

/// The sum of a metric of one container.
fn of(metrics: &Metrics, name: &str, metric: &str) -> f64 {
    metrics
        .value(metric, &[("name", name)])
        .unwrap_or_else(|| panic!("{metric} of {name} has no sample"))
}

#[test]
fn cpu_memory_and_tasks_are_what_the_kernel_says() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    // The last that is said counts.
    let observatory = Observatory::start(&bed, &["--no-cadvisor-names", "--cadvisor-names"]);
    let options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    let mut container = bed.container("used").with(options).follow();
    observatory.wait_for(container.name());
    container.call("touch-in-child 20000000");
    let metrics = observatory.metrics();
    let value = |metric: &str| of(&metrics, container.name(), metric);
    assert!(value("container_cpu_usage_seconds_total") > 0.0);
    let limit = value("container_spec_memory_limit_bytes");
    assert!((limit - f64::from(64 << 20)).abs() < 1.0, "{limit}");
    let folder = container.cgroup("memory").or(container.cgroup("unified")).expect("a cgroup");
    // memory.peak came with Linux 5.19.
    if ["memory.max_usage_in_bytes", "memory.peak"].iter().any(|name| folder.join(name).exists()) {
        assert!(value("container_memory_max_usage_bytes") >= 20_000_000.0);
        assert!(value("container_memory_max_usage_bytes") <= limit);
    }
    assert!(value("container_memory_working_set_bytes") <= value("container_memory_usage_bytes"));
    assert!(value("container_memory_failures_total") >= 20_000_000.0 / 4096.0 / 512.0);
    assert!((value("container_threads_max") - 50.0).abs() < 0.1);
    assert!(value("container_threads") >= value("container_processes"));
    let (quota, period) = (value("container_spec_cpu_quota"), value("container_spec_cpu_period"));
    assert!((quota / period - 0.5).abs() < 0.01, "{quota} of {period}");
    let age = value("container_last_seen") - value("container_start_time_seconds");
    assert!((0.0..3600.0).contains(&age), "{age} s old");

    // A file that changes by itself may have changed between the two readings: one of many must agree.
    let read = |names: [&str; 2]| {
        names.iter().find_map(|n| fs::read_to_string(folder.join(n)).ok()?.trim().parse().ok())
    };
    eventually("the usage is the kernel's", || {
        let told = of(&observatory.metrics(), container.name(), "container_memory_usage_bytes");
        let there: f64 = read(["memory.usage_in_bytes", "memory.current"]).ok_or("no file")?;
        if (told - there).abs() < 1.0 { Ok(()) } else { Err(format!("{told}, but {there}")) }
    });
    let bare = Observatory::start(&bed, &["--no-cadvisor-names"]);
    bare.wait_for(container.name());
    assert!(!bare.metrics().samples.iter().any(|sample| sample.name.starts_with("container_")));
}

#[test]
fn processes_are_counted_as_they_are_now() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let container = bed.container("two").with(["--pids-limit", "50"]).follow();
    observatory.wait_for(container.name());
    let processes = || of(&observatory.metrics(), container.name(), "container_processes");
    eventually("there is one", || {
        if (processes() - 1.0).abs() < 0.1 { Ok(()) } else { Err("there are more".to_owned()) }
    });
    // A list that stays open tells what it told before until nobody has asked for a second, in cgroup v1.
    let (url, started) = (observatory.url("/metrics"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !started.load(Ordering::Relaxed) {
                http::get(&url).expect("it serves");
            }
        });
        bed.run(["exec", "--detach", container.name(), "/bin/busybox", "sleep", "60"]).success();
        started.store(true, Ordering::Relaxed);
    });
    let now = processes();
    assert!((now - 2.0).abs() < 0.1, "{now}");
    container.finish();
}

#[test]
fn network_counters_are_those_of_the_containers_own_interface() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let options = ["--net", "bridge"];
    let loud = "ping -c 5 -i 0.1 -s 1000 10.77.0.1 >/dev/null; cat > /dev/null";
    let container = bed.container("wired").with(options).start(["sh", "-c", loud]);
    observatory.wait_for(container.name());
    let eth0 = [("name", container.name()), ("interface", "eth0")];
    eventually("the replies are counted", || {
        let metrics = observatory.metrics();
        let get = |metric: &str| metrics.value(metric, &eth0).unwrap_or(0.0);
        let (received, sent) = (
            get("container_network_receive_bytes_total"),
            get("container_network_transmit_bytes_total"),
        );
        let packets = get("container_network_transmit_packets_total");
        if received >= 5000.0 && sent >= 5000.0 && packets >= 5.0 {
            Ok(())
        } else {
            Err(format!("{received} received, {sent} sent, {packets} packets"))
        }
    });
    container.finish();
}

/// How many series an answer has about containers.
fn told_of_containers(metrics: &Metrics) -> u64 {
    metrics.samples.iter().filter(|sample| sample.labels.contains_key("id")).count() as u64
}

#[test]
fn chosen_labels_and_a_bound_for_series() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let options = ["--label", "team=blue", "--label", "secret=x"];
    let container = bed.container("labelled").with(options).follow();
    let observatory = Observatory::start(&bed, &["--label-allow", "team,app.kind"]);
    observatory.wait_for(container.name());
    let metrics = observatory.metrics();
    let named = [("name", container.name())];
    let info: Vec<_> = metrics.select("terrarium_container_info", &named).collect();
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].labels["label_team"], "blue");
    assert_eq!(info[0].labels["label_app_kind"], "");
    assert!(!info[0].labels.contains_key("label_secret"));
    assert_eq!(metrics.count("terrarium_series", &[]), told_of_containers(&metrics));

    let bounded = Observatory::start(&bed, &["--max-series", "60"]);
    let metrics = bounded.metrics();
    let about_containers = told_of_containers(&metrics);
    let dropped = metrics.count("terrarium_series_dropped_total", &[]);
    assert!(dropped > 0);
    // The machine's own series stay, whatever the bound.
    assert!(about_containers < 120, "{about_containers} series");
    assert_eq!(metrics.count("terrarium_series", &[]), about_containers);
    assert!(metrics.count("terrarium_series_dropped_total", &[]) > 0);
    let more = bounded.metrics().count("terrarium_series_dropped_total", &[]);
    assert!(more > dropped, "counted at each answer: {dropped}, {more}");
}

#[test]
fn openmetrics_for_those_who_ask_and_exemplars_of_stalls() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("open").with(["--memory", "16m"]).follow();
    observatory.wait_for(container.name());
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    eventually("a stall has an exemplar", || {
        // More than the limit: it is reclaimed, or its child killed.
        container.call("touch-in-child 64000000");
        let response = http::get_as(&observatory.url("/metrics"), accept)?;
        assert!(response.content_type.starts_with("application/openmetrics-text"));
        assert!(response.body.ends_with("\n# EOF\n"));
        assert!(response.body.contains("# TYPE terrarium_clone counter\n"));
        let stalls = response.body.lines().filter(|line| {
            line.starts_with("terrarium_memory_stall_seconds_bucket{")
                && line.contains(container.name())
        });
        match stalls.clone().find(|line| line.contains("} ") && line.contains(" # {tid=\"")) {
            Some(_) => Ok(()),
            None => Err(stalls.collect::<Vec<_>>().join("\n")),
        }
    });
}
