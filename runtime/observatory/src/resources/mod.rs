//! What containers use: CPU, memory, input and output, tasks, network, pressure.
//!
//! Everything is read in one pass when somebody asks, from files that are kept open. v1, v2 and hybrid hosts differ only
//! in the names of the files: [`Place`] knows them.

mod kept_file;
mod usage;

pub use kept_file::{Budget, KeptFile};
pub use usage::{DeviceIo, InterfaceCounters, Limits, MemoryStat, Pressure, Usage};

use crate::attribution::registry::{Snapshot, State};
use crate::kernel::cgroup_mounts::CgroupMounts;
use crate::probe::{Walked, Walks};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use terrarium_abi::CgroupUsage;
use terrarium_abi::usage::told;

/// How long limits are believed: they change when somebody runs `update`, and reading them would be a third of the work.
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
    /// By path of the container.
    places: HashMap<String, Box<Place>>,
}

/// What the kernel counts in.
#[derive(Debug, Clone, Copy)]
struct Units {
    /// Nanoseconds of a tick.
    tick_ns: u64,
    /// Bytes of a page of memory. Files tell of bytes.
    page_bytes: u64,
}

/// So many containers are read by one thread at a time.
const A_SHARE: usize = 100;

/// A scrape is to take no more of a host's processors than so many.
const MOST_THREADS: usize = 4;

/// What a walk tells, and the controller whose hierarchy is walked for it.
const WALKED: [(&str, u64); 4] = [
    ("unified", told::PRESSURE),
    ("memory", told::MEMORY),
    ("pids", told::PIDS),
    ("cpu", told::CPU),
];

/// Where a walk tells something of a container.
#[derive(Debug, Clone, Copy)]
struct WalkedAt {
    hierarchy: &'static str,
    /// 0 where it has no cgroup there.
    cgroup_id: u64,
    /// What: a bit of [`told`].
    told: u64,
}

impl WalkedAt {
    fn of(self, walked: &Walked) -> Option<&CgroupUsage> {
        let usage = walked.of(self.hierarchy, self.cgroup_id)?;
        (usage.told & self.told != 0).then_some(usage)
    }

    fn is_v1(self) -> bool {
        self.hierarchy != "unified"
    }
}

/// The id of the cgroup whose folder this is (`kernfs_node.id` is the inode on machines of 64 bits); 0 when there is none.
pub(crate) fn cgroup_id(folder: &Path) -> u64 {
    std::fs::metadata(folder).map_or(0, |metadata| metadata.ino())
}

/// The files of one container.
struct Place {
    generation: u64,
    /// The v1 controllers in which it has a cgroup, see [`v1_of`].
    v1: u8,
    /// Whether all its cgroups were there when this was made.
    settled: bool,
    files: [Option<KeptFile>; File::COUNT],
    /// Where a walk tells of it.
    walked: [WalkedAt; 4],
    limits: Limits,
    limits_read: Option<Instant>,
    /// Whether this process has a network namespace other than that of this program, as of when limits were read last.
    network_of: Option<(u32, bool)>,
}

/// What is read, whatever its name is.
#[derive(Clone, Copy)]
enum File {
    CpuStat,
    CpuUsage,
    CpuTimes,
    CpuUnified,
    CpuMax,
    CpuPeriod,
    CpuWeight,
    MemoryUsage,
    MemoryMaxUsage,
    MemoryFailcnt,
    MemoryStat,
    MemorySwap,
    MemoryLimit,
    Io,
    IoOperations,
    Pids,
    PidsMax,
    Processes,
    ProcessesV1,
    PressureCpu,
    PressureMemory,
    PressureIo,
}

impl File {
    const COUNT: usize = 22;

    /// Whether it is opened for each reading: what is read once in [`LIMITS_FOR`], and the list of processes of v1, of which one that
    /// stays open tells for another second what it has told (kernel/cgroup/cgroup-v1.c).
    const fn is_opened_anew(self) -> bool {
        self.is_limit() || matches!(self, Self::ProcessesV1)
    }

