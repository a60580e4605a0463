//! Device nodes in `/dev`, and what a container may do with devices.

use crate::init::{Failure, Step};
use crate::mount::{attach, change_mount, clone_tree};
use crate::rootfs::Root;
use crate::syscall::MountChange;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Inside the container.
    pub path: PathBuf,
    /// Character, block or fifo.
    pub kind: FileType,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The devices that every container has (OCI runtime-spec, config-linux, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// The default devices and those of the spec; the spec's win.
pub(crate) fn from_spec(devices: &[LinuxDevice]) -> Vec<Device> {
    let mut all: Vec<Device> = DEFAULT
        .iter()
        .map(|&(path, major, minor)| Device {
            path: path.into(),
            kind: FileType::CharacterDevice,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for device in devices {
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::C | LinuxDeviceType::U | LinuxDeviceType::A => {
                FileType::CharacterDevice
            }
        };
        let number = |n: i64| u32::try_from(n).unwrap_or_default();
        all.retain(|d| d.path != *device.path());
        all.push(Device {
            path: device.path().clone(),
            kind,
            major: number(device.major()),
            minor: number(device.minor()),
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or_default(),
            gid: device.gid().unwrap_or_default(),
        });
    }
    all
}

/// Makes `devices` and the links in `/dev`.
pub(crate) fn make(root: &Root, devices: &[Device], bind: bool) -> Result<(), Failure> {
    let (dev, _) = root.parent(Path::new("/dev/null")).step("open", "/dev")?;
    for device in devices {
        let on = device.path.as_path();
        let name = on.file_name().unwrap_or_default();
        let elsewhere = if on.parent() == Some(Path::new("/dev")) {
            None
        } else {
            Some(root.parent(on).step("open folder of", on)?.0)
        };
        let folder = elsewhere.as_ref().unwrap_or(&dev).as_fd();
        if bind {
            bind_node(folder, name, device)?;
        } else {
            make_node(folder, name, device)?;
        }
    }
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, dev.as_fd(), name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).step("link", format!("/dev/{name}").as_str()),
        }
    }
    Ok(())
}

fn make_node(folder: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), Failure> {
    let on = device.path.as_path();
    let number = makedev(device.major, device.minor);
    // The umask is 0 while the container is set up: the mode is the mode.
    let mode = Mode::from_raw_mode(device.mode);
    match rustix::fs::mknodat(folder, name, device.kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found =
                rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).step("stat", on)?;
            if FileType::from_raw_mode(found.st_mode) == device.kind && found.st_rdev == number {
                return Ok(());
            }
            return Err(Errno::EXIST).step_hint(
                "make device",
                on,
                "the root filesystem has something else there; remove it",
            );
        }
        Err(error) => return Err(error).step("make device", on),
    }
    if device.uid != 0 || device.gid != 0 {
        rustix::fs::chownat(
            folder,
            name,
            Some(Uid::from_raw(device.uid)),
            Some(rustix::fs::Gid::from_raw(device.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .step("change owner of", on)?;
    }
    Ok(())
}

fn bind_node(folder: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), Failure> {
    let on = device.path.as_path();
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    drop(rustix::fs::openat(folder, name, flags, 0o666.into()).step("make file", on)?);
    let target = rustix::fs::openat(
        folder,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open", on)?;
    let node = clone_tree(CWD, on, false).step("bind the host's device", on)?;
    attach(node.as_fd(), target.as_fd()).step("bind on", on)?;
    // The host's root may be a user of the container's.
    change_mount(node.as_fd(), MountChange::READ_ONLY).step("make read-only", on)
}

/// Standard descriptors that are the host's `/dev/null` (a detached container's input, what engines give) become the container's own:
/// by fchmod(2) root inside could take the host's users' right to it. They stay where the container has none.
pub(crate) fn use_own_null() {
    let is_null = |fd: BorrowedFd<'_>| {
        rustix::fs::fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == makedev(1, 3)
        })
    };
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let are_null = standard.map(is_null);
    if are_null == [false; 3] {
        return;
    }
    // A program of the container's may have put anything there; opened so, nothing waits for anybody.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(own) = rustix::fs::open(c"/dev/null", flags, Mode::empty()) else { return };
    if !is_null(own.as_fd()) {
        return;
    }
    let replace: [fn(&OwnedFd) -> rustix::io::Result<()>; 3] = [
        |own| rustix::stdio::dup2_stdin(own),
        |own| rustix::stdio::dup2_stdout(own),
        |own| rustix::stdio::dup2_stderr(own),
    ];
    for (replace, _) in replace.into_iter().zip(are_null).filter(|(_, is_null)| *is_null) {
        // It cannot fail: both are open.
        let _ = replace(&own);
    }
}

/// What makes the same nodes in a shell, below `root`.
pub(crate) fn shell_command(devices: &[Device], root: &Path) -> String {
    let command = |device: &Device| {
        let path = root.join(device.path.strip_prefix("/").unwrap_or(&device.path));
        let kind = match device.kind {
            FileType::BlockDevice => "b",
            FileType::Fifo => "p",
            _ => "c",
        };
        let path = crate::explain::word(&path.to_string_lossy());
        format!("mknod -m {:o} {path} {kind} {} {}", device.mode, device.major, device.minor)
    };
    devices.iter().map(command).collect::<Vec<_>>().join(" && ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_the_spec_replace_the_defaults_of_the_same_path() {
        let mut null = LinuxDevice::default();
        null.set_path("/dev/null".into())
            .set_typ(LinuxDeviceType::C)
            .set_major(1)
            .set_minor(3)
            .set_file_mode(Some(0o20600))
            .set_uid(Some(7));
        let devices = from_spec(&[null]);
        assert_eq!(devices.len(), DEFAULT.len());
        let found = devices.iter().find(|d| d.path.ends_with("null")).unwrap();
        assert_eq!((found.mode, found.uid, found.major), (0o600, 7, 1));
    }
}
