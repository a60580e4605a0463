//! One mount: from the spec's words to what the kernel takes, and into its place.
//!
//! The mount API of Linux 5.2 (fsopen, fsmount, `open_tree`, `move_mount`) and `mount_setattr` of 5.12; where the
//! kernel lacks it, mount(2) on `/proc/self/fd/N`. Targets are file descriptors that were resolved inside the
//! root, so no path is walked twice and no symlink of the image leads out.

use crate::error::{Error, Result};
use crate::syscall::{MountChange, mount_setattr};
use nix::mount::MsFlags;
use oci_spec::runtime as oci;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A mount of the spec, checked and ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where, below the root.
    pub destination: PathBuf,
    /// What.
    pub kind: Kind,
    /// Attributes of the mount itself.
    pub change: MountChange,
    /// Attributes of the whole tree (`rro`, `rnosuid` …).
    pub tree_change: MountChange,
    /// Whether the container does without where it cannot be mounted.
    pub optional: bool,
    /// Whose the files are, where that is not what the file system says.
    pub idmap: Option<IdMap>,
}

/// The map of an idmapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap {
    /// From ids of the file system to those that are seen; empty: the container's own user namespace's.
    pub uid: Vec<oci::LinuxIdMapping>,
    /// The same of groups.
    pub gid: Vec<oci::LinuxIdMapping>,
    /// Of the mounts below as well (`ridmap`).
    pub recursive: bool,
}

impl IdMap {
    /// Whether one user namespace serves both.
    pub(crate) fn same_ids(&self, other: &Self) -> bool {
        (&self.uid, &self.gid) == (&other.uid, &other.gid)
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A new instance of a filesystem.
    Filesystem {
        /// As in /proc/filesystems.
        fstype: CString,
        /// What /proc/mounts shows as source.
        source: CString,
        /// Options that the filesystem itself reads.
        options: Vec<FsOption>,
        /// It begins with what lies at its mount point (`tmpcopyup`).
        copies_up: bool,
    },
    /// A file or folder of the host.
    Bind {
        /// On the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// The container's own cgroups.
    Cgroup,
}

/// An option of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FsOption {
    /// `newinstance`
    Flag(CString),
    /// `size=64k`
    Value(CString, CString),
}

impl std::fmt::Display for FsOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(&name.to_string_lossy()),
            Self::Value(name, value) => {
                write!(f, "{}={}", name.to_string_lossy(), value.to_string_lossy())
            }
        }
    }
}

/// What one word of `options` means.
enum Word {
    Attribute {
        set: u64,
        clear: u64,
    },
    TreeAttribute {
        set: u64,
        clear: u64,
    },
    Propagation {
        flag: MsFlags,
        recursive: bool,
    },
    Bind {
        recursive: bool,
    },
    IdMap {
        recursive: bool,
    },
    /// Options of the superblock that fsconfig takes by the same name.
    Superblock,
    Ignored,
    Unknown,
}

const ATIME: u64 = MountAttrFlags::MOUNT_ATTR__ATIME.bits() as u64;

/// The options that `mounts[].options` of a spec may have, besides those of a filesystem of its own.
pub fn mount_options() -> Vec<&'static str> {
    const KNOWN: [&str; 62] = [
        "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap",
        "iversion", "lazytime", "loud", "mand", "noatime", "nodev", "nodiratime", "noexec",
        "noiversion", "nolazytime", "nomand", "norelatime", "nostrictatime", "nosuid",
        "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "remount",
        "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime",
        "rnostrictatime", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw",
        "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared",
        "silent", "slave", "strictatime", "suid", "symfollow", "sync", "tmpcopyup", "unbindable",
    ];
    KNOWN.into_iter().filter(|option| !matches!(word(option), Word::Unknown)).collect()
}

