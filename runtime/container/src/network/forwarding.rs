//! `net.ipv4.ip_forward`: on while a network of terrarium's needs it, then as it was.
//!
//! The setting belongs to the host's network namespace and not to a state folder. So those who need it are noted in
//! one place for all of them, a folder for each network namespace, under a lock.

use super::bridge::exists_link;
use crate::error::{Result, Tried};
use crate::store::{LockedFolder, lock_shared};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where users are noted.
const FOLDER: &str = "/run/terrarium-forwarding";

/// The setting.
const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";

/// File that holds the value from before.
const ORIGINAL: &str = "original";

fn folder() -> Result<PathBuf> {
    let own = "/proc/self/ns/net";
    let inode = fs::metadata(own).tried("stat", own)?.ino();
    Ok(Path::new(FOLDER).join(inode.to_string()))
}

/// Turns forwarding on for `bridge`.
pub(crate) fn acquire(bridge: &str) -> Result<()> {
    let folder = lock_shared(&folder()?)?;
    let original = folder.path().join(ORIGINAL);
    let value = fs::read_to_string(SETTING).tried("read", SETTING)?;
    if !original.exists() {
        fs::write(&original, &value).tried("write", &original)?;
    }
    let user = folder.path().join(format!("bridge-{bridge}"));
    fs::write(&user, "").tried("write", &user)?;
    if value.trim() == "0" {
        fs::write(SETTING, "1").tried_hint(
            "turn on forwarding",
            SETTING,
            "bridges need it; is /proc/sys read-only here?",
        )?;
    }
    Ok(())
}

/// `bridge` does not need it any more. The last one restores the value from before.
pub(crate) fn release(bridge: &str) -> Result<()> {
    let path = folder()?;
    if !path.exists() {
        return Ok(());
    }
    let folder = lock_shared(&path)?;
    let mut users = 0;
    for entry in fs::read_dir(folder.path()).tried("read", &path)?.flatten() {
        let name = entry.file_name();
        let Some(user) = name.to_str().and_then(|name| name.strip_prefix("bridge-")) else {
            continue;
        };
        // A bridge that is gone was left behind by a crash, or by an `ip link del`.
        if user == bridge || !exists_link(user) {
            let _ = fs::remove_file(entry.path());
        } else {
            users += 1;
        }
    }
    if users == 0 { restore(folder) } else { Ok(()) }
}

fn restore(folder: LockedFolder) -> Result<()> {
    let original = folder.path().join(ORIGINAL);
    if fs::read_to_string(&original).is_ok_and(|value| value.trim() == "0") {
        fs::write(SETTING, "0").tried("restore", SETTING)?;
    }
    folder.remove()?;
    // For other network namespaces it stays.
    let _ = fs::remove_dir(FOLDER);
    Ok(())
}
