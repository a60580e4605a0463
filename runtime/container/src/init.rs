//! The container's first process, from clone3 to execve. The talk with the runtime is drawn in `sync.rs`.

use crate::attributes::Attributes;
use crate::capabilities::Sets;
use crate::console::TerminalPlan;
use crate::devices;
use crate::explain;
use crate::hooks::{self, InitHooks, OciState};
use crate::lsm::{Labels, OpenLabels};
use crate::namespaces::{Join, NamespacePlan};
use crate::rootfs::{self, RootPlan};
use crate::seccomp::{self, SeccompError};
use crate::sync::{FailureKind, Message, Report, Socket};
use crate::syscall::{Cloned, clone3_sibling, close_on_exec_from, new_session_keyring};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::resource::Resource;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::socket::SockFlag;
use oci_spec::runtime::Hook;
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: FailureKind,
    step: Cow<'static, str>,
    on: String,
    source: io::Error,
    hint: Cow<'static, str>,
}

impl Failure {
    /// Whether the kernel said EPERM.
    pub(crate) fn is_refusal(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EPERM)
    }

    fn report(self) -> Report {
        Report {
            kind: self.kind,
            step: self.step.into_owned(),
            on: self.on,
            errno: self.source.raw_os_error().unwrap_or(libc::EINVAL),
            hint: self.hint.into_owned(),
        }
    }
}

/// Names the step that a system call belongs to.
pub(crate) trait Step<T> {
    /// What was tried, on what.
    fn step(self, step: &'static str, on: impl AsRef<OsStr>) -> Result<T, Failure>;
    /// The same, with what to do.
    fn step_hint(
        self,
        step: &'static str,
        on: impl AsRef<OsStr>,
        hint: &'static str,
    ) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str, on: impl AsRef<OsStr>) -> Result<T, Failure> {
        self.step_hint(step, on, "")
    }

    fn step_hint(
        self,
        step: &'static str,
        on: impl AsRef<OsStr>,
        hint: &'static str,
    ) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            kind: FailureKind::SetUp,
            step: step.into(),
            on: on.as_ref().to_string_lossy().into_owned(),
            source: error.into(),
            hint: hint.into(),
        })
    }
}

/// Everything that the first process has to do, worked out before it exists.
#[derive(Debug)]
pub(crate) struct InitPlan {
    /// The filesystem.
    pub root: RootPlan,
    /// The namespaces.
    pub namespaces: NamespacePlan,
    /// Host name, with a UTS namespace of its own.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Kernel parameters: path below /proc/sys and value.
    pub sysctl: Vec<(PathBuf, String)>,
    /// Whether the runtime wants a netlink socket of the network namespace.
    pub wants_netlink: bool,
    /// Whether the process dies with the runtime.
    pub dies_with_runtime: bool,
    /// Hooks that this process runs.
    pub hooks: InitHooks,
    /// What they are told.
    pub oci_state: OciState,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// The program.
    pub process: ProcessPlan,
    /// terrarium's own init, which is to be pid 1 and to start the program.
    pub reaper: Option<OwnedFd>,
}

/// The program and its rights.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    /// The command.
    pub args: Vec<CString>,
    /// Its environment.
    pub env: Vec<CString>,
    /// Its working folder.
    pub cwd: PathBuf,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Additional groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capabilities; none leaves them alone.
    pub capabilities: Sets,
    /// Resource limits.
    pub rlimits: Vec<(Resource, u64, u64)>,
    /// Whether exec may not gain rights.
    pub no_new_privileges: bool,
    /// Scheduling and the like.
    pub attributes: Attributes,
    /// Its terminal.
    pub terminal: Option<TerminalPlan>,
    /// Badness for the OOM killer.
    pub oom_score_adj: Option<i32>,
    /// The seccomp filter.
    pub seccomp: Option<seccomp::Filter>,
    /// Labels of security modules.
    pub labels: Labels,
    /// Whether it gets a session keyring of its own.
    pub new_keyring: bool,
    /// How many descriptors from 3 on are of socket activation.
    pub listen_fds: u32,
}

