//! Two at once: of two commands on one container one wins, and the other says why it did not.

use std::process::{Command, Stdio};
use terrarium_tests::Outcome;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::process::run;
use terrarium_tests::{TestBed, eventually, repeats, require};

/// So many times each pair is tried.
const ROUNDS: usize = 12;

/// Runs the two commands at once, in the bed's network namespace.
fn both(bed: &TestBed, commands: [&mut Command; 2]) -> [Outcome; 2] {
    let [one, two] = commands;
    bed.network().enter(|| {
        std::thread::scope(|scope| {
            // Threads of this one are in its namespace.
            let first = scope.spawn(|| run(one));
            let second = run(two);
            [first.join().expect("it does not panic"), second]
        })
    })
}

/// `terrarium ARGUMENTS`, without standard input, output to be caught.
fn command(bed: &TestBed, arguments: &[&str]) -> Command {
    let mut command = bed.terrarium();
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Asserts that one of two succeeded and the other said one of `words`.
#[track_caller]
fn one_wins(outcomes: &[Outcome; 2], words: &[&str]) {
    let losers: Vec<_> = outcomes.iter().filter(|outcome| outcome.code != 0).collect();
    assert_eq!(losers.len(), 1, "{outcomes:?}");
    assert!(words.iter().any(|word| losers[0].stderr.contains(word)), "{outcomes:?}");
    assert_eq!(losers[0].stderr.trim().lines().count(), 1, "it is said in one line: {outcomes:?}");
}

/// Asserts that at least one of two succeeded, and that who did not said one of `words`.
#[track_caller]
fn one_or_both_win(outcomes: &[Outcome; 2], words: &[&str]) {
    assert!(outcomes.iter().any(|outcome| outcome.code == 0), "{outcomes:?}");
    for loser in outcomes.iter().filter(|outcome| outcome.code != 0) {
        assert!(words.iter().any(|word| loser.stderr.contains(word)), "{outcomes:?}");
    }
}

#[test]
fn of_two_that_create_start_or_delete_one_container_one_wins() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "pair", &["sleep", "100"]);
    let folder = bundle.folder().display().to_string();
    let id = bundle.id();
    let twice = |arguments: &[&str]| {
        both(&bed, [&mut command(&bed, arguments), &mut command(&bed, arguments)])
    };
    for _ in 0..ROUNDS {
        one_wins(&twice(&["create", "--bundle", &folder, id]), &["the name is in use"]);
        one_wins(&twice(&["start", id]), &["not created"]);
        assert_eq!(bundle.state()["status"], "running");
        bundle.call("kill", &["KILL"]).success();
        eventually("it has stopped", || {
            let state = bundle.state();
            if state["status"] == "stopped" { Ok(()) } else { Err(state.to_string()) }
        });
        one_wins(&twice(&["delete", id]), &["does not exist"]);
        bed.assert_nothing_left();
    }
}

#[test]
fn one_that_is_killed_and_deleted_at_once_is_gone() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let name = bed.unique("both");
    let rootfs = bed.rootfs().display().to_string();
    for round in 0..ROUNDS {
        let start = ["run", "-d", "--name", &name, &rootfs, "--", "sleep", "100"];
        bed.run(start).success();
        // In every other round the one that kills comes later by a little.
        let (kill, delete) = (["kill", &name, "KILL"], ["delete", "--force", &name]);
        let (first, second): (&[&str], &[&str]) =
            if round % 2 == 0 { (&kill, &delete) } else { (&delete, &kill) };
        let (mut one, mut two) = (command(&bed, first), command(&bed, second));
        let outcomes = both(&bed, [&mut one, &mut two]);
        one_or_both_win(&outcomes, &["does not exist", "not running"]);
        bed.run(["delete", "--force", &name]).success();
        bed.assert_nothing_left();
    }
}

#[test]
fn of_two_that_exec_while_one_deletes_nothing_is_left() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let name = bed.unique("exec");
    let rootfs = bed.rootfs().display().to_string();
    for _ in 0..ROUNDS {
        let options = ["run", "-d", "--name", &name, "--net", "bridge", "--memory", "32m"];
        let program = [rootfs.as_str(), "--", "sleep", "100"];
        bed.run(options.into_iter().chain(program)).success();
        let mut exec = command(&bed, &["exec", &name, "sleep", "100"]);
        let mut delete = command(&bed, &["delete", "--force", &name]);
        let [_, deleted] = both(&bed, [&mut exec, &mut delete]);
        assert_eq!(deleted.code, 0, "{deleted:?}");
        bed.assert_nothing_left();
    }
}

#[test]
fn of_two_that_collect_garbage_each_finds_nothing_wrong() {
    require!(Root, Program("busybox"), Program("nft"));
    let bed = TestBed::new();
    let mut other = bed.container("other").with(["--net", "bridge"]).follow();
    for round in 0..ROUNDS {
        // One whose runtime and supervisor are killed.
        let options = ["--net", "bridge", "--memory", "32m", "-p", "8080:80"];
        let mut victim = bed.container(&format!("victim{round}")).with(options).follow();
        victim.call("true");
        victim.runtime().signal(nix::sys::signal::Signal::SIGKILL);
        victim.runtime().wait();
        let (mut one, mut two) = (command(&bed, &["gc"]), command(&bed, &["gc"]));
        let outcomes = both(&bed, [&mut one, &mut two]);
        assert!(outcomes.iter().all(|outcome| outcome.code == 0), "{outcomes:?}");
        assert_eq!(bed.run(["gc"]).success(), "", "nothing is left for a third");
    }
    assert_eq!(other.call("true")["ok"], true);
    other.finish();
    bed.assert_nothing_left();
}

/// How often a program that exits at once is run; `TERRARIUM_TEST_RUNS` says otherwise.
const RUNS: usize = 150;

#[test]
fn a_program_that_exits_at_once_hangs_nobody() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let runs = repeats("TERRARIUM_TEST_RUNS", RUNS);
    let rootfs = bed.rootfs().display().to_string();
    for run in 0..runs {
        // By turns in the foreground and behind a supervisor that is waited for; a hang ends at the harness's deadline.
        let name = bed.unique(&format!("run{run}"));
        let foreground = ["run", "--rm", "--name", &name, &rootfs, "--", "true"];
        let detached = ["run", "-d", "--name", &name, &rootfs, "--", "true"];
        if run % 4 == 0 {
            bed.run(detached).success();
            assert_eq!(bed.run(["wait", &name]).success(), "0\n", "run {run}");
            bed.run(["delete", &name]).success();
        } else {
            bed.run(foreground).success();
        }
    }
    bed.assert_nothing_left();
}
