//! The last events, and the readers who follow them.
//!
//! There is one list, bounded in number and bytes. A reader keeps only its place in it, so a slow one costs nothing:
//! when the list has gone on without it, it learns how much it missed.

use crate::attribution::Attribution;
use crate::event::decode::Record;
use crate::event::notice::Notice;
use crate::leaks::events::{Actor, Role};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use terrarium_abi::{NsKind, Probe};
use tokio::sync::watch;

/// An event: a record, or the part of it that concerns one namespace.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number in the history, from 1.
    pub number: u64,
    /// What the kernel told.
    pub record: Arc<Record>,
    /// The namespace that this event is about, for records that concern several.
    pub namespace: Option<NsKind>,
    /// Whose event it is.
    pub attribution: Attribution,
    /// Who did it.
    pub actor: Actor,
    /// Whose the target is, where the kernel told its cgroup.
    pub target: Option<Attribution>,
    /// Records that the kernel side lost before this one.
    pub lost_before: u64,
}

impl Event {
    /// One that the observatory itself tells.
    pub fn notice(notice: Notice, about: Attribution) -> Self {
        let role = if about.container.is_some() { Role::Workload } else { Role::Foreign };
        Self {
            number: 0,
            record: Arc::new(Record::Notice(Box::new(notice))),
            namespace: None,
            attribution: about,
            actor: Actor { role, exe: None },
            target: None,
            lost_before: 0,
        }
    }

    /// Bytes that it holds, about.
    fn size(&self) -> usize {
        let record = usize::from(self.record.header().size);
        size_of::<Self>() + record + self.attribution.path.len() + 64
    }
}

/// Which events a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of the container with this name, id or cgroup path; `host` for those of none.
    pub container: Option<String>,
    /// Only of this probe.
    pub probe: Option<Probe>,
}

impl Filter {
    /// Whether the reader wants this event.
    pub fn wants(&self, event: &Event) -> bool {
        if self.probe.is_some_and(|probe| Some(probe) != event.record.probe()) {
            return false;
        }
        match (&self.container, &event.attribution.container) {
            (None, _) => true,
            (Some(wanted), None) => wanted == "host",
            (Some(wanted), Some(container)) => {
                [&container.name, &container.id, &container.path].contains(&wanted)
            }
        }
    }
}

/// Bounds of a history.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Events.
    pub events: usize,
    /// Bytes, about.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events: 16_384, bytes: 8 << 20 }
    }
}

struct List {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    next: u64,
}

/// The last events.
pub struct History {
    list: Mutex<List>,
    bounds: Bounds,
    newest: watch::Sender<u64>,
    /// Events that readers missed because they were slow.
    missed: AtomicU64,
}

impl History {
    /// An empty history.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            list: Mutex::new(List { events: VecDeque::new(), bytes: 0, next: 1 }),
            bounds,
            newest: watch::channel(0).0,
            missed: AtomicU64::new(0),
        }
    }

    /// Adds a batch of events; their numbers are given here.
    pub fn add(&self, batch: Vec<Event>) {
        if batch.is_empty() {
            return;
        }
        let mut list = self.list();
        for mut event in batch {
            event.number = list.next;
            list.next += 1;
            list.bytes += event.size();
            list.events.push_back(Arc::new(event));
            while list.events.len() > self.bounds.events || list.bytes > self.bounds.bytes {
                let Some(oldest) = list.events.pop_front() else { break };
                list.bytes -= oldest.size();
            }
        }
        let newest = list.next - 1;
        drop(list);
        self.newest.send_replace(newest);
    }

    /// A reader that begins with the oldest event there is.
    pub fn reader(self: &Arc<Self>, filter: Filter) -> Reader {
        let next = {
            let list = self.list();
            list.events.front().map_or(list.next, |event| event.number)
        };
        Reader { history: Arc::clone(self), filter, next, newest: self.newest.subscribe() }
    }

    /// Events that slow readers missed.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    fn list(&self) -> std::sync::MutexGuard<'_, List> {
        // Nothing that can panic runs under the lock in the middle of a change.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the history.
pub struct Reader {
    history: Arc<History>,
    filter: Filter,
    next: u64,
    newest: watch::Receiver<u64>,
}

/// What a reader gets at a time.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events that it wants, in order.
    pub events: Vec<Arc<Event>>,
    /// Events that were gone before it came; some of them it may not have wanted.
    pub missed: u64,
}

impl Reader {
    /// The next events, at most `max` of those it looks at; empty when there are no more yet.
    pub fn read(&mut self, max: usize) -> Batch {
        let batch = self.read_quietly(max);
        self.history.missed.fetch_add(batch.missed, Ordering::Relaxed);
        batch
    }

    /// The same, without counting what was missed as a loss of the stream.
    pub fn read_quietly(&mut self, max: usize) -> Batch {
        let list = self.history.list();
        let mut batch = Batch::default();
        let Some(first) = list.events.front().map(|event| event.number) else { return batch };
        if self.next < first {
            batch.missed = first - self.next;
            self.next = first;
        }
        let start = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        for event in list.events.iter().skip(start).take(max) {
            self.next = event.number + 1;
            if self.filter.wants(event) {
                batch.events.push(Arc::clone(event));
            }
        }
        batch
    }

    /// Whether the reader has seen everything.
    pub fn at_end(&self) -> bool {
        self.next > *self.newest.borrow()
    }

    /// Waits until there is something to read. False when the history is gone.
    pub async fn wait(&mut self) -> bool {
        let next = self.next;
        self.newest.wait_for(|newest| *newest >= next).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::Outcome;

    fn event() -> Event {
        let mut bytes = [0_u8; 96];
        bytes[0] = 96;
        bytes[2] = 3;
        Event {
            number: 0,
            record: Arc::new(Record::decode(&bytes).expect("an exit record")),
            namespace: None,
            attribution: Attribution {
                container: None,
                cgroup_id: 1,
                path: Arc::from("/"),
                outcome: Outcome::Exact,
            },
            actor: Actor { role: Role::Foreign, exe: None },
            target: None,
            lost_before: 0,
        }
    }

    #[test]
    fn a_slow_reader_learns_what_it_missed() {
        let history = Arc::new(History::new(Bounds { events: 3, bytes: 1 << 20 }));
        let mut reader = history.reader(Filter::default());
        history.add(vec![event(), event()]);
        let batch = reader.read(1);
        assert_eq!((batch.events.len(), batch.missed), (1, 0));
        history.add((0..5).map(|_| event()).collect());
        let batch = reader.read(100);
        assert_eq!(batch.events.iter().map(|e| e.number).collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!(batch.missed, 3);
        assert_eq!(history.missed(), 3);
        assert!(reader.at_end());
        assert!(reader.read(100).events.is_empty());
    }

    #[test]
    fn a_filter_leaves_out_other_containers_and_probes() {
        let history = Arc::new(History::new(Bounds::default()));
        history.add(vec![event()]);
        for (container, probe, expected) in [
            (None, None, 1),
            (Some("host"), None, 1),
            (Some("web"), None, 0),
            (None, Some(Probe::Task), 1),
            (None, Some(Probe::Mount), 0),
        ] {
            let filter = Filter { container: container.map(str::to_owned), probe };
            assert_eq!(history.reader(filter).read(10).events.len(), expected);
        }
    }
}
