//! The checks, one file each. To add one: a file here with a `CHECK`, and a line in [`CHECKS`].

use super::{Container, Found, Host};

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its id.
    pub id: &'static str,
    /// How bad it is, in words.
    pub severity: &'static str,
    /// What is seen.
    pub seen: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// Manual pages, CVEs, kernel documents.
    pub sources: &'static [&'static str],
    /// What closes it.
    pub remedy: &'static str,
    /// Whether a runtime's own step may look like it for a moment, so that it is looked at twice.
    pub may_pass: bool,
    /// Judges a container.
    pub judge: fn(&Host, &Container, &mut Found<'_>),
}

macro_rules! checks {
    ($($module:ident: $($name:ident),+;)+) => {
        $(pub(super) mod $module;)+
        /// All of them.
        pub static CHECKS: &[Check] = &[$($($module::$name),+),+];
    };
}

checks! {
    host_namespace: PID, NETWORK, IPC, UTS, MOUNT, CGROUP;
    shared_namespace: CHECK;
    namespace_drift: CHECK;
    user_namespace_created: CHECK;
    task_outside_cgroup: CHECK;
    task_outside_namespaces: CHECK;
    namespace_file_exposed: CHECK;
    root_without_user_namespace: CHECK;
    host_root_mapped: CHECK;
    overlapping_id_map: CHECK;
    root_not_pivoted: CHECK;
    host_filesystem_mounted: CHECK;
    engine_socket_mounted: CHECK;
    kernel_filesystem_exposed: CHECK;
    shared_propagation: CHECK;
    device_exposed: CHECK;
    dangerous_capability: CHECK;
    privileged: CHECK;
    no_seccomp: CHECK;
    new_privileges_allowed: CHECK;
    rights_gained: CAPABILITY, USER;
    no_lsm_confinement: CHECK;
    leaked_descriptor: CHECK;
    runtime_binary_exposed: CHECK;
    host_abstract_socket: CHECK;
    limit_missing: CHECK;
    limit_not_applied: CHECK;
    shared_memory_object: CHECK;
    shared_superblock: CHECK;
}

pub(crate) use limit_not_applied::held as held_limit;

/// The check with this id.
pub fn by_id(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}