    /// Whether it is read once in [`LIMITS_FOR`].
    const fn is_limit(self) -> bool {
        matches!(
            self,
            Self::CpuMax | Self::CpuPeriod | Self::CpuWeight | Self::MemoryLimit | Self::PidsMax
        )
    }

    /// The controller and the name of each file in v2 and in v1; no name where there is no such file.
    const NAMES: [(Self, &'static str, &'static str, &'static str); Self::COUNT] = [
        (Self::CpuStat, "cpu", "cpu.stat", "cpu.stat"),
        (Self::CpuUsage, "cpuacct", "", "cpuacct.usage"),
        (Self::CpuTimes, "cpuacct", "", "cpuacct.stat"),
        (Self::CpuUnified, "unified", "cpu.stat", ""),
        (Self::CpuMax, "cpu", "cpu.max", "cpu.cfs_quota_us"),
        (Self::CpuPeriod, "cpu", "", "cpu.cfs_period_us"),
        (Self::CpuWeight, "cpu", "cpu.weight", "cpu.shares"),
        (Self::MemoryUsage, "memory", "memory.current", "memory.usage_in_bytes"),
        (Self::MemoryMaxUsage, "memory", "memory.peak", "memory.max_usage_in_bytes"),
        (Self::MemoryFailcnt, "memory", "", "memory.failcnt"),
        (Self::MemoryStat, "memory", "memory.stat", "memory.stat"),
        (Self::MemorySwap, "memory", "memory.swap.current", ""),
        (Self::MemoryLimit, "memory", "memory.max", "memory.limit_in_bytes"),
        (Self::Io, "blkio", "io.stat", "blkio.throttle.io_service_bytes_recursive"),
        (Self::IoOperations, "blkio", "", "blkio.throttle.io_serviced_recursive"),
        (Self::Pids, "pids", "pids.current", "pids.current"),
        (Self::PidsMax, "pids", "pids.max", "pids.max"),
        (Self::Processes, "unified", "cgroup.procs", ""),
        (Self::ProcessesV1, "pids", "", "cgroup.procs"),
        // Only the unified hierarchy has pressure of cgroups, also beside v1 controllers.
        (Self::PressureCpu, "unified", "cpu.pressure", ""),
        (Self::PressureMemory, "unified", "memory.pressure", ""),
        (Self::PressureIo, "unified", "io.pressure", ""),
    ];
}

impl Resources {
    /// Reads below these mounts. `proc` is `/proc` but for tests.
    pub fn new(mounts: CgroupMounts, proc: &Path, budget: Arc<Budget>) -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let ticks = ticks.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100).max(1);
        Self {
            mounts,
            own_network: network_namespace(proc, "self"),
            proc: proc.to_owned(),
            budget,
            units: Units { tick_ns: 1_000_000_000 / ticks, page_bytes: 0 },
            walks: None,
            places: HashMap::new(),
        }
    }

    /// The same, for a kernel with pages of so many bytes whose cgroups can be walked.
    #[must_use]
    pub fn walking(self, walks: Option<Walks>, page_bytes: u64) -> Self {
        Self { walks, units: Units { page_bytes, ..self.units }, ..self }
    }

    /// What a walk of the kernel's cgroups tells; nothing where there are none.
    pub fn walk(&mut self) -> Walked {
        self.walks.as_mut().map(Walks::all).unwrap_or_default()
    }

    /// What these containers use, in their order: as `walked` just now, or as their files say. Files of containers that are not among
    /// them are closed.
    pub fn read(&mut self, snapshots: &[Snapshot], walked: &Walked) -> Vec<Usage> {
        let mut before = std::mem::take(&mut self.places);
        let mut all: Vec<(&Snapshot, Option<Box<Place>>)> = snapshots
            .iter()
            .map(|snapshot| (snapshot, before.remove(&snapshot.container.path)))
            .collect();
        drop(before);
        let this = &*self;
        let usages =
            in_shares(&mut all, |(of, kept), buffer| this.read_one(of, kept, walked, buffer));
        let kept =
            all.into_iter().filter_map(|(of, place)| Some((of.container.path.clone(), place?)));
        self.places = kept.collect();
        usages
    }

    /// What the whole host uses.
    pub fn read_host(&mut self) -> Usage {
        let mut place = Place::new(&self.mounts, &self.budget, |_| "/".to_owned());
        let mut usage = place.read(self.units, &Walked::default(), &mut Vec::new());
        // The root's list names only those of the host's processes that are in no other cgroup.
        usage.processes = None;
        usage
    }

    fn read_one(
        &self,
        snapshot: &Snapshot,
        kept: &mut Option<Box<Place>>,
        walked: &Walked,
        buffer: &mut Vec<u8>,
    ) -> Usage {
        if !snapshot.live {
            *kept = None;
            return Usage::default();
        }
        let container = &snapshot.container;
        let path_of = |hierarchy: &str| snapshot.path_of(hierarchy).to_owned();
        let is_current = |place: &Place| {
            place.generation == container.generation
                && place.settled
                // A cgroup that an engine made later than the others.
                && (!place.is_due() || place.v1 == v1_of(&self.mounts, &path_of))
        };
        if !kept.as_deref().is_some_and(is_current) {
            let mut place = Place::new(&self.mounts, &self.budget, path_of);
            place.generation = container.generation;
            place.settled = snapshot.state != State::Creating;
            *kept = Some(Box::new(place));
        }
        let Some(place) = kept else { return Usage::default() };
        if place.is_due() {
            place.network_of = None;
        }
        let mut usage = place.read(self.units, walked, buffer);
        if let Some(pid) = snapshot.pid.or(usage.first_pid) {
            let known = place.network_of.filter(|(of, _)| *of == pid);
            let (_, has_one) = known.unwrap_or_else(|| (pid, self.has_network(pid)));
            place.network_of = Some((pid, has_one));
            if has_one {
                usage.network = self.network(pid);
            }
        }
        usage
    }

    /// Whether a process has a network namespace of its own, not that of this program.
    fn has_network(&self, pid: u32) -> bool {
        let namespace = network_namespace(&self.proc, &pid.to_string());
        namespace.is_some() && namespace != self.own_network
    }

    /// Opened anew each time: a descriptor that stays open would keep the network namespace alive.
    fn network(&self, pid: u32) -> Vec<InterfaceCounters> {
        let file = self.proc.join(pid.to_string()).join("net/dev");
        std::fs::read_to_string(file).map(|text| usage::interfaces(&text)).unwrap_or_default()
    }
}

