//! Where containers touch each other and the host: everything that two of them share, as edges of one graph.
//!
//! A finding says that a wall is missing; an edge says between whom. What a spec asks for is an edge too, but a declared one.

use super::checks::{host_abstract_socket, host_filesystem_mounted, shared_superblock};
use super::finding::ContainerName;
use super::host::{Container, Host, LookError, Places, Wanted};
use super::process::Kind;
use super::spec::Namespace;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// The node that stands for the host.
pub const HOST: &str = "host";

/// How two of them touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Crossing {
    /// A namespace that both are in.
    Namespace,
    /// Files that both see and at least one may write.
    Files,
    /// Mounts that spread from one to the other: a common peer group (`mount_namespaces(7)`).
    Propagation,
    /// Ids of the host that are in both user namespaces.
    Ids,
    /// A process of the first traces one of the second (ptrace(2)).
    Trace,
    /// A process of the second listens on an abstract unix socket, which the first reaches: they share a network namespace
    /// (unix(7)).
    Socket,
    /// A process of the first sent a signal to one of the second (kill(2)), as an observatory saw.
    Signal,
    /// A process of the first has a file open that only the second sees, as one has that was passed over a unix socket.
    Descriptor,
}

impl Crossing {
    /// The word, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Files => "files",
            Self::Propagation => "propagation",
            Self::Ids => "ids",
            Self::Trace => "trace",
            Self::Socket => "socket",
            Self::Signal => "signal",
            Self::Descriptor => "descriptor",
        }
    }

    /// Whether it leads from the first to the second alone.
    const fn is_directed(self) -> bool {
        matches!(self, Self::Trace | Self::Socket | Self::Signal | Self::Descriptor)
    }
}

/// One crossing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edge {
    /// The id of a container.
    pub from: String,
    /// The id of another, or [`HOST`].
    pub to: String,
    /// How.
    pub kind: Crossing,
    /// By what.
    pub what: String,
    /// Whether a spec asks for it.
    pub declared: bool,
}

/// All crossings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// The containers that run.
    pub containers: Vec<Arc<ContainerName>>,
    /// Where they touch.
    pub edges: Vec<Edge>,
}

/// Signals that a process of one container sent to another container, or to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signals {
    /// The id of the sender's container.
    from: String,
    /// The id of the receiver's, or [`HOST`].
    to: String,
    /// The signal, and the process that the last one was for.
    signal: String,
    process: String,
    /// How many were seen.
    count: u64,
}

impl Signals {
    /// Of events `guard.signal`, a line each; what the host itself sent is left out, for it may.
    pub fn of_events<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for line in lines {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let text = |pointer: &str| event.pointer(pointer).and_then(|value| value.as_str());
            let from = text("/container/id").unwrap_or_default().to_owned();
            let to = match text("/target/container/id") {
                Some("") => HOST.to_owned(),
                Some(id) => id.to_owned(),
                None => continue,
            };
            if from.is_empty() || from == to {
                continue;
            }
            let signal = text("/guard/signal_name").unwrap_or_default().to_owned();
            let pid = event.pointer("/target/process/pid").and_then(serde_json::Value::as_u64);
            let comm = text("/target/process/comm").unwrap_or_default();
            let process = format!("{} ({comm})", pid.unwrap_or_default());
            let same = all
                .iter_mut()
                .find(|known| (&known.from, &known.to, &known.signal) == (&from, &to, &signal));
            match same {
                Some(known) => {
                    known.count += 1;
                    known.process = process;
                }
                None => all.push(Self { from, to, signal, process, count: 1 }),
            }
        }
        all
    }
}

/// Files that a process of a container got over a unix socket from another mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The id of the container that took them.
    to: String,
    /// The inode of the mount namespace that they are mounted in.
    mount_namespace: u64,
    /// The name of the last one.
    file: String,
    /// How many were seen.
    count: u64,
}

