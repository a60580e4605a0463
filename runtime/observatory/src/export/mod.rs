//! Events beyond this machine's HTTP side: JSON lines in a file, and `OpenTelemetry` collectors.
//!
//! Each has a thread with a place of its own in the history: one that is slow misses events, which are counted, and slows
//! nobody down.

mod file;
mod otlp;

pub use file::EventsFile;
pub use otlp::{Collector, CollectorError};

use crate::event::history::{Filter, History, Reader};
use crate::event::json::{self, Context};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often what has come is handed on.
const PERIOD: Duration = Duration::from_millis(500);

/// Events handed on at a time.
const BATCH: usize = 512;

/// Takes lines of `terrarium.event/v1`.
pub trait Sink: Send {
    /// Takes these lines; after an error the same ones come again.
    fn take(&mut self, lines: &[String]) -> io::Result<()>;
}

/// A sink at work. It ends, after a last attempt, when this is dropped.
pub struct Export {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Export {
    /// Starts handing on what comes from now on, and what the history still has.
    pub fn start(
        name: &'static str,
        sink: Box<dyn Sink>,
        history: &Arc<History>,
        context: Context,
    ) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let reader = history.reader(Filter::default());
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || hand_on(name, sink, reader, &context, &ended))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the export of events panicked");
        }
    }
}

fn hand_on(
    name: &str,
    mut sink: Box<dyn Sink>,
    mut reader: Reader,
    context: &Context,
    ended: &mpsc::Receiver<()>,
) {
    let mut seq = 0;
    let mut lines = Vec::new();
    let mut failing = false;
    loop {
        let going = ended.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout);
        loop {
            if lines.is_empty() {
                let batch = reader.read(BATCH);
                let offset = json::wall_offset();
                let mut missed = batch.missed;
                for event in &batch.events {
                    seq += 1;
                    lines.push(json::line(
                        event,
                        context,
                        seq,
                        std::mem::take(&mut missed),
                        offset,
                    ));
                }
            }
            if lines.is_empty() {
                break;
            }
            match sink.take(&lines) {
                Ok(()) => lines.clear(),
                Err(error) => {
                    // Once, not twice a second.
                    if !failing {
                        tracing::warn!(%error, "cannot export events to the {name}; trying on");
                    }
                    failing = true;
                    break;
                }
            }
            failing = false;
        }
        if !going {
            return;
        }
    }
}
