//! Options of `run` that people know from docker, and the commands around it.

use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use terrarium_tests::{TestBed, eventually, require};

#[test]
fn limits_devices_mounts_and_variables_are_as_asked_for() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let variables = bed.folder().join("variables");
    fs::write(&variables, "# comment\nFIRST=one\nSECOND=two\n").unwrap();
    fs::write(bed.folder().join("file"), "shared\n").unwrap();
    let bind = format!("type=bind,source={},target=/data,readonly", bed.folder().display());
    let options = [
        "--ulimit",
        "nofile=77:99",
        "--device",
        "/dev/null:/dev/nothing:r",
        "--mount",
        &bind,
        "--mount",
        "type=tmpfs,target=/scratch,tmpfs-size=64k",
        "--env-file",
        variables.to_str().unwrap(),
        "--env",
        "SECOND=2",
        "--shm-size",
        "1m",
    ];
    let script = "ulimit -n; cat /dev/nothing; stat -c %t:%T /dev/nothing; cat /data/file; touch /data/x; \
                  echo $FIRST $SECOND; df -k /scratch /dev/shm | awk 'NR > 1 { print $2 }'";
    let outcome = bed.container("options").with(options).run(["sh", "-c", script]);
    assert_eq!(outcome.stdout, "77\n1:3\nshared\none 2\n64\n1024\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
}

#[test]
fn groups_weights_entrypoint_and_privileges_are_as_asked_for() {
    require!(Root, Program("busybox"), MemoryController);
    let bed = TestBed::new();
    fs::write(bed.rootfs().join("etc/group"), "root:x:0:\nvideo:x:44:\n").unwrap();
    let id_file = bed.folder().join("id");
    let options = [
        "--group-add",
        "video",
        "--group-add",
        "77",
        "--memory-reservation",
        "16m",
        "--cpu-shares",
        "512",
        "--entrypoint",
        "sh",
        "--cidfile",
        id_file.to_str().unwrap(),
    ];
    let container = bed.container("many").with(options);
    let outcome = container.run(["-c", "id -G"]);
    assert_eq!(outcome.stdout, "0 44 77\n", "{outcome:?}");
    assert_eq!(fs::read_to_string(&id_file).unwrap(), container.name());
    let outcome = container.run(["-c", "true"]);
    assert_eq!(outcome.code, 125, "the file is there already: {outcome:?}");
    assert!(outcome.stderr.contains("--cidfile"), "{outcome:?}");

    let script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; grep -c ' /proc/' /proc/self/mountinfo; true";
    let privileged = bed.container("privileged").with(["--privileged"]).run(["sh", "-c", script]);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let expected = format!("CapEff:{bounding}\nNoNewPrivs:\t0\nSeccomp:\t0\n0\n");
    assert_eq!(privileged.stdout, expected, "{privileged:?}");
    let paths = bed.container("paths").with(["--security-opt", "systempaths=unconfined"]).run([
        "sh",
        "-c",
        "grep -c ' /proc/' /proc/self/mountinfo",
    ]);
    assert_eq!(paths.stdout, "0\n", "{paths:?}");

    for wrong in [
        ["--cpu-shares", "1"],
        ["--blkio-weight", "9"],
        ["--cpuset-mems", "all"],
        ["--memory-reservation", "much"],
        ["--group-add", "nobodys"],
        ["--security-opt", "colour=red"],
    ] {
        let outcome = bed.container("wrong").with(wrong).run(["true"]);
        assert_eq!(outcome.code, 2, "{wrong:?}: {outcome:?}");
        assert!(outcome.stderr.contains(wrong[0]), "{wrong:?}: {outcome:?}");
    }
}

#[test]
fn namespaces_are_shared_with_the_host_or_another_container() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let first = bed.container("first").follow();
    let namespaces = &first.state()["namespaces"];
    let other = format!("container:{}", first.name());
    let options = ["--net", &other, "--ipc", &other, "--uts", &other, "--cgroupns", &other];
    let script = "for n in net ipc uts cgroup pid; do readlink /proc/self/ns/$n; done";
    let shared = bed.container("second").with(options).run(["sh", "-c", script]).success();
    let lines: Vec<_> = shared.lines().collect();
    for (line, kind) in lines.iter().zip(["net", "ipc", "uts", "cgroup"]) {
        assert_eq!(*line, format!("{kind}:[{}]", namespaces[kind]));
    }
    assert_ne!(lines[4], format!("pid:[{}]", namespaces["pid"]));

    let options = ["--ipc", "host", "--uts", "host", "--cgroupns", "host", "--pid", "host"];
    let hosts = bed.container("third").with(options).run(["sh", "-c", script]).success();
    for (line, kind) in hosts.lines().skip(1).zip(["ipc", "uts", "cgroup", "pid"]) {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(line, own.to_str().unwrap());
    }
    let outcome = bed.container("fourth").with(["--uts", "guest"]).run(["true"]);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    let outcome = bed.container("fourth").with(["--ipc", "container:nobody"]).run(["true"]);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("nobody"), "{outcome:?}");
}