impl Passed {
    /// Of events `guard.scm_rights`, a line each.
    pub fn of_events<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for line in lines {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let text = |pointer: &str| {
                event.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default()
            };
            let (to, file) = (text("/container/id").to_owned(), text("/guard/file").to_owned());
            let inode = event.pointer("/guard/mount_namespace").and_then(serde_json::Value::as_u64);
            let Some(mount_namespace) = inode.filter(|_| !to.is_empty()) else { continue };
            let same = all
                .iter_mut()
                .find(|known| (&known.to, known.mount_namespace) == (&to, mount_namespace));
            match same {
                Some(known) => {
                    known.count += 1;
                    known.file = file;
                }
                None => all.push(Self { to, mount_namespace, file, count: 1 }),
            }
        }
        all
    }
}

/// What an observatory has seen that the state does not tell.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Signals.
    pub signals: Vec<Signals>,
    /// Descriptors.
    pub passed: Vec<Passed>,
}

/// Looks where containers touch: all of them, or those that are wanted with whom they touch. `seen` is what an observatory
/// knows besides.
///
/// # Errors
/// Where /proc cannot be read, or who is wanted is not there.
pub fn graph(places: &Places, wanted: &Wanted, seen: &Seen) -> Result<Graph, LookError> {
    let host = Host::look(places, wanted)?;
    let chosen: BTreeSet<usize> = host.chosen(wanted)?.into_iter().collect();
    let mut edges = BTreeSet::new();
    let all = &host.containers;
    for (at, one) in all.iter().enumerate() {
        if chosen.contains(&at) {
            to_host(&host, one, &mut edges);
        }
        for (next, other) in all.iter().enumerate().skip(at + 1) {
            if chosen.contains(&at) || chosen.contains(&next) {
                between(&host, one, other, &mut edges);
            }
        }
    }
    sockets(&host, &chosen, &mut edges);
    signalled(&host, &chosen, &seen.signals, &mut edges);
    passed(&host, &chosen, &seen.passed, &mut edges);
    let owners = owners(&host);
    for (at, one) in all.iter().enumerate() {
        let concerns = |other: usize| chosen.contains(&at) || chosen.contains(&other);
        traced(&host, one, &owners, chosen.contains(&at), &concerns, &mut edges);
        descriptors(&host, at, &concerns, &mut edges);
    }
    let touched =
        |name: &ContainerName| edges.iter().any(|edge| edge.from == name.id || edge.to == name.id);
    let containers = all.iter().enumerate();
    let containers = containers
        .filter(|(at, container)| chosen.contains(at) || touched(&container.name))
        .map(|(_, container)| container.name.clone())
        .collect();
    Ok(Graph { containers, edges: edges.into_iter().collect() })
}

fn edge(one: &Container, to: &str, kind: Crossing, what: String, declared: bool) -> Edge {
    Edge { from: one.name.id.clone(), to: to.to_owned(), kind, what, declared }
}

/// Whether the spec of a container leaves its namespace of a kind to others.
fn leaves_open(container: &Container, kind: Kind) -> bool {
    container.asked_namespace(kind).is_some_and(|asked| asked != Namespace::Private)
}

fn to_host(host: &Host, one: &Container, edges: &mut BTreeSet<Edge>) {
    for kind in Kind::ALL {
        // Nearly every container has the host's users; `root-without-user-namespace` says it.
        let Some(inode) = one.namespace(kind).filter(|_| kind != Kind::User) else { continue };
        if host.is_own(kind, inode) {
            let declared = leaves_open(one, kind);
            edges.insert(edge(one, HOST, Crossing::Namespace, kind.link(inode), declared));
        }
    }
    for bind in host_filesystem_mounted::host_binds(host, one) {
        let what = format!("{} at {}, {}", bind.path, bind.mount.point, bind.mount.access());
        let declared = host_filesystem_mounted::is_asked(one, bind.mount);
        edges.insert(edge(one, HOST, Crossing::Files, what, declared));
    }
    if !host.shares(one, Kind::Mnt) {
        for mount in &*one.mounts {
            let Some(group) = mount.shared else { continue };
            if host.mounts.iter().any(|own| own.shared == Some(group)) {
                let what = format!("{}, peer group {group}", mount.point);
                let declared =
                    one.spec.as_ref().is_some_and(|s| s.mount_over(&mount.point).is_some());
                edges.insert(edge(one, HOST, Crossing::Propagation, what, declared));
            }
        }
    }
}

