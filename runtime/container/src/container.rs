//! A container: created from a spec, started, waited for, signalled, removed.

use crate::beside::Beside;
use crate::cgroup::{self, CgroupDriver, Cgroups, Hierarchies};
use crate::console::{self, Relay};
use crate::error::{Error, Result, Tried};
use crate::explain;
use crate::freeze;
use crate::hooks::{self, OciState};
use crate::id::ContainerId;
use crate::idmapped;
use crate::init::{self, Inherited};
use crate::layers::Layers;
use crate::log::{self, LOG_BYTES, Log};
use crate::mount::{Mount, clone_tree};
use crate::namespaces;
use crate::network::devices::{self, Device};
use crate::network::userspace::Carried;
use crate::network::veth::{self, Endpoint, Place};
use crate::network::{self, Details, NetworkRequest};
use crate::notify::{self, Notifications};
use crate::plan::{self, PlanContext};
use crate::restart::RestartPolicy;
use crate::seccomp::listener;
use crate::signal::SignalNumber;
use crate::spec::network_of;
use crate::state::{NetworkState, State, Status, now, process_stat, write_atomically};
use crate::store::{CONFIG, Journal, JournalNetwork, LockedFolder, Store};
use crate::supervise::Supervised;
use crate::sync::{self, FailureKind, Message, Report, Socket};
use crate::syscall::{Cloned, clone3, mount_idmap, pidfd_send_signal};
use crate::systemd::Scope;
use crate::teardown::{self, First};
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// How many bytes of it are kept, 0 for all; [`LOG_BYTES`] if not given.
    pub log_bytes: Option<u64>,
    /// Who makes its cgroups.
    pub cgroups: CgroupDriver,
    /// The runtime goes before the program is started: another process calls [`start`].
    pub leave: bool,
    /// Unix socket that gets the master of the terminal; without it this process holds the terminal.
    pub console_socket: Option<PathBuf>,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// How many of them are of socket activation, which the program is told of (`sd_listen_fds(3)`).
    pub listen_fds: u32,
    /// The caller's session keyring is the container's, too (`--no-new-keyring`).
    pub keeps_keyring: bool,
    /// File for the host pid of the first process.
    pub pid_file: Option<PathBuf>,
    /// The root filesystem is made of these; the spec's `root.path` is [`Layers::root`].
    pub layers: Option<Layers>,
    /// When its supervisor starts it again.
    pub restart: RestartPolicy,
    /// How often it has done so.
    pub restart_count: u32,
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
    spec: Box<Spec>,
    console_socket: Option<PathBuf>,
    terminal: Option<Relay>,
    has_hooks: bool,
    log_output: bool,
    log: Option<Log>,
    output: Option<OwnedFd>,
    again: bool,
    carried: Option<Carried>,
    notified: Option<Beside>,
}

impl Container {
    /// Creates container `id` from `spec`: everything is made, and its program waits for [`Container::start`].
    ///
    /// The caller must have one thread only. On failure nothing is left behind. A spec is large: where it lies is passed on, so that the
    /// stack does not grow by a copy of it with each call.
    pub fn create(
        store: &Store,
        id: &ContainerId,
        spec: Box<Spec>,
        options: &CreateOptions,
    ) -> Result<Self> {
        Self::create_in(store, id, spec, options, None)
    }

