//! Which programs belong to which probe, and the ways to attach each, best first.
//!
//! To add a hook: its programs in `ebpf/probes`, named as [`Hook::programs`] expects them, and a line in [`HOOKS`].

use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use terrarium_abi::Probe;

/// A way to attach a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// At the entry and the exit of a kernel function, through its ftrace location.
    Fentry,
    /// At the entry and the exit of a kernel function, through a breakpoint or ftrace.
    Kprobe,
    /// At a system call's tracepoints, through perf. Taxes every system call of the host.
    Tracepoint,
    /// At a tracepoint, with arguments whose types the verifier knows.
    TpBtf,
    /// At a tracepoint, with untyped arguments.
    RawTp,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Fentry, Self::Kprobe, Self::Tracepoint, Self::TpBtf, Self::RawTp];

    /// The name, as in the label `mechanism`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == text).ok_or_else(|| {
            format!("no such way to attach (there are {})", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// The name of a probe, as in `--probes` and the label `probe`.
pub const fn probe_name(probe: Probe) -> &'static str {
    match probe {
        Probe::Task => "task",
        Probe::Namespace => "namespace",
        Probe::Mount => "mount",
        Probe::Memory => "memory",
        Probe::Cgroup => "cgroup",
        Probe::Guard => "guard",
    }
}

/// Chooses probes and, of a probe, single hooks: `guard`, or `guard.ptrace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The probe.
    pub probe: Probe,
    /// One hook of it; all when none is named.
    pub hook: Option<&'static str>,
}

impl Choice {
    /// Whether the hook is chosen by one of these: by its probe, or by name where the probe is chosen by hooks.
    pub fn chosen(all: &[Self], hook: &Hook) -> bool {
        all.iter().any(|choice| {
            choice.probe == hook.probe && choice.hook.is_none_or(|name| name == hook.name)
        })
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (probe, hook) = match text.split_once('.') {
            Some((probe, hook)) => (probe_by_name(probe)?, Some(hook)),
            None => (probe_by_name(text)?, None),
        };
        let Some(name) = hook else { return Ok(Self { probe, hook: None }) };
        let of_probe = || HOOKS.iter().filter(|hook| hook.probe == probe).map(|hook| hook.name);
        let hook = of_probe().find(|known| *known == name).ok_or_else(|| {
            let all: Vec<&str> = of_probe().collect();
            format!("no such hook of {} (there are {})", probe_name(probe), all.join(", "))
        })?;
        Ok(Self { probe, hook: Some(hook) })
    }
}

/// The probe with this name.
pub fn probe_by_name(name: &str) -> Result<Probe, String> {
    Probe::ALL.into_iter().find(|probe| probe_name(*probe) == name).ok_or_else(|| {
        format!("no such probe (there are {})", Probe::ALL.map(probe_name).join(", "))
    })
}

/// What a hook hooks into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The tracepoint of the hook's name.
    Tracepoint,
    /// Entry and exit of the system call of the hook's name.
    SystemCall,
    /// Exit of the kernel function of the hook's name, or of the system calls that it stands behind.
    Exit(&'static [&'static str]),
    /// The tracepoint of the hook's name, where its first argument is a pointer, or else the entry of this function.
    TracepointOrFunction(&'static str),
    /// Entry of the kernel function of the hook's name.
    Function,
}

/// One place in the kernel that programs are attached to.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// The name of the tracepoint, the system call or the function.
    pub name: &'static str,
    /// The probe it belongs to.
    pub probe: Probe,
    /// What it is.
    pub place: Place,
    /// What is lost without it, where the probe counts as attached all the same: the kernel may lack it.
    pub optional: Option<&'static str>,
}

