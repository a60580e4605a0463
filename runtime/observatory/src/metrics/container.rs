//! Who the containers are, and what state they are in.

use super::answer::Row;
use super::family::{Family, counter, gauge, histogram};
use super::page::{Number, Page, label};
use crate::attribution::{Container, State};
use crate::lives::Reason;
use std::sync::LazyLock;

pub const INFO: Family =
    gauge("terrarium_container_info", "What is known of a container; always 1.")
        .with(&["image", "runtime", "pod", "pod_namespace", "cgroup_driver"]);

pub const STATE: Family =
    gauge("terrarium_container_state", "1 for the state that a container is in, else 0.")
        .with(&["state"]);

pub const STARTS: Family = counter(
    "terrarium_container_starts_total",
    "How often the container's first process, number 1 of its pid namespace, executed the container's program.",
);

pub const EXITS: Family = counter(
    "terrarium_container_exits_total",
    "How often that process ended: exit by itself with status 0, error with another.",
)
.with(&["reason"]);

/// A histogram of the prometheus crate, of no container in particular.
pub const START: Family = histogram(
    "terrarium_container_start_duration_seconds",
    "From the making of a container's cgroup to the execution of its program, whoever started it.",
);

/// A histogram of the prometheus crate, of no container in particular.
pub const START_PHASE: Family = histogram(
    "terrarium_container_start_phase_duration_seconds",
    "The parts of that, which add up to it: cgroup to its first process, clone from there on, userns from the first write to a map of ids, network from the runtime's first socket of rtnetlink, mounts from the first mount, pivot the change of the root, hooks while another program is waited for, seccomp the loading of the filter, exec from the change of the root to the program.",
)
.with(&["phase"]);

pub const LAST_START: Family = gauge(
    "terrarium_container_last_start_phase_seconds",
    "The same parts of the container's last start, as far as it was seen from its beginning; told for ten minutes after the container was made.",
)
.with(&["phase"]);

/// How long after a container was made its start is told of: long enough for any scraper, and then no series more.
const START_TOLD_FOR: time::Duration = time::Duration::minutes(10);

/// The longest value of a label that a container's maker has chosen, bytes.
const LABEL_BYTES: usize = 128;

/// The labels of [`STATE`], as text.
static STATES: LazyLock<Vec<String>> =
    LazyLock::new(|| State::ALL.iter().map(|state| label("state", state.name())).collect());

/// Those of [`EXITS`].
static REASONS: LazyLock<Vec<String>> =
    LazyLock::new(|| Reason::ALL.iter().map(|reason| label("reason", reason.name())).collect());

/// The labels of [`INFO`]. Of those that its maker gave a container only those `allowed` are shown, by the names beside them.
pub fn info_labels(container: &Container, allowed: &[(String, String)]) -> String {
    let known = [
        ("image", &container.image),
        ("runtime", &container.runtime),
        ("pod", &container.pod),
        ("pod_namespace", &container.pod_namespace),
        ("cgroup_driver", &container.cgroup_driver),
    ];
    let mut labels: String = known.iter().map(|(name, value)| label(name, value)).collect();
    for (own, name) in allowed {
        let value = container.labels.get(own).map_or("", String::as_str);
        labels += &label(name, &value[..value.floor_char_boundary(LABEL_BYTES)]);
    }
    labels
}

/// Writes what is known of a container.
pub fn write_info(row: &Row, page: &mut Page) {
    page.value(INFO.name, "", row.who(), &row.labels.info, Number::Plain(1));
}

/// Writes the state of a container.
pub fn write_state(row: &Row, page: &mut Page) {
    let now = row.observed.snapshot.state();
    for (state, label) in State::ALL.iter().zip(&*STATES) {
        page.value(STATE.name, "", row.who(), label, Number::Plain(u64::from(*state == now)));
    }
}

/// Writes how often a container started.
pub fn write_starts(row: &Row, page: &mut Page) {
    page.counter(STARTS.name, row.who(), "", row.life.starts);
}

/// Writes how often it ended.
pub fn write_exits(row: &Row, page: &mut Page) {
    for (label, count) in REASONS.iter().zip(row.life.exits) {
        page.counter(EXITS.name, row.who(), label, count);
    }
}

/// Writes how long the parts of its last start took.
pub fn write_last_start(row: &Row, page: &mut Page) {
    if row.observed.age() > START_TOLD_FOR {
        return;
    }
    for (phase, ns) in row.life.phases() {
        let label = label("phase", phase.name());
        page.value(LAST_START.name, "", row.who(), &label, Number::Nanoseconds(ns));
    }
}

/// The name under which a label of a container is shown: every character that Prometheus does not take becomes `_`.
pub fn label_name(label: &str) -> String {
    let own = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    "label_".chars().chain(own).collect()
}
