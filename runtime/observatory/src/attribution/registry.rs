//! The table of cgroups and containers.
//!
//! Its keys are kernel ids of cgroups. It learns them from a walk at the start, from the kernel's `cgroup_mkdir`
//! (which comes before any task can be in the new cgroup), and, for ids that slipped through, from the kernel by
//! handle. Which container a cgroup belongs to follows from its path: the longest path that a state file declares,
//! else the patterns of engines, else the host.

use crate::attribution::engines;
use crate::attribution::handle;
use crate::attribution::patterns;
use crate::attribution::state_file::{self, Root, StateFile, Version};
use crate::kernel::cgroup_mounts::{CgroupMounts, Hierarchy};
use crate::leaks::ContainerName;
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use terrarium_abi::{CounterKey, Kind};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How long after the removal of a cgroup its counters are taken over and removed from the kernel's map. Nothing
/// can run in a removed cgroup; the delay only lets events on their way arrive.
const TAKE_OVER_DELAY: Duration = Duration::from_secs(2);

/// How long an id that could not be resolved is not asked for again.
const MISS_RETRY: Duration = Duration::from_secs(5);

/// The states of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The runtime is building it.
    Creating,
    /// Built, its program not started.
    Created,
    /// Its program runs.
    Running,
    /// Frozen.
    Paused,
    /// It has ended.
    Stopped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Creating, Self::Created, Self::Running, Self::Paused, Self::Stopped];

    /// The name, as in the label `state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    fn from_status(status: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.name() == status).unwrap_or(Self::Running)
    }
}

/// Who a container is; made anew when any of it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// The path of its cgroup: the label `id`.
    pub path: String,
    /// Its id, as its runtime has it.
    pub id: String,
    /// Its name, else its short id: the label `name`.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Who made it.
    pub runtime: String,
    /// Uid or name of its pod.
    pub pod: String,
    /// Namespace of its pod.
    pub pod_namespace: String,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// Counts re-creations under the same path, from 1.
    pub generation: u64,
    /// Its labels, as its runtime or engine has them.
    pub labels: BTreeMap<String, String>,
}

/// How sure an attribution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The cgroup is the container's own, or is known to belong to none.
    Exact,
    /// The cgroup lies below the container's.
    Ancestor,
    /// The cgroup is not known.
    Unknown,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Ancestor, Self::Unknown];

    /// The name, as in the label `outcome`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Ancestor => "ancestor",
            Self::Unknown => "unknown",
        }
    }
}

/// Where an event happened.
#[derive(Debug, Clone)]
pub struct Attribution {
    /// The container, none for the host.
    pub container: Option<Arc<Container>>,
    /// The kernel id of the cgroup that told: in the v1 memory hierarchy where the container has none of its own
    /// in the unified one.
    pub cgroup_id: u64,
    /// The cgroup's path.
    pub path: Arc<str>,
    /// How sure this is.
    pub outcome: Outcome,
}

impl Attribution {
    /// About a container of which no cgroup and no state file is known here.
    pub fn of(name: &ContainerName) -> Self {
        let container = Container {
            id: name.id.clone(),
            name: name.name.clone(),
            runtime: name.runtime.clone(),
            ..Container::default()
        };
        Self {
            container: Some(Arc::new(container)),
            cgroup_id: 0,
            path: Arc::from(""),
            outcome: Outcome::Exact,
        }
    }
}

/// What one row of the metrics is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// Everything in no container.
    Host,
    /// Everything in a cgroup that is not known.
    Unknown,
    /// The container with this path.
    Container(String),
}

