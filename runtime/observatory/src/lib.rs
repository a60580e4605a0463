//! Probes in; metrics, events and findings out.
//!
//! Data flow: the programs keep exact per-CPU counters in the kernel and write records into one ring buffer. The
//! counters are read when somebody scrapes; the records are decoded, attributed to containers and kept for those who
//! stream them. A full ring loses detail, never a count, and what it loses is counted.

pub mod kernel;
pub mod probe;
