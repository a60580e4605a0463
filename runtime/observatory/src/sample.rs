//! One look at everything: counters, containers and what they use, all from the same moment.

use crate::attribution::registry::{Outcome, Snapshot, Subject};
use crate::memory_files::MemoryEvents;
use crate::probe::Walked;
use crate::resources::Usage;
use crate::shared::Shared;
use foldhash::HashMap;
use std::sync::PoisonError;
use terrarium_abi::Kind;

/// Counters by kind.
pub type Row = HashMap<Kind, u64>;

/// One look.
pub struct Sample {
    /// The containers, by path.
    pub containers: Vec<Observed>,
    /// What is counted in no container.
    pub host: Row,
    /// What the whole machine uses.
    pub machine: Usage,
    /// What is counted in cgroups that are not known.
    pub unknown: Row,
    /// How often each outcome of an attribution came.
    pub outcomes: HashMap<Outcome, u64>,
}

/// A container.
pub struct Observed {
    /// Who it is.
    pub snapshot: Snapshot,
    /// Its counters.
    pub row: Row,
    /// What it uses.
    pub usage: Usage,
    /// The kernel's own count of memory events.
    pub memory_events: MemoryEvents,
}

impl Observed {
    /// The whole machine, of which nothing is known yet.
    pub fn of_machine() -> Self {
        Self {
            snapshot: Snapshot::of_machine(),
            row: Row::default(),
            usage: Usage::default(),
            memory_events: MemoryEvents::default(),
        }
    }

    /// How long it has been there.
    pub fn age(&self) -> time::Duration {
        time::OffsetDateTime::now_utc() - self.snapshot.started
    }
}

impl Sample {
    /// Looks now; at what containers use only if that is wanted, for it is most of the work.
    pub fn take(shared: &Shared, with_usage: bool) -> Self {
        // One lock over both: otherwise counters could move from a removed cgroup to its container's totals between
        // the two, and count twice or not at all.
        let mut registry = shared.registry();
        registry.read_state_files();
        let counts = shared.read_counts();
        let mut totals = registry.totals(&counts);
        let snapshots = registry.snapshots();
        let outcomes = registry.outcomes().clone();
        drop(registry);

        let paths = snapshots.iter().map(|s| s.container.path.as_str());
        shared.lives.lock().unwrap_or_else(PoisonError::into_inner).keep(paths);
        let mut resources = shared.resources();
        // For events of memory alone their files cost less than a walk of all hierarchies.
        let ((usages, walked), machine) = if with_usage {
            (resources.read(&snapshots), resources.read_host())
        } else {
            ((vec![Usage::default(); snapshots.len()], Walked::default()), Usage::default())
        };
        drop(resources);
        let memory: Vec<_> = snapshots.iter().map(|s| s.memory.as_slice()).collect();
        let memory_events = shared.memory_events(&memory, &walked);
        shared.keep_memory_events(&memory);
        let containers = snapshots
            .into_iter()
            .zip(usages)
            .zip(memory_events)
            .map(|((snapshot, usage), memory_events)| {
                let subject = Subject::Container(snapshot.container.path.clone());
                let row = totals.remove(&subject).unwrap_or_default();
                Observed { snapshot, row, usage, memory_events }
            })
            .collect();
        let host = totals.remove(&Subject::Host).unwrap_or_default();
        // Whatever is left belongs to no container that is known.
        let mut unknown = Row::default();
        for (kind, count) in totals.into_values().flatten() {
            *unknown.entry(kind).or_default() += count;
        }
        Self { containers, host, machine, unknown, outcomes }
    }
}