/// A container as the metrics see it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Who it is.
    pub container: Arc<Container>,
    /// Its state.
    pub state: State,
    /// The cgroups in which its memory is accounted. A v1 cgroup counts for itself only, so there those below the
    /// container's own are needed as well.
    pub memory: Vec<(Hierarchy, String)>,
    /// Whether any cgroup of it exists.
    pub live: bool,
    /// Its first process, where a state file tells it.
    pub pid: Option<u32>,
    /// When it was made; where nobody tells, when its cgroup was.
    pub started: OffsetDateTime,
    /// Its cgroups that exist, with their kernel ids and paths.
    pub cgroup_ids: Vec<(Hierarchy, u64, Arc<str>)>,
    /// Paths in hierarchies in which it is not that of its container, by `unified` or v1 controller.
    elsewhere: BTreeMap<String, String>,
}

impl Snapshot {
    /// Its path in `unified`, or in the hierarchy of a v1 controller. Engines use the same everywhere unless they tell.
    pub fn path_of(&self, hierarchy: &str) -> &str {
        self.elsewhere.get(hierarchy).unwrap_or(&self.container.path)
    }

    /// The whole machine.
    pub fn of_machine() -> Self {
        Self {
            container: Arc::new(Container::default()),
            state: State::Running,
            memory: Vec::new(),
            live: true,
            pid: None,
            started: OffsetDateTime::UNIX_EPOCH,
            cgroup_ids: Vec::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// The state that it is in: one without a cgroup has ended, whatever its state file says.
    pub fn state(&self) -> State {
        if self.live { self.state } else { State::Stopped }
    }
}

/// A container has come into another state.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which.
    pub container: Attribution,
    /// The state that it is in.
    pub now: State,
    /// The one before, where it was known in one.
    pub before: Option<State>,
}

/// Where a pair of ids leads.
struct Resolved {
    subject: Subject,
    cgroup_id: u64,
    path: Arc<str>,
    outcome: Outcome,
}

impl Resolved {
    /// How many levels the cgroup lies below its container's.
    fn depth(&self) -> usize {
        match &self.subject {
            Subject::Container(owner) => {
                self.path.get(owner.len()..).map_or(0, |below| below.matches('/').count())
            }
            _ => 0,
        }
    }
}

/// The kind under which a counter is shown of a cgroup that lies so many levels below its container's: a limit that stands within
/// the container is its own.
fn shown_as(kind: Kind, depth: usize) -> Kind {
    use terrarium_abi::counter::family::{MEMORY_LIMIT, OOM_KILL};
    let (family, [level, b, c]) = kind.parts();
    match family {
        MEMORY_LIMIT | OOM_KILL if level < terrarium_abi::memory::LEVEL_UNKNOWN => {
            Kind::new(family, [u8::from(usize::from(level) > depth), b, c])
        }
        _ => kind,
    }
}

/// A cgroup.
struct Known {
    path: Arc<str>,
    /// The path of the container that it belongs to.
    owner: Option<String>,
    removed: Option<Instant>,
}

/// A container's entry.
struct Entry {
    info: Arc<Container>,
    state: State,
    /// Cgroups that exist.
    live: HashSet<(Hierarchy, u64)>,
    /// Since when no cgroup and no state file of it exists.
    ended: Option<Instant>,
    memory: Vec<(Hierarchy, String)>,
    /// Whether a state file tells of it.
    declared: bool,
    pid: Option<u32>,
    started: OffsetDateTime,
    elsewhere: BTreeMap<String, String>,
    /// Where its OCI bundle is, where the runtime below an engine has told.
    bundle: Option<PathBuf>,
    /// How often its engine's files will still be asked for its name.
    look_ups_left: u32,
    /// The state that was told last, and of which generation.
    told: Option<(State, u64)>,
}

/// How long the state file of a container of terrarium's may come after its cgroup.
const DECLARED_AFTER: Duration = Duration::from_secs(1);

impl Entry {
    /// Whether its state file, which knows its state better than a cgroup does, is still to be expected.
    fn may_be_declared(&self) -> bool {
        let is_new = OffsetDateTime::now_utc() - self.started < DECLARED_AFTER;
        !self.declared && !self.live.is_empty() && self.info.runtime == "terrarium" && is_new
    }

