//! What a detached container writes, and how that is kept from growing without end.
//!
//! The container writes into a pipe, which its supervisor empties into the file: were the file itself its output, `> /dev/stdout` in a script
//! would cut the log short. What is too old is given back as a hole at the beginning (`FALLOC_FL_PUNCH_HOLE` of
//! fallocate(2)), so no file changes its name or is copied, and whoever follows keeps his place.

use crate::error::{Result, Tried};
use crate::supervise::next_signal;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::pipe::PipeFlags;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes that are kept unless somebody asks for more or less.
pub const LOG_BYTES: u64 = 16 << 20;

/// Holes end at a multiple of this: of the pages and blocks of every usual filesystem.
const STEP: u64 = 64 << 10;

/// How much is read at once, and how much a pipe may hold for who is not root (`/proc/sys/fs/pipe-max-size`, pipe(7)).
const PIECE: usize = 16 << 10;
const MOST_IN_PIPE: usize = 1 << 20;

/// The log of a container that this process waits for.
#[derive(Debug)]
pub struct Log {
    file: File,
    /// What the container writes to, where that is no terminal; none once nobody can write there any more.
    output: RefCell<Option<OwnedFd>>,
    /// Bytes to keep; 0 for all.
    keep: u64,
    hole: Cell<u64>,
}

impl Log {
    /// Opens or makes the file at `path`, of which the last `keep` bytes are kept; all for 0.
    ///
    /// `output` is the end of [`pipe`] that is read.
    pub(crate) fn open(path: &Path, keep: u64, output: Option<OwnedFd>) -> Result<Self> {
        let file = File::options().create(true).append(true).mode(0o600).open(path);
        let file = file.tried("create", path)?;
        Ok(Self { file, output: RefCell::new(output), keep, hole: Cell::new(0) })
    }

    /// Waits for one of the (blocked) `signals`, and meanwhile writes what the container says.
    pub(crate) fn wait(&self, signals: &SigSet) -> Result<Signal> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(signals, flags).tried("make", "signalfd")?;
        loop {
            if let Some(signal) = next_signal(&fd)? {
                return Ok(signal);
            }
            let said = {
                let output = self.output.borrow();
                let mut fds = vec![PollFd::new(&fd, PollFlags::IN)];
                fds.extend(output.iter().map(|output| PollFd::new(output, PollFlags::IN)));
                match poll(&mut fds, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        return Err(std::io::Error::from(error)).tried("wait for", "signals");
                    }
                }
                fds.get(1).is_some_and(|output| !output.revents().is_empty())
            };
            if said {
                self.take();
            }
        }
    }

    /// Writes what the container has said and nobody has read yet. Whom it left behind may say more, without end; nobody waits for that.
    pub(crate) fn drain(&self) {
        let mut left = MOST_IN_PIPE / PIECE;
        while left > 0 && self.take() {
            left -= 1;
        }
    }

    /// Writes a piece of it; whether there was any.
    fn take(&self) -> bool {
        let mut output = self.output.borrow_mut();
        let Some(fd) = &*output else { return false };
        let mut bytes = [0; PIECE];
        match rustix::io::read(fd, &mut bytes) {
            Ok(length @ 1..) => {
                // Where there is no space the container need not wait for some.
                let _ = (&self.file).write_all(&bytes[..length]);
                self.look();
                true
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(rustix::io::Errno::AGAIN) => false,
            Ok(0) | Err(_) => {
                *output = None;
                false
            }
        }
    }

    /// Gives back what is too old.
    pub(crate) fn look(&self) {
        let Ok(size) = self.file.metadata().map(|metadata| metadata.len()) else { return };
        let end = size.saturating_sub(self.keep) / STEP * STEP;
        // A quarter more than is kept, so that it is not done for every line.
        if self.keep > 0 && end > self.hole.get() && size - self.hole.get() > self.keep / 4 * 5 {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A filesystem that knows no holes keeps all.
            let _ = fallocate(&self.file, flags, 0, end);
            self.hole.set(end);
        }
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A pipe for what a container writes: the end that is read, without waiting, and the one for the container. Any user of the container may open
/// it anew, as `/dev/stdout`: who reaches it there may see the process that has it.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let make = || {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(ours.as_fd(), true)?;
        rustix::fs::fchmod(&theirs, 0o666.into())?;
        Ok((ours, theirs))
    };
    make().map_err(|error: rustix::io::Errno| std::io::Error::from(error)).tried("make", "pipe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_too_old_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (ours, theirs) = pipe().unwrap();
        let log = Log::open(&path, 1 << 20, Some(ours)).unwrap();
        let mut writer = File::from(theirs);
        for round in 1..=80_u64 {
            writer.write_all(&vec![b'x'; 50_000]).unwrap();
            log.drain();
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(metadata.len(), round * 50_000);
            // Blocks are of 512 bytes; a filesystem may prepare some more.
            assert!(metadata.blocks() * 512 < 3 << 20, "{} blocks", metadata.blocks());
        }
        let all = std::fs::read(&path).unwrap();
        assert!(all[..100_000].iter().all(|byte| *byte == 0));
        assert!(all[all.len() - (1 << 20)..].iter().all(|byte| *byte == b'x'));
    }

    #[test]
    fn all_is_kept_where_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (ours, theirs) = pipe().unwrap();
        let log = Log::open(&path, 0, Some(ours)).unwrap();
        let mut writer = File::from(theirs);
        for _ in 0..6 {
            writer.write_all(&vec![b'x'; 50_000]).unwrap();
            log.drain();
        }
        drop(writer);
        log.drain();
        assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 300_000]);
    }
}
