//! What a container uses, as the kernel's files tell it.

use terrarium_abi::CgroupUsage;

/// Numbers of one container. What the kernel does not tell is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Of that in user mode.
    pub cpu_user_ns: Option<u64>,
    /// Of that in the kernel.
    pub cpu_system_ns: Option<u64>,
    /// Periods of the CPU quota.
    pub cpu_periods: Option<u64>,
    /// Periods in which it was throttled.
    pub cpu_throttled_periods: Option<u64>,
    /// Time throttled, nanoseconds.
    pub cpu_throttled_ns: Option<u64>,
    /// Bytes of memory in use.
    pub memory_bytes: Option<u64>,
    /// The most that it has been.
    pub memory_max_bytes: Option<u64>,
    /// How often the limit was met.
    pub memory_failcnt: Option<u64>,
    /// From `memory.stat`.
    pub memory_stat: Option<MemoryStat>,
    /// Processes; threads of one count once.
    pub processes: Option<u64>,
    /// One of its processes, in the initial pid namespace: the first of the list.
    pub first_pid: Option<u32>,
    /// Tasks, as the pids controller counts them.
    pub threads: Option<u64>,
    /// Input and output by device.
    pub io: Vec<DeviceIo>,
    /// Pressure: cpu, memory, io.
    pub pressure: [Option<Pressure>; 3],
    /// Interfaces of its network namespace, if that is its own.
    pub network: Vec<InterfaceCounters>,
    /// Its limits.
    pub limits: Limits,
}

/// From `memory.stat`, bytes but for the faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStat {
    /// Anonymous memory.
    pub anon: u64,
    /// Page cache.
    pub file: u64,
    /// Page cache that has not been used for long.
    pub inactive_file: u64,
    /// Swapped out; v2 tells it in a file of its own.
    pub swap: u64,
    /// Page cache that is mapped.
    pub mapped_file: u64,
    /// Page faults.
    pub faults: u64,
    /// Page faults that waited for a device.
    pub major_faults: u64,
    /// Faults on pages that had been evicted not long before.
    pub refaults: Option<u64>,
}

/// Input and output on one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// `major:minor`
    pub device: String,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// Time lost to a lack of a resource, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Some task waited.
    pub some_us: u64,
    /// All tasks waited.
    pub full_us: u64,
}

/// Counters of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Its name.
    pub name: String,
    /// Received: bytes, packets, errors, dropped.
    pub receive: [u64; 4],
    /// Transmitted: bytes, packets, errors, dropped.
    pub transmit: [u64; 4],
}

/// Limits of a container; none where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Microseconds of CPU time a period.
    pub cpu_quota_us: Option<u64>,
    /// The period, microseconds.
    pub cpu_period_us: Option<u64>,
    /// Weight, in v1's terms: 1024 is one share.
    pub cpu_shares: Option<u64>,
    /// Tasks.
    pub pids: Option<u64>,
}

impl Usage {
    /// Memory that cannot be taken away without swapping or writing: what is in use but for idle page cache.
    pub fn working_set_bytes(&self) -> Option<u64> {
        Some(self.memory_bytes?.saturating_sub(self.memory_stat?.inactive_file))
    }
}

/// A file of one number; `max` is none.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A limit in bytes: what is as large as can be is none.
pub fn a_limit(bytes: u64) -> Option<u64> {
    Some(bytes).filter(|&bytes| bytes < u64::MAX >> 2)
}

/// The highest limit of tasks that is one: the kernel has no higher process ids (`PID_MAX_LIMIT`).
pub const MOST_PIDS: u64 = 4 << 20;

/// Pairs of name and number, one a line.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// `cpu.stat` of both versions.
pub fn cpu_stat(text: &str, usage: &mut Usage) {
    for (name, value) in pairs(text) {
        let (field, factor) = match name {
            "usage_usec" => (&mut usage.cpu_ns, 1000),
            "user_usec" => (&mut usage.cpu_user_ns, 1000),
            "system_usec" => (&mut usage.cpu_system_ns, 1000),
            "nr_periods" => (&mut usage.cpu_periods, 1),
            "nr_throttled" => (&mut usage.cpu_throttled_periods, 1),
            "throttled_usec" => (&mut usage.cpu_throttled_ns, 1000),
            "throttled_time" => (&mut usage.cpu_throttled_ns, 1),
            _ => continue,
        };
        *field = Some(value * factor);
    }
}

/// `cpuacct.stat`, in ticks of `ns` nanoseconds.
pub fn cpuacct_stat(text: &str, ns: u64, usage: &mut Usage) {
    for (name, value) in pairs(text) {
        match name {
            "user" => usage.cpu_user_ns = Some(value * ns),
            "system" => usage.cpu_system_ns = Some(value * ns),
            _ => {}
        }
    }
}