/// Descriptors that the runtime opened for the first process.
pub(crate) struct Inherited {
    /// `tasks` (v1) or `cgroup.procs` (v2) of each cgroup to join, opened for writing.
    pub cgroups: Vec<OwnedFd>,
    /// Standard input, output and error, where they are not the runtime's.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where to wait for `start`, when the runtime does not stay.
    pub listener: Option<OwnedFd>,
    /// Idmapped mounts, in the order of the plan's.
    pub mapped: Vec<Option<OwnedFd>>,
    /// Which of the namespaces to join were joined already; empty for none.
    pub joined: Vec<bool>,
}

/// Runs in the child of clone3; never returns.
pub(crate) fn main(plan: &InitPlan, mut socket: Socket, inherited: Inherited) -> ! {
    // An unwinding panic must not run into the parent's code on this copied stack.
    let _guard = ExitOnDrop;
    match set_up_and_execute(plan, &mut socket, inherited) {
        Ok(never) => match never {},
        // If the runtime is gone there is nobody to tell.
        Err(Some(failure)) => fail(&socket, failure),
        Err(None) => exit_now(1),
    }
}

/// Runs in the child of clone3 where a user namespace is to be joined; never returns. It enters that one, and clones the
/// container's first process from there, as a child of the runtime's: all that is new belongs to the user namespace then.
pub(crate) fn main_in_user_namespace(plan: &InitPlan, socket: Socket, inherited: Inherited) -> ! {
    let _guard = ExitOnDrop;
    let clone = || {
        shield()?;
        let joined = plan.namespaces.enter_user_namespace()?;
        Ok((joined, clone3_sibling().step("clone3", "the container's first process")?))
    };
    match clone() {
        Ok((joined, Cloned::Child)) => main(plan, socket, Inherited { joined, ..inherited }),
        Ok((_, Cloned::Parent { pidfd, .. })) => {
            // If the runtime is gone, so is the first process.
            let _ = socket.send(&Message::Cloned, Some(pidfd.as_raw_fd()));
            exit_now(0)
        }
        Err(failure) => fail(&socket, failure),
    }
}

/// Processes of somebody else's pid or user namespace must not be able to trace this one, or open what it holds, before it
/// has given up its rights (CVE-2016-9962).
fn shield() -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .step("make undumpable", "process")
}

/// Tells the failure, and ends.
pub(crate) fn fail(socket: &Socket, failure: Failure) -> ! {
    // A seccomp profile may have taken the words away: the code says it, too.
    let code = match failure.kind {
        FailureKind::SetUp => 1,
        FailureKind::NotExecutable => 126,
        FailureKind::NotFound => 127,
    };
    let _ = socket.send(&Message::Failed(failure.report()), None);
    exit_now(code)
}

/// Ends the process when it goes: an unwinding panic must not run into the parent's code.
pub(crate) struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        exit_now(1);
    }
}

pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) runs no destructor or atexit handler; those belong to the parent's copy of the process.
    unsafe { libc::_exit(code) }
}