#[test]
fn a_container_has_the_address_and_names_that_it_asked_for() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let network = ["--net", "bridge", "--subnet", "10.91.7.0/24"];
    let mut first = bed.container("first").with(network).with(["--ip", "10.91.7.9"]).follow();
    assert_eq!(first.state()["network"]["address"], "10.91.7.9/24");
    let taken = bed.container("thief").with(network).with(["--ip", "10.91.7.9"]).run(["true"]);
    assert_eq!(taken.code, 125, "{taken:?}");
    assert!(taken.stderr.contains(first.name()), "{taken:?}");

    let options =
        ["--mac", "02:00:00:00:00:07", "--dns", "192.0.2.7", "--add-host", "db:192.0.2.9"];
    let script = format!(
        "cat /sys/class/net/eth0/address /etc/resolv.conf /etc/hosts; ping -c 1 -W 5 {} >&2",
        first.name()
    );
    let second = bed.container("second").with(network).with(options).run(["sh", "-c", &script]);
    assert_eq!(second.code, 0, "they find each other by name: {second:?}");
    assert!(second.stdout.starts_with("02:00:00:00:00:07\n"), "{second:?}");
    assert!(second.stdout.contains("nameserver 192.0.2.7\n"), "{second:?}");
    assert!(second.stdout.contains("192.0.2.9\tdb\n"), "{second:?}");
    let own: Ipv4Addr = "10.91.7.9".parse().unwrap();
    assert!(second.stdout.contains(&format!("{own}\t{}\n", first.name())), "{second:?}");
    // The second has gone: the first does not know it any more.
    let hosts = bed.run(["exec", first.name(), "cat", "/etc/hosts"]).success();
    assert!(!hosts.contains(&bed.unique("second")), "{hosts}");
    first.call("true");
}

#[test]
fn a_log_keeps_its_end_and_gives_the_rest_back() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let rootfs = bed.rootfs();
    for (kind, options) in [("plain", &[][..]), ("terminal", &["--tty"])] {
        let name = bed.unique(kind);
        let mut command = bed.terrarium();
        command.args(["run", "--detach", "--name", &name, "--log-opt", "max-size=1m"]);
        command.args(options).arg(&rootfs);
        command.args(["sh", "-c", "seq 1 400000; sleep 0.5; echo end; sleep 600"]);
        bed.finish(&mut command).success();
        let file = bed.root().join(&name).join("container.log");
        eventually("the log is small again", || {
            let file = fs::metadata(&file).map_err(|error| error.to_string())?;
            let kept = file.blocks() * 512;
            // 2.7 MB were written; up to a quarter more than asked for is kept.
            let small = file.len() > 2_600_000 && (1 << 20..1_500_000).contains(&kept);
            if small { Ok(()) } else { Err(format!("{} bytes, {kept} kept", file.len())) }
        });
        let log = eventually("the end is told", || {
            let log = bed.run(["logs", &name]).success();
            if log.trim_end().ends_with("end") { Ok(log) } else { Err(log.len().to_string()) }
        });
        let mut lines = log.lines();
        assert_eq!(lines.next_back(), Some("end"));
        let numbers: Vec<u32> =
            lines.map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "whole lines, all of them");
        assert!(numbers[0] > 1 && numbers.last() == Some(&400_000) && log.len() >= 1 << 20);
        assert_eq!(
            bed.run(["logs", "--tail", "2", &name]).success().lines().next(),
            Some("400000")
        );
        bed.run(["delete", "--force", &name]).success();
    }
    for wrong in ["max-size=9", "max-size=x", "max-file=3"] {
        let words = ["run", "-d", "--log-opt", wrong, "rootfs"];
        assert_eq!(bed.run(words).code, 2, "{wrong}");
    }
}

#[test]
fn a_detached_container_is_followed_stopped_and_inspected() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (name, rootfs) = (bed.unique("web"), bed.rootfs());
    let run = |options: &[&str], script: &str| {
        let mut command = bed.terrarium();
        command.args(["run", "--detach", "--name", &name]).args(options);
        command.arg(&rootfs).args(["sh", "-c", script]);
        bed.finish(&mut command).success();
    };
    run(
        &["--stop-signal", "USR1"],
        "trap 'echo bye; exit 7' USR1; echo one; echo two; while :; do sleep 0.05; done",
    );
    eventually("it has written", || {
        let log = bed.run(["logs", &name]).success();
        if log == "one\ntwo\n" { Ok(()) } else { Err(log) }
    });
    assert_eq!(bed.run(["logs", "--tail", "1", &name]).success(), "two\n");
    let mut follower = bed.terrarium();
    follower.args(["logs", "--follow", &name]);
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| bed.finish(&mut follower));
        let waiter = scope.spawn(|| bed.run(["wait", &name]));
        // The beginning of its name is enough for people.
        bed.run(["stop", &name[..name.len() - 1]]).success();
        assert_eq!(waiter.join().unwrap().success(), "7\n");
        assert_eq!(follower.join().unwrap().success(), "one\ntwo\nbye\n");
    });
    let text = bed.run(["inspect", &name]).success();
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told[0]["status"], "stopped");
    assert_eq!(told[0]["exit_code"], 7);
    assert_eq!(told[0]["config"]["process"]["args"][0], "sh");
    assert_eq!(bed.run(["prune"]).code, 2, "nobody is there to ask");
    assert_eq!(bed.run(["prune", "--force"]).success(), format!("{name}\n"));

    // A shell that handles no signal is killed when its time is over.
    run(&["--stop-timeout", "0"], "while :; do sleep 0.05; done");
    bed.run(["stop", &name]).success();
    assert_eq!(bed.run(["wait", &name]).success(), "137\n");
    bed.run(["delete", &name]).success();
    let outcome = bed.run(["stop", &name]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
}

