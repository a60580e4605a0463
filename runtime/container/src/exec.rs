//! `exec`: one more process in a running container.

use crate::console::{self, Relay};
use crate::container::{check_descriptors, failure, oci_state, reap, stored_spec};
use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use crate::init::{self, ExitOnDrop, Failure, ProcessPlan, Step};
use crate::namespaces::{CLONE_NEWTIME, KINDS};
use crate::plan;
use crate::seccomp::listener;
use crate::signal::SignalNumber;
use crate::state::{State, Status, write_atomically};
use crate::store::{Journal, Store};
use crate::supervise::Supervised;
use crate::sync::{self, Message, Socket};
use crate::syscall::{Cloned, clone3, pidfd_send_signal};
use crate::units::number_list;
use nix::sched::{CloneFlags, CpuSet};
use nix::sys::wait::WaitPidFlag;
use oci_spec::runtime::{ExecCPUAffinity, LinuxSeccomp, Process};
use rustix::fs::Mode;
use std::convert::Infallible;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the caller says, besides the process.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// Unix socket that gets the master of the terminal; without it this process holds the terminal.
    pub console_socket: Option<PathBuf>,
    /// File for the host pid of the process.
    pub pid_file: Option<PathBuf>,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// How many of them are of socket activation (`sd_listen_fds(3)`).
    pub listen_fds: u32,
    /// Nobody waits for the process.
    pub detach: bool,
    /// Go on although the container is frozen: the process starts when it is thawed.
    pub ignore_paused: bool,
    /// Cgroup below the container's own that the process is put into.
    pub cgroup: Option<PathBuf>,
}

/// A process that [`exec`] has started; a child of this process.
#[derive(Debug)]
pub struct ExecProcess {
    pid: i32,
    pidfd: OwnedFd,
    terminal: Option<Relay>,
}

impl ExecProcess {
    /// Shows what its terminal still holds, and restores the caller's.
    pub fn finish(self) {
        if let Some(terminal) = self.terminal {
            terminal.finish();
        }
    }
}

impl Supervised for ExecProcess {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn is_shielded(&self) -> bool {
        // Only pid 1 is.
        false
    }

    fn send(&self, signal: SignalNumber) -> Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.tried("signal process", self.pid.to_string()),
        }
    }

    fn try_wait(&self) -> Result<Option<i32>> {
        reap(&self.pidfd, WaitPidFlag::WNOHANG).tried("wait for process", self.pid.to_string())
    }

    fn terminal(&self) -> Option<&Relay> {
        self.terminal.as_ref()
    }
}

/// The process of container `id`, as its spec has it: what [`exec`] starts from.
pub fn process_of(store: &Store, id: &ContainerId) -> Result<Process> {
    // A container that does not exist is told as such, not by its file.
    store.state(id)?;
    let spec = stored_spec(&store.folder(id))?;
    Ok(spec.process().clone().unwrap_or_default())
}

/// What the new process needs, worked out before it exists.
struct ExecPlan {
    process: ProcessPlan,
    preserve_fds: u32,
    /// `tasks` or `cgroup.procs` of each cgroup, opened for writing.
    cgroups: Vec<OwnedFd>,
    /// The seccomp profile.
    profile: Option<LinuxSeccomp>,
    /// The unified cgroup, for `CLONE_INTO_CGROUP`.
    unified: Option<Unified>,
    /// Namespaces to enter, the user namespace first.
    namespaces: Vec<(CloneFlags, OwnedFd)>,
    /// Whether one of them is a user namespace.
    enters_user: bool,
    /// Whether the runtime itself has to enter that one, for want of other rights.
    runtime_enters_user: bool,
    /// The CPUs that the process is to run on.
    cpus: Option<CpuSet>,
}

/// Where in the unified hierarchy the new process is to be.
struct Unified {
    /// The container's own cgroup, or the one below it that was asked for.
    folder: PathBuf,
    /// Whether it goes where the first process is now, if that is below. A container that divides its cgroup, as systemd
    /// does, goes to one below, hands controllers down, and can do so only while no process is in the cgroup itself
    /// (cgroups(7), "no internal processes"). One that came there in between would take its children's limits from it for
    /// as long as it lives.
    follows: bool,
}

impl Unified {
    fn place(&self, state: &State) -> PathBuf {
        let first = if self.follows { cgroup_of_first(state, &self.folder) } else { None };
        first.unwrap_or_else(|| self.folder.clone())
    }

    /// clone3(2) into it.
    fn clone3(&self, state: &State) -> Result<Cloned> {
        // Each time that the first process has gone elsewhere meanwhile; one that never rests is no reason to go on for ever.
        for _ in 0..8 {
            let place = self.place(state);
            let folder = open_folder(&place);
            let cloned = folder.and_then(|folder| {
                clone3(0, Some(folder.as_fd())).tried("clone3 into cgroup", &place)
            });
            if matches!(cloned, Ok(Cloned::Child)) {
                return cloned;
            }
            let now = self.place(state);
            if now == place {
                return cloned;
            }
            if let Ok(Cloned::Parent { pid, .. }) = &cloned {
                // Whoever goes takes along those that it sees there: either it saw the new process, or this sees where it went.
                let _ = fs::write(now.join("cgroup.procs"), pid.to_string());
                return cloned;
            }
        }
        clone3(0, Some(open_folder(&self.folder)?.as_fd()))
            .tried("clone3 into cgroup", &self.folder)
    }
}

