//! `overlapping-id-map`: two containers' user namespaces share ids of the host.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "overlapping-id-map",
    severity: "medium",
    seen: "the user namespaces of two containers map the same ids of the host",
    why: "To the kernel a user of the one is a user of the other: files that both reach, limits per user and signals are shared.",
    sources: &["user_namespaces(7)", "https://docs.kernel.org/admin-guide/namespaces/compatibility-list.html"],
    remedy: "give each container a range of ids of its own (--userns HOSTID:SIZE; uidMappings)",
    may_pass: false,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let own_namespace = container.namespace(Kind::User);
    if host.shares(container, Kind::User) || own_namespace.is_none() {
        return;
    }
    let own = container.host_uids(host);
    for other in &host.containers {
        // One namespace for both is another matter.
        if other.init.pid == container.init.pid
            || other.namespace(Kind::User) == own_namespace
            || host.shares(other, Kind::User)
        {
            continue;
        }
        let theirs = other.host_uids(host);
        let common = own.iter().find_map(|(first, count)| {
            let end = first.saturating_add(*count);
            theirs.iter().find_map(|(other_first, other_count)| {
                let start = *first.max(other_first);
                let end = end.min(other_first.saturating_add(*other_count));
                (start < end).then(|| (start, end - start))
            })
        });
        let Some((first, count)) = common else { continue };
        let declares = |c: &Container| {
            let asked = c.spec.as_ref().map(crate::leaks::spec::Spec::host_uids);
            asked.unwrap_or_default().iter().any(|(from, size)| {
                *from < first + count && first < from.saturating_add(*size)
            })
        };
        found.add(
            Severity::Medium,
            Opening {
                object: other.name.id.clone(),
                asked: declares(container) && declares(other),
                declared: "uidMappings of its own".to_owned(),
                observed: format!(
                    "{count} ids of the host from {first} on are also those of {}",
                    other.name.name
                ),
                evidence: vec![
                    Evidence::proc(format!("/proc/{}/uid_map", container.init.pid), ids(&own)),
                    Evidence::proc(format!("/proc/{}/uid_map", other.init.pid), ids(&theirs)),
                ],
                ..Opening::default()
            },
        );
        // One neighbour is enough to say so.
        return;
    }
}

fn ids(ranges: &[(u64, u64)]) -> String {
    let texts: Vec<String> =
        ranges.iter().map(|(first, count)| format!("{first}:{count}")).collect();
    texts.join(" ")
}
