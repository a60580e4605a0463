//! A container: created from a spec, started, waited for, signalled, removed.

use crate::cgroup::{self, Cgroups, Hierarchies};
use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use crate::init::{self, Inherited};
use crate::mount::clone_tree;
use crate::namespaces;
use crate::network::veth::{self, Endpoint};
use crate::network::{self, NetworkRequest};
use crate::plan::{self, PlanContext};
use crate::signal::SignalNumber;
use crate::spec::network_of;
use crate::state::{NetworkState, State, Status, now, process_stat};
use crate::store::{Journal, JournalNetwork, LockedFolder, Store};
use crate::sync::{self, FailureKind, Message, Report, Socket};
use crate::syscall::{Cloned, clone3, mount_idmap, pidfd_send_signal};
use crate::teardown;
use nix::sched::CloneFlags;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the caller says of a container, besides its spec.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Folder of the spec; the container's own folder if not given.
    pub bundle: Option<PathBuf>,
    /// Name that people gave; the id if not given.
    pub name: Option<String>,
    /// Image that the root filesystem was made from.
    pub image: String,
    /// Labels that people gave.
    pub labels: BTreeMap<String, String>,
    /// This process waits for the container, which ends with it.
    pub supervised: bool,
    /// The state goes away with the container.
    pub remove: bool,
    /// Standard output and error go to `container.log` in the container's folder, standard input is empty.
    pub log_output: bool,
}

/// A container that this process has created.
#[derive(Debug)]
pub struct Container {
    store: Store,
    id: ContainerId,
    folder: Option<LockedFolder>,
    state: State,
    socket: Socket,
    pid: i32,
    pidfd: OwnedFd,
    own_pid_namespace: bool,
    ready: bool,
}