    /// What is about the container itself.
    fn attribution(&self, path: &str) -> Attribution {
        Attribution {
            container: Some(Arc::clone(&self.info)),
            // In the unified hierarchy, where it has one there.
            cgroup_id: self.live.iter().min().map_or(0, |key| key.1),
            path: Arc::from(path),
            outcome: Outcome::Exact,
        }
    }
}

/// How often, a second apart, an engine's files are asked for the name of a container: some come after its cgroup.
const LOOK_UPS: u32 = 10;

/// Gives the path of a new cgroup that the kernel has noted down, see the map `CGROUPS`.
pub type NewCgroups = Box<dyn FnMut(Hierarchy, u64) -> Option<String> + Send>;

/// The table.
pub struct Registry {
    mounts: CgroupMounts,
    roots: Vec<Root>,
    grace: Duration,
    cgroups: HashMap<(Hierarchy, u64), Known>,
    /// The same by path, so that those below one are found without looking at all.
    by_path: BTreeSet<(Hierarchy, Arc<str>, u64)>,
    containers: BTreeMap<String, Entry>,
    /// Paths that state files declare, to the path of the container.
    declared: HashMap<(Hierarchy, String), String>,
    files: HashMap<PathBuf, (Version, String)>,
    misses: HashMap<(Hierarchy, u64), Instant>,
    /// Totals of removed cgroups.
    retired: HashMap<Subject, HashMap<Kind, u64>>,
    new_cgroups: NewCgroups,
    outcomes: HashMap<Outcome, u64>,
    /// Cgroups that have been forgotten since somebody last asked.
    forgotten: Vec<(Hierarchy, u64)>,
    /// `/`, but for tests: where the engines' files are.
    engine_root: PathBuf,
    /// Paths of containers that something has become of since [`Registry::changes`] was last asked.
    touched: BTreeSet<String>,
    /// When the cgroup that the walk at the start has found was made.
    made_at: Option<OffsetDateTime>,
}

impl Registry {
    /// A table of what exists now: every cgroup, and every container that a state file below `roots` tells of. The
    /// series of a removed container stay for `grace`.
    pub fn new(
        mounts: CgroupMounts,
        roots: Vec<Root>,
        grace: Duration,
        new_cgroups: NewCgroups,
    ) -> Self {
        let mut registry = Self {
            mounts,
            roots,
            grace,
            cgroups: HashMap::new(),
            by_path: BTreeSet::new(),
            containers: BTreeMap::new(),
            declared: HashMap::new(),
            files: HashMap::new(),
            misses: HashMap::new(),
            retired: HashMap::new(),
            new_cgroups,
            outcomes: HashMap::new(),
            forgotten: Vec::new(),
            engine_root: PathBuf::from("/"),
            touched: BTreeSet::new(),
            made_at: None,
        };
        registry.read_state_files();
        registry.walk();
        // What is there already has not become so.
        registry.changes();
        registry
    }

    /// Looks which cgroups there are: at the start, and again where no probe tells what was made and removed since.
    pub fn walk(&mut self) {
        let mounts = self.mounts.clone();
        let mut there = HashSet::new();
        for hierarchy in [Hierarchy::Unified, Hierarchy::Memory] {
            mounts.walk(hierarchy, &mut |id, path, made| {
                let key = (hierarchy, id);
                there.insert(key);
                let is_known = self
                    .cgroups
                    .get(&key)
                    .is_some_and(|known| known.removed.is_none() && *known.path == *path);
                if !is_known {
                    self.made_at = Some(made);
                    self.cgroup_made(hierarchy, id, path);
                }
            });
        }
        self.made_at = None;
        let gone = |(key, known): (&(Hierarchy, u64), &Known)| {
            (known.removed.is_none() && !there.contains(key)).then_some(*key)
        };
        let gone: Vec<_> = self.cgroups.iter().filter_map(gone).collect();
        for (hierarchy, id) in gone {
            self.cgroup_removed(hierarchy, id);
        }
    }

