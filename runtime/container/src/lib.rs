//! A spec becomes a running container, and goes away whole.
//!
//! One path leads from an OCI spec to a container: [`Container::create`], [`Container::start`], then
//! [`Signals::wait_for`] and [`Container::finish`], or [`kill`] and [`delete`] from another process. The options of
//! `terrarium run` become such a spec first ([`RunOptions::to_spec`]).
//!
//! Whatever is made is written into the container's folder before it is made ([`Store`]), so that [`delete`] and
//! [`gc`] can take it away after a crash at any point.
//!
//! This crate knows nothing of eBPF probes; what an observer may know of a container is in [`State`].

mod attributes;
mod beside;
mod capabilities;
mod cgroup;
mod console;
mod container;
mod copy_up;
mod device_filter;
mod devices;
mod error;
mod exec;
pub mod explain;
mod freeze;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hooks;
mod id;
mod id_maps;
mod idmapped;
mod init;
pub mod inside;
mod layers;
mod log;
mod lsm;
mod mount;
mod namespaces;
pub mod network;
mod notify;
mod option_forms;
mod plan;
mod reaper;
mod resource_files;
mod restart;
mod rootfs;
mod seal;
pub mod seccomp;
mod signal;
mod spec;
mod state;
mod stats;
mod store;
mod supervise;
mod sync;
mod syscall;
mod systemd;
mod teardown;
mod template;
mod units;
mod update;
mod user;

pub use capabilities::capability_names;
pub use cgroup::CgroupDriver;
pub use console::Relay;
pub use container::{
    Container, CreateOptions, LOG, delete, kill, kill_all, oci_state, spec_of, start, wait,
};
pub use device_filter::{DeviceFilter, DeviceFilterError};
pub use error::{Error, Result};
pub use exec::{ExecOptions, ExecProcess, exec, process_of};
pub use freeze::{pause, processes, resume};
pub use hooks::{HOOK_KINDS, OciState};
pub use id::ContainerId;
pub use layers::Layers;
pub use log::{LOG_BYTES, Log};
pub use lsm::{has_apparmor, has_selinux};
pub use mount::mount_options;
pub use network::{
    Member, NetworkInfo, NetworkOptions, NewNetwork, create_network, networks, prune_networks,
    remove_network,
};
pub use oci_spec::runtime::LinuxResources;
pub use oci_spec::runtime::{Process as OciProcess, Spec as OciSpec};
pub use reaper::ANNOTATION as ANNOTATION_INIT;
pub use restart::{RestartPolicy, again, rename, request_stop, supervise};
pub use seal::run_sealed;
pub use signal::SignalNumber;
pub use spec::{NamespaceChoice, RunOptions, change_process};
pub use state::{CgroupState, NetworkState, State, Status};
pub use stats::{oom_kills, stats};
pub use store::Store;
pub use supervise::{Fork, Outcome, Reader, Signals, Supervised, Writer, fork_supervisor};
pub use teardown::{GcReport, gc};
pub use template::template;
pub use units::parse_bytes;
pub use update::update;

/// A program without any library that makes the system calls that its arguments say (`freestanding/call.rs`); empty on
/// architectures that it was not written for.
pub static SYSTEM_CALLER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/terrarium-call"));
