//! One look at the host: its namespaces and mounts, every process, and which of them make up which container.

use super::capability;
use super::cgroups::{self, Hierarchy};
use super::engines::{self, EngineRoots, Known};
use super::finding::ContainerName;
use super::mounts::{self, Mount, Tables};
use super::process::{Kind, Proc, Process, Status};
use super::spec::{Namespace, Spec};
use crate::attribution::patterns;
use crate::precedence::give_way;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// The process filesystem.
    pub proc: Proc,
    /// Where engines keep what they know.
    pub engines: EngineRoots,
    /// /sys, for what the kernel says of itself.
    pub sys: PathBuf,
}

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Every container.
    All,
    /// The one with this id, name, or beginning of an id.
    Named(String),
    /// The one that this process belongs to, or the process's own surroundings where it is in none.
    Process(i32),
}

/// Why it could not be looked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    /// No such container.
    #[error(
        "look for container {0:?}: there is none that runs (see `terrarium leaks --all` or `terrarium ps`)"
    )]
    NoContainer(String),
    /// Several.
    #[error(
        "look for container {text:?}: {first} and {second} begin like that (give more of the id)"
    )]
    Ambiguous {
        /// What was given.
        text: String,
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
    /// No such process.
    #[error("look at process {0}: there is none, or it is the kernel's")]
    NoProcess(i32),
    /// The process filesystem cannot be read.
    #[error("read the processes: none are to be seen (mount /proc, or run as root)")]
    NoProc,
}

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    /// How it is called.
    pub name: Arc<ContainerName>,
    /// Its first process.
    pub init: Process,
    /// What the kernel says of that process.
    pub status: Status,
    /// What was asked for, where it can be read.
    pub spec: Option<Spec>,
    /// Limits that were set after the spec was written.
    pub limits: BTreeMap<[&'static str; 2], i64>,
    /// Its own cgroups: the controllers of a hierarchy, and the path.
    pub cgroups: Vec<(String, String)>,
    /// Its processes: those in its cgroups, and its first one.
    pub tasks: Vec<i32>,
    /// What its first process sees mounted.
    pub mounts: Arc<[Mount]>,
    /// Whether its program has been started.
    pub started: bool,
    namespace_root: OnceLock<Option<Vec<Mount>>>,
}

impl Container {
    /// The inode of one of its namespaces.
    pub fn namespace(&self, kind: Kind) -> Option<u64> {
        self.init.namespace(kind)
    }

    /// Its path in the hierarchy that has `controller` (empty: in cgroup v2).
    pub fn cgroup(&self, host: &Host, controller: &str) -> Option<(Hierarchy, String)> {
        let hierarchy = host.hierarchy(controller)?;
        let path = self.cgroups.iter().find(|(name, _)| *name == hierarchy.controllers);
        let path = path.map(|(_, path)| path.as_str());
        // One without a cgroup of its own there lives in that of others, with their limits.
        let path = path.or_else(|| self.init.cgroup(&hierarchy.controllers))?;
        Some((hierarchy.clone(), path.to_owned()))
    }

    /// The mount that is seen at `path`: the last of those nearest above it.
    pub fn mount_over(&self, path: &str) -> Option<&Mount> {
        let over = self.mounts.iter().filter(|mount| mounts::is_within(path, &mount.point));
        over.max_by_key(|mount| mount.point.trim_end_matches('/').len())
    }

    /// The mounts of its mount namespace from its real root, even where the first process sees less of it.
    pub fn mounts_from_namespace_root(&self, proc: &Proc) -> Option<&[Mount]> {
        self.namespace_root.get_or_init(|| namespace_mounts(proc, self.init.pid)).as_deref()
    }

    /// Whether what it may do counts on the host: it is in the host's user namespace, or the host's root is root in it.
    pub fn has_host_users(&self, host: &Host) -> bool {
        match self.namespace(Kind::User) {
            Some(inode) => host.is_own(Kind::User, inode) || self.maps_host_root(host),
            None => true,
        }
    }

