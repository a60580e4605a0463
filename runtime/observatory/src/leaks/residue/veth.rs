//! `residue-veth`: a cable is still plugged in.

use super::{Look, ResidueCheck, finding};
use crate::leaks::{Evidence, Finding, Severity};

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-veth",
    severity: Severity::Medium,
    seen: "the host's end of a veth pair of a container that has ended",
    why: "It takes a place on the bridge, and its name; addresses and routes on it still answer.",
    sources: &["veth(4)"],
    remedy: "`terrarium gc` removes it; else `ip link delete`",
    left,
};

fn left(look: &Look<'_>) -> Vec<Finding> {
    let Some(veth) = &look.ended.veth else { return Vec::new() };
    let path = look.places.sys.join("class/net").join(veth);
    if !path.exists() {
        return Vec::new();
    }
    let path = path.display().to_string();
    let value = std::fs::read_to_string(format!("{path}/ifindex")).unwrap_or_default();
    vec![finding(
        &CHECK,
        &look.ended.name,
        veth,
        format!("interface {veth} is there"),
        vec![Evidence { kind: "file", path, value: format!("index {}", value.trim()) }],
    )]
}
