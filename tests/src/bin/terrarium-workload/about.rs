//! What the process can see of itself and its surroundings.

use crate::Answer;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{gethostname, getpid, getuid};
use serde_json::{Map, Value, json};
use std::fs;

/// `about`: pid, uid, host name, namespaces, the fields of `/proc/self/status`, cgroups, mounts, visible processes.
pub(crate) fn about(_: &[&str]) -> Answer {
    let hostname = gethostname().map_err(|errno| format!("host name: {errno}"))?;
    Ok(json!({
        "pid": getpid().as_raw(),
        "uid": getuid().as_raw(),
        "hostname": hostname.to_string_lossy(),
        "namespaces": namespaces(),
        "status": status()?,
        "cgroups": text("/proc/self/cgroup")?,
        "mounts": text("/proc/self/mountinfo")?,
        "pids": pids()?,
    }))
}

/// `keyring`: the serial number of the session keyring (keyctl(2), `KEYCTL_GET_KEYRING_ID`).
pub(crate) fn keyring(_: &[&str]) -> Answer {
    // SAFETY: all arguments are numbers.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_GET_KEYRING_ID,
            libc::KEY_SPEC_SESSION_KEYRING,
            0,
        )
    };
    let serial = Errno::result(serial).map_err(|errno| format!("session keyring: {errno}"))?;
    Ok(json!({"session": serial}))
}

/// `read PATH`: the text of a file, or why it cannot be read.
pub(crate) fn read(arguments: &[&str]) -> Answer {
    let path = arguments.first().ok_or("path is missing")?;
    let content = fs::read(path).map_err(|error| format!("read {path}: {error}"))?;
    Ok(json!({"text": String::from_utf8_lossy(&content)}))
}

fn text(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))
}

/// `{"mnt": 4026531841, …}`; a kind that this kernel lacks is absent.
fn namespaces() -> Map<String, Value> {
    ["mnt", "net", "user", "pid", "ipc", "uts", "cgroup", "time"]
        .into_iter()
        .filter_map(|kind| {
            // `mnt:[4026531841]`
            let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
            let inode = link.to_str()?.split(['[', ']']).nth(1)?.parse::<u64>().ok()?;
            Some((kind.to_owned(), json!(inode)))
        })
        .collect()
}

fn status() -> Result<Map<String, Value>, String> {
    Ok(text("/proc/self/status")?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), json!(value.trim())))
        .collect())
}

fn pids() -> Result<Vec<i32>, String> {
    Ok(fs::read_dir("/proc")
        .map_err(|error| format!("list /proc: {error}"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}