fn between(host: &Host, one: &Container, other: &Container, edges: &mut BTreeSet<Edge>) {
    let to = other.name.id.as_str();
    for kind in Kind::ALL {
        let Some(inode) = one.namespace(kind).filter(|inode| !host.is_own(kind, *inode)) else {
            continue;
        };
        if other.namespace(kind) == Some(inode) {
            let declared = leaves_open(one, kind) || leaves_open(other, kind);
            edges.insert(edge(one, to, Crossing::Namespace, kind.link(inode), declared));
        }
    }
    if one.namespace(Kind::Mnt) != other.namespace(Kind::Mnt) {
        for mount in one.mounts.iter().filter(|mount| shared_superblock::can_be_shared(mount)) {
            let theirs = other.mounts.iter().find(|theirs| {
                (&theirs.device, &theirs.root) == (&mount.device, &mount.root)
                    && !(theirs.is_read_only() && mount.is_read_only())
            });
            let Some(theirs) = theirs else { continue };
            let what =
                format!("{} and {} ({} {})", mount.point, theirs.point, mount.device, mount.root);
            let asked = shared_superblock::is_asked;
            let declared = asked(one, mount) && asked(other, theirs);
            edges.insert(edge(one, to, Crossing::Files, what, declared));
        }
        for mount in &*one.mounts {
            let Some(group) = mount.shared else { continue };
            if let Some(theirs) = other.mounts.iter().find(|theirs| theirs.shared == Some(group)) {
                let what = format!("{} and {}, peer group {group}", mount.point, theirs.point);
                edges.insert(edge(one, to, Crossing::Propagation, what, false));
            }
        }
    }
    if host.shares(one, Kind::User)
        || host.shares(other, Kind::User)
        || one.namespace(Kind::User) == other.namespace(Kind::User)
    {
        return;
    }
    let overlap = |ours: &[(u64, u64)], theirs: &[(u64, u64)]| {
        let pairs = ours.iter().flat_map(|a| theirs.iter().map(move |b| (a, b)));
        pairs
            .map(|((a, a_size), (b, b_size))| {
                let first = *a.max(b);
                (
                    first,
                    a.saturating_add(*a_size).min(b.saturating_add(*b_size)).saturating_sub(first),
                )
            })
            .find(|(_, count)| *count > 0)
    };
    if let Some((first, count)) = overlap(&one.host_uids(host), &other.host_uids(host)) {
        let asked = |container: &Container| {
            container.spec.as_ref().map(super::spec::Spec::host_uids).unwrap_or_default()
        };
        let declared = overlap(&asked(one), &asked(other)).is_some();
        let what = format!("{count} uids of the host from {first}");
        edges.insert(edge(one, to, Crossing::Ids, what, declared));
    }
}

/// How many sockets of one network namespace are told of.
const SOCKETS: usize = 64;

/// Abstract sockets: whoever is in the network namespace reaches them.
fn sockets(host: &Host, chosen: &BTreeSet<usize>, edges: &mut BTreeSet<Edge>) {
    let mut networks: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, container) in host.containers.iter().enumerate() {
        if let Some(inode) = container.namespace(Kind::Net) {
            networks.entry(inode).or_default().push(at);
        }
    }
    for (inode, inside) in networks {
        let is_hosts = host.is_own(Kind::Net, inode);
        if (inside.len() < 2 && !is_hosts) || !inside.iter().any(|at| chosen.contains(at)) {
            continue;
        }
        let pid = host.containers[inside[0]].init.pid;
        let text = host.proc().text(pid, "net/unix").unwrap_or_default();
        let listening = host_abstract_socket::listening(&text);
        if listening.is_empty() {
            continue;
        }
        let held: Vec<(usize, BTreeSet<u64>)> = inside
            .iter()
            .map(|at| (*at, host_abstract_socket::sockets_of(host, &host.containers[*at])))
            .collect();
        for (socket, name) in listening.into_iter().take(SOCKETS) {
            let owner = held.iter().find(|(_, own)| own.contains(&socket)).map(|(at, _)| *at);
            let to = match owner {
                Some(at) => &*host.containers[at].name.id,
                None if is_hosts => HOST,
                // The process that had it has ended meanwhile.
                None => continue,
            };
            for at in inside.iter().filter(|at| Some(**at) != owner) {
                if chosen.contains(at) || owner.is_some_and(|owner| chosen.contains(&owner)) {
                    let one = &host.containers[*at];
                    let declared = leaves_open(one, Kind::Net)
                        || owner.is_some_and(|at| leaves_open(&host.containers[at], Kind::Net));
                    edges.insert(edge(one, to, Crossing::Socket, name.clone(), declared));
                }
            }
        }
    }
}