    /// [`Self::create`]; with `existing`, the folder of a container that has stopped, which stays on failure.
    pub(crate) fn create_in(
        store: &Store,
        id: &ContainerId,
        mut spec: Box<Spec>,
        options: &CreateOptions,
        existing: Option<LockedFolder>,
    ) -> Result<Self> {
        add_default_devices(&mut spec);
        if existing.is_none() {
            notify::announce(&mut spec);
        }
        let own_spec = spec;
        let spec = &*own_spec;
        let folder = store.folder(id);
        let bundle = options.bundle.clone().unwrap_or_else(|| folder.clone());
        let network = requested_network(spec)?;
        check_supervised(&network, options)?;
        let devices = devices::of(spec)?;
        let details = Details::of(spec)?;
        let terminal = spec.process().as_ref().and_then(Process::terminal) == Some(true);
        console::check(terminal, options.console_socket.as_deref(), options.leave)?;
        check_descriptors(options.preserve_fds)?;
        let linux = spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let cgroups = plan_cgroups(options.cgroups, spec, id, resources)?;
        let plan = plan::plan(
            spec,
            &PlanContext {
                bundle: &bundle,
                cgroups: &cgroups,
                dies_with_runtime: options.supervised,
                oci_state: oci_state_of(spec, id, &bundle),
                preserve_fds: options.preserve_fds,
                listen_fds: options.listen_fds,
                keeps_keyring: options.keeps_keyring,
                layers: options.layers.as_ref(),
                wants_netlink: matches!(network, NetworkRequest::Bridge { .. })
                    || !devices.is_empty(),
                extra_mounts: network_files(store, &network, &details, &folder)
                    .into_iter()
                    .chain(notify::mount(spec, &folder))
                    .collect(),
            },
        )?;

        let creator = own_process();
        let journal = journal(&cgroups, &network, options, creator);
        let config = serde_json::to_vec(spec).expect("a spec has no map with non-string keys");
        let again = existing.is_some();
        let folder = match existing {
            Some(folder) => {
                journal.write(folder.path())?;
                folder
            }
            None => store.reserve(id, &journal, &[(CONFIG, &config)])?,
        };

        let state = first_state(id, spec, options, &network, (bundle, &plan.root.path), creator);
        let creation = Creation {
            store,
            id,
            plan: &plan,
            cgroups: &cgroups,
            network: &network,
            devices: &devices,
            details: &details,
            place: journal.network.as_ref(),
            state,
            options,
            again,
            carried: None,
        };
        creation.run(own_spec, folder)
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
        if self.has_hooks && !self.ready {
            self.wait_until_ready()?;
        }
        // A terminal's relay has it already.
        if self.log_output && self.terminal.is_none() {
            let output = self.output.take();
            self.log = Some(self.open_log(output)?);
        }
        if let Some(notifications) = Notifications::open(&self.store.folder(&self.id))? {
            self.notified = Some(notifications.follow()?);
        }
        self.socket.send(&Message::Start, None).or_else(|error| match error.raw_os_error() {
            // It has failed already; it said why before it went.
            Some(libc::EPIPE | libc::ECONNRESET) => Ok(()),
            _ => Err(error).tried("start", self.id.as_str()),
        })?;
        loop {
            match self.socket.receive().tried("read from", "the container's first process")? {
                Some((Message::Failed(report), _)) => return Err(failure(report)),
                None if self.ready => {
                    explain::executed();
                    break;
                }
                None => return Err(self.died()),
                Some((message, fd)) => self.heed(&message, fd)?,
            }
        }
        self.state.status = Status::Running;
        // What has ended by now runs no more: its end is what is written next.
        let is_running = self.reap(WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)?.is_none();
        if let (Some(folder), true) = (&self.folder, is_running) {
            if self.state.pid_start_ticks == 0 {
                look_at_first_process(&mut self.state);
            }
            self.state.write(folder.path())?;
        }
        // From here on others may signal and remove the container.
        self.folder = None;
        after_start(&self.spec, &self.state);
        Ok(())
    }

    /// Waits until the first process is set up. [`Self::start`] does so, too.
    pub fn prepare(&mut self) -> Result<()> {
        let result = self.wait_until_ready();
        if result.is_err() {
            self.abandon();
        }
        result
    }

    /// Waits until the first process is set up.
    fn wait_until_ready(&mut self) -> Result<()> {
        while !self.ready {
            match self.socket.receive().tried("read from", "the container's first process")? {
                Some((Message::Failed(report), _)) => return Err(failure(report)),
                Some((message, fd)) => self.heed(&message, fd)?,
                None => return Err(self.died()),
            }
        }
        Ok(())
    }

    fn open_log(&self, output: Option<OwnedFd>) -> Result<Log> {
        let keep = self.state.log_bytes.unwrap_or(LOG_BYTES);
        Log::open(&self.store.folder(&self.id).join(LOG), keep, output)
    }

    /// Does what a message of the first process asks for.
    fn heed(&mut self, message: &Message, fd: Option<OwnedFd>) -> Result<()> {
        match (message, fd) {
            (Message::Ready, _) => self.ready = true,
            (Message::Step(step), _) => explain::add(step.clone()),
            (Message::Terminal, Some(master)) => match &self.console_socket {
                Some(path) => console::send(path, master.as_fd())?,
                None if self.log_output => {
                    self.terminal = Some(Relay::into(master, self.open_log(None)?)?);
                }
                None => self.terminal = Some(Relay::start(master)?),
            },
            (Message::Listener, Some(fd)) => {
                let state = OciState {
                    pid: self.pid,
                    ..oci_state_of(&self.spec, &self.id, &self.state.bundle)
                };
                hand_over(&self.spec, &state, fd.as_fd())?;
            }
            (Message::Mounted, _) => {
                let state = OciState {
                    pid: self.pid,
                    status: "creating",
                    ..oci_state_of(&self.spec, &self.id, &self.state.bundle)
                };
                for (kind, hook) in hooks::before_pivot(&self.spec) {
                    hooks::run(hook, &state, Some(&self.state.bundle))
                        .map_err(|failure| failure.into_error(kind, hook.path()))?;
                }
                // If it is gone, the next read says why.
                let _ = self.socket.send(&Message::Resume, None);
            }
            _ => {}
        }
        Ok(())
    }

    /// Leaves the container to whoever calls [`start`]: it is set up, and its first process waits.
    pub fn leave(mut self, pid_file: Option<&Path>) -> Result<()> {
        let result = self.try_leave(pid_file);
        if result.is_err() {
            self.abandon();
        }
        result
    }