    /// A cgroup exists.
    pub fn cgroup_made(&mut self, hierarchy: Hierarchy, id: u64, path: &str) {
        let key = (hierarchy, id);
        self.misses.remove(&key);
        let owner = self.owner_of(hierarchy, path);
        if let Some(owner) = &owner {
            let is_new = !self.containers.contains_key(owner);
            let entry = self.entry(owner, path);
            if entry.live.is_empty() && entry.ended.is_some() {
                // Another container may have taken the path.
                entry.look_ups_left = LOOK_UPS;
            }
            entry.live.insert(key);
            if entry.ended.take().is_some() {
                let mut info = (*entry.info).clone();
                info.generation += 1;
                entry.info = Arc::new(info);
                entry.state = State::Running;
            }
            let accounts = match hierarchy {
                Hierarchy::Memory => true,
                Hierarchy::Unified => !self.mounts.memory_is_v1() && path == owner,
            };
            let place = (hierarchy, path.to_owned());
            if accounts
                && let Some(entry) = self.containers.get_mut(owner)
                && !entry.memory.contains(&place)
            {
                entry.memory.push(place);
            }
            if is_new {
                self.name_by_engine(owner);
            }
            self.touched.insert(owner.clone());
        }
        let path: Arc<str> = Arc::from(path);
        self.by_path.insert((hierarchy, Arc::clone(&path), id));
        let known = Known { path: Arc::clone(&path), owner, removed: None };
        if let Some(before) = self.cgroups.insert(key, known)
            && before.path != path
        {
            self.by_path.remove(&(hierarchy, before.path, id));
        }
    }

    /// A cgroup was removed.
    pub fn cgroup_removed(&mut self, hierarchy: Hierarchy, id: u64) {
        let key = (hierarchy, id);
        let Some(known) = self.cgroups.get_mut(&key) else { return };
        known.removed = Some(Instant::now());
        if let Some(entry) = known.owner.as_ref().and_then(|owner| self.containers.get_mut(owner)) {
            entry.live.remove(&key);
            self.touched.insert(entry.info.path.clone());
            if entry.live.is_empty() {
                entry.state = State::Stopped;
                if !entry.declared {
                    entry.ended = Some(Instant::now());
                }
            }
        }
    }

    /// Reads the state files that have changed.
    pub fn read_state_files(&mut self) {
        let roots = self.roots.clone();
        let mut files = Vec::new();
        for root in &roots {
            files.extend(state_file::list(root).into_iter().map(|(path, v)| (root, path, v)));
        }
        let there: HashSet<&PathBuf> = files.iter().map(|(_, file, _)| file).collect();
        let gone: Vec<PathBuf> =
            self.files.keys().filter(|path| !there.contains(path)).cloned().collect();
        for path in gone {
            if let Some((_, owner)) = self.files.remove(&path) {
                self.undeclare(&owner);
            }
        }
        let mounts = self.mounts.clone();
        let point = |name: &str| match name {
            "unified" => mounts.unified.clone(),
            controller => mounts.v1.get(controller).cloned(),
        };
        for (root, path, version) in files {
            if self.files.get(&path).is_some_and(|(known, _)| *known == version) {
                continue;
            }
            // A file that is being removed, or is not of this format, tells nothing.
            let Ok(state) = state_file::read(root, &path, &point) else { continue };
            if let Some(owner) = self.declare(&state, root.runtime) {
                self.files.insert(path, (version, owner));
            }
        }
    }

    /// Notes what the runtime below an engine tells of a container whose path shows that it is the engine's.
    fn note_engine(&mut self, owner: &str, state: &StateFile) {
        if let Some(entry) = self.containers.get_mut(owner) {
            entry.pid = state.pid;
            entry.bundle = Some(state.bundle.clone());
            entry.look_ups_left = LOOK_UPS;
            if !entry.live.is_empty() {
                entry.state = State::from_status(&state.status);
            }
        }
        self.name_by_engine(owner);
    }

