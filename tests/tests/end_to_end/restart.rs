//! `run --restart`, `--init`, `restart`, `start` and `rename`: the life of a container beyond its first end.

use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::{TestBed, binaries, eventually, require};

fn inspect(bed: &TestBed, id: &str) -> Value {
    let text = bed.run(["inspect", id]).success();
    serde_json::from_str::<Value>(&text).expect("inspect prints JSON")[0].clone()
}

/// `run --detach --name ID OPTIONS ROOTFS sh -c SCRIPT`
fn detach(bed: &TestBed, id: &str, options: &[&str], script: &str) {
    let mut command = bed.terrarium();
    command.args(["run", "--detach", "--name", id]).args(options).arg(bed.rootfs());
    bed.finish(command.args(["sh", "-c", script])).success();
}

/// CVE-2019-5736: the runtime that makes a container anew cannot be written to by it either.
fn assert_supervisor_is_sealed(state: &Value) {
    let pid = state["supervisor_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    binaries::assert_sealed(Pid::from_raw(pid.expect("it has one")));
}

/// As `> /proc/1/fd/1` in a crontab, or a server that logs to `/dev/stdout` as a user of its own.
#[test]
fn nothing_of_a_log_is_lost_when_the_output_is_opened_anew() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let script = "echo one; echo two > /dev/stdout; echo three > /proc/1/fd/2; echo four";
    let expected = "one\ntwo\nthree\nfour\n";
    for options in [&[][..], &["--user", "1000:1000"]] {
        let id = bed.unique("anew");
        detach(&bed, &id, options, script);
        eventually("it has ended", || {
            let status = inspect(&bed, &id)["status"].clone();
            if status == "stopped" { Ok(()) } else { Err(status.to_string()) }
        });
        assert_eq!(bed.run(["logs", &id]).success(), expected, "{options:?}");
        bed.run(["delete", &id]).success();
    }
    // The same by a bundle, whose output is a pipe of the test's.
    let bundle = Bundle::new(&bed, "pipe", &["sh", "-c", script]);
    bundle.change(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let mut command = bed.runtime();
    command.args(["run", "--bundle"]).arg(bundle.folder()).arg(bundle.id());
    let output = command.stderr(Stdio::null()).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\nfour\n");
}

#[test]
fn a_program_that_fails_is_started_again_as_often_as_asked_for() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let id = bed.unique("flaky");
    detach(&bed, &id, &["--restart", "on-failure:2", "--memory", "32m"], "echo run; exit 3");
    let state = eventually("it has given up", || {
        let state = inspect(&bed, &id);
        // The kernel says first that it has stopped; then its supervisor writes how.
        let done =
            state["status"] == "stopped" && state["restart_count"] == 2 && state["exit_code"] == 3;
        if done { Ok(state) } else { Err(state.to_string()) }
    });
    assert_eq!(state["restart"], "on-failure:2");
    assert_eq!(bed.run(["logs", &id]).success(), "run\nrun\nrun\n", "the log goes on");
    // In the foreground as well, and the last exit code is told.
    let mut command = bed.terrarium();
    command.args(["run", "--restart", "on-failure:1", "--name", "fg"]).arg(bed.rootfs());
    let outcome = bed.finish(command.args(["sh", "-c", "echo again; exit 4"]));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "again\nagain\n"), "{outcome:?}");
    bed.run(["prune", "--force"]).success();
    bed.assert_nothing_left();
}

