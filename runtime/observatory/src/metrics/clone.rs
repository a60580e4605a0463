//! Processes and threads made.

use super::family::{Counted, Shape, counter};
use terrarium_abi::Kind;
use terrarium_abi::counter::family;

/// The numbers of errors that have a name of their own.
const ERRORS: [(u8, &str); 5] =
    [(11, "EAGAIN"), (12, "ENOMEM"), (1, "EPERM"), (22, "EINVAL"), (28, "ENOSPC")];

pub const TOTAL: Counted = Counted {
    family: counter(
        "terrarium_clone_total",
        "Processes and threads made, counted for the new one's cgroup.",
    ),
    counts: family::CLONE,
    shape: Shape::Count,
    known: || [0, 1].map(|thread| Kind::new(family::CLONE, [thread, 0, 0])).to_vec(),
    labels: |[thread, ..]| vec![("kind", if thread == 0 { "process" } else { "thread" })],
};

pub const FAILURES: Counted = Counted {
    family: counter("terrarium_clone_failures_total", "Clones that the kernel refused, by error."),
    counts: family::CLONE_FAILED,
    shape: Shape::Count,
    known: || ERRORS.map(|(errno, _)| Kind::new(family::CLONE_FAILED, [errno, 0, 0])).to_vec(),
    labels: |[number, ..]| {
        let name = ERRORS.iter().find(|(errno, _)| *errno == number).map_or("other", |e| e.1);
        vec![("errno", name)]
    },
};
