//! From `run` to nothing left, on every way out.

use nix::sys::signal::Signal;
use terrarium_tests::rootfs::WORKLOAD;
use terrarium_tests::{TestBed, eventually, require};

#[test]
fn exit_codes_are_passed_through() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let cases: &[(&[&str], i32)] = &[
        (&["true"], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "exit 255"], 255),
        (&[WORKLOAD, "crash"], 128 + Signal::SIGSEGV as i32),
        (&["no-such-program"], 127),
        (&["/bin/no-such-program"], 127),
        (&["/bin/not-executable"], 126),
        (&["/etc"], 126),
    ];
    for (number, (words, expected)) in cases.iter().enumerate() {
        let outcome = bed.container(&format!("code{number}")).run(*words);
        assert_eq!(outcome.code, *expected, "{words:?}: {}", outcome.stderr);
        bed.assert_nothing_left();
    }
}

#[test]
fn output_and_input_are_the_programs_own() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let outcome = bed.container("out").run(["sh", "-c", "echo to stdout; echo to stderr >&2"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("to stdout\n", "to stderr\n"));
}

#[test]
fn environment_and_working_folder_are_as_asked_for() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let options = ["--env", "GREETING=hello there", "--workdir", "/var"];
    let outcome = bed.container("env").with(options).run([
        "sh",
        "-c",
        "echo $GREETING; pwd; echo ${SECRET-none}",
    ]);
    assert_eq!(outcome.success(), "hello there\n/var\nnone\n");
}

#[test]
fn ps_shows_a_container_while_it_runs() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let container = bed.container("shown").follow();
    let table = bed.run(["ps"]).success();
    let line = table
        .lines()
        .find(|line| line.contains(container.name()))
        .unwrap_or_else(|| panic!("{} is not in {table}", container.name()));
    assert!(line.contains("running"), "{line}");
    let name = container.name().to_owned();
    assert_eq!(container.finish().code, 0);
    let table = bed.run(["ps"]).success();
    assert!(!table.contains(&name), "{name} has ended and is in {table}");
}

#[test]
fn ps_lists_what_fits_its_filters() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (one, two) = (bed.unique("one"), bed.unique("two"));
    let rootfs = bed.rootfs().display().to_string();
    for (name, label) in [(&one, "tier=front"), (&two, "tier=back")] {
        let options = ["run", "-d", "--name", name, "--label", label, "--label", "app"];
        bed.run(options.into_iter().chain([&*rootfs, "--", "sleep", "600"])).success();
    }
    bed.run(["pause", &two]).success();
    let listed = |filters: &[&str]| {
        let words = filters.iter().flat_map(|filter| ["--filter", filter]);
        let out = bed.run(["ps", "--quiet"].into_iter().chain(words)).success();
        out.lines().map(|id| if id == one { 1 } else { 2 }).collect::<Vec<_>>()
    };
    for (filters, expected) in [
        (&["label=tier=front"][..], &[1][..]),
        (&["label=app"], &[1, 2]),
        (&["label=app", "label=tier=back"], &[2]),
        (&["status=paused"], &[2]),
        (&["status=paused", "status=running"], &[1, 2]),
        (&["status=running", "label=tier=back"], &[]),
        (&["network=none"], &[1, 2]),
        (&[&format!("name={one}")], &[1]),
    ] {
        assert_eq!(listed(filters), expected, "{filters:?}");
    }
    for wrong in ["colour=red", "status=dead", "name="] {
        let outcome = bed.run(["ps", "--filter", wrong]);
        assert_eq!(outcome.code, 2, "{outcome:?}");
    }
    for name in [&one, &two] {
        bed.run(["delete", "--force", name]).success();
    }
}

#[test]
fn kill_ends_a_container_and_run_tells_the_signal() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("killed").follow();
    bed.run(["kill", container.name(), "KILL"]).success();
    assert_eq!(container.outcome().code, 128 + Signal::SIGKILL as i32);
    bed.assert_nothing_left();
}

#[test]
fn kill_without_a_signal_asks_the_program_to_end() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut container = bed.container("asked").start(["sh", "-c", script]);
    assert_eq!(container.line(), Ok("ready".to_owned()));
    bed.run(["kill", container.name()]).success();
    let outcome = container.outcome();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (5, "asked\n"));
}

#[test]
fn a_running_container_is_deleted_only_by_force() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("deleted").follow();
    let refused = bed.run(["delete", container.name()]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("--force"), "says what to do: {}", refused.stderr);
    container.call("true");
    bed.run(["delete", "--force", container.name()]).success();
    container.outcome();
    bed.assert_nothing_left();
    // What is not there is gone: force makes it no error.
    bed.run(["delete", "--force", container.name()]).success();
}