/// Signals between containers that still run.
fn signalled(
    host: &Host,
    chosen: &BTreeSet<usize>,
    signals: &[Signals],
    edges: &mut BTreeSet<Edge>,
) {
    let of_id = |id: &str| host.containers.iter().position(|container| container.name.id == id);
    for Signals { from, to, signal, process, count } in signals {
        let (Some(at), other) = (of_id(from), of_id(to)) else { continue };
        let concerns = chosen.contains(&at) || other.is_some_and(|other| chosen.contains(&other));
        if !concerns || (other.is_none() && to != HOST) {
            continue;
        }
        let one = &host.containers[at];
        let times = if *count == 1 { String::new() } else { format!(", {count} times") };
        let what = format!("{signal} to process {process}{times}");
        let open = |at: usize| leaves_open(&host.containers[at], Kind::Pid);
        let declared = open(at) || other.is_some_and(open);
        edges.insert(edge(one, to, Crossing::Signal, what, declared));
    }
}

/// Files that came to containers that still run, from those that do.
fn passed(host: &Host, chosen: &BTreeSet<usize>, all: &[Passed], edges: &mut BTreeSet<Edge>) {
    for Passed { to, mount_namespace, file, count } in all {
        let taker = host.containers.iter().position(|container| container.name.id == *to);
        let Some(at) = taker else { continue };
        let inode = Some(*mount_namespace);
        let giver = host.containers.iter().position(|one| one.namespace(Kind::Mnt) == inode);
        let is_hosts = host.is_own(Kind::Mnt, *mount_namespace);
        let concerns = chosen.contains(&at) || giver.is_some_and(|giver| chosen.contains(&giver));
        if !concerns || giver == Some(at) || (giver.is_none() && !is_hosts) {
            continue;
        }
        let of = giver.map_or(HOST, |giver| &host.containers[giver].name.id);
        let times = if *count == 1 { String::new() } else { format!(", {count} times") };
        let what = format!("{file} came over a unix socket{times}");
        edges.insert(edge(&host.containers[at], of, Crossing::Descriptor, what, false));
    }
}

/// Which container each process is of.
fn owners(host: &Host) -> BTreeMap<i32, usize> {
    let all = host.containers.iter().enumerate();
    all.flat_map(|(at, container)| container.tasks.iter().map(move |pid| (*pid, at))).collect()
}

fn traced(
    host: &Host,
    one: &Container,
    owners: &BTreeMap<i32, usize>,
    is_chosen: bool,
    concerns: &impl Fn(usize) -> bool,
    edges: &mut BTreeSet<Edge>,
) {
    for pid in &one.tasks {
        let tracer = host.proc().status(*pid).map_or(0, |status| status.tracer);
        if tracer == 0 {
            continue;
        }
        // A thread traces, a process is told.
        let tracer = host.proc().status(tracer).map_or(tracer, |status| status.process);
        let what = format!("process {tracer} traces process {pid}");
        match owners.get(&tracer) {
            Some(at) if host.containers[*at].init.pid == one.init.pid => {}
            Some(at) if concerns(*at) => {
                let tracer = &host.containers[*at];
                edges.insert(edge(tracer, &one.name.id, Crossing::Trace, what, false));
            }
            None if is_chosen => {
                let (from, to) = (HOST.to_owned(), one.name.id.clone());
                edges.insert(Edge { from, to, kind: Crossing::Trace, what, declared: false });
            }
            _ => {}
        }
    }
}

/// How many descriptors of a process are looked at.
const DESCRIPTORS: usize = 1024;

