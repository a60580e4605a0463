//! `device-node-created`: a device node is made.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "device-node-created",
    severity: "high",
    seen: "a process of the container made a device node beyond the usual ones, or tried to",
    why: "A node is the device: the host's disk by its number is the host's disk, where the devices cgroup lets it be opened.",
    sources: &["mknod(2)", "https://docs.kernel.org/admin-guide/cgroup-v1/devices.html"],
    remedy: "drop CAP_MKNOD, and let the devices cgroup refuse it",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let made = act.calls(GuardEvent::MknodDevice).filter_map(|call| {
        let device = device_of(call.0.values[0], call.0.values[1])?;
        Some(Seen::call(Severity::High, device, &call))
    });
    made.collect()
}

/// A device node as `ls` shows it, unless it is one that every container has (null, zero, full, random, urandom, tty,
/// console, ptmx and pseudo-terminals); `device` is as mknod(2) takes it.
pub(super) fn device_of(mode: u64, device: u64) -> Option<String> {
    const USUAL: [(u64, u64); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0x000f_ff00);
    let is_block = mode & 0o170_000 == 0o060_000;
    let is_usual = !is_block && (USUAL.contains(&(major, minor)) || major == 136);
    (!is_usual).then(|| format!("{} {major}:{minor}", if is_block { 'b' } else { 'c' }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_devices_are_no_finding() {
        let block = 0o060_600;
        let character = 0o020_600;
        assert_eq!(device_of(character, 0x103), None);
        assert_eq!(device_of(character, 136 << 8 | 7), None);
        assert_eq!(device_of(block, 0x103).as_deref(), Some("b 1:3"));
        assert_eq!(device_of(block, 254 << 8).as_deref(), Some("b 254:0"));
        assert_eq!(device_of(character, 0x101).as_deref(), Some("c 1:1"));
    }
}