/// `memory.stat` of both versions. v1 also tells sums over the cgroups below, which is what counts for a container.
pub fn memory_stat(text: &str) -> MemoryStat {
    let mut stat = MemoryStat::default();
    for (name, value) in pairs(text) {
        match name {
            "anon" | "total_rss" => stat.anon = value,
            "file" | "total_cache" => stat.file = value,
            "total_inactive_file" => stat.inactive_file = value,
            // v1 has this line before the total.
            "inactive_file" if stat.inactive_file == 0 => stat.inactive_file = value,
            "total_swap" => stat.swap = value,
            "file_mapped" | "total_mapped_file" => stat.mapped_file = value,
            "pgfault" if stat.faults == 0 => stat.faults = value,
            "total_pgfault" => stat.faults = value,
            "pgmajfault" if stat.major_faults == 0 => stat.major_faults = value,
            "total_pgmajfault" => stat.major_faults = value,
            "workingset_refault_file" | "workingset_refault" => stat.refaults = Some(value),
            _ => {}
        }
    }
    stat
}

/// `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
pub fn io_stat(text: &str) -> Vec<DeviceIo> {
    text.lines()
        .filter_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            let mut io = DeviceIo { device: device.to_owned(), ..DeviceIo::default() };
            for (name, value) in rest.split(' ').filter_map(|pair| pair.split_once('=')) {
                let value = value.parse().ok()?;
                match name {
                    "rbytes" => io.read_bytes = value,
                    "wbytes" => io.written_bytes = value,
                    "rios" => io.reads = value,
                    "wios" => io.writes = value,
                    _ => {}
                }
            }
            Some(io)
        })
        .collect()
}

/// `blkio.throttle.io_service_bytes` and `blkio.throttle.io_serviced`: `8:0 Read 4096`.
pub fn blkio(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut all: Vec<DeviceIo> = Vec::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(what), Some(value)) =
                (words.next(), words.next(), words.next().and_then(|v| v.parse().ok()))
            else {
                continue;
            };
            let at = all.iter().position(|io| io.device == device).unwrap_or_else(|| {
                all.push(DeviceIo { device: device.to_owned(), ..DeviceIo::default() });
                all.len() - 1
            });
            match (what, is_bytes) {
                ("Read", true) => all[at].read_bytes = value,
                ("Write", true) => all[at].written_bytes = value,
                ("Read", false) => all[at].reads = value,
                ("Write", false) => all[at].writes = value,
                _ => {}
            }
        }
    }
    all
}

/// `cpu.pressure` and its relatives.
pub fn pressure(text: &str) -> Option<Pressure> {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
    };
    // The line `full` of cpu came with 5.13.
    Some(Pressure { some_us: total("some")?, full_us: total("full").unwrap_or(0) })
}

/// The numbers of the files of pressure, for cpu, memory and io, from the kernel's: `some` and `full` of io, memory and cpu, nanoseconds.
pub fn pressures([io, io_full, memory, memory_full, cpu, cpu_full]: [u64; 6]) -> [Pressure; 3] {
    [(cpu, cpu_full), (memory, memory_full), (io, io_full)]
        .map(|(some, full)| Pressure { some_us: some / 1000, full_us: full / 1000 })
}

/// `cpu.max`: quota, or `max`, and period.
pub fn cpu_max(text: &str) -> (Option<u64>, Option<u64>) {
    let mut words = text.split_whitespace().map(|word| word.parse().ok());
    (words.next().flatten(), words.next().flatten())
}

/// `cpu.weight` in shares of v1, the inverse of what runtimes do (OCI: 1 + ((shares − 2) × 9999) / 262142).
pub fn shares_of_weight(weight: u64) -> u64 {
    2 + weight.saturating_sub(1) * 262_142 / 9999
}

/// Divides `all` CPU time between user mode and the kernel as ticks found them, in nanoseconds; neither becomes less than `before`
/// (`cputime_adjust` in kernel/sched/cputime.c, by which `cpuacct.stat` is reckoned).
pub fn divided(all: u64, ticks: (u64, u64), before: (u64, u64)) -> (u64, u64) {
    if before.0 + before.1 >= all {
        return before;
    }
    let system = match ticks {
        (_, 0) => 0,
        (0, _) => all,
        (user, system) => {
            let part =
                u128::from(system) * u128::from(all) / (u128::from(user) + u128::from(system));
            u64::try_from(part).unwrap_or(all).min(all)
        }
    };
    let user = all - system.max(before.1);
    if user < before.0 { (before.0, all - before.0) } else { (user, all - user) }
}

