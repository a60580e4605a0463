//! Who the containers are, and what state they are in.

use super::builder::Builder;
use super::family::{Family, gauge};
use crate::attribution::State;
use crate::attribution::registry::Snapshot;

pub const INFO: Family =
    gauge("terrarium_container_info", "What is known of a container; always 1.");

pub const STATE: Family =
    gauge("terrarium_container_state", "1 for the state that a container is in, else 0.");

/// Fills both in for one container.
pub fn fill(out: &mut Builder, snapshot: &Snapshot) {
    let container = &snapshot.container;
    let (id, name) = (("id", container.path.as_str()), ("name", container.name.as_str()));
    out.gauge(
        INFO.name,
        &[
            id,
            name,
            ("image", &container.image),
            ("runtime", &container.runtime),
            ("pod", &container.pod),
            ("pod_namespace", &container.pod_namespace),
            ("cgroup_driver", &container.cgroup_driver),
        ],
        1,
    );
    for state in State::ALL {
        let labels = [id, name, ("state", state.name())];
        out.gauge(STATE.name, &labels, u64::from(state == snapshot.state()));
    }
}
