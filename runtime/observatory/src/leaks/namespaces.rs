//! Every namespace of the host and who holds it alive: processes, descriptors, mounts. The answer to "why is this network
//! namespace still there".

use super::host::{Host, LookError, Places, Wanted};
use super::process::{Kind, namespace_of_link};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What holds a namespace without being in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// `fd` or `mount`
    pub kind: &'static str,
    /// The descriptor or the mount point.
    pub path: String,
    /// The process that has it open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// A process in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// Its id.
    pub pid: i32,
    /// Its name: any bytes that it chose.
    pub name: String,
}

/// A namespace.
#[derive(Debug, Clone, Serialize)]
pub struct NamespaceInfo {
    /// `mnt`, `net`, …
    pub kind: &'static str,
    /// Its inode.
    pub inode: u64,
    /// Whether it is the host's.
    pub host: bool,
    /// The containers whose first process is in it.
    pub containers: Vec<String>,
    /// The processes in it.
    pub processes: Vec<Member>,
    /// What else holds it.
    pub held_by: Vec<Holder>,
}

/// Every namespace that something is in or holds.
pub fn all(places: &Places) -> Result<Vec<NamespaceInfo>, LookError> {
    let host = Host::look(places, &Wanted::All)?;
    let mut members: BTreeMap<(Kind, u64), Vec<Member>> = BTreeMap::new();
    let mut holders: BTreeMap<(Kind, u64), BTreeSet<Holder>> = BTreeMap::new();
    let mut mount_namespaces = BTreeSet::new();
    for process in host.processes() {
        for kind in Kind::ALL {
            let Some(inode) = process.namespace(kind) else { continue };
            let member = Member { pid: process.pid, name: process.name.clone() };
            members.entry((kind, inode)).or_default().push(member);
        }
        for open in host.proc().descriptors(process.pid, 4096) {
            if let Some(namespace) = namespace_of_link(&open.target) {
                let path = format!("/proc/{}/{}", process.pid, open.name);
                let holder = Holder { kind: "fd", path, pid: Some(process.pid) };
                holders.entry(namespace).or_default().insert(holder);
            }
        }
        // One process speaks for all that see the same mounts.
        let Some(inode) = process.namespace(Kind::Mnt) else { continue };
        if !mount_namespaces.insert(inode) {
            continue;
        }
        let own = host.is_own(Kind::Mnt, inode);
        for mount in host.proc().mounts(process.pid) {
            let Some(namespace) =
                (mount.kind == "nsfs").then(|| namespace_of_link(&mount.root)).flatten()
            else {
                continue;
            };
            let pid = (!own).then_some(process.pid);
            let holder = Holder { kind: "mount", path: mount.point, pid };
            holders.entry(namespace).or_default().insert(holder);
        }
    }
    let keys: BTreeSet<(Kind, u64)> = members.keys().chain(holders.keys()).copied().collect();
    let told = keys.into_iter().map(|(kind, inode)| NamespaceInfo {
        kind: kind.name(),
        inode,
        host: host.is_own(kind, inode),
        containers: host
            .containers
            .iter()
            .filter(|container| container.namespace(kind) == Some(inode))
            .map(|container| container.name.name.clone())
            .collect(),
        processes: members.remove(&(kind, inode)).unwrap_or_default(),
        held_by: holders.remove(&(kind, inode)).unwrap_or_default().into_iter().collect(),
    });
    Ok(told.collect())
}
