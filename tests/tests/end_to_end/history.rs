//! Events on disk: still there after the container, after the observatory, and after a kill at any moment.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;
use terrarium_tests::{Observatory, TestBed, events, eventually, require};

fn stored(bed: &TestBed, folder: &Path, options: &[&str]) -> Vec<Value> {
    let folder = folder.to_str().expect("paths of tests are UTF-8");
    let words = ["events", "--format", "json", "--history", folder];
    let text = bed.run(words.iter().chain(options)).success();
    events::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn events_outlive_the_container_and_the_observatory() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let folder = bed.folder().join("history");
    let options = ["--history", folder.to_str().expect("UTF-8")];
    let observatory = Observatory::start(&bed, &options);
    let mut container = bed.container("kept").follow();
    let name = container.name().to_owned();
    container.call("fork 5");
    container.finish();
    let of = ["--container", name.as_str()];
    eventually("the forks are on disk", || {
        let forks = stored(&bed, &folder, &[of[0], of[1], "--type", "process.clone"]);
        if forks.len() >= 5 { Ok(()) } else { Err(format!("{} clones", forks.len())) }
    });
    drop(observatory);
    let all = stored(&bed, &folder, &of);
    assert!(all.iter().find_map(events::fault).is_none());
    for (number, event) in (1_u64..).zip(&all) {
        assert_eq!(
            (&event["seq"], &event["container"]["name"]),
            (&number.into(), &name.as_str().into())
        );
    }
    let times: Vec<&str> = all.iter().filter_map(|event| event["time"].as_str()).collect();
    assert!(times.is_sorted(), "in the order in which they happened");
    let count = |more: &[&str]| stored(&bed, &folder, &[&of[..], more].concat()).len();
    assert_eq!(count(&["--since", "1h"]), all.len());
    assert_eq!(count(&["--until", "1h"]), 0);
    assert_eq!(count(&["--errno", "ENOTTY"]), 0);
    assert!((1..all.len()).contains(&count(&["--probe", "task"])));
    let wrong = bed.run(["events", "--since", "soon"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let table = bed.run(["events", "--history", options[1], "--container", &name]).success();
    assert_eq!(table.lines().count(), all.len() + 1, "{table}");
}

#[test]
fn a_kill_at_any_moment_loses_at_most_the_last_second() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let folder = bed.folder().join("history");
    let options = ["--history", folder.to_str().expect("UTF-8")];
    let mut container = bed.container("torn").follow();
    let name = container.name().to_owned();
    for round in 0..4_u64 {
        let mut observatory = Observatory::start(&bed, &options);
        observatory.wait_for(&name);
        container.call("fork 10");
        // Long enough for what is asserted, and never at the same point of the second.
        std::thread::sleep(Duration::from_millis(1300 + 170 * round));
        container.call("fork 100");
        observatory.process().signal(Signal::SIGKILL);
        observatory.process().wait();
        // As a write that a power cut has ended.
        for entry in fs::read_dir(&folder).expect("it was made").flatten() {
            let path = entry.path().join("new");
            let Ok(file) = fs::OpenOptions::new().write(true).open(&path) else { continue };
            let length = file.metadata().expect("it is there").len();
            file.set_len(length.saturating_sub(round)).expect("cut it");
        }
    }
    let exits = stored(&bed, &folder, &["--container", &name, "--type", "process.exit"]);
    // Each round's ten were there for more than a second; a cut takes one line.
    assert!(exits.len() >= 4 * 9, "{} exits", exits.len());
    assert!(exits.iter().find_map(events::fault).is_none());
}

#[test]
fn the_folder_is_made_with_all_rights_and_a_useless_one_is_refused_at_once() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    // As the root of an image that was made of one file: nobody may write to it but by a capability that is given up.
    let closed = bed.folder().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let below = closed.join("var/history");
    let observatory = Observatory::start(&bed, &["--history", below.to_str().expect("UTF-8")]);
    bed.container("kept").run(["true"]).success();
    eventually("events are on disk", || {
        match stored(&bed, &below, &["--container", &bed.unique("kept")]).len() {
            0 => Err(observatory.output()),
            _ => Ok(()),
        }
    });
    drop(observatory);

    let foreign = bed.folder().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&foreign, Some(65534), Some(65534)).unwrap();
    let foreign = foreign.to_str().expect("UTF-8");
    let refused = bed.run(["observe", "--listen", "127.0.0.1:0", "--history", foreign]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let word = format!("keep the history in {foreign}: Permission denied");
    assert!(refused.stderr.contains(&word), "{refused:?}");
}