    /// Whether the host's uid 0 is in its user namespace.
    pub fn maps_host_root(&self, host: &Host) -> bool {
        self.host_uids(host).iter().any(|(first, count)| *first == 0 && *count > 0)
    }

    /// The host's uids in its user namespace: first and how many.
    pub fn host_uids(&self, host: &Host) -> Vec<(u64, u64)> {
        let text = host.proc().text(self.init.pid, "uid_map").unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
                let (_, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
                Some((outside.ok()?, count.ok()?))
            })
            .collect()
    }

    /// What a spec says about a kind of namespace; none where there is no spec.
    pub fn asked_namespace(&self, kind: Kind) -> Option<Namespace> {
        self.spec.as_ref().map(|spec| spec.namespace(kind))
    }
}

/// One look at the host.
#[derive(Debug)]
pub struct Host {
    places: Places,
    namespaces: BTreeMap<Kind, BTreeSet<u64>>,
    /// The host's mounts, as the reader sees them.
    pub mounts: Vec<Mount>,
    hierarchies: Vec<Hierarchy>,
    processes: BTreeMap<i32, Process>,
    /// Which of them are in each cgroup, by controllers and path.
    members: Members,
    /// Every container that runs.
    pub containers: Vec<Container>,
    /// The capabilities that there are at all: those the reader could get.
    pub capabilities: u64,
    /// The security modules that run, of those that confine containers.
    pub security_modules: Vec<String>,
    ids_of_mounts: HashMap<u64, MountOwner>,
    /// Those of the containers.
    tables: Tables,
}

/// The processes of each hierarchy in the order of their cgroups' paths: those of one and of all below it are found without
/// looking at others.
#[derive(Debug, Default)]
struct Members(HashMap<String, Vec<i32>>);

impl Members {
    fn of(processes: &BTreeMap<i32, Process>) -> Self {
        let mut all: HashMap<String, Vec<i32>> = HashMap::new();
        for process in processes.values() {
            for (controllers, _) in process.cgroups.iter().filter(|(_, path)| path != "/") {
                if let Some(pids) = all.get_mut(controllers) {
                    pids.push(process.pid);
                } else {
                    all.insert(controllers.clone(), vec![process.pid]);
                }
            }
        }
        for (controllers, pids) in &mut all {
            pids.sort_by_key(|pid| path_of(processes, *pid, controllers));
        }
        Self(all)
    }

    /// Those in the cgroup with this path and below.
    fn within<'a>(
        &'a self,
        processes: &'a BTreeMap<i32, Process>,
        controllers: &'a str,
        path: &'a str,
    ) -> impl Iterator<Item = i32> + 'a {
        let pids = self.0.get(controllers).map_or(&[][..], Vec::as_slice);
        let path_of = move |pid: &i32| path_of(processes, *pid, controllers);
        let first = pids.partition_point(|pid| path_of(pid) < path);
        // Between `/a` and `/a/b` comes `/a-b`.
        pids[first..]
            .iter()
            .take_while(move |pid| path_of(pid).starts_with(path))
            .filter(move |pid| mounts::is_within(path_of(pid), path))
            .copied()
    }
}

fn path_of<'a>(processes: &'a BTreeMap<i32, Process>, pid: i32, controllers: &str) -> &'a str {
    processes.get(&pid).and_then(|process| process.cgroup(controllers)).unwrap_or_default()
}

/// Whose mount namespace a mount is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountOwner {
    /// The host's; the index is that of [`Host::mounts`].
    Host(usize),
    /// A container's, by its index.
    Container(usize),
}

