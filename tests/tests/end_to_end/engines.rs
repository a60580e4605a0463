//! Podman and containerd as clients.

use nix::pty::{Winsize, openpty};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use terrarium_tests::podman::Podman;
use terrarium_tests::process::{self, Outcome, Process};
use terrarium_tests::requirement::skip;
use terrarium_tests::{NetworkNamespace, TestBed, eventually, require};

#[test]
fn podman_runs_stops_and_removes_containers() {
    require!(Root, Program("busybox"), Program("podman"));
    let bed = TestBed::new();
    let podman = Podman::new(&bed);
    let outcome = podman.run("one", &["--rm", "--net", "none"], &["sh", "-c", "echo hi; exit 4"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "hi\n"), "{outcome:?}");
    let missing = podman.run("none", &["--rm", "--net", "none"], &["/no/such"]);
    assert_eq!(missing.code, 127, "{missing:?}");

    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let data = bed.folder().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "shared\n").unwrap();
    let volume = format!("{}:/data:ro", data.display());
    let options = [
        "-d", "--net", "none", "--memory", "64m", "--pids-limit", "50", "--read-only", "-v",
        &volume,
    ];
    podman.run("two", &options, &["sh", "-c", script]).success();
    let two = bed.unique("two");
    eventually("its log says up", || {
        let outcome = podman.call(&["logs", &two]);
        if outcome.stdout == "up\n" { Ok(()) } else { Err(format!("{outcome:?}")) }
    });
    let outcome = podman.call(&[
        "exec",
        &two,
        "sh",
        "-c",
        "cat /data/file; touch /x; touch /tmp/x && exit 5",
    ]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (5, "shared\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    let outcome = podman.call(&["exec", "-t", &two, "tty"]);
    assert_eq!(outcome.stdout, "/dev/pts/0\r\n", "{outcome:?}");
    let stats = podman.call(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDS}}", &two]);
    assert!(stats.clone().success().contains("67.11MB"), "{stats:?}");
    // One without limits has the cgroups too in which Podman reads what it uses.
    podman.run("free", &["-d", "--net", "none"], &["sleep", "600"]).success();
    let free = bed.unique("free");
    let format = "{{.MemUsage}} {{.PIDS}}";
    let stats = podman.call(&["stats", "--no-stream", "--format", format, &free]);
    assert!(!stats.stderr.contains("cgroup stats"), "{stats:?}");
    assert!(!stats.success().starts_with("0B"));
    podman.call(&["rm", "--force", "--time", "0", &free]).success();
    podman.call(&["pause", &two]).success();
    let word = podman.call(&["inspect", &two, "--format", "{{.State.Status}}"]).success();
    assert_eq!(word, "paused\n");
    podman.call(&["unpause", &two]).success();
    podman.call(&["stop", "--time", "5", &two]).success();
    let code = podman.call(&["inspect", &two, "--format", "{{.State.ExitCode}}"]).success();
    assert_eq!(code, "3\n");
    podman.call(&["rm", &two]).success();
}

