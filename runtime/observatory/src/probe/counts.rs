//! Reading the counters that the programs keep.

use crate::probe::front::Front;
use crate::probe::map_batch;
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use foldhash::{HashMap, HashMapExt, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use terrarium_abi::{CounterKey, Loss, Probe, Stat, Timed, names};

/// The counters in the kernel.
pub struct Counters {
    front: Front,
    /// Cells of it in use when it was last read.
    front_entries: usize,
    counts: Cells<1>,
    times: Cells<2>,
    stats: PerCpuArray<MapData, u64>,
}

/// How full a map of counters was when it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// The map's name in `/metrics`.
    pub map: &'static str,
    /// The counters in it.
    pub entries: usize,
    /// The counters that fit.
    pub capacity: usize,
}

/// What the probes count about themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeStats {
    /// Records that each probe wanted to write, in the order of [`Probe::ALL`].
    pub produced: [u64; Probe::ALL.len()],
    /// Records that did not fit into the ring buffer.
    pub ring_full: [u64; Probe::ALL.len()],
    /// Calls whose entry did not fit into the map that joins it with its exit.
    pub map_full: [u64; Probe::ALL.len()],
    /// Records of a cgroup that wrote more of them than it may.
    pub rate_limited: [u64; Probe::ALL.len()],
    /// Counts that did not fit into the map of counters.
    pub counts_lost: u64,
}

impl Counters {
    /// Takes the maps over: `FRONT`, `COUNTS`, `TIMES` and `STATS`.
    pub fn new(
        front: &Map,
        counts: Map,
        times: Map,
        stats: PerCpuArray<MapData, u64>,
    ) -> Result<Self, MapError> {
        Ok(Self {
            front: Front::new(front)?,
            front_entries: 0,
            counts: Cells::new(counts, names::COUNTS)?,
            times: Cells::new(times, names::TIMES)?,
            stats,
        })
    }

    /// How full the maps were when they were last read.
    pub fn fill(&self) -> [Fill; 3] {
        [
            Fill { map: "front", entries: self.front_entries, capacity: self.front.capacity() },
            Fill { map: "counts", entries: self.counts.entries, capacity: self.counts.capacity },
            Fill { map: "times", entries: self.times.entries, capacity: self.times.capacity },
        ]
    }

    /// All counters, those that a [`Timed`] stands for as if each had a cell.
    pub fn read(&mut self) -> Result<HashMap<CounterKey, u64>, MapError> {
        let mut all = self.counts.read(|[count]| count)?;
        let mut add = |key: CounterKey, timed: Timed| {
            for (kind, more) in timed.told(key.kind) {
                *all.entry(CounterKey { kind, ..key }).or_default() += more;
            }
        };
        for (key, timed) in self.times.read(|[count, ns]| Timed { count, ns })? {
            add(key, timed);
        }
        self.front_entries = self.front.read(add);
        Ok(all)
    }

    /// Removes counters, of cgroups that are no more; one that is not there is fine. The first error is told when all others
    /// are removed.
    pub fn remove(&mut self, keys: &[CounterKey]) -> Result<(), MapError> {
        let cgroups = |key: &CounterKey| (key.cgroup_id, key.memory_cgroup_id);
        let gone: HashSet<(u64, u64)> = keys.iter().map(cgroups).collect();
        self.front.remove(&gone);
        let mut result = Ok(());
        for key in keys {
            result = result.and(self.counts.remove(key));
        }
        let cells = self.times.read(|_| ())?;
        for key in cells.keys().filter(|key| gone.contains(&cgroups(key))) {
            result = result.and(self.times.remove(key));
        }
        result
    }

    /// Records that were lost in the kernel, by any probe for any reason.
    pub fn lost(&self) -> Result<u64, MapError> {
        Ok(self.stats.get(&Stat::LostByAny.index(), 0)?.iter().sum())
    }

    /// What the probes count about themselves.
    pub fn stats(&self) -> Result<ProbeStats, MapError> {
        let cell = |stat: Stat| -> Result<u64, MapError> {
            Ok(self.stats.get(&stat.index(), 0)?.iter().sum())
        };
        let mut stats = ProbeStats { counts_lost: cell(Stat::CountsLost)?, ..Default::default() };
        for (n, probe) in Probe::ALL.into_iter().enumerate() {
            stats.ring_full[n] = cell(Stat::Lost(probe, Loss::RingFull))?;
            stats.map_full[n] = cell(Stat::Lost(probe, Loss::MapFull))?;
            stats.rate_limited[n] = cell(Stat::Lost(probe, Loss::RateLimited))?;
            // Read last: what is produced while reading must not look like a loss.
            stats.produced[n] = cell(Stat::Produced(probe))?;
        }
        Ok(stats)
    }
}

/// A per-CPU hash of counters, each of so many words.
struct Cells<const WORDS: usize> {
    map: PerCpuHashMap<MapData, CounterKey, [u64; WORDS]>,
    /// A second descriptor of it, for reading in batches.
    batch: OwnedFd,
    cpus: usize,
    capacity: usize,
    /// How many there were when they were last read.
    entries: usize,
}

impl<const WORDS: usize> Cells<WORDS> {
    fn new(map: Map, name: &str) -> Result<Self, MapError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let Map::PerCpuHashMap(data) = &map else {
            return Err(MapError::InvalidName { name: name.to_owned() });
        };
        let batch = data.fd().as_fd().try_clone_to_owned()?;
        let capacity = usize::try_from(data.info()?.max_entries()).unwrap_or(usize::MAX);
        Ok(Self { map: PerCpuHashMap::try_from(map)?, batch, cpus, capacity, entries: 0 })
    }

    /// What `of` makes of each of them, its words summed over the CPUs.
    fn read<T>(
        &mut self,
        of: impl Fn([u64; WORDS]) -> T,
    ) -> Result<HashMap<CounterKey, T>, MapError> {
        // A map, not a list: a key may be seen twice when others are removed while reading.
        let mut all = HashMap::new();
        let result = map_batch::read_sums(self.batch.as_fd(), self.cpus, &mut |key, sums| {
            all.insert(key, of(sums));
        });
        if result.is_err() {
            all.clear();
            for entry in &self.map {
                match entry {
                    Ok((key, values)) => {
                        all.insert(key, of(map_batch::sum_words(&values)));
                    }
                    // The key was removed between being listed and being read.
                    Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.entries = all.len();
        Ok(all)
    }

    fn remove(&mut self, key: &CounterKey) -> Result<(), MapError> {
        match self.map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
