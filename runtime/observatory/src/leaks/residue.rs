//! What a container of terrarium's left behind, and what holds it.
//!
//! What it made is known from the files in its folder of the state root; where those are gone as well, the cgroups, leases
//! and published ports that carry its id are looked for. Nothing is changed here: `terrarium gc` does that.

use super::finding::{ContainerName, Evidence, Finding, Severity, Source};
use super::host::{Host, LookError, Places, Wanted};
use super::mounts::{Mount, is_within};
use super::process::{Kind, namespace_of_link};
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One kind of residue.
#[derive(Debug, Clone, Copy)]
pub struct ResidueCheck {
    /// Its id.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is seen.
    pub seen: &'static str,
    /// What takes it away.
    pub remedy: &'static str,
}

const PROCESS: ResidueCheck = ResidueCheck {
    id: "residue-process",
    severity: Severity::High,
    seen: "a process in a cgroup of a container that has ended",
    remedy: "end it, then remove the container (`terrarium delete --force ID`, `terrarium gc`)",
};
const MOUNT: ResidueCheck = ResidueCheck {
    id: "residue-mount",
    severity: Severity::High,
    seen: "a mount below the folder of a container that has ended",
    remedy: "unmount it (umount -l), after what holds it has ended",
};
const CGROUP: ResidueCheck = ResidueCheck {
    id: "residue-cgroup",
    severity: Severity::Medium,
    seen: "a cgroup of a container that has ended",
    remedy: "`terrarium gc` removes it when no process is in it; else `rmdir`",
};
const VETH: ResidueCheck = ResidueCheck {
    id: "residue-veth",
    severity: Severity::Medium,
    seen: "the host's end of a veth pair of a container that has ended",
    remedy: "`terrarium gc` removes it; else `ip link delete`",
};
const NETWORK_NAMESPACE: ResidueCheck = ResidueCheck {
    id: "residue-network-namespace",
    severity: Severity::Medium,
    seen: "the network namespace of a container that has ended is held alive by a process, a descriptor or a mount",
    remedy: "end the process, close the descriptor or unmount the file that holds it",
};
const NFT_RULE: ResidueCheck = ResidueCheck {
    id: "residue-nft-rule",
    severity: Severity::Medium,
    seen: "ports are still published for a container that has ended",
    remedy: "`terrarium gc` removes the rules",
};
const ADDRESS_LEASE: ResidueCheck = ResidueCheck {
    id: "residue-address-lease",
    severity: Severity::Medium,
    seen: "an address is still leased to a container that has ended",
    remedy: "`terrarium gc` releases it",
};
const STATE: ResidueCheck = ResidueCheck {
    id: "residue-state",
    severity: Severity::Medium,
    seen: "the folder of a container whose runtime ended before it could remove it",
    remedy: "`terrarium gc` removes it",
};

/// All kinds.
pub static RESIDUE_CHECKS: [ResidueCheck; 8] =
    [PROCESS, MOUNT, CGROUP, VETH, NETWORK_NAMESPACE, NFT_RULE, ADDRESS_LEASE, STATE];

/// How old a half-filled folder is before it counts as abandoned, in seconds.
const ABANDONED_AFTER: u64 = 1;

/// A container that has ended, and what it had.
#[derive(Debug, Clone)]
pub struct Ended {
    name: ContainerName,
    folder: PathBuf,
    cgroups: Vec<PathBuf>,
    veth: Option<String>,
    network_namespace: Option<u64>,
    /// When it ended; what began later is another's.
    finished: Option<time::OffsetDateTime>,
    /// Whether its folder should be gone as well.
    forgotten: bool,
}

fn json(path: &Path) -> Value {
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

impl Ended {
    /// What the folder of a container tells; `forgotten` says whether it should be gone.
    pub fn read(folder: &Path, forgotten: bool) -> Self {
        let (state, journal) =
            (json(&folder.join("state.json")), json(&folder.join("journal.json")));
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let cgroups = journal["cgroups"].as_array().into_iter().flatten();
        Self {
            name: ContainerName {
                name: word(&state["name"]).unwrap_or_else(|| id.clone()),
                runtime: "terrarium".to_owned(),
                id,
            },
            folder: folder.to_owned(),
            cgroups: cgroups.filter_map(|path| word(path).map(PathBuf::from)).collect(),
            veth: word(&state["network"]["veth"]).or_else(|| word(&journal["network"]["veth"])),
            network_namespace: state["namespaces"]["net"].as_u64(),
            finished: word(&state["finished"]).and_then(|text| {
                time::OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339)
                    .ok()
            }),
            forgotten,
        }
    }

    /// The same container after it was removed: nothing of it may be there, its folder included.
    #[must_use]
    pub fn removed(mut self) -> Self {
        self.forgotten = true;
        self.finished = Some(time::OffsetDateTime::now_utc());
        self
    }

    /// The same container after its end: its folder may stay.
    #[must_use]
    pub fn finished(mut self) -> Self {
        self.forgotten = false;
        self.finished = Some(time::OffsetDateTime::now_utc());
        self
    }
}