#[test]
fn podman_gives_a_terminal() {
    require!(Root, Program("busybox"), Program("podman"));
    let bed = TestBed::new();
    let podman = Podman::new(&bed);
    let size = Winsize { ws_row: 30, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let (mut master, slave) = (File::from(pty.master), pty.slave);
    let script = "stty size; read line; echo got $line; exit 7";
    let words = podman.run_words("tty", &["-it", "--net", "none"], &["sh", "-c", script]);
    let mut command = podman.command(Command::new("podman"));
    command.args(words);
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut process = bed.spawn(&mut command);
    // The slave's last owner on this side.
    drop(command);
    let mut text = String::new();
    let mut wait_for = |master: &mut File, word: &str| {
        let mut bytes = [0; 4096];
        while !text.contains(word) {
            let n = master.read(&mut bytes).unwrap_or_else(|error| panic!("{error} after {text}"));
            text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    };
    wait_for(&mut master, "30 97");
    master.write_all(b"hello\r").unwrap();
    wait_for(&mut master, "got hello");
    assert_eq!(process.wait(), 7);
}

#[test]
fn podman_publishes_ports_and_asks_for_health() {
    require!(Root, Program("busybox"), Program("podman"), Program("iptables"), Program("unshare"));
    let plugins = std::path::Path::new("/usr/lib/cni/portmap");
    if !plugins.exists() {
        let name = "engines::podman_publishes_ports_and_asks_for_health";
        return skip(name, &"needs the plugins of CNI (Debian's containernetworking-plugins)");
    }
    let bed = TestBed::new();
    let podman = Podman::new(&bed);
    // Bridge and rules, which Podman leaves behind, go with the namespace; leases, with the folder.
    let host = NetworkNamespace::new();
    let leases = bed.folder().join("leases");
    fs::create_dir(&leases).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /var/lib && exec sleep 1000";
    command.args(["--mount", "sh", "-c", script]).arg(&leases);
    let holder = bed.spawn(command.stdin(Stdio::null()));
    let of_holder = format!("/proc/{}", holder.pid());
    eventually("the folder of leases is mounted", || {
        let mounts = fs::read_to_string(format!("{of_holder}/mountinfo"));
        let mounts = mounts.map_err(|error| error.to_string())?;
        if mounts.contains(" /var/lib ") { Ok(()) } else { Err(mounts) }
    });
    let call = |words: &[String]| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={of_holder}/ns/mnt")).arg("podman");
        let mut command = podman.command(command);
        command.arg("--network-config-dir").arg(bed.folder().join("networks")).args(words);
        host.enter(|| process::run(&mut command))
    };
    let options = [
        "-d", "-p", "127.0.0.1:8123:80", "--health-cmd", "cat /dev/shm/well", "--health-interval",
        "disable", "--health-retries", "1",
    ];
    let script = "touch /dev/shm/well; while :; do echo hello | nc -l -p 80; done";
    call(&podman.run_words("web", &options, &["sh", "-c", script])).success();
    eventually("the port answers", || {
        let mut command = Command::new("busybox");
        command.args(["nc", "-w", "2", "127.0.0.1", "8123"]).stdin(Stdio::null());
        let outcome = host.enter(|| process::run(&mut command));
        if outcome.stdout == "hello\n" { Ok(()) } else { Err(format!("{outcome:?}")) }
    });
    let words = |words: &[&str]| {
        let words = words.iter().map(|&word| word.to_owned()).chain([bed.unique("web")]);
        words.collect::<Vec<_>>()
    };
    call(&words(&["healthcheck", "run"])).success();
    call(
        &words(&["exec"])
            .into_iter()
            .chain(["rm", "/dev/shm/well"].map(String::from))
            .collect::<Vec<_>>(),
    )
    .success();
    let ill = call(&words(&["healthcheck", "run"]));
    assert_eq!(ill.code, 1, "{ill:?}");
    call(&words(&["rm", "--force", "--time", "0"])).success();
}

/// A containerd that keeps everything in the test's own folder.
struct Containerd<'a> {
    bed: &'a TestBed,
    folder: PathBuf,
    _daemon: Process,
}

impl<'a> Containerd<'a> {
    fn start(bed: &'a TestBed) -> Self {
        let folder = bed.folder().join("containerd");
        fs::create_dir(&folder).expect("the test's folder is writable");
        let path = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("socket"),
            path("socket.ttrpc")
        );
        fs::write(folder.join("config.toml"), config).expect("the test's folder is writable");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(folder.join("config.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = bed.spawn(&mut command);
        let containerd = Self { bed, folder, _daemon: daemon };
        eventually("containerd answers", || {
            let outcome = containerd.call(&["version"]);
            if outcome.code == 0 { Ok(()) } else { Err(outcome.stderr) }
        });
        containerd
    }

    fn call(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.folder.join("socket")).args(words);
        self.bed.finish(&mut command)
    }

    fn run(&self, options: &[&str], name: &str, command: &[&str]) -> Outcome {
        let command_line = self.bed.runtime();
        let runtime = command_line.get_program().to_str().expect("paths of tests are UTF-8");
        let rootfs = self.bed.rootfs();
        let mut words = vec!["run", "--runc-binary", runtime];
        words.extend(options);
        words.extend(["--rootfs", rootfs.to_str().expect("paths of tests are UTF-8"), name]);
        words.extend(command);
        self.call(&words)
    }
}