    /// Asks the engine's files for the name of a container, as long as they may still come.
    fn name_by_engine(&mut self, owner: &str) {
        let Some(entry) = self.containers.get_mut(owner) else { return };
        if entry.declared || entry.look_ups_left == 0 {
            return;
        }
        entry.look_ups_left -= 1;
        let bundle = entry.bundle.as_deref();
        let found =
            engines::look_up(&self.engine_root, &entry.info.runtime, &entry.info.id, bundle);
        let Some(details) = found else { return };
        entry.look_ups_left = 0;
        let mut info = (*entry.info).clone();
        for (field, value) in [
            (&mut info.name, details.name),
            (&mut info.image, details.image),
            (&mut info.pod, details.pod),
            (&mut info.pod_namespace, details.pod_namespace),
        ] {
            if !value.is_empty() {
                *field = value;
            }
        }
        info.labels = details.labels;
        entry.info = Arc::new(info);
    }

    fn declare(&mut self, state: &StateFile, runtime: &str) -> Option<String> {
        let hierarchy = |name: &str| match name {
            "unified" => Some(Hierarchy::Unified),
            "memory" => Some(Hierarchy::Memory),
            _ => None,
        };
        let cgroups: Vec<(Hierarchy, &str, u64)> = state
            .cgroups
            .iter()
            .filter_map(|cgroup| {
                Some((hierarchy(&cgroup.hierarchy)?, cgroup.path.as_str(), cgroup.id))
            })
            .filter(|(_, path, _)| path.starts_with('/') && path.len() > 1)
            .collect();
        let (_, owner, _) = *cgroups.iter().min_by_key(|(hierarchy, _, _)| *hierarchy)?;
        let owner = owner.to_owned();
        if let Some(found) = patterns::recognise(&owner).filter(patterns::Recognised::is_of_engine)
        {
            let owner = found.path.to_owned();
            for (hierarchy, path, id) in cgroups {
                if !self.cgroups.contains_key(&(hierarchy, id)) {
                    self.cgroup_made(hierarchy, id, path);
                }
            }
            self.note_engine(&owner, state);
            return Some(owner);
        }
        let name = if state.name.is_empty() { &state.id } else { &state.name };
        let is_new = !self.containers.contains_key(&owner);
        let entry = self.entry(&owner, &owner);
        let info = Container {
            path: owner.clone(),
            id: state.id.clone(),
            name: name.clone(),
            image: state.image.clone(),
            runtime: runtime.to_owned(),
            cgroup_driver: entry.info.cgroup_driver.clone(),
            generation: entry.info.generation,
            labels: state.labels.clone(),
            ..Container::default()
        };
        if *entry.info != info {
            entry.info = Arc::new(info);
        }
        entry.declared = true;
        entry.pid = state.pid;
        if let Ok(created) = OffsetDateTime::parse(&state.created, &Rfc3339) {
            entry.started = created;
        }
        entry.elsewhere = state
            .cgroups
            .iter()
            .filter(|cgroup| cgroup.path != owner)
            .map(|cgroup| (cgroup.hierarchy.clone(), cgroup.path.clone()))
            .collect();
        entry.state = State::from_status(&state.status);
        self.touched.insert(owner.clone());
        let entry = self.entry(&owner, &owner);
        if entry.ended.take().is_some() && !is_new {
            let mut info = (*entry.info).clone();
            info.generation += 1;
            entry.info = Arc::new(info);
        }
        for &(hierarchy, path, id) in &cgroups {
            self.declared.insert((hierarchy, path.to_owned()), owner.clone());
            if id != 0 && !self.cgroups.contains_key(&(hierarchy, id)) {
                self.cgroup_made(hierarchy, id, path);
            }
        }
        // Cgroups that were seen before the file was.
        for (hierarchy, path, _) in cgroups {
            let unowned: Vec<(Hierarchy, Arc<str>, u64)> = self
                .by_path
                .range((hierarchy, Arc::from(path), 0)..)
                .take_while(|(h, below, _)| *h == hierarchy && below.starts_with(path))
                .filter(|(h, below, id)| {
                    let known = self.cgroups.get(&(*h, *id));
                    known.is_some_and(|known| {
                        known.removed.is_none()
                            && known.owner.as_ref() != Some(&owner)
                            && self.owner_of(*h, below).as_ref() == Some(&owner)
                    })
                })
                .cloned()
                .collect();
            for (hierarchy, path, id) in unowned {
                self.cgroup_made(hierarchy, id, &path);
            }
        }
        Some(owner)
    }