/// What is left of one container by its id; none where nothing knows the id.
pub fn of(places: &Places, id: &str) -> Result<Option<(ContainerName, Vec<Finding>)>, LookError> {
    // An id is a name of a folder, no path.
    if id.is_empty() || id.contains('/') || id.starts_with('.') {
        return Ok(None);
    }
    let host = look(places)?;
    let folder = places.engines.terrarium.join(id);
    if folder.is_dir() {
        let ended = Ended::read(&folder, is_crashed(&host, &folder));
        let findings =
            if is_over(&host, &folder) { left(places, &host, &ended) } else { Vec::new() };
        return Ok(Some((ended.name, findings)));
    }
    // Another engine that still knows it has not removed it yet.
    if super::engines::is_known_elsewhere(&places.engines, id) {
        return Ok(None);
    }
    let mut ended = Ended::read(&folder, true);
    for hierarchy in host.hierarchies() {
        named(&hierarchy.point, id, 4, &mut ended.cgroups);
    }
    let findings = left(places, &host, &ended);
    Ok((!findings.is_empty()).then_some((ended.name, findings)))
}

/// What is left of a container that has just ended, by what was known of it before.
pub fn after(places: &Places, ended: &Ended) -> Result<Vec<Finding>, LookError> {
    Ok(left(places, &look(places)?, ended))
}

/// The same as [`all`], but what is on its way out, as while a container is being removed, is not told.
pub fn that_stays(places: &Places) -> Result<Vec<Finding>, LookError> {
    let mut findings = all(places)?;
    if !findings.is_empty() && places.proc.is_live() {
        std::thread::sleep(super::SETTLE);
        let again = all(places)?;
        findings.retain(|finding| again.iter().any(|still| still.key() == finding.key()));
    }
    Ok(findings)
}

/// What is left of every container that has ended.
pub fn all(places: &Places) -> Result<Vec<Finding>, LookError> {
    let host = look(places)?;
    let mut findings = Vec::new();
    let mut known = BTreeSet::new();
    let entries = fs::read_dir(&places.engines.terrarium).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".new-") {
            if is_abandoned(&folder) {
                let ended = Ended::read(&folder, true);
                findings.push(state_left(&ended));
            }
            continue;
        }
        if !folder.join("journal.json").exists() && !folder.join("state.json").exists() {
            continue;
        }
        known.insert(name);
        // Somebody is creating or removing it.
        if is_locked(&folder) || !is_over(&host, &folder) {
            continue;
        }
        let ended = Ended::read(&folder, is_crashed(&host, &folder));
        findings.extend(left(places, &host, &ended));
    }
    for (owner, finding) in register(places) {
        if !known.contains(&owner) {
            findings.push(finding);
        }
    }
    Ok(findings)
}

fn look(places: &Places) -> Result<Host, LookError> {
    Host::look(places, &Wanted::All)
}

/// Whether somebody holds the lock of a container's folder.
fn is_locked(folder: &Path) -> bool {
    let Ok(file) = fs::File::open(folder) else { return true };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

fn is_abandoned(folder: &Path) -> bool {
    let age = fs::metadata(folder).and_then(|info| info.modified()).ok();
    let age = age.and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age.as_secs() >= ABANDONED_AFTER) && !is_locked(folder)
}

/// Whether the process that a state file names as `pid` or `supervisor` still is that process.
fn is_process(host: &Host, state: &Value, pid: &str, ticks: &str) -> bool {
    let number = state[pid].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let process = number.and_then(|pid| host.process(pid));
    process.is_some_and(|process| Some(process.start_ticks) == state[ticks].as_u64())
}

/// Whether nothing of it is to be there any more: `run` has seen its end, or has crashed. What `create` made stays until
/// it is deleted.
fn is_over(host: &Host, folder: &Path) -> bool {
    let state = json(&folder.join("state.json"));
    let ended = state["status"] == "stopped" && state["supervisor_pid"].as_i64().unwrap_or(0) > 0;
    ended || is_crashed(host, folder)
}

