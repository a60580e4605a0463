//! Guarded calls: what escapes are made of.

use super::family::{Counted, Shape, counter, result};
use terrarium_abi::counter::family;
use terrarium_abi::{GuardEvent, Kind};

pub const EVENTS: Counted = Counted {
    family: counter(
        "terrarium_guard_events_total",
        "Calls that escapes from containers are made of, tried or done, and some that containers are made of.",
    ),
    counts: family::GUARD,
    shape: Shape::Count,
    known: || {
        let of = |event| [Kind::guard(event, false), Kind::guard(event, true)];
        GuardEvent::ALL.into_iter().flat_map(of).collect()
    },
    labels: |[event, _, failed]| {
        let event = GuardEvent::ALL.get(usize::from(event)).map_or("other", |event| event.name());
        vec![("event", event), result(failed)]
    },
};
