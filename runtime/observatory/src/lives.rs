//! Starts and ends of containers, as the probes see them.
//!
//! A container has started when its first process, which is number 1 in a pid namespace of its own, executes the container's
//! program: until then it was the runtime's. It has ended when that process has. Containers in the host's pid namespace have
//! no such process, and those that run already when the observatory starts are counted from their next start on.

use crate::attribution::Attribution;
use crate::event::decode::{Record, text};
use crate::leaks::events::Role;
use foldhash::{HashMap, HashMapExt, HashSet};
use std::time::Duration;
use terrarium_abi::{Exit, ExitCause, Guard, GuardEvent, Header, MountOp};

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
    /// How long it was in each phase of its last start, nanoseconds; none of a start that was not seen from its beginning.
    spent: [Option<u64>; Phase::ALL.len()],
}

impl Life {
    /// The phases of its last start, in their order, with the nanoseconds that each took.
    pub fn phases(&self) -> impl Iterator<Item = (Phase, u64)> {
        Phase::ALL.into_iter().zip(self.spent).filter_map(|(phase, spent)| Some((phase, spent?)))
    }
}

/// A part of a container's start, told apart by what the kernel sees whoever starts it. Each moment of a start belongs to one of
/// them, so what they take adds up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the making of the cgroup on.
    Cgroup,
    /// From the first process in it on.
    Clone,
    /// From the first write to `/proc/PID/uid_map` or `gid_map` on, or from the execution of `newuidmap` or `newgidmap`.
    Userns,
    /// From the first socket of rtnetlink on that the runtime makes, or from the execution of `pasta` or `slirp4netns`.
    Network,
    /// From the first mount on.
    Mounts,
    /// `pivot_root(2)`.
    Pivot,
    /// While another program runs that the runtime, or the container's first process, executed.
    Hooks,
    /// `seccomp(2)`: the filter is loaded. Compiling it is no system call, and part of what was before.
    Seccomp,
    /// From the change of the root to the execution of the program: capabilities, the user, waiting for `start`.
    Exec,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cgroup,
        Self::Clone,
        Self::Userns,
        Self::Network,
        Self::Mounts,
        Self::Pivot,
        Self::Hooks,
        Self::Seccomp,
        Self::Exec,
    ];

    /// The name, as in the label `phase`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Clone => "clone",
            Self::Userns => "userns",
            Self::Network => "network",
            Self::Mounts => "mounts",
            Self::Pivot => "pivot",
            Self::Hooks => "hooks",
            Self::Seccomp => "seccomp",
            Self::Exec => "exec",
        }
    }

    /// That of a program which the runtime executes beside the container.
    fn of_helper(program: &str) -> Self {
        match program.rsplit('/').next().unwrap_or(program) {
            "newuidmap" | "newgidmap" => Self::Userns,
            "pasta" | "pasta.avx2" | "slirp4netns" => Self::Network,
            _ => Self::Hooks,
        }
    }
}

/// What was seen of a container that is being made: `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Setup {
    made: u64,
    /// What it is in, and since when.
    phase: Phase,
    since: u64,
    /// How long it was in each phase before; none where it was never in it.
    spent: [Option<u64>; Phase::ALL.len()],
    /// The program that it waits for, and the phase that goes on then.
    helper: Option<(u32, Phase)>,
}

impl Setup {
    const fn new(made: u64) -> Self {
        let spent = [None; Phase::ALL.len()];
        Self { made, phase: Phase::Cgroup, since: made, spent, helper: None }
    }

    /// A phase begins. Records of two processors may come in another order than they were made in.
    fn enter(&mut self, phase: Phase, at: u64) {
        let at = at.max(self.since);
        *self.spent[self.phase as usize].get_or_insert(0) += at - self.since;
        (self.phase, self.since) = (phase, at);
    }

    /// There is a process in it.
    fn first_process(&mut self, at: u64) {
        if self.phase == Phase::Cgroup {
            self.enter(Phase::Clone, at);
        }
    }

    /// A phase that goes on until another begins, unless a program is waited for.
    fn go_on_with(&mut self, phase: Phase, at: u64) {
        match &mut self.helper {
            Some((_, before)) => *before = phase,
            None if self.phase != phase => self.enter(phase, at),
            None => {}
        }
    }

    /// A call that is a phase of its own, after which what was before goes on, or `then`.
    fn passed(&mut self, phase: Phase, began: u64, ended: u64, then: Option<Phase>) {
        let before = self.phase;
        self.enter(phase, began);
        self.enter(then.unwrap_or(before), ended);
    }

    /// A program is executed beside it.
    fn helped(&mut self, pid: u32, program: &str, at: u64) {
        if self.helper.is_none() {
            self.helper = Some((pid, self.phase));
            self.enter(Phase::of_helper(program), at);
        }
    }

