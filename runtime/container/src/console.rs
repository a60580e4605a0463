//! Terminals: the pty of a container, and who holds its master.

use crate::error::{Error, Result, Tried};
use crate::init::{Failure, Step};
use crate::log::Log;
use crate::mount::{attach, clone_tree};
use crate::rootfs::Root;
use crate::supervise::next_signal;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use oci_spec::runtime::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::termios::{OptionalActions, Termios, Winsize};
use std::cell::{OnceCell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// How long what the container wrote last may take to be shown.
const DRAIN: Duration = Duration::from_millis(500);

/// A terminal that a process asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TerminalPlan {
    /// Rows and columns; the runtime's own terminal's if there are none.
    pub size: Option<(u16, u16)>,
    /// Its owner inside.
    pub uid: u32,
}

impl TerminalPlan {
    /// Reads `process.terminal` and `process.consoleSize`.
    pub(crate) fn from_spec(process: &Process) -> Option<Self> {
        let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        (process.terminal() == Some(true)).then(|| Self {
            size: process
                .console_size()
                .filter(|size| size.height() > 0 && size.width() > 0)
                .map(|size| (cells(size.height()), cells(size.width()))),
            uid: process.user().uid(),
        })
    }
}

/// Makes a pty in the container's devpts and takes it as the controlling terminal, standard input, output and error.
/// Gives the master. The caller leads a session without a terminal.
///
/// `root`: the container's root if it is not entered yet; then the pty is also bound on `/dev/console`.
pub(crate) fn open(plan: TerminalPlan, root: Option<&Root>) -> Result<OwnedFd, Failure> {
    let path = Path::new("/dev/pts/ptmx");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let hint = "a terminal needs a devpts with newinstance at /dev/pts among the mounts";
    let master = match root {
        Some(root) => root.open_with(path, flags, ResolveFlags::NO_SYMLINKS),
        None => rustix::fs::openat2(
            CWD,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        ),
    }
    .step_hint("open", path, hint)?;
    // Whatever else an image has there must not become the engine's console (CVE-2025-52565).
    let stat = rustix::fs::fstat(master.as_fd()).step("stat", path)?;
    let magic = rustix::fs::fstatfs(master.as_fd()).step("statfs", path)?.f_type;
    if stat.st_rdev != rustix::fs::makedev(5, 2) || magic != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENXIO)).step_hint("open", path, hint);
    }
    rustix::pty::unlockpt(master.as_fd()).step("unlock", path)?;
    // By the master, not by a name that could be led elsewhere. Since Linux 4.13.
    let slave = rustix::pty::ioctl_tiocgptpeer(
        master.as_fd(),
        rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC,
    )
    .step("open", "pty")?;
    // Here, and not by whoever passes its bytes on: that may come to it after the program has looked.
    if let Some((rows, columns)) = plan.size.or_else(own_size) {
        set_size(master.as_fd(), rows, columns).step("set the size of", "pty")?;
    }
    // A program that is not root opens its own terminal again by /dev/tty or /dev/stdout.
    match rustix::fs::fchown(slave.as_fd(), Some(rustix::fs::Uid::from_raw(plan.uid)), None) {
        // An id that the user namespace does not map.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
        result => result.step("change owner of", "pty")?,
    }
    if let Some(root) = root {
        let console = Path::new("/dev/console");
        let target = root.ensure_file(console).step("make", console)?;
        let copy = clone_tree(slave.as_fd(), c"", false).step("bind", console)?;
        attach(copy.as_fd(), target.as_fd()).step("bind", console)?;
    }
    rustix::process::ioctl_tiocsctty(slave.as_fd()).step("take as controlling terminal", "pty")?;
    rustix::stdio::dup2_stdin(&slave).step("redirect", "stdin")?;
    rustix::stdio::dup2_stdout(&slave).step("redirect", "stdout")?;
    rustix::stdio::dup2_stderr(&slave).step("redirect", "stderr")?;
    Ok(master)
}

/// Rows and columns of the terminal that standard input is, if it is one that has a size.
fn own_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    (size.ws_row > 0).then_some((size.ws_row, size.ws_col))
}

fn set_size(master: BorrowedFd<'_>, rows: u16, columns: u16) -> rustix::io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size)
}

