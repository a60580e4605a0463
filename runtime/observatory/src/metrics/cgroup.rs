//! Tasks that move between cgroups.

use super::family::{Counted, Shape, counter};
use terrarium_abi::Kind;
use terrarium_abi::counter::family;

pub const MIGRATIONS: Counted = Counted {
    family: counter("terrarium_cgroup_migrations_total", "Tasks moved into a cgroup."),
    counts: family::CGROUP_ATTACH,
    shape: Shape::Count,
    known: || vec![Kind::new(family::CGROUP_ATTACH, [0; 3])],
    labels: |_| vec![("direction", "in")],
};
