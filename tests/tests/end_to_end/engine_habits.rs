//! What engines do that a specification does not say.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;
use std::time::Duration;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::kernel_state::cgroup_mount_of;
use terrarium_tests::{TestBed, eventually, require};

#[test]
fn a_console_socket_may_have_a_long_path() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let folder = bed.folder().join("a".repeat(60)).join("b".repeat(60));
    fs::create_dir_all(&folder).unwrap();
    // bind(2) takes no such path either: by the folder's descriptor it is short enough.
    let open = fs::File::open(&folder).unwrap();
    let short = format!("/proc/self/fd/{}/s", std::os::fd::AsRawFd::as_raw_fd(&open));
    let listener = UnixListener::bind(short).unwrap();
    let path = folder.join("s");
    assert!(path.as_os_str().len() > 108);
    let bundle = Bundle::new(&bed, "long", &["tty"]);
    bundle.change(|spec| spec["process"]["terminal"] = json!(true));
    bundle
        .create(&["--console-socket", path.to_str().expect("paths of tests are UTF-8")])
        .success();
    listener.accept().expect("the runtime has connected");
    bundle.call("delete", &["--force"]).success();
}

#[test]
fn a_user_namespace_may_have_hundreds_of_ranges() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "ranges", &["sh", "-c", "wc -l < /proc/self/uid_map"]);
    // The kernel takes 340, and less than a page of text (`user_namespaces(7)`).
    let ranges: Vec<_> = (0..300)
        .map(|n| json!({ "containerID": n, "hostID": 100_000 + n * 2, "size": 1 }))
        .collect();
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
        spec["linux"]["uidMappings"] = json!(ranges);
        spec["linux"]["gidMappings"] = json!(ranges);
    });
    assert_eq!(bundle.run().success().trim(), "300");
}

#[test]
fn versions_and_fields_of_tomorrow_are_taken() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "tomorrow", &["echo", "fine"]);
    bundle.change(|spec| {
        spec["ociVersion"] = json!("1.2.0-dev");
        spec["tomorrow"] = json!({ "a": [1] });
        spec["linux"]["tomorrow"] = json!(true);
        spec["process"]["tomorrow"] = json!("x");
    });
    let outcome = bundle.run();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("fine\n", ""), "{outcome:?}");
    bundle.change(|spec| {
        spec["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_OF_TOMORROW"]);
    });
    let outcome = bundle.run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "fine\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("CAP_OF_TOMORROW"), "{outcome:?}");
    bundle.change(|spec| {
        let mount = json!({
            "destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind", "tomorrow"]
        });
        spec["mounts"].as_array_mut().expect("a list").push(mount);
    });
    let outcome = bundle.run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "fine\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("/mnt: unknown option of a bind: tomorrow"), "{outcome:?}");
}

#[test]
fn kill_and_delete_may_come_from_several_at_once() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "crowd", &["sleep", "100"]);
    for _ in 0..3 {
        bundle.create(&[]).success();
        bundle.call("start", &[]).success();
        let mut all = Vec::new();
        for _ in 0..4 {
            for words in [&["kill", bundle.id(), "9"][..], &["delete", "--force", bundle.id()]] {
                let mut command = bed.terrarium();
                command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
                all.push(bed.spawn(&mut command));
            }
        }
        for process in &mut all {
            // The signal may come too late; whoever removes while another does says so.
            assert!(matches!(process.wait(), 0 | 1));
        }
        bundle.call("delete", &["--force"]).success();
        let gone = bundle.call("state", &[]);
        assert!(gone.code == 1 && gone.stderr.contains("does not exist"), "{gone:?}");
    }
    bed.assert_nothing_left();
}

#[test]
fn options_may_stand_behind_the_id() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "order", &["sleep", "100"]);
    let folder = bundle.folder().to_str().expect("paths of tests are UTF-8");
    bed.run(["create", bundle.id(), "--bundle", folder]).success();
    bed.run(["start", bundle.id()]).success();
    bed.run(["kill", bundle.id(), "9", "--all"]).success();
    eventually("it has stopped", || {
        let state = bundle.state();
        if state["status"] == "stopped" { Ok(()) } else { Err(state.to_string()) }
    });
    bed.run(["delete", bundle.id(), "--force"]).success();
}