#[test]
fn bash_completes_the_names_of_containers() {
    require!(Root, Program("busybox"), Program("bash"));
    let bed = TestBed::new();
    let script = bed.folder().join("completions");
    fs::write(&script, bed.run(["completions", "bash"]).success()).unwrap();
    let name = bed.unique("complete");
    let rootfs = bed.rootfs().display().to_string();
    bed.run(["run", "-d", "--name", &name, &rootfs, "--", "sleep", "600"]).success();
    let program = bed.terrarium();
    let folder = std::path::Path::new(program.get_program()).parent().unwrap();
    let complete = |line: &str| {
        let words = line.split(' ').collect::<Vec<_>>();
        let typed = format!(
            ". {}; COMP_WORDS=({}); COMP_CWORD={}; _terrarium_or_container terrarium '{}' '{}'; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let path = std::env::join_paths([folder, std::path::Path::new("/usr/bin")]).unwrap();
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", &typed]).env("PATH", path).env("TERRARIUM_ROOT", bed.root());
        let outcome = bed.finish(&mut bash);
        outcome.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for line in ["terrarium exec ", "terrarium logs comp", "terrarium diff a "] {
        assert!(complete(line).contains(&name), "{line}: {:?}", complete(line));
    }
    assert!(!complete("terrarium logs x").contains(&name));
    assert!(complete("terrarium logs --fo").contains(&"--follow".to_owned()));
    assert!(!complete("terrarium create ").contains(&name));
    assert!(!complete("terrarium image inspect ").contains(&name));
    assert!(complete("terrarium lo").contains(&"logs".to_owned()));
    for shell in ["zsh", "fish"] {
        let script = bed.run(["completions", shell]).success();
        assert!(script.contains("terrarium ps --quiet"), "{shell}");
    }
    bed.run(["delete", "--force", &name]).success();
}

#[test]
fn completions_and_man_pages_are_made() {
    let bed = TestBed::new();
    assert!(bed.run(["completions", "bash"]).success().contains("_terrarium"));
    let folder = bed.folder().join("man");
    bed.run(["man", folder.to_str().unwrap()]).success();
    for (page, word) in [("terrarium-run.1", "memory"), ("terrarium-runtime.1", "podman")] {
        assert!(fs::read_to_string(folder.join(page)).unwrap().contains(word), "{page}");
    }
}

#[test]
fn a_container_in_anothers_pid_namespace_sees_its_processes() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let first = bed.container("first").start(["sh", "-c", "echo up; read x"]);
    let namespace = format!("pid:[{}]", first.state()["namespaces"]["pid"]);
    let other = format!("container:{}", first.name());
    let script =
        "readlink /proc/self/ns/pid; tr '\\0' ' ' < /proc/1/cmdline; test $$ -gt 1 && echo; exit 5";
    let outcome = bed.container("second").with(["--pid", &other]).run(["sh", "-c", script]);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines, [namespace.as_str(), "sh -c echo up; read x "], "{outcome:?}");

    // It ends with the namespace, and its command that does not exist is told.
    let missing = bed.container("third").with(["--pid", &other]).run(["no-such-program"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    let mut guest =
        bed.container("guest").with(["--pid", &other]).start(["sh", "-c", "echo up; sleep 100"]);
    assert_eq!(guest.line().as_deref(), Ok("up"));
    first.finish();
    assert_eq!(guest.outcome().code, 137);
    bed.assert_nothing_left();
}

#[test]
fn what_a_bundle_says_is_not_said_by_options() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = terrarium_tests::bundle::Bundle::new(&bed, "beside", &["true"]);
    for (options, told) in [
        (&["--memory", "64m"][..], "--memory"),
        (&["--cap-add", "SYS_ADMIN"], "--cap-add"),
        (&["--tty"], "--tty"),
    ] {
        let mut command = bed.terrarium();
        command.arg("run").args(options).arg("--bundle").arg(bundle.folder()).arg(bundle.id());
        let outcome = bed.finish(&mut command);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("{told} is for root filesystems")), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
    // In a folder with a config.json, options say that no bundle is meant.
    let mut command = bed.terrarium();
    command.current_dir(bundle.folder()).args(["run", "--memory", "64m", "no-such-image"]);
    let outcome = bed.finish(&mut command);
    assert!(outcome.code == 125 && outcome.stderr.contains("no-such-image"), "{outcome:?}");
    let mut command = bed.terrarium();
    command.args(["run", "--rm", "--bundle"]).arg(bundle.folder()).arg(bundle.id());
    assert_eq!(bed.finish(&mut command).code, 0);
}