/// `Err(None)`: the runtime is gone.
fn set_up_and_execute(
    plan: &InitPlan,
    socket: &mut Socket,
    inherited: Inherited,
) -> Result<Infallible, Option<Failure>> {
    let Inherited { cgroups, stdio, listener, mapped, joined } = inherited;
    if plan.namespaces.join_pid.is_some() {
        shield()?;
    }
    join_cgroups(&cgroups)?;
    drop(cgroups);
    if let Some([input, output, error]) = stdio {
        rustix::stdio::dup2_stdin(input).step("redirect", "stdin")?;
        rustix::stdio::dup2_stdout(output).step("redirect", "stdout")?;
        rustix::stdio::dup2_stderr(error).step("redirect", "stderr")?;
    }
    reset_signals()?;
    rustix::process::umask(Mode::empty());
    // A session of its own: programs inside cannot push input into the runtime's terminal (TIOCSTI).
    rustix::process::setsid().step("setsid", "session")?;

    let mut tree = None;
    if plan.namespaces.has_user_namespace() {
        let (message, fd) = wait(socket)?;
        debug_assert_eq!(message, Message::IdsMapped);
        tree = fd;
        become_root(plan)?;
    }
    // After the cgroups were joined: the cgroup that a task is in now becomes the namespace's root.
    if plan.namespaces.has_new(CloneFlags::CLONE_NEWCGROUP) {
        let timer = explain::timer();
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).step("unshare", "cgroup namespace")?;
        timer.note("unshare", || "unshare --cgroup".to_owned());
    }
    let entered = joined.into_iter().chain(std::iter::repeat(false));
    for (Join { kind, path, fd }, _) in
        plan.namespaces.join.iter().zip(entered).filter(|(_, entered)| !entered)
    {
        let timer = explain::timer();
        nix::sched::setns(fd.as_fd(), *kind).step("join namespace", path.as_path())?;
        timer.note("setns", || {
            let kind = path.file_name().unwrap_or_default().to_string_lossy();
            format!("nsenter --{kind}={}", explain::word(&path.to_string_lossy()))
        });
    }
    plan.namespaces.enter_new_time()?;
    let netlink = if plan.namespaces.has_new(CloneFlags::CLONE_NEWNET) {
        let timer = explain::timer();
        crate::network::loopback::up().step("bring up", "lo")?;
        timer.note("link", || "ip link set lo up".to_owned());
        plan.wants_netlink.then(crate::network::loopback::netlink_socket).transpose()
    } else {
        Ok(None)
    }
    .step("open", "netlink socket")?;
    tell(socket, &Message::Joined, netlink.as_ref())?;
    drop(netlink);

    let root = rootfs::enter(&plan.root, tree, mapped)?;
    if let Some(name) = &plan.hostname {
        let timer = explain::timer();
        nix::unistd::sethostname(name).step("set host name", name)?;
        timer.note("sethostname", || format!("hostname {}", explain::word(name)));
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).step("set domain name", name)?;
    }
    sysctl(&root, &plan.sysctl)?;
    let own_oom_score = !plan.namespaces.has_user_namespace();
    if let Some(adjust) = plan.process.oom_score_adj.filter(|_| own_oom_score) {
        // By the host's /proc, which is still the one at /proc.
        std::fs::write("/proc/self/oom_score_adj", adjust.to_string())
            .step("write", "/proc/self/oom_score_adj")?;
    }
    let labels = plan.process.labels.open()?;
    if let Some(terminal) = plan.process.terminal {
        let master = crate::console::open(terminal, Some(&root))?;
        tell(socket, &Message::Terminal, Some(&master))?;
    }
    // By root, and before the root filesystem is read-only. Where it cannot be made, entering it says so.
    let _ = rootfs::make_working_folder(&root, &plan.process.cwd);
    rootfs::restrict(&root, &plan.root)?;
    if plan.hooks.stop_before_pivot() {
        tell(socket, &Message::Mounted, None)?;
        let (message, _) = wait(socket)?;
        debug_assert_eq!(message, Message::Resume);
    }
    run_hooks("createContainer", &plan.hooks.create_container, &plan.oci_state, "creating")?;
    rootfs::pivot(&root, &plan.root)?;
    drop(root);
    let env = become_user(&plan.process, socket)?;
    if plan.dies_with_runtime {
        // After the last change of credentials, which would clear it, and before waiting for `Start`, which ends at
        // once when the runtime is gone already.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .step("set", "parent death signal")?;
    }

    if listener.is_some() {
        // Engines expect `create` to fail where `start` is bound to.
        look_for_program(&plan.process)?;
    }
    tell_steps(socket)?;
    tell(socket, &Message::Ready, None)?;
    wait_for_start(socket, listener.as_ref())?;
    run_hooks("startContainer", &plan.hooks.start_container, &plan.oci_state, "created")?;
    if let Some(reaper) = &plan.reaper {
        return execute_reaper(&plan.process, &env, socket, &labels, reaper, plan.preserve_fds)
            .map_err(Some);
    }
    execute(&plan.process, &env, socket, &labels, plan.preserve_fds).map_err(Some)
}

