//! One container's files, and its cgroups in a walk of the kernel's.

use super::kept_file::{Budget, KeptFile};
use super::usage::{self, Limits, Usage};
use super::{LIMITS_FOR, Units};
use crate::kernel::cgroup_mounts::CgroupMounts;
use crate::probe::Walked;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use terrarium_abi::CgroupUsage;
use terrarium_abi::usage::told;

/// How long it may take until a cgroup is found that an engine has made later than the others.
const LOOKS_WITHIN: Duration = Duration::from_mins(1);

/// A container's cgroup in one of the hierarchies that are walked.
#[derive(Debug, Clone, Copy)]
struct WalkedAt {
    hierarchy: &'static str,
    /// 0 where it has no cgroup there.
    cgroup_id: u64,
}

impl WalkedAt {
    /// What the walk told, if it told what this bit of [`told`] stands for.
    fn of(self, walked: &Walked, told: u64) -> Option<&CgroupUsage> {
        walked.of(self.hierarchy, self.cgroup_id).filter(|usage| usage.told & told != 0)
    }

    fn is_v1(self) -> bool {
        self.hierarchy != "unified"
    }
}

/// Where a walk tells of a container: what concerns a controller, in its hierarchy.
#[derive(Debug, Clone, Copy)]
struct WalkedPlaces {
    unified: WalkedAt,
    memory: WalkedAt,
    pids: WalkedAt,
    cpu: WalkedAt,
    cpuacct: WalkedAt,
    io: WalkedAt,
}

/// The id of the cgroup whose folder this is (`kernfs_node.id` is the inode on machines of 64 bits); 0 when there is none.
pub(crate) fn cgroup_id(folder: &Path) -> u64 {
    std::fs::metadata(folder).map_or(0, |metadata| metadata.ino())
}

/// The files of one container.
pub struct Place {
    pub generation: u64,
    /// The v1 controllers in which it has a cgroup, see [`v1_of`].
    v1: u8,
    /// Whether all its cgroups were there when this was made.
    pub settled: bool,
    made: Instant,
    /// How long after that it is seen whether there are more cgroups.
    looks_after: Duration,
    files: [Option<KeptFile>; File::COUNT],
    walked: WalkedPlaces,
    /// CPU time in user mode and in the kernel, as told last.
    cpu_times: (u64, u64),
    /// Whether its processes are those that a v1 hierarchy lists.
    pub lists_v1: bool,
    /// As told last.
    limits: Limits,
    limits_read: Option<Instant>,
    /// Whether this process has a network namespace other than that of this program, as of when files of limits were due last.
    pub network_of: Option<(u32, bool)>,
}

/// What is known of the processes in a cgroup.
#[derive(Clone, Copy)]
struct Listed {
    count: u64,
    /// One of them.
    first: Option<u32>,
    /// The inode of its network namespace, where that is told.
    network: Option<u64>,
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

/// The v1 controllers in which a container has a cgroup, as bits in the order of [`CgroupMounts::v1`].
fn v1_of(mounts: &CgroupMounts, path_of: &impl Fn(&str) -> String) -> u8 {
    mounts.v1.iter().enumerate().fold(0, |bits, (n, (controller, mount))| {
        let folder = mount.join(path_of(controller).trim_start_matches('/'));
        bits | u8::from(folder.exists()) << n
    })
}

impl Place {
    /// Its files below these mounts, opened when they are read.
    pub fn new(
        mounts: &CgroupMounts,
        budget: &Arc<Budget>,
        path_of: impl Fn(&str) -> String,
    ) -> Self {
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
        let at = |controller: &'static str| {
            let hierarchy = if has_v1(controller) { controller } else { "unified" };
            let cgroup_id = folders.get(hierarchy).map_or(0, |folder| cgroup_id(folder));
            WalkedAt { hierarchy, cgroup_id }
        };
        let walked = WalkedPlaces {
            unified: at("unified"),
            memory: at("memory"),
            pids: at("pids"),
            cpu: at("cpu"),
            cpuacct: at("cpuacct"),
            io: at("blkio"),
        };
        Self {
            generation: 0,
            v1,
            settled: true,
            made: Instant::now(),
            looks_after: LIMITS_FOR,
            files,
            walked,
            cpu_times: (0, 0),
            lists_v1: false,
            limits: Limits::default(),
            limits_read: None,
            network_of: None,
        }
    }

