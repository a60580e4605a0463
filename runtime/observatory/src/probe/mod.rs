//! Loading and attaching the eBPF programs, and reading their counters.

pub mod attach;
pub mod counts;
mod front;
pub mod load;
pub mod map_batch;
mod mapped;
pub mod plan;
pub mod run_stats;
pub mod walk;
pub mod watch;

pub use attach::{Attempt, HookReport, NO_TYPES};
pub use counts::{Counters, ProbeStats};
pub use load::{LoadError, Probes, Settings};
pub use plan::{Choice, Mechanism, probe_name};
pub use run_stats::Programs;
pub use terrarium_abi::Probe;
pub use walk::{Walked, Walks};
pub use watch::Watch;
