//! `tmpcopyup`: a tmpfs that begins with what the image has at its mount point.
//!
//! Everything is opened relative to a folder's descriptor and without following symlinks: what the image has there
//! cannot lead anywhere else.

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Folders below folders: an image that has more is refused rather than followed.
const DEPTH: usize = 64;

/// Copies what is in the folder `from` into the folder `to`.
pub(crate) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // The caller's descriptors may be O_PATH, which cannot be read.
    let reopen = |fd: BorrowedFd<'_>| open(fd, c".", OFlags::DIRECTORY);
    let (from, to) = (reopen(from)?, reopen(to)?);
    let stat = rustix::fs::fstat(&from)?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    copy_folder(&from, &to, DEPTH)
}

fn open(folder: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

fn copy_folder(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy_entry(from, to, name, &stat, depth)?;
    }
    Ok(())
}

fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CStr,
    stat: &Stat,
    depth: usize,
) -> io::Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let source = open(from.as_fd(), name, OFlags::DIRECTORY)?;
            copy_folder(&source, &open(to.as_fd(), name, OFlags::DIRECTORY)?, depth - 1)?;
        }
        FileType::RegularFile => {
            let mut source = File::from(open(from.as_fd(), name, OFlags::NONBLOCK)?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            io::copy(&mut source, &mut File::from(copy))?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
        }
        _ => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(owner.0), Some(owner.1), flags)?;
    if kind != FileType::Symlink {
        // After the owner: that change clears the setuid bit. The name is ours, made just now in a tmpfs nobody sees.
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime, i64::try_from(stat.st_atime_nsec).unwrap_or(0)),
        last_modification: time(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    };
    Ok(rustix::fs::utimensat(to, name, &times, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("a")).unwrap();
        fs::write(from.path().join("a/file"), "text").unwrap();
        fs::set_permissions(from.path().join("a/file"), fs::Permissions::from_mode(0o751)).unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        let open = |path| File::open(path).unwrap();
        copy_up(open(from.path()).as_fd(), open(to.path()).as_fd()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("a/file")).unwrap(), "text");
        let mode = |path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(to.path().join("a/file")), 0o751);
        assert_eq!(mode(to.path().to_owned()), 0o1777);
        assert_eq!(fs::read_link(to.path().join("link")).unwrap().to_str(), Some("/etc/passwd"));
    }
}