/// The limits of the CPU that the files tell, from the kernel's numbers of quota and weight.
pub fn cpu_limits(told: &CgroupUsage, is_v1: bool, limits: &mut Limits) {
    limits.cpu_quota_us = (told.cpu_quota_ns != u64::MAX).then_some(told.cpu_quota_ns / 1000);
    limits.cpu_period_us = Some(told.cpu_period_ns / 1000);
    let shares = told.cpu_shares;
    // `cpu.weight` (sched_weight_to_cgroup in kernel/sched/core.c) is rounded to whole hundredths of 1024 shares.
    let weight = (shares.saturating_mul(100).saturating_add(512) / 1024).clamp(1, 10_000);
    limits.cpu_shares = Some(if is_v1 { shares } else { shares_of_weight(weight) });
}

/// `/proc/PID/net/dev` without the loopback.
pub fn interfaces(text: &str) -> Vec<InterfaceCounters> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, rest) = line.trim_start().split_once(':')?;
            if name == "lo" {
                return None;
            }
            let n: Vec<u64> = rest.split_whitespace().map_while(|w| w.parse().ok()).collect();
            Some(InterfaceCounters {
                name: name.to_owned(),
                receive: [*n.first()?, *n.get(1)?, *n.get(2)?, *n.get(3)?],
                transmit: [*n.get(8)?, *n.get(9)?, *n.get(10)?, *n.get(11)?],
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_of_both_versions() {
        let mut usage = Usage::default();
        cpu_stat(
            "usage_usec 10\nuser_usec 7\nsystem_usec 3\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5\n",
            &mut usage,
        );
        assert_eq!((usage.cpu_ns, usage.cpu_throttled_ns), (Some(10_000), Some(5000)));
        let mut usage = Usage::default();
        cpu_stat("nr_periods 4\nnr_throttled 2\nthrottled_time 5\n", &mut usage);
        cpuacct_stat("user 3\nsystem 2\n", 10_000_000, &mut usage);
        assert_eq!((usage.cpu_periods, usage.cpu_throttled_ns), (Some(4), Some(5)));
        assert_eq!(usage.cpu_user_ns, Some(30_000_000));
        assert_eq!(cpu_max("max 100000\n"), (None, Some(100_000)));
        assert_eq!(cpu_max("50000 100000\n"), (Some(50_000), Some(100_000)));
        assert_eq!(shares_of_weight(39), 998);
    }

    #[test]
    fn time_is_divided_as_ticks_were_and_neither_part_becomes_less() {
        let first = divided(100, (3, 1), (0, 0));
        assert_eq!(first, (75, 25));
        assert_eq!(divided(100, (0, 9), first), first, "no time has passed");
        assert_eq!(divided(200, (0, 9), first), (75, 125));
        assert_eq!(divided(200, (9, 0), first), (175, 25));
        assert_eq!(divided(u64::MAX, (u64::MAX, u64::MAX), (0, 0)), (1 << 63, (1 << 63) - 1));
    }

    #[test]
    fn memory_of_both_versions() {
        let v2 = memory_stat("anon 5\nfile 9\ninactive_file 4\nfile_mapped 2\npgfault 7\n");
        assert_eq!((v2.anon, v2.file, v2.inactive_file, v2.faults), (5, 9, 4, 7));
        let v1 = memory_stat(
            "cache 1\nrss 1\ninactive_file 1\npgfault 1\ntotal_cache 9\ntotal_rss 5\ntotal_pgfault 7\ntotal_inactive_file 4\ntotal_swap 3\n",
        );
        assert_eq!((v1.anon, v1.file, v1.inactive_file, v1.faults, v1.swap), (5, 9, 4, 7, 3));
        assert_eq!(number("9223372036854771712\n").and_then(a_limit), None);
        assert_eq!(number("67108864\n").and_then(a_limit), Some(64 << 20));
        let usage = Usage { memory_bytes: Some(3), memory_stat: Some(v2), ..Usage::default() };
        assert_eq!(usage.working_set_bytes(), Some(0), "not below 0");
    }

    #[test]
    fn io_pressure_and_interfaces() {
        let expected = DeviceIo {
            device: "8:0".to_owned(),
            read_bytes: 10,
            written_bytes: 20,
            reads: 1,
            writes: 2,
        };
        let v2 = io_stat("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\n");
        assert_eq!(v2, std::slice::from_ref(&expected));
        let bytes = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 0\nTotal 30\n";
        assert_eq!(blkio(bytes, "8:0 Read 1\n8:0 Write 2\nTotal 3\n"), [expected]);
        assert_eq!(
            pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 total=7\n"),
            Some(Pressure { some_us: 42, full_us: 7 })
        );
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 0 1 0 0 0 0 50 3 0 4 0 0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].receive, found[0].transmit), ([100, 2, 0, 1], [50, 3, 0, 4]));
    }
}
