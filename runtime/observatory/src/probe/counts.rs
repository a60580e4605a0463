//! Reading the counters that the programs keep.

use crate::probe::map_batch;
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use terrarium_abi::{CounterKey, Loss, Probe, Stat, names};

/// The counters in the kernel.
pub struct Counters {
    /// A second descriptor of `counts`, for reading in batches.
    batch: OwnedFd,
    counts: PerCpuHashMap<MapData, CounterKey, u64>,
    stats: PerCpuArray<MapData, u64>,
    cpus: usize,
    capacity: u32,
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
    /// Takes the two maps over. `capacity` is the number of counters that fit.
    pub fn new(
        counts: Map,
        stats: PerCpuArray<MapData, u64>,
        capacity: u32,
    ) -> Result<Self, MapError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let Map::PerCpuHashMap(data) = &counts else {
            return Err(MapError::InvalidName { name: names::COUNTS.to_owned() });
        };
        let batch = data.fd().as_fd().try_clone_to_owned()?;
        let counts = PerCpuHashMap::try_from(counts)?;
        Ok(Self { batch, counts, stats, cpus, capacity })
    }

    /// The number of counters that fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All counters.
    pub fn read(&self) -> Result<HashMap<CounterKey, u64>, MapError> {
        // A map, not a list: a key may be seen twice when others are removed while reading.
        let mut all = HashMap::new();
        let result = map_batch::read_sums(self.batch.as_fd(), self.cpus, &mut |key, sum| {
            all.insert(key, sum);
        });
        if result.is_ok() {
            return Ok(all);
        }
        all.clear();
        for entry in &self.counts {
            match entry {
                Ok((key, values)) => {
                    all.insert(key, values.iter().sum());
                }
                // The key was removed between being listed and being read.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Removes a counter; one that is not there is fine.
    pub fn remove(&mut self, key: &CounterKey) -> Result<(), MapError> {
        match self.counts.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
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
