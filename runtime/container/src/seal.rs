//! The runtime's own executable, out of reach of containers (CVE-2019-5736).
//!
//! Until execve a container's process has the runtime as its `/proc/self/exe`, and an image can make that the very
//! program that is executed. Whoever has it open could write to it as soon as nobody runs it any more, as root of the
//! container, who is root of the file. So the runtime runs from a read-only mount that exists for it alone.

use crate::mount::clone_tree;
use crate::syscall::{MountChange, mount_setattr};
use nix::fcntl::AtFlags;
use rustix::fs::{CWD, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::MountAttrFlags;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// The name that the process goes by: execveat(2) would make it the number of a descriptor.
const NAME: &std::ffi::CStr = c"terrarium";

/// Executes this program again, from where no container can write to it, unless that is so already.
///
/// To be called before anything is done that must not be done twice. With `is_sealed` it is known to be so.
pub fn run_sealed(is_sealed: bool) -> io::Result<()> {
    if is_sealed {
        rustix::thread::set_name(NAME)?;
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let own = rustix::fs::openat(CWD, c"/proc/self/exe", flags, Mode::empty())?;
    if cannot_be_written(&own)? {
        rustix::thread::set_name(NAME)?;
        return Ok(());
    }
    let sealed = match read_only_mount(&own) {
        Ok(mount) => mount,
        // Without CAP_SYS_ADMIN, or before Linux 5.12.
        Err(_) => copy()?,
    };
    let args: Vec<CString> = std::env::args_os().map(c_string).collect::<io::Result<_>>()?;
    let env: Vec<CString> = std::env::vars_os()
        .map(|(name, value)| {
            let mut bytes = name.into_vec();
            bytes.push(b'=');
            bytes.extend(value.into_vec());
            Ok(CString::new(bytes)?)
        })
        .collect::<io::Result<_>>()?;
    let Err(error) =
        nix::unistd::execveat(sealed.as_fd(), c"", &args, &env, AtFlags::AT_EMPTY_PATH);
    Err(error.into())
}

fn c_string(text: std::ffi::OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}

/// Whether the executable cannot be written to: it lies on a read-only mount, or is a sealed copy.
fn cannot_be_written(own: &OwnedFd) -> io::Result<bool> {
    if rustix::fs::fstatvfs(own)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // Only a file in memory has seals.
    let seals =
        File::open("/proc/self/exe").ok().and_then(|file| rustix::fs::fcntl_get_seals(file).ok());
    Ok(seals.is_some_and(|seals| seals.contains(SealFlags::WRITE)))
}

fn read_only_mount(own: &OwnedFd) -> io::Result<OwnedFd> {
    let mount = clone_tree(own.as_fd(), c"", false)?;
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    mount_setattr(mount.as_fd(), MountChange { set, ..MountChange::default() })?;
    Ok(mount)
}

/// A copy in memory that nobody can change.
fn copy() -> io::Result<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let mut memory = File::from(rustix::fs::memfd_create(NAME, flags)?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut memory)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory.into())
}
