//! `residue-nft-rule`: its ports are still published.

use super::{Look, Owned, ResidueCheck, entries, networks, owned};
use crate::leaks::{Finding, Places, Severity};

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-nft-rule",
    severity: Severity::Medium,
    seen: "ports are still published for a container that has ended",
    why: "What comes for the port goes to an address that another container may have by now.",
    sources: &["nft(8)"],
    remedy: "`terrarium gc` removes the rules",
    left,
};

fn left(look: &Look<'_>) -> Vec<Finding> {
    look.own(all(look.places))
}

/// Of every container.
pub(super) fn all(places: &Places) -> Vec<Owned> {
    let mut all = Vec::new();
    for (bridge, folder) in networks(places) {
        for ports in entries(&folder.join("published")) {
            let name = ports.file_name().to_string_lossy().into_owned();
            if let Some(owner) = name.strip_suffix(".json") {
                let what = format!("ports are published on network {bridge}");
                all.push(owned(owner.to_owned(), &CHECK, &ports.path(), what));
            }
        }
    }
    all
}
