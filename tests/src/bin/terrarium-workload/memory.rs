//! Memory that is really used.

use crate::task::{code_of, fork_child};
use crate::{Answer, argument};
use nix::unistd::{pause, pipe, read, write};
use serde_json::json;
use std::hint::black_box;

/// Allocates and writes `bytes`, so that every page is charged to the cgroup.
fn write_pages(bytes: usize) -> Vec<u8> {
    // Not zero: a zeroed allocation would stay unwritten until it is used.
    black_box(vec![1_u8; bytes])
}

/// `touch BYTES`: writes that much memory and gives it back.
pub(crate) fn touch(arguments: &[&str]) -> Answer {
    let bytes = argument(arguments, 0, "bytes")?;
    drop(write_pages(bytes));
    Ok(json!({"bytes": bytes}))
}

/// `touch-in-child BYTES`: the same in a process of its own; `code` is 137 when the kernel killed it.
pub(crate) fn touch_in_child(arguments: &[&str]) -> Answer {
    let bytes = argument(arguments, 0, "bytes")?;
    let code = fork_child(|| {
        drop(write_pages(bytes));
        0
    })
    .and_then(code_of)
    .map_err(|errno| format!("fork: {errno}"))?;
    Ok(json!({"bytes": bytes, "code": code}))
}

/// `hold BYTES`: a process that writes that much memory, keeps it, and is the first that the OOM killer takes.
pub(crate) fn hold(arguments: &[&str]) -> Answer {
    let bytes = argument(arguments, 0, "bytes")?;
    let (ready, told) = pipe().map_err(|errno| format!("pipe: {errno}"))?;
    let child = fork_child(|| {
        // Without CAP_SYS_RESOURCE a process may still raise its own value.
        if std::fs::write("/proc/self/oom_score_adj", "1000").is_err() {
            return 1;
        }
        let held = write_pages(bytes);
        if write(&told, b"1").is_err() {
            return 1;
        }
        pause();
        drop(held);
        0
    })
    .map_err(|errno| format!("fork: {errno}"))?;
    drop(told);
    let mut byte = [0];
    match read(&ready, &mut byte) {
        Ok(1) => Ok(json!({"bytes": bytes, "pid": child.as_raw()})),
        Ok(_) => Err(format!("process {child} ended before it held {bytes} bytes")),
        Err(errno) => Err(format!("wait until process {child} holds {bytes} bytes: {errno}")),
    }
}
