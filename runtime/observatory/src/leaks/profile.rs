//! What a container is isolated by, in words that can be laid beside those of another.

use super::checks::held_limit;
use super::host::{Container, Host};
use super::{ContainerName, LookError, Places, Wanted, capability, judge};
use crate::leaks::process::Kind;
use std::collections::BTreeMap;

/// The isolation of one container.
#[derive(Debug)]
pub struct Profile {
    /// Which container.
    pub container: ContainerName,
    /// What each wall is made of, by the wall's name.
    pub walls: BTreeMap<String, String>,
}

/// The profile of the container that is `wanted`, of the first where several are.
pub fn profile(places: &Places, wanted: &Wanted) -> Result<Option<Profile>, LookError> {
    let host = Host::look(places, wanted)?;
    let Some(at) = host.chosen(wanted)?.first().copied() else { return Ok(None) };
    let container = &host.containers[at];
    let mut walls = walls(&host, container);
    for finding in judge(places, wanted, |_| true)?.findings {
        let name = format!("finding {}", finding.check);
        walls.insert(name, finding.severity.name().to_owned());
    }
    Ok(Some(Profile { container: container.name.clone(), walls }))
}

fn walls(host: &Host, container: &Container) -> BTreeMap<String, String> {
    let mut walls = BTreeMap::new();
    let mut set = |name: String, value: String| {
        walls.insert(name, value);
    };
    for kind in Kind::ALL {
        let whose = if host.shares(container, kind) { "the host's" } else { "its own" };
        set(format!("namespace {}", kind.name()), whose.to_owned());
    }
    let status = &container.status;
    let users: Vec<String> =
        container.host_uids(host).iter().map(|(first, count)| format!("{first}+{count}")).collect();
    set("user ids outside".to_owned(), users.join(" "));
    set("user of the first process".to_owned(), status.uid.to_string());
    for (name, set_of) in [
        ("effective", status.effective),
        ("bounding", status.bounding),
        ("ambient", status.ambient),
    ] {
        let names = capability::names(set_of);
        let text = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        set(format!("capabilities {name}"), text);
    }
    let seccomp = match status.seccomp {
        Some(0) => "none",
        Some(1) => "strict",
        Some(_) => "filter",
        None => "the kernel has none",
    };
    set("seccomp".to_owned(), seccomp.to_owned());
    let gains = if status.no_new_privileges { "no" } else { "yes" };
    set("exec may gain rights".to_owned(), gains.to_owned());
    for controller in ["memory", "pids"] {
        let (limit, _) = held_limit(host, container, controller);
        let text = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        set(format!("limit {controller}"), text);
    }
    for mount in &container.mounts {
        let mut text = format!("{} {}", mount.kind, mount.access());
        for option in mount.options.iter().filter(|option| option.starts_with("no")) {
            if ["nosuid", "nodev", "noexec"].contains(&option.as_str()) {
                text = format!("{text} {option}");
            }
        }
        if mount.shared.is_some() {
            text.push_str(" shared");
        }
        set(format!("mount {}", mount.point), text);
    }
    walls
}
