//! What `run --explain` shows: each step of making a container, what one would type in a shell for it, and how long it took.
//!
//! A recorder for the whole process, off unless somebody turns it on; a step then costs the load of a flag, and no function
//! between here and the command line has to carry it. The container's first process is a copy of the runtime: it goes on
//! recording, and sends its steps over the socket (`sync.rs`).

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest command that is kept, in bytes: a step crosses the socket in one message.
const LONGEST: usize = 1500;

static RECORDING: AtomicBool = AtomicBool::new(false);
static INSIDE: AtomicBool = AtomicBool::new(false);
static STEPS: Mutex<Vec<Step>> = Mutex::new(Vec::new());

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is called: a system call, a kind of thing that is made.
    pub name: String,
    /// What would do the same in a shell; what no program does is a comment.
    pub command: String,
    /// Whether the container's first process does it; else the runtime.
    pub inside: bool,
    /// When it began: `CLOCK_MONOTONIC`, in nanoseconds.
    pub start_ns: u64,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
}

/// Turns the recorder on.
pub fn record() {
    RECORDING.store(true, Ordering::Relaxed);
}

/// Whether steps are recorded.
pub(crate) fn is_recording() -> bool {
    RECORDING.load(Ordering::Relaxed)
}

/// The steps since the last call, in the order in which they began.
pub fn take() -> Vec<Step> {
    let mut steps = std::mem::take(&mut *lock());
    steps.sort_by_key(|step| step.start_ns);
    steps
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Step>> {
    // Whoever panicked while it held the lock left a list that is whole.
    STEPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// From here on this is the container's first process; the runtime has its own copy of what was recorded before.
pub(crate) fn enter() {
    if is_recording() {
        INSIDE.store(true, Ordering::Relaxed);
        lock().clear();
    }
}

/// Adds a step that the first process has sent.
pub(crate) fn add(step: Step) {
    lock().push(step);
}

/// The program was executed just now: that is how long the last step, execve, took.
pub(crate) fn executed() {
    if is_recording()
        && let Some(step) = lock().last_mut().filter(|step| step.name == EXECVE)
    {
        step.duration_ns = now().saturating_sub(step.start_ns).max(1);
    }
}

/// The step whose end only the runtime sees.
pub(crate) const EXECVE: &str = "execve";

/// The beginning of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer(Option<u64>);

/// Begins a step, if they are recorded.
pub(crate) fn timer() -> Timer {
    Timer(is_recording().then(now))
}

impl Timer {
    /// Ends the step.
    pub(crate) fn note(self, name: &str, command: impl FnOnce() -> String) {
        let Some(start_ns) = self.0 else { return };
        // At least one: what takes less than the clock can tell was done all the same.
        let duration_ns = now().saturating_sub(start_ns).max(1);
        let mut command = command();
        if command.len() > LONGEST {
            command.truncate(command.floor_char_boundary(LONGEST));
            command.push('…');
        }
        let inside = INSIDE.load(Ordering::Relaxed);
        lock().push(Step { name: name.to_owned(), command, inside, start_ns, duration_ns });
    }
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `text` as one word of a shell.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+./:=,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        for (text, expected) in [
            ("/a-b_c.d", "/a-b_c.d"),
            ("a b", "'a b'"),
            ("", "''"),
            ("it's", r"'it'\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(word(text), expected);
        }
    }

    #[test]
    fn nothing_is_recorded_unless_asked_for() {
        timer().note("mount", || unreachable!("nobody asked for it"));
        record();
        timer().note("mount", || "é".repeat(2000));
        let steps = take();
        assert_eq!(steps.len(), 1);
        assert!(steps[0].duration_ns > 0 && steps[0].command.len() <= LONGEST + '…'.len_utf8());
        assert!(take().is_empty());
    }
}
