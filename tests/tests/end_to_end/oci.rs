//! The commands that engines call.

use nix::pty::{Winsize, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::terminal::Terminal;
use terrarium_tests::{Outcome, TestBed, eventually, kernel_state, require};

/// A program that says that it is up and waits to be told to end.
const WAIT: &str = "trap 'exit 3' TERM; echo up > /dev/shm/up; while :; do sleep 0.05; done";

fn up(bundle: &Bundle<'_>) {
    eventually("the program is up", || {
        let outcome = bundle.call("exec", &["cat", "/dev/shm/up"]);
        if outcome.code == 0 { Ok(()) } else { Err(outcome.stderr) }
    });
}

#[test]
fn create_start_state_kill_delete() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "life", &["sh", "-c", WAIT]);
    bundle.change(|spec| spec["annotations"] = json!({ "a.b": "c" }));
    let pid_file = bundle.folder().join("pid");
    let outcome =
        bundle.create(&["--pid-file", pid_file.to_str().expect("paths of tests are UTF-8")]);
    assert_eq!(outcome.success(), "");
    let state = bundle.state();
    assert_eq!((&state["status"], &state["id"]), (&json!("created"), &json!(bundle.id())));
    assert_eq!(state["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert_eq!(
        (&state["annotations"]["a.b"], &state["ociVersion"]),
        (&json!("c"), &json!("1.2.1"))
    );
    let again = bundle.create(&[]);
    assert!(again.code == 1 && again.stderr.contains("in use"), "{again:?}");

    bundle.call("start", &[]).success();
    assert_eq!(bundle.state()["status"], "running");
    let twice = bundle.call("start", &[]);
    assert!(twice.code == 1 && twice.stderr.contains("it is running"), "{twice:?}");
    let list: Value =
        serde_json::from_str(&bed.run(["list", "--format", "json"]).success()).unwrap();
    assert_eq!(list[0]["id"], bundle.id());
    let early = bundle.call("delete", &[]);
    assert!(early.code == 1 && early.stderr.contains("running"), "{early:?}");

    up(&bundle);
    bundle.call("kill", &["TERM"]).success();
    eventually("it has stopped", || {
        let state = bundle.state();
        if state["status"] == "stopped" { Ok(()) } else { Err(state.to_string()) }
    });
    assert_eq!(bundle.state()["pid"], 0);
    let late = bundle.call("kill", &["KILL"]);
    assert!(late.code == 1 && late.stderr.contains("container not running"), "{late:?}");
    bundle.call("delete", &[]).success();
    let gone = bundle.call("state", &[]);
    assert!(gone.code == 1 && gone.stderr.contains("does not exist"), "{gone:?}");
    bed.run(["delete", "--force", bundle.id()]).success();
    bed.assert_nothing_left();
}

#[test]
fn a_program_that_cannot_be_executed_is_told_to_the_engine() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let log = bed.folder().join("log");
    let call = |words: &[&str]| {
        let mut command = bed.terrarium();
        command.arg("--log").arg(&log).args(["--log-format", "json"]).args(words);
        let outcome = bed.finish(&mut command);
        let text = fs::read_to_string(&log).unwrap();
        let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], "error");
        (outcome, line["msg"].as_str().unwrap().to_owned())
    };
    // As runc and crun do: `create` fails already.
    let missing = Bundle::new(&bed, "missing", &["/no/such/program"]);
    let words = [
        "create",
        "--bundle",
        missing.folder().to_str().expect("paths of tests are UTF-8"),
        missing.id(),
    ];
    let (outcome, message) = call(&words);
    assert!(outcome.code == 1 && outcome.stderr.contains("/no/such/program"), "{outcome:?}");
    assert!(message.contains("No such file or directory"), "{message}");
    bed.assert_nothing_left();

    // That it is no program is known when the kernel has looked at it.
    fs::write(bed.rootfs().join("bin/text"), "no program\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bed.rootfs().join("bin/text"), mode).unwrap();
    let text = Bundle::new(&bed, "text", &["/bin/text"]);
    text.create(&[]).success();
    let (outcome, message) = call(&["start", text.id()]);
    assert!(outcome.code == 1 && message.contains("Exec format error"), "{outcome:?}");
    assert_eq!(text.state()["status"], "stopped");
    text.call("delete", &[]).success();
}

