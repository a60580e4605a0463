//! Which container a kernel id belongs to.

pub mod engines;
pub mod handle;
pub mod patterns;
pub mod registry;
pub mod state_file;

pub use registry::{Attribution, Container, Outcome, Registry, State};
