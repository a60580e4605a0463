//! The process that waits for a container: signals in, exit code out.

use crate::container::Container;
use crate::error::{Result, Tried};
use crate::signal::{Disposition, SignalNumber, disposition};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

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

/// Signals, held back from now on so that none of them can end this process halfway through making or removing
/// a container. They wait until [`Signals::wait_for`] passes them on.
#[derive(Debug)]
pub struct Signals {
    set: SigSet,
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
        Ok(Self { set })
    }

    /// Waits until the container's first process has ended and gives its exit code as a shell does.
    ///
    /// Signals are passed on. A first process is shielded by the kernel from signals whose action is the default one
    /// (pid_namespaces(7)), so `sleep` as a container would survive Ctrl-C: where the default action is to end the
    /// process, and it neither catches, blocks nor ignores the signal, it is ended here.
    pub fn wait_for(&self, container: &Container) -> Result<i32> {
        let mut ended_by = None;
        let mut endings = 0;
        loop {
            if let Some(code) = container.try_wait()? {
                return Ok(ended_by.map_or(code, |signal: SignalNumber| 128 + signal.number()));
            }
            let signal = match self.set.wait() {
                Ok(signal) => signal,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error).tried("wait for", "signals"),
            };
            if signal == Signal::SIGCHLD {
                continue;
            }
            let number = SignalNumber::from(signal);
            endings += u32::from(ENDING.contains(&signal));
            let shielded = container.has_own_pid_namespace()
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
