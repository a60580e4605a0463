//! The crash rule: after SIGKILL at any system call `gc` finds everything.

use std::process::{Command, Stdio};
use terrarium_tests::bundle::Bundle;
use terrarium_tests::{TestBed, eventually, require, tracer};

/// At least so many points of a run are tried.
const POINTS: usize = 220;

/// So many are killed before `gc` is called.
const BATCH: usize = 8;

/// The names in the state folder.
fn state_root(bed: &TestBed) -> Vec<String> {
    let entries = std::fs::read_dir(bed.root()).expect("the state folder is there");
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_runtime_killed_at_any_system_call_leaves_nothing_after_gc() {
    require!(Root, Program("busybox"), Program("nft"));
    let bed = TestBed::new();
    // Somebody else's container in the same root, on a bridge of its own.
    let mut other =
        bed.container("other").with(["--net", "bridge:keep0", "--subnet", "10.9.0.0/24"]).follow();
    let before = bed.leftovers();
    let root_before = state_root(&bed);
    // Each on a bridge of its own, so that what it makes is not there already.
    let victim = |point: usize, place: usize| -> Command {
        let (bridge, subnet) = (format!("bridge:crash{place}"), format!("10.8.{place}.0/24"));
        let port = format!("{}:80", 18_080 + place);
        let options = [
            "--net", &bridge, "--subnet", &subnet, "--publish", &port, "--memory", "32m", "--pids",
            "20",
        ];
        let mut command = bed.container(&format!("victim{point}")).with(options).command(["true"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let total = bed.network().enter(|| tracer::run_until(&mut victim(0, 0), usize::MAX));
    assert!(total > POINTS, "a run has {total} points");
    let points: Vec<usize> = (1..=total).step_by((total / POINTS).max(1)).collect();
    assert!(points.len() >= 200, "{} of {total} points", points.len());
    for batch in points.chunks(BATCH) {
        for (place, &point) in batch.iter().enumerate() {
            let stops = bed.network().enter(|| tracer::run_until(&mut victim(point, place), point));
            assert!(stops <= point, "it went on after stop {point}");
        }
        let outcome = bed.run(["gc"]);
        assert_eq!(outcome.code, 0, "gc after stops {batch:?} of {total}: {outcome:?}");
        eventually(&format!("nothing is left after kills at {batch:?} of {total}"), || {
            let (left, names) = (bed.leftovers(), state_root(&bed));
            if sorted(&left) == sorted(&before) && names == root_before {
                Ok(())
            } else {
                Err(format!("{left}\n{names:?}\ngc said: {outcome:?}"))
            }
        });
    }
    // It is unhurt, network and all.
    assert_eq!(other.call("true")["ok"], true);
    other.finish();
    bed.assert_nothing_left();
}

#[test]
fn of_two_runtimes_on_one_id_one_wins_and_the_other_says_so() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let name = bed.unique("one");
    for _ in 0..5 {
        let spawn = || {
            let mut command = bed.terrarium();
            command.args(["run", "-d", "--name", &name]).arg(bed.rootfs());
            command.args(["--", "sleep", "100"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            bed.spawn(&mut command)
        };
        let mut both = [spawn(), spawn()];
        let mut codes = both.each_mut().map(terrarium_tests::process::Process::wait);
        codes.sort_unstable();
        assert_eq!(codes, [0, 125]);
        let again = bed.run(["run", "-d", "--name", &name, "/", "--", "true"]);
        assert!(again.code != 0, "{again:?}");
        // Both may be asked to remove it; with --force the second one has nothing to do.
        let delete = || {
            let mut command = bed.terrarium();
            command.args(["delete", "--force", &name]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            bed.spawn(&mut command)
        };
        let mut both = [delete(), delete()];
        assert_eq!(both.each_mut().map(terrarium_tests::process::Process::wait), [0, 0]);
        bed.assert_nothing_left();
    }
}

/// So many points of each of the engines' commands are tried.
const POINTS_EACH: usize = 12;

#[test]
fn engines_commands_killed_at_any_system_call_leave_nothing() {
    require!(Root, Program("busybox"), Program("nft"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "killed", &["sleep", "100"]);
    bundle.change(|spec| {
        spec["annotations"] = serde_json::json!({
            "io.terrarium.network": "bridge:killed0", "io.terrarium.network.subnet": "10.8.0.0/24",
            "io.terrarium.network.publish": "18070:80",
        });
    });
    let folder = bundle.folder().display().to_string();
    let follow = |command: &str, point: usize| {
        let mut traced = bed.terrarium();
        match command {
            "create" => traced.args(["create", "--bundle", &folder, bundle.id()]),
            "exec" => traced.args(["exec", bundle.id(), "true"]),
            "delete" => traced.args(["delete", "--force", bundle.id()]),
            _ => traced.args([command, bundle.id()]),
        };
        traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        bed.network().enter(|| tracer::run_until(&mut traced, point))
    };
    for command in ["create", "start", "exec", "delete"] {
        let prepare = || {
            if command != "create" {
                bundle.create(&[]).success();
            }
            if matches!(command, "exec" | "delete") {
                bundle.call("start", &[]).success();
            }
        };
        prepare();
        let total = follow(command, usize::MAX);
        bundle.call("delete", &["--force"]).success();
        assert!(total > POINTS_EACH, "{command} has {total} points");
        for point in (1..=total).step_by(total / POINTS_EACH) {
            prepare();
            follow(command, point);
            let collected = bed.run(["gc"]);
            assert_eq!(collected.code, 0, "gc after {command} at {point}: {collected:?}");
            // What was created before, or is created already, is the engine's to delete.
            let deleted = bundle.call("delete", &["--force"]);
            assert_eq!(deleted.code, 0, "delete after {command} at {point}: {deleted:?}");
            eventually(&format!("nothing is left after {command} at {point} of {total}"), || {
                let (left, names) = (bed.leftovers(), state_root(&bed));
                if left.is_empty() && names.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{left}\n{names:?}\ngc said: {collected:?}"))
                }
            });
        }
    }
}

/// The last step of taking the last network away, which a runtime may be killed before.
#[test]
fn an_empty_folder_of_networks_is_collected() {
    require!(Root);
    let bed = TestBed::new();
    std::fs::create_dir_all(bed.root().join("networks")).expect("the test's folder is writable");
    bed.run(["gc"]).success();
    assert_eq!(state_root(&bed), Vec::<String>::new());
}