    fn try_leave(&mut self, pid_file: Option<&Path>) -> Result<()> {
        self.wait_until_ready()?;
        self.state.status = Status::Created;
        if let Some(folder) = &self.folder {
            self.state.write(folder.path())?;
        }
        self.write_pid(pid_file)?;
        self.folder = None;
        Ok(())
    }

    fn write_pid(&self, path: Option<&Path>) -> Result<()> {
        path.map_or(Ok(()), |path| write_atomically(path, self.pid.to_string().as_bytes(), 0o644))
    }

    /// Writes the host pid of the first process into `path`; kills the container where that fails.
    pub fn write_pid_file(&mut self, path: &Path) -> Result<()> {
        let result = self.write_pid(Some(path));
        if result.is_err() {
            self.abandon();
        }
        result
    }

    /// Kills and reaps what was made, and removes it all.
    fn abandon(&mut self) {
        let _ = self.send(SignalNumber::KILL);
        let _ = self.reap(WaitPidFlag::empty());
        drop((self.carried.take(), self.notified.take()));
        if let Some(folder) = self.folder.take() {
            give_up(&self.store, &self.id, folder, &mut self.state, self.again);
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

    /// The state root.
    pub fn root(&self) -> &Path {
        self.store.root()
    }

    /// The id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// What state.json says.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn reap(&self, flags: WaitPidFlag) -> Result<Option<i32>> {
        reap(&self.pidfd, flags).tried("wait for container", self.id.as_str())
    }

    /// Takes away what a container that has ended used: cgroups, network; and its state, if it was created to be
    /// removed. Otherwise its state stays, with the exit code, until [`delete`].
    pub fn finish(mut self, exit_code: i32) -> Result<()> {
        if let Some(terminal) = self.terminal.take() {
            terminal.finish();
        }
        if let Some(log) = self.log.take() {
            log.drain();
        }
        drop((self.carried.take(), self.notified.take()));
        let folder = match self.store.lock(&self.id) {
            Ok(folder) => folder,
            // Somebody deleted it by force.
            Err(Error::DoesNotExist { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.state.remove {
            teardown::remove(&self.store, &self.id, folder, First::Reaped)?;
            run_late_hooks(&self.spec, "poststop", || OciState {
                status: "stopped",
                pid: 0,
                ..oci_state(&self.state)
            });
            return Ok(());
        }
        let released =
            teardown::release(&self.store, &self.id, folder.path(), First::Reaped).map(drop);
        // Others may have changed it meanwhile: its name, or whether it is to be started again.
        let mut state = State::read(folder.path())?.unwrap_or(self.state);
        state.status = Status::Stopped;
        state.pid = 0;
        state.exit_code = Some(exit_code);
        state.finished = Some(now());
        state.write(folder.path())?;
        released
    }
}

/// What is remembered of the first process, besides its pid.
fn look_at_first_process(state: &mut State) {
    state.pid_start_ticks = process_stat(state.pid).map_or(0, |stat| stat.start_ticks);
    state.namespaces = namespaces::inodes(state.pid);
}

/// Takes away what was made for a container that could not be started. One that had run before stays, stopped.
///
/// Failures are not told: the first error is what the user needs, and what could not be removed stays in the journal for
/// gc.
fn give_up(store: &Store, id: &ContainerId, folder: LockedFolder, state: &mut State, again: bool) {
    if !again {
        let _ = teardown::remove(store, id, folder, First::Unknown);
        return;
    }
    let _ = teardown::release(store, id, folder.path(), First::Unknown);
    state.status = Status::Stopped;
    state.pid = 0;
    state.exit_code = Some(OWN_FAILURE);
    state.finished = Some(now());
    let _ = state.write(folder.path());
}

/// The exit code of a container that terrarium could not start.
const OWN_FAILURE: i32 = 125;

/// The exit code of a child as a shell gives it; none if it has not ended and `flags` say not to wait.
pub(crate) fn reap(pidfd: &OwnedFd, flags: WaitPidFlag) -> nix::Result<Option<i32>> {
    loop {
        return match waitid(Id::PIDFd(pidfd.as_fd()), flags | WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(128 + signal as i32)),
            Ok(_) => Ok(None),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => Err(error),
        };
    }
}

impl Supervised for Container {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn is_shielded(&self) -> bool {
        self.own_pid_namespace
    }

    fn send(&self, signal: SignalNumber) -> Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.tried("signal container", self.id.as_str()),
        }
    }

    fn try_wait(&self) -> Result<Option<i32>> {
        self.reap(WaitPidFlag::WNOHANG)
    }

    fn terminal(&self) -> Option<&Relay> {
        self.terminal.as_ref()
    }

    fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }
}

/// A container in the making.
struct Creation<'a> {
    store: &'a Store,
    id: &'a ContainerId,
    plan: &'a init::InitPlan,
    cgroups: &'a Cgroups,
    network: &'a NetworkRequest,
    devices: &'a [Device],
    details: &'a Details,
    place: Option<&'a JournalNetwork>,
    state: State,
    options: &'a CreateOptions,
    again: bool,
    carried: Option<Carried>,
}

