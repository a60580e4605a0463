//! What containers do, judged as a running observatory sees it, and what their state was at the last look.
//!
//! The runtime's own steps are no findings. Which they are follows from what was seen of a process: it is the container's
//! own from its first execve in the container's cgroup on, and so are its children; one whose start nobody saw has been
//! there before, and is the container's if it is in its cgroup. It is the cgroup that is noted, since whose it is may be
//! known only later, from the state file.

use super::Report;
use super::acts::{self, Act, Deed, EVENT_CHECKS, EventCheck, Seen};
use super::finding::{ContainerName, Evidence, Finding, Source};
use super::mounts::is_within;
use super::owners::{Owner, Owners};
use super::process::namespace_of_link;
use super::provenance::{Made, Mounts, who};
use super::sessions::{Entry, Session, Sessions};
use crate::attribution::{Attribution, Container};
use crate::event::decode::{Record, text};
use crate::event::mount::op_name;
use crate::event::notice::{Closed, News};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use terrarium_abi::{Exec, Guard, GuardEvent, Header, Mount, NsChange, NsKind, Via};

/// More findings of events are not kept; the oldest go.
const MOST_FINDINGS: usize = 4096;

/// What no look but so many has found the container of is none's.
const MOST_LOOKS: u8 = 3;

/// More processes of a chain are not told.
const MOST_CHAIN: usize = 16;

/// More processes are not followed.
const MOST_TASKS: usize = 65_536;

/// `CLONE_THREAD` (linux/sched.h)
const CLONE_THREAD: u64 = 0x0001_0000;

/// A process that is followed.
#[derive(Debug)]
struct Task {
    standing: Standing,
    /// Who made it; 0 when that was not seen.
    parent: u32,
    /// The program that it executed last, or its parent did.
    program: Arc<str>,
    /// The container that it was in then.
    container: Option<Arc<Container>>,
    /// How it came there.
    session: Session,
    /// Its number as it sees itself.
    ns_pid: u32,
}

/// What part a process plays in its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is in no container, or not in the one that the event is about.
    Foreign,
    /// It sets the container up, or enters it: it has not executed a program of the container's yet.
    Runtime,
    /// It is one that the container's first process runs before its program.
    Hook,
    /// It entered the container when its program ran already, or came of one that did.
    Exec,
    /// It is the container's own.
    Workload,
}

impl Role {
    /// As in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Runtime => "runtime",
            Self::Hook => "hook",
            Self::Exec => "exec",
            Self::Workload => "workload",
        }
    }
}

/// Who did what an event tells.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Its part.
    pub role: Role,
    /// The path of its program as it was given to execve(2), where that was seen.
    pub exe: Option<Arc<str>>,
}

/// What was seen of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Its start, by no process of a container's: a runtime's, or the host's.
    Outside,
    /// It has executed a program in these cgroups, of which one has this path, or is the child of one that had.
    In(Cgroups, Arc<str>),
}

impl Standing {
    /// Whether a process that is in the cgroups `now` is the container's own. It may have moved since, below the
    /// container's cgroup.
    fn is_own(&self, now: Cgroups, container: Option<&Container>) -> bool {
        match self {
            Self::Outside => false,
            Self::In(before, path) => {
                let within = |container: &Container| {
                    container.path.len() > 1 && is_within(path, &container.path)
                };
                *before == now || container.is_some_and(within)
            }
        }
    }
}

/// The ids of a process's cgroups: in the unified hierarchy and in that of the memory controller.
type Cgroups = (u64, u64);

fn cgroups(header: &Header) -> Cgroups {
    (header.cgroup_id, header.memory_cgroup_id)
}