/// As Kubernetes mounts its tokens below `/var/run`, a link in most images, and engines their `resolv.conf` on a link that leads
/// nowhere.
#[test]
fn mount_points_that_are_missing_are_made_where_links_lead() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    for folder in ["var", "run", "etc"] {
        fs::create_dir_all(bed.rootfs().join(folder)).unwrap();
    }
    symlink("/run", bed.rootfs().join("var/run")).unwrap();
    symlink("../run/resolvconf/resolv.conf", bed.rootfs().join("etc/resolv.conf")).unwrap();
    let volume = bed.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("token"), "secret").unwrap();
    let bundle = Bundle::new(&bed, "links", &["cat", "/run/secrets/kube/token", "/run/one"]);
    bundle.change(|spec| {
        let bind = |on: &str, source: &Path| json!({ "destination": on, "type": "bind", "source": source, "options": ["bind", "ro"] });
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(bind("/var/run/secrets/kube", &volume));
        mounts.push(bind("/var/run/one", &volume.join("token")));
        mounts.push(bind("/etc/resolv.conf", &volume.join("token")));
        spec["process"]["args"].as_array_mut().unwrap().push("/etc/resolv.conf".into());
    });
    assert_eq!(bundle.run().success(), "secretsecretsecret");
    assert!(bed.rootfs().join("run/resolvconf/resolv.conf").is_file());
}

/// Where runc and crun agree, so does terrarium.
#[test]
fn what_the_other_runtimes_agree_on_is_so_here() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    // A working folder that is missing is made by root, also where the root filesystem is read-only afterwards.
    let folder = Bundle::new(&bed, "folder", &["pwd"]);
    folder.change(|spec| {
        spec["process"]["cwd"] = json!("/new/folder");
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["root"]["readonly"] = json!(true);
    });
    assert_eq!(folder.run().success(), "/new/folder\n");
    // What the kernel would not read is no error, but told.
    let bind = Bundle::new(&bed, "bind", &["test", "-d", "/volume"]);
    bind.change(|spec| {
        let options = json!(["bind", "frobnicate", "level=9"]);
        let mount = json!({ "destination": "/volume", "source": "/tmp", "options": options });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let outcome = bind.run();
    assert!(outcome.code == 0 && outcome.stderr.contains("frobnicate"), "{outcome:?}");
    // Two fields that may say different things.
    let twice = Bundle::new(&bed, "twice", &["true"]);
    twice.change(|spec| {
        spec["hostname"] = json!("one");
        spec["linux"]["sysctl"] = json!({ "kernel.hostname": "other" });
    });
    let outcome = twice.run();
    assert!(outcome.code == 2 && outcome.stderr.contains("kernel.hostname"), "{outcome:?}");
    let running = Bundle::new(&bed, "running", &["sh", "-c", WAIT]);
    running.create(&[]).success();
    running.call("start", &[]).success();
    up(&running);
    running.call("kill", &["0"]).success();
    let missing = bed.finish(bed.runtime().args(["exec", "--cwd", "/none", running.id(), "pwd"]));
    assert!(missing.code != 0 && missing.stderr.contains("/none"), "{missing:?}");
    running.call("delete", &["--force"]).success();
    assert_ne!(running.call("kill", &["0"]).code, 0);
}

#[test]
fn hooks_run_in_order_and_in_the_right_namespace() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "hooks", &["true"]);
    let seen = bed.folder().join("seen");
    let hook = |kind: &str| {
        let script = format!(
            "read state; echo {kind} $(readlink /proc/self/ns/mnt) $state >> {}",
            seen.display()
        );
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    bundle.change(|spec| {
        for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            spec["hooks"][kind] = hook(kind);
        }
        let inside = "echo startContainer > /dev/shm/seen";
        spec["hooks"]["startContainer"] =
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", inside] }]);
        spec["process"]["args"] = json!(["cat", "/dev/shm/seen"]);
    });
    assert_eq!(bundle.run().success(), "startContainer\n");
    let text = fs::read_to_string(&seen).unwrap();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let own = own.to_str().expect("paths of tests are UTF-8");
    let mut order = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (kind, namespace) = (words.next().unwrap(), words.next().unwrap());
        let state: Value = serde_json::from_str(words.next().unwrap()).unwrap();
        assert_eq!(state["id"], bundle.id());
        assert_eq!(namespace == own, kind != "createContainer", "{line}");
        order.push(format!("{kind} {}", state["status"].as_str().unwrap()));
    }
    let expected = [
        "prestart creating", "createRuntime creating", "createContainer creating",
        "poststart running", "poststop stopped",
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_hook_that_fails_leaves_no_container() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let bundle = Bundle::new(&bed, kind, &["true"]);
        bundle.change(|spec| {
            let args = ["sh", "-c", "echo too bad >&2; exit 9"];
            spec["hooks"][kind] = json!([{ "path": "/bin/sh", "args": args }]);
        });
        let outcome = bundle.run();
        assert_eq!(outcome.code, 125, "{outcome:?}");
        assert!(outcome.stderr.contains(kind) && outcome.stderr.contains("too bad"), "{outcome:?}");
        bed.assert_nothing_left();
    }
}