impl Creation<'_> {
    fn run(mut self, spec: Box<Spec>, folder: LockedFolder) -> Result<Container> {
        let mut process = None;
        match self.make(&spec, &folder, &mut process) {
            Ok(()) => {}
            Err(error) => {
                if let Some(process) = process {
                    let FirstProcess { pid: _, pidfd, socket: _, output: _ } = process;
                    let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                    let _ = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED);
                }
                give_up(self.store, self.id, folder, &mut self.state, self.again);
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
            has_hooks: spec.hooks().is_some(),
            spec,
            console_socket: self.options.console_socket.clone(),
            terminal: None,
            log_output: self.options.log_output,
            log: None,
            output: process.output,
            again: self.again,
            carried: self.carried,
            notified: None,
        })
    }

    fn make(
        &mut self,
        spec: &Spec,
        locked: &LockedFolder,
        process: &mut Option<FirstProcess>,
    ) -> Result<()> {
        let folder = locked.path();
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        if let Some(layers) = self.options.layers.as_ref().filter(|_| !self.again) {
            layers.make()?;
        }
        notify::prepare(spec, folder)?;
        let endpoint = self.join_network(folder)?;
        let keeper = self.cgroups.start_scope(resources)?;
        self.state.cgroups = self.cgroups.make(resources)?;
        // Before the first clone: an observer can name it by the cgroup ids.
        self.state.write(folder)?;
        let mapped = idmapped::trees(&self.plan.root.mounts)?;
        let first = process.insert(self.clone_first_process(locked, mapped)?);
        if self.plan.namespaces.has_user_namespace() {
            // What belongs to the host's root is not the first process's to write once it is another's root.
            if let Some(adjust) = self.plan.process.oom_score_adj {
                let path = format!("/proc/{}/oom_score_adj", first.pid);
                std::fs::write(&path, adjust.to_string()).tried("write", path.as_str())?;
            }
            if self.plan.namespaces.has_new(CloneFlags::CLONE_NEWUSER) {
                self.plan.namespaces.write_maps(first.pid)?;
            }
            let tree = self.idmapped_root(first.pid)?;
            let fd = tree.as_ref().map(AsRawFd::as_raw_fd);
            // If it is gone, the next read says why.
            let _ = first.socket.send(&Message::IdsMapped, fd);
        }
        loop {
            match first.socket.receive().tried("read from", "the container's first process")? {
                Some((Message::Joined, netlink)) => {
                    if let (Some(netlink), false) = (&netlink, self.devices.is_empty()) {
                        let netlink = netlink.try_clone().tried("duplicate", "netlink socket")?;
                        devices::give(self.devices, first.pid, netlink)?;
                    }
                    if let (Some(endpoint), Some(netlink)) = (&endpoint, netlink) {
                        // Meanwhile the first process mounts.
                        veth::connect(endpoint, first.pid, netlink)?;
                    }
                    if let NetworkRequest::Userspace(carrier) = self.network {
                        let carried = Carried::start(*carrier, first.pid, self.details, folder)?;
                        self.carried = Some(carried);
                    }
                    break;
                }
                Some((Message::Failed(report), _)) => return Err(failure(report)),
                Some((Message::Step(step), _)) => explain::add(step),
                Some(_) => {}
                None => {
                    return Err(Error::InitDied { how: "early".to_owned() });
                }
            }
        }
        drop(keeper);
        self.state.pid = first.pid;
        if self.is_told_once(spec) {
            return Ok(());
        }
        look_at_first_process(&mut self.state);
        self.state.write(folder)
    }

    /// Whether the state gets the first process's pid, its start and its namespaces not before its program runs, and never where that has ended
    /// at once. Hooks may look them up, so there are none; after a crash of this process they are not needed, for the kernel
    /// kills the first process (PDEATHSIG), or `gc` does by its cgroups; and the state goes with the container.
    fn is_told_once(&self, spec: &Spec) -> bool {
        self.options.supervised
            && self.options.remove
            && !self.state.cgroups.is_empty()
            && spec.hooks().is_none()
            && !self.plan.namespaces.has_user_namespace()
    }

    /// Gets an address on the bridge, which is made if need be, and writes the files that tell the container of it.
    fn join_network(&mut self, folder: &Path) -> Result<Option<Endpoint>> {
        let hostname = self.plan.hostname.as_deref().unwrap_or(self.id.as_str());
        match (self.network, self.place) {
            (NetworkRequest::Bridge { subnet, .. }, Some(place)) => {
                let endpoint = network::acquire(
                    self.store, self.id, &place.bridge, *subnet, self.details, &place.veth,
                )?;
                let mut names = vec![hostname, self.id.as_str()];
                names.dedup();
                let addresses: Vec<_> = endpoint.places.iter().map(|place| place.address).collect();
                network::files::write(folder, &names, &addresses, self.details)?;
                network::introduce(self.store, &place.bridge, self.id)?;
                self.state.network = Some(NetworkState {
                    mode: self.network.mode().to_owned(),
                    bridge: Some(endpoint.bridge.clone()),
                    veth: Some(endpoint.veth.clone()),
                    address: endpoint.place(true).map(Place::interface),
                    gateway: endpoint.place(true).map(|place| place.gateway.to_string()),
                    address6: endpoint.place(false).map(Place::interface),
                    gateway6: endpoint.place(false).map(|place| place.gateway.to_string()),
                    ports: endpoint.ports.iter().map(ToString::to_string).collect(),
                });
                Ok(Some(endpoint))
            }
            (NetworkRequest::Host, _) => {
                network::files::write(folder, &[hostname], &[], self.details)?;
                Ok(None)
            }
            (NetworkRequest::Userspace(carrier), _) => {
                let mut details = self.details.clone();
                if details.dns.is_empty() {
                    details.dns.extend(carrier.name_server());
                }
                let names = [hostname];
                network::files::write(folder, &names, &[carrier.own_name_at()], &details)?;
                if let Some(network) = &mut self.state.network {
                    (network.address, network.gateway) = carrier.address().unzip();
                    network.ports = details.publish.iter().map(ToString::to_string).collect();
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn clone_first_process(
        &self,
        locked: &LockedFolder,
        mapped: Vec<Option<OwnedFd>>,
    ) -> Result<FirstProcess> {
        let folder = locked.path();
        let (ours, theirs) = sync::pair().tried("make", "socket pair")?;
        // What is new belongs to the user namespace, and is made inside.
        let inside = self.plan.namespaces.join_user.is_some();
        let flags = if inside { 0 } else { self.plan.namespaces.clone_flags() };
        let (output, stdio) = self.options.log_output.then(logged_stdio).transpose()?.unzip();
        let listener = self.options.leave.then(|| listen(folder)).transpose()?;
        let unified = self.cgroups.open_unified()?;
        let mut joins = self.cgroups.open_joins(false)?;
        self.plan.namespaces.with_pid_namespace(|| {
            let timer = explain::timer();
            let mut cloned = clone3(flags, unified.as_ref().map(AsFd::as_fd));
            if let (Err(error), Some(_)) = (&cloned, &unified)
                && matches!(error.raw_os_error(), Some(libc::E2BIG | libc::EINVAL | libc::EOPNOTSUPP))
            {
                // Before Linux 5.7 there is no CLONE_INTO_CGROUP: the process writes itself into it.
                joins = self.cgroups.open_joins(true)?;
                cloned = clone3(flags, None);
            }
            if matches!(cloned, Ok(Cloned::Parent { .. })) {
                timer.note("clone3", || self.plan.namespaces.shell_command());
            }
            let cloned = cloned.tried_hint(
                "clone3",
                "namespaces of the container",
                "user.max_*_namespaces sysctls and the pids limit of the runtime's own cgroup bound it; \
                 without root a user namespace is needed",
            )?;
            match cloned {
                Cloned::Child => {
                    explain::enter();
                    drop(ours);
                    locked.leave_to_parent();
                    let cgroups = joins;
                    let joined = Vec::new();
                    let inherited = Inherited { cgroups, stdio, listener, mapped, joined };
                    if inside {
                        init::main_in_user_namespace(self.plan, theirs, inherited)
                    }
                    init::main(self.plan, theirs, inherited)
                }
                Cloned::Parent { pid: _, pidfd } if inside => {
                    drop(theirs);
                    Ok(FirstProcess { output, ..FirstProcess::behind(&pidfd, ours)? })
                }
                Cloned::Parent { pid, pidfd } => {
                    Ok(FirstProcess { pid, pidfd, socket: ours, output })
                }
            }
        })
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
        Ok(mount_idmap(tree.as_fd(), namespace.as_fd(), true).is_ok().then_some(tree))
    }
}

/// The first process, as the runtime holds it.
struct FirstProcess {
    pid: i32,
    pidfd: OwnedFd,
    socket: Socket,
    /// What it writes, where that goes into a log.
    output: Option<OwnedFd>,
}

impl FirstProcess {
    /// The one that the process `between` clones in a user namespace, which ends then.
    fn behind(between: &OwnedFd, socket: Socket) -> Result<Self> {
        let first = "the container's first process";
        let said = loop {
            match socket.receive().tried("read from", first)? {
                Some((Message::Step(step), _)) => explain::add(step),
                said => break said,
            }
        };
        reap(between, WaitPidFlag::empty())
            .tried("wait for", "the process that clones the first")?;
        match said {
            Some((Message::Cloned, Some(pidfd))) => {
                let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
                let info = std::fs::read_to_string(&path).tried("read", path.as_str())?;
                let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
                // -1 of one that has ended.
                let pid = pid.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0);
                let pid = pid.ok_or_else(|| Error::InitDied { how: "early".to_owned() })?;
                Ok(Self { pid, pidfd, socket, output: None })
            }
            Some((Message::Failed(report), _)) => Err(failure(report)),
            _ => Err(Error::InitDied { how: "early".to_owned() }),
        }
    }
}

/// The socket on which the first process waits for `start`, in the container's folder.
pub(crate) const START_SOCKET: &str = "start.sock";

fn listen(folder: &Path) -> Result<OwnedFd> {
    let path = folder.join(START_SOCKET);
    let socket = seqpacket().tried("make", "socket")?;
    // Root alone may start it.
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = console::with_short_path(&path, |short| {
        nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new(short)?)
    });
    rustix::process::umask(umask);
    bound.tried("bind", &path)?;
    nix::sys::socket::listen(&socket, Backlog::new(8).expect("8 is allowed"))
        .tried("listen on", &path)?;
    Ok(socket)
}

/// The state of a container that is being created by this process, which is given with its start time.
fn first_state(
    id: &ContainerId,
    spec: &Spec,
    options: &CreateOptions,
    network: &NetworkRequest,
    (bundle, rootfs): (PathBuf, &Path),
    (me, my_ticks): (i32, u64),
) -> State {
    State {
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
        rootfs: rootfs.to_owned(),
        created: now(),
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        labels: options.labels.clone(),
        cgroups: Vec::new(),
        namespaces: BTreeMap::new(),
        network: Some(NetworkState { mode: network.mode().to_owned(), ..NetworkState::default() }),
        command: spec
            .process()
            .as_ref()
            .and_then(|process| process.args().clone())
            .unwrap_or_default(),
        exit_code: None,
        finished: None,
        remove: options.remove,
        restart: Some(options.restart)
            .filter(|policy| *policy != RestartPolicy::No)
            .map_or_else(String::new, |policy| policy.to_string()),
        restart_count: options.restart_count,
        log_bytes: options.log_bytes,
        stop_requested: false,
    }
}

/// This process and its start time.
fn own_process() -> (i32, u64) {
    let me = std::process::id().cast_signed();
    (me, process_stat(me).map_or(0, |stat| stat.start_ticks))
}

/// What a container will leave on the host; `creator` is this process and its start time.
fn journal(
    cgroups: &Cgroups,
    network: &NetworkRequest,
    options: &CreateOptions,
    creator: (i32, u64),
) -> Journal {
    Journal {
        version: 1,
        cgroups: cgroups.folders(),
        cgroup_parents: cgroups.parents(),
        scope: cgroups.scope().map(|scope| scope.unit.clone()),
        network: match network {
            NetworkRequest::Bridge { name, .. } => {
                Some(JournalNetwork { bridge: name.clone(), veth: veth::name() })
            }
            _ => None,
        },
        writable: options.layers.as_ref().map(|layers| layers.place.clone()),
        layers: options.layers.as_ref().map(|layers| layers.lower.clone()).unwrap_or_default(),
        creator_pid: creator.0,
        creator_start_ticks: creator.1,
    }
}

/// Binds of the files that a container with a network gets.
fn network_files(
    store: &Store,
    network: &NetworkRequest,
    details: &Details,
    folder: &Path,
) -> Vec<Mount> {
    match network {
        NetworkRequest::Bridge { .. } | NetworkRequest::Host | NetworkRequest::Userspace(_) => {
            network::files::mounts(folder)
        }
        NetworkRequest::Path(_) => match &details.files_of {
            Some(other) => network::files::shared_mounts(&store.folder(other)),
            None => Vec::new(),
        },
        NetworkRequest::None => Vec::new(),
    }
}

/// The network that `spec` asks for, where the caller may make it.
pub(crate) fn requested_network(spec: &Spec) -> Result<NetworkRequest> {
    let network = network_of(spec)?;
    if matches!(network, NetworkRequest::Bridge { .. }) && !rustix::process::geteuid().is_root() {
        return Err(Error::unsupported(
            "a bridge network without root",
            "interfaces of the host are root's to make: use --net pasta or --net slirp4netns where one of them is \
             installed, else --net none or --net host",
        ));
    }
    if let NetworkRequest::Userspace(carrier) = &network {
        carrier.find()?;
    }
    Ok(network)
}

/// What carries a user's packets needs somebody to be watched by.
fn check_supervised(network: &NetworkRequest, options: &CreateOptions) -> Result<()> {
    if matches!(network, NetworkRequest::Userspace(_)) && !options.supervised {
        return Err(Error::unsupported(
            format!("network {}", network.mode()),
            "it needs a process that stays beside the container, as `terrarium run` does",
        ));
    }
    Ok(())
}

fn seqpacket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// Descriptors 3 to 2 + `count` must be there to be given.
pub(crate) fn check_descriptors(count: u32) -> Result<()> {
    for fd in 3..3 + u64::from(count) {
        if !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
            return Err(Error::invalid(
                "--preserve-fds",
                count.to_string(),
                format!("descriptor {fd} is not open"),
            ));
        }
    }
    Ok(())
}

