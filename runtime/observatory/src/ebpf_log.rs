//! The programs' own log, for those who work on them: written by aya-log, told on stderr.

use aya::Ebpf;
use aya_log::EbpfLogger;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Reads the log.
pub struct EbpfLog {
    logger: EbpfLogger<Stderr>,
}

/// Writes what it is given to stderr.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("ebpf {} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

impl EbpfLog {
    /// Takes the log of a loaded object.
    pub fn new(ebpf: &mut Ebpf) -> io::Result<Self> {
        EbpfLogger::init_with_logger(ebpf, Stderr)
            .map(|logger| Self { logger })
            .map_err(io::Error::other)
    }

    /// Readable when there is something to tell.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.logger.as_fd()
    }

    /// Tells what has come.
    pub fn tell(&mut self) {
        self.logger.flush();
    }
}
