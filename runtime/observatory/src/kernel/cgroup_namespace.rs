//! The cgroup namespace that this process is in.
//!
//! `/proc/PID/cgroup` and mountinfo tell paths relative to the root of the reader's (`cgroup_namespaces(7)`). A container has
//! one of its own unless it was started with the host's, which not every engine can be asked for.

use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The inode number of the first cgroup namespace, `PROC_CGROUP_INIT_INO` (`linux/proc_ns.h`).
const INITIAL: u64 = 0xEFFF_FFFB;

/// Enters the host's, where this thread is in another: that of kthreadd, process 2 of the host's pid namespace, which is never
/// in another and which anybody with `CAP_SYS_PTRACE` may look at (not so process 1). Threads that are made later inherit it.
/// Takes `CAP_SYS_ADMIN`.
pub fn enter_hosts(proc: &Path) -> io::Result<()> {
    let inode = |file: &Path| fs::metadata(file).map(|found| found.ino());
    let Ok(own) = inode(&proc.join("self/ns/cgroup")) else {
        // The kernel has none.
        return Ok(());
    };
    if own == INITIAL {
        return Ok(());
    }
    let hosts = proc.join("2/ns/cgroup");
    if inode(&hosts)? != INITIAL {
        return Err(io::Error::other("the host's processes are not seen here"));
    }
    setns(File::open(hosts)?, CloneFlags::CLONE_NEWCGROUP).map_err(io::Error::from)
}