/// Works out the cgroups of container `id`, with `resources`.
pub(crate) fn plan_cgroups(
    driver: CgroupDriver,
    spec: &Spec,
    id: &ContainerId,
    resources: Option<&LinuxResources>,
) -> Result<Cgroups> {
    match driver {
        CgroupDriver::Disabled => Ok(Cgroups::default()),
        CgroupDriver::Cgroupfs => {
            Cgroups::plan(&Hierarchies::read()?, &cgroup_path(spec, id)?, resources)
        }
        CgroupDriver::Systemd => Cgroups::plan_scope(scope(spec, id)?, resources),
    }
}

/// The scope of a container whose cgroups systemd makes.
pub(crate) fn scope(spec: &Spec, id: &ContainerId) -> Result<Scope> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let path = path.map_or_else(|| format!(":terrarium:{id}"), |path| path.display().to_string());
    Scope::parse(&path, spec.annotations().as_ref())
}

/// Path of the container's cgroups, below each hierarchy's mount.
pub(crate) fn cgroup_path(spec: &Spec, id: &ContainerId) -> Result<String> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    match path.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => cgroup::check_path(path),
        None => Ok(format!("{}/{id}", cgroup::DEFAULT_PARENT)),
    }
}

pub(crate) fn oci_state_of(spec: &Spec, id: &ContainerId, bundle: &Path) -> OciState {
    OciState {
        oci_version: spec.version().clone(),
        id: id.as_str().to_owned(),
        status: "creating",
        pid: 0,
        bundle: bundle.to_owned(),
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
    }
}

