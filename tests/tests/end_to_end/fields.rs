//! Fields of the OCI spec that few people use.

use serde_json::json;
use std::path::Path;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::requirement::skip;
use terrarium_tests::{TestBed, require};

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
