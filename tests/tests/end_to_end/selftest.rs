//! `terrarium selftest` finds every counter exact.

use serde_json::Value;
use terrarium_tests::{TestBed, process, require};

#[test]
fn selftest_finds_every_counter_exact() {
    require!(Root, CgroupV2, Btf);
    let bed = TestBed::new();
    // In the machine's network namespace, whose loopback is up.
    let outcome = process::run(bed.terrarium().args(["selftest", "--format", "json"]));
    let report: Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    let wrong: Vec<&Value> = report["counters"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|counter| counter["exact"] != true)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((outcome.code, &report["exact"]), (0, &true.into()));
    let table = process::run(bed.terrarium().arg("selftest")).success();
    assert!(table.contains("every counter is exact on this machine"), "{table}");
}

/// It mounts over /tmp, where the program itself may lie.
#[test]
fn it_works_for_a_program_below_tmp() {
    require!(Root, CgroupV2, Btf);
    let folder = tempfile::Builder::new().tempdir_in("/tmp").expect("/tmp is writable");
    let program = folder.path().join("terrarium");
    std::fs::copy(terrarium_tests::binaries::terrarium(), &program).expect("it is copied");
    let outcome = process::run(std::process::Command::new(&program).arg("selftest"));
    assert_eq!(outcome.code, 0, "{outcome:?}");
}