/// Device rules that allow what every container has (runtime-spec, "Default Devices"): a spec that denies all devices means
/// all others.
pub(crate) fn add_default_devices(spec: &mut Spec) {
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(rules) = resources.and_then(|resources| resources.devices_mut().as_mut())
        && !rules.is_empty()
    {
        let missing: Vec<_> = crate::spec::device_rules()
            .into_iter()
            .filter(|rule| rule.allow() && !rules.contains(rule))
            .collect();
        rules.extend(missing);
    }
}

/// What the specification calls the state of a container, now.
pub fn oci_state(state: &State) -> OciState {
    let status = state.observed_status();
    OciState {
        oci_version: "1.2.1".to_owned(),
        id: state.id.clone(),
        status: status.as_str(),
        pid: if status == Status::Stopped { 0 } else { state.pid },
        bundle: state.bundle.clone(),
        annotations: state.annotations.clone(),
    }
}

/// Runs the poststart hooks; one that fails is told, and the container goes on (runtime-spec, "Poststart").
fn after_start(spec: &Spec, state: &State) {
    // A short program may have ended by now; what is told is that it was started.
    run_late_hooks(spec, "poststart", || OciState {
        status: "running",
        pid: state.pid,
        ..oci_state(state)
    });
}

/// Runs hooks whose failure changes nothing any more. The state is looked up for them alone.
pub(crate) fn run_late_hooks(spec: &Spec, kind: &str, state: impl FnOnce() -> OciState) {
    let hooks = hooks::of_kind(spec, kind);
    if hooks.is_empty() {
        return;
    }
    let state = state();
    for hook in hooks {
        if let Err(failure) = hooks::run(hook, &state, Some(&state.bundle)) {
            eprintln!("terrarium: warning: {}", failure.into_error(kind, hook.path()));
        }
    }
}