impl Host {
    /// Looks.
    pub fn look(places: &Places, wanted: &Wanted) -> Result<Self, LookError> {
        let proc = &places.proc;
        let processes: BTreeMap<i32, Process> =
            proc.pids().into_iter().filter_map(|pid| Some((pid, proc.process(pid)?))).collect();
        if processes.is_empty() {
            return Err(LookError::NoProc);
        }
        let mounts = proc.own_mounts();
        let mut host = Self {
            namespaces: own_namespaces(proc, &processes),
            hierarchies: cgroups::hierarchies(&mounts),
            mounts,
            members: Members::of(&processes),
            processes,
            containers: Vec::new(),
            capabilities: own_capabilities(proc),
            security_modules: security_modules(places),
            ids_of_mounts: HashMap::new(),
            tables: Tables::default(),
            places: places.clone(),
        };
        host.find_containers();
        if let Wanted::Process(pid) = wanted
            && host.index_of(wanted)?.is_none()
        {
            let process = host.processes.get(pid).cloned().ok_or(LookError::NoProcess(*pid))?;
            host.add(Known { started: true, ..Known::default() }, process, true);
        }
        for (at, mount) in host.mounts.iter().enumerate() {
            host.ids_of_mounts.insert(mount.id, MountOwner::Host(at));
        }
        for (at, container) in host.containers.iter().enumerate() {
            for mount in &*container.mounts {
                host.ids_of_mounts.entry(mount.id).or_insert(MountOwner::Container(at));
            }
        }
        Ok(host)
    }

    /// The containers that are wanted, by index.
    pub fn chosen(&self, wanted: &Wanted) -> Result<Vec<usize>, LookError> {
        match wanted {
            Wanted::All => Ok((0..self.containers.len()).collect()),
            Wanted::Named(text) => match self.index_of(wanted)? {
                Some(at) => Ok(vec![at]),
                None => Err(LookError::NoContainer(text.clone())),
            },
            Wanted::Process(pid) => match self.index_of(wanted)? {
                Some(at) => Ok(vec![at]),
                None => Err(LookError::NoProcess(*pid)),
            },
        }
    }

    fn index_of(&self, wanted: &Wanted) -> Result<Option<usize>, LookError> {
        match wanted {
            Wanted::All => Ok(None),
            Wanted::Process(pid) => {
                if !self.processes.contains_key(pid) {
                    return Err(LookError::NoProcess(*pid));
                }
                Ok(self
                    .containers
                    .iter()
                    .position(|c| c.init.pid == *pid)
                    .or_else(|| self.containers.iter().position(|c| c.tasks.contains(pid))))
            }
            Wanted::Named(text) => {
                let exact = |c: &Container| c.name.id == *text || c.name.name == *text;
                let matches: Vec<usize> =
                    (0..self.containers.len()).filter(|at| exact(&self.containers[*at])).collect();
                let matches = if matches.is_empty() && !text.is_empty() {
                    let begins = |at: &usize| self.containers[*at].name.id.starts_with(text);
                    (0..self.containers.len()).filter(begins).collect()
                } else {
                    matches
                };
                match matches[..] {
                    [] => Ok(None),
                    [one] => Ok(Some(one)),
                    [first, second, ..] => Err(LookError::Ambiguous {
                        text: text.clone(),
                        first: self.containers[first].name.id.clone(),
                        second: self.containers[second].name.id.clone(),
                    }),
                }
            }
        }
    }

    /// The process filesystem.
    pub fn proc(&self) -> &Proc {
        &self.places.proc
    }

