//! The container's view of the filesystem: its root, the mounts in it, masked paths, and the way into it.
//!
//! Runs in the container's first process. Every path below the root is resolved by `openat2` with
//! `RESOLVE_IN_ROOT` (Linux 5.6) against a descriptor of the root, so that symlinks of the image, `..` and
//! magic links cannot lead out of it.

use crate::copy_up::copy_up;
use crate::devices::{self, Device};
use crate::explain;
use crate::init::{Failure, Step};
use crate::layers::Layers;
use crate::mount::{
    Kind, Mount, attach, change_mount, clone_tree, fd_path, mount_by_path, new_filesystem,
};
use crate::syscall::MountChange;
use nix::mount::{MntFlags, MsFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// What `/sys/fs/cgroup` shows inside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CgroupView {
    /// The unified hierarchy at the mount point itself (pure cgroup v2).
    pub pure_unified: bool,
    /// The host's mount of it, where the container has no cgroup namespace: it may not be able to mount it itself.
    pub top: Option<PathBuf>,
    /// Else: a folder for each hierarchy that the container has a cgroup of its own in. Others are left out:
    /// there the container sits in the runtime's cgroup, which is none of its business.
    pub folders: Vec<CgroupFolder>,
}

/// One hierarchy below `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupFolder {
    /// `memory`, `cpu,cpuacct`, `unified`.
    pub name: String,
    /// The v1 controllers that select the hierarchy; none for the unified one.
    pub controllers: Vec<String>,
    /// The container's cgroup on the host, where that is to be shown instead of what a mount would: without a cgroup namespace
    /// that is the whole host's.
    pub own: Option<PathBuf>,
}