/// The spec of a container, as it was created.
pub(crate) fn stored_spec(folder: &Path) -> Result<Box<Spec>> {
    let path = folder.join(CONFIG);
    let bytes = std::fs::read(&path).tried("read", &path)?;
    serde_json::from_slice(&bytes).map_err(|why| Error::Malformed { path, why })
}

/// Starts the program of container `id`, which [`Container::leave`] has left created.
pub fn start(store: &Store, id: &ContainerId) -> Result<()> {
    let folder = store.lock(id)?;
    let does_not_exist = || Error::DoesNotExist { id: id.as_str().to_owned() };
    let mut state = State::read(folder.path())?.ok_or_else(does_not_exist)?;
    let status = state.observed_status();
    if status != Status::Created {
        return Err(Error::WrongStatus {
            tried: "start",
            id: state.id,
            status: status.as_str(),
            wanted: "created",
        });
    }
    let path = folder.path().join(START_SOCKET);
    let socket = seqpacket().tried("make", "socket")?;
    console::with_short_path(&path, |short| {
        nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(short)?)
    })
    .tried("connect to", &path)?;
    let socket = Socket::from(socket);
    let notifications = Notifications::open(folder.path())?;
    let pidfd = Pid::from_raw(state.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    socket.send(&Message::Start, None).tried("start container", id.as_str())?;
    let result = follow_start(&socket, folder.path(), &state);
    if let Err(error) = result {
        state.status = Status::Stopped;
        state.pid = 0;
        state.exit_code = Some(error.run_exit_code().into());
        state.finished = Some(now());
        state.write(folder.path())?;
        return Err(error);
    }
    state.status = Status::Running;
    state.write(folder.path())?;
    // Nobody can connect any more.
    let _ = std::fs::remove_file(&path);
    let spec = stored_spec(folder.path())?;
    drop(folder);
    after_start(&spec, &state);
    if let (Some(notifications), Some(pidfd)) = (notifications, pidfd) {
        // As with runc: it has started when it says so.
        notifications
            .wait_until_ready(state.pid, &pidfd)
            .tried("pass on notifications of container", id.as_str())?;
    }
    Ok(())
}