/// Whether a container's runtime ended before it could take it away, as `terrarium gc` decides it.
fn is_crashed(host: &Host, folder: &Path) -> bool {
    let state = json(&folder.join("state.json"));
    match state["status"].as_str() {
        Some("stopped") => state["remove"] == true,
        Some("created" | "running" | "paused") => {
            state["supervisor_pid"].as_i64().unwrap_or(0) > 0
                && !is_process(host, &state, "supervisor_pid", "supervisor_start_ticks")
        }
        _ => true,
    }
}

/// Cgroups of this name below `folder`, at most `depth` folders down.
fn named(folder: &Path, id: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == id {
            found.push(entry.path());
        } else if depth > 1 {
            named(&entry.path(), id, depth - 1, found);
        }
    }
}

fn finding(
    check: &ResidueCheck,
    container: &ContainerName,
    object: &str,
    observed: String,
    evidence: Vec<Evidence>,
) -> Finding {
    let now = super::now();
    Finding {
        check: check.id,
        severity: check.severity,
        source: Source::Residue,
        container: container.clone(),
        declared: "nothing stays after its end".to_owned(),
        observed,
        evidence,
        remedy: check.remedy.to_owned(),
        first_seen: now.clone(),
        last_seen: now,
        count: 1,
        suggestion: None,
        object: object.to_owned(),
        mounts: Vec::new(),
    }
}

fn state_left(ended: &Ended) -> Finding {
    let path = ended.folder.display().to_string();
    finding(
        &STATE,
        &ended.name,
        &path,
        format!("the folder {path} is there, and nobody works on it"),
        vec![Evidence { kind: "file", path: path.clone(), value: "a folder".to_owned() }],
    )
}

/// Leases and published ports: whose they are, and the finding if he is gone.
fn register(places: &Places) -> Vec<(String, Finding)> {
    let mut all = Vec::new();
    let networks = places.engines.terrarium.join("networks");
    let files = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    for network in files(networks) {
        let bridge = network.file_name().to_string_lossy().into_owned();
        let mut add = |owner: String, check: &ResidueCheck, path: &Path, what: String| {
            let container = ContainerName {
                id: owner.clone(),
                name: owner.clone(),
                runtime: "terrarium".to_owned(),
            };
            let path = path.display().to_string();
            let evidence = Evidence { kind: "file", path: path.clone(), value: owner.clone() };
            all.push((owner, finding(check, &container, &path, what, vec![evidence])));
        };
        for lease in files(network.path().join("leases")) {
            let address = lease.file_name().to_string_lossy().into_owned();
            if address.parse::<std::net::IpAddr>().is_ok() {
                let owner = fs::read_to_string(lease.path()).unwrap_or_default();
                let what = format!("address {address} of network {bridge} is leased");
                add(owner, &ADDRESS_LEASE, &lease.path(), what);
            }
        }
        for ports in files(network.path().join("published")) {
            let name = ports.file_name().to_string_lossy().into_owned();
            if let Some(owner) = name.strip_suffix(".json") {
                let what = format!("ports are published on network {bridge}");
                add(owner.to_owned(), &NFT_RULE, &ports.path(), what);
            }
        }
    }
    all
}

fn left(places: &Places, host: &Host, ended: &Ended) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = &ended.name;
    let mut seen = BTreeSet::new();
    for folder in &ended.cgroups {
        let Ok(info) = fs::metadata(folder) else { continue };
        let mut pids = Vec::new();
        processes_below(folder, &mut pids);
        let path = folder.display().to_string();
        for pid in &pids {
            if seen.insert(*pid) {
                findings.push(process_left(host, name, *pid, &path));
            }
        }
        let holds = match pids.len() {
            0 => "no process is in it".to_owned(),
            _ => format!("held by process {}", words(&pids)),
        };
        findings.push(finding(
            &CGROUP,
            name,
            &path,
            format!("cgroup {path} is there; {holds}"),
            vec![Evidence::cgroup(path.clone(), format!("cgroup id {}", info.ino()))],
        ));
    }
    findings.extend(mounts_left(host, ended));
    if let Some(veth) = &ended.veth {
        let path = places.sys.join("class/net").join(veth);
        if path.exists() {
            let path = path.display().to_string();
            let value = fs::read_to_string(format!("{path}/ifindex")).unwrap_or_default();
            findings.push(finding(
                &VETH,
                name,
                veth,
                format!("interface {veth} is there"),
                vec![Evidence { kind: "file", path, value: format!("index {}", value.trim()) }],
            ));
        }
    }
    findings.extend(namespace_left(host, ended));
    let register = register(places).into_iter().filter(|(owner, _)| *owner == name.id);
    findings.extend(register.map(|(_, finding)| finding));
    if ended.forgotten && ended.folder.is_dir() {
        findings.push(state_left(ended));
    }
    findings
}

