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
    /// A tracepoint that exists for the purpose.
    Tracepoint,
    /// Entry and exit of a system call.
    SystemCall,
    /// Exit of a system call or of the kernel function behind several.
    SystemCallExit,
    /// Entry of a kernel function.
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
    /// Whether the probe counts as attached without it.
    pub optional: bool,
}

impl Hook {
    /// The ways to attach it, best first.
    pub const fn mechanisms(&self) -> &'static [Mechanism] {
        match self.place {
            Place::Tracepoint => &[Mechanism::TpBtf, Mechanism::RawTp],
            Place::SystemCall | Place::SystemCallExit => {
                &[Mechanism::Fentry, Mechanism::Kprobe, Mechanism::Tracepoint]
            }
            Place::Function => &[Mechanism::Fentry, Mechanism::Kprobe],
        }
    }

    /// The programs that this way takes, in the order in which they are attached: an exit that is seen without its
    /// entry is ignored, an entry without its exit would be left over.
    pub fn programs(&self, mechanism: Mechanism) -> Vec<(Part, String)> {
        let name = self.name;
        match (self.place, mechanism) {
            (_, Mechanism::TpBtf) => vec![(Part::Entry, format!("tp_btf_{name}"))],
            (_, Mechanism::RawTp) => vec![(Part::Entry, format!("raw_tp_{name}"))],
            (Place::Function, Mechanism::Fentry) => vec![(Part::Entry, format!("fentry_{name}"))],
            (Place::Function, _) => vec![(Part::Entry, format!("kprobe_{name}"))],
            (Place::SystemCallExit, Mechanism::Fentry) => {
                vec![(Part::Exit, format!("fexit_{name}"))]
            }
            (Place::SystemCallExit, Mechanism::Kprobe) => {
                vec![(Part::Exit, format!("kretprobe_{name}"))]
            }
            (Place::SystemCallExit, Mechanism::Tracepoint) => {
                vec![(Part::Exit, format!("exit_{name}"))]
            }
            (_, Mechanism::Fentry) => {
                vec![(Part::Entry, format!("fentry_{name}")), (Part::Exit, format!("fexit_{name}"))]
            }
            (_, Mechanism::Kprobe) => vec![
                (Part::Entry, format!("kprobe_{name}")),
                (Part::Exit, format!("kretprobe_{name}")),
            ],
            (_, Mechanism::Tracepoint) => {
                vec![(Part::Entry, format!("enter_{name}")), (Part::Exit, format!("exit_{name}"))]
            }
        }
    }
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
    Hook { name, probe, place: Place::Tracepoint, optional: false }
}

/// All hooks, in the order in which they are attached: cgroups first, so that no container starts unnamed.
pub const HOOKS: &[Hook] = &[
    tracepoint(Probe::Cgroup, "cgroup_mkdir"),
    tracepoint(Probe::Cgroup, "cgroup_rmdir"),
    tracepoint(Probe::Cgroup, "cgroup_attach_task"),
    tracepoint(Probe::Task, "task_newtask"),
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
    }
}
