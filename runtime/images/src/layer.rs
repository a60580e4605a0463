//! A layer: a tar archive of changes becomes a folder that overlayfs can stack.
//!
//! Every name of the archive is resolved inside the folder (libpathrs, openat2(2) `RESOLVE_IN_ROOT`): neither `..` nor a symlink
//! that the layer itself brings can lead out of it. The archive's whiteouts (`.wh.NAME`, `.wh..wh..opq`) become overlayfs's: a
//! character device 0/0, and the attribute `trusted.overlay.opaque` (`user.overlay.opaque` without root).
//! <https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md>,
//! <https://docs.kernel.org/filesystems/overlayfs.html>

use crate::digest::{Digest, Hashed};
use crate::error::{Error, Result, Tried};
use pathrs::flags::OpenFlags;
use pathrs::{InodeType, Root};
use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// Most bytes that one layer may unpack to: a small archive can hold petabytes of zeros.
const MAX_BYTES: u64 = 64 << 30;
/// Most entries of one layer.
const MAX_ENTRIES: u64 = 5_000_000;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What becomes of device nodes in a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceNodes {
    /// They are left out: containers get their own in `/dev`.
    #[default]
    Skip,
    /// They are made, which takes root.
    Create,
}

/// Decompresses gzip and zstd by their magic numbers; anything else is taken as it is.
pub(crate) fn decompress<'r>(reader: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let start = reader.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(reader)?)
    } else {
        Box::new(reader)
    })
}

/// Unpacks the layer `archive`, compressed or not, into the empty folder `into`, and gives the digest of the
/// uncompressed archive: the layer's `diff_id`.
pub(crate) fn unpack(
    archive: impl Read,
    name: &str,
    into: &Path,
    nodes: DeviceNodes,
) -> Result<Digest> {
    let broken = |entry: &str, error: &dyn std::fmt::Display| Error::Layer {
        layer: name.to_owned(),
        entry: entry.to_owned(),
        reason: error.to_string(),
    };
    let root = Root::open(into).map_err(|error| broken("", &error))?;
    let plain = decompress(archive).map_err(|error| broken("", &error))?;
    let mut archive = Archive::new(Hashed::new(plain));
    let unpacker = Unpacker { root, nodes, privileged: rustix::process::geteuid().is_root() };
    let mut folders = Vec::new();
    let (mut entries, mut bytes) = (0, 0);
    for entry in archive.entries().map_err(|error| broken("", &error))? {
        let mut entry = entry.map_err(|error| broken("", &error))?;
        let path = inside(&entry.path_bytes())
            .ok_or_else(|| broken(&shown(&entry), &"its name leads out of the layer with .."))?;
        entries += 1;
        bytes += entry.size();
        if entries > MAX_ENTRIES || bytes > MAX_BYTES {
            let reason = format!(
                "the layer is larger than {MAX_ENTRIES} files or {} GiB, which no honest one is",
                MAX_BYTES >> 30
            );
            return Err(broken(&shown(&entry), &reason));
        }
        unpacker
            .entry(&mut entry, &path, &mut folders)
            .map_err(|error| broken(&shown(&entry), &error))?;
    }
    // Last: making a file in a folder changes the folder's time.
    for (path, time) in folders.iter().rev() {
        unpacker.set_time(path, *time).map_err(|error| broken(&path.to_string_lossy(), &error))?;
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| broken("", &error))?;
    Ok(rest.digest())
}

/// The entry's name for people: without control characters, not endless.
fn shown(entry: &Entry<'_, impl Read>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).chars().take(200).collect()
}

