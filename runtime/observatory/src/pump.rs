//! The thread that empties the ring buffer.
//!
//! It sleeps until the first record of a burst wakes it (see `ARMED` in the ABI crate), then reads at its own pace until
//! nothing is left: an idle host wakes it once a second at most, a busy one 200 times a second, whatever the number
//! of records.

use crate::attribution::registry::Change;
use crate::attribution::state_file::{self, Root};
use crate::attribution::{Attribution, Outcome, Registry};
use crate::ebpf_log::EbpfLog;
use crate::event::decode::{Record, text};
use crate::event::history::Event;
use crate::event::notice::{Notice, What};
use crate::event::{guard, json};
use crate::kernel::cgroup_mounts::Hierarchy;
use crate::metrics::Exemplar;
use crate::probe::watch::Watched;
use crate::shared::Shared;
use aya::maps::{Array, HashMap, MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use terrarium_abi::namespace::CLONE_NS_FLAGS;
use terrarium_abi::{CgroupInfo, CgroupKey, Header, NsKind};

/// Pause between two looks while records come.
const PACE: Duration = Duration::from_millis(5);

/// Longest sleep: what has to be done regularly is done this often, and a wake-up that was missed in the instant of
/// arming is made up for.
const TICK: Duration = Duration::from_secs(1);

/// Events handed over at a time.
const BATCH: usize = 512;

/// The kernel's notes of new cgroups.
pub type CgroupNotes = Arc<Mutex<HashMap<MapData, CgroupKey, CgroupInfo>>>;

/// What the thread needs.
pub struct Pump {
    /// The ring buffer.
    pub ring: RingBuf<MapData>,
    /// Set to 1 before sleeping.
    pub armed: Array<MapData, u32>,
    /// The kernel's notes of new cgroups.
    pub notes: CgroupNotes,
    /// The programs' own log, where it is wanted.
    pub log: Option<EbpfLog>,
    /// Everything else.
    pub shared: Arc<Shared>,
    /// Readable or closed when the thread has to end.
    pub stop: OwnedFd,
    /// Where the state files are.
    pub roots: Vec<Root>,
    /// The cgroups that are watched, where some are left out.
    pub watched: Option<Watched>,
    /// Whether it has to look for cgroups itself, since no probe tells of them.
    pub walks: bool,
}

impl Pump {
    /// Runs until `stop` is closed at its other end.
    pub fn run(mut self) -> io::Result<()> {
        let mut watch = StateWatch::new(self.roots.clone());
        let mut last_tick = Instant::now();
        loop {
            let read = self.drain(&mut watch)?;
            if last_tick.elapsed() >= TICK {
                self.tick();
                // What was written before a folder was watched has woken nobody.
                if watch.renew() {
                    self.read_state_files(&mut watch);
                }
                last_tick = Instant::now();
            }
            if read > 0 {
                if wait(&[self.stop.as_fd()], PACE)?[0] {
                    self.drain(&mut watch)?;
                    return Ok(());
                }
                continue;
            }
            self.arm(1);
            // What came between the last look and the arming has woken nobody.
            if self.drain(&mut watch)? > 0 {
                self.arm(0);
                continue;
            }
            let mut fds = vec![self.stop.as_fd(), self.ring.as_fd()];
            fds.extend(self.log.as_ref().map(EbpfLog::fd));
            // Last, because it may be missing.
            fds.extend(watch.fd());
            let ready = wait(&fds, TICK.saturating_sub(last_tick.elapsed()))?;
            let stopped = ready[0];
            let state_changed = watch.fd().is_some() && ready.last() == Some(&true);
            if let Some(log) = &mut self.log {
                log.tell();
            }
            self.arm(0);
            if stopped {
                self.drain(&mut watch)?;
                return Ok(());
            }
            if state_changed {
                self.read_state_files(&mut watch);
            }
        }
    }

    fn read_state_files(&mut self, watch: &mut StateWatch) {
        watch.read();
        self.follow_state_files();
        let mut registry = self.shared.registry();
        registry.read_state_files();
        let mut batch = Vec::new();
        tell_changes(&mut registry, None, &mut batch);
        drop(registry);
        hand_over(&self.shared, &mut batch);
    }

    fn follow_state_files(&mut self) {
        if let Some(watched) = &mut self.watched {
            for root in &self.roots {
                watched.follow_state_files(root);
            }
        }
    }

    fn arm(&mut self, value: u32) {
        if let Err(error) = self.armed.set(0, value, 0) {
            tracing::warn!(%error, "cannot arm the wake-up of the event reader; events come up to a second late");
        }
    }

    /// Reads all there is; gives the number of records.
    ///
    /// A runtime writes its state file before it makes the first process: so what was written by then is read
    /// before the first record of a process in a new cgroup is attributed.
    fn drain(&mut self, watch: &mut StateWatch) -> io::Result<usize> {
        let mut records = 0;
        let mut batch = Vec::new();
        while let Some(record) = self.ring.next().map(|item| Record::decode(&item)) {
            records += 1;
            match record {
                Ok(record) => {
                    if may_be_first_of_cgroup(&record) && watch.has_changes()? {
                        self.read_state_files(watch);
                    }
                    take(&self.shared, record, &mut batch);
                }
                Err(error) => {
                    self.shared.decode_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a record from the kernel was not understood");
                }
            }
            if batch.len() >= BATCH {
                hand_over(&self.shared, &mut batch);
            }
        }
        hand_over(&self.shared, &mut batch);
        Ok(records)
    }

    fn tick(&mut self) {
        self.follow_state_files();
        let shared = &self.shared;
        // The lock order is registry, then counters, everywhere.
        let mut registry = shared.registry();
        if self.walks {
            registry.walk();
        }
        let keys = registry.tick(|| shared.read_counts());
        shared.remove_counters(&keys);
        let live: Vec<(Hierarchy, u64)> = registry.take_forgotten();
        let mut batch = Vec::new();
        tell_changes(&mut registry, None, &mut batch);
        drop(registry);
        tell_loss(shared, &mut batch);
        hand_over(shared, &mut batch);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        for (hierarchy, id) in live {
            let number = match hierarchy {
                Hierarchy::Unified => 0,
                Hierarchy::Memory => shared.mounts.memory_hierarchy,
            };
            // Not there when the map was full at the time.
            let _ = notes.remove(&CgroupKey { id, hierarchy: number, pad: 0 });
        }
    }
}

/// Whether a process may be the first in its cgroup: it was made there by one that is elsewhere, or moved there.
fn may_be_first_of_cgroup(record: &Record) -> bool {
    match record {
        Record::NewTask(task) => task.caller_cgroup_id != task.header.cgroup_id,
        // Others write their state file when their process is in the cgroup already, but before the container's program.
        Record::CgroupAttach(_) | Record::Exec(_) => true,
        _ => false,
    }
}

/// Tells of containers that are in another state than before; at the time of a record, if one has shown it.
fn tell_changes(registry: &mut Registry, record: Option<&Record>, batch: &mut Vec<Event>) {
    for Change { container, now, before } in registry.changes() {
        let what = What::Container { now, before };
        let notice = match record {
            Some(record) => {
                let mono_ns = record.header().mono_ns;
                Notice::at(Header { mono_ns, ..Header::default() }, what)
            }
            None => Notice::now(what),
        };
        batch.push(Event::notice(notice, container));
    }
}

/// Tells of records that were lost in the kernel since this was told last.
fn tell_loss(shared: &Shared, batch: &mut Vec<Event>) {
    let lost = shared.lost_since_told();
    if lost > 0 {
        let machine = Attribution {
            container: None,
            cgroup_id: 0,
            path: Arc::from("/"),
            outcome: Outcome::Exact,
        };
        batch.push(Event::notice(Notice::now(What::Lost(lost)), machine));
    }
}

/// Adds a batch to the history, the losses of the kernel side up to here told with its first event.
fn hand_over(shared: &Shared, batch: &mut Vec<Event>) {
    if let Some(first) = batch.first_mut() {
        first.lost_before = shared.newly_lost();
        shared.history.add(std::mem::take(batch));
    }
}

/// Takes one record in: cgroups that come and go are told to the registry, then the event is attributed.
fn take(shared: &Shared, record: Record, batch: &mut Vec<Event>) {
    let probe = record.probe();
    if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
        let waited =
            Duration::from(now).saturating_sub(Duration::from_nanos(record.header().mono_ns));
        shared.latency.observe(waited.as_secs_f64());
    }
    let mut registry = shared.registry();
    match &record {
        Record::CgroupMkdir(made) => {
            if let Some(hierarchy) = shared.mounts.hierarchy(made.hierarchy) {
                let path = text(&made.path);
                registry.cgroup_made(hierarchy, made.id, &path);
            }
        }
        Record::CgroupRmdir(removed) => {
            if let Some(hierarchy) = shared.mounts.hierarchy(removed.hierarchy) {
                registry.cgroup_removed(hierarchy, removed.id);
            }
        }
        _ => {}
    }
    let (unified, memory) = record.cgroup_ids(&shared.mounts);
    let attribution = registry.attribute(unified, memory);
    let target = match &record {
        Record::Guard(guard) if guard::is_signal(guard) => {
            Some(registry.whose(guard.values[1], guard.values[2]))
        }
        _ => None,
    };
    let mut changes = Vec::new();
    tell_changes(&mut registry, Some(&record), &mut changes);
    drop(registry);
    if let (Record::Oom(_), Some(container)) = (&record, &attribution.container) {
        // Now, because the container and its files may be gone by the next scrape.
        shared.refresh_memory_events(&container.path);
    }
    if let (Record::Reclaim(reclaim), Some(container)) = (&record, &attribution.container) {
        let header = record.header();
        let at_ns = json::wall_offset() + i128::from(header.mono_ns);
        let stall = Exemplar {
            tid: header.tid,
            comm: text(&header.comm).into_owned(),
            ns: reclaim.duration_ns,
            at_ns: u64::try_from(at_ns).unwrap_or(0),
        };
        shared.note_stall(&container.path, stall);
    }
    let mut leaks = shared.leaks();
    let before = leaks.actor(record.header(), &attribution);
    leaks.take(&record, &attribution, target.as_ref(), &shared.context.initial_namespaces);
    let after = leaks.actor(record.header(), &attribution);
    let found = leaks.take_news();
    drop(leaks);
    let mut lives = shared.lives.lock().unwrap_or_else(PoisonError::into_inner);
    lives.take(&record, &attribution, before.role, after.role);
    drop(lives);
    // One that has ended is forgotten by now.
    let actor = if matches!(record, Record::Exit(_)) { before } else { after };
    if let Some(probe) = probe {
        shared.delivered[probe as usize].fetch_add(1, Ordering::Relaxed);
    }
    let record = Arc::new(record);
    let event = |namespace| Event {
        number: 0,
        record: Arc::clone(&record),
        namespace,
        attribution: attribution.clone(),
        actor: actor.clone(),
        target: target.clone(),
        lost_before: 0,
    };
    match &*record {
        Record::NsChange(change) => {
            let kinds =
                NsKind::ALL.into_iter().filter(|kind| change.kinds & (1 << *kind as u32) != 0);
            let before = batch.len();
            batch.extend(kinds.map(|kind| event(Some(kind))));
            if batch.len() == before {
                batch.push(event(None));
            }
        }
        Record::NewTask(task) => {
            batch.push(event(None));
            let kinds = NsKind::ALL
                .into_iter()
                .filter(|kind| task.flags & CLONE_NS_FLAGS & kind.clone_flag() != 0);
            batch.extend(kinds.map(|kind| event(Some(kind))));
        }
        _ => batch.push(event(None)),
    }
    batch.append(&mut changes);
    for news in found {
        // Of who entered a container it is the container that is told of.
        let about = shared.registry().about(&news.finding().container);
        let notice = Notice::at(*record.header(), What::Finding(news));
        batch.push(Event { actor: actor.clone(), ..Event::notice(notice, about) });
    }
}