/// Findings of a running observatory.
#[derive(Debug, Default)]
pub struct Log {
    tasks: HashMap<u32, Task>,
    /// By check, container and what tells two of them apart.
    events: BTreeMap<(&'static str, String, String), Finding>,
    /// Those of `events` in cgroups of which nobody has said yet whose they are, and at how many looks.
    nameless: BTreeMap<(&'static str, String, String), u8>,
    /// Of the last look.
    state: Vec<Finding>,
    /// The containers' own namespaces.
    owners: Owners,
    /// What ended containers have left, as of the last look.
    residue: Vec<Finding>,
    /// Which containers have their program.
    sessions: Sessions,
    /// The mounts that were seen being made.
    mounts: Mounts,
    /// Processes of the host, or of another container, in a container's mount namespace: the path of its cgroup.
    guests: HashMap<u32, Arc<str>>,
    /// What was not told in the stream yet.
    news: Vec<News>,
    /// How often what [`Self::each`] gives may have changed.
    changes: u64,
}

impl Log {
    /// Whether something was seen of which only a look at the containers can tell whose it is.
    pub fn has_nameless(&self) -> bool {
        !self.nameless.is_empty()
    }

    /// Takes what a look at all containers found; what was there before keeps the time at which it was first seen.
    ///
    /// Gives what is new and what is no more, for the stream.
    pub fn looked(&mut self, report: Report) -> Vec<News> {
        self.changes += 1;
        let mut findings = report.findings;
        self.owners.looked(report.namespaces, has_namespaces);
        let events = &mut self.events;
        let mut news = Vec::new();
        self.nameless.retain(|key, looks| {
            let owner = report.cgroups.iter().find(|(path, _)| is_within(&key.1, path));
            if let (Some((_, name)), Some(finding)) = (owner, events.get_mut(key)) {
                finding.container = name.clone();
                news.push(News::Opened(Box::new(finding.clone())));
                return false;
            }
            *looks += 1;
            let wait = *looks < MOST_LOOKS;
            if !wait {
                // No container's.
                events.remove(key);
            }
            wait
        });
        let mut cgroups: HashMap<&str, Vec<&str>> = HashMap::new();
        for (path, name) in &report.cgroups {
            cgroups.entry(&name.id).or_default().push(path);
        }
        for finding in findings.iter_mut().filter(|finding| !finding.mounts.is_empty()) {
            let own = cgroups.get(finding.container.id.as_str()).map_or(&[][..], Vec::as_slice);
            finding.evidence.extend(self.mounts.of(&finding.mounts, own));
        }
        let there: HashSet<&str> = report.containers.iter().map(|name| name.id.as_str()).collect();
        let before = std::mem::take(&mut self.state);
        news.extend(self.difference(&before, &mut findings, |finding| {
            let is_there = there.contains(finding.container.id.as_str());
            if is_there { Closed::Mended } else { Closed::ContainerEnded }
        }));
        self.state = findings;
        news
    }

    /// Takes what ended containers have left; gives what is new and what is no more.
    pub fn looked_for_residue(&mut self, mut found: Vec<Finding>) -> Vec<News> {
        self.changes += 1;
        let before = std::mem::take(&mut self.residue);
        let news = self.difference(&before, &mut found, |_| Closed::Mended);
        self.residue = found;
        news
    }

    /// What is new, and what is no more; what was there before keeps the time at which it was first seen.
    fn difference(
        &self,
        before: &[Finding],
        now: &mut [Finding],
        why: impl Fn(&Finding) -> Closed,
    ) -> Vec<News> {
        let known: HashMap<_, _> = before.iter().map(|finding| (finding.key(), finding)).collect();
        let told = self.told();
        let mut opened = Vec::new();
        for finding in now.iter_mut() {
            if let Some(before) = known.get(&finding.key()) {
                let (first_seen, count) = (before.first_seen.clone(), before.count + 1);
                (finding.first_seen, finding.count) = (first_seen, count);
            } else if !told.contains(&finding.what()) {
                opened.push(News::Opened(Box::new(finding.clone())));
            }
        }
        let still: HashSet<_> = now.iter().map(Finding::key).collect();
        let closed = before
            .iter()
            .filter(|finding| !still.contains(&finding.key()) && !told.contains(&finding.what()))
            .map(|finding| News::Closed(Box::new(finding.clone()), why(finding)));
        closed.chain(opened).collect()
    }

    /// What events tell: the state need not tell it again.
    fn told(&self) -> HashSet<(&'static str, &str)> {
        self.events.values().map(Finding::what).collect()
    }

    /// The findings that were opened by what was taken in since this was last asked.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// How much of what each check looks for ended containers have left.
    pub fn count_residue(&self) -> HashMap<&'static str, u64> {
        let mut counts = HashMap::new();
        for finding in &self.residue {
            *counts.entry(finding.check).or_default() += 1;
        }
        counts
    }

    /// A number that is another one when what [`Self::each`] gives is other findings.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Every finding, in no order.
    pub fn each(&self) -> impl Iterator<Item = &Finding> {
        let told = self.told();
        let events = self.events.values().filter(|finding| !finding.container.id.is_empty());
        let is_untold = move |finding: &&Finding| !told.contains(&finding.what());
        events.chain(self.state.iter().filter(is_untold)).chain(&self.residue)
    }

    /// Every finding, the worst first.
    pub fn all(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.each().cloned().collect();
        all.sort_by(|a, b| {
            (b.severity, &a.container.id, a.check).cmp(&(a.severity, &b.container.id, b.check))
        });
        all
    }

    /// Judges one record; `target` is whose the process is that a signal was sent to, `initial` are the inodes of the host's
    /// namespaces.
    pub fn take(
        &mut self,
        record: &Record,
        attribution: &Attribution,
        target: Option<&Attribution>,
        initial: &[u32; 8],
    ) {
        let header = record.header();
        // A cgroup that nobody knows yet may be one of a container that is told of in a moment.
        let unknown = (attribution.container.is_none() && attribution.path.len() > 1)
            .then(|| Container { path: attribution.path.to_string(), ..Container::default() });
        let container = attribution.container.as_deref().or(unknown.as_ref());
        match record {
            Record::NewTask(task) => {
                if task.flags & CLONE_THREAD != 0 {
                    return;
                }
                let now = cgroups(header);
                let caller = self.tasks.get(&task.caller_pid);
                let own = caller.map_or(task.caller_cgroup_id == header.cgroup_id, |caller| {
                    caller.standing.is_own(now, container)
                });
                let path = || Arc::clone(&attribution.path);
                let standing = if own { Standing::In(now, path()) } else { Standing::Outside };
                let program = caller.map_or_else(
                    // Until it executes one it is called as its maker is.
                    || text(&header.comm).into(),
                    |caller| Arc::clone(&caller.program),
                );
                let then = attribution.container.clone();
                let session = caller.map_or(Session::Own, |caller| caller.session);
                let new = Task {
                    standing,
                    parent: task.caller_pid,
                    program,
                    container: then,
                    // A hook's child is one, whatever it executes; who enters is nobody's yet.
                    session: if own || session == Session::Hook { session } else { Session::Own },
                    ns_pid: header.ns_pid,
                };
                if let Some(cgroup) = self.guests.get(&task.caller_pid).cloned() {
                    self.guests.insert(header.pid, cgroup);
                }
                self.follow(header.pid, new);
                if !own {
                    return;
                }
                if let Some(container) = container {
                    let deed = Deed::Cloned(task);
                    self.judge(header, Act { deed, container, target, origin: None, initial });
                }
            }
            Record::Exec(exec) => self.executed(exec, attribution, initial),
            Record::CgroupMkdir(made) => {
                let path = text(&made.path);
                self.sessions.cgroup_made(&path);
                self.forget(&path);
            }
            // Of the whole process: the thread that ends last writes it, whichever that is.
            Record::Exit(_) => {
                self.tasks.remove(&header.pid);
                self.guests.remove(&header.pid);
                self.sessions.ended(header.pid);
                self.owners.ended(header.pid);
            }
            Record::CgroupRmdir(removed) => {
                self.mounts.cgroup_removed(&text(&removed.path));
                self.sessions.cgroup_removed(&text(&removed.path));
            }
            Record::NsChange(change) => {
                let own = self.own(header, container);
                self.entered(change, own, initial);
                if let Some(container) = own {
                    let deed = Deed::Namespaces(change);
                    self.judge(header, Act { deed, container, target, origin: None, initial });
                }
            }
            Record::Mount(mount) => {
                self.note_mount(mount, attribution, container);
                if let Some(container) = self.own(header, container) {
                    let deed = Deed::Mounted(mount);
                    self.judge(header, Act { deed, container, target, origin: None, initial });
                }
            }
            Record::CgroupAttach(moved) => {
                // By now it is where it was moved to: whose it was, what was noted of it tells.
                let Some(Task { standing: Standing::In(..), container: Some(container), .. }) =
                    self.tasks.get(&header.pid)
                else {
                    return;
                };
                let container = &*Arc::clone(container);
                let deed = Deed::Moved(moved);
                self.judge(header, Act { deed, container, target, origin: None, initial });
            }
            Record::Guard(guard) => {
                let Some(container) = self.own(header, container) else { return };
                let deed = Deed::Guarded(guard);
                let origin = self.origin(guard, container, initial);
                let origin = origin.as_deref();
                self.judge(header, Act { deed, container, target, origin, initial });
            }
            _ => {}
        }
    }

    /// A process executes a program: from then on it is the container's, if it is in one.
    fn executed(&mut self, exec: &Exec, attribution: &Attribution, initial: &[u32; 8]) {
        let header = &exec.header;
        let before = self.tasks.get(&header.pid);
        let parent = before.map_or(header.ppid, |task| task.parent);
        let container = attribution.container.as_deref();
        // One whose start nobody saw has been there before.
        let was_own = before.is_none_or(|task| task.standing.is_own(cgroups(header), container));
        let mut session = before.map_or(Session::Own, |task| task.session);
        let is_again = is_runtime_again(exec, initial);
        // A service's processes are all systemd's to start.
        let is_one = attribution.path.len() > 1
            && container.is_none_or(|container| container.runtime != "systemd");
        if is_one && !is_again && !was_own && session == Session::Own {
            // The container's only after it has executed a program there, whatever it was before it came.
            let by = self.tasks.get(&parent);
            let by = by.filter(|by| !by.standing.is_own(cgroups(header), container));
            let by_hook = by.is_some_and(|by| by.ns_pid == 1 || by.session == Session::Hook);
            let path = container.map_or(&*attribution.path, |container| &container.path);
            let entry = Entry { pid: header.pid, ns_pid: header.ns_pid, by_hook };
            let path: Arc<str> = Arc::from(path);
            session = self.sessions.enters(&path, entry);
            if let Some(container) = container.filter(|_| session == Session::Own) {
                self.learn(header.pid, container, &path, initial);
            }
        }
        let standing = if is_again || session == Session::Hook {
            Standing::Outside
        } else {
            Standing::In(cgroups(header), Arc::clone(&attribution.path))
        };
        let program = text(&exec.filename).into();
        let container = attribution.container.clone();
        let ns_pid = header.ns_pid;
        self.follow(header.pid, Task { standing, parent, program, container, session, ns_pid });
    }

    /// A cgroup with this path is made: what is told of it was done by a container that has ended.
    fn forget(&mut self, path: &str) {
        let keys: Vec<_> = self.events.keys().filter(|(_, of, _)| of == path).cloned().collect();
        for key in keys {
            self.changes += 1;
            self.nameless.remove(&key);
            let finding = self.events.remove(&key).filter(|one| !one.container.id.is_empty());
            if let Some(finding) = finding {
                self.news.push(News::Closed(Box::new(finding), Closed::ContainerEnded));
            }
        }
    }

    /// Judges what a process of a container's did.
    fn judge(&mut self, header: &Header, act: Act<'_>) {
        for check in EVENT_CHECKS {
            for seen in (check.judge)(&act) {
                self.add(check, act.container, header, seen);
            }
        }
    }

    /// Remembers which namespaces a container that has just started is in: whoever joins one of them from now on comes from
    /// outside.
    fn learn(&mut self, pid: u32, container: &Container, path: &Arc<str>, initial: &[u32; 8]) {
        let mut inodes = Vec::new();
        for kind in NsKind::ALL {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{}", kind.name()));
            let link = link.unwrap_or_default();
            let inode = namespace_of_link(&link.to_string_lossy()).map(|(_, inode)| inode);
            inodes.extend(inode.filter(|inode| *inode != u64::from(initial[kind as usize])));
        }
        // Its number may be another's by now.
        if is_outside(pid, container) {
            return;
        }
        let owner = Owner { name: name_of(container), cgroup: Arc::clone(path), pid };
        self.owners.started(&owner, &inodes, has_namespaces);
    }

    /// Remembers who made a mount.
    fn note_mount(&mut self, mount: &Mount, attribution: &Attribution, own: Option<&Container>) {
        let header = &mount.header;
        let guest = self.guests.get(&header.pid);
        // What the host does in its own namespaces is no container's.
        if mount.result < 0 || (own.is_none() && guest.is_none()) {
            return;
        }
        let cgroup = Arc::clone(guest.unwrap_or(&attribution.path));
        let role = match guest {
            Some(_) => Role::Foreign,
            // Whose cgroup it is may be known only after the runtime has mounted.
            None if self.own(header, own).is_some() => Role::Workload,
            None => Role::Runtime,
        };
        let (pid, comm) = (header.pid, text(&header.comm));
        self.mounts.made(Made {
            cgroup,
            op: op_name(mount.op).to_owned(),
            source: text(&mount.source).into_owned(),
            target: text(&mount.target).into_owned(),
            kind: text(&mount.fstype).into_owned(),
            who: who(pid, &comm, role.name(), &super::now()),
            chain: self.ancestry(header, |_| true),
        });
    }

    /// Takes in a line of the history of before this observatory started.
    pub fn recall(&mut self, line: &str, boot: &str) {
        self.mounts.recall(line, boot);
    }

    /// Who else a descriptor's mount namespace is of; one that the container itself made is nobody's.
    fn origin(&self, guard: &Guard, container: &Container, initial: &[u32; 8]) -> Option<String> {
        let inode = u32::try_from(guard.values[0]).ok()?;
        if guard.event != GuardEvent::ScmRights as u32 {
            None
        } else if inode == initial[NsKind::Mnt as usize] {
            Some("the host".to_owned())
        } else {
            let owner = self.owners.of(inode).filter(|owner| owner.name.id != container.id)?;
            Some(format!("container {}", owner.name.name))
        }
    }

    /// The process and those that made it, the first of the container's first: `PROGRAM (PID)` each.
    fn chain(&self, header: &Header) -> String {
        self.ancestry(header, |task| task.standing != Standing::Outside)
    }

    /// The same with all of those that `wanted` lets through.
    fn ancestry(&self, header: &Header, wanted: impl Fn(&Task) -> bool) -> String {
        let mut names = Vec::new();
        let mut pid = header.pid;
        while names.len() < MOST_CHAIN {
            match self.tasks.get(&pid) {
                Some(task) if wanted(task) => {
                    // busybox executes itself as /proc/self/exe; its name says more.
                    let program = match &task.program {
                        path if pid == header.pid && path.starts_with("/proc/") => {
                            text(&header.comm)
                        }
                        path => (&**path).into(),
                    };
                    names.push(format!("{program} ({pid})"));
                    pid = task.parent;
                }
                _ => break,
            }
        }
        if names.is_empty() {
            // Its start was not seen.
            names.push(format!("{} ({})", text(&header.comm), header.pid));
        }
        names.reverse();
        names.join(" > ")
    }

    /// Who a record is about; the end of a process is to be asked for before it is taken.
    pub fn actor(&self, header: &Header, attribution: &Attribution) -> Actor {
        let task = self.tasks.get(&header.pid);
        let role = match (&attribution.container, task) {
            (None, _) => Role::Foreign,
            (Some(container), Some(task))
                if !task.standing.is_own(cgroups(header), Some(container)) =>
            {
                if task.session == Session::Hook { Role::Hook } else { Role::Runtime }
            }
            (Some(_), Some(Task { session: Session::Exec, .. })) => Role::Exec,
            _ => Role::Workload,
        };
        let exe = task.map(|task| &task.program).filter(|path| path.starts_with('/'));
        Actor { role, exe: exe.cloned() }
    }

    fn follow(&mut self, pid: u32, task: Task) {
        if self.tasks.len() >= MOST_TASKS {
            // Processes whose end was lost; what is not known counts as having been there before.
            self.tasks.clear();
            self.guests.clear();
        }
        self.tasks.insert(pid, task);
    }

    /// The container, if the process is its own.
    fn own<'c>(&self, header: &Header, container: Option<&'c Container>) -> Option<&'c Container> {
        let task = self.tasks.get(&header.pid);
        container
            .filter(|_| task.is_none_or(|task| task.standing.is_own(cgroups(header), container)))
    }

    /// Whether it is a thread of this program's, such as the one that reads a container's mounts for the checks: `exec` enters
    /// with its first thread.
    fn only_looks(&self, header: &Header) -> bool {
        let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
        if header.pid == std::process::id() {
            return true;
        }
        if header.pid == header.tid {
            return false;
        }
        let own = std::env::current_exe().ok().and_then(|path| name(&path.to_string_lossy()));
        let program = match self.tasks.get(&header.pid) {
            Some(task) => name(&task.program),
            // It was there before, such as another observatory.
            None => std::fs::read_link(format!("/proc/{}/exe", header.pid))
                .ok()
                .and_then(|path| name(&path.to_string_lossy())),
        };
        program.is_some() && program == own
    }

    /// Somebody may have come in: `own` is the container that he is of.
    fn entered(&mut self, change: &NsChange, own: Option<&Container>, initial: &[u32; 8]) {
        if change.via != Via::Setns as u32 || change.result < 0 || self.only_looks(&change.header) {
            return;
        }
        for kind in NsKind::ALL {
            let (from, to) = (change.from[kind as usize], change.to[kind as usize]);
            let entered = self.owners.of(to).filter(|_| to != 0 && to != from);
            let is_other = |owner: &&Owner| own.is_none_or(|own| own.id != owner.name.id);
            let Some(Owner { name, cgroup, .. }) = entered.filter(is_other) else { continue };
            let container = Container {
                id: name.id.clone(),
                name: name.name.clone(),
                runtime: name.runtime.clone(),
                // Tells it from others of the same check.
                path: cgroup.to_string(),
                ..Container::default()
            };
            let header = &change.header;
            if kind == NsKind::Mnt {
                self.guests.insert(header.pid, Arc::clone(cgroup));
            }
            let deed = Deed::Entered { kind, inode: to, by: &text(&header.comm) };
            self.judge(
                header,
                Act { deed, container: &container, target: None, origin: None, initial },
            );
        }
    }

    fn add(
        &mut self,
        check: &EventCheck,
        container: &Container,
        header: &Header,
        Seen { severity, object, what }: Seen,
    ) {
        let now = super::now();
        let pid = header.pid;
        let observed = format!("process {pid} ({}): {what}", text(&header.comm));
        let key = (check.id, container.path.clone(), object.clone());
        if let Some(known) = self.events.get_mut(&key) {
            known.count += 1;
            known.last_seen = now;
            known.observed = observed;
            return;
        }
        if self.events.len() >= MOST_FINDINGS {
            let oldest = self.events.iter().min_by_key(|(_, finding)| finding.last_seen.clone());
            let oldest = oldest.map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.events.remove(&oldest);
                self.nameless.remove(&oldest);
            }
        }
        let evidence = Evidence {
            kind: "event",
            path: format!("process {pid}, child of {}, uid {}", header.ppid, header.uid),
            value: what,
        };
        let came_in = check.id == acts::entered_from_outside::CHECK.id;
        let (from, value) = if came_in {
            ("from the first process outside that was seen", self.ancestry(header, |_| true))
        } else {
            ("from the container's first process that was seen", self.chain(header))
        };
        let chain = Evidence { kind: "processes", path: format!("{from} to this one"), value };
        let finding = Finding {
            check: check.id,
            severity,
            source: Source::Event,
            container: name_of(container),
            declared: if came_in {
                "its namespaces are for its own processes".into()
            } else {
                "not done by the container's processes".into()
            },
            observed,
            evidence: vec![evidence, chain],
            remedy: check.remedy.into(),
            first_seen: now.clone(),
            last_seen: now,
            count: 1,
            suggestion: None,
            object,
            mounts: Vec::new(),
        };
        if finding.container.id.is_empty() {
            self.nameless.insert(key.clone(), 0);
        } else {
            self.news.push(News::Opened(Box::new(finding.clone())));
        }
        self.events.insert(key, finding);
        self.changes += 1;
    }
}