impl Hook {
    /// The ways to attach it, best first.
    pub const fn mechanisms(&self) -> &'static [Mechanism] {
        match self.place {
            Place::Tracepoint => &[Mechanism::TpBtf, Mechanism::RawTp],
            Place::SystemCall | Place::Exit(_) => {
                &[Mechanism::Fentry, Mechanism::Kprobe, Mechanism::Tracepoint]
            }
            Place::Function => &[Mechanism::Fentry, Mechanism::Kprobe],
            Place::TracepointOrFunction(_) => {
                &[Mechanism::TpBtf, Mechanism::RawTp, Mechanism::Fentry, Mechanism::Kprobe]
            }
        }
    }

    /// The programs that this way takes, in the order in which they are attached: an exit that is seen without its
    /// entry is ignored, an entry without its exit would be left over.
    pub fn programs(&self, mechanism: Mechanism) -> Vec<Program> {
        use Mechanism::{Fentry, Kprobe, RawTp, TpBtf, Tracepoint};
        let name = self.name;
        let program =
            |part, prefix: &str, of: &str| Program { part, name: format!("{prefix}_{of}") };
        let entry = |prefix: &str| program(Part::Entry, prefix, name);
        let exit = |prefix: &str| program(Part::Exit, prefix, name);
        match (self.place, mechanism) {
            (_, TpBtf) => vec![entry("tp_btf")],
            (_, RawTp) => vec![entry("raw_tp")],
            (Place::TracepointOrFunction(function), Fentry) => {
                vec![program(Part::Entry, "fentry", function)]
            }
            (Place::TracepointOrFunction(function), Kprobe) => {
                vec![program(Part::Entry, "kprobe", function)]
            }
            (Place::Function, Fentry) => vec![entry("fentry")],
            (Place::Function, Kprobe) => vec![entry("kprobe")],
            (Place::Exit(_), Fentry) => vec![exit("fexit")],
            (Place::Exit(_), Kprobe) => vec![exit("kretprobe")],
            (Place::Exit(_), Tracepoint) => vec![exit("exit")],
            (_, Fentry) => vec![entry("fentry"), exit("fexit")],
            (_, Kprobe) => vec![entry("kprobe"), exit("kretprobe")],
            (_, Tracepoint) => vec![entry("enter"), exit("exit")],
        }
    }

    /// The kernel function that `fentry` and `kprobe` take.
    pub fn function(&self) -> String {
        match self.place {
            Place::Tracepoint | Place::Exit(_) | Place::Function => self.name.to_owned(),
            Place::TracepointOrFunction(function) => function.to_owned(),
            Place::SystemCall => {
                let arch = match std::env::consts::ARCH {
                    "x86_64" => "x64",
                    "aarch64" => "arm64",
                    other => other,
                };
                format!("__{arch}_sys_{}", self.name)
            }
        }
    }

    /// The system calls whose tracepoints are taken.
    pub fn system_calls(&self) -> &[&'static str] {
        match &self.place {
            Place::Exit(calls) => calls,
            _ => std::slice::from_ref(&self.name),
        }
    }
}

/// A program of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Which end of a call it watches.
    pub part: Part,
    /// Its name in the object.
    pub name: String,
}

/// Which end of a call a program watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its beginning, or a tracepoint.
    Entry,
    /// Its end.
    Exit,
}

const fn tracepoint(probe: Probe, name: &'static str) -> Hook {
    Hook { name, probe, place: Place::Tracepoint, optional: None }
}

const fn system_call(probe: Probe, name: &'static str) -> Hook {
    Hook { name, probe, place: Place::SystemCall, optional: None }
}

/// A call of the newer mount API: not in every kernel, and seldom without one of the others.
const fn new_mount_api(name: &'static str) -> Hook {
    Hook { name, probe: Probe::Mount, place: Place::SystemCall, optional: Some("calls of it") }
}

/// A guarded call that every kernel has.
const fn guarded(name: &'static str) -> Hook {
    system_call(Probe::Guard, name)
}

/// A guarded call that a kernel can be built without, or that an architecture lacks.
const fn perhaps_guarded(name: &'static str) -> Hook {
    Hook { name, probe: Probe::Guard, place: Place::SystemCall, optional: Some("calls of it") }
}

