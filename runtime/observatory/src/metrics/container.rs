//! Who the containers are, and what state they are in.

use super::family::{Family, counter, gauge, histogram};
use super::page::{Number, Page, label};
use crate::attribution::State;
use crate::lives::{Phase, Reason};
use crate::sample::Observed;
use crate::shared::Shared;
use std::sync::PoisonError;
use time::OffsetDateTime;

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

/// Writes what is known of containers, each with the beginning of its labels. Of the labels that their makers gave them
/// only those `allowed` are shown, as `label_<name>`.
pub fn write_info(page: &mut Page, containers: &[(&Observed, &str)], allowed: &[String]) {
    page.family(&INFO);
    let allowed: Vec<(&String, String)> = allowed.iter().map(|l| (l, label_name(l))).collect();
    for (observed, who) in containers {
        let container = &observed.snapshot.container;
        let mut labels: String = [
            ("image", &container.image),
            ("runtime", &container.runtime),
            ("pod", &container.pod),
            ("pod_namespace", &container.pod_namespace),
            ("cgroup_driver", &container.cgroup_driver),
        ]
        .iter()
        .map(|(name, value)| label(name, value))
        .collect();
        for (own, name) in &allowed {
            let value = container.labels.get(*own).map_or("", String::as_str);
            labels += &label(name, &value[..value.floor_char_boundary(LABEL_BYTES)]);
        }
        page.value(INFO.name, "", who, &labels, Number::Plain(1));
    }
}

/// Writes the state of each container.
pub fn write_state(page: &mut Page, containers: &[(&Observed, &str)]) {
    page.family(&STATE);
    let labels = State::ALL.map(|state| (state, label("state", state.name())));
    for (observed, who) in containers {
        let now = observed.snapshot.state();
        for (state, label) in &labels {
            page.value(STATE.name, "", who, label, Number::Plain(u64::from(*state == now)));
        }
    }
}

/// Writes how often each container started and ended.
pub fn write_lives(page: &mut Page, containers: &[(&Observed, &str)], shared: &Shared) {
    let lives = shared.lives.lock().unwrap_or_else(PoisonError::into_inner);
    page.family(&STARTS);
    for (observed, who) in containers {
        page.counter(STARTS.name, who, "", lives.of(&observed.snapshot.container.path).starts);
    }
    page.family(&EXITS);
    let labels = Reason::ALL.map(|reason| label("reason", reason.name()));
    for (observed, who) in containers {
        let life = lives.of(&observed.snapshot.container.path);
        for (count, label) in life.exits.iter().zip(&labels) {
            page.counter(EXITS.name, who, label, *count);
        }
    }
    page.family(&LAST_START);
    let now = OffsetDateTime::now_utc();
    let labels = Phase::ALL.map(|phase| label("phase", phase.name()));
    for (observed, who) in containers {
        if now - observed.snapshot.started > START_TOLD_FOR {
            continue;
        }
        for (phase, ns) in lives.of(&observed.snapshot.container.path).phases() {
            let label = &labels[phase as usize];
            page.value(LAST_START.name, "", who, label, Number::Nanoseconds(ns));
        }
    }
}

/// The name under which a label of a container is shown: every character that Prometheus does not take becomes `_`.
fn label_name(label: &str) -> String {
    let own = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    "label_".chars().chain(own).collect()
}
