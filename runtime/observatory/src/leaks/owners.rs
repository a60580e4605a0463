//! Whose a namespace is: a container's, from the execve(2) of its program until its first process has ended. The kernel gives
//! the inode to another namespace soon after.

use super::finding::ContainerName;
use std::collections::HashMap;
use std::sync::Arc;

/// More containers are not remembered between two looks.
const MOST: usize = 16_384;

/// The container that a namespace is of.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub name: Arc<ContainerName>,
    /// The path of one of its cgroups.
    pub cgroup: Arc<str>,
    /// Its first process.
    pub pid: u32,
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    /// A look that was under way when it started may have missed it; the second one has not.
    was_looked: bool,
}

/// The namespaces of containers by their inodes; those of the host are none.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_inode: HashMap<u64, Entry>,
    by_pid: HashMap<u32, Vec<u64>>,
}

impl Owners {
    /// The container that is in this namespace.
    pub fn of(&self, inode: u32) -> Option<&Owner> {
        self.by_inode.get(&u64::from(inode)).map(|entry| &entry.owner)
    }

    /// A container has executed its program, in these namespaces. `is_there` says whether a process still has any.
    pub fn started(&mut self, owner: &Owner, inodes: &[u64], is_there: impl Fn(u32) -> bool) {
        if self.by_pid.len() >= MOST {
            *self = Self::default();
        }
        for inode in inodes {
            // A look that was under way may have brought back one that has ended since.
            let before = self.by_inode.get(inode).map(|entry| entry.owner.pid);
            if let Some(gone) = before.filter(|before| *before != owner.pid && !is_there(*before)) {
                self.ended(gone);
            }
            self.insert(*inode, owner.clone(), false);
        }
    }

    fn insert(&mut self, inode: u64, owner: Owner, was_looked: bool) {
        let pid = owner.pid;
        // One that it shares is that of who had it before.
        let entry = Entry { owner, was_looked };
        if self.by_inode.entry(inode).or_insert(entry).owner.pid == pid {
            self.by_pid.entry(pid).or_default().push(inode);
        }
    }

    /// A process has ended.
    pub fn ended(&mut self, pid: u32) {
        for inode in self.by_pid.remove(&pid).unwrap_or_default() {
            self.by_inode.remove(&inode);
        }
    }

    /// All containers were looked at: these namespaces are theirs. `is_there` says whether a process still is.
    pub fn looked(&mut self, all: Vec<(u64, Owner)>, is_there: impl Fn(u32) -> bool) {
        let before = std::mem::take(self);
        let mut there: HashMap<u32, bool> = HashMap::new();
        for (inode, owner) in all {
            let pid = owner.pid;
            // It may have ended since, and its inodes may be another's.
            if *there.entry(pid).or_insert_with(|| is_there(pid)) {
                self.insert(inode, owner, true);
            }
        }
        for (inode, entry) in before.by_inode.into_iter().filter(|(_, entry)| !entry.was_looked) {
            self.insert(inode, entry.owner, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: &str, pid: u32) -> Owner {
        let name = ContainerName { id: id.into(), name: id.into(), runtime: "terrarium".into() };
        Owner { name: Arc::new(name), cgroup: Arc::from(id), pid }
    }

    fn who(owners: &Owners, inode: u32) -> Option<&str> {
        owners.of(inode).map(|owner| owner.name.id.as_str())
    }

    #[test]
    fn an_inode_that_comes_back_is_the_next_containers() {
        let mut owners = Owners::default();
        owners.started(&owner("one", 10), &[1, 2], |_| true);
        owners.started(&owner("joins", 20), &[2, 3], |_| true);
        assert_eq!([1, 2, 3].map(|i| who(&owners, i)), [Some("one"), Some("one"), Some("joins")]);
        owners.ended(20);
        assert_eq!([1, 2, 3].map(|i| who(&owners, i)), [Some("one"), Some("one"), None]);
        owners.ended(10);
        owners.started(&owner("two", 30), &[2], |_| true);
        assert_eq!([1, 2].map(|i| who(&owners, i)), [None, Some("two")]);
        // Its end was not told.
        owners.started(&owner("three", 40), &[2, 4], |pid| pid != 30);
        assert_eq!([2, 4].map(|i| who(&owners, i)), [Some("three"); 2]);
    }

    #[test]
    fn a_look_that_missed_a_container_takes_nothing_away() {
        let mut owners = Owners::default();
        owners.started(&owner("young", 10), &[1], |_| true);
        let old = || vec![(5, owner("old", 50)), (6, owner("gone", 60))];
        owners.looked(old(), |pid| pid != 60);
        assert_eq!([1, 5, 6].map(|i| who(&owners, i)), [Some("young"), Some("old"), None]);
        owners.looked(old(), |pid| pid != 60);
        assert_eq!([1, 5].map(|i| who(&owners, i)), [None, Some("old")], "nobody saw it");
        owners.ended(50);
        assert_eq!(who(&owners, 5), None);
    }
}