/// A path of the archive below the layer's folder; `None` where it has `..`.
fn inside(bytes: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

struct Unpacker {
    root: Root,
    nodes: DeviceNodes,
    privileged: bool,
}

/// What may go wrong with one entry, in words.
type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

impl Unpacker {
    fn entry(
        &self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        folders: &mut Vec<(PathBuf, i64)>,
    ) -> Outcome<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let Some(name) = path.file_name() else {
            // The layer's own folder: `./`.
            return if kind.is_dir() { self.dress(entry, Path::new("/")) } else { Ok(()) };
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        self.folder(parent)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(parent, name.as_bytes(), OsStr::from_bytes(hidden));
        }
        if !(kind.is_dir() && self.is_folder(path)) {
            self.make_way(path)?;
        }
        let plain = Permissions::from_mode(0o600);
        match kind {
            EntryType::Directory => {
                self.folder(path)?;
                folders.push((path.to_owned(), mtime(entry)));
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or("a symlink without a target")?;
                let target = PathBuf::from(OsStr::from_bytes(&target));
                self.root.create(path, &InodeType::Symlink(target))?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or("a hard link without a target")?;
                let target =
                    inside(&target).ok_or("the file it links to lies outside the layer")?;
                self.root.create(path, &InodeType::Hardlink(target))?;
                // It has its attributes already.
                return Ok(());
            }
            EntryType::Fifo => self.root.create(path, &InodeType::Fifo(plain))?,
            EntryType::Char | EntryType::Block => {
                if self.nodes == DeviceNodes::Skip {
                    return Ok(());
                }
                let number = |n: io::Result<Option<u32>>| n.ok().flatten().unwrap_or(0);
                let major = number(entry.header().device_major());
                let minor = number(entry.header().device_minor());
                if (major, minor) == (0, 0) {
                    return Err("device 0/0 is how overlayfs hides a file".into());
                }
                let device = rustix::fs::makedev(major, minor);
                let node = if kind == EntryType::Char {
                    InodeType::CharacterDevice(plain, device)
                } else {
                    InodeType::BlockDevice(plain, device)
                };
                self.root.create(path, &node)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = self.root.create_file(path, OpenFlags::O_WRONLY, &plain)?;
                io::copy(entry, &mut file)?;
            }
            other => return Err(format!("an entry of type {other:?}").into()),
        }
        self.dress(entry, path)
    }

    /// Makes the folder `path` and those above it, where they are missing.
    fn folder(&self, path: &Path) -> Outcome<()> {
        if !path.as_os_str().is_empty() {
            self.root.mkdir_all(path, &Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.root.resolve_nofollow(path).is_ok_and(|handle| {
            rustix::fs::fstat(handle.as_fd())
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        })
    }

    /// Removes what an earlier entry of the same layer put there.
    fn make_way(&self, path: &Path) -> Outcome<()> {
        match self.root.remove_all(path) {
            Err(error) if self.root.resolve_nofollow(path).is_ok() => Err(error.into()),
            // It was not there.
            _ => Ok(()),
        }
    }

    fn whiteout(&self, parent: &Path, name: &[u8], hidden: &OsStr) -> Outcome<()> {
        if name == OPAQUE {
            let prefix = if self.privileged { "trusted" } else { "user" };
            let folder = self.root.resolve(at_root(parent))?;
            let attribute = format!("{prefix}.overlay.opaque");
            rustix::fs::setxattr(fd_path(&folder), attribute, b"y", XattrFlags::empty())?;
            return Ok(());
        }
        if name.starts_with(b".wh..wh.") || hidden.is_empty() || hidden == "." || hidden == ".." {
            // Other names of this form belonged to aufs and say nothing here.
            return Ok(());
        }
        let path = parent.join(hidden);
        self.make_way(&path)?;
        let whiteout = InodeType::CharacterDevice(Permissions::from_mode(0o000), Dev::from(0_u8));
        Ok(self.root.create(&path, &whiteout)?)
    }

    /// Owner, mode, extended attributes and time, in this order: a change of owner takes mode bits and capabilities away.
    fn dress(&self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Outcome<()> {
        let handle = self.root.resolve_nofollow(at_root(path))?;
        let header = entry.header();
        if self.privileged {
            // More than 32 bits are no id of Linux.
            let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
            let old = header.as_old();
            let uid = id(or_blank(&old.uid, header.uid()))
                .filter(|id| *id != u32::MAX)
                .ok_or("no valid uid")?;
            let gid = id(or_blank(&old.gid, header.gid()))
                .filter(|id| *id != u32::MAX)
                .ok_or("no valid gid")?;
            rustix::fs::chownat(
                handle.as_fd(),
                "",
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::EMPTY_PATH,
            )?;
        }
        if header.entry_type() == EntryType::Symlink {
            return Ok(());
        }
        let mode = header.mode()? & 0o7777;
        rustix::fs::chmod(fd_path(&handle), Mode::from_raw_mode(mode))?;
        let attributes: Vec<(String, Vec<u8>)> = entry
            .pax_extensions()?
            .into_iter()
            .flatten()
            .filter_map(|extension| {
                let extension = extension.ok()?;
                let name = extension.key().ok()?.strip_prefix("SCHILY.xattr.")?;
                may_set(name, self.privileged)
                    .then(|| (name.to_owned(), extension.value_bytes().to_vec()))
            })
            .collect();
        for (name, value) in attributes {
            rustix::fs::setxattr(fd_path(&handle), name, &value, XattrFlags::empty())?;
        }
        self.set_time(path, mtime(entry))
    }

    fn set_time(&self, path: &Path, seconds: i64) -> Outcome<()> {
        let handle = self.root.resolve_nofollow(at_root(path))?;
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(rustix::fs::CWD, fd_path(&handle), &times, AtFlags::empty())?)
    }
}

/// A number of a header; a field that was left blank is 0, as other readers of archives take it.
fn or_blank(field: &[u8], number: io::Result<u64>) -> io::Result<u64> {
    let blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
    number.or_else(|error| if blank { Ok(0) } else { Err(error) })
}

/// Attributes that a layer may set: `user.*` and file capabilities. Not overlayfs's own: they could make a folder show
/// another layer's.
fn may_set(name: &str, privileged: bool) -> bool {
    let user = name.starts_with("user.") && !name.starts_with("user.overlay.");
    user || (privileged && name == "security.capability")
}

fn mtime(entry: &Entry<'_, impl Read>) -> i64 {
    entry.header().mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0)
}

/// The empty path is the root itself.
fn at_root(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new("/") } else { path }
}

/// Path by which calls that take no `O_PATH` descriptor reach what `handle` refers to.
fn fd_path(handle: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}

/// An empty folder for a layer.
pub(crate) fn new_folder(path: &Path) -> Result<()> {
    std::fs::create_dir(path).tried("create", path)?;
    let mode = Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).tried("set mode of", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_number_is_zero_and_junk_is_an_error() {
        let junk = || Err(io::Error::other("not octal"));
        assert_eq!(or_blank(&[0; 8], junk()).unwrap(), 0);
        assert_eq!(or_blank(b"       ", junk()).unwrap(), 0);
        assert_eq!(or_blank(b"0000007", Ok(7)).unwrap(), 7);
        assert!(or_blank(b"xyz\0\0\0\0\0", junk()).is_err());
    }

    #[test]
    fn names_stay_below_the_layer() {
        for (name, expected) in [
            ("./bin/sh", Some("bin/sh")),
            ("/etc/passwd", Some("etc/passwd")),
            ("./", Some("")),
            ("a/../b", None),
            ("..", None),
        ] {
            assert_eq!(inside(name.as_bytes()), expected.map(PathBuf::from), "{name}");
        }
    }
}