    /// Every process.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// A process.
    pub fn process(&self, pid: i32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// Whether a namespace is the host's.
    pub fn is_own(&self, kind: Kind, inode: u64) -> bool {
        self.namespaces.get(&kind).is_some_and(|own| own.contains(&inode))
    }

    /// Whether a container is in the host's namespace of a kind.
    pub fn shares(&self, container: &Container, kind: Kind) -> bool {
        container.namespace(kind).is_some_and(|inode| self.is_own(kind, inode))
    }

    /// The hierarchy that has `controller`, v1 first; with an empty one cgroup v2.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        if controller.is_empty() {
            return self.hierarchies.iter().find(|hierarchy| hierarchy.is_unified());
        }
        let v1 = self.hierarchies.iter().find(|h| !h.is_unified() && h.has(controller));
        v1.or_else(|| self.hierarchies.iter().find(|h| h.is_unified() && h.has(controller)))
    }

    /// Every cgroup hierarchy that is mounted.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// When a process was started; none where the kernel does not tell since when it counts.
    pub fn started(&self, process: &Process) -> Option<time::OffsetDateTime> {
        let text = self.proc().read_own("stat")?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let boot =
            text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        // Ticks are hundredths of a second to user space, on every architecture that containers run on.
        let since = time::Duration::milliseconds(i64::try_from(process.start_ticks * 10).ok()?);
        Some(time::OffsetDateTime::from_unix_timestamp(boot).ok()? + since)
    }

    /// Whose mount this is.
    pub fn owner_of_mount(&self, id: u64) -> Option<MountOwner> {
        self.ids_of_mounts.get(&id).copied()
    }

    /// Where the host sees what a mount of a container shows: the host's path.
    pub fn host_path(&self, mount: &Mount) -> Option<String> {
        let root = mount.root.strip_suffix("//deleted").unwrap_or(&mount.root);
        self.mounts
            .iter()
            .filter(|own| own.device == mount.device && mounts::is_within(root, &own.root))
            // Of two that show it, the one that shows most: the other is a bind of a part.
            .min_by_key(|own| own.root.len())
            .map(|own| {
                let below = root.strip_prefix(own.root.trim_end_matches('/')).unwrap_or_default();
                let path = format!("{}{below}", own.point.trim_end_matches('/'));
                if path.is_empty() { "/".to_owned() } else { path }
            })
    }

    /// The host's mount at `point`.
    pub fn mount_at(&self, point: &str) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.point == point)
    }

    /// Whether a process is in a container's cgroups or below them, in all hierarchies where the container has one;
    /// `Err` names the first where it is not, and where it is instead.
    pub fn is_contained<'p>(
        &self,
        container: &Container,
        process: &'p Process,
    ) -> Result<(), (String, &'p str)> {
        for (controllers, path) in &container.cgroups {
            let Some(own) = process.cgroup(controllers) else { continue };
            if !mounts::is_within(own, path) {
                return Err((controllers.clone(), own));
            }
        }
        Ok(())
    }

    fn find_containers(&mut self) {
        let proc = self.places.proc.clone();
        let mut covered = BTreeSet::new();
        for known in engines::known(&self.places.engines) {
            let Some(process) = self.processes.get(&known.pid).cloned() else { continue };
            let same = known.start_ticks.is_none_or(|ticks| ticks == process.start_ticks);
            // While it is being built, nothing is as it will be.
            if same && !known.building && covered.insert(process.pid) {
                self.add(known, process, false);
            }
        }
        // The rest by cgroups that look like an engine's, then by pid namespaces.
        let mut firsts: BTreeMap<String, (u64, i32)> = BTreeMap::new();
        let mut sandboxes = Vec::new();
        for process in self.processes.values() {
            if self.containers.iter().any(|c| self.belongs(c, process)) {
                continue;
            }
            let seen = process.cgroups.iter().find_map(|(_, path)| patterns::recognise(path));
            if let Some(seen) = seen.filter(|seen| seen.runtime != "systemd") {
                let first = (process.start_ticks, process.pid);
                let entry = firsts.entry(seen.path.to_owned()).or_insert(first);
                *entry = first.min(*entry);
                continue;
            }
            let private =
                process.namespace(Kind::Pid).is_some_and(|inode| !self.is_own(Kind::Pid, inode));
            if private
                && let Some(status) = proc.status(process.pid)
                && let [_, 1] = status.pids[..]
            {
                sandboxes.push(process.pid);
            }
        }
        for (path, (_, pid)) in firsts {
            let Some(process) = self.processes.get(&pid).cloned() else { continue };
            let Some(seen) = patterns::recognise(&path) else { continue };
            let known = self.told_by_watcher(&process).unwrap_or_else(|| Known {
                id: seen.id.to_owned(),
                name: seen.id.to_owned(),
                runtime: seen.runtime.to_owned(),
                started: true,
                ..Known::default()
            });
            self.add(known, process, false);
        }
        for pid in sandboxes {
            let Some(process) = self.processes.get(&pid).cloned() else { continue };
            if self.containers.iter().any(|c| self.belongs(c, &process)) {
                continue;
            }
            let known = self
                .told_by_watcher(&process)
                .unwrap_or_else(|| Known { started: true, ..Known::default() });
            self.add(known, process, true);
        }
    }

    /// Whether a process is one of a container that was found already.
    fn belongs(&self, container: &Container, process: &Process) -> bool {
        let same = |kind| {
            let inode = container.namespace(kind);
            inode.is_some()
                && inode == process.namespace(kind)
                && inode.is_some_and(|inode| !self.is_own(kind, inode))
        };
        container.tasks.contains(&process.pid) || same(Kind::Pid) || same(Kind::Mnt)
    }

    fn told_by_watcher(&self, process: &Process) -> Option<Known> {
        engines::from_watcher(&self.places.proc, process.parent)
    }

    /// Takes `process` as the first of a container; `loose`: nobody says which cgroups are its own.
    fn add(&mut self, known: Known, process: Process, loose: bool) {
        give_way();
        let proc = &self.places.proc;
        let Some(status) = proc.status(process.pid) else { return };
        let cgroups = self.cgroups_of(&known, &process);
        let own: BTreeSet<i32> = cgroups
            .iter()
            .filter(|(_, path)| path != "/")
            .flat_map(|(controllers, path)| self.members.within(&self.processes, controllers, path))
            .collect();
        let mut tasks: Vec<i32> = own.into_iter().collect();
        if !tasks.contains(&process.pid) {
            tasks.push(process.pid);
        }
        if loose {
            // Those of its own pid namespace, since no cgroup tells.
            let inode = process.namespace(Kind::Pid);
            if inode.is_some_and(|inode| !self.is_own(Kind::Pid, inode)) {
                let same = self.processes.values().filter(|p| p.namespace(Kind::Pid) == inode);
                let more: Vec<i32> =
                    same.map(|p| p.pid).filter(|pid| !tasks.contains(pid)).collect();
                tasks.extend(more);
            }
        }
        let mounts = proc.mounts_in(process.pid, &mut self.tables);
        if !proc.is_still(&process) {
            return;
        }
        let last = cgroups.first().or(process.cgroups.iter().find(|(_, path)| path != "/"));
        let last = last.and_then(|(_, path)| path.rsplit('/').next()).filter(|n| !n.is_empty());
        let id = if known.id.is_empty() {
            match last {
                Some(name) if !cgroups.is_empty() => name.to_owned(),
                _ => format!("pid:{}", process.pid),
            }
        } else {
            known.id
        };
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        self.containers.push(Container {
            name: Arc::new(ContainerName {
                name: or(known.name, &id),
                runtime: or(known.runtime, "unknown"),
                id,
            }),
            started: known.started && !process.name.starts_with("runc:["),
            spec: known.spec,
            limits: known.limits,
            init: process,
            status,
            cgroups,
            tasks,
            mounts,
            namespace_root: OnceLock::new(),
        });
    }

    /// The cgroups that are a container's own.
    fn cgroups_of(&self, known: &Known, process: &Process) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for hierarchy in &self.hierarchies {
            let word = |name: &str| known.cgroups.get(name);
            let told = hierarchy
                .controllers
                .split(',')
                .find_map(word)
                .or_else(|| hierarchy.is_unified().then(|| word("")).flatten())
                .or_else(|| word("*"));
            let current = process.cgroup(&hierarchy.controllers);
            let path = match told {
                Some(path) => {
                    // Whole folders, as runc has them, or paths below the root.
                    let point = hierarchy.point.to_string_lossy();
                    let path = path.strip_prefix(point.as_ref()).unwrap_or(path);
                    let path = if path.is_empty() { "/" } else { path };
                    // A runtime names also hierarchies in which it made nothing.
                    if !hierarchy.folder(path).is_dir() {
                        continue;
                    }
                    path.to_owned()
                }
                None if known.cgroups.is_empty() => {
                    let Some(seen) = current.and_then(patterns::recognise) else { continue };
                    if seen.runtime == "systemd" {
                        continue;
                    }
                    seen.path.to_owned()
                }
                None => continue,
            };
            if path != "/" {
                all.push((hierarchy.controllers.clone(), path));
            }
        }
        all
    }
}