/// Which of the descriptors are ready, after `timeout` at the latest.
fn wait(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // Rounded up: a rest below a millisecond would spin.
    let timeout =
        PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect())
}

/// Watches the folders of state files, as far as they exist.
struct StateWatch {
    roots: Vec<Root>,
    inotify: Option<Inotify>,
    watched: Vec<PathBuf>,
}

impl StateWatch {
    fn new(roots: Vec<Root>) -> Self {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags)
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot watch state files; they are read once a second");
            })
            .ok();
        let mut watch = Self { roots, inotify, watched: Vec::new() };
        watch.renew();
        watch
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Whether something has changed that was not read yet. A state folder may have been made only now.
    fn has_changes(&self) -> io::Result<bool> {
        let is_new = |root: &Root| {
            let folder = root.folder();
            !self.watched.iter().any(|path| path == folder) && folder.exists()
        };
        let Some(fd) = self.fd() else { return Ok(true) };
        Ok(self.roots.iter().any(is_new) || wait(&[fd], Duration::ZERO)?[0])
    }

    /// Watches what has been made since; says whether there was any, and that where nothing can be watched.
    fn renew(&mut self) -> bool {
        let Some(inotify) = &self.inotify else { return true };
        let mut wanted: Vec<PathBuf> = Vec::new();
        for root in &self.roots {
            wanted.push(root.folder().to_owned());
            // Also those without a file: it may come later, as runc's does.
            wanted.extend(state_file::folders(root));
        }
        self.watched.retain(|path| wanted.contains(path) && path.exists());
        let kept = self.watched.len();
        for path in wanted {
            if !self.watched.contains(&path) {
                let flags = AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_ONLYDIR;
                if inotify.add_watch(&path, flags).is_ok() {
                    self.watched.push(path);
                }
            }
        }
        self.watched.len() > kept
    }

    /// Reads what changed; the state files themselves say what it means.
    fn read(&mut self) {
        if let Some(inotify) = &self.inotify {
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        self.renew();
    }
}