#[test]
fn update_has_a_flag_for_each_limit_and_reads_standard_input() {
    require!(Root, Program("busybox"), MemoryController);
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "flags", &["sleep", "100"]);
    bundle.change(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }));
    bundle.create(&[]).success();
    let words = [
        "--memory", "96m", "--memory-reservation", "32m", "--cpu-period", "50000", "--cpu-quota",
        "25000", "--cpu-share", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit",
        "40",
    ];
    bundle.call("update", &words).success();
    let v2 = cgroup_mount_of("memory").is_some_and(|mount| mount.version == 2);
    let read = |controller: &str, one: &str, two: &str| {
        let mount = cgroup_mount_of(controller).expect("it was set");
        let folder = mount.path.join("terrarium").join(bundle.id());
        let file = folder.join(if v2 { two } else { one });
        fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
            .trim()
            .to_owned()
    };
    let (limit, reservation) = ((96 << 20).to_string(), (32 << 20).to_string());
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), limit);
    assert_eq!(read("memory", "memory.soft_limit_in_bytes", "memory.low"), reservation);
    let quota = if v2 { "25000 50000" } else { "25000" };
    assert_eq!(read("cpu", "cpu.cfs_quota_us", "cpu.max"), quota);
    assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(read("pids", "pids.max", "pids.max"), "40");

    let mut command = bed.terrarium();
    command.args(["update", "-r", "-", bundle.id()]).stdin(Stdio::piped());
    let mut process = bed.spawn(&mut command);
    let mut stdin = process.child().stdin.take().expect("it is piped");
    stdin.write_all(br#"{"pids":{"limit":41},"devices":[{"allow":true}]}"#).unwrap();
    drop(stdin);
    assert_eq!(process.wait(), 0);
    assert_eq!(read("pids", "pids.max", "pids.max"), "41");
    // What an update names is remembered; the rest as well.
    let stats: Value =
        serde_json::from_str(&bundle.call("events", &["--stats"]).success()).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 96 << 20);
    bundle.call("delete", &["--force"]).success();
    bed.assert_nothing_left();
}

#[test]
fn exec_takes_what_engines_pass() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "passed", &["sleep", "100"]);
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    let exec = |options: &[&str], script: &str| {
        let mut words = vec!["exec"];
        words.extend(options);
        words.extend([bundle.id(), "sh", "-c", script]);
        bed.run(words)
    };
    let options =
        ["--user", "5:6", "--additional-gids", "7", "--additional-gids", "8", "--cwd", "/tmp"];
    assert_eq!(exec(&options, "id -u; id -G; pwd").success(), "5\n6 7 8\n/tmp\n");
    assert_eq!(exec(&["-e", "A=b c"], "echo $A").success(), "b c\n");
    let right = exec(
        &["--cap", "CAP_NET_RAW", "--no-new-privs"],
        "grep -E '^(CapEff|NoNew)' /proc/self/status",
    );
    assert!(right.stdout.contains("NoNewPrivs:\t1"), "{right:?}");
    // CAP_NET_RAW is 13.
    let effective = right.stdout.split_whitespace().nth(1).unwrap_or_default();
    assert_ne!(u64::from_str_radix(effective, 16).unwrap_or(0) & 1 << 13, 0, "{right:?}");
    // All that there are to give: those of whoever asks.
    let own = fs::read_to_string("/proc/self/status").expect("the kernel says");
    let own = own.lines().find(|line| line.starts_with("CapEff:")).expect("it has some");
    let given = exec(&["--privileged"], "grep ^CapEff /proc/self/status").success();
    assert_eq!(given.trim(), own);
    let file = bed.folder().join("variables");
    fs::write(&file, "# a comment\nB=of the file\nA=of the file\n").expect("it is ours");
    let file = file.to_string_lossy().into_owned();
    let told = exec(&["--env-file", &file, "-e", "A=given"], "echo $A, $B").success();
    assert_eq!(told, "given, of the file\n");
    let closed = exec(&["--preserve-fds", "2"], "true");
    assert!(closed.code != 0 && closed.stderr.contains("--preserve-fds"), "{closed:?}");
    let away = exec(&["--cgroup", "../x"], "true");
    assert!(away.code != 0 && away.stderr.contains("--cgroup"), "{away:?}");
    assert_eq!(exec(&[], "exit 77").code, 77);
    assert_eq!(exec(&[], "kill -9 $$").code, 137);
    assert_eq!(bundle.call("exec", &["/no/such"]).code, 127);
    assert_eq!(bundle.call("exec", &["/tmp"]).code, 126);
    bundle.call("delete", &["--force"]).success();
}