fn word(option: &str) -> Word {
    let attribute = |flag: MountAttrFlags, on: bool| {
        let bits = u64::from(flag.bits());
        if on { (bits, 0) } else { (0, bits) }
    };
    // The access time modes are one field: clearing it all and setting one value chooses.
    let time = |flag: MountAttrFlags| (u64::from(flag.bits()), ATIME);
    let lookup = |name: &str| {
        Some(match name {
            "ro" => attribute(MountAttrFlags::MOUNT_ATTR_RDONLY, true),
            "rw" => attribute(MountAttrFlags::MOUNT_ATTR_RDONLY, false),
            "nosuid" => attribute(MountAttrFlags::MOUNT_ATTR_NOSUID, true),
            "suid" => attribute(MountAttrFlags::MOUNT_ATTR_NOSUID, false),
            "nodev" => attribute(MountAttrFlags::MOUNT_ATTR_NODEV, true),
            "dev" => attribute(MountAttrFlags::MOUNT_ATTR_NODEV, false),
            "noexec" => attribute(MountAttrFlags::MOUNT_ATTR_NOEXEC, true),
            "exec" => attribute(MountAttrFlags::MOUNT_ATTR_NOEXEC, false),
            "nodiratime" => attribute(MountAttrFlags::MOUNT_ATTR_NODIRATIME, true),
            "diratime" => attribute(MountAttrFlags::MOUNT_ATTR_NODIRATIME, false),
            "nosymfollow" => attribute(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, true),
            "symfollow" => attribute(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, false),
            "noatime" => time(MountAttrFlags::MOUNT_ATTR_NOATIME),
            "relatime" | "atime" | "nostrictatime" => time(MountAttrFlags::MOUNT_ATTR_RELATIME),
            "strictatime" | "norelatime" => time(MountAttrFlags::MOUNT_ATTR_STRICTATIME),
            _ => return None,
        })
    };
    if let Some((set, clear)) = lookup(option) {
        return Word::Attribute { set, clear };
    }
    match option {
        "bind" => return Word::Bind { recursive: false },
        "rbind" => return Word::Bind { recursive: true },
        "idmap" => return Word::IdMap { recursive: false },
        "ridmap" => return Word::IdMap { recursive: true },
        "sync" | "async" | "dirsync" | "lazytime" | "nolazytime" | "mand" | "nomand" => {
            return Word::Superblock;
        }
        "defaults" | "remount" | "iversion" | "noiversion" | "silent" | "loud" => {
            return Word::Ignored;
        }
        _ => {}
    }
    let (name, recursive) = match option.strip_prefix('r') {
        Some(rest) if matches!(rest, "private" | "shared" | "slave" | "unbindable") => (rest, true),
        _ => (option, false),
    };
    let flag = match name {
        "private" => Some(MsFlags::MS_PRIVATE),
        "shared" => Some(MsFlags::MS_SHARED),
        "slave" => Some(MsFlags::MS_SLAVE),
        "unbindable" => Some(MsFlags::MS_UNBINDABLE),
        _ => None,
    };
    if let Some(flag) = flag {
        return Word::Propagation { flag, recursive };
    }
    if let Some((set, clear)) = option.strip_prefix('r').and_then(lookup) {
        return Word::TreeAttribute { set, clear };
    }
    Word::Unknown
}

impl MountChange {
    fn add(&mut self, set: u64, clear: u64) {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear & !set) | clear;
        // A bit may be in both only for the access time field, which the kernel wants cleared as a whole.
        if self.clear & ATIME != 0 {
            self.clear |= ATIME;
        }
    }
}