/// Sends `master` to whoever listens on the unix socket `path` (runtime-spec has no words for it; this is what runc's
/// `--console-socket` does).
pub(crate) fn send(path: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let hint = "the engine must listen there before it calls terrarium";
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .tried("make", "socket")?;
    with_short_path(path, |short| connect(stream.as_raw_fd(), &UnixAddr::new(short)?))
        .tried_hint("connect to console socket", path, hint)?;
    let fds = [master.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let name = [IoSlice::new(b"/dev/ptmx")];
    sendmsg::<()>(stream.as_raw_fd(), &name, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .tried_hint("send terminal to", path, hint)?;
    Ok(())
}

/// Calls `use_path` with a path to the same file that fits into a socket address of 108 bytes.
pub(crate) fn with_short_path<T>(
    path: &Path,
    use_path: impl FnOnce(&Path) -> nix::Result<T>,
) -> io::Result<T> {
    let (folder, name) = (path.parent(), path.file_name());
    let (Some(folder), Some(name)) = (folder, name) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let short = crate::mount::fd_path(folder.as_fd()).join(name);
    Ok(use_path(&short)?)
}

/// The runtime's own terminal, tied to the master of a container's. When it goes, the terminal is as it was.
///
/// There are no threads: after it entered another pid namespace a process may not start any.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// Where what the container writes goes, instead of standard output; then it gets no input.
    log: Option<Log>,
    saved: Option<Termios>,
    typed: RefCell<Typed>,
    signals: OnceCell<SignalFd>,
}

/// Input on its way to the container.
#[derive(Debug, Default)]
struct Typed {
    pending: Vec<u8>,
    ended: bool,
}

impl Relay {
    /// Ties standard input and output to `master`.
    pub(crate) fn start(master: OwnedFd) -> Result<Self> {
        let stdin = rustix::stdio::stdin();
        let mut saved = None;
        if let Ok(before) = rustix::termios::tcgetattr(stdin) {
            let mut raw = before.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)
                .tried("set to raw mode", "terminal")?;
            saved = Some(before);
        }
        // Neither side may make the other wait.
        rustix::io::ioctl_fionbio(master.as_fd(), true).tried("make nonblocking", "terminal")?;
        let (typed, signals) = (RefCell::default(), OnceCell::new());
        let relay = Self { master, log: None, saved, typed, signals };
        // It may have changed since the container's terminal was made.
        relay.resize();
        Ok(relay)
    }

    /// Writes what comes from `master` into `log`, for a container without anybody at its terminal.
    pub(crate) fn into(master: OwnedFd, log: Log) -> Result<Self> {
        rustix::io::ioctl_fionbio(master.as_fd(), true).tried("make nonblocking", "terminal")?;
        let typed = RefCell::new(Typed { ended: true, ..Typed::default() });
        Ok(Self { master, log: Some(log), saved: None, typed, signals: OnceCell::new() })
    }

    /// Gives the container's terminal the size of the runtime's own.
    pub(crate) fn resize(&self) {
        if self.log.is_some() {
            return;
        }
        if let Some((rows, columns)) = own_size() {
            // Nothing depends on it.
            let _ = set_size(self.master.as_fd(), rows, columns);
        }
    }

    /// Passes bytes on both ways until one of the (blocked) `signals` comes.
    pub(crate) fn wait(&self, signals: &SigSet) -> Result<Signal> {
        let fd = if let Some(fd) = self.signals.get() {
            fd
        } else {
            let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
            let fd = SignalFd::with_flags(signals, flags).tried("make", "signalfd")?;
            self.signals.get_or_init(|| fd)
        };
        let mut hung_up = false;
        loop {
            if let Some(signal) = next_signal(fd)? {
                return Ok(signal);
            }
            let mut typed = self.typed.borrow_mut();
            let out = if typed.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            let mut fds = vec![PollFd::new(fd, PollFlags::IN)];
            if !hung_up {
                fds.push(PollFd::new(&self.master, PollFlags::IN | out));
                if typed.pending.is_empty() && !typed.ended {
                    fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
                }
            }
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.tried("wait for", "terminal")?,
            };
            let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            let ready = |n: usize| events.get(n).copied().unwrap_or(PollFlags::empty());
            if !ready(2).is_empty() {
                typed.read();
            }
            if ready(1).contains(PollFlags::OUT) || !typed.pending.is_empty() {
                typed.write(self.master.as_fd());
            }
            if ready(1).intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                // Whoever has it open may be gone for good, or only for now.
                hung_up = !self.show();
            }
        }
    }

    /// Shows what the container has written; false when nobody has the terminal open.
    fn show(&self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match rustix::io::read(self.master.as_fd(), &mut bytes) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Ok(0) | Err(_) => false,
            Ok(n) => {
                let mut rest = &bytes[..n];
                while !rest.is_empty() {
                    let out = self.log.as_ref().map_or(rustix::stdio::stdout(), AsFd::as_fd);
                    match rustix::io::write(out, rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                        // Nobody reads; the container need not wait for that.
                        Err(_) => break,
                    }
                }
                if let Some(log) = &self.log {
                    log.look();
                }
                true
            }
        }
    }

    /// Shows what the container wrote last, and restores the terminal.
    pub(crate) fn finish(self) {
        let deadline = Instant::now() + DRAIN;
        loop {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            // A process that stays behind may hold the terminal open: then nobody waits for it.
            let ready = poll(&mut fds, Some(&wait)).unwrap_or(0) > 0;
            if !ready || !self.show() || Instant::now() > deadline {
                return;
            }
        }
    }
}

impl Typed {
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(n @ 1..) => self.pending.extend_from_slice(&bytes[..n]),
            Ok(0) | Err(_) => {
                self.ended = true;
                if !rustix::termios::isatty(rustix::stdio::stdin()) {
                    // End of file on a pipe: what Ctrl-D says on a terminal.
                    self.pending.push(4);
                }
            }
        }
    }

    fn write(&mut self, master: BorrowedFd<'_>) {
        match rustix::io::write(master, &self.pending) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // Nobody will read it.
            Err(_) => self.pending.clear(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // The terminal may be gone.
            let _ =
                rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, saved);
        }
    }
}

/// Checks that the caller has said where a terminal is to go.
pub(crate) fn check(terminal: bool, socket: Option<&Path>, detached: bool) -> Result<()> {
    match (terminal, socket) {
        (false, Some(path)) => Err(Error::invalid(
            "--console-socket",
            path.display().to_string(),
            "process.terminal is not true, so there is no terminal to send",
        )),
        (true, None) if detached => Err(Error::unsupported(
            "a terminal without anybody to hold it",
            "give --console-socket, or set process.terminal to false",
        )),
        _ => Ok(()),
    }
}
