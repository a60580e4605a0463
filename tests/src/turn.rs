//! Tests that would see each other's containers take turns.

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;

/// Waits until no other test holds its turn, in this process or another; the turn ends when this goes.
///
/// Findings compare a container with all others of the host: two tests that map the host's root at the same time overlap.
#[must_use]
pub fn take() -> Flock<File> {
    // Every process of these tests has this file, and none leaves it behind.
    let program = File::open("/proc/self/exe").expect("the test's own program is there");
    Flock::lock(program, FlockArg::LockExclusive).expect("a file that is open can be locked")
}
