//! Who the containers are, and what state they are in.

use super::family::{Family, gauge};
use super::page::{Number, Page, label};
use crate::attribution::State;
use crate::sample::Observed;

pub const INFO: Family =
    gauge("terrarium_container_info", "What is known of a container; always 1.")
        .with(&["image", "runtime", "pod", "pod_namespace", "cgroup_driver"]);

pub const STATE: Family =
    gauge("terrarium_container_state", "1 for the state that a container is in, else 0.")
        .with(&["state"]);

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

/// The name under which a label of a container is shown: every character that Prometheus does not take becomes `_`.
fn label_name(label: &str) -> String {
    let own = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    "label_".chars().chain(own).collect()
}
