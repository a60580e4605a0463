//! What a container of terrarium's left behind, and what holds it.
//!
//! What it made is known from the files in its folder of the state root; where those are gone as well, the cgroups, leases
//! and published ports that carry its id are looked for. Nothing is changed here: `terrarium gc` does that.
//!
//! One file a kind. To add one: a file here with a `CHECK`, and a line in [`RESIDUE_CHECKS`].

use super::finding::{ContainerName, Evidence, Finding, Severity, Source};
use super::host::{Host, LookError, Places, Wanted};
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One kind of residue.
#[derive(Debug, Clone, Copy)]
pub struct ResidueCheck {
    /// Its id.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is seen.
    pub seen: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// Manual pages, kernel documents.
    pub sources: &'static [&'static str],
    /// What takes it away.
    pub remedy: &'static str,
    /// Tells what of this kind is left.
    left: fn(&Look<'_>) -> Vec<Finding>,
}

macro_rules! checks {
    ($($module:ident),+ $(,)?) => {
        $(mod $module;)+
        /// All kinds.
        pub static RESIDUE_CHECKS: &[ResidueCheck] = &[$($module::CHECK),+];
    };
}

checks! { process, mount, cgroup, veth, network_namespace, nft_rule, address_lease, state }

/// Where what is left of a container is looked for.
struct Look<'a> {
    places: &'a Places,
    host: &'a Host,
    ended: &'a Ended,
}

impl Look<'_> {
    /// Those that are this container's.
    fn own(&self, all: Vec<Owned>) -> Vec<Finding> {
        let own = all.into_iter().filter(|(owner, _)| *owner == self.ended.name.id);
        own.map(|(_, finding)| finding).collect()
    }
}

/// The id of the container that has something, and the finding for the case that it has ended.
type Owned = (String, Finding);

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
                findings.push(state::of_folder(&ended));
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
    let registered = address_lease::all(places).into_iter().chain(nft_rule::all(places));
    for (owner, finding) in registered {
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
        container: Arc::new(container.clone()),
        declared: "nothing stays after its end".into(),
        observed,
        evidence,
        remedy: check.remedy.into(),
        first_seen: now.clone(),
        last_seen: now,
        count: 1,
        suggestion: None,
        object: object.to_owned(),
        mounts: Vec::new(),
    }
}

/// The networks: the bridge of each, and its folder.
fn networks(places: &Places) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    entries(&places.engines.terrarium.join("networks"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
}

/// What is in a folder, nothing if it is not there.
fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

/// What a file says of the container with the id `owner`.
fn owned(owner: String, check: &ResidueCheck, path: &Path, what: String) -> Owned {
    let container =
        ContainerName { id: owner.clone(), name: owner.clone(), runtime: "terrarium".to_owned() };
    let path = path.display().to_string();
    let evidence = Evidence { kind: "file", path: path.clone(), value: owner.clone() };
    (owner, finding(check, &container, &path, what, vec![evidence]))
}

fn left(places: &Places, host: &Host, ended: &Ended) -> Vec<Finding> {
    let look = Look { places, host, ended };
    RESIDUE_CHECKS.iter().flat_map(|check| (check.left)(&look)).collect()
}

fn words<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The processes in a cgroup and below.
fn processes_below(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in entries(folder) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes_below(&entry.path()));
        }
    }
    pids
}