#[test]
fn exec_joins_every_namespace_and_cgroup() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "exec", &["sh", "-c", WAIT]);
    bundle.change(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 1 << 26 }));
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    up(&bundle);
    let script = "for p in 1 self; do for n in cgroup ipc mnt net pid uts; do readlink /proc/$p/ns/$n; done; done; \
                  for p in 1 self; do cat /proc/$p/cgroup; done; ls /proc/self/fd | wc -l";
    let text = bundle.call("exec", &["sh", "-c", script]).success();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..6], lines[6..12], "{text}");
    let cgroups = &lines[12..lines.len() - 1];
    assert_eq!(cgroups[..cgroups.len() / 2], cgroups[cgroups.len() / 2..], "{text}");
    // 0, 1, 2, and the folder that ls reads.
    assert_eq!(lines.last().unwrap().trim(), "4");

    assert_eq!(bundle.call("exec", &["sh", "-c", "exit 7"]).code, 7);
    assert_eq!(bundle.call("exec", &["no-such-program"]).code, 127);
    assert_eq!(bundle.call("exec", &["/bin/not-executable"]).code, 126);
    let process = bundle.folder().join("process.json");
    let object = json!({
        "args": ["sh", "-c", "id -u; id -g; pwd; echo $A; exit 5"], "cwd": "/tmp", "env": ["A=b", "PATH=/bin"],
        "user": { "uid": 1000, "gid": 1001 }
    });
    fs::write(&process, object.to_string()).unwrap();
    let words =
        ["exec", "--process", process.to_str().expect("paths of tests are UTF-8"), bundle.id()];
    let outcome = bed.run(words);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (5, "1000\n1001\n/tmp\nb\n"),
        "{outcome:?}"
    );
    bundle.call("kill", &["KILL"]).success();
}

/// As systemd does before it hands controllers down to its units: a process in the container's own cgroup forbids that.
#[test]
fn exec_follows_the_first_process_into_a_cgroup_below() {
    require!(Root, CgroupV2, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "divides", &["sh", "-c", WAIT]);
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    up(&bundle);
    let state = bundle.state();
    let lists = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    let own = lists.lines().find_map(|line| line.strip_prefix("0::/")).expect("it is in one");
    let root = kernel_state::cgroup_mounts().into_iter().find(|mount| mount.version == 2);
    let below = root.expect("cgroup v2 is required").path.join(own).join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), state["pid"].to_string()).unwrap();
    let seen = bundle.call("exec", &["cat", "/proc/self/cgroup"]).success();
    assert!(seen.contains("0::/below\n"), "{seen}");
    // Who says where, is heeded.
    let seen =
        bed.run(["exec", "--cgroup", "/", bundle.id(), "cat", "/proc/self/cgroup"]).success();
    assert!(seen.contains("0::/\n"), "{seen}");
    bundle.call("kill", &["KILL"]).success();
}

