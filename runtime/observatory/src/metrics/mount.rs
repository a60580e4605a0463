//! Mount operations.

use super::family::{Counted, Shape, counter, histogram, no_labels, none_known, result};
use terrarium_abi::counter::family;
use terrarium_abi::{Kind, MountOp};

pub const OPERATIONS: Counted = Counted {
    family: counter("terrarium_mount_operations_total", "Calls of mount and its relatives."),
    counts: family::MOUNT,
    shape: Shape::Count,
    known: || {
        let of = |op| [Kind::mount(op, false), Kind::mount(op, true)];
        MountOp::ALL.into_iter().flat_map(of).collect()
    },
    labels: |[op, _, failed]| {
        let op = MountOp::ALL.get(usize::from(op)).map_or("other", |op| op.name());
        vec![("op", op), result(failed)]
    },
};

pub const DURATION: Counted = Counted {
    family: histogram("terrarium_mount_duration_seconds", "Time spent in mount operations."),
    counts: family::MOUNT_TIME,
    shape: Shape::Durations { sum: family::MOUNT_TIME_SUM },
    known: none_known,
    labels: no_labels,
};
