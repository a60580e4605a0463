//! Containers with one known opening each, for what judges isolation: one hardened base, and what is laid over it.

use crate::process::Outcome;
use crate::testbed::TestBed;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Who starts a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The program under test.
    Terrarium,
    /// runc, by hand.
    Runc,
    /// crun, by hand.
    Crun,
}

impl Runtime {
    /// The name, as in a finding.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terrarium => "terrarium",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    /// Those that work on this machine.
    pub fn available() -> Vec<Self> {
        let has = |name| crate::requirement::program(name).is_some();
        let v1 = crate::kernel_state::cgroup_mounts().iter().any(|mount| mount.version == 1);
        let mut all = vec![Self::Terrarium];
        all.extend(has("runc").then_some(Self::Runc));
        // crun refuses hybrid hosts.
        all.extend((has("crun") && !v1).then_some(Self::Crun));
        all
    }
}

/// A container of the hardened base with a fragment laid over it; deleted when this goes.
#[derive(Debug)]
pub struct LeakCase<'a> {
    bed: &'a TestBed,
    /// Its id.
    pub id: String,
    runtime: Runtime,
    folder: PathBuf,
}

impl<'a> LeakCase<'a> {
    /// Starts it.
    ///
    /// In the fragment a plain key replaces (objects are merged), `key+` appends to a list, and `"seccomp-"` takes
    /// system calls off the list of those that the filter denies.
    pub fn start(bed: &'a TestBed, runtime: Runtime, name: &str, fragment: &Value) -> Self {
        let case = Self::prepare(bed, runtime, name, fragment);
        let mut command = case.program();
        command.args(["run", "--detach", "--bundle"]).arg(&case.folder).arg(&case.id);
        bed.finish(&mut command).success();
        case
    }

    /// Starts it with `file` of the host open as descriptor 3.
    pub fn start_with_descriptor(
        bed: &'a TestBed,
        runtime: Runtime,
        name: &str,
        fragment: &Value,
        file: &Path,
    ) -> Self {
        let case = Self::prepare(bed, runtime, name, fragment);
        let program = case.program();
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<\"$0\"; exec \"$@\""]).arg(file);
        command.arg(program.get_program()).args(program.get_args());
        command.args(["run", "--detach", "--preserve-fds", "1", "--bundle"]);
        bed.finish(command.arg(&case.folder).arg(&case.id)).success();
        case
    }

    /// Starts it anew, with a JSON Patch applied to its `config.json`.
    #[must_use]
    pub fn start_patched(&self, patch: &Value) -> Self {
        let mut spec = self.spec();
        let patch: json_patch::Patch =
            serde_json::from_value(patch.clone()).unwrap_or_else(|e| panic!("{e}: {patch:#}"));
        json_patch::patch(&mut spec, &patch).unwrap_or_else(|e| panic!("{e}: {patch:#?}"));
        let case = Self::prepare(self.bed, self.runtime, "patched", &json!({}));
        let cgroup = json!(format!("/terrarium-leaks-{}", case.id));
        spec["linux"]["cgroupsPath"] = cgroup;
        fs::write(case.folder.join("config.json"), spec.to_string()).expect("it is writable");
        let mut command = case.program();
        command.args(["run", "--detach", "--bundle"]).arg(&case.folder).arg(&case.id);
        self.bed.finish(&mut command).success();
        case
    }

    /// Runs a command in it to its end.
    pub fn exec(&self, words: &[&str]) -> Outcome {
        let mut command = self.program();
        self.bed.finish(command.arg("exec").arg(&self.id).args(words))
    }

    /// Runs the process of a `process.json` in it to its end.
    pub fn exec_process(&self, file: &str) -> Outcome {
        let mut command = self.program();
        self.bed.finish(command.args(["exec", "--process", file]).arg(&self.id))
    }

    /// Its `config.json`.
    pub fn spec(&self) -> Value {
        let text = fs::read(self.folder.join("config.json")).expect("the bundle is there");
        serde_json::from_slice(&text).expect("it is JSON")
    }

    fn prepare(bed: &'a TestBed, runtime: Runtime, name: &str, fragment: &Value) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = bed.unique(&format!("{name}-{}{number}", runtime.name()));
        let folder = bed.folder().join(format!("bundle-{id}"));
        fs::create_dir(&folder).expect("the test's folder is writable");
        let mut spec = base(bed, &id);
        lay_over(&mut spec, fragment);
        fs::write(folder.join("config.json"), spec.to_string()).expect("the bundle is writable");
        Self { bed, id, runtime, folder }
    }

    fn program(&self) -> Command {
        match self.runtime {
            Runtime::Terrarium => self.bed.runtime(),
            other => Command::new(other.name()),
        }
    }

    /// `terrarium leaks ID --format json` and more words: the outcome, and the findings.
    pub fn leaks(&self, more: &[&str]) -> (Outcome, Vec<Value>) {
        let mut words = vec!["leaks", &self.id, "--format", "json"];
        words.extend(more);
        let outcome = self.bed.run(words);
        assert!([0, 3].contains(&outcome.code), "{outcome:?}");
        let findings = outcome
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        (outcome, findings)
    }

    /// What its runtime says of it (`state`).
    pub fn state(&self) -> Value {
        let outcome = self.bed.finish(self.program().arg("state").arg(&self.id));
        serde_json::from_str(&outcome.success()).expect("state is JSON")
    }

    /// Asserts what a judge of findings asks: that `expected` is reported at `least` or above, naming `names`; that nothing
    /// else is above low but what is `allowed`; and that each finding has evidence, a remedy and the right container.
    #[track_caller]
    pub fn assert_found(&self, expected: &str, least: &str, names: &str, allowed: &[&str]) {
        let (outcome, findings) = self.leaks(&[]);
        let of_check: Vec<&Value> = findings.iter().filter(|f| f["check"] == expected).collect();
        let [finding] = of_check[..] else {
            panic!("{expected} is not found once in {}: {findings:#?} {outcome:?}", self.id);
        };
        assert!(severity(finding) >= rank(least), "{finding:#}");
        assert!(finding.to_string().contains(names), "{names}: {finding:#}");
        self.assert_sound(&outcome, &findings);
        let mut allowed = allowed.to_vec();
        allowed.push(expected);
        assert_quiet(&findings, &allowed);
    }

    /// Asserts that nothing above low is found.
    #[track_caller]
    pub fn assert_quiet(&self) {
        let (outcome, findings) = self.leaks(&[]);
        self.assert_sound(&outcome, &findings);
        assert_quiet(&findings, &[]);
    }

    #[track_caller]
    fn assert_sound(&self, outcome: &Outcome, findings: &[Value]) {
        for finding in findings {
            assert_eq!(finding["container"]["id"], self.id, "{finding:#}");
            assert_eq!(finding["container"]["runtime"], self.runtime.name(), "{finding:#}");
            assert!(!finding["evidence"].as_array().is_none_or(Vec::is_empty), "{finding:#}");
            assert!(finding["remedy"].as_str().is_some_and(|t| !t.is_empty()), "{finding:#}");
        }
        let high = findings.iter().any(|finding| severity(finding) >= rank("high"));
        assert_eq!(outcome.code, if high { 3 } else { 0 }, "{outcome:?}");
    }
}