/// The namespaces that count as the host's: the initial ones, those of the first process where it may be looked at, and
/// the reader's.
fn own_namespaces(
    proc: &Proc,
    processes: &BTreeMap<i32, Process>,
) -> BTreeMap<Kind, BTreeSet<u64>> {
    let first = processes.get(&1);
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let own = proc.own_link(&format!("ns/{}", kind.name()));
            let own = own.and_then(|link| super::process::inode_of_link(kind, &link));
            let first = first.and_then(|process| process.namespace(kind));
            (kind, kind.initial().into_iter().chain(own).chain(first).collect())
        })
        .collect()
}

fn own_capabilities(proc: &Proc) -> u64 {
    let text = proc.read_own("self/status").unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let bounding = text.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    bounding
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or_else(|| capability::bit("SYS_ADMIN"))
}

fn security_modules(places: &Places) -> Vec<String> {
    let text = fs::read_to_string(places.sys.join("kernel/security/lsm")).unwrap_or_default();
    let confining = |name: &&str| matches!(*name, "apparmor" | "selinux" | "smack" | "tomoyo");
    let mut all: Vec<String> =
        text.trim().split(',').filter(confining).map(str::to_owned).collect();
    // securityfs is not mounted everywhere.
    let enabled = places.sys.join("module/apparmor/parameters/enabled");
    if all.is_empty() && fs::read_to_string(enabled).is_ok_and(|text| text.trim() == "Y") {
        all.push("apparmor".to_owned());
    }
    all
}