impl Container {
    /// Creates container `id` from `spec`: everything is made, and its program waits for [`Container::start`].
    ///
    /// The caller must have one thread only. On failure nothing is left behind.
    pub fn create(
        store: &Store,
        id: &ContainerId,
        spec: &Spec,
        options: &CreateOptions,
    ) -> Result<Self> {
        let folder = store.folder(id);
        let bundle = options.bundle.clone().unwrap_or_else(|| folder.clone());
        let network = network_of(spec)?;
        let linux = spec.linux().as_ref();
        let cgroup_path = match linux.and_then(|linux| linux.cgroups_path().as_deref()) {
            Some(path) => cgroup::check_path(path)?,
            None => format!("{}/{id}", cgroup::DEFAULT_PARENT),
        };
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let cgroups = Cgroups::plan(&Hierarchies::read()?, &cgroup_path, resources)?;
        let plan = plan::plan(
            spec,
            &PlanContext {
                bundle: &bundle,
                cgroups: &cgroups,
                dies_with_runtime: options.supervised,
                wants_netlink: matches!(network, NetworkRequest::Bridge { .. }),
                extra_mounts: match network {
                    NetworkRequest::Bridge { .. } | NetworkRequest::Host => {
                        network::files::mounts(&folder)
                    }
                    NetworkRequest::None | NetworkRequest::Path(_) => Vec::new(),
                },
            },
        )?;

        let me = std::process::id().cast_signed();
        let my_ticks = process_stat(me).map_or(0, |stat| stat.start_ticks);
        let journal = Journal {
            version: 1,
            cgroups: cgroups.folders(),
            cgroup_parents: cgroups.parents(),
            network: match &network {
                NetworkRequest::Bridge { name, .. } => {
                    Some(JournalNetwork { bridge: name.clone(), veth: veth::name() })
                }
                _ => None,
            },
            creator_pid: me,
            creator_start_ticks: my_ticks,
        };
        let config = serde_json::to_vec(spec).expect("a spec has no map with non-string keys");
        let folder = store.reserve(id, &journal, &[("config.json", &config)])?;

        let state = State {
            version: 1,
            id: id.as_str().to_owned(),
            name: options.name.clone().unwrap_or_else(|| id.as_str().to_owned()),
            image: options.image.clone(),
            status: Status::Creating,
            pid: 0,
            pid_start_ticks: 0,
            supervisor_pid: if options.supervised { me } else { 0 },
            supervisor_start_ticks: if options.supervised { my_ticks } else { 0 },
            bundle,
            rootfs: plan.root.path.clone(),
            created: now(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            labels: options.labels.clone(),
            cgroups: Vec::new(),
            namespaces: BTreeMap::new(),
            network: Some(NetworkState {
                mode: network.mode().to_owned(),
                bridge: None,
                veth: None,
                address: None,
                gateway: None,
            }),
            command: spec
                .process()
                .as_ref()
                .and_then(|process| process.args().clone())
                .unwrap_or_default(),
            exit_code: None,
            finished: None,
            remove: options.remove,
        };
        let creation = Creation {
            store,
            id,
            plan: &plan,
            cgroups: &cgroups,
            network: &network,
            place: journal.network.as_ref(),
            state,
            log_output: options.log_output,
        };
        creation.run(spec, folder)
    }

    /// Executes the program, and returns once the kernel has.
    pub fn start(&mut self) -> Result<()> {
        let result = self.start_program();
        if result.is_err() {
            self.abandon();
        }
        result
    }

    fn start_program(&mut self) -> Result<()> {
        self.socket.send(&Message::Start, None).or_else(|error| match error.raw_os_error() {
            // It has failed already; it said why before it went.
            Some(libc::EPIPE | libc::ECONNRESET) => Ok(()),
            _ => Err(error).tried("start", self.id.as_str()),
        })?;
        loop {
            match self.socket.receive().tried("read from", "the container's first process")? {
                Some((Message::Failed(report), _)) => return Err(failure(report)),
                Some((Message::Ready, _)) => self.ready = true,
                Some(_) => {}
                None if self.ready => break,
                None => return Err(self.died()),
            }
        }
        self.state.status = Status::Running;
        if let Some(folder) = &self.folder {
            self.state.write(folder.path())?;
        }
        // From here on others may signal and remove the container.
        self.folder = None;
        Ok(())
    }

    /// Kills and reaps what was made, and removes it all.
    fn abandon(&mut self) {
        let _ = self.send(SignalNumber::KILL);
        let _ = self.reap(WaitPidFlag::empty());
        if let Some(folder) = self.folder.take() {
            // The first error is what the user needs; what could not be removed stays in the journal for gc.
            let _ = teardown::remove(&self.store, &self.id, folder);
        }
    }

    /// How the first process ended without a message.
    fn died(&self) -> Error {
        let how = match self.reap(WaitPidFlag::empty()) {
            Ok(Some(code)) if code > 128 => format!("by signal {}", code - 128),
            Ok(Some(code)) => format!("with exit code {code}"),
            _ => "in an unknown way".to_owned(),
        };
        Error::InitDied { how }
    }

    /// The id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Host pid of the first process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What state.json says.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether the first process is pid 1 of a pid namespace of its own.
    pub(crate) fn has_own_pid_namespace(&self) -> bool {
        self.own_pid_namespace
    }

    /// Sends `signal` to the first process; one that has ended is no error.
    pub fn send(&self, signal: SignalNumber) -> Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.tried("signal container", self.id.as_str()),
        }
    }

    /// The exit code of the first process as a shell gives it, if it has ended.
    pub fn try_wait(&self) -> Result<Option<i32>> {
        self.reap(WaitPidFlag::WNOHANG)
    }

    fn reap(&self, flags: WaitPidFlag) -> Result<Option<i32>> {
        loop {
            let status = waitid(Id::PIDFd(self.pidfd.as_fd()), flags | WaitPidFlag::WEXITED);
            return match status {
                Ok(WaitStatus::Exited(_, code)) => Ok(Some(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(128 + signal as i32)),
                Ok(_) => Ok(None),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => Err(error).tried("wait for container", self.id.as_str()),
            };
        }
    }

    /// Takes away what a container that has ended used: cgroups, network; and its state, if it was created to be
    /// removed. Otherwise its state stays, with the exit code, until [`delete`].
    pub fn finish(mut self, exit_code: i32) -> Result<()> {
        let folder = match self.store.lock(&self.id) {
            Ok(folder) => folder,
            // Somebody deleted it by force.
            Err(Error::DoesNotExist { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.state.remove {
            return teardown::remove(&self.store, &self.id, folder);
        }
        let released = teardown::release(&self.store, &self.id, folder.path());
        self.state.status = Status::Stopped;
        self.state.pid = 0;
        self.state.exit_code = Some(exit_code);
        self.state.finished = Some(now());
        self.state.write(folder.path())?;
        released
    }
}

/// A container in the making.
struct Creation<'a> {
    store: &'a Store,
    id: &'a ContainerId,
    plan: &'a init::InitPlan,
    cgroups: &'a Cgroups,
    network: &'a NetworkRequest,
    place: Option<&'a JournalNetwork>,
    state: State,
    log_output: bool,
}

impl Creation<'_> {
    fn run(mut self, spec: &Spec, folder: LockedFolder) -> Result<Container> {
        let mut process = None;
        match self.make(spec, folder.path(), &mut process) {
            Ok(()) => {}
            Err(error) => {
                if let Some(process) = process {
                    let FirstProcess { pid: _, pidfd, socket: _ } = process;
                    let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                    let _ = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED);
                }
                // The first error is what the user needs; what could not be removed stays in the journal for gc.
                let _ = teardown::remove(self.store, self.id, folder);
                return Err(error);
            }
        }
        let process = process.expect("make succeeded");
        Ok(Container {
            store: self.store.clone(),
            id: self.id.clone(),
            folder: Some(folder),
            state: self.state,
            socket: process.socket,
            pid: process.pid,
            pidfd: process.pidfd,
            own_pid_namespace: self.plan.namespaces.has_new(CloneFlags::CLONE_NEWPID),
            ready: false,
        })
    }

    fn make(
        &mut self,
        spec: &Spec,
        folder: &Path,
        process: &mut Option<FirstProcess>,
    ) -> Result<()> {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let endpoint = self.join_network(folder)?;
        self.state.cgroups = self.cgroups.make(resources)?;
        // Before the first clone: an observer can name it by the cgroup ids.
        self.state.write(folder)?;
        let first = process.insert(self.clone_first_process(folder)?);
        if self.plan.namespaces.has_new(CloneFlags::CLONE_NEWUSER) {
            self.plan.namespaces.write_maps(first.pid)?;
            let tree = self.idmapped_root(first.pid)?;
            let fd = tree.as_ref().map(AsRawFd::as_raw_fd);
            // If it is gone, the next read says why.
            let _ = first.socket.send(&Message::IdsMapped, fd);
        }
        loop {
            match first.socket.receive().tried("read from", "the container's first process")? {
                Some((Message::Joined, netlink)) => {
                    if let (Some(endpoint), Some(netlink)) = (&endpoint, netlink) {
                        // Meanwhile the first process mounts.
                        veth::connect(endpoint, first.pid, netlink)?;
                    }
                    break;
                }
                Some((Message::Failed(report), _)) => return Err(failure(report)),
                Some(_) => {}
                None => {
                    return Err(Error::InitDied { how: "early".to_owned() });
                }
            }
        }
        self.state.pid = first.pid;
        self.state.pid_start_ticks = process_stat(first.pid).map_or(0, |stat| stat.start_ticks);
        self.state.namespaces = namespaces::inodes(first.pid);
        self.state.write(folder)
    }

    /// Gets an address on the bridge, which is made if need be, and writes the files that tell the container of it.
    fn join_network(&mut self, folder: &Path) -> Result<Option<Endpoint>> {
        let hostname = self.plan.hostname.as_deref().unwrap_or(self.id.as_str());
        match (self.network, self.place) {
            (NetworkRequest::Bridge { subnet, .. }, Some(place)) => {
                let endpoint =
                    network::acquire(self.store, self.id, &place.bridge, *subnet, &place.veth)?;
                network::files::write(folder, hostname, Some(endpoint.address))?;
                self.state.network = Some(NetworkState {
                    mode: self.network.mode().to_owned(),
                    bridge: Some(endpoint.bridge.clone()),
                    veth: Some(endpoint.veth.clone()),
                    address: Some(format!("{}/{}", endpoint.address, endpoint.subnet.prefix())),
                    gateway: Some(endpoint.subnet.gateway().to_string()),
                });
                Ok(Some(endpoint))
            }
            (NetworkRequest::Host, _) => {
                network::files::write(folder, hostname, None)?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn clone_first_process(&self, folder: &Path) -> Result<FirstProcess> {
        let (ours, theirs) = sync::pair().tried("make", "socket pair")?;
        let flags = self.plan.namespaces.clone_flags();
        let stdio = self.log_output.then(|| open_log(&folder.join(LOG))).transpose()?;
        let unified = self.cgroups.open_unified()?;
        let mut joins = self.cgroups.open_joins(false)?;
        let mut cloned = clone3(flags, unified.as_ref().map(AsFd::as_fd));
        if let (Err(error), Some(_)) = (&cloned, &unified)
            && matches!(error.raw_os_error(), Some(libc::E2BIG | libc::EINVAL | libc::EOPNOTSUPP))
        {
            // Before Linux 5.7 there is no CLONE_INTO_CGROUP: the process writes itself into it.
            joins = self.cgroups.open_joins(true)?;
            cloned = clone3(flags, None);
        }
        let cloned = cloned.tried_hint(
            "clone3",
            "namespaces of the container",
            "user.max_*_namespaces sysctls and the pids limit of the runtime's own cgroup bound it; \
             without root a user namespace is needed",
        )?;
        match cloned {
            Cloned::Child => {
                drop(ours);
                init::main(self.plan, Inherited { socket: theirs, cgroups: joins, stdio })
            }
            Cloned::Parent { pid, pidfd } => Ok(FirstProcess { pid, pidfd, socket: ours }),
        }
    }

    /// A copy of the root filesystem's mounts, owned as the user namespace of `pid` sees it; none where ids are not
    /// shifted, or where the filesystem cannot do it (then its files belong to unmapped ids).
    fn idmapped_root(&self, pid: i32) -> Result<Option<OwnedFd>> {
        if !self.plan.namespaces.shifts_ids() || !self.plan.namespaces.may_set_groups {
            return Ok(None);
        }
        let path = &self.plan.root.path;
        let namespace = PathBuf::from(format!("/proc/{pid}/ns/user"));
        let namespace = File::open(&namespace).tried("open", &namespace)?;
        let Ok(tree) = clone_tree(rustix::fs::CWD, path.as_path(), true) else { return Ok(None) };
        Ok(mount_idmap(tree.as_fd(), namespace.as_fd()).is_ok().then_some(tree))
    }
}

/// The first process, as the runtime holds it.
struct FirstProcess {
    pid: i32,
    pidfd: OwnedFd,
    socket: Socket,
}

/// The file that holds the output of a detached container, in its folder.
const LOG: &str = "container.log";

fn open_log(path: &Path) -> Result<[OwnedFd; 3]> {
    let null = File::open("/dev/null").tried("open", "/dev/null")?;
    let log =
        File::options().create(true).append(true).mode(0o600).open(path).tried("create", path)?;
    let again = log.try_clone().tried("duplicate", path)?;
    Ok([null.into(), log.into(), again.into()])
}

/// A failure that the first process told.
fn failure(report: Report) -> Error {
    let source = io::Error::from_raw_os_error(report.errno);
    let reason = |source: io::Error| {
        if report.hint.is_empty() {
            source.to_string()
        } else {
            format!("{source} ({})", report.hint)
        }
    };
    match report.kind {
        FailureKind::NotFound => {
            Error::ProgramNotFound { reason: reason(source), program: report.on }
        }
        FailureKind::NotExecutable => {
            Error::ProgramNotExecutable { reason: reason(source), program: report.on }
        }
        FailureKind::SetUp => {
            Error::Init { step: report.step, on: report.on, why: source, hint: report.hint }
        }
    }
}

/// Sends `signal` to the first process of container `id`.
pub fn kill(store: &Store, id: &ContainerId, signal: SignalNumber) -> Result<()> {
    let state = store.state(id)?;
    let not_running =
        || Error::NotRunning { id: state.id.clone(), status: state.observed_status().as_str() };
    let pid = Pid::from_raw(state.pid).ok_or_else(not_running)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| not_running())?;
    // With the descriptor held the pid cannot be reused any more: if it is the container's now, it stays so.
    if !state.is_alive() {
        return Err(not_running());
    }
    match pidfd_send_signal(pidfd.as_fd(), signal.number()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(not_running()),
        result => result.tried("signal container", id.as_str()),
    }
}

/// Removes container `id`: one that has stopped, or with `force` any, killing its processes.
///
/// With `force` a container that does not exist is no error.
pub fn delete(store: &Store, id: &ContainerId, force: bool) -> Result<()> {
    let folder = match store.lock(id) {
        Ok(folder) => folder,
        Err(Error::DoesNotExist { .. }) if force => return Ok(()),
        Err(error) => return Err(error),
    };
    match State::read(folder.path()) {
        Ok(Some(state)) => {
            let status = state.observed_status();
            if status != Status::Stopped && !force {
                return Err(Error::StillRunning { id: state.id, status: status.as_str() });
            }
        }
        // Whoever was creating it is gone, for the lock is ours.
        Ok(None) => {}
        Err(_) if force => {}
        Err(error) => return Err(error),
    }
    teardown::remove_thoroughly(store, id, folder)
}