/// What `read` gives for each of `all`, in their order, by several threads where there are many. A thread has a buffer for what it
/// reads.
pub(crate) fn in_shares<T: Send, R: Send>(
    all: &mut [T],
    read: impl Fn(&mut T, &mut Vec<u8>) -> R + Sync,
) -> Vec<R> {
    let threads = available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let threads = threads.min(all.len().div_ceil(A_SHARE));
    let shares = Mutex::new(all.chunks_mut(A_SHARE).enumerate());
    let read_shares = || {
        let mut buffer = Vec::new();
        let mut done: Vec<(usize, Vec<R>)> = Vec::new();
        loop {
            let next = shares.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((n, share)) = next else { return done };
            done.push((n, share.iter_mut().map(|one| read(one, &mut buffer)).collect()));
        }
    };
    let mut done = std::thread::scope(|scope| {
        // Where no thread can be had, those that are there read its share.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, read_shares).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut done = read_shares();
        for other in others {
            done.extend(other.join().unwrap_or_else(|cause| resume_unwind(cause)));
        }
        done
    });
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().flat_map(|(_, read)| read).collect()
}

/// The inode of a process's network namespace.
fn network_namespace(proc: &Path, pid: &str) -> Option<u64> {
    let link = std::fs::read_link(proc.join(pid).join("ns/net")).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The v1 controllers in which a container has a cgroup, as bits in the order of [`CgroupMounts::v1`].
fn v1_of(mounts: &CgroupMounts, path_of: &impl Fn(&str) -> String) -> u8 {
    mounts.v1.iter().enumerate().fold(0, |bits, (n, (controller, mount))| {
        let folder = mount.join(path_of(controller).trim_start_matches('/'));
        bits | u8::from(folder.exists()) << n
    })
}

impl Place {
    fn new(mounts: &CgroupMounts, budget: &Arc<Budget>, path_of: impl Fn(&str) -> String) -> Self {
        let v1 = v1_of(mounts, &path_of);
        let has_v1 = |name: &str| {
            let at = mounts.v1.keys().position(|controller| controller == name);
            at.is_some_and(|n| v1 & 1 << n != 0)
        };
        let mut folders: HashMap<&str, Arc<Path>> = HashMap::new();
        let files = File::NAMES.map(|(file, controller, v2, v1)| {
            let (mount, name, hierarchy) = if has_v1(controller) {
                (mounts.v1.get(controller), v1, controller)
            } else {
                // Also beside v1 controllers: the unified hierarchy tells CPU time and processes in any case.
                (mounts.unified.as_ref(), v2, "unified")
            };
            (!name.is_empty()).then_some(())?;
            let mount = mount?;
            let folder = folders
                .entry(hierarchy)
                .or_insert_with(|| mount.join(path_of(hierarchy).trim_start_matches('/')).into());
            Some(KeptFile::new(folder, name, budget).seldom(file.is_opened_anew()))
        });
        let walked = WALKED.map(|(controller, told)| {
            let hierarchy = if has_v1(controller) { controller } else { "unified" };
            let cgroup_id = folders.get(hierarchy).map_or(0, |folder| cgroup_id(folder));
            WalkedAt { hierarchy, cgroup_id, told }
        });
        Self {
            generation: 0,
            v1,
            settled: true,
            files,
            walked,
            limits: Limits::default(),
            limits_read: None,
            network_of: None,
        }
    }

    /// Whether what rarely changes is to be looked at again.
    fn is_due(&self) -> bool {
        self.limits_read.is_none_or(|at| at.elapsed() > LIMITS_FOR)
    }

    fn text<'b>(&mut self, file: File, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        self.files[file as usize].as_mut()?.read(buffer)
    }

    fn number(&mut self, file: File, buffer: &mut Vec<u8>) -> Option<u64> {
        self.text(file, buffer).and_then(usage::number)
    }

    /// How many processes a file lists, and the first of them.
    fn processes(&mut self, file: File, buffer: &mut Vec<u8>) -> Option<(u64, Option<u32>)> {
        let text = self.text(file, buffer)?;
        let first = text.lines().next().and_then(|line| line.parse().ok());
        Some((text.lines().count() as u64, first))
    }

    /// What it uses. What `walked` tells is not read.
    fn read(&mut self, units: Units, walked: &Walked, buffer: &mut Vec<u8>) -> Usage {
        let mut usage = Usage::default();
        let [pressure, memory, pids, cpu] = self.walked;
        // What v2 tells of the quota stands in the file that tells the time as well.
        if let Some(told) = cpu.of(walked).filter(|_| cpu.is_v1()) {
            usage.cpu_periods = Some(told.cpu_periods);
            usage.cpu_throttled_periods = Some(told.cpu_throttled);
            usage.cpu_throttled_ns = Some(told.cpu_throttled_ns);
        } else if let Some(text) = self.text(File::CpuStat, buffer) {
            // Both versions tell theirs in a file of this name, in lines of other names.
            usage::cpu_stat(text, &mut usage);
        }
        if usage.cpu_ns.is_none() {
            usage.cpu_ns = self.number(File::CpuUsage, buffer);
            if let Some(text) = self.text(File::CpuTimes, buffer) {
                usage::cpuacct_stat(text, units.tick_ns, &mut usage);
            } else if let Some(text) = self.text(File::CpuUnified, buffer) {
                // Throttling is told by the v1 hierarchy of the cpu controller, time by the unified one.
                usage::cpu_stat(text, &mut usage);
            }
        }
        if let Some(told) = memory.of(walked) {
            usage.memory_bytes = Some(told.memory_pages * units.page_bytes);
            usage.memory_max_bytes = Some(told.memory_peak_pages * units.page_bytes);
            usage.memory_failcnt = memory.is_v1().then_some(told.memory_failcnt);
        } else {
            usage.memory_bytes = self.number(File::MemoryUsage, buffer);
            usage.memory_max_bytes = self.number(File::MemoryMaxUsage, buffer);
            usage.memory_failcnt = self.number(File::MemoryFailcnt, buffer);
        }
        usage.memory_stat = self.text(File::MemoryStat, buffer).map(usage::memory_stat);
        if let Some(swap) = self.number(File::MemorySwap, buffer)
            && let Some(stat) = &mut usage.memory_stat
        {
            stat.swap = swap;
        }
        usage.threads = match pids.of(walked) {
            Some(told) => Some(told.pids),
            None => self.number(File::Pids, buffer),
        };
        // Whoever has no cgroup of its own in the unified hierarchy, or nothing in it, is told by its v1 cgroup.
        let listed = self.processes(File::Processes, buffer);
        let listed = match listed {
            None | Some((0, _)) => self.processes(File::ProcessesV1, buffer).or(listed),
            some => some,
        };
        if let Some((count, first)) = listed {
            (usage.processes, usage.first_pid) = (Some(count), first);
        }
        self.read_io(&mut usage, buffer);
        if let Some(told) = pressure.of(walked) {
            usage.pressure = usage::pressures(told.pressure_ns).map(Some);
        } else {
            let pressures = [File::PressureCpu, File::PressureMemory, File::PressureIo];
            for (slot, file) in usage.pressure.iter_mut().zip(pressures) {
                *slot = self.text(file, buffer).and_then(usage::pressure);
            }
        }
        if self.is_due() {
            self.read_limits(buffer);
            self.limits_read = Some(Instant::now());
        }
        usage.limits = self.limits;
        usage
    }

    fn read_io(&mut self, usage: &mut Usage, buffer: &mut Vec<u8>) {
        if self.files[File::IoOperations as usize].is_none() {
            usage.io = self.text(File::Io, buffer).map(usage::io_stat).unwrap_or_default();
            return;
        }
        let bytes = self.text(File::Io, buffer).unwrap_or_default();
        // A container that has read nothing has the line of the total only.
        if bytes.lines().count() > 1 {
            let bytes = bytes.to_owned();
            let operations = self.text(File::IoOperations, buffer).unwrap_or_default();
            usage.io = usage::blkio(&bytes, operations);
        }
    }

    fn read_limits(&mut self, buffer: &mut Vec<u8>) {
        self.limits.memory_bytes = self.text(File::MemoryLimit, buffer).and_then(usage::v1_limit);
        self.limits.pids = self.number(File::PidsMax, buffer);
        if self.files[File::CpuPeriod as usize].is_some() {
            // -1 is no quota.
            self.limits.cpu_quota_us = self.number(File::CpuMax, buffer);
            self.limits.cpu_period_us = self.number(File::CpuPeriod, buffer);
            self.limits.cpu_shares = self.number(File::CpuWeight, buffer);
        } else {
            (self.limits.cpu_quota_us, self.limits.cpu_period_us) =
                self.text(File::CpuMax, buffer).map(usage::cpu_max).unwrap_or_default();
            self.limits.cpu_shares =
                self.number(File::CpuWeight, buffer).map(usage::shares_of_weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::Container;

    #[test]
    fn every_file_has_its_place_in_the_table() {
        for (n, (file, ..)) in File::NAMES.into_iter().enumerate() {
            assert_eq!(file as usize, n);
        }
    }

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
            let usages = resources.read(&snapshots, &Walked::default());
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
            let units = Units { tick_ns: 10_000_000, page_bytes: 4096 };
            let usage = place.read(units, &Walked::default(), &mut Vec::new());
            assert_eq!(usage.cpu_ns, Some(10_000));
            assert_eq!((usage.memory_bytes, usage.limits.memory_bytes), (Some(5), None));
            assert_eq!((usage.threads, usage.processes), (Some(3), Some(2)));
            assert_eq!(usage.limits.cpu_quota_us, None);
            assert_eq!(usage.pressure[0].map(|pressure| pressure.some_us), Some(9));
            assert_eq!(usage.io, []);
        }
    }
}
