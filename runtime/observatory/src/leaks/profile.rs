//! What a container is isolated by, in words that can be laid beside those of another.

use super::checks::held_limit;
use super::host::{Container, Host};
use super::spec::{Namespace, Spec};
use super::{ContainerName, LookError, Places, Wanted, capability, judge};
use crate::leaks::process::Kind;
use serde::Serialize;
use std::collections::BTreeMap;

/// The isolation of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    Ok(Some(Profile { container: (*container.name).clone(), walls }))
}

impl Profile {
    /// Reads a profile that was kept as JSON.
    pub fn read(text: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(text).ok()?;
        let word = |key: &str| value["container"][key].as_str().map(str::to_owned);
        let walls = value["walls"].as_object()?.iter();
        let walls = walls.map(|(wall, text)| Some((wall.clone(), text.as_str()?.to_owned())));
        Some(Self {
            container: ContainerName {
                id: word("id")?,
                name: word("name")?,
                runtime: word("runtime")?,
            },
            walls: walls.collect::<Option<_>>()?,
        })
    }
}

/// What the spec of the container that is `wanted` asks for, and what the kernel says of it; none where no spec can be read.
///
/// # Errors
/// Where /proc cannot be read, or the container is not there.
pub fn against_spec(
    places: &Places,
    wanted: &Wanted,
) -> Result<Option<(Profile, Profile)>, LookError> {
    let host = Host::look(places, wanted)?;
    let Some(at) = host.chosen(wanted)?.first().copied() else { return Ok(None) };
    let container = &host.containers[at];
    let Some(spec) = &container.spec else { return Ok(None) };
    let asked = asked(spec);
    let mut is = walls(&host, container);
    for mount in &*container.mounts {
        // How it is mounted follows from what is mounted as well; whether it may be written is asked for.
        is.insert(format!("mount {}", mount.point), mount.access().to_owned());
    }
    is.retain(|wall, _| asked.contains_key(wall));
    let name = |words: &str| ContainerName { name: words.to_owned(), ..(*container.name).clone() };
    let declared = Profile { container: name("spec"), walls: asked };
    Ok(Some((declared, Profile { container: name("kernel"), walls: is })))
}

/// What a spec asks for, in the words of [`walls`]; what it leaves to others is left out.
fn asked(spec: &Spec) -> BTreeMap<String, String> {
    let mut walls = BTreeMap::new();
    let mut set = |name: String, value: String| {
        walls.insert(name, value);
    };
    for kind in Kind::ALL {
        let whose = match spec.namespace(kind) {
            Namespace::Private => "its own",
            Namespace::Shared => "the host's",
            Namespace::Joined(_) => continue,
        };
        set(format!("namespace {}", kind.name()), whose.to_owned());
    }
    if spec.value()["process"]["capabilities"].is_object() {
        for name in ["bounding", "ambient"] {
            let names = capability::names(spec.capabilities(name));
            let text = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
            set(format!("capabilities {name}"), text);
        }
    }
    let seccomp = if spec.has_seccomp() { "filter" } else { "none" };
    set("seccomp".to_owned(), seccomp.to_owned());
    let gains = if spec.no_new_privileges() { "no" } else { "yes" };
    set("exec may gain rights".to_owned(), gains.to_owned());
    for controller in ["memory", "pids"] {
        let limit = spec.resource([controller, "limit"]).filter(|limit| *limit > 0);
        if let Some(limit) = limit {
            set(format!("limit {controller}"), limit.to_string());
        }
    }
    for mount in spec.mounts() {
        let point = mount.destination.trim_end_matches('/');
        let read_only = mount.options.iter().any(|option| option == "ro" || option == "rro");
        let access = if read_only { "read-only" } else { "writable" };
        set(format!("mount {point}"), access.to_owned());
    }
    walls
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
    for mount in &*container.mounts {
        let mut text = format!("{} {}", mount.kind, mount.access());
        for option in mount.options() {
            if ["nosuid", "nodev", "noexec"].contains(&option) {
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