/// Starts `process` in container `id`; returns once its program was executed.
///
/// The caller must have one thread only.
pub fn exec(
    store: &Store,
    id: &ContainerId,
    process: &Process,
    options: &ExecOptions,
) -> Result<ExecProcess> {
    let terminal = process.terminal() == Some(true);
    console::check(terminal, options.console_socket.as_deref(), options.detach)?;
    check_descriptors(options.preserve_fds)?;
    let state = store.state(id)?;
    let status = state.observed_status();
    let fine = matches!(status, Status::Created | Status::Running)
        || status == Status::Paused && options.ignore_paused;
    if !fine {
        return Err(Error::WrongStatus {
            tried: "exec in",
            id: state.id,
            status: status.as_str(),
            wanted: "running",
        });
    }
    let initial = affinity(process, ExecCPUAffinity::initial)?;
    let plan = plan(store, id, &state, process, options)?;
    if let Some(cpus) = initial {
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus)
            .tried("set CPU affinity", "execCPUAffinity.initial")?;
    }
    // The pid namespace is entered by the children of whoever calls setns: so it is this process that calls it.
    for (kind, fd) in &plan.namespaces {
        let early = *kind == CloneFlags::CLONE_NEWPID
            // Without privileges of one's own only the user namespace gives the right to enter the others.
            || *kind == CloneFlags::CLONE_NEWUSER && plan.runtime_enters_user;
        if early {
            nix::sched::setns(fd.as_fd(), *kind).tried("enter namespace of", id.as_str())?;
        }
    }
    if !state.is_alive() {
        // The namespaces may be another process's, whose pid is the same.
        return Err(Error::NotRunning { id: state.id, status: Status::Stopped.as_str() });
    }
    let (ours, theirs) = sync::pair().tried("make", "socket pair")?;
    let cloned = match &plan.unified {
        Some(unified) => unified.clone3(&state),
        None => clone3(0, None).tried("clone3", id.as_str()),
    };
    let (pid, pidfd) = match cloned? {
        Cloned::Child => {
            drop(ours);
            main(&plan, &theirs)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let mut process = ExecProcess { pid, pidfd, terminal: None };
    match follow(&mut process, &ours, &state, plan.profile.as_ref(), options) {
        Ok(()) => Ok(process),
        Err(error) => {
            let _ = process.send(SignalNumber::KILL);
            let _ = reap(&process.pidfd, WaitPidFlag::empty());
            Err(error)
        }
    }
}

fn follow(
    process: &mut ExecProcess,
    socket: &Socket,
    state: &State,
    profile: Option<&LinuxSeccomp>,
    options: &ExecOptions,
) -> Result<()> {
    if let Some(path) = &options.pid_file {
        write_atomically(path, process.pid.to_string().as_bytes(), 0o644)?;
    }
    loop {
        match socket.receive().tried("read from", "the new process")? {
            Some((Message::Failed(report), _)) => return Err(failure(report)),
            Some((Message::Terminal, Some(master))) => match &options.console_socket {
                Some(path) => console::send(path, master.as_fd())?,
                None => process.terminal = Some(Relay::start(master)?),
            },
            Some((Message::Listener, Some(fd))) => {
                if let Some(profile) = profile {
                    listener::hand_over(profile, &oci_state(state), process.pid, fd.as_fd())?;
                }
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

fn plan(
    store: &Store,
    id: &ContainerId,
    state: &State,
    process: &Process,
    options: &ExecOptions,
) -> Result<ExecPlan> {
    let folder = store.folder(id);
    let spec = stored_spec(&folder)?;
    let linux = spec.linux().clone().unwrap_or_default();
    let mut process = process.clone();
    if process.capabilities().is_none() {
        // Those of the container, as with runc.
        let own = spec.process().as_ref().and_then(|own| own.capabilities().clone());
        process.set_capabilities(own);
    }
    let below = options.cgroup.as_deref().unwrap_or(Path::new(""));
    if below.components().any(|part| part == std::path::Component::ParentDir) {
        let value = below.display().to_string();
        return Err(Error::invalid("--cgroup", value, "it lies below the container's own cgroup"));
    }
    let below = below.strip_prefix("/").unwrap_or(below);
    let (mut cgroups, mut unified) = (Vec::new(), None);
    let journal = Journal::read(&folder)?;
    if let Some(scope) = &journal.scope {
        scope.manager.take_in_caller()?;
    }
    for folder in journal.cgroups {
        let folder = folder.join(below);
        let tasks = folder.join("tasks");
        if tasks.exists() {
            let file = File::options().write(true).open(&tasks).tried("open cgroup", &tasks)?;
            cgroups.push(file.into());
        } else {
            unified = Some(Unified { folder, follows: options.cgroup.is_none() });
        }
    }
    let mut namespaces = Vec::new();
    for kind in ["user"]
        .into_iter()
        .chain(KINDS.into_iter().filter(|kind| !matches!(*kind, "user" | "mnt")))
        .chain(["mnt"])
    {
        let path = PathBuf::from(format!("/proc/{}/ns/{kind}", state.pid));
        let own = fs::metadata(format!("/proc/self/ns/{kind}"));
        let file = match File::open(&path) {
            Ok(file) => file,
            // A kernel without this kind.
            Err(_) if own.is_err() => continue,
            Err(error) => return Err(error).tried("open namespace", &path),
        };
        let theirs = file.metadata().tried("stat", &path)?;
        if own.is_ok_and(|own| (own.dev(), own.ino()) == (theirs.dev(), theirs.ino())) {
            continue;
        }
        namespaces.push((flag(kind), file.into()));
    }
    Ok(ExecPlan {
        process: ProcessPlan { listen_fds: options.listen_fds, ..plan::program(&process, &linux)? },
        preserve_fds: options.preserve_fds,
        profile: linux.seccomp().clone(),
        cgroups,
        unified,
        enters_user: namespaces.iter().any(|(kind, _)| *kind == CloneFlags::CLONE_NEWUSER),
        runtime_enters_user: !rustix::process::geteuid().is_root(),
        cpus: affinity(&process, ExecCPUAffinity::cpu_affinity_final)?,
        namespaces,
    })
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    Ok(file.tried("open cgroup", path)?.into())
}

/// The unified cgroup that the first process is in, where that is one below `folder`, the container's own.
fn cgroup_of_first(state: &State, folder: &Path) -> Option<PathBuf> {
    let own = state.cgroups.iter().find(|one| one.hierarchy == "unified")?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", state.pid)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = path.strip_prefix(own.path.as_str())?.strip_prefix('/')?;
    (!below.is_empty()).then(|| folder.join(below))
}

/// One of the two lists of `process.execCPUAffinity`.
fn affinity(
    process: &Process,
    which: fn(&ExecCPUAffinity) -> &Option<String>,
) -> Result<Option<CpuSet>> {
    let list = process.exec_cpu_affinity().as_ref().and_then(|both| which(both).as_deref());
    let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(None) };
    let mut set = CpuSet::new();
    for cpu in number_list("process.execCPUAffinity", list)? {
        set.set(cpu).map_err(|_| {
            Error::invalid("process.execCPUAffinity", list, "no machine has a CPU of that number")
        })?;
    }
    Ok(Some(set))
}

fn flag(kind: &str) -> CloneFlags {
    match kind {
        "mnt" => CloneFlags::CLONE_NEWNS,
        "net" => CloneFlags::CLONE_NEWNET,
        "user" => CloneFlags::CLONE_NEWUSER,
        "pid" => CloneFlags::CLONE_NEWPID,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "uts" => CloneFlags::CLONE_NEWUTS,
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        _ => CLONE_NEWTIME,
    }
}

/// Runs in the new process; never returns.
fn main(plan: &ExecPlan, socket: &Socket) -> ! {
    let _guard = ExitOnDrop;
    match enter_and_execute(plan, socket) {
        Ok(never) => match never {},
        Err(failure) => init::fail(socket, failure),
    }
}

fn enter_and_execute(plan: &ExecPlan, socket: &Socket) -> Result<Infallible, Failure> {
    // A process of the container may have the same user and see this one in its pid namespace: it must not be able to
    // trace it, or open what it holds, before it has given up its rights (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .step("make undumpable", "process")?;
    init::join_cgroups(&plan.cgroups)?;
    init::reset_signals()?;
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().step("setsid", "session")?;
    let labels = plan.process.labels.open()?;
    if let Some(cpus) = &plan.cpus {
        // In the container's cpuset by now.
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), cpus)
            .step("set CPU affinity", "execCPUAffinity.final")?;
    }
    if let Some(adjust) = plan.process.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", adjust.to_string())
            .step("write", "/proc/self/oom_score_adj")?;
    }
    for (kind, fd) in &plan.namespaces {
        let done = *kind == CloneFlags::CLONE_NEWPID
            || *kind == CloneFlags::CLONE_NEWUSER && plan.runtime_enters_user;
        // Entering the user namespace of one's own fails, and the runtime has entered it already.
        if !done {
            nix::sched::setns(fd.as_fd(), *kind).step("enter", "namespace")?;
        }
    }
    if plan.enters_user {
        init::become_root_inside()?;
    }
    if let Some(terminal) = plan.process.terminal {
        let master = console::open(terminal, None)?;
        socket.send(&Message::Terminal, Some(master.as_raw_fd())).step("send", "terminal")?;
    }
    let env = init::become_user(&plan.process, socket)?;
    init::execute(&plan.process, &env, socket, &labels, plan.preserve_fds)
}