/// All hooks, in the order in which they are attached: cgroups first, so that no container starts unnamed; exits
/// before what they take from others.
pub const HOOKS: &[Hook] = &[
    tracepoint(Probe::Cgroup, "cgroup_mkdir"),
    tracepoint(Probe::Cgroup, "cgroup_rmdir"),
    // Before the tracepoint: what that finds remembered, it takes away.
    Hook {
        name: "cgroup_migrate",
        probe: Probe::Cgroup,
        place: Place::Function,
        optional: Some("which cgroup a task leaves that moves to another"),
    },
    tracepoint(Probe::Cgroup, "cgroup_attach_task"),
    tracepoint(Probe::Memory, "mm_vmscan_memcg_reclaim_begin"),
    tracepoint(Probe::Memory, "mm_vmscan_memcg_reclaim_end"),
    Hook {
        name: "mark_victim",
        probe: Probe::Memory,
        place: Place::TracepointOrFunction("mark_oom_victim"),
        optional: Some("OOM kills are counted when the victim exits, not when it is chosen"),
    },
    tracepoint(Probe::Task, "sched_process_exit"),
    tracepoint(Probe::Task, "sched_process_exec"),
    tracepoint(Probe::Task, "task_newtask"),
    system_call(Probe::Namespace, "unshare"),
    system_call(Probe::Namespace, "setns"),
    system_call(Probe::Mount, "mount"),
    system_call(Probe::Mount, "umount"),
    system_call(Probe::Mount, "pivot_root"),
    new_mount_api("move_mount"),
    new_mount_api("open_tree"),
    new_mount_api("fsopen"),
    new_mount_api("fsconfig"),
    new_mount_api("fsmount"),
    new_mount_api("fspick"),
    new_mount_api("mount_setattr"),
    new_mount_api("open_tree_attr"),
    guarded("ptrace"),
    guarded("chroot"),
    guarded("capset"),
    guarded("openat"),
    perhaps_guarded("open"),
    perhaps_guarded("openat2"),
    perhaps_guarded("creat"),
    perhaps_guarded("process_vm_writev"),
    perhaps_guarded("bpf"),
    perhaps_guarded("init_module"),
    perhaps_guarded("finit_module"),
    perhaps_guarded("kexec_load"),
    perhaps_guarded("kexec_file_load"),
    perhaps_guarded("open_by_handle_at"),
    perhaps_guarded("keyctl"),
    perhaps_guarded("add_key"),
    perhaps_guarded("request_key"),
    perhaps_guarded("userfaultfd"),
    perhaps_guarded("mknod"),
    perhaps_guarded("mknodat"),
    perhaps_guarded("perf_event_open"),
    perhaps_guarded("pidfd_getfd"),
    perhaps_guarded("recvmsg"),
    perhaps_guarded("seccomp"),
    perhaps_guarded("prctl"),
    perhaps_guarded("socket"),
    Hook {
        name: "signal_generate",
        probe: Probe::Guard,
        place: Place::Tracepoint,
        optional: Some("signals to other cgroups"),
    },
    // Last: it takes system call tracepoints only where others have taken some already.
    Hook {
        name: "kernel_clone",
        probe: Probe::Task,
        place: Place::Exit(&["clone", "clone3", "fork", "vfork"]),
        optional: Some("clones that fail"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.name().parse(), Ok(mechanism));
        }
        for probe in Probe::ALL {
            assert_eq!(probe_by_name(probe_name(probe)), Ok(probe));
        }
        assert!("perf".parse::<Mechanism>().is_err());
        assert!(probe_by_name("guards").is_err());
        let one: Choice = "guard.ptrace".parse().expect("a hook");
        assert_eq!(one, Choice { probe: Probe::Guard, hook: Some("ptrace") });
        assert!("guard.mount".parse::<Choice>().is_err());
        let chosen: Vec<&str> = HOOKS
            .iter()
            .filter(|hook| Choice::chosen(std::slice::from_ref(&one), hook))
            .map(|hook| hook.name)
            .collect();
        assert_eq!(chosen, ["ptrace"]);
    }
}
