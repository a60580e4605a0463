//! What the end-to-end tests share: requirements, guards, and the built binary under test.
//!
//! A test takes a [`TestBed`], which owns a root filesystem, a state folder and a network namespace that plays
//! the host's. When it goes, it asserts that nothing of the test is left, and cleans up if something is:
//!
//! ```no_run
//! use terrarium_tests::{TestBed, require};
//!
//! fn exit_code_is_passed_through() {
//!     require!(Root);
//!     let bed = TestBed::new();
//!     assert_eq!(bed.container("web").run(["sh", "-c", "exit 3"]).code, 3);
//! }
//! ```
//!
//! The binary under test is `TERRARIUM_BIN`, else `terrarium` of the profile that the tests were built with; the program
//! that runs inside containers is `TERRARIUM_WORKLOAD`, else built statically. A skipped test prints
//! `skipped: REASON` and appends a line to the file `TERRARIUM_SKIP_LOG`; with `TERRARIUM_NO_SKIP=1` it fails.

#![expect(
    clippy::missing_panics_doc,
    reason = "a helper of tests fails the test by a panic that says what was expected"
)]

pub mod binaries;
pub mod browser;
pub mod bundle;
pub mod cgroup_tree;
pub mod container;
pub mod dashboard;
pub mod deadline;
pub mod descriptors;
pub mod events;
pub mod http;
pub mod image;
pub mod kernel_state;
pub mod leak_case;
pub mod metrics;
pub mod network_namespace;
pub mod observatory;
pub mod podman;
pub mod process;
pub mod prometheus;
pub mod repeat;
pub mod requirement;
pub mod rootfs;
pub mod terminal;
pub mod testbed;
pub mod tracer;
pub mod turn;
pub mod witness;

pub use browser::Browser;
pub use cgroup_tree::Tree;
pub use container::{Container, Running};
pub use deadline::eventually;
pub use metrics::Metrics;
pub use network_namespace::NetworkNamespace;
pub use observatory::Observatory;
pub use process::Outcome;
pub use repeat::repeats;
pub use requirement::Requirement;
pub use terminal::Terminal;
pub use testbed::TestBed;
