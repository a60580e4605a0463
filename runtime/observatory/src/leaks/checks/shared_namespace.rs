//! `shared-namespace`: two containers in one namespace, and nobody asked for it.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::spec::Namespace;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "shared-namespace",
    severity: "medium",
    seen: "two containers share a namespace, and no spec of theirs says so",
    why: "Who shares a namespace shares what it isolates: ports, processes, shared memory, the name.",
    sources: &["namespaces(7)"],
    remedy: "give each a namespace of its own, or say in linux.namespaces by a path that they share it",
    may_pass: false,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    for kind in Kind::ALL {
        let Some(inode) = container.namespace(kind).filter(|i| !host.is_own(kind, *i)) else {
            continue;
        };
        // A namespace that a spec names by its path, or leaves to the caller, is shared on purpose.
        let on_purpose = |c: &Container| {
            c.asked_namespace(kind).is_some_and(|asked| asked != Namespace::Private)
        };
        let others: Vec<&Container> = host
            .containers
            .iter()
            .filter(|other| other.init.pid != container.init.pid)
            .filter(|other| other.namespace(kind) == Some(inode))
            .collect();
        if others.is_empty() || on_purpose(container) || others.iter().any(|c| on_purpose(c)) {
            continue;
        }
        let names: Vec<&str> = others.iter().map(|other| other.name.name.as_str()).collect();
        let link = kind.link(inode);
        let mut evidence = vec![Evidence::proc(
            format!("/proc/{}/ns/{}", container.init.pid, kind.name()),
            link.clone(),
        )];
        evidence.extend(others.iter().map(|other| {
            Evidence::proc(format!("/proc/{}/ns/{}", other.init.pid, kind.name()), link.clone())
        }));
        found.add(
            Severity::Medium,
            Opening {
                object: kind.name().to_owned(),
                declared: format!("{} namespace: private", kind.spec_name()),
                observed: format!("{link}, also that of {}", names.join(", ")),
                evidence,
                ..Opening::default()
            },
        );
    }
}
