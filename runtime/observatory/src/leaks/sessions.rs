//! How a process came into its container: with it, by an `exec`, or as one of its hooks.
//!
//! No name is guessed from. The first program that is executed in a cgroup is the container's; what its first process starts
//! before it has executed that program is a hook; and who comes in afterwards from outside is there by an `exec`,
//! `docker exec`, or nsenter with the cgroup joined.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// No more containers are remembered.
const MOST: usize = 8192;

/// How a process came to be where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// With the container, or with nobody's.
    Own,
    /// Entered when its program ran already.
    Exec,
    /// Started by the container's first process before its program, or by such a one.
    Hook,
}

/// A process that executes a program in a container which it is not of yet.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// As the host sees it.
    pub pid: u32,
    /// As it sees itself.
    pub ns_pid: u32,
    /// Whether its maker is a first process that is not the container's own yet, or a hook.
    pub by_hook: bool,
}

/// Which containers have their program.
#[derive(Debug, Default)]
pub struct Sessions {
    /// The first process of each, by the path of its cgroup.
    started: HashMap<Arc<str>, u32>,
    /// Cgroups whose making was seen.
    made: HashSet<String>,
}

impl Sessions {
    /// A cgroup was made.
    pub fn cgroup_made(&mut self, path: &str) {
        if self.made.len() >= MOST {
            self.made.clear();
        }
        self.made.insert(path.to_owned());
    }

    /// A cgroup was removed.
    pub fn cgroup_removed(&mut self, path: &str) {
        self.made.remove(path);
        self.started.remove(path);
    }

    /// A process has ended: its container may be started again in the same cgroup.
    pub fn ended(&mut self, pid: u32) {
        self.started.retain(|_, first| *first != pid);
    }

    /// A process executes its first program in the container with this cgroup.
    pub fn enters(&mut self, path: &Arc<str>, entry: Entry) -> Session {
        if entry.by_hook && entry.ns_pid != 1 {
            return Session::Hook;
        }
        if self.started.contains_key(path) {
            return Session::Exec;
        }
        // One that was there before the observatory has its first process already.
        let is_new = entry.ns_pid == 1 || self.made.contains(&**path);
        if !is_new {
            return Session::Exec;
        }
        if self.started.len() >= MOST {
            self.started.clear();
        }
        self.started.insert(Arc::clone(path), entry.pid);
        Session::Own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn entry(pid: u32, ns_pid: u32) -> Entry {
        Entry { pid, ns_pid, by_hook: false }
    }

    #[test]
    fn the_first_is_the_containers_and_who_comes_later_is_not() {
        let path: Arc<str> = Arc::from("/c");
        let mut sessions = Sessions::default();
        sessions.cgroup_made("/c");
        let hook = Entry { by_hook: true, ..entry(9, 2) };
        assert_eq!(sessions.enters(&path, hook), Session::Hook);
        // In the host's pid namespace no process is number 1.
        assert_eq!(sessions.enters(&path, entry(10, 10)), Session::Own);
        assert_eq!(sessions.enters(&path, entry(11, 11)), Session::Exec);
        sessions.ended(11);
        assert_eq!(sessions.enters(&path, entry(12, 12)), Session::Exec);
        sessions.ended(10);
        assert_eq!(sessions.enters(&path, entry(13, 13)), Session::Own, "it is started again");
        sessions.cgroup_removed("/c");
        assert_eq!(sessions.enters(&path, entry(14, 14)), Session::Exec, "it was there before");
        assert_eq!(sessions.enters(&path, entry(15, 1)), Session::Own);
    }
}
