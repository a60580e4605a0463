//! Judging captured hosts: folders that look like /proc, so that no root is needed and nothing moves.

use super::{EngineRoots, Finding, Places, Proc, Severity, Source, Wanted, judge};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

/// A captured host with its own process 10 and whatever a test adds.
struct Captured {
    folder: tempfile::TempDir,
}

const HOST_MOUNTS: &str = "\
20 1 254:0 / / rw - ext4 /dev/vda rw
21 20 0:21 / /proc rw - proc proc rw
22 20 0:27 / /dev/shm rw - tmpfs tmpfs rw
30 20 0:30 / /c/memory rw - cgroup cgroup rw,memory
31 20 0:31 / /c/pids rw - cgroup cgroup rw,pids
";

const MOUNTS: &str = "\
100 99 254:0 /srv/ROOT / rw - ext4 /dev/vda rw
101 100 0:50 / /proc rw - proc proc rw
102 101 0:50 /sys /proc/sys ro - proc proc rw
";

impl Captured {
    fn new() -> Self {
        let captured = Self { folder: tempfile::tempdir().unwrap() };
        captured.process(10, "host", 0, "/", HOST_MOUNTS);
        symlink("10", captured.proc().join("self")).unwrap();
        captured
    }

    fn proc(&self) -> std::path::PathBuf {
        self.folder.path().join("proc")
    }

    /// A process whose private namespaces end in `namespaces`; 0 for the host's.
    fn process(&self, pid: i32, name: &str, namespaces: u64, cgroup: &str, mounts: &str) {
        let own = self.proc().join(pid.to_string());
        fs::create_dir_all(own.join("ns")).unwrap();
        fs::create_dir_all(own.join("fd")).unwrap();
        let tail = format!("S 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 {pid} 20");
        fs::write(own.join("stat"), format!("{pid} ({name}) {tail}")).unwrap();
        fs::write(own.join("cgroup"), format!("1:memory:{cgroup}\n2:pids:{cgroup}\n")).unwrap();
        for (kind, initial) in [
            ("mnt", 4_026_531_841_u64),
            ("net", 4_026_531_840),
            ("pid", 4_026_531_836),
            ("ipc", 4_026_531_839),
            ("uts", 4_026_531_838),
            ("user", 4_026_531_837),
            ("cgroup", 4_026_531_835),
        ] {
            let inode =
                if namespaces == 0 || kind == "user" { initial } else { initial + namespaces };
            symlink(format!("{kind}:[{inode}]"), own.join("ns").join(kind)).unwrap();
        }
        fs::write(
            own.join("status"),
            format!(
                "Uid:\t0\t0\t0\t0\nNSpid:\t{pid}\t1\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                 CapBnd:\t{}\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n",
                if namespaces == 0 { "000001ffffffffff" } else { "00000000a80425fb" }
            ),
        )
        .unwrap();
        fs::write(own.join("mountinfo"), mounts).unwrap();
        fs::write(own.join("uid_map"), "0 0 4294967295\n").unwrap();
        symlink("/bin/sh", own.join("exe")).unwrap();
        symlink("/", own.join("cwd")).unwrap();
        symlink("/", own.join("root")).unwrap();
    }

    fn container(&self, id: &str, pid: i32, mounts: &str) {
        let path = format!("/terrarium/{id}");
        self.process(pid, "init", u64::try_from(pid).unwrap(), &path, mounts);
        let own = self.folder.path().join("state").join(id);
        fs::create_dir_all(&own).unwrap();
        let state = json!({
            "id": id, "name": id, "pid": pid, "pid_start_ticks": pid, "status": "running", "cgroups": []
        });
        fs::write(own.join("state.json"), state.to_string()).unwrap();
        let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
        let spec = json!({
            "root": { "path": "/srv/ROOT" },
            "process": { "noNewPrivileges": true },
            "linux": {
                "seccomp": {}, "namespaces": namespaces.map(|kind| json!({ "type": kind })),
                "readonlyPaths": ["/proc/sys"]
            }
        });
        fs::write(own.join("config.json"), spec.to_string()).unwrap();
    }

