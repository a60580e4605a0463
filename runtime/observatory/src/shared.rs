//! What the event thread and the HTTP side share.

use crate::attribution::Registry;
use crate::event::history::History;
use crate::event::json::Context;
use crate::kernel::cgroup_mounts::{CgroupMounts, Hierarchy};
use crate::leaks::events::Log;
use crate::lives::{Lives, StartTimes};
use crate::memory_files::{MemoryEvents, MemoryFiles};
use crate::metrics::Exemplar;
use crate::probe::counts::{Counters, Fill, ProbeStats};
use crate::probe::{HookReport, Probes, Programs, Walked};
use crate::resources::{Budget, Resources};
use crate::shares::in_shares;
use foldhash::{HashMap, HashMapExt, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terrarium_abi::{CounterKey, Probe};

/// The state of a running observatory. Locks are taken in the order of the fields.
pub struct Shared {
    registry: Mutex<Registry>,
    counters: Mutex<Counters>,
    resources: Mutex<Resources>,
    /// The kernel's own numbers, by path of the cgroup, as last read.
    memory_events: Mutex<HashMap<String, (MemoryEvents, Option<MemoryFiles>)>>,
    budget: Arc<Budget>,
    /// What was found of leaks.
    leaks: Mutex<Log>,
    /// The last events.
    pub history: Arc<History>,
    /// The cgroup hierarchies.
    pub mounts: CgroupMounts,
    /// How each hook is attached.
    pub reports: Vec<HookReport>,
    /// What is the same for all events.
    pub context: Context,
    /// The attached programs.
    pub programs: Programs,
    /// From the time that a record has to when it was decoded.
    pub latency: prometheus::Histogram,
    /// Starts and ends of containers.
    pub lives: Mutex<Lives>,
    /// Records decoded, per probe.
    pub delivered: [AtomicU64; Probe::ALL.len()],
    /// For each container, by path, the last time that a task stood at a memory limit.
    pub stalls: Mutex<HashMap<String, Exemplar>>,
    /// Records that were not understood.
    pub decode_errors: AtomicU64,
    /// Records lost in the kernel that have been told in the stream, before an event that was not lost.
    told_lost: AtomicU64,
    /// The same, told by an event of its own.
    told_in_event: AtomicU64,
}

impl Shared {
    /// The state at the start.
    pub fn new(
        registry: Registry,
        counters: Counters,
        history: Arc<History>,
        probes: &mut Probes,
        (latency, starts): (prometheus::Histogram, StartTimes),
        context: Context,
    ) -> Self {
        let mounts = registry.mounts().clone();
        let budget = Budget::of_this_process();
        Self {
            resources: Mutex::new(
                Resources::new(mounts.clone(), Path::new("/proc"), Arc::clone(&budget))
                    .walking(probes.take_walks(), context.page_bytes),
            ),
            budget,
            mounts,
            registry: Mutex::new(registry),
            counters: Mutex::new(counters),
            memory_events: Mutex::default(),
            leaks: Mutex::default(),
            history,
            reports: probes.reports().to_vec(),
            programs: probes.take_programs(),
            latency,
            lives: Mutex::new(Lives::new(starts)),
            context,
            delivered: Default::default(),
            stalls: Mutex::default(),
            decode_errors: AtomicU64::new(0),
            told_lost: AtomicU64::new(0),
            told_in_event: AtomicU64::new(0),
        }
    }

    /// What was found of leaks. No other lock is taken while this one is held.
    pub fn leaks(&self) -> MutexGuard<'_, Log> {
        self.leaks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of containers.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic while the table changes would be a bug; what it leaves is still better than no answer.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What containers use.
    pub fn resources(&self) -> MutexGuard<'_, Resources> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of memory that this machine has.
    pub fn machine_memory_bytes(&self) -> Option<u64> {
        let pages = nix::unistd::sysconf(nix::unistd::SysconfVar::_PHYS_PAGES).ok().flatten()?;
        Some(u64::try_from(pages).ok()? * self.context.page_bytes)
    }

    /// Keeps what stands for the stalls of a container.
    pub fn note_stall(&self, container: &str, stall: Exemplar) {
        let mut stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        stalls.insert(container.to_owned(), stall);
    }

    /// All counters; none when the kernel does not give them, which is logged.
    pub fn read_counts(&self) -> HashMap<CounterKey, u64> {
        self.counters().read().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the counters from the kernel");
            HashMap::new()
        })
    }

    /// What the probes count about themselves.
    pub fn probe_stats(&self) -> ProbeStats {
        self.counters().stats().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the probes' own counters from the kernel");
            ProbeStats::default()
        })
    }

    /// How full the kernel's maps of counters were when they were last read.
    pub fn counters_fill(&self) -> [Fill; 3] {
        self.counters().fill()
    }

    /// Removes counters from the kernel's map.
    pub fn remove_counters(&self, keys: &[CounterKey]) {
        if keys.is_empty() {
            return;
        }
        if let Err(error) = self.counters().remove(keys) {
            tracing::warn!(%error, "cannot remove the counters of removed cgroups");
        }
    }

    /// Records that the kernel side lost since this was last asked.
    pub fn newly_lost(&self) -> u64 {
        self.lost_since(&self.told_lost)
    }

    /// The same, for the events that tell of losses.
    pub fn lost_since_told(&self) -> u64 {
        self.lost_since(&self.told_in_event)
    }

    fn lost_since(&self, told: &AtomicU64) -> u64 {
        let Ok(lost) = self.counters().lost() else { return 0 };
        lost.saturating_sub(told.swap(lost, Ordering::Relaxed))
    }

    /// Reads the kernel's memory events of one container now.
    pub fn refresh_memory_events(&self, container: &str) {
        let places = self.registry().memory_of(container);
        self.memory_events(&[&places], &Walked::default());
    }

    /// The kernel's memory events of containers, each summed over the cgroups that account its memory, no two of which have one in
    /// common: as `walked` now or read now, or, where the files are gone, as last read.
    pub fn memory_events(
        &self,
        containers: &[&[(Hierarchy, String)]],
        walked: &Walked,
    ) -> Vec<MemoryEvents> {
        let mut all = self.memory_events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = vec![MemoryEvents::default(); containers.len()];
        let mut told = |sum: &mut MemoryEvents, path: &String| {
            let Some((known, Some(files))) = all.get_mut(path) else { return false };
            let Some(now) = files.told(walked) else { return false };
            *known = known.followed_by(now);
            *sum = sum.and(known);
            true
        };
        let untold: Vec<usize> = sums
            .iter_mut()
            .zip(containers)
            .enumerate()
            .filter_map(|(n, (sum, places))| {
                (!places.iter().all(|(_, path)| told(sum, path))).then_some(n)
            })
            .collect();
        let mut take = |(hierarchy, path): &(Hierarchy, String)| {
            all.remove_entry(path).unwrap_or_else(|| {
                let files = MemoryFiles::new(&self.mounts, *hierarchy, path, &self.budget);
                (path.clone(), (MemoryEvents::default(), files))
            })
        };
        let mut taken: Vec<Vec<_>> =
            untold.iter().map(|n| containers[*n].iter().map(&mut take).collect()).collect();
        let read = in_shares(&mut taken, |places, buffer| {
            places.iter_mut().fold(MemoryEvents::default(), |sum, (_, (known, files))| {
                // Numbers never go down for a cgroup that was made again under the same path.
                if let Some(now) = files.as_mut().and_then(|files| files.now(walked, buffer)) {
                    *known = known.followed_by(now);
                }
                sum.and(known)
            })
        });
        all.extend(taken.into_iter().flatten());
        for (n, sum) in untold.into_iter().zip(read) {
            sums[n] = sum;
        }
        sums
    }

    /// Forgets the memory events of all cgroups but those that account the memory of these containers.
    pub fn keep_memory_events(&self, containers: &[&[(Hierarchy, String)]]) {
        let mut all = self.memory_events.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > containers.iter().map(|places| places.len()).sum() {
            let places = containers.iter().copied().flatten();
            let paths: HashSet<&str> = places.map(|(_, path)| path.as_str()).collect();
            all.retain(|path, _| paths.contains(path.as_str()));
        }
    }
}