#[test]
fn events_tell_what_the_kernel_killed_for_want_of_memory() {
    require!(Root, Program("busybox"), MemoryController);
    let bed = TestBed::new();
    // A child that needs more than there is; the first process outlives it.
    let script = "tail /dev/zero; echo > /dev/shm/killed; sleep 100";
    let bundle = Bundle::new(&bed, "oom", &["sh", "-c", script]);
    bundle.change(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    });
    bundle.create(&[]).success();
    let mut command = bed.terrarium();
    command.args(["events", "--interval", "60s", bundle.id()]).stdout(Stdio::piped());
    let mut process = bed.spawn(&mut command);
    let stdout = process.child().stdout.take().expect("it is piped");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let mut next = || -> Value {
        serde_json::from_str(&lines.next().expect("a line comes")).expect("it is JSON")
    };
    assert_eq!(next()["type"], "stats");
    bundle.call("start", &[]).success();
    assert_eq!(next(), json!({ "type": "oom", "id": bundle.id() }));
    bundle.call("kill", &["KILL"]).success();
    assert_eq!(process.wait(), 0, "it ends with the container");
    bundle.call("delete", &["--force"]).success();
}

#[test]
fn what_a_program_notifies_of_is_passed_on() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let path = bed.folder().join("notify");
    let host = UnixDatagram::bind(&path).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut message = [0; 512];
        let length = host.recv(&mut message).expect("a message comes");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    // As an engine: it has started when it says so, whatever it says of who it is.
    let script =
        "/bin/terrarium-workload notify STATUS=coming MAINPID=1 READY=1 >/dev/null; sleep 1000";
    let bundle = Bundle::new(&bed, "ready", &["sh", "-c", script]);
    bundle.change(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let engine = |words: &[&str]| {
        let mut command = bed.runtime();
        command.args(words).env("NOTIFY_SOCKET", &path);
        bed.finish(&mut command)
    };
    let folder = bundle.folder().display().to_string();
    engine(&["create", "--bundle", &folder, bundle.id()]).success();
    engine(&["start", bundle.id()]).success();
    assert_eq!(hear(), "STATUS=coming\n");
    assert_eq!(hear(), format!("READY=1\nMAINPID={}\n", bundle.state()["pid"]));
    bundle.call("delete", &["--force"]).success();

    // One that never says so ends with its program.
    let silent = Bundle::new(&bed, "silent", &["sleep", "0.2"]);
    let folder = silent.folder().display().to_string();
    engine(&["create", "--bundle", &folder, silent.id()]).success();
    engine(&["start", silent.id()]).success();
    silent.call("delete", &["--force"]).success();

    // As a person: what it says is passed on as long as it runs.
    let container = bed.container("person");
    let mut command = container.command([
        "sh",
        "-c",
        "echo $NOTIFY_SOCKET; terrarium-workload notify READY=1 WATCHDOG=1 FDSTORE=1 STOPPING=1 >/dev/null",
    ]);
    let outcome = bed.finish(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(outcome.success(), "/run/notify/notify.sock\n");
    assert_eq!([hear(), hear(), hear()], ["READY=1\n", "WATCHDOG=1\n", "STOPPING=1\n"]);
    // Nobody asked.
    let outcome = bed.container("unasked").run(["sh", "-c", "echo \"[$NOTIFY_SOCKET]\""]);
    assert_eq!(outcome.success(), "[]\n");
    bed.assert_nothing_left();
}
