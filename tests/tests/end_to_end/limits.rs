//! Limits that few people set: each is read back from the cgroup's file, in the version that stands here.

use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::kernel_state::cgroup_mount_of;
use terrarium_tests::requirement::skip;
use terrarium_tests::{TestBed, require};

/// A block device, as `major:minor`.
fn block_device() -> Option<(u64, u64)> {
    let devices = fs::read_dir("/sys/block").ok()?;
    devices.flatten().find_map(|device| {
        let text = fs::read_to_string(device.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn created<'a>(bed: &'a TestBed, name: &str, resources: Value) -> Bundle<'a> {
    let bundle = Bundle::new(bed, name, &["sleep", "100"]);
    bundle.change(|spec| spec["linux"]["resources"] = resources);
    bundle.create(&[]).success();
    bundle
}

/// The folder of the container's cgroup in the hierarchy of `controller`.
fn folder(bundle: &Bundle<'_>, controller: &str) -> PathBuf {
    let mount = cgroup_mount_of(controller).expect("the test has looked");
    mount.path.join("terrarium").join(bundle.id())
}

fn read(bundle: &Bundle<'_>, controller: &str, file: &str) -> String {
    let path = folder(bundle, controller).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether cgroups of the cpu controller have `cpu.idle`: since Linux 5.15.
fn has_cpu_idle() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release.split(['.', '-']).map_while(|text| text.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(15))
}

#[test]
fn block_io_is_throttled() {
    require!(Root, Program("busybox"));
    let name = "limits::block_io_is_throttled";
    let Some((major, minor)) = block_device() else { return skip(name, &"needs a block device") };
    let v1 = cgroup_mount_of("blkio").is_some();
    if !v1 && cgroup_mount_of("io").is_none() {
        return skip(name, &"needs the blkio or io controller");
    }
    let bed = TestBed::new();
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let io = json!({ "throttleReadBpsDevice": rate(1 << 20), "throttleWriteIOPSDevice": rate(77) });
    let bundle = created(&bed, "io", json!({ "blockIO": io }));
    let limits = || {
        if v1 {
            let bytes = read(&bundle, "blkio", "blkio.throttle.read_bps_device");
            bytes + &read(&bundle, "blkio", "blkio.throttle.write_iops_device")
        } else {
            read(&bundle, "io", "io.max")
        }
    };
    let expected = |bytes: u64| {
        if v1 {
            format!("{major}:{minor} {bytes}\n{major}:{minor} 77\n")
        } else {
            format!("{major}:{minor} rbps={bytes} wbps=max riops=max wiops=77\n")
        }
    };
    assert_eq!(limits(), expected(1 << 20));

    // All of an update or nothing: the device of the second does not exist.
    let file = bed.folder().join("resources.json");
    let update = |io: Value| {
        fs::write(&file, json!({ "blockIO": io }).to_string()).unwrap();
        bundle.call("update", &["-r", file.to_str().expect("paths of tests are UTF-8")])
    };
    let missing = json!([{ "major": 4095, "minor": 9, "rate": 1 }]);
    let refused = update(
        json!({ "throttleReadBpsDevice": rate(1 << 22), "throttleWriteBpsDevice": missing }),
    );
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!limits().contains(&(1 << 22).to_string()), "{}", limits());
    update(json!({ "throttleReadBpsDevice": rate(1 << 21) })).success();
    assert!(limits().contains(&(1 << 21).to_string()), "{}", limits());
    bundle.call("delete", &["--force"]).success();
    bed.assert_nothing_left();
}

#[test]
fn huge_pages_are_limited() {
    require!(Root, Program("busybox"));
    let name = "limits::huge_pages_are_limited";
    let Some(mount) = cgroup_mount_of("hugetlb") else {
        return skip(name, &"needs the hugetlb controller");
    };
    if !PathBuf::from("/sys/kernel/mm/hugepages/hugepages-2048kB").is_dir() {
        return skip(name, &"needs huge pages of 2 MiB");
    }
    let bed = TestBed::new();
    let limits = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let bundle = created(&bed, "huge", json!({ "hugepageLimits": limits }));
    let file = if mount.version == 2 { "hugetlb.2MB.max" } else { "hugetlb.2MB.limit_in_bytes" };
    assert_eq!(read(&bundle, "hugetlb", file).trim(), (4 << 20).to_string());
    bundle.call("delete", &["--force"]).success();

    let bundle = Bundle::new(&bed, "odd", &["true"]);
    bundle.change(|spec| {
        spec["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "3MB", "limit": 1 }]);
    });
    let outcome = bundle.run();
    assert!(outcome.stderr.contains("no huge pages of that size"), "{outcome:?}");
    bed.assert_nothing_left();
}

#[test]
fn files_of_cgroup_v2_are_written_as_they_are_given() {
    require!(Root, Program("busybox"), CgroupV2);
    let bed = TestBed::new();
    let mut unified = json!({ "cgroup.max.descendants": "3" });
    let memory = cgroup_mount_of("memory").is_some_and(|mount| mount.version == 2);
    if memory {
        unified["memory.high"] = json!("33554432");
    }
    let idle = memory && has_cpu_idle();
    if idle {
        unified["cpu.idle"] = json!("1");
    }
    let bundle = created(&bed, "unified", json!({ "unified": unified }));
    let v2 = terrarium_tests::kernel_state::cgroup_mounts();
    let v2 = v2.into_iter().find(|mount| mount.version == 2).expect("it was required");
    let read = |file: &str| {
        fs::read_to_string(v2.path.join("terrarium").join(bundle.id()).join(file)).unwrap()
    };
    assert_eq!(read("cgroup.max.descendants"), "3\n");
    if memory {
        assert_eq!(read("memory.high"), "33554432\n");
    }
    if idle {
        assert_eq!(read("cpu.idle"), "1\n");
    }
    bundle.call("delete", &["--force"]).success();

    let bundle = Bundle::new(&bed, "not-unified", &["true"]);
    for (file, word) in [("no_such.max", "not in a cgroup v2"), ("../x.max", "name of a file")] {
        bundle.change(|spec| spec["linux"]["resources"]["unified"] = json!({ file: "1" }));
        let outcome = bundle.run();
        assert!(outcome.code != 0 && outcome.stderr.contains(word), "{outcome:?}");
    }
    bed.assert_nothing_left();
}

#[test]
fn a_cpu_has_a_burst_and_idle_tasks() {
    require!(Root, Program("busybox"));
    let name = "limits::a_cpu_has_a_burst_and_idle_tasks";
    let Some(mount) = cgroup_mount_of("cpu") else {
        return skip(name, &"needs the cpu controller");
    };
    if !has_cpu_idle() {
        return skip(name, &"needs cpu.idle (Linux 5.15)");
    }
    let bed = TestBed::new();
    let cpu = json!({ "quota": 50_000, "period": 100_000, "burst": 20_000, "idle": 1 });
    let bundle = created(&bed, "burst", json!({ "cpu": cpu }));
    let burst = if mount.version == 2 { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    assert_eq!(read(&bundle, "cpu", burst), "20000\n");
    assert_eq!(read(&bundle, "cpu", "cpu.idle"), "1\n");
    bundle.call("delete", &["--force"]).success();

    let bundle = Bundle::new(&bed, "real-time", &["true"]);
    bundle.change(|spec| {
        spec["linux"]["resources"]["cpu"] =
            json!({ "realtimePeriod": 1_000_000, "realtimeRuntime": 0 });
    });
    let outcome = bundle.run();
    if mount.version == 2 {
        assert!(outcome.stderr.contains("real-time"), "{outcome:?}");
    } else if mount.path.join("cpu.rt_runtime_us").exists() {
        outcome.success();
    }
    bed.assert_nothing_left();
}

#[test]
fn memory_has_what_its_version_has() {
    require!(Root, Program("busybox"), MemoryController);
    let bed = TestBed::new();
    let v2 = cgroup_mount_of("memory").is_some_and(|mount| mount.version == 2);
    let bundle = Bundle::new(&bed, "memory", &["sleep", "100"]);
    let set = |memory: Value| {
        bundle.change(|spec| spec["linux"]["resources"]["memory"] = memory);
    };
    for (memory, word) in [
        (json!({ "swappiness": 7 }), "swappiness"),
        (json!({ "disableOOMKiller": true }), "OOM killer"),
    ] {
        set(memory);
        let outcome = bundle.create(&[]);
        if v2 {
            assert!(outcome.code == 1 && outcome.stderr.contains(word), "{outcome:?}");
            continue;
        }
        outcome.success();
        let read = |file: &str| read(&bundle, "memory", file);
        if word == "swappiness" {
            assert_eq!(read("memory.swappiness"), "7\n");
        } else {
            assert!(read("memory.oom_control").starts_with("oom_kill_disable 1\n"));
        }
        bundle.call("delete", &["--force"]).success();
    }
    set(json!({ "limit": 64 << 20 }));
    bundle.create(&[]).success();
    let file = bed.folder().join("resources.json");
    let path = file.to_str().expect("paths of tests are UTF-8");
    fs::write(&file, r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#).unwrap();
    let refused = bundle.call("update", &["-r", path]);
    assert!(refused.code != 0 && refused.stderr.contains("bytes now"), "{refused:?}");
    assert_eq!(bundle.state()["status"], "created");
    bundle.call("delete", &["--force"]).success();
    bed.assert_nothing_left();
}
