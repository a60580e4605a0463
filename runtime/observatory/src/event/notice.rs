//! What the observatory itself tells in the stream, beside what the kernel tells it: what became of containers, what was found
//! of leaks and residue, and what was lost.

use crate::attribution::State;
use crate::leaks::{Finding, Severity, Source};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use std::time::Duration;
use terrarium_abi::Header;

/// One such event.
#[derive(Debug, Clone)]
pub struct Notice {
    /// When, and of which process where it is one's doing: [`Notice::has_process`].
    pub header: Header,
    /// What.
    pub what: What,
}

/// What a [`Notice`] tells.
#[derive(Debug, Clone)]
pub enum What {
    /// A container is in this state now, and was in none or in that one before.
    Container {
        /// The one that it is in now.
        now: State,
        /// The one before.
        before: Option<State>,
    },
    /// A finding is new, or is no more.
    Finding(News),
    /// So many records were lost in the kernel since this was told last.
    Lost(u64),
}

/// What became of a finding.
#[derive(Debug, Clone)]
pub enum News {
    /// It is new.
    Opened(Box<Finding>),
    /// It is no more.
    Closed(Box<Finding>, Closed),
}

impl News {
    /// The finding.
    pub fn finding(&self) -> &Finding {
        match self {
            Self::Opened(finding) | Self::Closed(finding, _) => finding,
        }
    }
}

/// Why a finding is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The wall stands again, or what was left is gone.
    Mended,
    /// The container has ended.
    ContainerEnded,
}

impl Closed {
    /// The word, as in the event.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mended => "mended",
            Self::ContainerEnded => "container_ended",
        }
    }
}

impl Notice {
    /// One that is no process's doing, now.
    pub fn now(what: What) -> Self {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let mono_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        Self::at(Header { mono_ns, ..Header::default() }, what)
    }

    /// One that a record was the reason of.
    pub fn at(header: Header, what: What) -> Self {
        let finding = match &what {
            What::Finding(news) => {
                let finding = news.finding();
                let evidence = finding.evidence.iter().map(|e| e.path.len() + e.value.len());
                evidence.sum::<usize>() + finding.observed.len() + size_of::<Finding>()
            }
            What::Container { .. } | What::Lost(_) => 0,
        };
        // The history is bounded by what its events say that they hold.
        let size = u16::try_from(size_of::<Self>() + finding).unwrap_or(u16::MAX);
        Self { header: Header { size, ..header }, what }
    }

    /// Whether it was a process's doing.
    pub fn has_process(&self) -> bool {
        self.header.pid != 0
    }

    /// The type: `domain.action`.
    pub fn event_type(&self) -> String {
        let news = match &self.what {
            What::Container { now, .. } => return format!("container.{}", now.name()),
            What::Lost(_) => return "stream.loss".to_owned(),
            What::Finding(news) => news,
        };
        let is_residue = news.finding().source == Source::Residue;
        match (news, is_residue) {
            (News::Opened(_), false) => "finding.open",
            (News::Closed(..), false) => "finding.close",
            (News::Opened(_), true) => "residue.found",
            (News::Closed(..), true) => "residue.gone",
        }
        .to_owned()
    }

    /// How much it matters: `info` or `warning`.
    pub fn severity(&self) -> &'static str {
        match &self.what {
            What::Finding(News::Opened(finding)) if finding.severity >= Severity::High => "warning",
            What::Lost(_) => "warning",
            _ => "info",
        }
    }

    /// Adds what only this kind of event has.
    pub fn payload(&self, object: &mut Map<String, Value>) {
        match &self.what {
            What::Container { now, before } => {
                if let Some(Value::Object(container)) = object.get_mut("container") {
                    container.insert("state".to_owned(), json!(now.name()));
                    let before = before.map(State::name);
                    container.insert("state_before".to_owned(), json!(before));
                }
            }
            What::Finding(news) => {
                let finding = news.finding();
                let mut payload = serde_json::to_value(finding).unwrap_or_default();
                if let Value::Object(payload) = &mut payload {
                    // The event has one of its own, which says more.
                    payload.remove("container");
                    if let News::Closed(_, why) = news {
                        payload.insert("closed".to_owned(), json!(why.name()));
                    }
                }
                let domain = if finding.source == Source::Residue { "residue" } else { "finding" };
                object.insert(domain.to_owned(), payload);
            }
            What::Lost(records) => {
                object.insert("stream".to_owned(), json!({"lost": records}));
            }
        }
    }
}