impl Mount {
    /// Reads a mount of the spec. `bundle` is what relative sources are relative to.
    pub(crate) fn from_spec(mount: &oci::Mount, bundle: &Path) -> Result<Self> {
        let destination = mount.destination();
        let refuse = |value: &str, reason: &'static str| {
            Err(Error::invalid(format!("mount on {}", destination.display()), value, reason))
        };
        let mut change = MountChange::default();
        let mut tree_change = MountChange { recursive: true, ..MountChange::default() };
        let mut bind = None;
        let mut options = Vec::new();
        let map = |map: &Option<Vec<oci::LinuxIdMapping>>| map.clone().unwrap_or_default();
        let (uid, gid) = (map(mount.uid_mappings()), map(mount.gid_mappings()));
        if uid.is_empty() != gid.is_empty() {
            return refuse("", "uidMappings and gidMappings are given together");
        }
        let mut idmap = (!uid.is_empty()).then_some(false);
        for option in mount.options().iter().flatten() {
            match word(option) {
                Word::Attribute { set, clear } => change.add(set, clear),
                Word::TreeAttribute { set, clear } => tree_change.add(set, clear),
                Word::Propagation { flag, recursive } => {
                    let target = if recursive { &mut tree_change } else { &mut change };
                    target.propagation = flag.bits();
                }
                Word::Bind { recursive } => bind = Some(bind.unwrap_or(false) || recursive),
                Word::IdMap { recursive } => idmap = Some(idmap == Some(true) || recursive),
                // What no table knows is the file system's own; it refuses what it does not know either.
                Word::Superblock | Word::Unknown => options.push(fs_option(option)),
                Word::Ignored => {}
            }
        }
        let typ = mount.typ().as_deref().unwrap_or("none");
        let kind = if let Some(recursive) = bind.or((typ == "bind").then_some(false)) {
            let Some(source) = mount.source() else {
                return refuse("", "a bind mount needs a source");
            };
            for option in &options {
                // As with the other runtimes; it may be of tomorrow.
                let on = destination.display();
                eprintln!("terrarium: warning: mount on {on}: unknown option of a bind: {option}");
            }
            Kind::Bind { source: bundle.join(source), recursive }
        } else if typ == "cgroup" || typ == "cgroup2" {
            Kind::Cgroup
        } else {
            if typ == "none" {
                return refuse("none", "a mount needs a type or the option bind");
            }
            let source =
                mount.source().as_ref().map_or(typ.as_bytes(), |s| s.as_os_str().as_bytes());
            let text = |bytes: &[u8]| {
                CString::new(bytes).map_err(|_| {
                    Error::invalid(
                        format!("mount on {}", destination.display()),
                        String::from_utf8_lossy(bytes),
                        "a NUL byte cannot be part of it",
                    )
                })
            };
            let copy_up = FsOption::Flag(c"tmpcopyup".into());
            let before = options.len();
            options.retain(|option| *option != copy_up);
            let copies_up = options.len() < before;
            if copies_up && typ != "tmpfs" {
                return refuse("tmpcopyup", "it is an option of tmpfs");
            }
            Kind::Filesystem {
                fstype: text(typ.as_bytes())?,
                source: text(source)?,
                options,
                copies_up,
            }
        };
        let idmap = idmap.map(|recursive| IdMap { uid, gid, recursive });
        if idmap.is_some() && !matches!(kind, Kind::Bind { .. }) {
            return refuse("idmap", "only bind mounts can have ids of their own");
        }
        let destination = destination.clone();
        Ok(Self { destination, kind, change, tree_change, optional: false, idmap })
    }

    /// Whether it is a kernel filesystem that must lie on an ordinary folder, not behind a symlink
    /// (CVE-2019-19921, CVE-2023-27561).
    pub(crate) fn wants_real_folder(&self) -> bool {
        matches!(&self.kind, Kind::Filesystem { fstype, .. }
            if matches!(fstype.to_bytes(), b"proc" | b"sysfs"))
    }
}

fn fs_option(option: &str) -> FsOption {
    // A NUL cannot come out of JSON into mount options in any meaningful way: it ends the option.
    let text = |s: &str| {
        CString::new(s.split('\0').next().unwrap_or_default()).expect("split at the first NUL")
    };
    match option.split_once('=') {
        Some((name, value)) => FsOption::Value(text(name), text(value)),
        None => FsOption::Flag(text(option)),
    }
}

