//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long a thing that takes milliseconds may take on a loaded machine, or an emulated one.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Tries until `attempt` succeeds and gives its value.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, attempt)
        .unwrap_or_else(|reason| panic!("{what}: not within {PATIENCE:?}: {reason}"))
}

/// Tries until `attempt` succeeds or `limit` is over; then the last reason is the error.
pub fn within<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(reason) if start.elapsed() >= limit => return Err(reason),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
