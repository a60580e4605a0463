//! The records, map keys and settings that the eBPF programs and user space share: the only bytes that cross
//! the kernel boundary, and no logic beyond reading and writing their encodings.
//!
//! Every struct is `repr(C)` with fixed-width fields and padding spelled out; size and offsets are asserted at
//! compile time, so that both sides agree even though two compilers build them. Numbers that cross are explicit;
//! a retired number is not used again. Numbers in records are in the byte order of the machine.
#![no_std]

pub mod cgroup;
pub mod config;
pub mod counter;
pub mod guard;
pub mod header;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod task;
pub mod usage;

pub use cgroup::{CgroupAttach, CgroupEvent, CgroupInfo, CgroupKey};
pub use config::{ABSENT, Config, NsFields};
pub use counter::{CounterKey, FrontCell, Kind, Loss, Probe, Stat, Timed};
pub use guard::{Guard, GuardCall, GuardEvent};
pub use header::{Header, RecordType};
pub use memory::{Oom, Reclaim};
pub use mount::{Mount, MountOp};
pub use namespace::{NsChange, NsKind, NsTarget, Via};
pub use task::{CloneFailed, Exec, Exit, ExitCause, NewTask};
pub use usage::CgroupUsage;

/// Added to the id of a cgroup of the v1 memory hierarchy in the map `WATCHED`, where ids of both hierarchies meet.
pub const WATCH_V1: u64 = 1 << 63;

/// Names of the maps and globals, as they stand in the object file.
pub mod names {
    /// Per-CPU hash: [`crate::CounterKey`] to `u64`.
    pub const COUNTS: &str = "COUNTS";
    /// Per-CPU hash: [`crate::CounterKey`] to [`crate::Timed`], label 1 of the kind being the bucket of the durations.
    pub const TIMES: &str = "TIMES";
    /// Array of [`crate::FrontCell`], so many for each CPU, that user space maps into its memory.
    pub const FRONT: &str = "FRONT";
    /// Array of [`crate::CgroupUsage`] that user space maps into its memory.
    pub const USAGE: &str = "USAGE";
    /// Per-CPU array of `u64`, indexed by [`crate::Stat`].
    pub const STATS: &str = "STATS";
    /// Ring buffer of records, each starting with [`crate::Header`].
    pub const EVENTS: &str = "EVENTS";
    /// Array of one `u32`: 1 while the reader sleeps and wants to be woken by the next record.
    pub const ARMED: &str = "ARMED";
    /// Hash: [`crate::CgroupKey`] to [`crate::CgroupInfo`], written at `cgroup_mkdir`, removed by user space.
    pub const CGROUPS: &str = "CGROUPS";
    /// Hash of the cgroups that are watched: the id, for v1 with [`crate::WATCH_V1`], to one byte.
    pub const WATCHED: &str = "WATCHED";
    /// The read-only global of type [`crate::Config`].
    pub const CONFIG: &str = "CONFIG";
}

/// Makes each `repr(C)` struct readable and writable as plain bytes for aya.
macro_rules! pod {
    ($($name:ty),+ $(,)?) => { $(
        #[cfg(feature = "user")]
        // SAFETY: repr(C), integers and arrays of integers only, no padding (its size is asserted beside it).
        unsafe impl aya::Pod for $name {}
    )+ };
}
pub(crate) use pod;