/// Everything about the filesystem that the spec says.
#[derive(Debug)]
pub(crate) struct RootPlan {
    /// Root on the host, absolute.
    pub path: PathBuf,
    /// What is mounted there first, where it is not a folder with the container's files.
    pub layers: Option<Layers>,
    /// Whether the root is read-only.
    pub readonly: bool,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE` for the container's own tree; with `MS_REC` that of all mounts in
    /// it, where that can be told apart.
    pub propagation: MsFlags,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Device nodes to make.
    pub devices: Vec<Device>,
    /// Paths to hide.
    pub masked: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// For mounts of type cgroup.
    pub cgroups: CgroupView,
    /// Whether device nodes must be bound from the host (a user namespace may not make any).
    pub bind_devices: bool,
}

/// The root under construction.
pub(crate) struct Root {
    fd: OwnedFd,
    /// Whether it is mounted on top of the old root.
    covers_slash: bool,
    /// The root before, the host's.
    old: OwnedFd,
}

/// A file of the container, resolved inside its root.
impl Root {
    /// Opens `path` below the root, without a way out.
    pub(crate) fn open(&self, path: &Path, extra: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH, extra)
    }

    pub(crate) fn open_with(
        &self,
        path: &Path,
        flags: OFlags,
        extra: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
        loop {
            match rustix::fs::openat2(
                self.fd.as_fd(),
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                // A rename or mount anywhere on the host can make a `..` unsafe to follow; try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Opens the folder `path`, making what is missing.
    fn ensure_folder(&self, path: &Path, extra: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        match self.open(path, extra) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        // Most often the last name alone is missing.
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name())
            && let Ok(folder) = self.open(folder, extra)
            && rustix::fs::mkdirat(folder.as_fd(), name, 0o755.into()).is_ok()
        {
            return open_in(folder.as_fd(), name);
        }
        match self.missing(path, extra)? {
            (folder, None) => Ok(folder),
            (folder, Some(name)) => make_folder(folder.as_fd(), &name),
        }
    }

    /// Opens the file `path`, making an empty one where nothing is.
    pub(crate) fn ensure_file(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        match self.open(path, ResolveFlags::empty()) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let (folder, name) = self.missing(path, ResolveFlags::empty())?;
        let name = name.ok_or(Errno::ISDIR)?;
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(folder.as_fd(), &name, flags, 0o644.into())?);
        open_in(folder.as_fd(), &name)
    }

    /// Where `path`, which is not there, is to be made: a folder, and the name in it; no name where the path leads to a
    /// folder after all.
    ///
    /// It is walked name by name, each from the folder before it, as `path_resolution(7)` has it: links are followed, those
    /// that lead nowhere too (`/etc/resolv.conf` of many images), and folders on the way are made. `..` at the root stays there, and an
    /// absolute link begins there.
    fn missing(
        &self,
        path: &Path,
        extra: ResolveFlags,
    ) -> rustix::io::Result<(OwnedFd, Option<OsString>)> {
        let mut folders = vec![self.open(Path::new("/"), ResolveFlags::empty())?];
        let mut rest: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                folders.truncate((folders.len() - 1).max(1));
                continue;
            }
            let folder = folders.last().expect("the root stays").as_fd();
            match rustix::fs::readlinkat(folder, &name, Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS || extra.contains(ResolveFlags::NO_SYMLINKS) {
                        return Err(Errno::LOOP);
                    }
                    let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                    if target.is_absolute() {
                        folders.truncate(1);
                    }
                    for name in names(target).collect::<Vec<_>>().into_iter().rev() {
                        rest.push_front(name);
                    }
                }
                // It is there and no link, or it is not there.
                Err(Errno::INVAL | Errno::NOENT) if rest.is_empty() => {
                    return Ok((folders.pop().expect("the root stays"), Some(name)));
                }
                Err(Errno::INVAL | Errno::NOENT) => {
                    let next = make_folder(folder, &name)?;
                    folders.push(next);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((folders.pop().expect("the root stays"), None))
    }

    /// The folder that holds `path`, made if missing, and the last name.
    pub(crate) fn parent<'p>(&self, path: &'p Path) -> rustix::io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        Ok((self.ensure_folder(folder, ResolveFlags::empty())?, name))
    }
}

/// How many links lead to one file at most (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: u32 = 40;

/// The names of a path, `..` among them.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Opens what is called `name` in `folder`, and is no link.
fn open_in(folder: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Makes a folder, unless there is one, and opens it.
fn make_folder(folder: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(folder, name, 0o755.into()) {
        // What else lies there is found out by what is done with it.
        Ok(()) | Err(Errno::EXIST) => open_in(folder, name),
        Err(error) => Err(error),
    }
}

/// Makes the container's tree of mounts and enters it.
///
/// `tree` is a detached copy of the root filesystem that the runtime has made (and idmapped) already; `mapped` has the
/// same of mounts, in their order.
pub(crate) fn enter(
    plan: &RootPlan,
    tree: Option<OwnedFd>,
    mapped: Vec<Option<OwnedFd>>,
) -> Result<Root, Failure> {
    let slash = rustix::fs::openat(
        CWD,
        c"/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open", "/")?;
    let timer = explain::timer();
    let tree = match (tree, &plan.layers) {
        (Some(tree), _) => Some(tree),
        (None, Some(layers)) => Some(layers.mount()?),
        (None, None) => copy_root(&plan.path)?,
    };
    // A mount made here must never show on the host. Slaves of the host's mounts tell it nothing, and a volume that asks
    // for `rslave` still gets the host's. Volumes that are to share with the host are copied from what shares with it:
    // then only the root, on which this root is put, is cut off; `pivot` takes care of the rest.
    let (cut, recursive) = if shares(plan) && tree.is_some() {
        (MsFlags::MS_PRIVATE, false)
    } else {
        (MsFlags::MS_SLAVE, true)
    };
    let cut = MountChange { propagation: cut.bits(), recursive, ..Default::default() };
    let result = change_mount(slash.as_fd(), cut);
    let hint = match result.as_ref().map_err(io::Error::raw_os_error) {
        Err(Some(libc::EINVAL)) => {
            "/ is no mount, as in a chroot: mount --bind the folder onto itself before chroot"
        }
        _ => "",
    };
    result.step_hint("cut mounts off from the host's", "/", hint)?;
    let (tree, covers_slash) = match tree {
        Some(tree) => {
            // pivot_root wants the new root to be a mount. On top of the old root there is always a place for it, also
            // where the path to the root filesystem is out of reach for a user namespace's root. Absolute paths
            // still lead into the old root: looking up starts below what covers it.
            attach(tree.as_fd(), slash.as_fd())
                .step("mount root filesystem", plan.path.as_path())?;
            timer.note("mount", || match &plan.layers {
                Some(layers) => layers.shell_command(),
                None => format!("mount --rbind {0} {0}", shell_path(&plan.path)),
            });
            (tree, true)
        }
        None => (bind_root(&plan.path)?, false),
    };
    // pivot_root takes no shared root: it becomes so afterwards.
    let propagation =
        if shares(plan) { MsFlags::MS_PRIVATE } else { plan.propagation - MsFlags::MS_REC };
    let own =
        MountChange { propagation: propagation.bits(), recursive: true, ..MountChange::default() };
    change_mount(tree.as_fd(), own).step("set propagation of", plan.path.as_path())?;
    let root = Root { fd: tree, covers_slash, old: slash };

    let mapped = mapped.into_iter().chain(std::iter::repeat_with(|| None));
    for (mount, mapped) in plan.mounts.iter().zip(mapped) {
        let timer = explain::timer();
        match place(&root, mount, mapped, plan) {
            Err(_) if mount.optional => {}
            result => {
                result?;
                timer.note("mount", || mount_command(mount, &plan.path));
            }
        }
    }
    let timer = explain::timer();
    devices::make(&root, &plan.devices, plan.bind_devices)?;
    timer.note("mknod", || devices::shell_command(&plan.devices, &plan.path));
    Ok(root)
}

/// Makes the working folder, where it is missing.
pub(crate) fn make_working_folder(root: &Root, cwd: &Path) -> rustix::io::Result<()> {
    if cwd == Path::new("/") {
        return Ok(());
    }
    root.ensure_folder(cwd, ResolveFlags::empty()).map(drop)
}

/// Hides and protects what the spec wants hidden and protected. After everything that writes there.
pub(crate) fn restrict(root: &Root, plan: &RootPlan) -> Result<(), Failure> {
    let timer = explain::timer();
    mask(root, &plan.masked)?;
    if !plan.masked.is_empty() {
        let command =
            |path: &PathBuf| format!("mount -o bind,ro /dev/null {}", below(&plan.path, path));
        timer.note("mask", || plan.masked.iter().map(command).collect::<Vec<_>>().join("; "));
    }
    let timer = explain::timer();
    for path in &plan.readonly_paths {
        make_readonly(root, path)?;
    }
    if !plan.readonly_paths.is_empty() {
        let command = |path: &PathBuf| {
            let path = below(&plan.path, path);
            format!("mount --bind {path} {path} && mount -o remount,bind,ro {path}")
        };
        timer.note("read-only", || {
            plan.readonly_paths.iter().map(command).collect::<Vec<_>>().join("; ")
        });
    }
    if plan.readonly {
        let change = MountChange {
            set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()),
            ..MountChange::default()
        };
        change_mount(root.fd.as_fd(), change).step("make read-only", plan.path.as_path())?;
    }
    Ok(())
}

/// A path of the host as a word of a shell.
fn shell_path(path: &Path) -> String {
    explain::word(&path.to_string_lossy())
}

/// `path` of the container, below its root on the host.
fn below(root: &Path, path: &Path) -> String {
    shell_path(&root.join(path.strip_prefix("/").unwrap_or(path)))
}

/// What mounts the same in a shell.
fn mount_command(mount: &Mount, root: &Path) -> String {
    let target = below(root, &mount.destination);
    match &mount.kind {
        Kind::Filesystem { fstype, source, options, .. } => {
            let mut words: Vec<String> = attribute_names(mount.change.set);
            words.extend(options.iter().map(ToString::to_string));
            let options =
                if words.is_empty() { String::new() } else { format!("-o {} ", words.join(",")) };
            let (fstype, source) = (fstype.to_string_lossy(), source.to_string_lossy());
            format!("mkdir -p {target} && mount -t {fstype} {options}{source} {target}")
        }
        Kind::Bind { source, recursive } => {
            let how = if *recursive { "--rbind" } else { "--bind" };
            format!("mount {how} {} {target}", shell_path(source))
        }
        Kind::Cgroup => format!("mount --rbind /sys/fs/cgroup {target}"),
    }
}

fn attribute_names(set: u64) -> Vec<String> {
    let known = [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, "ro"),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, "nosuid"),
        (MountAttrFlags::MOUNT_ATTR_NODEV, "nodev"),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, "noexec"),
    ];
    let has = |flag: MountAttrFlags| set & u64::from(flag.bits()) != 0;
    known.into_iter().filter(|(flag, _)| has(*flag)).map(|(_, name)| name.to_owned()).collect()
}

/// A detached copy of the root filesystem's mounts; none where the kernel lacks `open_tree`.
fn copy_root(path: &Path) -> Result<Option<OwnedFd>, Failure> {
    match clone_tree(CWD, path, true) {
        Ok(tree) => Ok(Some(tree)),
        Err(Errno::NOSYS) => Ok(None),
        Err(error) => Err(error).step("copy mounts of root filesystem", path),
    }
}

/// Binds the root filesystem on itself, by mount(2).
fn bind_root(path: &Path) -> Result<OwnedFd, Failure> {
    let none: Option<&str> = None;
    nix::mount::mount(Some(path), path, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .step("mount root filesystem", path)?;
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .step("open root filesystem", path)
}

/// Makes `mount` and puts it in its place.
fn place(
    root: &Root,
    mount: &Mount,
    mapped: Option<OwnedFd>,
    plan: &RootPlan,
) -> Result<(), Failure> {
    let on = mount.destination.as_path();
    let extra =
        if mount.wants_real_folder() { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
    match &mount.kind {
        Kind::Filesystem { fstype, source, options, copies_up } => {
            let target = root.ensure_folder(on, extra).step("open mount point", on)?;
            match new_filesystem(fstype, source, options, mount.change.set) {
                Ok(new) => {
                    if *copies_up {
                        copy_up(target.as_fd(), new.as_fd()).step("copy up", on)?;
                    }
                    attach(new.as_fd(), target.as_fd()).step("mount", on)?;
                    finish(new.as_fd(), mount.change.propagation, mount)
                }
                Err(Errno::NOSYS) => {
                    mount_by_path(fstype, source, options, mount.change.set, target.as_fd())
                        .step("mount", on)?;
                    let new = root.open(on, extra).step("open", on)?;
                    finish(new.as_fd(), mount.change.propagation, mount)
                }
                Err(error) => {
                    let what = format!("{} on {}", fstype.to_string_lossy(), on.display());
                    Err(error).step("mount", what.as_str())
                }
            }
        }
        Kind::Bind { source, recursive } => {
            let new = mapped.map_or_else(|| clone_tree(CWD, source.as_path(), *recursive), Ok);
            let new =
                new.step_hint("bind", source.as_path(), "the source of a volume must exist")?;
            let kind = rustix::fs::fstat(new.as_fd()).step("stat", source.as_path())?.st_mode;
            let target = if FileType::from_raw_mode(kind) == FileType::Directory {
                root.ensure_folder(on, extra)
            } else {
                root.ensure_file(on)
            }
            .step("open mount point", on)?;
            attach(new.as_fd(), target.as_fd()).step("bind on", on)?;
            if let Some(first) = cut_off(mount, plan) {
                let first = MountChange {
                    propagation: first.bits(),
                    recursive: true,
                    ..MountChange::default()
                };
                change_mount(new.as_fd(), first).step("cut off from the host's", on)?;
            }
            change_mount(new.as_fd(), mount.change).step("set options of", on)?;
            change_mount(new.as_fd(), mount.tree_change).step("set options of", on)
        }
        Kind::Cgroup => cgroups(root, mount, &plan.cgroups),
    }
}

/// What a bind, a copy of the host's mount, becomes before its options are set; `None` where it is to stay the host's peer.
fn cut_off(mount: &Mount, plan: &RootPlan) -> Option<MsFlags> {
    let asked = MsFlags::from_bits_retain(mount.change.propagation | mount.tree_change.propagation);
    if asked.contains(MsFlags::MS_SHARED) && shares(plan) {
        None
    } else if asked.contains(MsFlags::MS_SLAVE) {
        Some(MsFlags::MS_SLAVE)
    } else {
        Some(MsFlags::MS_PRIVATE)
    }
}

fn finish(new: BorrowedFd<'_>, propagation: u64, mount: &Mount) -> Result<(), Failure> {
    let on = mount.destination.as_path();
    let change = MountChange { propagation, ..MountChange::default() };
    change_mount(new, change).step("set propagation of", on)?;
    change_mount(new, mount.tree_change).step("set options of", on)
}

/// Each of several controllers in one hierarchy is a link to it.
fn link_controllers(root: &Root, folder: &CgroupFolder, path: &Path) -> Result<(), Failure> {
    if folder.controllers.len() > 1 {
        let (parent, _) = root.parent(path).step("open", path)?;
        for controller in &folder.controllers {
            rustix::fs::symlinkat(folder.name.as_str(), parent.as_fd(), controller.as_str())
                .step("link", path)?;
        }
    }
    Ok(())
}

/// Shows a cgroup of the host's at `on`.
fn attach_own(
    own: &Path,
    change: MountChange,
    target: BorrowedFd<'_>,
    on: &Path,
) -> Result<(), Failure> {
    let new = clone_tree(CWD, own, false).step("bind", own)?;
    attach(new.as_fd(), target).step("bind on", on)?;
    let private = MountChange { propagation: MsFlags::MS_PRIVATE.bits(), ..MountChange::default() };
    change_mount(new.as_fd(), private).step("cut off from the host's", on)?;
    change_mount(new.as_fd(), change).step("set options of", on)
}

/// `/sys/fs/cgroup`: the container's own cgroups, as its cgroup namespace shows them.
fn cgroups(root: &Root, mount: &Mount, view: &CgroupView) -> Result<(), Failure> {
    let on = mount.destination.as_path();
    let target = root.ensure_folder(on, ResolveFlags::empty()).step("open mount point", on)?;
    let attach_new = |fstype: &std::ffi::CStr,
                      options: &[crate::mount::FsOption],
                      attributes: u64,
                      target: BorrowedFd<'_>,
                      on: &Path|
     -> Result<(), Failure> {
        match new_filesystem(fstype, c"cgroup", options, attributes) {
            Ok(new) => attach(new.as_fd(), target).step("mount", on),
            Err(Errno::NOSYS) => {
                mount_by_path(fstype, c"cgroup", options, attributes, target).step("mount", on)
            }
            Err(error) => Err(error).step("mount", on),
        }
    };
    if view.pure_unified {
        let mounted = attach_new(c"cgroup2", &[], mount.change.set, target.as_fd(), on);
        // Only a cgroup namespace of its own gives a user namespace the right to.
        return match (mounted, &view.top) {
            (Err(failure), Some(top)) if failure.is_refusal() => {
                attach_own(top, mount.change, target.as_fd(), on)
            }
            (mounted, _) => mounted,
        };
    }
    let readonly = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    let mode = [crate::mount::FsOption::Value(c"mode".into(), c"755".into())];
    attach_new(c"tmpfs", &mode, mount.change.set & !readonly, target.as_fd(), on)?;
    for folder in &view.folders {
        let path = on.join(&folder.name);
        let target =
            root.ensure_folder(&path, ResolveFlags::NO_SYMLINKS).step("make", path.as_path())?;
        if let Some(own) = &folder.own {
            attach_own(own, mount.change, target.as_fd(), &path)?;
            link_controllers(root, folder, &path)?;
            continue;
        }
        if folder.controllers.is_empty() {
            attach_new(c"cgroup2", &[], mount.change.set, target.as_fd(), &path)?;
            continue;
        }
        let mut options = Vec::new();
        for controller in &folder.controllers {
            if let Some(name) = controller.strip_prefix("name=") {
                options.push(crate::mount::FsOption::Flag(c"none".into()));
                let name = CString::new(name).step("name", path.as_path())?;
                options.push(crate::mount::FsOption::Value(c"name".into(), name));
            } else {
                let name = CString::new(controller.as_str()).step("name", path.as_path())?;
                options.push(crate::mount::FsOption::Flag(name));
            }
        }
        attach_new(c"cgroup", &options, mount.change.set, target.as_fd(), &path)?;
        link_controllers(root, folder, &path)?;
    }
    if mount.change.set & readonly != 0 {
        let tmpfs = root.open(on, ResolveFlags::empty()).step("open", on)?;
        let change = MountChange { set: readonly, ..MountChange::default() };
        change_mount(tmpfs.as_fd(), change).step("make read-only", on)?;
    }
    Ok(())
}

/// Hides `paths`: a file under the host's /dev/null, a folder under an empty read-only tmpfs.
fn mask(root: &Root, paths: &[PathBuf]) -> Result<(), Failure> {
    // One empty folder serves all, and one node.
    let (empty, null) = (OnceCell::new(), OnceCell::new());
    for path in paths {
        let target = match root.open(path, ResolveFlags::empty()) {
            Ok(target) => target,
            // What is not there needs no mask. ENOTDIR, EACCES: it cannot be reached either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            Err(error) => return Err(error).step("open to mask", path.as_path()),
        };
        let mode = rustix::fs::fstat(target.as_fd()).step("stat", path.as_path())?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Directory {
            // The host's node, not the container's: an image could have put anything at /dev/null
            // (CVE-2025-31133).
            mask_file(root, path, target.as_fd(), &null).step("mask", path.as_path())?;
            continue;
        }
        mask_folder(target.as_fd(), &empty).step("mask", path.as_path())?;
    }
    Ok(())
}

/// Read-only, for the node is the host's: whoever is root inside could take everybody's right to write to it.
fn mask_file(
    root: &Root,
    path: &Path,
    target: BorrowedFd<'_>,
    null: &OnceCell<OwnedFd>,
) -> io::Result<()> {
    if let Some(null) = null.get() {
        let copy = clone_tree(null.as_fd(), c"", false)?;
        return Ok(attach(copy.as_fd(), target)?);
    }
    match clone_tree(CWD, c"/dev/null", false) {
        Ok(new) => {
            attach(new.as_fd(), target)?;
            change_mount(new.as_fd(), MountChange::READ_ONLY)?;
            let _ = null.set(new);
            Ok(())
        }
        Err(Errno::NOSYS) => {
            let none: Option<&str> = None;
            nix::mount::mount(Some("/dev/null"), &fd_path(target), none, MsFlags::MS_BIND, none)?;
            // The descriptor is of what lies below it.
            let new = root.open(path, ResolveFlags::empty())?;
            change_mount(new.as_fd(), MountChange::READ_ONLY)
        }
        Err(error) => Err(error.into()),
    }
}

fn mask_folder(target: BorrowedFd<'_>, empty: &OnceCell<OwnedFd>) -> io::Result<()> {
    let options = [crate::mount::FsOption::Value(c"nr_blocks".into(), c"1".into())];
    let attributes = u64::from(
        (MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC)
            .bits(),
    );
    if let Some(empty) = empty.get() {
        let copy = clone_tree(empty.as_fd(), c"", false)?;
        return Ok(attach(copy.as_fd(), target)?);
    }
    match new_filesystem(c"tmpfs", c"tmpfs", &options, attributes) {
        Ok(new) => {
            attach(new.as_fd(), target)?;
            // The descriptor now stands for the attached mount: a copy of it has the same empty folder.
            let _ = empty.set(new);
            Ok(())
        }
        Err(Errno::NOSYS) => mount_by_path(c"tmpfs", c"tmpfs", &options, attributes, target),
        Err(error) => Err(error.into()),
    }
}

/// Puts a read-only copy of what is at `path` over it.
fn make_readonly(root: &Root, path: &Path) -> Result<(), Failure> {
    let target = match root.open(path, ResolveFlags::empty()) {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error).step("open to make read-only", path),
    };
    let change = MountChange::READ_ONLY;
    match clone_tree(target.as_fd(), c"", true) {
        Ok(copy) => {
            let all = MountChange { recursive: true, ..change };
            attach(copy.as_fd(), target.as_fd()).step("bind on itself", path)?;
            change_mount(copy.as_fd(), all).step("make read-only", path)
        }
        Err(Errno::NOSYS) => {
            let none: Option<&str> = None;
            let by_path = fd_path(target.as_fd());
            nix::mount::mount(
                Some(&by_path),
                &by_path,
                none,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                none,
            )
            .step("bind on itself", path)?;
            let copy = root.open(path, ResolveFlags::empty()).step("open", path)?;
            change_mount(copy.as_fd(), change).step("make read-only", path)
        }
        Err(error) => Err(error).step("copy mount at", path),
    }
}

fn shares(plan: &RootPlan) -> bool {
    plan.propagation.contains(MsFlags::MS_SHARED)
}

/// Makes the container's root the root of this process, and the host's tree unreachable.
pub(crate) fn pivot(root: &Root, plan: &RootPlan) -> Result<(), Failure> {
    let path = plan.path.as_path();
    let timer = explain::timer();
    rustix::process::fchdir(root.fd.as_fd()).step("enter", path)?;
    match nix::unistd::pivot_root(".", ".") {
        Ok(()) => {
            // The old root now lies on top of the new one; `.` is the old root until it is gone.
            if shares(plan) {
                // Else the host would lose what is unmounted here.
                rustix::process::fchdir(root.old.as_fd()).step("enter", "the host's root")?;
                let none: Option<&str> = None;
                nix::mount::mount(none, ".", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)
                    .step("cut mounts off from the host's", "/")?;
            }
            nix::mount::umount2(".", MntFlags::MNT_DETACH).step("unmount the host's root", "/")?;
        }
        // The initial ramfs cannot be pivoted away from: it has no parent mount.
        Err(nix::errno::Errno::EINVAL) if is_initial_ramfs() => move_root(root)?,
        Err(error) => return Err(error).step("pivot_root", path),
    }
    rustix::process::chdir(c"/").step("enter", "/")?;
    timer.note("pivot_root", || {
        format!("cd {} && pivot_root . . && umount -l . && cd /", shell_path(path))
    });
    if shares(plan) {
        let change = MountChange {
            propagation: MsFlags::MS_SHARED.bits(),
            recursive: plan.propagation.contains(MsFlags::MS_REC),
            ..MountChange::default()
        };
        change_mount(root.fd.as_fd(), change).step("set propagation of", "/")?;
    }
    Ok(())
}

/// Whether the root of this mount namespace is the kernel's initial ramfs.
fn is_initial_ramfs() -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(c"/").is_ok_and(|fs| matches!(fs.f_type, RAMFS_MAGIC | TMPFS_MAGIC))
}

/// Covers the root of the namespace with the container's root, as `switch_root` does.
fn move_root(root: &Root) -> Result<(), Failure> {
    if !root.covers_slash {
        let none: Option<&str> = None;
        nix::mount::mount(Some("."), "/", none, MsFlags::MS_MOVE, none)
            .step("move root filesystem over", "/")?;
    }
    rustix::process::chroot(c".").step("chroot", ".")
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// What is made for `path` in a root where `link` leads to `target`.
    fn made(link: &str, target: &str, path: &str, is_file: bool) -> Result<Vec<String>, Errno> {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("root");
        fs::create_dir_all(top.join("var")).unwrap();
        fs::create_dir(top.join("run")).unwrap();
        symlink(target, top.join(link)).unwrap();
        let open = |path: &Path| fs::File::open(path).unwrap().into();
        let root = Root { fd: open(&top), covers_slash: false, old: open(Path::new("/")) };
        let path = Path::new(path);
        let opened = if is_file {
            root.ensure_file(path)?
        } else {
            root.ensure_folder(path, ResolveFlags::empty())?
        };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(opened)?.st_mode);
        assert_eq!(kind == FileType::RegularFile, is_file);
        let mut found = Vec::new();
        let mut folders = vec![place.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path.clone());
                }
                let below = path.strip_prefix(place.path()).unwrap().to_str().unwrap().to_owned();
                if !["root", "root/var", "root/run"].contains(&below.as_str())
                    && path != top.join(link)
                {
                    found.push(below);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    #[test]
    fn what_is_missing_is_made_where_links_lead() {
        let made = |link, target, path| made(link, target, path, false).unwrap();
        // As Debian has it, and as Kubernetes mounts its tokens.
        let token = made("var/run", "/run", "/var/run/secrets/token");
        assert_eq!(token, ["root/run/secrets", "root/run/secrets/token"]);
        assert_eq!(made("var/run", "../run", "/var/run/lock"), ["root/run/lock"]);
        // To what is not there.
        let lock = made("var/lock", "/run/lock", "/var/lock/one");
        assert_eq!(lock, ["root/run/lock", "root/run/lock/one"]);
        assert_eq!(made("var/lock", "/run/lock", "/var/lock"), ["root/run/lock"]);
        // The parent of where a link leads, not of the link.
        assert_eq!(made("var/run", "../run", "/var/run/../one"), ["root/one"]);
        assert_eq!(
            made("var/run", "../run", "/none/../var/run/one"),
            ["root/none", "root/run/one"]
        );
    }

    #[test]
    fn a_file_is_made_where_its_link_leads() {
        let target = "../run/resolvconf/interface/resolv.conf";
        let resolv = made("resolv.conf", target, "/resolv.conf", true).unwrap();
        let folder = "root/run/resolvconf";
        let interface = format!("{folder}/interface");
        assert_eq!(resolv, [folder, &interface, &format!("{interface}/resolv.conf")]);
        assert_eq!(made("var/run", "/run", "/var/run/a", true).unwrap(), ["root/run/a"]);
        assert_eq!(made("var/run", "/run", "/none/..", true), Err(Errno::ISDIR));
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let made = |target, path| made("link", target, path, false);
        assert_eq!(made("../../../../etc2/x", "/link").unwrap(), ["root/etc2", "root/etc2/x"]);
        assert_eq!(made("/../..", "/link/etc2").unwrap(), ["root/etc2"]);
        assert_eq!(made("link", "/link"), Err(Errno::LOOP));
        assert_eq!(made("run/../link", "/link/one"), Err(Errno::LOOP));
    }
}
