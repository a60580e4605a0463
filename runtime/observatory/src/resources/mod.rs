//! What containers use: CPU, memory, input and output, tasks, network, pressure.
//!
//! Everything is read when somebody asks: by a walk of the kernel's cgroups, where they can be walked, and meanwhile from files that are
//! kept open. v1, v2 and hybrid hosts differ only in the names of the files: [`Place`] knows them.

mod kept_file;
mod place;
mod usage;

pub use kept_file::{Budget, KeptFile};
pub(crate) use place::cgroup_id;
pub use usage::{DeviceIo, InterfaceCounters, Limits, MemoryStat, Pressure, Usage};

use crate::attribution::registry::{Snapshot, State};
use crate::kernel::cgroup_mounts::CgroupMounts;
use crate::probe::{Walked, Walks};
use crate::shares::{in_shares, in_shares_meanwhile};
use foldhash::{HashMap, HashMapExt};
use place::Place;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use terrarium_abi::NsKind;

/// How long limits that files tell are believed: they change when somebody runs `update`, and reading them would be a third of the work.
const LIMITS_FOR: Duration = Duration::from_secs(5);

/// Reads what containers use.
pub struct Resources {
    mounts: CgroupMounts,
    proc: PathBuf,
    budget: Arc<Budget>,
    units: Units,
    /// The network namespace of this process: containers in it have no counters of their own.
    own_network: Option<u64>,
    walks: Option<Walks>,
    /// Whether the processes of a container are those that a v1 hierarchy lists.
    lists_v1: bool,
    host: Option<Box<Place>>,
    /// By path of the container.
    places: HashMap<String, Box<Place>>,
}

/// A container, of which it is being read what it uses.
struct Read<'a> {
    of: &'a Snapshot,
    place: Option<Box<Place>>,
    usage: Usage,
}

