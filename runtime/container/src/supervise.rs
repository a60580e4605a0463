//! The process that waits for a container: signals in, exit code out.

use crate::console::Relay;
use crate::error::{Result, Tried};
use crate::log::Log;
use crate::signal::{Disposition, SignalNumber, disposition};
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Signals that are passed on to the container.
const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// Signals by which people want an end: at the third one the container is killed.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// A process that somebody waits for: a container's first one, or one of `exec`.
pub trait Supervised {
    /// Its host pid.
    fn pid(&self) -> i32;
    /// Whether the kernel keeps signals from it whose action is the default one.
    fn is_shielded(&self) -> bool;
    /// Sends a signal; one that has ended is no error.
    fn send(&self, signal: SignalNumber) -> Result<()>;
    /// The exit code as a shell gives it, if it has ended.
    fn try_wait(&self) -> Result<Option<i32>>;
    /// Its terminal, tied to the runtime's own.
    fn terminal(&self) -> Option<&Relay>;
    /// The file that it writes to, to be kept small.
    fn log(&self) -> Option<&Log> {
        None
    }
}

/// Signals, held back from now on so that none of them can end this process halfway through making or removing
/// a container. They wait until [`Signals::wait_for`] passes them on.
#[derive(Debug)]
pub struct Signals {
    set: SigSet,
    asked_to_end: Cell<bool>,
    /// Whether processes that have lost their parent become children of this one.
    adopts: Cell<bool>,
}

impl Signals {
    /// Blocks the forwarded signals and SIGCHLD in this (the only) thread.
    pub fn block() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in FORWARDED {
            set.add(signal);
        }
        set.add(Signal::SIGCHLD);
        // Whoever started us may have ignored SIGCHLD; then the kernel would reap the container, exit code and all.
        // SAFETY: SIG_DFL installs no handler, so no code of ours can run in signal context.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.tried("reset", "SIGCHLD")?;
        set.thread_block().tried("block", "signals")?;
        Ok(Self { set, asked_to_end: Cell::new(false), adopts: Cell::new(false) })
    }

    /// Makes this process the parent of those below it that lose theirs (`PR_SET_CHILD_SUBREAPER`, prctl(2)), as those of a
    /// container without a pid namespace of its own do, and [`Signals::wait_for`] their reaper.
    pub fn adopt_orphans(&self) -> Result<()> {
        nix::sys::prctl::set_child_subreaper(true).tried("become", "child subreaper")?;
        self.adopts.set(true);
        Ok(())
    }

    /// Whether a signal came by which people want an end.
    pub(crate) fn asked_to_end(&self) -> bool {
        self.asked_to_end.get()
    }

    /// Waits `pause` long, or until such a signal comes; whether one has.
    pub(crate) fn end_asked_within(&self, pause: Duration) -> Result<bool> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&self.set, flags).tried("make", "signalfd")?;
        let limit = Timespec::try_from(pause).unwrap_or_default();
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error)).tried("wait for", "signals"),
        }
        while let Some(signal) = next_signal(&fd)? {
            if ENDING.contains(&signal) {
                self.asked_to_end.set(true);
            }
        }
        Ok(self.asked_to_end())
    }

    /// Waits until the container's first process has ended and gives its exit code as a shell does.
    ///
    /// Signals are passed on. A first process is shielded by the kernel from signals whose action is the default one
    /// (`pid_namespaces(7)`), so `sleep` as a container would survive Ctrl-C: where the default action is to end the
    /// process, and it neither catches, blocks nor ignores the signal, it is ended here.
    pub fn wait_for(&self, container: &dyn Supervised) -> Result<i32> {
        let mut ended_by = None;
        let mut endings = 0;
        loop {
            if let Some(code) = container.try_wait()? {
                return Ok(ended_by.map_or(code, |signal: SignalNumber| 128 + signal.number()));
            }
            let signal = match (container.terminal(), container.log()) {
                (Some(terminal), _) => terminal.wait(&self.set)?,
                (None, Some(log)) => log.wait(&self.set)?,
                (None, None) => match self.set.wait() {
                    Ok(signal) => signal,
                    Err(Errno::EINTR) => continue,
                    Err(error) => return Err(error).tried("wait for", "signals"),
                },
            };
            if signal == Signal::SIGCHLD {
                if self.adopts.get() {
                    reap_all_but(container.pid())?;
                }
                continue;
            }
            if signal == Signal::SIGWINCH
                && let Some(terminal) = container.terminal()
            {
                // The kernel tells the container's foreground processes.
                terminal.resize();
                continue;
            }
            let number = SignalNumber::from(signal);
            if ENDING.contains(&signal) {
                endings += 1;
                self.asked_to_end.set(true);
            }
            let shielded = container.is_shielded()
                && signal != Signal::SIGWINCH
                && disposition(container.pid(), number) == Disposition::Default;
            if shielded || endings > 2 {
                ended_by = Some(number);
                container.send(SignalNumber::KILL)?;
            } else {
                container.send(number)?;
            }
        }
    }
}