    fn link(&self, pid: i32, name: &str, target: &str) {
        let path = self.proc().join(pid.to_string()).join(name);
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    fn write(&self, pid: i32, name: &str, text: &str) {
        let path = self.proc().join(pid.to_string()).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn judge(&self, wanted: &Wanted) -> Vec<Finding> {
        let places = Places {
            proc: Proc::captured(self.proc()),
            engines: EngineRoots { terrarium: self.folder.path().join("state"), others: vec![] },
            sys: self.folder.path().join("sys"),
        };
        let mut findings = judge(&places, wanted, |_| true).unwrap().findings;
        // No cgroup filesystem was captured, so nothing limits, and the devices are anybody's.
        findings.retain(|finding| !["limit-missing", "device-exposed"].contains(&finding.check));
        findings
    }

    fn above_low(&self, id: &str) -> Vec<(&'static str, Severity)> {
        let findings = self.judge(&Wanted::Named(id.to_owned())).into_iter();
        let above = findings.filter(|finding| finding.severity > Severity::Low);
        above.map(|finding| (finding.check, finding.severity)).collect()
    }
}

#[test]
fn a_captured_container_is_quiet_until_something_opens() {
    let host = Captured::new();
    host.container("web", 50, MOUNTS);
    assert_eq!(host.above_low("web"), []);
    host.link(50, "ns/net", "net:[4026531840]");
    assert_eq!(host.above_low("web"), [("host-network-namespace", Severity::High)]);
    let findings = host.judge(&Wanted::Process(50));
    let finding = findings.iter().find(|f| f.check == "host-network-namespace").unwrap();
    assert_eq!((finding.source, finding.container.id.as_str()), (Source::State, "web"));
    assert_eq!(finding.declared, "network namespace: private");
}

#[test]
fn the_root_of_the_host_left_below_is_found() {
    let host = Captured::new();
    host.container("web", 50, &format!("{MOUNTS}110 100 254:0 / /old rw - ext4 /dev/vda rw\n"));
    assert_eq!(host.above_low("web"), [("root-not-pivoted", Severity::High)]);
    // A chroot: the process sees nothing at / of what its namespace has there.
    host.container("chroot", 60, "");
    host.write(60, "namespace_mountinfo", HOST_MOUNTS);
    assert_eq!(host.above_low("chroot"), [("root-not-pivoted", Severity::High)]);
}

#[test]
fn descriptors_are_judged_by_their_mount() {
    let host = Captured::new();
    host.container("web", 50, MOUNTS);
    for (number, target, mount, expected) in [
        (0, "/dev/pts/3", 20, None),
        (1, "/var/log/web.log", 20, None),
        (3, "/etc/passwd", 20, Some(Severity::High)),
        (4, "/tmp/own", 100, None),
        (5, "socket:[7]", 9, None),
        (6, "/memfd:x (deleted)", 20, None),
        (7, "/gone", 4711, None),
    ] {
        host.link(50, &format!("fd/{number}"), target);
        host.write(50, &format!("fdinfo/{number}"), &format!("flags:\t02\nmnt_id:\t{mount}\n"));
        let expected: Vec<_> =
            expected.map(|severity| ("leaked-descriptor", severity)).into_iter().collect();
        assert_eq!(host.above_low("web"), expected, "{target}");
        fs::remove_file(host.proc().join(format!("50/fd/{number}"))).unwrap();
    }
    host.link(50, "fd/9", "mnt:[4026531841]");
    assert_eq!(host.above_low("web"), [("namespace-file-exposed", Severity::High)]);
}

#[test]
fn an_unconfined_container_is_told_of_where_the_host_has_a_module() {
    let host = Captured::new();
    host.container("web", 50, MOUNTS);
    host.write(50, "attr/current", "unconfined\n");
    let has = |host: &Captured| {
        let findings = host.judge(&Wanted::All);
        findings.iter().any(|finding| finding.check == "no-lsm-confinement")
    };
    assert!(!has(&host));
    let sys = host.folder.path().join("sys/kernel/security");
    fs::create_dir_all(&sys).unwrap();
    fs::write(sys.join("lsm"), "lockdown,capability,yama,apparmor").unwrap();
    assert!(has(&host));
    host.write(50, "attr/current", "docker-default (enforce)\n");
    assert!(!has(&host));
}

#[test]
fn what_is_strange_does_no_harm_and_nothing_is_told_of_the_wrong_container() {
    let host = Captured::new();
    host.container("web", 50, MOUNTS);
    host.container("odd", 60, &MOUNTS.replace("0:50", "0:60"));
    let long = "x".repeat(2000);
    host.write(
        60,
        "stat",
        "60 (\u{1b}[2J) S 9) S 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 60 20",
    );
    let lines = (0..300).map(|at| {
        format!(
            "{} 100 0:7{at} / /{long}{at}\\033[31m\\012 rw shared:x - tmpfs \u{1b} rw\n",
            200 + at
        )
    });
    let mounts = MOUNTS.replace("0:50", "0:60") + &lines.collect::<String>();
    host.write(60, "mountinfo", &mounts);
    host.write(60, "status", "Uid:\nNSpid:\nCapBnd:\tzz\nSeccomp:\tx\nNoNewPrivs:\t1\n");
    host.write(60, "cgroup", ":::\n\n1:memory\n");
    host.link(60, "ns/pid", "pid:[]");
    assert_eq!(host.above_low("web"), []);
    for finding in host.judge(&Wanted::All) {
        assert!(["web", "odd"].contains(&finding.container.id.as_str()));
        let line = super::json_line(&finding);
        assert!(line.chars().all(|c| !c.is_control()), "{line}");
    }
    // A pid that another process has now is not the container's.
    host.container("gone", 70, &MOUNTS.replace("0:50", "0:70"));
    let tail = "S 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 9999 20";
    host.write(70, "stat", &format!("70 (other) {tail}"));
    host.write(70, "cgroup", "1:memory:/\n");
    let judged = host.judge(&Wanted::All);
    assert!(judged.iter().all(|finding| finding.container.id != "gone"));
}