/// Reads the mounts of a process's mount namespace from the namespace's root: a thread of ours joins it, which is given
/// that root (`setns(2)`). A captured folder has them in `namespace_mountinfo`.
fn namespace_mounts(proc: &Proc, pid: i32) -> Option<Vec<Mount>> {
    if !proc.is_live() {
        return proc.text(pid, "namespace_mountinfo").map(|text| mounts::parse(text.as_bytes()));
    }
    let namespace = fs::File::open(proc.path(pid, "ns/mnt")).ok()?;
    let own = fs::File::open("/proc").ok()?;
    let reader = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).ok()?;
        nix::sched::setns(namespace.as_fd(), nix::sched::CloneFlags::CLONE_NEWNS).ok()?;
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
        // The host's /proc, whatever the container has there.
        let file = nix::fcntl::openat(
            own.as_fd(),
            "thread-self/mountinfo",
            flags,
            nix::sys::stat::Mode::empty(),
        )
        .ok()?;
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut fs::File::from(file), &mut text).ok()?;
        Some(mounts::parse(&text))
    };
    std::thread::spawn(reader).join().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_of_a_cgroup_are_those_below_it_too() {
        let process = |pid: i32, path: &str| {
            let cgroups =
                vec![("memory".to_owned(), path.to_owned()), ("pids".to_owned(), "/".to_owned())];
            (pid, Process { pid, cgroups, ..Process::default() })
        };
        let all =
            [(1, "/"), (7, "/a"), (3, "/a-b"), (4, "/a/b"), (5, "/a/b/c"), (6, "/ab"), (2, "/b")];
        let processes = all.map(|(pid, path)| process(pid, path)).into();
        let members = Members::of(&processes);
        let within = |controllers, path| {
            members.within(&processes, controllers, path).collect::<BTreeSet<_>>()
        };
        assert_eq!(within("memory", "/a"), [4, 5, 7].into());
        assert_eq!(within("memory", "/a/b"), [4, 5].into());
        assert!(within("memory", "/c").is_empty());
        assert!(within("pids", "/a").is_empty());
        assert!(within("cpu", "/a").is_empty());
    }
}