#[test]
fn containerd_runs_execs_and_removes_containers() {
    require!(Root, Program("busybox"), Program("containerd"), Program("ctr"));
    let bed = TestBed::new();
    let containerd = Containerd::start(&bed);
    let one = bed.unique("one");
    let outcome = containerd.run(&["--rm"], &one, &["sh", "-c", "echo hi; exit 4"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "hi\n"), "{outcome:?}");

    let two = bed.unique("two");
    containerd.run(&["--detach"], &two, &["sleep", "100"]).success();
    let list = containerd.call(&["task", "ls"]).success();
    assert!(list.contains("RUNNING"), "{list}");
    let words = ["task", "exec", "--exec-id", "e1", &two, "sh", "-c", "echo in; exit 6"];
    let outcome = containerd.call(&words);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (6, "in\n"), "{outcome:?}");
    containerd.call(&["task", "kill", "--signal", "SIGKILL", &two]).success();
    eventually("the task has stopped", || {
        let list = containerd.call(&["task", "ls"]).success();
        if list.contains("STOPPED") { Ok(()) } else { Err(list) }
    });
    // Its exit code is the task's.
    containerd.call(&["task", "rm", &two]);
    containerd.call(&["container", "rm", &two]).success();
    let list = containerd.call(&["container", "ls", "--quiet"]).success();
    assert_eq!(list, "");
}

/// The findings of `terrarium leaks ID`.
fn leaks(bed: &TestBed, id: &str) -> Vec<Value> {
    let outcome = bed.run(["leaks", id, "--format", "json"]);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    let findings: Vec<Value> = outcome.stdout.lines().map(parse).collect();
    assert!(!findings.is_empty(), "root is root, at least: {outcome:?}");
    findings
}

/// Judges a container that its engine has started as it does, and one that has the host's processes by its own word.
#[track_caller]
fn assert_judged_by_their_spec(bed: &TestBed, usual: &str, with_host_pids: &str) {
    let findings = leaks(bed, usual);
    let bad: Vec<&Value> = findings
        .iter()
        .filter(|finding| ["high", "critical"].iter().any(|bad| finding["severity"] == *bad))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let unread = |finding: &&Value| finding["declared"].to_string().contains("nothing that can be");
    assert_eq!(findings.iter().find(unread), None, "its spec is read");
    let findings = leaks(bed, with_host_pids);
    let found = findings.iter().find(|finding| finding["check"] == "host-pid-namespace");
    let found = found.unwrap_or_else(|| panic!("{findings:#?}"));
    assert_eq!((&found["source"], &found["severity"]), (&"declared".into(), &"medium".into()));
}

#[test]
fn containers_of_podman_are_judged_by_their_spec() {
    require!(Root, Program("busybox"), Program("podman"));
    let bed = TestBed::new();
    let runc = terrarium_tests::requirement::program("runc");
    for runtime in [Some(bed.runtime().get_program().into()), runc].into_iter().flatten() {
        let podman = Podman::with_runtime(&bed, runtime);
        podman.run("usual", &["-d", "--net", "none"], &["sleep", "600"]).success();
        let options = ["-d", "--net", "none", "--pid", "host"];
        podman.run("pids", &options, &["sleep", "600"]).success();
        // As people name them.
        assert_judged_by_their_spec(&bed, &bed.unique("usual"), &bed.unique("pids"));
    }
}

#[test]
fn containers_of_containerd_are_judged_by_their_spec() {
    require!(Root, Program("busybox"), Program("containerd"), Program("ctr"));
    let bed = TestBed::new();
    let containerd = Containerd::start(&bed);
    let (usual, pids) = (bed.unique("usual"), bed.unique("pids"));
    containerd.run(&["--detach"], &usual, &["sleep", "600"]).success();
    let own = format!("pid:/proc/{}/ns/pid", std::process::id());
    containerd.run(&["--detach", "--with-ns", &own], &pids, &["sleep", "600"]).success();
    assert_judged_by_their_spec(&bed, &usual, &pids);
    for id in [&usual, &pids] {
        containerd.call(&["task", "kill", "--signal", "SIGKILL", id]).success();
        // Refused until the task has stopped; else its exit code is the task's.
        eventually("the task is removed", || {
            let outcome = containerd.call(&["task", "rm", id]);
            let left = containerd.call(&["task", "ls", "--quiet"]).success();
            if left.contains(id.as_str()) { Err(outcome.stderr) } else { Ok(()) }
        });
        containerd.call(&["container", "rm", id]);
    }
}
