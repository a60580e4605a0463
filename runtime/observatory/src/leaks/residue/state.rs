//! `residue-state`: its folder is still there.

use super::{Ended, Look, ResidueCheck, finding};
use crate::leaks::{Evidence, Finding, Severity};

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-state",
    severity: Severity::Medium,
    seen: "the folder of a container whose runtime ended before it could remove it",
    why: "Its name stays taken, and commands tell of a container that is none.",
    sources: &["https://github.com/opencontainers/runtime-spec/blob/main/runtime.md"],
    remedy: "`terrarium gc` removes it",
    left,
};

fn left(look: &Look<'_>) -> Vec<Finding> {
    let is_left = look.ended.forgotten && look.ended.folder.is_dir();
    is_left.then(|| of_folder(look.ended)).into_iter().collect()
}

/// That the folder is there.
pub(super) fn of_folder(ended: &Ended) -> Finding {
    let path = ended.folder.display().to_string();
    finding(
        &CHECK,
        &ended.name,
        &path,
        format!("the folder {path} is there, and nobody works on it"),
        vec![Evidence { kind: "file", path: path.clone(), value: "a folder".to_owned() }],
    )
}
