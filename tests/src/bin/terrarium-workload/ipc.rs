//! System V IPC objects.

use crate::{Answer, argument};
use nix::errno::Errno;
use serde_json::{Value, json};

/// `ipc-create KEY`: a shared memory segment, a message queue and a semaphore set under that key.
pub(crate) fn create(arguments: &[&str]) -> Answer {
    let key: libc::key_t = argument(arguments, 0, "key")?;
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: shmget takes integers only and makes a kernel object, no mapping.
    let shm = Errno::result(unsafe { libc::shmget(key, 4096, flags) });
    // SAFETY: msgget takes integers only.
    let msg = Errno::result(unsafe { libc::msgget(key, flags) });
    // SAFETY: semget takes integers only.
    let sem = Errno::result(unsafe { libc::semget(key, 1, flags) });
    for (what, made) in [("shmget", shm), ("msgget", msg), ("semget", sem)] {
        made.map_err(|errno| format!("{what} {key}: {errno}"))?;
    }
    Ok(json!({"key": key}))
}

/// `ipc-list`: the keys of the objects that exist in this IPC namespace, by kind.
pub(crate) fn list(_: &[&str]) -> Answer {
    let mut answer = json!({});
    for kind in ["shm", "msg", "sem"] {
        let path = format!("/proc/sysvipc/{kind}");
        let table =
            std::fs::read_to_string(&path).map_err(|error| format!("read {path}: {error}"))?;
        answer[kind] = table
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next()?.parse::<i64>().ok())
            .map(Value::from)
            .collect();
    }
    Ok(answer)
}