/// Sends what was recorded for `--explain`, nothing unless somebody asked for it.
fn tell_steps(socket: &Socket) -> Result<(), Option<Failure>> {
    if explain::is_recording() {
        for step in explain::take() {
            tell(socket, &Message::Step(step), None)?;
        }
    }
    Ok(())
}

/// First of all, so that everything after is charged to the container.
pub(crate) fn join_cgroups(cgroups: &[OwnedFd]) -> Result<(), Failure> {
    for tasks in cgroups {
        let timer = explain::timer();
        // `0` is the writer itself. Another process writing our pid into `cgroup.procs` would wait for an RCU
        // grace period (11 ms); writing oneself into `tasks` does not.
        rustix::io::write(tasks.as_fd(), b"0").step("join cgroup", "tasks")?;
        timer.note("join cgroup", || {
            let path = std::fs::read_link(format!("/proc/self/fd/{}", tasks.as_raw_fd()));
            format!("echo 0 > {}", explain::word(&path.unwrap_or_default().to_string_lossy()))
        });
    }
    Ok(())
}

/// Runs hooks of this process's own.
fn run_hooks(
    kind: &'static str,
    hooks: &[Hook],
    state: &OciState,
    status: &'static str,
) -> Result<(), Failure> {
    for hook in hooks {
        // The pid as this process and its children see it.
        let pid = std::process::id().cast_signed();
        let state = OciState { status, pid, ..state.clone() };
        hooks::run(hook, &state, None).map_err(|failure| Failure {
            kind: FailureKind::SetUp,
            step: format!("run {kind} hook").into(),
            on: hook.path().display().to_string(),
            source: failure.source,
            hint: failure.words.into(),
        })?;
    }
    Ok(())
}

/// Waits for `start`, over the socket that the runtime holds, or that somebody connects to.
fn wait_for_start(socket: &mut Socket, listener: Option<&OwnedFd>) -> Result<(), Option<Failure>> {
    let Some(listener) = listener else {
        let (message, _) = wait(socket)?;
        debug_assert_eq!(message, Message::Start);
        return Ok(());
    };
    loop {
        let raw = match nix::sys::socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
            result => result.step("accept", "start.sock")?,
        };
        // SAFETY: the kernel has just installed this descriptor; nobody else knows its number.
        *socket = Socket::from(unsafe { OwnedFd::from_raw_fd(raw) });
        // Whoever connected may have been killed before it said a word.
        if let Ok(Some((Message::Start, _))) = socket.receive() {
            return Ok(());
        }
    }
}

fn tell(socket: &Socket, message: &Message, fd: Option<&OwnedFd>) -> Result<(), Option<Failure>> {
    socket.send(message, fd.map(AsRawFd::as_raw_fd)).map_err(|_| None)
}

fn wait(socket: &Socket) -> Result<(Message, Option<OwnedFd>), Option<Failure>> {
    socket.receive().ok().flatten().ok_or(None)
}

/// Undoes what the runtime, Rust's start-up and whoever started them did to signals: a shell's background job ignores
/// SIGINT, `nohup` SIGHUP, and what is ignored stays so through execve.
pub(crate) fn reset_signals() -> Result<(), Failure> {
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler, so no code of ours can run in signal context.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }
            .step("reset", signal.as_str())?;
    }
    SigSet::empty().thread_set_mask().step("reset", "signal mask")
}

/// Becomes uid 0 of the new user namespace, whose maps have just been written.
fn become_root(plan: &InitPlan) -> Result<(), Failure> {
    if plan.namespaces.may_set_groups {
        rustix::thread::set_thread_groups(&[]).step("clear", "additional groups")?;
    }
    set_gid(0)?;
    set_uid(0)
}

/// Becomes uid 0 of a user namespace that was entered, where it has one.
pub(crate) fn become_root_inside() -> Result<(), Failure> {
    match set_gid(0).and_then(|()| set_uid(0)) {
        // An id that is not mapped cannot be taken; the rights are those of the namespace all the same.
        Err(failure) if failure.source.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

fn set_gid(gid: u32) -> Result<(), Failure> {
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).step_hint(
        "set",
        "gid",
        "the id must be in the user namespace's map",
    )
}

fn set_uid(uid: u32) -> Result<(), Failure> {
    let uid = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).step_hint(
        "set",
        "uid",
        "the id must be in the user namespace's map",
    )
}