impl Drop for LeakCase<'_> {
    fn drop(&mut self) {
        let mut command = self.program();
        command.args(["delete", "--force"]).arg(&self.id);
        self.bed.finish(&mut command);
    }
}

fn rank(severity: &str) -> usize {
    let all = ["info", "low", "medium", "high", "critical"];
    all.iter().position(|known| *known == severity).expect("it is a severity")
}

fn severity(finding: &Value) -> usize {
    rank(finding["severity"].as_str().expect("a finding has a severity"))
}

/// Asserts that no finding is above low but those of `allowed` checks.
#[track_caller]
pub fn assert_quiet(findings: &[Value], allowed: &[&str]) {
    for finding in findings {
        let fine = allowed.iter().any(|check| finding["check"] == *check);
        assert!(fine || severity(finding) <= rank("low"), "a false alarm: {finding:#}");
    }
}

/// The hardened base: Docker's capabilities, masks and devices, a filter of system calls, namespaces and limits.
fn base(bed: &TestBed, id: &str) -> Value {
    let capabilities = [
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
        "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    ]
    .map(|name| format!("CAP_{name}"));
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let device = |major: i64, minor: i64| json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    let mut rules = vec![
        json!({ "allow": false, "access": "rwm" }),
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    rules.extend(
        [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1)]
            .map(|(major, minor)| device(major, minor)),
    );
    let namespaces =
        ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sleep", "600"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true
        },
        "root": { "path": bed.rootfs(), "readonly": false },
        "hostname": "case",
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/terrarium-leaks-{id}"),
            "resources": {
                "memory": { "limit": 64 << 20 },
                "pids": { "limit": 128 },
                "devices": rules
            },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{
                    "action": "SCMP_ACT_ERRNO",
                    "names": [
                        "mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen",
                        "fsconfig", "fsmount", "fspick", "mount_setattr", "unshare", "setns",
                        "init_module", "finit_module", "delete_module", "bpf", "keyctl",
                        "add_key", "request_key", "ptrace", "process_vm_readv",
                        "process_vm_writev", "perf_event_open", "open_by_handle_at",
                        "name_to_handle_at", "kexec_load", "kexec_file_load", "userfaultfd"
                    ]
                }]
            }
        }
    })
}

fn lay_over(base: &mut Value, fragment: &Value) {
    for (key, value) in fragment.as_object().into_iter().flatten() {
        if key == "seccomp-" {
            let names = base["seccomp"]["syscalls"][0]["names"].as_array_mut().expect("a list");
            names.retain(|name| !value.as_array().is_some_and(|away| away.contains(name)));
        } else if let Some(key) = key.strip_suffix('+') {
            let list = base[key].as_array_mut().expect("only lists are appended to");
            list.extend(value.as_array().expect("a list is appended").iter().cloned());
        } else if value.is_object() && base[key].is_object() {
            lay_over(&mut base[key], value);
        } else if value.is_null() {
            base.as_object_mut().expect("an object").remove(key);
        } else {
            base[key] = value.clone();
        }
    }
    // Without a uts namespace there may be no host name.
    let no_uts = fragment["linux"]["namespaces"]
        .as_array()
        .is_some_and(|all| !all.iter().any(|namespace| namespace["type"] == "uts"));
    if no_uts {
        base.as_object_mut().expect("an object").remove("hostname");
    }
}
