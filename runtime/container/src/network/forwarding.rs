//! Forwarding by the host, of IPv4 and of IPv6: on while a network of terrarium's needs it, then as it was.
//!
//! The settings belong to the host's network namespace and not to a state folder. So those who need one are noted in
//! one place for all of them, a folder for each network namespace and setting, under a lock.
//!
//! A host that forwards IPv6 takes no router advertisements unless its interfaces' `accept_ra` is 2
//! (Documentation/networking/ip-sysctl.rst); so the second setting is touched for networks with an IPv6 subnet only.

use super::bridge::exists_link;
use crate::error::{Result, Tried};
use crate::store::{LockedFolder, lock_shared};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where users are noted.
const FOLDER: &str = "/run/terrarium-forwarding";

/// File that holds the value from before.
const ORIGINAL: &str = "original";

/// One of the two settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `net.ipv4.ip_forward`
    Ipv4,
    /// `net.ipv6.conf.all.forwarding`
    Ipv6,
}

impl Family {
    fn setting(self) -> &'static str {
        match self {
            Self::Ipv4 => "/proc/sys/net/ipv4/ip_forward",
            Self::Ipv6 => "/proc/sys/net/ipv6/conf/all/forwarding",
        }
    }

    fn folder(self) -> Result<PathBuf> {
        let own = "/proc/self/ns/net";
        let inode = fs::metadata(own).tried("stat", own)?.ino();
        let ending = match self {
            Self::Ipv4 => "",
            Self::Ipv6 => "-ipv6",
        };
        Ok(Path::new(FOLDER).join(format!("{inode}{ending}")))
    }
}

/// Turns forwarding on for `bridge`.
pub(crate) fn acquire(bridge: &str, family: Family) -> Result<()> {
    let folder = lock_shared(&family.folder()?)?;
    let original = folder.path().join(ORIGINAL);
    let setting = family.setting();
    let value = fs::read_to_string(setting).tried("read", setting)?;
    if !original.exists() {
        fs::write(&original, &value).tried("write", &original)?;
    }
    let user = folder.path().join(format!("bridge-{bridge}"));
    fs::write(&user, "").tried("write", &user)?;
    if value.trim() == "0" {
        fs::write(setting, "1").tried_hint(
            "turn on forwarding",
            setting,
            "bridges need it; is /proc/sys read-only here?",
        )?;
    }
    Ok(())
}

/// `bridge` does not need any of it any more. The last one restores the value from before.
pub(crate) fn release(bridge: &str) -> Result<()> {
    release_family(bridge, Family::Ipv4).and(release_family(bridge, Family::Ipv6))
}

fn release_family(bridge: &str, family: Family) -> Result<()> {
    let path = family.folder()?;
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
    if users == 0 { restore(folder, family) } else { Ok(()) }
}

fn restore(folder: LockedFolder, family: Family) -> Result<()> {
    let original = folder.path().join(ORIGINAL);
    if fs::read_to_string(&original).is_ok_and(|value| value.trim() == "0") {
        fs::write(family.setting(), "0").tried("restore", family.setting())?;
    }
    folder.remove()?;
    // For other network namespaces it stays.
    let _ = fs::remove_dir(FOLDER);
    Ok(())
}