/// Sets kernel parameters through the container's own /proc.
fn sysctl(root: &rootfs::Root, parameters: &[(PathBuf, String)]) -> Result<(), Failure> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    for (path, value) in parameters {
        let on = path.as_path();
        let file = root
            .open_with(on, OFlags::WRONLY, ResolveFlags::NO_SYMLINKS)
            .step_hint("open kernel parameter", on, "this kernel does not have it")?;
        // An image or volume that put something over /proc must not turn this into a write elsewhere
        // (CVE-2025-52881).
        if rustix::fs::fstatfs(file.as_fd()).step("statfs", on)?.f_type != PROC_SUPER_MAGIC {
            return Err(Errno::EXDEV).step("set kernel parameter", on);
        }
        std::fs::File::from(file).write_all(value.as_bytes()).step("set kernel parameter", on)?;
    }
    Ok(())
}

/// Takes the user, groups, limits and capabilities of the program, and its working folder. Gives its environment: as it was asked for,
/// and HOME by the container's /etc/passwd, as runc and crun do.
pub(crate) fn become_user(process: &ProcessPlan, socket: &Socket) -> Result<Vec<CString>, Failure> {
    let mut env = process.env.clone();
    if !env.iter().any(|variable| variable.as_bytes().starts_with(b"HOME=")) {
        let home = format!("HOME={}", crate::user::home_of(process.uid));
        env.extend(CString::new(home));
    }
    if process.listen_fds > 0 {
        let said = [
            ("LISTEN_FDS=", process.listen_fds),
            // As the program sees itself.
            ("LISTEN_PID=", std::process::id()),
        ];
        for (name, value) in said {
            env.retain(|variable| !variable.as_bytes().starts_with(name.as_bytes()));
            env.extend(CString::new(format!("{name}{value}")));
        }
    }
    devices::use_own_null();
    give_output_to(process.uid);
    if process.new_keyring {
        leave_keyring()?;
    }
    process.attributes.apply()?;
    if !process.no_new_privileges {
        // Without no_new_privs a filter may be loaded by CAP_SYS_ADMIN only, which goes away below.
        load_filter(process, socket)?;
    }
    for &(resource, soft, hard) in &process.rlimits {
        nix::sys::resource::setrlimit(resource, soft, hard).step_hint(
            "set resource limit",
            OsStr::new(&format!("{resource:?}")),
            "raising a hard limit needs CAP_SYS_RESOURCE",
        )?;
    }
    process.capabilities.bound()?;
    rustix::thread::set_keep_capabilities(true).step("keep", "capabilities")?;
    let timer = explain::timer();
    let groups: Vec<Gid> = process.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A user namespace with `setgroups` denied keeps the (unmapped) groups it was made with.
        Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
        result => result.step("set", "additional groups")?,
    }
    set_gid(process.gid)?;
    set_uid(process.uid)?;
    rustix::thread::set_keep_capabilities(false).step("drop", "kept capabilities")?;
    process.capabilities.apply()?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).step("set", "no_new_privs")?;
    }
    timer.note("capset", || rights_command(process));
    enter_cwd(&process.cwd)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    Ok(env)
}

/// What gives a program the same user and rights in a shell.
fn rights_command(process: &ProcessPlan) -> String {
    let mut words = vec![format!("setpriv --reuid {} --regid {}", process.uid, process.gid)];
    let groups: Vec<String> = process.groups.iter().map(u32::to_string).collect();
    words.push(if groups.is_empty() {
        "--clear-groups".to_owned()
    } else {
        format!("--groups {}", groups.join(","))
    });
    let bounding = process.capabilities.bounding_words();
    words.push(format!("--inh-caps -all --bounding-set {bounding}"));
    words.extend(process.no_new_privileges.then(|| "--no-new-privs".to_owned()));
    words.push(explain::word(
        &process.args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default(),
    ));
    words.join(" ")
}