    fn undeclare(&mut self, owner: &str) {
        self.declared.retain(|_, declared| declared != owner);
        if let Some(entry) = self.containers.get_mut(owner) {
            entry.declared = false;
            if entry.live.is_empty() {
                entry.state = State::Stopped;
                entry.ended = Some(Instant::now());
            }
            self.touched.insert(owner.to_owned());
        }
    }

    /// Whose event this is. `unified` and `memory` are the ids that a record or a counter carries.
    pub fn attribute(&mut self, unified: u64, memory: u64) -> Attribution {
        let attribution = self.whose(unified, memory);
        *self.outcomes.entry(attribution.outcome).or_default() += 1;
        attribution
    }

    /// Whose cgroups these are, of another party of an event: not counted as an attribution.
    pub fn whose(&mut self, unified: u64, memory: u64) -> Attribution {
        let Resolved { subject, cgroup_id, path, outcome } = self.resolve(unified, memory);
        let container = match &subject {
            Subject::Container(owner) => {
                self.containers.get(owner).map(|entry| Arc::clone(&entry.info))
            }
            _ => None,
        };
        Attribution { container, cgroup_id, path, outcome }
    }

    fn resolve(&mut self, unified: u64, memory: u64) -> Resolved {
        let mut host: Option<(u64, Arc<str>)> = None;
        let mut unknown = false;
        for key in [(Hierarchy::Unified, unified), (Hierarchy::Memory, memory)] {
            if key.1 == 0 {
                continue;
            }
            if !self.cgroups.contains_key(&key) {
                self.learn(key);
            }
            let Some(known) = self.cgroups.get(&key) else {
                unknown = true;
                continue;
            };
            if let Some(owner) = &known.owner {
                let outcome =
                    if *known.path == **owner { Outcome::Exact } else { Outcome::Ancestor };
                return Resolved {
                    subject: Subject::Container(owner.clone()),
                    cgroup_id: key.1,
                    path: Arc::clone(&known.path),
                    outcome,
                };
            }
            // One that has none of its own in the unified hierarchy is told by the other: a container that is being made there.
            if host.as_ref().is_none_or(|(_, path)| &**path == "/" && &*known.path != "/") {
                host = Some((key.1, Arc::clone(&known.path)));
            }
        }
        match host {
            Some((cgroup_id, path)) if !unknown => {
                Resolved { subject: Subject::Host, cgroup_id, path, outcome: Outcome::Exact }
            }
            _ => Resolved {
                subject: Subject::Unknown,
                cgroup_id: unified,
                path: Arc::from(""),
                outcome: Outcome::Unknown,
            },
        }
    }

    /// Asks the kernel for a cgroup that nobody told of.
    fn learn(&mut self, (hierarchy, id): (Hierarchy, u64)) {
        let key = (hierarchy, id);
        if self.misses.get(&key).is_some_and(|at| at.elapsed() < MISS_RETRY) {
            return;
        }
        let noted = (self.new_cgroups)(hierarchy, id);
        let path = noted.or_else(|| handle::path_of(self.mounts.point(hierarchy)?, id).ok());
        match path {
            Some(path) => self.cgroup_made(hierarchy, id, &path),
            None => {
                self.misses.insert(key, Instant::now());
            }
        }
    }

