//! Mount operations as JSON.

use super::decode::text;
use super::flag_names::{self, names};
use serde_json::{Value, json};
use terrarium_abi::{Mount, MountOp};

/// The name of an operation.
pub fn op_name(number: u32) -> &'static str {
    op(number).map_or("other", MountOp::name)
}

fn op(number: u32) -> Option<MountOp> {
    usize::try_from(number).ok().and_then(|index| MountOp::ALL.get(index)).copied()
}

/// The object `mount`.
pub fn payload(record: &Mount) -> Value {
    let op = op(record.op);
    let source = text(&record.source);
    let mut mount = json!({
        "op": op.map_or("other", MountOp::name),
        "source": source,
        "target": text(&record.target),
        "fstype": text(&record.fstype),
        "flags": record.flags,
        "flag_names": flag_names_of(op, record.flags),
    });
    let data = text(&record.data);
    if op == Some(MountOp::Fsconfig) {
        mount["data"] = json!(if is_secret(&source) { COVERED } else { &data });
    } else if !data.is_empty() {
        mount["data"] = json!(covered(&data));
    }
    if matches!(op, Some(MountOp::Fsmount | MountOp::MountSetattr | MountOp::OpenTreeAttr)) {
        mount["attr_set"] = json!(names(record.attr_set, flag_names::MOUNT_ATTR));
        mount["attr_clr"] = json!(names(record.attr_clr, flag_names::MOUNT_ATTR));
        mount["propagation"] = json!(names(record.propagation, flag_names::MOUNT));
    }
    mount
}

fn flag_names_of(op: Option<MountOp>, flags: u64) -> Vec<&'static str> {
    let table = match op {
        Some(
            MountOp::Mount
            | MountOp::Bind
            | MountOp::Remount
            | MountOp::Move
            | MountOp::Propagation,
        ) => flag_names::MOUNT,
        Some(MountOp::Umount) => flag_names::UMOUNT,
        Some(MountOp::MoveMount) => flag_names::MOVE_MOUNT,
        Some(MountOp::OpenTree | MountOp::OpenTreeAttr) => flag_names::OPEN_TREE,
        Some(MountOp::Fsopen) => flag_names::FSOPEN,
        Some(MountOp::Fsmount) => flag_names::FSMOUNT,
        Some(MountOp::Fspick) => flag_names::FSPICK,
        Some(MountOp::MountSetattr) => flag_names::MOUNT_SETATTR,
        // A command, not bits.
        Some(MountOp::Fsconfig) => {
            let command = flag_names::FSCONFIG.iter().find(|(number, _)| *number == flags);
            return command.map(|(_, name)| *name).into_iter().collect();
        }
        Some(MountOp::PivotRoot) | None => &[],
    };
    names(flags, table)
}

/// Stands where a secret stood.
const COVERED: &str = "…";

/// Options of file systems whose values are secrets, as cifs, 9p and others have them.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "secret", "key", "cred", "token"].iter().any(|word| key.contains(word))
}

/// Options of a file system, the values of secrets covered.
fn covered(data: &str) -> String {
    let option = |option: &str| match option.split_once('=') {
        Some((key, _)) if is_secret(key) => format!("{key}={COVERED}"),
        _ => option.to_owned(),
    };
    data.split(',').map(option).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_covered() {
        assert_eq!(covered("size=1m,mode=755"), "size=1m,mode=755");
        assert_eq!(covered("user=a,password=b,pass=c"), "user=a,password=…,pass=…");
    }
}
