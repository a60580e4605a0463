//! Programs started, processes ended.

use super::family::{Counted, Shape, counter, no_labels};
use terrarium_abi::counter::family;
use terrarium_abi::{ExitCause, Kind};

pub const EXEC: Counted = Counted {
    family: counter("terrarium_exec_total", "Programs started."),
    counts: family::EXEC,
    shape: Shape::Count,
    known: || vec![Kind::new(family::EXEC, [0; 3])],
    labels: no_labels,
};

pub const EXIT: Counted = Counted {
    family: counter("terrarium_exit_total", "Processes that ended, by cause."),
    counts: family::EXIT,
    shape: Shape::Count,
    known: || {
        [ExitCause::Exit, ExitCause::Signal, ExitCause::Oom]
            .map(|cause| Kind::new(family::EXIT, [cause as u8, 0, 0]))
            .to_vec()
    },
    labels: |[cause, ..]| {
        let cause = match cause {
            0 => "exit",
            1 => "signal",
            2 => "oom",
            _ => "other",
        };
        vec![("cause", cause)]
    },
};
