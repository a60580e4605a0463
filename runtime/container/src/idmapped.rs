//! Idmapped mounts: the owners of a volume's files are shown as others, by a user namespace that serves as the table
//! (`mount_setattr(2)`, `MOUNT_ATTR_IDMAP`, Linux 5.12).
//!
//! The runtime makes the mounts, detached, before the container's first process exists: only who is root over the file
//! system may map it, which the root of a new user namespace is not.

use crate::error::{Error, Result, Tried};
use crate::id_maps;
use crate::init::{self, ExitOnDrop};
use crate::mount::{IdMap, Kind, Mount, clone_tree};
use crate::sync;
use crate::syscall::{Cloned, clone3, mount_idmap};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// A detached and mapped copy for each of `mounts` that asks for one; none for the others.
pub(crate) fn trees(mounts: &[Mount]) -> Result<Vec<Option<OwnedFd>>> {
    let mut namespaces: Vec<(&IdMap, OwnedFd)> = Vec::new();
    let mut trees = Vec::new();
    for mount in mounts {
        let (Some(map), Kind::Bind { source, recursive }) = (&mount.idmap, &mount.kind) else {
            trees.push(None);
            continue;
        };
        let known = namespaces.iter().position(|(other, _)| other.same_ids(map));
        let index = if let Some(index) = known {
            index
        } else {
            namespaces.push((map, namespace_of(map)?));
            namespaces.len() - 1
        };
        let tree = clone_tree(rustix::fs::CWD, source.as_path(), *recursive).tried_hint(
            "bind",
            source,
            "the source of a volume must exist",
        )?;
        mount_idmap(tree.as_fd(), namespaces[index].1.as_fd(), map.recursive).tried_hint(
            "map the owners of",
            source,
            "this file system, or a kernel before Linux 5.12, cannot do it; remove uidMappings, gidMappings and idmap",
        )?;
        trees.push(Some(tree));
    }
    Ok(trees)
}

/// A user namespace with the map, and nobody in it.
fn namespace_of(map: &IdMap) -> Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        let reason = "only root may say whose files they are";
        return Err(Error::unsupported("an idmapped mount", reason));
    }
    let (ours, theirs) = sync::pair().tried("make", "socket pair")?;
    let flags = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    let (pid, pidfd) = match clone3(flags, None).tried("clone3", "user namespace of a mount")? {
        Cloned::Child => {
            let _guard = ExitOnDrop;
            drop(ours);
            // Until the runtime has what it wants, or is gone.
            let _ = theirs.receive();
            init::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let write = |file: &str, text: String| {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        std::fs::write(&path, text).tried_hint(
            "write id map",
            &path,
            "ranges must not overlap, and there are at most 340 of them",
        )
    };
    let opened = write("gid_map", id_maps::text(&map.gid))
        .and_then(|()| write("uid_map", id_maps::text(&map.uid)))
        .and_then(|()| {
            let path = PathBuf::from(format!("/proc/{pid}/ns/user"));
            File::open(&path).tried("open", &path)
        });
    drop((ours, theirs));
    waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).tried("wait for", "child")?;
    Ok(opened?.into())
}
