//! `mount-performed`: something is mounted.

use super::{Act, Deed, EventCheck, Seen, result_of};
use crate::event::decode::text;
use crate::event::mount::op_name;
use crate::leaks::Severity;
use terrarium_abi::MountOp;

pub const CHECK: EventCheck = EventCheck {
    id: "mount-performed",
    severity: "info to critical, by filesystem",
    seen: "a process of the container mounted something, or tried to",
    why: "What a container mounts itself lies outside what its runtime masked and made read-only: cgroups with a release agent, the host's disk, another /proc.",
    sources: &["mount(2)", "CVE-2022-0185", "CVE-2022-0492"],
    remedy: "drop CAP_SYS_ADMIN, and refuse mount and its kin by seccomp (the default profile does)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let Deed::Mounted(mount) = act.deed else { return Vec::new() };
    if [MountOp::PivotRoot, MountOp::Umount].iter().any(|op| mount.op == *op as u32) {
        return Vec::new();
    }
    let (source, target, kind) = (text(&mount.source), text(&mount.target), text(&mount.fstype));
    let (op, result) = (op_name(mount.op), result_of(mount.result));
    vec![Seen {
        severity: severity_of(&kind, &source),
        object: format!("{kind} {target}"),
        what: format!("{op} of {source} ({kind}) at {target}: {result}"),
    }]
}

fn severity_of(kind: &str, source: &str) -> Severity {
    match kind {
        "cgroup" | "debugfs" | "tracefs" | "securityfs" | "bpf" | "efivarfs" => Severity::Critical,
        "proc" | "sysfs" | "cgroup2" | "devtmpfs" | "binfmt_misc" => Severity::High,
        "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "vfat" | "iso9660" | "squashfs" | "f2fs" => {
            Severity::Critical
        }
        _ if source.starts_with("/dev/") => Severity::High,
        _ => Severity::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_lead_to_the_host_are_worse() {
        for (kind, source, expected) in [
            ("tmpfs", "tmpfs", Severity::Info),
            ("", "/a", Severity::Info),
            ("cgroup", "x", Severity::Critical),
            ("ext4", "/dev/vda", Severity::Critical),
            ("", "/dev/vda", Severity::High),
            ("proc", "proc", Severity::High),
        ] {
            assert_eq!(severity_of(kind, source), expected, "{kind} {source}");
        }
    }
}
