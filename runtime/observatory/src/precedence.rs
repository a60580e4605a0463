//! Answers to scrapes come before looks for leaks, which nobody waits for.
//!
//! Looks are nice (nice(2)), but where processors are few that is not enough: the thread of a look that runs on one of them keeps the
//! threads of an answer from being placed there.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So long a look waits for one answer: a client that takes its answer slowly does not hold looks up.
const AT_MOST: Duration = Duration::from_millis(50);

/// How often a look that waits sees whether it may go on.
const PAUSE: Duration = Duration::from_micros(500);

/// What times are reckoned from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Until when looks wait, in nanoseconds since [`START`]; 0: they need not.
static WAIT_UNTIL: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// An answer that is being made.
pub struct Answering(());

impl Answering {
    /// Has looks wait, until this is dropped or [`AT_MOST`] has passed.
    pub fn begin() -> Self {
        let until = now() + u64::try_from(AT_MOST.as_nanos()).unwrap_or(0);
        WAIT_UNTIL.store(until, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        WAIT_UNTIL.store(0, Ordering::Relaxed);
    }
}

/// Waits while an answer is being made. For every few tenths of a millisecond of a look.
pub fn give_way() {
    loop {
        let until = WAIT_UNTIL.load(Ordering::Relaxed);
        if until == 0 || until <= now() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_waits_for_an_answer_but_not_for_long() {
        let answering = Answering::begin();
        let began = Instant::now();
        give_way();
        assert!(began.elapsed() + PAUSE >= AT_MOST);
        drop(answering);
        let answering = Answering::begin();
        let ending = std::thread::spawn(move || drop(answering));
        give_way();
        assert!(ending.join().is_ok());
        assert_eq!(WAIT_UNTIL.load(Ordering::Relaxed), 0);
    }
}