#[test]
fn stop_ends_a_container_that_is_always_restarted() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let id = bed.unique("always");
    detach(&bed, &id, &["--restart", "always", "--net", "bridge"], "echo run; sleep 0.05");
    eventually("it was started again", || {
        let state = inspect(&bed, &id);
        if state["restart_count"].as_u64() >= Some(2) { Ok(()) } else { Err(state.to_string()) }
    });
    // It may be running just now, or resting between two runs.
    bed.run(["stop", "--time", "1", &id]).success();
    let state = eventually("its supervisor is gone", || {
        let state = inspect(&bed, &id);
        let supervisor = format!("/proc/{}", state["supervisor_pid"]);
        if fs::metadata(supervisor).is_err() { Ok(state) } else { Err(state.to_string()) }
    });
    assert_eq!(state["status"], "stopped", "{state}");
    let runs = bed.run(["logs", &id]).success();

    // `start` and `restart` bring it back, with the same log.
    bed.run(["start", &id]).success();
    assert_supervisor_is_sealed(&inspect(&bed, &id));
    eventually("it runs again", || {
        let log = bed.run(["logs", &id]).success();
        if log.len() > runs.len() { Ok(()) } else { Err(log) }
    });
    assert_eq!(bed.run(["restart", "--time", "1", &id]).success(), format!("{id}\n"));
    assert_supervisor_is_sealed(&inspect(&bed, &id));
    bed.run(["delete", "--force", &id]).success();
    bed.assert_nothing_left();

    let outcome = bed.container("never").with(["--restart", "always"]).run(["true"]);
    assert_eq!(outcome.code, 2, "--rm and --restart: {outcome:?}");
    let mut command = bed.terrarium();
    command.args(["run", "--restart", "often"]).arg(bed.rootfs());
    let outcome = bed.finish(command.arg("true"));
    assert_eq!(outcome.code, 2, "{outcome:?}");
}

#[test]
fn an_init_reaps_orphans_passes_signals_on_and_gives_the_exit_code() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let init = bed.container("init").with(["--init"]);
    // The orphan of a subshell becomes a child of pid 1, which reaps it. The caller's environment is not there.
    let script = "tr '\\0' ' ' < /proc/1/cmdline; echo; (sleep 0.05 &); sleep 0.3; \
                  grep -l '(sleep) Z' /proc/[0-9]*/stat; tr '\\0' '\\n' < /proc/1/environ; exit 7";
    let mut command = init.command(["sh", "-c", script]);
    command.env("SECRET_OF_THE_CALLER", "1");
    let outcome = bed.finish(&mut command);
    assert_eq!(outcome.code, 7, "{outcome:?}");
    assert!(outcome.stdout.starts_with("terrarium-init /bin/sh sh -c"), "{outcome:?}");
    assert!(outcome.stdout.contains("PATH="), "{outcome:?}");
    assert!(
        !outcome.stdout.contains("stat\n") && !outcome.stdout.contains("SECRET"),
        "{outcome:?}"
    );

    let script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = init.start(["sh", "-c", script]);
    assert_eq!(running.line().as_deref(), Ok("ready"));
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.outcome().code, 5);
    // A program without a handler is ended by the signal, for it is not pid 1.
    let mut running = init.start(["sh", "-c", "echo ready; exec sleep 100"]);
    assert_eq!(running.line().as_deref(), Ok("ready"));
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.outcome().code, 128 + 15);
    assert_eq!(init.run(["no-such-program"]).code, 127);
    assert_eq!(init.run(["/bin/not-executable"]).code, 126);
}

#[test]
fn a_container_is_renamed_and_found_by_its_name() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (id, name) = (bed.unique("old"), bed.unique("new"));
    detach(&bed, &id, &[], "exec sleep 100");
    bed.run(["rename", &id, &name]).success();
    assert_eq!(inspect(&bed, &name)["id"], id.as_str());
    let outcome = bed.container("new").run(["true"]);
    assert_eq!(outcome.code, 125, "the name is taken: {outcome:?}");
    let other = bed.container("other").start(["sh", "-c", "read x"]);
    let outcome = bed.run(["rename", other.name(), &name]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    bed.run(["stop", "--time", "0", &name]).success();
    assert_eq!(inspect(&bed, &name)["name"], name.as_str(), "the name stays after the end");
    bed.run(["delete", &id]).success();
}

#[test]
fn a_detached_container_with_a_terminal_writes_to_its_log() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let id = bed.unique("terminal");
    detach(&bed, &id, &["-it"], "tty; read line; echo never");
    eventually("it has written", || {
        let log = bed.run(["logs", &id]).success();
        if log.contains("/dev/") { Ok(()) } else { Err(log) }
    });
    assert_eq!(inspect(&bed, &id)["status"], "running", "nobody has closed its terminal");
    bed.run(["delete", "--force", &id]).success();
}