/// Makes a new filesystem instance and returns its detached mount.
///
/// ENOSYS where the kernel lacks fsopen (before Linux 5.2).
pub(crate) fn new_filesystem(
    fstype: &CStr,
    source: &CStr,
    options: &[FsOption],
    attributes: u64,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    for option in options {
        match option {
            FsOption::Flag(name) => fsconfig_set_flag(context.as_fd(), name.as_c_str())?,
            FsOption::Value(name, value) => {
                fsconfig_set_string(context.as_fd(), name.as_c_str(), value.as_c_str())?;
            }
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = u32::try_from(attributes).unwrap_or_default();
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(attributes),
    )
}

/// A detached copy of the mount (or tree of mounts) at `path` below `folder`.
pub(crate) fn clone_tree(
    folder: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    recursive: bool,
) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(folder, path, flags)
}

/// Attaches the detached mount `mount` on what `target` refers to.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    move_mount(
        mount,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// Path by which mount(2) reaches what `fd` refers to.
pub(crate) fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// mount(2) of a new filesystem on `target`, for kernels without fsopen.
pub(crate) fn mount_by_path(
    fstype: &CStr,
    source: &CStr,
    options: &[FsOption],
    attributes: u64,
    target: BorrowedFd<'_>,
) -> io::Result<()> {
    let data: Vec<String> = options
        .iter()
        .map(|option| match option {
            FsOption::Flag(name) => name.to_string_lossy().into_owned(),
            FsOption::Value(name, value) => {
                format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
            }
        })
        .collect();
    nix::mount::mount(
        Some(source),
        &fd_path(target),
        Some(fstype),
        legacy_flags(attributes),
        Some(data.join(",").as_str()),
    )
    .map_err(io::Error::from)
}

/// Applies `change` to the mount whose root `mount` is, by mount(2) where `mount_setattr` is missing.
pub(crate) fn change_mount(mount: BorrowedFd<'_>, change: MountChange) -> io::Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    match mount_setattr(mount, change) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            change_by_path(&fd_path(mount), change)
        }
        result => result,
    }
}

fn change_by_path(path: &Path, change: MountChange) -> io::Result<()> {
    let none: Option<&str> = None;
    if change.propagation != 0 {
        let mut flags = MsFlags::from_bits_retain(change.propagation);
        flags.set(MsFlags::MS_REC, change.recursive);
        nix::mount::mount(none, path, none, flags, none)?;
    }
    if change.set | change.clear != 0 {
        // A remount states every flag: those the mount has already must be said again.
        let now = nix::sys::statvfs::statvfs(path)?.flags().bits();
        let kept = (now & (libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC))
            & !change.clear;
        // The four flags have the same values in statvfs, MS_ and MOUNT_ATTR_.
        let flags = legacy_flags(change.set | kept) | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        nix::mount::mount(none, path, none, flags, none)?;
    }
    Ok(())
}