#[test]
fn preserved_descriptors_arrive_and_others_do_not() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "fds", &["sh", "-c", "cat <&3; ls /proc/self/fd | wc -l"]);
    let file = bed.folder().join("given");
    fs::write(&file, "given\n").unwrap();
    // A shell opens the descriptors: 3 is passed on, 7 is not.
    let run = |before: &str, option: &str| {
        let script = format!(
            "exec 3<{0} 7<{0}; {before} exec {1} --root {2} run {option} -b {3} {4}",
            file.display(),
            bed.runtime().get_program().display(),
            bed.root().display(),
            bundle.folder().display(),
            bundle.id()
        );
        bed.finish(std::process::Command::new("sh").args(["-c", &script]))
    };
    assert_eq!(run("", "--preserve-fds 1").success(), "given\n5\n");
    for count in ["2", "4294967295"] {
        let outcome = run("", &format!("--preserve-fds {count}"));
        let is_told = outcome.stderr.contains("descriptor 4 is not open");
        assert!(outcome.code == 2 && is_told, "{count}: {outcome:?}");
    }
    // Of socket activation: the program is told, by its own pid.
    bundle.change(|spec| {
        let script = "cat <&3; echo $LISTEN_FDS of $LISTEN_PID, which is $$";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let outcome = run("export LISTEN_FDS=1 LISTEN_PID=$$;", "");
    assert_eq!(outcome.success(), "given\n1 of 1, which is 1\n");
}

#[test]
fn the_console_socket_gets_the_terminal() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let script = "stty size; tty; test -c /dev/console && echo console";
    let bundle = Bundle::new(&bed, "console", &["sh", "-c", script]);
    bundle.change(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    });
    // Longer than a socket address can be.
    let folder = bed.folder().join("x".repeat(120));
    fs::create_dir(&folder).expect("the test's folder is writable");
    let short = Path::new("/proc/self/fd")
        .join(File::open(&folder).map(Box::new).map(Box::leak).unwrap().as_raw_fd().to_string());
    let listener = UnixListener::bind(short.join("s")).unwrap();
    let socket = folder.join("s");
    let refused = bundle.create(&[]);
    assert!(refused.code == 1 && refused.stderr.contains("--console-socket"), "{refused:?}");
    bundle
        .create(&["--console-socket", socket.to_str().expect("paths of tests are UTF-8")])
        .success();
    let (stream, _) = listener.accept().unwrap();
    let master = receive(&stream);
    bundle.call("start", &[]).success();
    let text = read_terminal(master);
    assert_eq!(text, "33 77\r\n/dev/pts/0\r\nconsole\r\n");
    bed.run(["delete", "--force", bundle.id()]).success();
}

fn receive(stream: &impl AsRawFd) -> File {
    let (mut bytes, mut control) = ([0; 64], nix::cmsg_space!(RawFd));
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())
            .expect("a message comes");
    let Some(ControlMessageOwned::ScmRights(fds)) =
        message.cmsgs().expect("the control data fits").next()
    else {
        panic!("no descriptor came");
    };
    // SAFETY: the kernel has just installed it; nobody else knows its number.
    File::from(unsafe { OwnedFd::from_raw_fd(fds[0]) })
}