    /// A process has ended.
    fn ended(&mut self, pid: u32, at: u64) {
        if let Some((_, before)) = self.helper.take_if(|(helper, _)| *helper == pid) {
            self.enter(before, at);
        }
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

/// Of so many cgroups that a process made is known that it did: more than one container has in all hierarchies.
const MOST_OF_A_MAKER: usize = 4;

/// What was seen of all containers.
#[derive(Debug)]
pub struct Lives {
    /// Of cgroups that were made and in which nothing was started yet, by path.
    setups: HashMap<String, Setup>,
    /// The last few cgroups that each process made.
    makers: HashMap<u32, Vec<String>>,
    /// The container of each first process.
    firsts: HashMap<u32, String>,
    seen: HashMap<String, Life>,
    times: StartTimes,
}

impl Lives {
    /// Nothing seen yet; how long starts take goes into `times`.
    pub fn new(times: StartTimes) -> Self {
        Self {
            setups: HashMap::new(),
            makers: HashMap::new(),
            firsts: HashMap::new(),
            seen: HashMap::new(),
            times,
        }
    }

    /// How long it took from the making of the cgroup to the execution of the program.
    pub fn times(&self) -> &StartTimes {
        &self.times
    }

    /// What was seen of the container with this path.
    pub fn of(&self, path: &str) -> Life {
        self.seen.get(path).copied().unwrap_or_default()
    }

    /// Forgets all containers but those with these paths.
    pub fn keep<'a>(&mut self, paths: impl Iterator<Item = &'a str> + Clone) {
        let kept = paths.clone().filter(|path| self.seen.contains_key(*path)).count();
        if kept < self.seen.len() {
            let paths: HashSet<&str> = paths.collect();
            self.seen.retain(|path, _| paths.contains(path.as_str()));
        }
    }

    /// Takes in what a record tells; `before` and `after` are the role of its process before and after it.
    pub fn take(&mut self, record: &Record, attribution: &Attribution, before: Role, after: Role) {
        let header = record.header();
        let now = header.mono_ns;
        match record {
            Record::CgroupMkdir(made) => self.made(&text(&made.path), header),
            Record::CgroupRmdir(removed) => {
                self.setups.remove(&*text(&removed.path));
            }
            Record::CgroupAttach(moved) => {
                if let Some(setup) = self.setups.get_mut(&*text(&moved.path)) {
                    setup.first_process(now);
                }
            }
            Record::NewTask(_) => {
                if let Some(setup) = self.setups.get_mut(&*attribution.path) {
                    setup.first_process(now);
                }
            }
            Record::Mount(mount) if mount.result >= 0 => {
                let Some(setup) = self.setups.get_mut(&*attribution.path) else { return };
                let began = now.saturating_sub(mount.duration_ns);
                if mount.op == MountOp::PivotRoot as u32 {
                    setup.passed(Phase::Pivot, began, now, Some(Phase::Exec));
                } else if setup.phase != Phase::Exec {
                    // What is hidden from the container once it has its root, is part of that.
                    setup.go_on_with(Phase::Mounts, began);
                }
            }
            Record::Guard(guard) if guard.result >= 0 => self.guarded(guard, attribution),
            Record::Exec(exec) => {
                let program = text(&exec.filename);
                if after == Role::Hook {
                    if let Some(setup) = self.setups.get_mut(&*attribution.path) {
                        setup.helped(header.pid, &program, now);
                    }
                } else if before != Role::Workload && after == Role::Workload && header.ns_pid == 1
                {
                    self.started(header, attribution);
                } else if !program.starts_with("/proc/self/") {
                    // A runtime that executes itself anew is no helper, nor is what runs in the container.
                    self.of_maker(header.ppid, |path, setup| {
                        if path != &*attribution.path {
                            setup.helped(header.pid, &program, now);
                        }
                    });
                }
            }
            Record::Exit(exit) => self.exited(exit, attribution),
            _ => {}
        }
    }

    fn made(&mut self, path: &str, header: &Header) {
        if self.setups.len() >= MOST || self.makers.len() >= MOST {
            self.setups.clear();
            self.makers.clear();
        }
        self.setups.entry(path.to_owned()).or_insert(Setup::new(header.mono_ns));
        let paths = self.makers.entry(header.pid).or_default();
        if !paths.iter().any(|other| other == path) {
            if paths.len() >= MOST_OF_A_MAKER {
                paths.remove(0);
            }
            paths.push(path.to_owned());
        }
    }

    /// Does it with all that this process sets up.
    fn of_maker(&mut self, pid: u32, mut change: impl FnMut(&str, &mut Setup)) {
        for path in self.makers.get(&pid).into_iter().flatten() {
            if let Some(setup) = self.setups.get_mut(path) {
                change(path, setup);
            }
        }
    }

    fn guarded(&mut self, guard: &Guard, attribution: &Attribution) {
        let header = &guard.header;
        let now = header.mono_ns;
        let began = now.saturating_sub(guard.duration_ns);
        let event = |event: GuardEvent| guard.event == event as u32;
        if event(GuardEvent::IdMapWrite) || event(GuardEvent::RouteSocket) {
            let phase = if event(GuardEvent::IdMapWrite) { Phase::Userns } else { Phase::Network };
            // The runtime's, or its child's: a helper, or the container's first process.
            let pids = [header.pid, header.ppid];
            if let Some(maker) = pids.into_iter().find(|pid| self.makers.contains_key(pid)) {
                self.of_maker(maker, |_, setup| setup.go_on_with(phase, began));
            } else if let Some(setup) = self.setups.get_mut(&*attribution.path) {
                setup.go_on_with(phase, began);
            }
        } else if let Some(setup) = self.setups.get_mut(&*attribution.path) {
            if event(GuardEvent::Seccomp) {
                setup.passed(Phase::Seccomp, began, now, None);
            } else if event(GuardEvent::Chroot) && setup.phase == Phase::Mounts {
                // Instead of pivot_root.
                setup.enter(Phase::Exec, now);
            }
        }
    }

    /// The container's first process executes its program.
    fn started(&mut self, header: &Header, attribution: &Attribution) {
        let Some(container) = &attribution.container else { return };
        let path = &container.path;
        let life = self.seen.entry(path.clone()).or_default();
        life.starts += 1;
        life.spent = [None; Phase::ALL.len()];
        if let Some(mut setup) = self.setups.remove(path) {
            let seconds = |ns| Duration::from_nanos(ns).as_secs_f64();
            setup.enter(Phase::Exec, header.mono_ns);
            self.times.whole.observe(seconds(setup.since - setup.made));
            life.spent = setup.spent;
            for (phase, spent) in life.phases() {
                self.times.phases.with_label_values(&[phase.name()]).observe(seconds(spent));
            }
        }
        if self.firsts.len() >= MOST {
            self.firsts.clear();
        }
        self.firsts.insert(header.pid, path.clone());
    }

    fn exited(&mut self, exit: &Exit, attribution: &Attribution) {
        let header = &exit.header;
        if let Some(setup) = self.setups.get_mut(&*attribution.path) {
            setup.ended(header.pid, header.mono_ns);
        }
        self.of_maker(header.ppid, |_, setup| setup.ended(header.pid, header.mono_ns));
        self.makers.remove(&header.pid);
        let Some(path) = self.firsts.remove(&header.pid) else { return };
        let reason = match exit.cause {
            cause if cause == ExitCause::Oom as u32 => Reason::Oom,
            cause if cause == ExitCause::Signal as u32 => Reason::Signal,
            _ if exit.status == 0 => Reason::Exit,
            _ => Reason::Error,
        };
        self.seen.entry(path).or_default().exits[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_to_the_whole() {
        let mut setup = Setup::new(10);
        setup.first_process(15);
        setup.first_process(16);
        setup.go_on_with(Phase::Userns, 20);
        setup.go_on_with(Phase::Userns, 21);
        setup.go_on_with(Phase::Network, 24);
        setup.go_on_with(Phase::Mounts, 30);
        setup.helped(7, "/opt/hook", 40);
        setup.ended(8, 41);
        setup.ended(7, 50);
        setup.go_on_with(Phase::Mounts, 55);
        setup.passed(Phase::Pivot, 70, 75, Some(Phase::Exec));
        setup.passed(Phase::Seccomp, 80, 86, None);
        setup.enter(Phase::Exec, 100);
        let [cgroup, clone, userns, network, mounts, pivot, hooks, seccomp, exec] = setup.spent;
        assert_eq!([cgroup, clone, userns, network], [5, 5, 4, 6].map(Some));
        assert_eq!([mounts, pivot, hooks, seccomp, exec], [30, 5, 10, 6, 19].map(Some));
        assert_eq!(setup.spent.iter().flatten().sum::<u64>(), setup.since - setup.made);
    }

    #[test]
    fn what_was_not_seen_is_not_told() {
        let mut setup = Setup::new(10);
        setup.first_process(15);
        setup.go_on_with(Phase::Mounts, 12);
        setup.enter(Phase::Exec, 20);
        // A mount before there was a process: of another processor, whose record came later.
        assert_eq!(setup.spent[Phase::Clone as usize], Some(0));
        assert_eq!(setup.spent[Phase::Mounts as usize], Some(5));
        assert_eq!(setup.spent[Phase::Hooks as usize], None);
    }

    #[test]
    fn helpers_of_runtimes_are_no_hooks() {
        let mut setup = Setup::new(0);
        setup.first_process(1);
        setup.helped(5, "/usr/bin/newuidmap", 2);
        // What the helper itself does is within it, and what follows is known when it ends.
        setup.go_on_with(Phase::Userns, 3);
        setup.ended(5, 4);
        setup.helped(6, "/usr/bin/pasta", 6);
        setup.ended(6, 9);
        setup.go_on_with(Phase::Mounts, 9);
        setup.enter(Phase::Exec, 10);
        assert_eq!(setup.spent[Phase::Userns as usize], Some(4));
        assert_eq!(setup.spent[Phase::Network as usize], Some(3));
        assert_eq!(setup.spent[Phase::Hooks as usize], None);
    }
}