    /// The path of the container that a cgroup with this path belongs to.
    fn owner_of(&self, hierarchy: Hierarchy, path: &str) -> Option<String> {
        let mut at = path;
        while !at.is_empty() {
            if let Some(owner) = self.declared.get(&(hierarchy, at.to_owned())) {
                return Some(owner.clone());
            }
            at = at.rfind('/').map_or("", |end| &at[..end]);
        }
        patterns::recognise(path).map(|found| found.path.to_owned())
    }

    fn entry(&mut self, owner: &str, path: &str) -> &mut Entry {
        let started = self.made_at.unwrap_or_else(OffsetDateTime::now_utc);
        self.containers.entry(owner.to_owned()).or_insert_with(|| {
            let found = patterns::recognise(path);
            let id = found.as_ref().map_or(owner, |found| found.id);
            let unescaped = patterns::unescape(id);
            // Long ids are shortened as their engines do.
            let name = if id.len() == 64 { &id[..12] } else { &*unescaped };
            let info = Container {
                path: owner.to_owned(),
                id: id.to_owned(),
                name: name.to_owned(),
                runtime: found.as_ref().map_or("", |found| found.runtime).to_owned(),
                cgroup_driver: found.as_ref().map_or("cgroupfs", |found| found.driver).to_owned(),
                pod: found.as_ref().map_or("", |found| found.pod_uid).to_owned(),
                generation: 1,
                ..Container::default()
            };
            Entry {
                info: Arc::new(info),
                state: State::Running,
                live: HashSet::new(),
                ended: None,
                memory: Vec::new(),
                declared: false,
                pid: None,
                started,
                elsewhere: BTreeMap::new(),
                bundle: None,
                look_ups_left: LOOK_UPS,
                told: None,
            }
        })
    }

