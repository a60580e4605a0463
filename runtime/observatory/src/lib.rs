//! Probes in; metrics, events and findings out.
//!
//! Data flow: the programs keep exact per-CPU counters in the kernel and write records into one ring buffer. The
//! counters are read when somebody scrapes; the records are decoded, attributed to containers and kept for those who
//! stream them. A full ring loses detail, never a count, and what it loses is counted.
//!
//! The observatory knows containers by the ids of their cgroups only; names come from cgroup paths and from the state
//! files that a runtime leaves, see docs/ARCHITECTURE.md.

mod allocator;
pub mod attribution;
pub mod doctor;
mod ebpf_log;
pub mod event;
pub mod export;
pub mod http;
pub mod kernel;
pub mod leaks;
mod lives;
mod memory_files;
pub mod metrics;
mod notify;
pub mod observe;
mod page;
mod precedence;
pub mod privileges;
pub mod probe;
mod pump;
pub mod resources;
mod sample;
mod shared;
mod shares;
