//! Tasks that move between cgroups.

use super::family::{Counted, Shape, counter};
use terrarium_abi::Kind;
use terrarium_abi::counter::family;

pub const MIGRATIONS: Counted = Counted {
    family: counter(
        "terrarium_cgroup_migrations_total",
        "Tasks moved into a cgroup and, where the kernel lets its functions be hooked, out of one.",
    ),
    counts: family::CGROUP_ATTACH,
    shape: Shape::Count,
    known: || [0, 1].map(|out| Kind::new(family::CGROUP_ATTACH, [out, 0, 0])).to_vec(),
    labels: |[out, _, _]| vec![("direction", if out == 0 { "in" } else { "out" })],
};