/// Everything until the last process has closed the terminal (EIO).
fn read_terminal(mut master: File) -> String {
    let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = master.read(&mut bytes) {
        text.extend_from_slice(&bytes[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn keys_and_sizes_of_the_terminal_are_the_containers() {
    require!(Root, Program("busybox"), Program("tmux"));
    let bed = TestBed::new();
    let terminal = Terminal::open(bed.folder(), 120, 24, &[]);
    let command = bed.terrarium();
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let words = words.join(std::ffi::OsStr::new(" "));
    let (name, rootfs) = (bed.unique("keys"), bed.rootfs());
    let words = words.to_str().expect("paths of tests are UTF-8");
    terminal.line(&format!("{words} run --rm -it --name {name} {} -- sh", rootfs.display()));
    // Ctrl-Z stops what runs inside, not the terrarium that shows it.
    terminal.wait(&["/ #"]);
    terminal.line("cat");
    terminal.line("typed");
    terminal.wait(&["typed\ntyped"]);
    terminal.keys(&["C-z"]);
    terminal.wait(&["Stopped"]);
    terminal.line("kill %1; echo inside $$");
    terminal.wait(&["inside 1"]);
    terminal.line("sleep 600");
    terminal.keys(&["C-c"]);
    // The window grows, and the container is told.
    terminal.resize(133, 40);
    terminal.line("stty size");
    terminal.wait(&["40 133"]);
    terminal.keys(&["C-d"]);
    terminal.line("echo outside $?");
    terminal.wait(&["outside 0"]);
}

#[test]
fn run_and_exec_have_a_real_terminal() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let size = Winsize { ws_row: 24, ws_col: 91, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let (mut master, slave) = (File::from(pty.master), pty.slave);
    let mut command = bed.terrarium();
    let name = bed.unique("tty");
    command.args(["run", "--rm", "-it", "--name", &name]).arg(bed.rootfs());
    command.args(["--", "sh", "-c", "stty size; read line; echo got $line; trap 'echo; echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done"]);
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
    wait_for(&mut master, "24 91");
    master.write_all(b"hello\r").unwrap();
    wait_for(&mut master, "got hello");
    wait_for(&mut master, "ready");
    let outcome = bed.run(["exec", "-t", &name, "tty"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "/dev/pts/1\r\n"), "{outcome:?}");
    // Ctrl-C is the container's affair.
    master.write_all(&[3]).unwrap();
    wait_for(&mut master, "interrupted");
    assert_eq!(process.wait(), 9);
}

#[test]
fn a_terminal_has_its_size_before_the_program_can_look() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let size = Winsize { ws_row: 24, ws_col: 91, ws_xpixel: 0, ws_ypixel: 0 };
    // The program and whoever passes its bytes on begin together; one run in four had it the wrong way round.
    for _ in 0..40 {
        let pty = openpty(Some(&size), None).unwrap();
        let (mut master, slave) = (File::from(pty.master), pty.slave);
        let mut command = bed.terrarium();
        command.args(["run", "--rm", "-it"]).arg(bed.rootfs()).args(["--", "stty", "size"]);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let mut process = bed.spawn(&mut command);
        drop(command);
        assert_eq!(process.wait(), 0);
        let mut bytes = [0; 4096];
        let n = master.read(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes[..n]), "24 91\r\n");
    }
}

#[test]
fn a_subreaper_is_the_parent_of_orphans_and_reaps_them() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let script = r"
        orphan=$(busybox sh -c 'busybox sleep 1000 > /dev/null & echo $!')
        busybox awk '/PPid/ { print $2 }' /proc/$orphan/status
        echo $PPID
        kill $orphan
        n=0
        while [ -e /proc/$orphan ]; do
            n=$((n + 1)); [ $n -lt 300 ] || exit 3; busybox sleep 0.1
        done";
    let bundle = Bundle::new(&bed, "orphans", &["busybox", "sh", "-c", script]);
    bundle.change(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let told = |outcome: Outcome| {
        let (orphan, first) = outcome.stdout.trim().split_once('\n').expect("two parents");
        (orphan == first, outcome.code)
    };
    let run = |option: &str| {
        let mut command = bed.runtime();
        command.args(["run", option, "--bundle"]).arg(bundle.folder()).arg(bundle.id());
        told(bed.finish(&mut command))
    };
    assert_eq!(run("--subreaper"), (true, 0));
    assert!(!run("--no-subreaper").0);
    let mut command = bed.terrarium();
    command.args(["run", "--rm", "--subreaper", "--pid", "host"]).arg(bed.rootfs());
    assert_eq!(told(bed.finish(command.args(["busybox", "sh", "-c", script]))), (true, 0));
    let mut command = bed.terrarium();
    command.args(["run", "--detach", "--subreaper"]).arg(bed.rootfs());
    assert_eq!(bed.finish(command.arg("busybox")).code, 2);
}

#[test]
fn bundles_are_understood_by_the_other_runtimes() {
    require!(Root, Program("busybox"), Program("runc"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "peer", &["sh", "-c", "echo hello; exit 6"]);
    // runc would leave the parent of its cgroup behind in every hierarchy.
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id())));
    let root = bed.folder().join("runc");
    let mut command = std::process::Command::new("runc");
    command.arg("--root").arg(root).args(["run", "--bundle"]).arg(bundle.folder()).arg(bundle.id());
    let theirs = bed.finish(&mut command);
    let ours = bundle.run();
    assert_eq!((theirs.code, &theirs.stdout), (6, &"hello\n".to_owned()), "{theirs:?}");
    assert_eq!((ours.code, ours.stdout), (theirs.code, theirs.stdout));
}

#[test]
fn features_and_version_are_what_engines_read() {
    let bed = TestBed::new();
    let features: Value = serde_json::from_str(&bed.run(["features"]).success()).unwrap();
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert_eq!(features["linux"]["capabilities"].as_array().unwrap().len(), 41);
    let version = bed.run(["--version"]).success();
    let lines: Vec<_> = version.lines().collect();
    assert!(lines[0].starts_with("terrarium version "), "{version}");
    assert!(lines[1].starts_with("spec: 1.2"), "{version}");
}
