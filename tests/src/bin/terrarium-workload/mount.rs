//! Mounts.

use crate::{Answer, Tally, argument};
use nix::mount::{MsFlags, umount};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Where `mount` mounts.
const TARGET: &str = "/tmp/terrarium-workload.mount";

/// `mount N`: N times a tmpfs mounted and unmounted; a mount that fails is not unmounted.
pub(crate) fn mount(arguments: &[&str]) -> Answer {
    let count: u64 = argument(arguments, 0, "number of mounts")?;
    std::fs::create_dir_all(TARGET).map_err(|error| format!("make {TARGET}: {error}"))?;
    let mut mounts = Tally::default();
    let mut umounts = Tally::default();
    for _ in 0..count {
        let mounted =
            nix::mount::mount(Some("tmpfs"), TARGET, Some("tmpfs"), MsFlags::empty(), None::<&str>);
        mounts.add(&mounted);
        if mounted.is_ok() {
            umounts.add(&umount(TARGET));
        }
    }
    std::fs::remove_dir(TARGET).map_err(|error| format!("remove {TARGET}: {error}"))?;
    let mut answer = mounts.answer();
    answer["umounts"] = umounts.answer();
    Ok(json!(answer))
}

/// `crowd THREADS N`: makes the propagation of `/` private N times, while so many threads wait in recvmsg for a message
/// that never comes.
pub(crate) fn crowd(arguments: &[&str]) -> Answer {
    let threads: usize = argument(arguments, 0, "number of threads")?;
    let count: u64 = argument(arguments, 1, "number of mounts")?;
    let (sender, receiver) =
        UnixStream::pair().map_err(|error| format!("make two sockets: {error}"))?;
    let mounts = std::thread::scope(|scope| {
        for _ in 0..threads {
            std::thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn_scoped(scope, || crate::ipc::receive_once(&receiver))?;
        }
        while sleeping()? < threads {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut mounts = Tally::default();
        for _ in 0..count {
            mounts.add(&nix::mount::mount(
                None::<&str>,
                "/",
                None::<&str>,
                MsFlags::MS_PRIVATE,
                None::<&str>,
            ));
        }
        drop(sender);
        Ok(mounts)
    })
    .map_err(|error: std::io::Error| format!("crowd of {threads} threads: {error}"))?;
    Ok(mounts.answer())
}

/// How many threads of this process sleep.
fn sleeping() -> std::io::Result<usize> {
    let mut count = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        count += usize::from(state.starts_with('S'));
    }
    Ok(count)
}