/// Whether a process still has namespaces: one that has ended and was not waited for has none, and the kernel gives their
/// inodes to others.
fn has_namespaces(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok()
}

/// Whether this is a runtime that executes itself once more (a copy of itself that nobody can write to, say), which it may
/// do after it was moved to the container's cgroup and before it makes the namespaces.
fn is_runtime_again(exec: &Exec, initial: &[u32; 8]) -> bool {
    let path = text(&exec.filename);
    let by_itself = path == "/proc/self/exe"
        || ["/proc/self/fd/", "/dev/fd/"].iter().any(|start| path.starts_with(start));
    by_itself && exec.mount_ns != 0 && exec.mount_ns == initial[NsKind::Mnt as usize]
}

fn name_of(container: &Container) -> Arc<ContainerName> {
    Arc::new(ContainerName {
        id: container.id.clone(),
        name: container.name.clone(),
        runtime: container.runtime.clone(),
    })
}

/// Whether a process is none of the container's; one that is gone and was not followed is not said to be.
pub(super) fn is_outside(pid: u32, container: &Container) -> bool {
    let of_kernel = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    of_kernel.is_ok_and(|text| {
        !text.lines().any(|line| {
            let path = line.splitn(3, ':').nth(2).unwrap_or_default();
            container.path.len() > 1 && is_within(path, &container.path)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::Outcome;
    use terrarium_abi::{Exit, NewTask, RecordType};

    /// The host's namespaces of the tests: each inode is 100 more than its kind.
    const INITIAL: [u32; 8] = [100, 101, 102, 103, 104, 105, 106, 107];

    /// A record of zeros but for its type and the process.
    fn record(record_type: RecordType, len: usize, pid: u32) -> Record {
        let mut bytes = vec![0; len];
        bytes[2..4].copy_from_slice(&(record_type as u16).to_ne_bytes());
        let at = std::mem::offset_of!(Header, pid);
        bytes[at..at + 4].copy_from_slice(&pid.to_ne_bytes());
        Record::decode(&bytes).expect("a record")
    }

    fn exec(pid: u32, path: &str, mount_ns: u32) -> Record {
        let mut record = record(RecordType::Exec, size_of::<Exec>(), pid);
        let Record::Exec(exec) = &mut record else { panic!("an exec") };
        exec.filename[..path.len()].copy_from_slice(path.as_bytes());
        exec.mount_ns = mount_ns;
        record
    }

    fn clone(caller: u32, pid: u32) -> Record {
        let mut record = record(RecordType::NewTask, size_of::<NewTask>(), pid);
        let Record::NewTask(task) = &mut record else { panic!("a new task") };
        task.caller_pid = caller;
        record
    }

    #[test]
    fn a_process_has_ended_with_its_last_thread() {
        let attribution = Attribution {
            cgroup_id: 1,
            path: Arc::from("/"),
            container: None,
            outcome: Outcome::Exact,
        };
        let mut log = Log::default();
        log.take(&exec(7, "/bin/sh", 100), &attribution, None, &INITIAL);
        assert!(log.tasks.contains_key(&7));
        let mut end = record(RecordType::Exit, size_of::<Exit>(), 7);
        let Record::Exit(exit) = &mut end else { panic!("an exit") };
        // Not the first one.
        exit.header.tid = 9;
        log.take(&end, &attribution, None, &INITIAL);
        assert!(log.tasks.is_empty());
    }

    #[test]
    fn a_runtime_that_executes_itself_in_the_containers_cgroup_is_not_the_container() {
        let container = Container { id: "c".to_owned(), ..Container::default() };
        let attribution = Attribution {
            cgroup_id: 0,
            path: Arc::from("/c"),
            container: Some(Arc::new(container)),
            outcome: Outcome::Exact,
        };
        let mount = || record(RecordType::Mount, size_of::<Mount>(), 8);
        let of = |records: &[Record]| {
            let mut log = Log::default();
            for record in records {
                log.take(record, &attribution, None, &INITIAL);
            }
            log.all().len()
        };
        // As runc does it: a copy of itself from a memfd, its child, the child's mounts.
        for path in ["/dev/fd/7", "/proc/self/exe", "/proc/self/fd/6"] {
            assert_eq!(of(&[exec(7, path, 100), clone(7, 8), mount()]), 0, "{path}");
            // Once the container's program runs, it is the container.
            let program = exec(8, "/bin/sh", 500);
            assert_eq!(of(&[exec(7, path, 100), clone(7, 8), program, mount()]), 1, "{path}");
            assert_eq!(of(&[exec(7, path, 500), clone(7, 8), mount()]), 1, "{path}, inside");
        }
        assert_eq!(of(&[exec(7, "/bin/sh", 100), clone(7, 8), mount()]), 1);
    }
}