fn descriptors(
    host: &Host,
    at: usize,
    concerns: &impl Fn(usize) -> bool,
    edges: &mut BTreeSet<Edge>,
) {
    let one = &host.containers[at];
    let own: BTreeSet<u64> = one.mounts.iter().map(|mount| mount.id).collect();
    let mut theirs: BTreeMap<u64, usize> = BTreeMap::new();
    for (other, container) in host.containers.iter().enumerate() {
        let elsewhere = other != at && container.namespace(Kind::Mnt) != one.namespace(Kind::Mnt);
        if elsewhere && concerns(other) {
            theirs.extend(container.mounts.iter().map(|mount| (mount.id, other)));
        }
    }
    if theirs.is_empty() {
        return;
    }
    for pid in &one.tasks {
        for open in host.proc().descriptors(*pid, DESCRIPTORS) {
            let Some(mount) = open.mount.filter(|mount| !own.contains(mount)) else { continue };
            if let Some(other) = theirs.get(&mount) {
                let what = format!("process {pid}, {}: {}", open.name, open.target);
                let to = &host.containers[*other].name.id;
                edges.insert(edge(one, to, Crossing::Descriptor, what, false));
            }
        }
    }
}

impl Graph {
    /// The graph in the language of Graphviz; what nobody declared is red. `harmless` takes away what would steer a terminal.
    pub fn dot(&self, harmless: impl Fn(&str) -> String) -> String {
        let word = |text: &str| {
            format!("\"{}\"", harmless(text).replace('\\', "\\\\").replace('"', "\\\""))
        };
        let mut text = String::from("digraph crossings {\n  node [shape=box];\n");
        let _ = writeln!(text, "  {} [shape=ellipse];", word(HOST));
        for container in &self.containers {
            let ContainerName { id, name, runtime } = &**container;
            let label = word(&format!("{name} ({runtime})"));
            let _ = writeln!(text, "  {} [label={label}];", word(id));
        }
        for Edge { from, to, kind, what, declared } in &self.edges {
            let label = word(&format!("{}: {what}", kind.name()));
            let mut style = format!("label={label}");
            if !kind.is_directed() {
                style.push_str(", dir=none");
            }
            if !declared {
                style.push_str(", color=red, penwidth=2");
            }
            let _ = writeln!(text, "  {} -> {} [{style}];", word(from), word(to));
        }
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_by_whom_to_whom() {
        let line = |from: &str, to: &str, pid: u32| {
            serde_json::json!({
                "type": "guard.signal",
                "container": {"id": from},
                "guard": {"signal": 15, "signal_name": "SIGTERM"},
                "target": {"container": {"id": to}, "process": {"pid": pid, "comm": "sh"}},
            })
            .to_string()
        };
        let lines = [
            line("a", "b", 7),
            line("a", "b", 8),
            line("a", "", 9),
            line("", "a", 10),
            line("a", "a", 11),
            "not JSON".to_owned(),
        ];
        let told = Signals::of_events(lines.iter().map(String::as_str));
        let signals = |to: &str, process: &str, count| Signals {
            from: "a".into(),
            to: to.into(),
            signal: "SIGTERM".into(),
            process: process.into(),
            count,
        };
        assert_eq!(told, [signals("b", "8 (sh)", 2), signals(HOST, "9 (sh)", 1)]);
    }

    #[test]
    fn descriptors_are_added_up_by_where_they_come_from() {
        let line = |to: &str, inode: &str, file: &str| {
            format!(
                r#"{{"container":{{"id":"{to}"}},"guard":{{"mount_namespace":{inode},"file":"{file}"}}}}"#
            )
        };
        let lines = [
            line("a", "7", "one"),
            line("a", "7", "two"),
            line("a", "8", "one"),
            line("", "7", "host's"),
            line("a", "null", "none"),
            "not JSON".to_owned(),
        ];
        let told = Passed::of_events(lines.iter().map(String::as_str));
        let passed = |mount_namespace, file: &str, count| Passed {
            to: "a".into(),
            mount_namespace,
            file: file.into(),
            count,
        };
        assert_eq!(told, [passed(7, "two", 2), passed(8, "one", 1)]);
    }
}