fn load_filter(process: &ProcessPlan, socket: &Socket) -> Result<(), Failure> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    let timer = explain::timer();
    match filter.load() {
        Ok(None) => {
            timer.note("seccomp", || {
                let number = filter.instructions();
                format!("# seccomp(SECCOMP_SET_MODE_FILTER), {number} instructions: no program of a shell does this")
            });
            Ok(())
        }
        // The profile holds from here on; calls that it leaves to the agent wait until that has the listener.
        Ok(Some(listener)) => socket
            .send(&Message::Listener, Some(listener.as_raw_fd()))
            .step_hint("hand over", "seccomp listener", "the profile must allow sendmsg"),
        Err(SeccompError::Load { source, hint, .. }) => {
            Err(source).step_hint("load", "seccomp filter", hint)
        }
        Err(_) => Err(Errno::EINVAL).step("load", "seccomp filter"),
    }
}

/// Makes the user the owner of the pipes and sockets that the program has as its input and output, so that it can open `/dev/stdout` anew; the
/// other runtimes do that, too, but with files as well, which are somebody's. What cannot be given away stays.
fn give_output_to(user: u32) {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_uid != user && matches!(kind, FileType::Fifo | FileType::Socket) {
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(user)), None);
        }
    }
}

/// Keys of the session that the runtime was called in (`session-keyring(7)`) are not for the container, nor its keys for who runs
/// `exec`.
fn leave_keyring() -> Result<(), Failure> {
    match new_session_keyring() {
        // The kernel has no keys, or a filter around the runtime keeps all in it away from them.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        result => result.step_hint(
            "join",
            "a new session keyring",
            "a user's keys have a quota (/proc/sys/kernel/keys); --no-new-keyring leaves the caller's to the container",
        ),
    }
}

/// Enters the working folder, as the user that will work there.
fn enter_cwd(cwd: &Path) -> Result<(), Failure> {
    let entered = rustix::process::chdir(cwd);
    let hint = match entered {
        Err(rustix::io::Errno::NOENT) => "make it first, or name another; exec makes none",
        _ => "",
    };
    entered.step_hint("enter working folder", cwd, hint)?;
    // A working folder reached through a leaked descriptor lies outside the root (CVE-2024-21626); the kernel
    // then has no absolute path for it.
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().first() == Some(&b'/') => Ok(()),
        _ => Err(Errno::EXDEV).step_hint(
            "enter working folder",
            cwd,
            "it lies outside the container's root",
        ),
    }
}

/// Replaces this process by the program.
pub(crate) fn execute(
    process: &ProcessPlan,
    env: &[CString],
    socket: &Socket,
    labels: &OpenLabels,
    preserve_fds: u32,
) -> Result<Infallible, Failure> {
    // Nothing but stdin, stdout, stderr and what was asked for outlives this (CVE-2024-21626). The socket, too, closes
    // on success: that is how the runtime knows.
    close_on_exec_from(3 + preserve_fds).step("set close-on-exec on", "descriptors")?;
    if process.no_new_privileges {
        // As late as can be, so that the profile need not allow what the set-up does.
        load_filter(process, socket)?;
    }
    labels.take()?;
    explain::timer().note(explain::EXECVE, || exec_command(process));
    if let Err(Some(failure)) = tell_steps(socket) {
        return Err(failure);
    }
    let program = process.args.first().cloned().unwrap_or_default();
    let mut denied = None;
    let mut found = None;
    for candidate in candidates(&program, &process.env) {
        let Err(error) = nix::unistd::execve(&candidate, &process.args, env);
        match error {
            Errno::ENOENT | Errno::ENOTDIR => {
                if rustix::fs::access(candidate.as_c_str(), rustix::fs::Access::EXISTS).is_ok() {
                    found = Some(candidate);
                }
            }
            Errno::EACCES => denied = Some(candidate),
            error => return Err(not_executable(&candidate, error)),
        }
    }
    if let Some(candidate) = denied {
        return Err(not_executable(&candidate, Errno::EACCES));
    }
    Err(not_found(program, found))
}

