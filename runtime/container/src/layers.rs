//! A root filesystem of layers: overlayfs stacks folders that containers share, and one that this container writes to.
//!
//! The container's first process mounts it in its own mount namespace, so nothing of it is mounted on the host and nothing
//! has to be unmounted. Layers are named to the kernel by descriptors (`/proc/self/fd/N`), since a mount's options are bounded:
//! 256 bytes for each of fsconfig(2), which takes layers one by one since Linux 6.5 (`lowerdir+`), and a page for all of mount(2).
//! <https://docs.kernel.org/filesystems/overlayfs.html>

use crate::error::{Error, Result, Tried};
use crate::init::{Failure, Step};
use crate::mount::{FsOption, clone_tree, fd_path, mount_by_path, new_filesystem};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// What a root filesystem of layers is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Folders that are only read, the topmost first.
    pub lower: Vec<PathBuf>,
    /// A folder, made for the container and removed with it, for what it writes.
    pub place: PathBuf,
    /// What `owner.json` in that folder says, for whoever keeps the layers.
    pub owner: Vec<u8>,
}

impl Layers {
    /// Where the root filesystem is mounted if the kernel mounts by path alone; on the host an empty folder.
    pub fn root(&self) -> PathBuf {
        self.place.join("rootfs")
    }

    /// What mounts them in a shell.
    pub(crate) fn shell_command(&self) -> String {
        let lower: Vec<_> = self.lower.iter().map(|path| path.to_string_lossy()).collect();
        let (upper, work) = (self.upper(), self.work());
        let (upper, work, root) = (upper.display(), work.display(), self.root());
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        let options = crate::explain::word(&options);
        format!("mount -t overlay -o {options} overlay {}", root.display())
    }

    fn upper(&self) -> PathBuf {
        self.place.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.place.join("work")
    }

    /// Makes the folders. The journal knows of them already.
    pub(crate) fn make(&self) -> Result<()> {
        let mut private = fs::DirBuilder::new();
        // 0711: a user namespace's root goes through it, and nobody lists it.
        private.mode(0o711).create(&self.place).tried("create", &self.place)?;
        let owner = self.place.join("owner.json");
        fs::write(&owner, &self.owner).tried("write", &owner)?;
        for folder in [self.root(), self.upper(), self.work()] {
            private.create(&folder).tried("create", &folder)?;
        }
        // The upper folder's own attributes are those of the container's `/`.
        let upper = self.upper();
        let Some(top) = self.lower.first() else { return Ok(()) };
        let like = fs::metadata(top).tried("stat", top)?;
        let mode = fs::Permissions::from_mode(like.mode() & 0o7777);
        fs::set_permissions(&upper, mode).tried("set mode of", &upper)?;
        if rustix::process::geteuid().is_root() {
            chown(&upper, Some(like.uid()), Some(like.gid())).tried("set owner of", &upper)?;
        }
        Ok(())
    }

    /// Mounts the layers, detached from every tree of mounts.
    pub(crate) fn mount(&self) -> std::result::Result<OwnedFd, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| {
            rustix::fs::openat(CWD, path, flags, Mode::empty()).step("open layer", path)
        };
        let lower = self.lower.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let (upper, work) = (open(&self.upper())?, open(&self.work())?);
        let mut options = vec![value("upperdir", &upper), value("workdir", &work)];
        if !has_root_outside() {
            // Without it overlayfs keeps what it has to remember in attributes that take root.
            options.push(FsOption::Flag(c"userxattr".into()));
        }
        let mut one_by_one: Vec<FsOption> =
            lower.iter().map(|layer| value("lowerdir+", layer)).collect();
        one_by_one.extend(options.iter().cloned());
        match new_filesystem(c"overlay", c"terrarium", &one_by_one, 0) {
            // EINVAL: no `lowerdir+`, before Linux 6.5. ENOSYS: no fsopen, before 5.2.
            Err(Errno::INVAL | Errno::NOSYS) => self.mount_by_path(&lower, options),
            result => result.step_hint(
                "mount layers on",
                self.root(),
                "does this kernel have overlayfs, and is the image folder on a file system that it can write to?",
            ),
        }
    }

    fn mount_by_path(
        &self,
        lower: &[OwnedFd],
        mut options: Vec<FsOption>,
    ) -> std::result::Result<OwnedFd, Failure> {
        let root = self.root();
        let names: Vec<String> =
            lower.iter().map(|layer| fd_path(layer.as_fd()).display().to_string()).collect();
        options.push(FsOption::Value(c"lowerdir".into(), text(names.join(":"))));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target = rustix::fs::openat(CWD, &root, flags, Mode::empty()).step("open", &root)?;
        mount_by_path(c"overlay", c"terrarium", &options, 0, target.as_fd())
            .step("mount layers on", &root)?;
        clone_tree(CWD, &root, true).step("copy mounts of root filesystem", &root)
    }
}

fn value(name: &str, folder: &OwnedFd) -> FsOption {
    FsOption::Value(text(name.to_owned()), text(fd_path(folder.as_fd()).display().to_string()))
}

fn text(text: String) -> CString {
    CString::new(text).expect("numbers of descriptors have no NUL")
}

/// Whether this process is root in the initial user namespace, which alone may set `trusted.*` attributes.
fn has_root_outside() -> bool {
    rustix::process::geteuid().is_root()
        && fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", &u32::MAX.to_string()]))
}

/// Removes what a container wrote.
pub(crate) fn remove(place: &Path) -> Result<()> {
    match fs::remove_dir_all(place) {
        // overlayfs leaves a folder in `work` that its owner may not look into.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let inner = place.join("work/work");
            let _ = fs::set_permissions(&inner, fs::Permissions::from_mode(0o700));
            fs::remove_dir_all(place).tried("remove", place)
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).tried("remove", place),
        _ => Ok(()),
    }
}

/// Refuses a user namespace of root's: the layers' owners would be nobody in it.
pub(crate) fn check(layers: Option<&Layers>, user_namespace: bool) -> Result<()> {
    if layers.is_some() && user_namespace && rustix::process::geteuid().is_root() {
        return Err(Error::unsupported(
            "a user namespace for an image",
            "the owners of its files are not mapped; run it without --userns, or unpack it into a folder",
        ));
    }
    Ok(())
}