/// What the kernel's numbers mean.
#[derive(Debug, Clone, Copy)]
struct Units {
    /// Nanoseconds of a tick.
    tick_ns: u64,
    /// Bytes of a page of memory. Files tell of bytes.
    page_bytes: u64,
    /// Whether process ids mean the same to this process as to the kernel. Files tell those of its pid namespace.
    knows_pids: bool,
}

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO` in include/uapi/linux/nsfs.h).
const INITIAL_PIDS: u64 = 0xEFFF_FFFC;

impl Resources {
    /// Reads below these mounts. `proc` is `/proc` but for tests.
    pub fn new(mounts: CgroupMounts, proc: &Path, budget: Arc<Budget>) -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let ticks = ticks.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100).max(1);
        Self {
            mounts,
            own_network: namespace(proc, "self", NsKind::Net),
            units: Units {
                tick_ns: 1_000_000_000 / ticks,
                page_bytes: 0,
                knows_pids: namespace(proc, "self", NsKind::Pid) == Some(INITIAL_PIDS),
            },
            proc: proc.to_owned(),
            budget,
            walks: None,
            lists_v1: false,
            host: None,
            places: HashMap::new(),
        }
    }

    /// The same, for a kernel with pages of so many bytes whose cgroups can be walked.
    #[must_use]
    pub fn walking(self, walks: Option<Walks>, page_bytes: u64) -> Self {
        Self { walks, units: Units { page_bytes, ..self.units }, ..self }
    }

    /// What these containers use, in their order: as a walk of the kernel's cgroups tells, which is given too, and as their files say.
    /// Files of containers that are not among them are closed.
    pub fn read(&mut self, snapshots: &[Snapshot]) -> (Vec<Usage>, Walked) {
        let mut before = std::mem::take(&mut self.places);
        let mut all: Vec<Read<'_>> = snapshots
            .iter()
            .map(|of| Read {
                of,
                place: before.remove(&of.container.path),
                usage: Usage::default(),
            })
            .collect();
        drop(before);
        let mut walks = self.walks.take();
        let this = &*self;
        // Files that have to be read in any case need not wait for the walk.
        let lists_v1 = this.lists_v1;
        let walk = || walks.as_mut().map(|walks| walks.all(lists_v1)).unwrap_or_default();
        let (_, walked) =
            in_shares_meanwhile(&mut all, walk, |read, buffer| this.read_files(read, buffer));
        in_shares(&mut all, |read, buffer| this.complete(read, &walked, buffer));
        self.walks = walks;
        self.lists_v1 = all.iter().flat_map(|one| &one.place).any(|place| place.lists_v1);
        let mut usages = Vec::with_capacity(all.len());
        for Read { of, place, usage } in all {
            if let Some(place) = place {
                self.places.insert(of.container.path.clone(), place);
            }
            usages.push(usage);
        }
        (usages, walked)
    }

    /// What the whole host uses.
    pub fn read_host(&mut self) -> Usage {
        let (mounts, budget) = (&self.mounts, &self.budget);
        let new = || Box::new(Place::new(mounts, budget, |_| "/".to_owned()));
        let place = self.host.get_or_insert_with(new);
        let mut buffer = Vec::new();
        let mut usage = place.read_files(&mut buffer);
        place.complete(&mut usage, self.units, &Walked::default(), &mut buffer);
        // The root's list names only those of the host's processes that are in no other cgroup.
        usage.processes = None;
        usage
    }

    fn read_files(&self, read: &mut Read<'_>, buffer: &mut Vec<u8>) {
        let Read { of: snapshot, place: kept, usage } = read;
        if !snapshot.live {
            *kept = None;
            return;
        }
        let container = &snapshot.container;
        let path_of = |hierarchy: &str| snapshot.path_of(hierarchy).to_owned();
        let mut is_current = |place: &mut Place| {
            place.generation == container.generation
                && place.settled
                && !place.has_other_cgroups(&self.mounts, &path_of)
        };
        if !kept.as_deref_mut().is_some_and(&mut is_current) {
            let mut place = Place::new(&self.mounts, &self.budget, path_of);
            place.generation = container.generation;
            place.settled = snapshot.state != State::Creating;
            *kept = Some(Box::new(place));
        }
        if let Some(place) = kept {
            *usage = place.read_files(buffer);
        }
    }

    fn complete(&self, read: &mut Read<'_>, walked: &Walked, buffer: &mut Vec<u8>) {
        let Read { of: snapshot, place: Some(place), usage } = read else { return };
        if place.is_due() {
            place.network_of = None;
        }
        let told = place.complete(usage, self.units, walked, buffer);
        let Some(pid) = snapshot.pid.or(usage.first_pid) else { return };
        let has_one = match (told, place.network_of) {
            (Some(namespace), _) if usage.first_pid == Some(pid) => {
                Some(namespace) != self.own_network
            }
            (_, Some((of, has_one))) if of == pid => has_one,
            _ => self.has_network(pid),
        };
        place.network_of = Some((pid, has_one));
        if has_one {
            usage.network = self.network(pid);
        }
    }

    /// Whether a process has a network namespace of its own, not that of this program.
    fn has_network(&self, pid: u32) -> bool {
        let network = namespace(&self.proc, &pid.to_string(), NsKind::Net);
        network.is_some() && network != self.own_network
    }

    /// Opened anew each time: a descriptor that stays open would keep the network namespace alive.
    fn network(&self, pid: u32) -> Vec<InterfaceCounters> {
        let file = self.proc.join(pid.to_string()).join("net/dev");
        std::fs::read_to_string(file).map(|text| usage::interfaces(&text)).unwrap_or_default()
    }
}

/// The inode of a process's namespace.
fn namespace(proc: &Path, pid: &str, kind: NsKind) -> Option<u64> {
    let name = kind.name();
    let link = std::fs::read_link(proc.join(pid).join("ns").join(name)).ok()?;
    link.to_str()?.strip_prefix(name)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::Container;

    #[test]
    fn a_container_in_the_network_of_the_host_has_no_interfaces_of_its_own() {
        let proc = tempfile::tempdir().expect("temporary folder");
        for (pid, namespace) in [("self", 1), ("7", 1), ("8", 2)] {
            let ns = proc.path().join(pid).join("ns");
            std::fs::create_dir_all(&ns).expect("make folder");
            std::os::unix::fs::symlink(format!("net:[{namespace}]"), ns.join("net"))
                .expect("make link");
            std::fs::create_dir(proc.path().join(pid).join("net")).expect("make folder");
            let table = "head\nhead\n eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
            std::fs::write(proc.path().join(pid).join("net/dev"), table).expect("write file");
        }
        let resources = Resources::new(CgroupMounts::default(), proc.path(), Budget::new(1));
        assert!(!resources.has_network(7));
        assert!(resources.has_network(8));
        assert_eq!(resources.network(8).len(), 1);
        assert!(!resources.has_network(9));
    }

    #[test]
    fn many_containers_are_told_in_their_order_whichever_thread_reads_them() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let snapshots: Vec<Snapshot> = (0..450_u64)
            .map(|n| {
                let path = format!("/c{n}");
                let own = folder.path().join(&path[1..]);
                std::fs::create_dir(&own).expect("make folder");
                std::fs::write(own.join("pids.current"), format!("{n}\n")).expect("write file");
                let container = Container { path, ..Container::default() };
                let mut snapshot = Snapshot::of_machine();
                snapshot.container = Arc::new(container);
                snapshot
            })
            .collect();
        let unified = Some(folder.path().to_owned());
        let mounts = CgroupMounts { unified, ..CgroupMounts::default() };
        let mut resources = Resources::new(mounts, folder.path(), Budget::new(100));
        for _ in 0..2 {
            let (usages, _) = resources.read(&snapshots);
            let threads: Vec<_> = usages.iter().filter_map(|usage| usage.threads).collect();
            assert_eq!(threads, (0..450).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn hosts_of_all_kinds_give_the_same_numbers() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("make folder");
            std::fs::write(path, text).expect("write file");
        };
        write("unified/web/cpu.stat", "usage_usec 10\nuser_usec 7\nsystem_usec 3\n");
        write("unified/web/memory.current", "5\n");
        write("unified/web/memory.max", "max\n");
        write("unified/web/pids.current", "3\n");
        write("unified/web/cgroup.procs", "71\n72\n");
        write("unified/web/cpu.pressure", "some avg10=0.00 total=9\n");
        write("cpu/web/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n");
        write("cpu/web/cpu.cfs_quota_us", "-1\n");
        write("cpu/web/cpu.cfs_period_us", "100000\n");
        write("cpuacct/web/cpuacct.usage", "10000\n");
        write("memory/web/memory.usage_in_bytes", "5\n");
        write("memory/web/memory.limit_in_bytes", "9223372036854771712\n");
        write("pids/web/pids.current", "3\n");
        write("pids/web/cgroup.procs", "71\n72\n");
        let unified = Some(root.join("unified"));
        let v2 = CgroupMounts { unified: unified.clone(), ..CgroupMounts::default() };
        let controllers = ["cpu", "cpuacct", "memory", "pids", "blkio"];
        let v1 = controllers.map(|name| (name.to_owned(), root.join(name))).into();
        let hybrid = CgroupMounts { unified, v1, ..CgroupMounts::default() };
        for mounts in [v2, hybrid] {
            let budget = Budget::new(100);
            let mut place = Place::new(&mounts, &budget, |_| "/web".to_owned());
            let units = Units { tick_ns: 10_000_000, page_bytes: 4096, knows_pids: false };
            let mut usage = place.read_files(&mut Vec::new());
            place.complete(&mut usage, units, &Walked::default(), &mut Vec::new());
            assert_eq!(usage.cpu_ns, Some(10_000));
            assert_eq!((usage.memory_bytes, usage.limits.memory_bytes), (Some(5), None));
            assert_eq!((usage.threads, usage.processes), (Some(3), Some(2)));
            assert_eq!(usage.limits.cpu_quota_us, None);
            assert_eq!(usage.pressure[0].map(|pressure| pressure.some_us), Some(9));
            assert_eq!(usage.io, []);
        }
    }
}
