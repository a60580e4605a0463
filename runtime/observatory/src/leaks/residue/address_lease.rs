//! `residue-address-lease`: its address is still leased.

use super::{Look, Owned, ResidueCheck, entries, networks, owned};
use crate::leaks::{Finding, Places, Severity};

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-address-lease",
    severity: Severity::Medium,
    seen: "an address is still leased to a container that has ended",
    why: "Nobody else gets it, and a network has only so many.",
    sources: &["https://www.cni.dev/plugins/current/ipam/host-local/"],
    remedy: "`terrarium gc` releases it",
    left,
};

fn left(look: &Look<'_>) -> Vec<Finding> {
    look.own(all(look.places))
}

/// Of every container.
pub(super) fn all(places: &Places) -> Vec<Owned> {
    let mut all = Vec::new();
    for (bridge, folder) in networks(places) {
        for lease in entries(&folder.join("leases")) {
            let address = lease.file_name().to_string_lossy().into_owned();
            if address.parse::<std::net::IpAddr>().is_ok() {
                let owner = std::fs::read_to_string(lease.path()).unwrap_or_default();
                let what = format!("address {address} of network {bridge} is leased");
                all.push(owned(owner, &CHECK, &lease.path(), what));
            }
        }
    }
    all
}
