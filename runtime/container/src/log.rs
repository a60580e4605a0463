//! What a detached container writes, and how that is kept from growing without end.
//!
//! The container writes into the file itself: nothing stands between that could lose a line or must be woken for each. What is
//! too old is given back as a hole at the beginning (`FALLOC_FL_PUNCH_HOLE` of fallocate(2)), so no file changes its name or is
//! copied, and the container and whoever follows keep their places. The file lies in memory, as a rule (`/run`), and its pages
//! are charged to the container's own limit.

use crate::error::{Result, Tried};
use crate::supervise::next_signal;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, fallocate};
use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Bytes that are kept unless somebody asks for more or less.
pub const LOG_BYTES: u64 = 16 << 20;

/// How often a file that grows is looked at, and one that has not grown for a while. An inotify instance would tell, but a user
/// has 128 of them, and others need them.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(4);

/// Holes end at a multiple of this: of the pages and blocks of every usual filesystem.
const STEP: u64 = 64 << 10;

/// The log of a container that this process waits for.
#[derive(Debug)]
pub struct Log {
    file: File,
    /// Bytes to keep; 0 for all.
    keep: u64,
    size: Cell<u64>,
    hole: Cell<u64>,
}

impl Log {
    /// Opens or makes the file at `path`, of which the last `keep` bytes are kept; all for 0.
    pub(crate) fn open(path: &Path, keep: u64) -> Result<Self> {
        Ok(Self { file: open(path)?, keep, size: Cell::new(0), hole: Cell::new(0) })
    }

    /// Waits for one of the (blocked) `signals`, and meanwhile gives back what is too old.
    pub(crate) fn wait(&self, signals: &SigSet) -> Result<Signal> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(signals, flags).tried("make", "signalfd")?;
        let mut pause = SHORTEST;
        loop {
            if let Some(signal) = next_signal(&fd)? {
                return Ok(signal);
            }
            let limit = Timespec::try_from(pause).ok().filter(|_| self.keep > 0);
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error)).tried("wait for", "signals"),
            }
            pause = if self.look() { SHORTEST } else { LONGEST.min(pause * 2) };
        }
    }

    /// Gives back what is too old; whether it has grown since the last look.
    pub(crate) fn look(&self) -> bool {
        let Ok(size) = self.file.metadata().map(|metadata| metadata.len()) else { return false };
        // The container can cut its own standard output short.
        self.hole.set(self.hole.get().min(size));
        let end = size.saturating_sub(self.keep) / STEP * STEP;
        // A quarter more than is kept, so that it is not done for every line.
        if self.keep > 0 && end > self.hole.get() && size - self.hole.get() > self.keep / 4 * 5 {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A filesystem that knows no holes keeps all.
            let _ = fallocate(&self.file, flags, 0, end);
            self.hole.set(end);
        }
        self.size.replace(size) != size
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens the file for writing at its end, wherever that is at each write.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path).tried("create", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_too_old_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::open(&path, 1 << 20).unwrap();
        assert!(!log.look());
        let mut writer = open(&path).unwrap();
        for round in 1..=40_u64 {
            writer.write_all(&vec![b'x'; 100_000]).unwrap();
            assert!(log.look(), "it has grown");
            let metadata = writer.metadata().unwrap();
            assert_eq!(metadata.len(), round * 100_000);
            // Blocks are of 512 bytes; a filesystem may prepare some more.
            assert!(metadata.blocks() * 512 < 3 << 20, "{} blocks", metadata.blocks());
        }
        assert!(!log.look());
        let all = std::fs::read(&path).unwrap();
        assert!(all[..100_000].iter().all(|byte| *byte == 0));
        assert!(all[all.len() - (1 << 20)..].iter().all(|byte| *byte == b'x'));
    }

    #[test]
    fn all_is_kept_where_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::open(&path, 0).unwrap();
        open(&path).unwrap().write_all(&vec![b'x'; 300_000]).unwrap();
        assert!(log.look());
        assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 300_000]);
    }
}