/// Reaps the children that have ended, up to the one that is waited for elsewhere.
fn reap_all_but(pid: i32) -> Result<()> {
    loop {
        let ended = match waitid(
            Id::All,
            WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT,
        ) {
            Ok(status) => status.pid(),
            Err(Errno::ECHILD) => None,
            Err(error) => return Err(error).tried("wait for", "children"),
        };
        let Some(child) = ended.filter(|child| child.as_raw() != pid) else { return Ok(()) };
        // Nobody else waits for it, but for a helper of this process, whose end is enough for it.
        let _ = waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}

/// The next signal that has come, if one has.
pub(crate) fn next_signal(fd: &SignalFd) -> Result<Option<Signal>> {
    let info = fd.read_signal().tried("read", "signalfd")?;
    Ok(info.and_then(|info| {
        i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }))
}

/// On which side of [`fork_supervisor`] the caller is.
#[derive(Debug)]
pub enum Fork {
    /// In the process that called.
    Caller(Reader),
    /// In the new process, a session of its own, whose standard input and output lead nowhere once it has reported.
    Supervisor(Writer),
}

/// Forks a process that will wait for a container while its caller goes on.
///
/// The caller must have one thread only.
pub fn fork_supervisor() -> Result<Fork> {
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).tried("make", "pipe")?;
    // SAFETY: the caller has one thread, so the child may do anything that the parent might.
    match unsafe { nix::unistd::fork() }.tried("fork", "supervisor")? {
        nix::unistd::ForkResult::Parent { .. } => Ok(Fork::Caller(Reader(reader))),
        nix::unistd::ForkResult::Child => {
            drop(reader);
            rustix::process::setsid().tried("setsid", "supervisor")?;
            Ok(Fork::Supervisor(Writer(writer)))
        }
    }
}

/// The caller's end.
#[derive(Debug)]
pub struct Reader(OwnedFd);

/// What the supervisor reported: the id, or exit code and text of an error.
pub type Outcome = std::result::Result<String, (u8, String)>;

impl Reader {
    /// Waits for the supervisor's report.
    pub fn read(self) -> Result<Outcome> {
        let mut bytes = Vec::new();
        std::fs::File::from(self.0).read_to_end(&mut bytes).tried("read from", "supervisor")?;
        let died = || (125, "the supervisor died while it created the container".to_owned());
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| Err(died())))
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Writer(OwnedFd);

impl Writer {
    /// The container runs. Lets go of the caller's terminal and pipes.
    pub fn started(self, id: &str) -> Result<()> {
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .tried("open", "/dev/null")?;
        rustix::stdio::dup2_stdin(&null).tried("redirect", "stdin")?;
        rustix::stdio::dup2_stdout(&null).tried("redirect", "stdout")?;
        rustix::stdio::dup2_stderr(&null).tried("redirect", "stderr")?;
        self.report(&Ok(id.to_owned()))
    }

    /// There is no container.
    pub fn failed(self, code: u8, text: &str) -> Result<()> {
        self.report(&Err((code, text.to_owned())))
    }

    fn report(self, outcome: &Outcome) -> Result<()> {
        let bytes = serde_json::to_vec(outcome).expect("a string and a number");
        std::fs::File::from(self.0).write_all(&bytes).tried("report to", "caller")
    }
}