    /// Whether it has cgroups in other v1 hierarchies than when this was made: an engine may make one later than the others, mostly at
    /// the start. So that is seen anew each time that twice as much time has passed, and once in [`LOOKS_WITHIN`].
    pub fn has_other_cgroups(
        &mut self,
        mounts: &CgroupMounts,
        path_of: &impl Fn(&str) -> String,
    ) -> bool {
        let due = self.made.elapsed() > self.looks_after;
        if due {
            let passed = self.made.elapsed();
            self.looks_after = passed + passed.min(LOOKS_WITHIN);
        }
        due && self.v1 != v1_of(mounts, path_of)
    }

    /// Whether files that rarely change are to be read again.
    pub fn is_due(&self) -> bool {
        self.limits_read.is_none_or(|at| at.elapsed() > LIMITS_FOR)
    }

    fn text<'b>(&mut self, file: File, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        self.files[file as usize].as_mut()?.read(buffer)
    }

    fn number(&mut self, file: File, buffer: &mut Vec<u8>) -> Option<u64> {
        self.text(file, buffer).and_then(usage::number)
    }

    /// What a walk tells of the processes in a cgroup, or else the file that lists them.
    fn processes(
        &mut self,
        (at, file): (WalkedAt, File),
        units: Units,
        walked: &Walked,
        buffer: &mut Vec<u8>,
    ) -> Option<Listed> {
        if let Some(told) = at.of(walked, told::PROCESSES).filter(|_| units.knows_pids) {
            return Some(Listed {
                count: u64::from(told.processes),
                first: Some(told.first_pid).filter(|pid| *pid != 0),
                network: Some(u64::from(told.first_net)).filter(|inode| *inode != 0),
            });
        }
        let text = self.text(file, buffer)?;
        let first = text.lines().next().and_then(|line| line.parse().ok());
        Some(Listed { count: text.lines().count() as u64, first, network: None })
    }

    /// What it uses of what only files tell. [`Self::complete`] adds the rest.
    pub fn read_files(&mut self, buffer: &mut Vec<u8>) -> Usage {
        let mut usage = Usage::default();
        // v1 tells the quota in a file of this name, and the time in others; a walk may tell both.
        if !self.walked.cpu.is_v1()
            && let Some(text) = self.text(File::CpuStat, buffer)
        {
            usage::cpu_stat(text, &mut usage);
        }
        usage.memory_stat = self.text(File::MemoryStat, buffer).map(usage::memory_stat);
        usage
    }

    /// Adds the rest to what [`Self::read_files`] has read: as `walked` tells, or what it does not, as files do. Gives the inode of the
    /// network namespace of the first process, where it was told.
    pub fn complete(
        &mut self,
        usage: &mut Usage,
        units: Units,
        walked: &Walked,
        buffer: &mut Vec<u8>,
    ) -> Option<u64> {
        let WalkedPlaces { unified, memory, pids, cpu, io, .. } = self.walked;
        let due = self.is_due();
        if let Some(told) = cpu.of(walked, told::CPU) {
            if cpu.is_v1() {
                usage.cpu_periods = Some(told.cpu_periods);
                usage.cpu_throttled_periods = Some(told.cpu_throttled);
                usage.cpu_throttled_ns = Some(told.cpu_throttled_ns);
            }
            usage::cpu_limits(told, cpu.is_v1(), &mut usage.limits);
        } else {
            if cpu.is_v1()
                && let Some(text) = self.text(File::CpuStat, buffer)
            {
                usage::cpu_stat(text, usage);
            }
            if due {
                self.read_cpu_limits(buffer);
            }
            usage.limits.cpu_quota_us = self.limits.cpu_quota_us;
            usage.limits.cpu_period_us = self.limits.cpu_period_us;
            usage.limits.cpu_shares = self.limits.cpu_shares;
        }
        if usage.cpu_ns.is_none() {
            self.complete_cpu_time(usage, units, walked, buffer);
        }
        let swap = if let Some(told) = memory.of(walked, told::MEMORY) {
            let bytes = |pages: u64| pages.saturating_mul(units.page_bytes);
            usage.memory_bytes = Some(bytes(told.memory_pages));
            usage.memory_max_bytes = Some(bytes(told.memory_peak_pages));
            usage.memory_failcnt = memory.is_v1().then_some(told.memory_failcnt);
            usage.limits.memory_bytes = usage::a_limit(bytes(told.memory_max_pages));
            (!memory.is_v1()).then(|| bytes(told.swap_pages))
        } else {
            usage.memory_bytes = self.number(File::MemoryUsage, buffer);
            usage.memory_max_bytes = self.number(File::MemoryMaxUsage, buffer);
            usage.memory_failcnt = self.number(File::MemoryFailcnt, buffer);
            if due {
                let limit = self.number(File::MemoryLimit, buffer);
                self.limits.memory_bytes = limit.and_then(usage::a_limit);
            }
            usage.limits.memory_bytes = self.limits.memory_bytes;
            self.number(File::MemorySwap, buffer)
        };
        if let Some((swap, stat)) = swap.zip(usage.memory_stat.as_mut()) {
            stat.swap = swap;
        }
        if let Some(told) = pids.of(walked, told::PIDS) {
            usage.threads = Some(told.pids);
            usage.limits.pids = Some(told.pids_max).filter(|&most| most <= usage::MOST_PIDS);
        } else {
            usage.threads = self.number(File::Pids, buffer);
            if due {
                self.limits.pids = self.number(File::PidsMax, buffer);
            }
            usage.limits.pids = self.limits.pids;
        }
        // Whoever has no cgroup of its own in the unified hierarchy, or nothing in it, is told by its v1 cgroup.
        let in_unified = self.processes((unified, File::Processes), units, walked, buffer);
        let listed = match in_unified {
            None | Some(Listed { count: 0, .. }) => {
                self.processes((pids, File::ProcessesV1), units, walked, buffer).or(in_unified)
            }
            some => some,
        };
        self.lists_v1 = pids.is_v1() && in_unified.is_none_or(|listed| listed.count == 0);
        usage.processes = listed.map(|listed| listed.count);
        usage.first_pid = listed.and_then(|listed| listed.first);
        if io.of(walked, told::NO_IO).is_none() {
            self.read_io(usage, buffer);
        }
        if let Some(told) = unified.of(walked, told::PRESSURE) {
            usage.pressure = usage::pressures(told.pressure_ns).map(Some);
        } else {
            let pressures = [File::PressureCpu, File::PressureMemory, File::PressureIo];
            for (slot, file) in usage.pressure.iter_mut().zip(pressures) {
                *slot = self.text(file, buffer).and_then(usage::pressure);
            }
        }
        if due {
            self.limits_read = Some(Instant::now());
        }
        self.limits = usage.limits;
        listed.and_then(|listed| listed.network)
    }

    /// Adds the CPU time where `cpu.stat` does not tell it.
    fn complete_cpu_time(
        &mut self,
        usage: &mut Usage,
        units: Units,
        walked: &Walked,
        buffer: &mut Vec<u8>,
    ) {
        if let Some(told) = self.walked.cpuacct.of(walked, told::CPU_TIME) {
            let ticks = (told.cpu_user_ns, told.cpu_system_ns);
            self.cpu_times = usage::divided(told.cpu_ns, ticks, self.cpu_times);
            usage.cpu_ns = Some(told.cpu_ns);
            usage.cpu_user_ns = Some(self.cpu_times.0);
            usage.cpu_system_ns = Some(self.cpu_times.1);
            return;
        }
        usage.cpu_ns = self.number(File::CpuUsage, buffer);
        if let Some(text) = self.text(File::CpuTimes, buffer) {
            usage::cpuacct_stat(text, units.tick_ns, usage);
        } else if let Some(text) = self.text(File::CpuUnified, buffer) {
            // Throttling is told by the v1 hierarchy of the cpu controller, time by the unified one.
            usage::cpu_stat(text, usage);
        }
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

    fn read_cpu_limits(&mut self, buffer: &mut Vec<u8>) {
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

    #[test]
    fn every_file_has_its_place_in_the_table() {
        for (n, (file, ..)) in File::NAMES.into_iter().enumerate() {
            assert_eq!(file as usize, n);
        }
    }
}
