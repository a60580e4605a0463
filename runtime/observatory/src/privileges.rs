//! The rights that an observatory keeps while it runs. Attaching takes many; reading takes few.
//!
//! Capabilities are a thread's own, and inherited by threads that it starts: this runs before there are others.

use caps::{CapSet, Capability, CapsHashSet};

/// What is kept, and why.
const KEPT: [(Capability, &str); 5] = [
    (Capability::CAP_BPF, "reads and clears the probes' maps"),
    (
        Capability::CAP_DAC_READ_SEARCH,
        "finds a cgroup by its id, reads the state files of all users",
    ),
    (
        Capability::CAP_SYS_PTRACE,
        "tells which namespaces and files the processes of other users have",
    ),
    // On kernels without CAP_BPF (before 5.8) also for the maps.
    (Capability::CAP_SYS_ADMIN, "looks for leaks in the mount namespaces of containers"),
    (Capability::CAP_SYS_CHROOT, "enters them"),
];

/// What an observatory keeps of what this process has, with the reason for each.
pub fn kept() -> Vec<(Capability, &'static str)> {
    let has = caps::read(None, CapSet::Permitted).unwrap_or_default();
    KEPT.into_iter().filter(|(capability, _)| has.contains(capability)).collect()
}

/// Gives up everything else, for good.
pub fn drop_others() -> Result<(), caps::errors::CapsError> {
    let kept: CapsHashSet = kept().into_iter().map(|(capability, _)| capability).collect();
    let all = caps::all();
    for capability in all.difference(&kept) {
        // What a program that it executes could get; refused without CAP_SETPCAP, and then it had less to begin with.
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
    // Refused by kernels without ambient capabilities, which have none to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)
}