    /// The containers whose state is another than when this was last asked.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for path in std::mem::take(&mut self.touched) {
            let Some(entry) = self.containers.get_mut(&path) else { continue };
            if entry.may_be_declared() {
                self.touched.insert(path);
                continue;
            }
            let now = if entry.live.is_empty() { State::Stopped } else { entry.state };
            let generation = entry.info.generation;
            let before = entry.told.replace((now, generation));
            if before == Some((now, generation)) {
                continue;
            }
            let before = before.filter(|before| before.1 == generation).map(|before| before.0);
            changes.push(Change { container: entry.attribution(&path), now, before });
        }
        changes
    }

    /// What is about a container that somebody else has named, as far as it is known here.
    pub fn about(&self, name: &ContainerName) -> Attribution {
        let known = self.containers.iter().find(|(_, entry)| entry.info.id == name.id);
        known.map_or_else(|| Attribution::of(name), |(path, entry)| entry.attribution(path))
    }

    /// The same for many: what is about each container, by its id.
    pub fn by_id(&self) -> HashMap<&str, Attribution> {
        let entries = self.containers.iter();
        entries.map(|(path, entry)| (entry.info.id.as_str(), entry.attribution(path))).collect()
    }

    /// The cgroups that account the memory of the container with this path.
    pub fn memory_of(&self, container: &str) -> Vec<(Hierarchy, String)> {
        self.containers.get(container).map(|entry| entry.memory.clone()).unwrap_or_default()
    }

    /// The containers, those that have ended less than the grace time ago included.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.containers
            .values()
            .map(|entry| Snapshot {
                container: Arc::clone(&entry.info),
                state: entry.state,
                memory: entry.memory.clone(),
                live: !entry.live.is_empty(),
                pid: entry.pid,
                started: entry.started,
                cgroup_ids: self.paths_of(&entry.live),
                elsewhere: entry.elsewhere.clone(),
            })
            .collect()
    }

    fn paths_of(&self, keys: &HashSet<(Hierarchy, u64)>) -> Vec<(Hierarchy, u64, Arc<str>)> {
        let mut all: Vec<_> = keys
            .iter()
            .filter_map(|key| Some((key.0, key.1, Arc::clone(&self.cgroups.get(key)?.path))))
            .collect();
        all.sort_unstable();
        all
    }

    /// The counters per row: what the kernel counts now, and what removed cgroups had counted.
    pub fn totals(
        &mut self,
        counts: &HashMap<CounterKey, u64>,
    ) -> HashMap<Subject, HashMap<Kind, u64>> {
        let mut totals = self.retired.clone();
        // Whose they are is found once for all counters of a cgroup.
        let mut of_cgroups: HashMap<(u64, u64), Vec<(Kind, u64)>> = HashMap::new();
        for (key, count) in counts {
            let ids = (key.cgroup_id, key.memory_cgroup_id);
            of_cgroups.entry(ids).or_default().push((key.kind, *count));
        }
        for ((unified, memory), counts) in of_cgroups {
            let resolved = self.resolve(unified, memory);
            let depth = resolved.depth();
            let row = totals.entry(resolved.subject).or_default();
            for (kind, count) in counts {
                *row.entry(shown_as(kind, depth)).or_default() += count;
            }
        }
        totals
    }

    /// What is due: counters of removed cgroups are taken over, their keys returned for removal from the kernel's
    /// map, and containers whose grace time is over are forgotten.
    pub fn tick(&mut self, read: impl FnOnce() -> HashMap<CounterKey, u64>) -> Vec<CounterKey> {
        let due: HashSet<(Hierarchy, u64)> = self
            .cgroups
            .iter()
            .filter(|(_, known)| known.removed.is_some_and(|at| at.elapsed() > TAKE_OVER_DELAY))
            .map(|(key, _)| *key)
            .collect();
        let mut keys = Vec::new();
        if !due.is_empty() {
            let is_due = |key: &CounterKey| {
                due.contains(&(Hierarchy::Unified, key.cgroup_id))
                    || due.contains(&(Hierarchy::Memory, key.memory_cgroup_id))
            };
            for (key, count) in read().into_iter().filter(|(key, _)| is_due(key)) {
                let resolved = self.resolve(key.cgroup_id, key.memory_cgroup_id);
                let kind = shown_as(key.kind, resolved.depth());
                *self.retired.entry(resolved.subject).or_default().entry(kind).or_default() +=
                    count;
                keys.push(key);
            }
            for key in &due {
                if let Some(known) = self.cgroups.remove(key) {
                    self.by_path.remove(&(key.0, known.path, key.1));
                }
            }
            self.forgotten.extend(due);
        }
        let unnamed: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, entry)| !entry.declared && entry.look_ups_left > 0)
            .map(|(path, _)| path.clone())
            .collect();
        for path in unnamed {
            self.name_by_engine(&path);
        }
        let grace = self.grace;
        let forgotten: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, entry)| {
                entry.live.is_empty() && entry.ended.is_some_and(|at| at.elapsed() > grace)
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in forgotten {
            self.containers.remove(&path);
            self.retired.remove(&Subject::Container(path));
        }
        self.misses.retain(|_, at| at.elapsed() < MISS_RETRY);
        keys
    }

    /// Cgroups that have been forgotten since this was last asked.
    pub fn take_forgotten(&mut self) -> Vec<(Hierarchy, u64)> {
        std::mem::take(&mut self.forgotten)
    }

    /// How often each outcome came.
    pub fn outcomes(&self) -> &HashMap<Outcome, u64> {
        &self.outcomes
    }

    /// The cgroup hierarchies.
    pub fn mounts(&self) -> &CgroupMounts {
        &self.mounts
    }
}
