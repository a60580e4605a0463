//! Memory limits: how often they were hit, what that cost, who was killed.

use super::family::{Counted, Family, Shape, counter, histogram, no_labels, none_known};
use terrarium_abi::Kind;
use terrarium_abi::counter::family;
use terrarium_abi::memory::LEVEL_GLOBAL;

pub const LIMIT_HITS: Counted = Counted {
    family: counter(
        "terrarium_memory_limit_hits_total",
        "Entries into reclaim because of a memory limit.",
    ),
    counts: family::MEMORY_LIMIT,
    shape: Shape::Count,
    known: || [0, 1].map(|level| Kind::new(family::MEMORY_LIMIT, [level, 0, 0])).to_vec(),
    labels: scope,
};

pub const STALL: Counted = Counted {
    family: histogram(
        "terrarium_memory_stall_seconds",
        "Time that one task stood in that reclaim.",
    ),
    counts: family::MEMORY_STALL,
    shape: Shape::Durations { sum: family::MEMORY_STALL_SUM },
    known: none_known,
    labels: no_labels,
};

pub const RECLAIMED: Counted = Counted {
    family: counter(
        "terrarium_memory_reclaimed_bytes_total",
        "Memory reclaimed because of a memory limit.",
    ),
    counts: family::RECLAIMED_PAGES,
    shape: Shape::PagesAsBytes,
    known: || vec![Kind::new(family::RECLAIMED_PAGES, [0; 3])],
    labels: no_labels,
};

pub const OOM_KILLS: Counted = Counted {
    family: counter(
        "terrarium_oom_kills_total",
        "Tasks killed for lack of memory, counted for the victim.",
    ),
    counts: family::OOM_KILL,
    shape: Shape::Count,
    known: || [0, 1, LEVEL_GLOBAL].map(|level| Kind::new(family::OOM_KILL, [level, 0, 0])).to_vec(),
    labels: scope,
};

/// Read from the kernel's files, see [`crate::memory_files`].
pub const EVENTS: Family = counter(
    "terrarium_memory_events_total",
    "The kernel's own count, from memory.events, or from memory.failcnt and memory.oom_control.",
)
.with(&["event"]);

/// Whose limit it was; the registry has turned levels within the container into 0.
fn scope([level, ..]: [u8; 3]) -> super::family::Labels {
    let scope = match level {
        0 => "self",
        1 => "ancestor",
        LEVEL_GLOBAL => "global",
        _ => "unknown",
    };
    vec![("scope", scope)]
}

/// The label of a memory event.
pub fn event_label(event: &str) -> &'static str {
    match event {
        "low" => ",event=\"low\"",
        "high" => ",event=\"high\"",
        "max" => ",event=\"max\"",
        "oom" => ",event=\"oom\"",
        "oom_kill" => ",event=\"oom_kill\"",
        "oom_group_kill" => ",event=\"oom_group_kill\"",
        _ => ",event=\"other\"",
    }
}
