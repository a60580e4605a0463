//! Starts and ends of containers, as the probes see them.
//!
//! A container has started when its first process, which is number 1 in a pid namespace of its own, executes the container's
//! program: until then it was the runtime's. It has ended when that process has. Containers in the host's pid namespace have
//! no such process, and those that run already when the observatory starts are counted from their next start on.

use crate::attribution::Attribution;
use crate::event::decode::{Record, text};
use crate::leaks::events::Role;
use std::collections::HashMap;
use std::time::Duration;
use terrarium_abi::{ExitCause, MountOp};

/// Why a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// By itself, with status 0.
    Exit,
    /// By a signal.
    Signal,
    /// By the OOM killer.
    Oom,
    /// By itself, with another status.
    Error,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Exit, Self::Signal, Self::Oom, Self::Error];

    /// The name, as in the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::Error => "error",
        }
    }
}

/// What was seen of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Life {
    /// How often it started.
    pub starts: u64,
    /// How often it ended, by reason.
    pub exits: [u64; Reason::ALL.len()],
}

/// A part of a container's start, told apart by what the kernel sees whoever starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the making of the cgroup to the first process in it.
    Cgroup,
    /// From there to the first mount: namespaces, id maps, the network.
    Clone,
    /// From there to the change of the root.
    Mounts,
    /// The change of the root: `pivot_root(2)`.
    Pivot,
    /// From there to the execution of the program: hooks, capabilities, seccomp.
    Exec,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Cgroup, Self::Clone, Self::Mounts, Self::Pivot, Self::Exec];

    /// The name, as in the label `phase`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Clone => "clone",
            Self::Mounts => "mounts",
            Self::Pivot => "pivot",
            Self::Exec => "exec",
        }
    }
}

/// What was seen of a container that is being made: `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Setup {
    made: u64,
    first_process: Option<u64>,
    first_mount: Option<u64>,
    /// When it began and ended.
    pivot: Option<(u64, u64)>,
}

impl Setup {
    /// How long each phase took, when the program was executed at `executed`; none for one whose ends were not both seen.
    fn phases(&self, executed: u64) -> [Option<u64>; Phase::ALL.len()] {
        let span = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
        let (pivots, pivoted) = (self.pivot.map(|pivot| pivot.0), self.pivot.map(|pivot| pivot.1));
        [
            span(Some(self.made), self.first_process),
            span(self.first_process, self.first_mount),
            span(self.first_mount, pivots),
            span(pivots, pivoted),
            span(pivoted, Some(executed)),
        ]
    }
}

/// Histograms of how long starts take.
#[derive(Debug, Clone)]
pub struct StartTimes {
    /// In all.
    pub whole: prometheus::Histogram,
    /// By phase.
    pub phases: prometheus::HistogramVec,
}

/// No more cgroups that were made and have not been started in are remembered, and no more first processes.
const MOST: usize = 8192;

/// What was seen of all containers.
#[derive(Debug)]
pub struct Lives {
    /// Of cgroups that were made and in which nothing was started yet, by path.
    setups: HashMap<String, Setup>,
    /// The container of each first process.
    firsts: HashMap<u32, String>,
    seen: HashMap<String, Life>,
    times: StartTimes,
}

impl Lives {
    /// Nothing seen yet; how long starts take goes into `times`.
    pub fn new(times: StartTimes) -> Self {
        Self { setups: HashMap::new(), firsts: HashMap::new(), seen: HashMap::new(), times }
    }

    /// How long it took from the making of the cgroup to the execution of the program.
    pub fn times(&self) -> &StartTimes {
        &self.times
    }

    /// What was seen of the container with this path.
    pub fn of(&self, path: &str) -> Life {
        self.seen.get(path).copied().unwrap_or_default()
    }

    /// Forgets containers for which `keep` is false.
    pub fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        self.seen.retain(|path, _| keep(path));
    }

    /// Takes in what a record tells; `before` and `after` are the role of its process before and after it.
    pub fn take(&mut self, record: &Record, attribution: &Attribution, before: Role, after: Role) {
        let header = record.header();
        match record {
            Record::CgroupMkdir(made) => {
                if self.setups.len() >= MOST {
                    self.setups.clear();
                }
                let new = Setup { made: header.mono_ns, ..Setup::default() };
                self.setups.entry(text(&made.path).into_owned()).or_insert(new);
            }
            Record::CgroupRmdir(removed) => {
                self.setups.remove(&*text(&removed.path));
            }
            Record::CgroupAttach(moved) => {
                if let Some(setup) = self.setups.get_mut(&*text(&moved.path)) {
                    setup.first_process.get_or_insert(header.mono_ns);
                }
            }
            Record::NewTask(_) => {
                if let Some(setup) = self.setups.get_mut(&*attribution.path) {
                    setup.first_process.get_or_insert(header.mono_ns);
                }
            }
            Record::Mount(mount) if mount.result >= 0 => {
                let Some(setup) = self.setups.get_mut(&*attribution.path) else { return };
                let began = header.mono_ns.saturating_sub(mount.duration_ns);
                if mount.op == MountOp::PivotRoot as u32 {
                    setup.pivot.get_or_insert((began, header.mono_ns));
                } else {
                    setup.first_mount.get_or_insert(began);
                }
            }
            Record::Exec(_) if header.ns_pid == 1 => {
                let Some(container) = &attribution.container else { return };
                if before == Role::Workload || after != Role::Workload {
                    return;
                }
                let path = &container.path;
                self.seen.entry(path.clone()).or_default().starts += 1;
                if let Some(setup) = self.setups.remove(path) {
                    let seconds = |ns| Duration::from_nanos(ns).as_secs_f64();
                    let took = header.mono_ns.saturating_sub(setup.made);
                    self.times.whole.observe(seconds(took));
                    for (phase, took) in Phase::ALL.iter().zip(setup.phases(header.mono_ns)) {
                        let Some(took) = took else { continue };
                        let histogram = self.times.phases.with_label_values(&[phase.name()]);
                        histogram.observe(seconds(took));
                    }
                }
                if self.firsts.len() >= MOST {
                    self.firsts.clear();
                }
                self.firsts.insert(header.pid, path.clone());
            }
            Record::Exit(exit) => {
                let Some(path) = self.firsts.remove(&header.pid) else { return };
                let reason = match exit.cause {
                    cause if cause == ExitCause::Oom as u32 => Reason::Oom,
                    cause if cause == ExitCause::Signal as u32 => Reason::Signal,
                    _ if exit.status == 0 => Reason::Exit,
                    _ => Reason::Error,
                };
                self.seen.entry(path).or_default().exits[reason as usize] += 1;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_told_where_both_its_ends_were_seen() {
        let whole = Setup {
            made: 10,
            first_process: Some(15),
            first_mount: Some(40),
            pivot: Some((70, 75)),
        };
        assert_eq!(whole.phases(100), [5, 25, 30, 5, 25].map(Some));
        let chroot = Setup { pivot: None, ..whole };
        assert_eq!(chroot.phases(100), [Some(5), Some(25), None, None, None]);
        let odd = Setup { first_mount: Some(12), ..whole };
        assert_eq!(odd.phases(100)[1], None, "a mount before there was a process");
    }
}