fn words<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The processes in a cgroup and below.
fn processes_below(folder: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes_below(&entry.path(), pids);
        }
    }
}

fn process_left(host: &Host, name: &ContainerName, pid: i32, cgroup: &str) -> Finding {
    let process = host.process(pid);
    let (called, parent) = process.map_or(("gone", 0), |p| (p.name.as_str(), p.parent));
    finding(
        &PROCESS,
        name,
        &pid.to_string(),
        format!("process {pid} ({called}), child of {parent}, is in {cgroup}"),
        vec![
            Evidence::proc(format!("/proc/{pid}/cgroup"), cgroup),
            Evidence::proc(format!("/proc/{pid}/cmdline"), host.proc().arguments(pid).join(" ")),
        ],
    )
}

/// Mounts below its folder, in the host's mount namespace and in those of the host's processes.
fn mounts_left(host: &Host, ended: &Ended) -> Vec<Finding> {
    let folder = ended.folder.display().to_string();
    let below = |mount: &&Mount| is_within(&mount.point, &folder);
    let mut findings = Vec::new();
    let mut add = |mount: &Mount, place: String, holders: &[i32]| {
        let held = if holders.is_empty() {
            "nothing has it open".to_owned()
        } else {
            format!("held by process {}", words(holders))
        };
        findings.push(finding(
            &MOUNT,
            &ended.name,
            &mount.point,
            format!("{} ({}) is mounted; {held}", mount.point, mount.kind),
            vec![Evidence::proc(place, format!("{} {} {}", mount.device, mount.root, mount.point))],
        ));
    };
    for mount in host.mounts.iter().filter(below) {
        add(mount, "/proc/self/mountinfo".to_owned(), &users_of(host, mount.id));
    }
    // Another mount namespace holds a copy of what was mounted when it was made.
    let mut namespaces = BTreeSet::new();
    for process in host.processes() {
        let Some(inode) = process.namespace(Kind::Mnt) else { continue };
        if host.is_own(Kind::Mnt, inode)
            || host.containers.iter().any(|c| c.namespace(Kind::Mnt) == Some(inode))
            || !namespaces.insert(inode)
        {
            continue;
        }
        for mount in host.proc().mounts(process.pid).iter().filter(below) {
            add(mount, format!("/proc/{}/mountinfo", process.pid), &[process.pid]);
        }
    }
    findings
}

/// The processes that have something on a mount open.
fn users_of(host: &Host, mount: u64) -> Vec<i32> {
    let proc = host.proc();
    let uses = |pid: i32| {
        let links = ["cwd", "root", "exe"].iter().filter_map(|name| proc.open_link(pid, name));
        links.chain(proc.descriptors(pid, 4096)).any(|open| open.mount == Some(mount))
    };
    host.processes().map(|process| process.pid).filter(|pid| uses(*pid)).collect()
}

/// Who holds its network namespace.
fn namespace_left(host: &Host, ended: &Ended) -> Option<Finding> {
    let inode = ended.network_namespace?;
    // The kernel gives inodes of namespaces again: what a running container has is not this one's.
    if host.is_own(Kind::Net, inode)
        || host.containers.iter().any(|c| c.namespace(Kind::Net) == Some(inode))
    {
        return None;
    }
    let older = |pid: i32| {
        let (Some(finished), Some(process)) = (ended.finished, host.process(pid)) else {
            return true;
        };
        host.started(process).is_none_or(|started| started <= finished)
    };
    let link = Kind::Net.link(inode);
    let mut evidence = Vec::new();
    for process in host.processes() {
        if process.namespace(Kind::Net) == Some(inode) && older(process.pid) {
            let path = format!("/proc/{}/ns/net", process.pid);
            evidence.push(Evidence::proc(path, format!("{link} ({})", process.name)));
        }
        for open in host.proc().descriptors(process.pid, 4096) {
            if namespace_of_link(&open.target) == Some((Kind::Net, inode)) && older(process.pid) {
                evidence.push(Evidence::proc(
                    format!("/proc/{}/{}", process.pid, open.name),
                    format!("{link} ({})", process.name),
                ));
            }
        }
    }
    for mount in host.mounts.iter().filter(|m| m.kind == "nsfs" && m.root == link) {
        evidence.push(Evidence::proc("/proc/self/mountinfo", format!("{link} {}", mount.point)));
    }
    if evidence.is_empty() {
        return None;
    }
    let holders: Vec<&str> = evidence.iter().map(|evidence| evidence.path.as_str()).collect();
    let observed = format!("{link} is held by {}", holders.join(", "));
    Some(finding(&NETWORK_NAMESPACE, &ended.name, &link, observed, evidence))
}