/// Hears out the first process until its program is executed.
fn follow_start(socket: &Socket, folder: &Path, state: &State) -> Result<()> {
    loop {
        match socket.receive().tried("read from", "the container's first process")? {
            Some((Message::Failed(report), _)) => return Err(failure(report)),
            Some((Message::Listener, Some(fd))) => {
                hand_over(&*stored_spec(folder)?, &oci_state(state), fd.as_fd())?;
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

/// Gives the seccomp listener of the first process to the agent that the spec names.
fn hand_over(spec: &Spec, state: &OciState, fd: BorrowedFd<'_>) -> Result<()> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    profile.map_or(Ok(()), |profile| listener::hand_over(profile, state, state.pid, fd))
}

/// The file that holds the output of a detached container, in its folder.
pub const LOG: &str = "container.log";

/// What is read of a container with a log, and its standard descriptors.
fn logged_stdio() -> Result<(OwnedFd, [OwnedFd; 3])> {
    let null = File::open("/dev/null").tried("open", "/dev/null")?;
    let (ours, theirs) = log::pipe()?;
    let again = theirs.try_clone().tried("duplicate", "pipe")?;
    Ok((ours, [null.into(), theirs, again]))
}

/// A failure that the first process told.
pub(crate) fn failure(report: Report) -> Error {
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

/// The spec that container `id` was made from.
pub fn spec_of(store: &Store, id: &ContainerId) -> Result<Box<Spec>> {
    store.state(id)?;
    stored_spec(&store.folder(id))
}

/// Waits at most `limit` until container `id` has ended; whether it has.
///
/// The exit code is in its state once whoever supervises it has noted it; a container that was made with `remove`
/// takes its state along.
pub fn wait(store: &Store, id: &ContainerId, limit: Option<Duration>) -> Result<bool> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let state = store.state(id)?;
    if !matches!(state.observed_status(), Status::Stopped)
        && let Some(pid) = Pid::from_raw(state.pid)
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        && state.is_alive()
    {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec::try_from(left).unwrap_or_default());
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(io::Error::from(error)).tried("wait for container", id.as_str());
                }
            }
        }
    }
    // The supervisor reaps it and takes its things away.
    while state.is_supervised() {
        match store.state(id) {
            Ok(now) if now.status != Status::Stopped => {}
            _ => break,
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline + SUPERVISOR_GRACE) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// How long beyond its deadline [`wait`] waits for a supervisor to note the end.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(5);

/// Sends `signal` to the first process of container `id`.
pub fn kill(store: &Store, id: &ContainerId, signal: SignalNumber) -> Result<()> {
    let state = store.state(id)?;
    let not_running =
        || Error::NotRunning { id: state.id.clone(), status: state.observed_status().as_str() };
    let pid = Pid::from_raw(state.pid).ok_or_else(not_running)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| not_running())?;
    if signal == SignalNumber::KILL {
        freeze::thaw_for_kill(&Journal::read(&store.folder(id))?.cgroups);
    }
    // With the descriptor held the pid cannot be reused any more: if it is the container's now, it stays so.
    if !state.is_alive() {
        return Err(not_running());
    }
    match pidfd_send_signal(pidfd.as_fd(), signal.number()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(not_running()),
        result => result.tried("signal container", id.as_str()),
    }
}

/// Sends `signal` to every process of container `id`, also when its first one is gone.
pub fn kill_all(store: &Store, id: &ContainerId, signal: SignalNumber) -> Result<()> {
    let state = store.state(id)?;
    let folders = Journal::read(&store.folder(id))?.cgroups;
    // The same processes are in each of its cgroups.
    let pids: BTreeSet<i32> = folders.iter().flat_map(|folder| cgroup::processes(folder)).collect();
    for pid in pids {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        // Gone in between: that is as good.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        match pidfd_send_signal(pidfd.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            result => result.tried("signal container", state.id.as_str())?,
        }
    }
    Ok(())
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
    let state = State::read(folder.path());
    match &state {
        Ok(Some(state)) => {
            let status = state.observed_status();
            if status != Status::Stopped && !force {
                return Err(Error::StillRunning { id: state.id.clone(), status: status.as_str() });
            }
        }
        // Whoever was creating it is gone, for the lock is ours.
        Ok(None) => {}
        Err(_) if force => {}
        Err(_) => return state.map(|_| ()),
    }
    // The spec goes with the folder.
    let spec = stored_spec(folder.path()).ok().filter(|spec| spec.hooks().is_some());
    teardown::remove_thoroughly(store, id, folder)?;
    if let (Some(spec), Ok(Some(state))) = (spec, state) {
        run_late_hooks(&spec, "poststop", || OciState {
            status: "stopped",
            pid: 0,
            ..oci_state(&state)
        });
    }
    Ok(())
}
