//! What this kernel has: types, cgroup hierarchies, and what it allows.

pub mod btf;
pub mod cgroup_mounts;
pub mod cgroup_namespace;
pub mod config;
pub mod permission;
pub mod tracefs;