fn legacy_flags(attributes: u64) -> MsFlags {
    const TABLE: [(MountAttrFlags, MsFlags); 6] = [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MsFlags::MS_RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MsFlags::MS_NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MsFlags::MS_NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MsFlags::MS_NOEXEC),
        (MountAttrFlags::MOUNT_ATTR_NODIRATIME, MsFlags::MS_NODIRATIME),
        (MountAttrFlags::MOUNT_ATTR_NOATIME, MsFlags::MS_NOATIME),
    ];
    let mut flags = MsFlags::empty();
    for (attribute, flag) in TABLE {
        flags.set(flag, attributes & u64::from(attribute.bits()) != 0);
    }
    let strict = u64::from(MountAttrFlags::MOUNT_ATTR_STRICTATIME.bits());
    flags.set(MsFlags::MS_STRICTATIME, attributes & ATIME == strict);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typ: &str, source: &str, options: &[&str]) -> Result<Mount> {
        let mut mount = oci::Mount::default();
        mount
            .set_destination("/mnt".into())
            .set_typ((!typ.is_empty()).then(|| typ.to_owned()))
            .set_source((!source.is_empty()).then(|| source.into()))
            .set_options(Some(options.iter().map(|&o| o.to_owned()).collect()));
        Mount::from_spec(&mount, Path::new("/bundle"))
    }

    fn bits(flag: MountAttrFlags) -> u64 {
        u64::from(flag.bits())
    }

    #[test]
    fn filesystem_options_are_told_from_mount_attributes() {
        let mount = parse("tmpfs", "", &["nosuid", "size=64k", "ro", "sync", "mode=755"]).unwrap();
        let Kind::Filesystem { fstype, source, options, .. } = &mount.kind else { panic!() };
        assert_eq!((fstype.to_bytes(), source.to_bytes()), (&b"tmpfs"[..], &b"tmpfs"[..]));
        assert_eq!(
            options,
            &[
                FsOption::Value(c"size".into(), c"64k".into()),
                FsOption::Flag(c"sync".into()),
                FsOption::Value(c"mode".into(), c"755".into()),
            ]
        );
        assert_eq!(
            mount.change.set,
            bits(MountAttrFlags::MOUNT_ATTR_NOSUID) | bits(MountAttrFlags::MOUNT_ATTR_RDONLY)
        );
        assert!(mount.tree_change.is_empty());
    }

    #[test]
    fn the_last_word_wins() {
        let mount = parse("tmpfs", "", &["ro", "rw", "nodev", "noatime", "strictatime"]).unwrap();
        assert_eq!(
            mount.change.set,
            bits(MountAttrFlags::MOUNT_ATTR_NODEV) | bits(MountAttrFlags::MOUNT_ATTR_STRICTATIME)
        );
        assert_eq!(mount.change.clear & ATIME, ATIME);
        assert_ne!(mount.change.clear & bits(MountAttrFlags::MOUNT_ATTR_RDONLY), 0);
    }

    #[test]
    fn binds_take_attributes_propagation_and_recursion_and_pass_over_the_rest() {
        let mount = parse("", "data", &["rbind", "rro", "rslave"]).unwrap();
        assert_eq!(mount.kind, Kind::Bind { source: "/bundle/data".into(), recursive: true });
        assert_eq!(mount.tree_change.set, bits(MountAttrFlags::MOUNT_ATTR_RDONLY));
        assert_eq!(mount.tree_change.propagation, MsFlags::MS_SLAVE.bits());
        let mount = parse("bind", "/data", &[]).unwrap();
        assert_eq!(mount.kind, Kind::Bind { source: "/data".into(), recursive: false });
        assert_eq!(parse("bind", "/data", &["size=1", "later"]).unwrap(), mount);
        for (typ, source, options) in
            [("bind", "", &[][..]), ("", "/data", &[]), ("none", "/data", &["rrrr"])]
        {
            assert!(parse(typ, source, options).is_err(), "{typ} {source} {options:?}");
        }
    }

    #[test]
    fn only_kernel_filesystems_want_a_real_folder() {
        assert!(parse("proc", "proc", &[]).unwrap().wants_real_folder());
        assert!(parse("sysfs", "sysfs", &[]).unwrap().wants_real_folder());
        assert!(!parse("tmpfs", "x", &[]).unwrap().wants_real_folder());
    }

    #[test]
    fn old_kernels_get_the_same_attributes() {
        let set = bits(MountAttrFlags::MOUNT_ATTR_RDONLY)
            | bits(MountAttrFlags::MOUNT_ATTR_NOEXEC)
            | bits(MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        assert_eq!(
            legacy_flags(set),
            MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_STRICTATIME
        );
        assert_eq!(legacy_flags(0), MsFlags::empty());
    }
}