#[test]
fn an_interrupt_ends_the_container_and_leaves_nothing() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let bed = TestBed::new();
        let script = "trap 'exit 7' INT TERM; echo ready; while :; do sleep 0.05; done";
        let mut container =
            bed.container("interrupted").with(["--net", "bridge"]).start(["sh", "-c", script]);
        assert_eq!(container.line(), Ok("ready".to_owned()));
        container.signal(signal);
        let outcome = container.outcome();
        assert_eq!(outcome.code, 7, "{signal} reaches the program: {}", outcome.stderr);
        bed.assert_nothing_left();
    }
}

#[test]
fn an_interrupt_at_any_moment_of_the_set_up_leaves_nothing() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    for delay in [0, 1, 2, 4, 6, 9, 13, 20, 30, 50] {
        let container = bed.container("early").with(["--net", "bridge", "--memory", "32m"]);
        // A program that does not hear the signal, as init of its namespace, must not hold up the end.
        let mut command =
            container.command(["sh", "-c", "trap 'exit 0' INT; while :; do sleep 0.05; done"]);
        let mut process = bed.spawn(command.stdin(std::process::Stdio::null()));
        std::thread::sleep(std::time::Duration::from_millis(delay));
        process.signal(Signal::SIGINT);
        process.wait();
        bed.assert_nothing_left();
    }
}

#[test]
fn what_a_killed_runtime_leaves_is_taken_away_by_gc() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let mut container =
        bed.container("orphan").with(["--net", "bridge", "--memory", "32m"]).follow();
    container.signal(Signal::SIGKILL);
    container.runtime().wait();
    bed.run(["gc"]).success();
    bed.assert_nothing_left();
    bed.run(["gc"]).success();
}

#[test]
fn what_a_killed_runtime_leaves_is_taken_away_by_delete_force() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let mut container =
        bed.container("orphan").with(["--net", "bridge", "--memory", "32m"]).follow();
    container.signal(Signal::SIGKILL);
    container.runtime().wait();
    bed.run(["delete", "--force", container.name()]).success();
    bed.assert_nothing_left();
}

#[test]
fn gc_leaves_living_containers_alone() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let mut living = bed.container("living").with(["--net", "bridge"]).follow();
    let mut orphan = bed.container("orphan").with(["--net", "bridge"]).follow();
    orphan.signal(Signal::SIGKILL);
    orphan.runtime().wait();
    bed.run(["gc"]).success();
    let gone = orphan.name().to_owned();
    eventually("the orphan is gone", || {
        let left = bed.leftovers();
        if left.contains(&gone) { Err(left) } else { Ok(()) }
    });
    assert_eq!(living.call("fork 3")["forks"], 3);
    let seen = living.call("interfaces");
    assert_eq!(seen["links"]["eth0"]["addresses"][0], living.state()["network"]["address"]);
}

#[test]
fn a_name_is_free_again_after_its_container_has_ended() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    for code in [0, 1, 2] {
        let script = format!("exit {code}");
        assert_eq!(bed.container("same").run(["sh", "-c", &script]).code, code);
    }
}

#[test]
fn a_container_without_a_name_gets_one() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let rootfs = bed.rootfs();
    let rootfs = rootfs.to_str().expect("the path is text");
    let outcome = bed.run(["run", "--rm", rootfs, "--", "hostname"]);
    assert!(!outcome.success().trim().is_empty());
}

#[test]
fn several_containers_started_at_once_all_run_and_all_go() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let bed = &bed;
            scope.spawn(move || {
                let options = ["--net", "bridge", "--memory", "32m", "--pids", "20"];
                let container = bed.container(&format!("many{number}")).with(options);
                assert_eq!(container.run(["sh", "-c", "exit 4"]).code, 4);
            });
        }
    });
    bed.assert_nothing_left();
}

#[test]
fn a_script_asks_for_the_fields_that_it_wants() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let living = bed.container("asked").with(["--label", "team=red"]).follow();
    let ask = |template: &str| bed.run(["inspect", "--format", template, living.name()]);
    let expected = format!("{} running red\n", living.state()["pid"]);
    assert_eq!(ask("{{.pid}} {{.status}} {{.labels.team}}").success(), expected);
    assert_eq!(ask("{{json .labels}}").success(), "{\"team\":\"red\"}\n");
    let refused = ask("{{range .}}");
    assert!(refused.code == 2 && refused.stderr.contains("is no field"), "{refused:?}");
}