/// Replaces this process by terrarium's init, which executes the program as its child.
fn execute_reaper(
    process: &ProcessPlan,
    env: &[CString],
    socket: &Socket,
    labels: &OpenLabels,
    reaper: &OwnedFd,
    preserve_fds: u32,
) -> Result<Infallible, Failure> {
    // What the init could not say any more is told by the runtime.
    let program = look_for_program(process)?;
    close_on_exec_from(3 + preserve_fds).step("set close-on-exec on", "descriptors")?;
    if process.no_new_privileges {
        load_filter(process, socket)?;
    }
    labels.take()?;
    let mut args = vec![c"terrarium-init".into(), program];
    args.extend(process.args.iter().cloned());
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    nix::unistd::execveat(reaper.as_fd(), c"", &args, env, flags).step("execute", "terrarium-init")
}

fn exec_command(process: &ProcessPlan) -> String {
    let words = process.args.iter().map(|arg| explain::word(&arg.to_string_lossy()));
    std::iter::once("exec".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn not_found(program: CString, found: Option<CString>) -> Failure {
    let (on, hint) = match found {
        Some(path) => (path, "the file is there, but its interpreter or ELF loader is not"),
        None if program.as_bytes().contains(&b'/') => {
            (program, "no such file in the root filesystem")
        }
        None => (program, "no such program in any folder of PATH in the root filesystem"),
    };
    Failure {
        kind: FailureKind::NotFound,
        step: "execute".into(),
        on: on.to_string_lossy().into_owned(),
        source: Errno::ENOENT.into(),
        hint: hint.into(),
    }
}

/// Whether there is something to execute, as far as can be told without doing it.
fn look_for_program(process: &ProcessPlan) -> Result<CString, Failure> {
    let program = process.args.first().cloned().unwrap_or_default();
    let mut denied = None;
    for candidate in candidates(&program, &process.env) {
        let Ok(stat) = rustix::fs::stat(candidate.as_c_str()) else { continue };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let may = rustix::fs::Access::EXEC_OK;
        // The ids that count are those of the program's user, which this process has by now.
        if is_file && rustix::fs::access(candidate.as_c_str(), may).is_ok() {
            return Ok(candidate);
        }
        denied = Some(candidate);
    }
    match denied {
        Some(candidate) => Err(not_executable(&candidate, Errno::EACCES)),
        None => Err(not_found(program, None)),
    }
}

fn not_executable(path: &CString, error: Errno) -> Failure {
    let hint = match error {
        Errno::EACCES => "it is a folder, lacks the x permission, or lies on a noexec mount",
        Errno::ENOEXEC => "it is neither a script with #! nor a program for this machine",
        _ => "",
    };
    Failure {
        kind: FailureKind::NotExecutable,
        step: "execute".into(),
        on: path.to_string_lossy().into_owned(),
        source: error.into(),
        hint: hint.into(),
    }
}

/// Where execvp(3) would look for `program`.
fn candidates(program: &CString, env: &[CString]) -> Vec<CString> {
    let name = program.as_bytes();
    if name.contains(&b'/') || name.is_empty() {
        return vec![program.clone()];
    }
    let path = env
        .iter()
        .find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path.split(|&b| b == b':')
        .map(|folder| {
            let mut full = if folder.is_empty() { b".".to_vec() } else { folder.to_vec() };
            full.push(b'/');
            full.extend_from_slice(name);
            CString::new(full).expect("parts of C strings have no NUL")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_searched_as_execvp_does() {
        let check = |program: &str, env: &[&str], expected: &[&str]| {
            let env: Vec<CString> = env.iter().map(|&e| CString::new(e).unwrap()).collect();
            let found = candidates(&CString::new(program).unwrap(), &env);
            let found: Vec<_> = found.iter().map(|c| c.to_str().unwrap()).collect();
            assert_eq!(found, expected);
        };
        check("/bin/sh", &["PATH=/a"], &["/bin/sh"]);
        check("./sh", &[], &["./sh"]);
        check("sh", &["A=b", "PATH=/a:/b"], &["/a/sh", "/b/sh"]);
        check("sh", &["PATH=:/b"], &["./sh", "/b/sh"]);
        assert_eq!(candidates(&c"sh".into(), &[]).len(), 6);
    }
}
