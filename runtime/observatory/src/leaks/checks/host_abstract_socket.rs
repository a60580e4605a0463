//! `host-abstract-socket`: abstract unix sockets of the host's services in a shared network namespace.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::spec::Namespace;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};
use std::collections::BTreeSet;

pub const CHECK: Check = Check {
    id: "host-abstract-socket",
    severity: "medium, critical for a containerd shim's",
    seen: "abstract unix sockets of services of the host are reachable, because the network namespace is the host's",
    why: "They have no file and no permissions: the network namespace is all that guards them. containerd's shims took commands by one.",
    sources: &["CVE-2020-15257", "unix(7)"],
    remedy: "give it a network namespace of its own (--net none or bridge instead of host)",
    may_pass: false,
    judge,
};

/// `__SO_ACCEPTCON` (include/linux/net.h): it listens.
const LISTENS: u32 = 0x0001_0000;

/// How many names a finding tells.
const MOST_NAMED: usize = 8;

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if !host.shares(container, Kind::Net) {
        return;
    }
    let pid = container.init.pid;
    let text = host.proc().text(pid, "net/unix").unwrap_or_default();
    let mut names = listening(&text);
    if names.is_empty() {
        return;
    }
    // Those of its own are no way out.
    let own = sockets_of(host, container);
    names.retain(|(inode, _)| !own.contains(inode));
    if names.is_empty() {
        return;
    }
    let shim = names.iter().any(|(_, name)| name.contains("containerd-shim"));
    let asked = container
        .asked_namespace(Kind::Net)
        .is_some_and(|asked| asked != Namespace::Private);
    let all = names.len();
    let mut shown: BTreeSet<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
    while shown.len() > MOST_NAMED {
        shown.pop_last();
    }
    found.add(
        if shim { Severity::Critical } else { Severity::Medium },
        Opening {
            asked,
            declared: if asked { "the host's network" } else { "a private network" }.to_owned(),
            observed: format!(
                "{all} abstract sockets of others listen: {}",
                shown.iter().copied().collect::<Vec<_>>().join(", ")
            ),
            evidence: vec![Evidence::proc(
                format!("/proc/{pid}/net/unix"),
                shown.iter().copied().collect::<Vec<_>>().join(" "),
            )],
            ..Opening::default()
        },
    );
}

/// The inodes of the sockets that a container's processes have open.
pub fn sockets_of(host: &Host, container: &Container) -> BTreeSet<u64> {
    let mut own = BTreeSet::new();
    for task in &container.tasks {
        for open in host.proc().descriptors(*task, 4096) {
            let inode = open.target.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']'));
            own.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
        }
    }
    own
}

/// Inode and name of the abstract sockets that listen.
pub fn listening(text: &str) -> Vec<(u64, String)> {
    text.lines()
        .filter_map(|line| {
            // Num RefCount Protocol Flags Type St Inode Path
            let mut fields = line.split_ascii_whitespace().skip(3);
            let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
            let inode = fields.nth(2)?.parse().ok()?;
            let name = fields.next()?;
            (flags & LISTENS != 0 && name.starts_with('@')).then(|| (inode, name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_abstract_sockets_are_found() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000: 00000002 00000000 00010000 0001 01 123 @/containerd-shim/x.sock@\n\
            0000: 00000003 00000000 00000000 0001 03 124 @connected\n\
            0000: 00000002 00000000 00010000 0001 01 125 /run/file\n\
            0000: 00000002 00000000 00010000 0001 01 126\n";
        assert_eq!(listening(text), [(123, "@/containerd-shim/x.sock@".to_owned())]);
    }
}
