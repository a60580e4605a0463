//! `host-root-mapped`: the user namespace maps the host's uid 0.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "host-root-mapped",
    severity: "high",
    seen: "the container's user namespace maps the host's uid 0",
    why: "A user namespace protects the host because its root is nobody outside; here it is the host's root.",
    sources: &["user_namespaces(7)"],
    remedy: "map a range of ids that nobody uses (uidMappings with another hostID; --userns auto)",
    may_pass: false,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host.shares(container, Kind::User) || !container.maps_host_root(host) {
        return;
    }
    let asked = container.spec.as_ref().is_some_and(|spec| {
        spec.host_uids().iter().any(|(first, size)| *first == 0 && *size > 0)
    });
    let pid = container.init.pid;
    let map = host.proc().text(pid, "uid_map").unwrap_or_default();
    found.add(
        Severity::High,
        Opening {
            asked,
            declared: if asked { "uidMappings with hostID 0" } else { "no map of the host's root" }
                .to_owned(),
            observed: "the host's uid 0 is in its user namespace".to_owned(),
            evidence: vec![Evidence::proc(
                format!("/proc/{pid}/uid_map"),
                map.split_whitespace().collect::<Vec<_>>().join(" "),
            )],
            ..Opening::default()
        },
    );
}
