//! `device-exposed`: devices beyond the ordinary ones can be read or written.

use super::{Check, host_filesystem_mounted};
use crate::leaks::devices::{self, Allowed, Node};
use crate::leaks::spec::AskedDevice;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity, capability};

pub const CHECK: Check = Check {
    id: "device-exposed",
    severity: "high, critical for block devices and memory; low where the devices cgroup refuses it",
    seen: "block devices, /dev/mem, /dev/kmem, /dev/kvm, /dev/fuse, /dev/net/tun and the like, as nodes or allowed by the devices cgroup; `m` alone does not count",
    why: "A block device is the host's filesystem without its permissions; other devices are drivers that trust whoever can open them.",
    sources: &["https://docs.kernel.org/admin-guide/cgroup-v1/devices.html", "mknod(2)"],
    remedy: "leave the device out (--device; linux.devices and linux.resources.devices), and deny all devices but the default ones",
    may_pass: false,
    judge,
};

/// How much of what is exposed a finding names.
const MOST_NAMED: usize = 16;

fn severity_of(kind: char, major: Option<u64>, minor: Option<u64>) -> Severity {
    match (kind, major, minor) {
        ('c', Some(1), Some(minor)) if !matches!(minor, 1 | 2 | 4) => Severity::High,
        ('c', Some(major), _) if major != 1 => Severity::High,
        // Block devices, memory, and whole kinds of devices.
        _ => Severity::Critical,
    }
}

/// Whether a rule goes beyond what every engine allows. runc below 1.2 allows /dev/net/tun without making it.
fn is_beyond(rule: &AskedDevice) -> bool {
    rule.access.contains(['r', 'w'])
        && !devices::is_ordinary(rule.kind, rule.major, rule.minor)
        && (rule.kind, rule.major, rule.minor) != ('c', Some(10), Some(200))
}

fn number(number: Option<u64>) -> String {
    number.map_or("*".to_owned(), |number| number.to_string())
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let (allowed, place) = Allowed::of(host, container);
    let mut nodes: Vec<Node> = Vec::new();
    if !host_filesystem_mounted::sees_host_root(host, container) {
        nodes = devices::nodes(host.proc(), container);
    }
    nodes.retain(|node| !devices::is_ordinary(node.kind, Some(node.major), Some(node.minor)));
    let (usable, refused): (Vec<Node>, Vec<Node>) =
        nodes.into_iter().partition(|node| allowed.covers(node.kind, node.major, node.minor));
    // In a user namespace nobody makes a device node that works.
    let rules = match &allowed {
        _ if !container.has_host_users(host) => Vec::new(),
        Allowed::All => vec![AskedDevice {
            kind: 'a',
            major: None,
            minor: None,
            access: "rwm".to_owned(),
        }],
        Allowed::Only(rules) => rules.iter().filter(|rule| is_beyond(rule)).cloned().collect(),
        Allowed::Unknown => Vec::new(),
    };
    let spec = container.spec.as_ref();
    let asked_rules = spec.map(crate::leaks::spec::Spec::device_rules).unwrap_or_default();
    let asked_nodes = spec.map(crate::leaks::spec::Spec::devices).unwrap_or_default();
    let node_asked = |node: &Node| {
        let covers =
            |asked: &AskedDevice| asked.covers(node.kind, Some(node.major), Some(node.minor));
        asked_nodes.iter().any(covers) || asked_rules.iter().filter(|r| is_beyond(r)).any(covers)
    };
    let rule_asked = |rule: &AskedDevice| {
        asked_rules.iter().any(|asked| asked.covers(rule.kind, rule.major, rule.minor))
    };
    let mut severity = None;
    let mut asked = true;
    let mut texts = Vec::new();
    let mut evidence = Vec::new();
    let mut take = |bad: Severity, by_spec: bool, text: String, proof: Evidence| {
        let bad = if by_spec { bad.one_less() } else { bad };
        severity = severity.max(Some(bad));
        asked &= by_spec;
        texts.push(text);
        evidence.push(proof);
    };
    for node in &usable {
        let Node { path, kind, major, minor } = node;
        take(
            severity_of(*kind, Some(*major), Some(*minor)),
            node_asked(node),
            format!("{path} ({kind} {major}:{minor})"),
            Evidence { kind: "device", path: path.clone(), value: format!("{kind} {major}:{minor}") },
        );
    }
    for rule in &rules {
        let covered = usable
            .iter()
            .any(|node| rule.major.is_some() && rule.covers(node.kind, Some(node.major), Some(node.minor)));
        if covered {
            continue;
        }
        let text =
            format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access);
        let nodes_can_be_made = container.status.bounding & capability::bit("MKNOD") != 0;
        let bad = severity_of(rule.kind, rule.major, rule.minor);
        take(
            if nodes_can_be_made { bad } else { bad.min(Severity::High) },
            rule_asked(rule),
            format!(
                "the devices cgroup allows {text}{}",
                if nodes_can_be_made { ", and CAP_MKNOD makes the node" } else { "" }
            ),
            Evidence::cgroup(place.clone(), text),
        );
    }
    if usable.is_empty() && rules.is_empty() {
        for node in &refused {
            let Node { path, kind, major, minor } = node;
            take(
                Severity::Low,
                node_asked(node),
                format!("{path} ({kind} {major}:{minor}), which the devices cgroup refuses"),
                Evidence { kind: "device", path: path.clone(), value: format!("{kind} {major}:{minor}") },
            );
        }
    }
    let Some(severity) = severity else { return };
    let more = texts.len().saturating_sub(MOST_NAMED);
    texts.truncate(MOST_NAMED);
    evidence.truncate(MOST_NAMED);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    found.add_as(
        severity,
        Opening {
            asked: asked && spec.is_some(),
            declared: "the default devices, and those that the spec names".to_owned(),
            observed: texts.join("; "),
            evidence,
            ..Opening::default()
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_and_memory_are_worse_than_others() {
        for (kind, major, minor, expected) in [
            ('b', Some(254), Some(0), Severity::Critical),
            ('a', None, None, Severity::Critical),
            ('c', Some(1), Some(1), Severity::Critical),
            ('c', Some(10), Some(229), Severity::High),
            ('c', Some(1), Some(11), Severity::High),
            ('c', None, None, Severity::Critical),
        ] {
            assert_eq!(severity_of(kind, major, minor), expected, "{kind} {major:?}:{minor:?}");
        }
    }
}
