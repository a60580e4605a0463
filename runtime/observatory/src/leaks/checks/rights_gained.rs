//! `capability-gained`, `uid-gained`: a process that has more rights than the container was started with.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity, capability};

pub const CAPABILITY: Check = Check {
    id: "capability-gained",
    severity: "high",
    seen: "a process that the container's first process started has a capability that the container was not started with",
    why: "It executed a set-user-id program or one with file capabilities, or exploited something: what was dropped is back.",
    sources: &["capabilities(7)", "execve(2)", "CVE-2021-4034"],
    remedy: "set process.noNewPrivileges (leave out --security-opt no-new-privileges=false), and mount what it may write with `nosuid`",
    may_pass: true,
    judge: capability,
};

pub const USER: Check = Check {
    id: "uid-gained",
    severity: "high",
    seen: "the container was started as another user than 0, and a process that its first process started is user 0",
    why: "A set-user-id program of the image, or an exploit, made it root: running as another user protects no longer.",
    sources: &["credentials(7)", "execve(2)", "CVE-2021-4034"],
    remedy: "set process.noNewPrivileges (leave out --security-opt no-new-privileges=false), and no set-user-id programs in the image",
    may_pass: true,
    judge: user,
};

/// The sets from which user 0 has what it has.
const SETS: [&str; 3] = ["bounding", "permitted", "ambient"];

/// No chain of parents is followed further.
const MOST_PARENTS: usize = 64;

/// Whether the container's first process is this one or an ancestor of it; who entered from outside is neither.
fn comes_from_init(host: &Host, container: &Container, pid: i32) -> bool {
    let parents = std::iter::successors(Some(pid), |pid| {
        host.process(*pid).map(|process| process.parent).filter(|parent| *parent > 0)
    });
    parents.take(MOST_PARENTS).any(|pid| pid == container.init.pid)
}

/// The user that the container was started as, as the container counts.
fn started_as(container: &Container) -> Option<u64> {
    container.spec.as_ref().map(crate::leaks::spec::Spec::user)
}

/// The host's uid of the container's root.
fn root_on_host(host: &Host, container: &Container) -> Option<u64> {
    let text = host.proc().text(container.init.pid, "uid_map")?;
    text.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (inside, outside) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (inside == 0).then_some(outside)
    })
}

fn capability(host: &Host, container: &Container, found: &mut Found<'_>) {
    let (Some(spec), true) = (&container.spec, container.started) else { return };
    if !spec.value()["process"]["capabilities"].is_object() {
        // Whatever the runtime had.
        return;
    }
    // At execve user 0 gets what the bounding set lets through, any other keeps the ambient ones alone (capabilities(7)).
    let given = match spec.user() {
        0 => SETS.iter().fold(0, |all, set| all | spec.capabilities(set)),
        _ => spec.capabilities("ambient"),
    };
    let mut evidence = Vec::new();
    let mut all = 0;
    for pid in &container.tasks {
        let Some(process) = host.process(*pid) else { continue };
        // In a user namespace made inside it has all of them, over nothing but that.
        if process.namespace(Kind::User) != container.namespace(Kind::User)
            || !comes_from_init(host, container, *pid)
        {
            continue;
        }
        let Some(status) = host.proc().status(*pid) else { continue };
        let gained = status.permitted & !given;
        if gained != 0 {
            all |= gained;
            let names = capability::names(gained).join(", ");
            evidence.push(Evidence::proc(
                format!("/proc/{pid}/status"),
                format!("{}: CapPrm with {names}", process.name),
            ));
        }
    }
    if all == 0 {
        return;
    }
    found.add(
        Severity::High,
        Opening {
            declared: format!("user {} with {}", spec.user(), words(given)),
            observed: format!("{} more: {}", all.count_ones(), words(all)),
            evidence,
            ..Opening::default()
        },
    );
}

fn words(set: u64) -> String {
    let names = capability::names(set);
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn user(host: &Host, container: &Container, found: &mut Found<'_>) {
    if !container.started || started_as(container).is_none_or(|user| user == 0) {
        return;
    }
    let Some(root) = root_on_host(host, container) else { return };
    for pid in &container.tasks {
        let Some(process) = host.process(*pid) else { continue };
        if process.namespace(Kind::User) != container.namespace(Kind::User)
            || !comes_from_init(host, container, *pid)
        {
            continue;
        }
        if host.proc().status(*pid).is_some_and(|status| status.uid == root) {
            found.add(
                Severity::High,
                Opening {
                    declared: format!("user {}", started_as(container).unwrap_or_default()),
                    observed: format!("process {pid} ({}) is user 0", process.name),
                    evidence: vec![Evidence::proc(format!("/proc/{pid}/status"), "effective Uid: 0")],
                    ..Opening::default()
                },
            );
            return;
        }
    }
}
