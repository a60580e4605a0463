//! Namespaces made and entered.

use crate::task::{code_of, fork_child};
use crate::{Answer, Tally, argument};
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use serde_json::json;
use std::fs::File;

/// A kind of namespace by its name in `/proc/PID/ns`.
fn kind(name: &str) -> Result<CloneFlags, String> {
    Ok(match name {
        "mnt" => CloneFlags::CLONE_NEWNS,
        "net" => CloneFlags::CLONE_NEWNET,
        "user" => CloneFlags::CLONE_NEWUSER,
        "pid" => CloneFlags::CLONE_NEWPID,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "uts" => CloneFlags::CLONE_NEWUTS,
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        _ => return Err(format!("unknown kind of namespace {name}")),
    })
}

/// `unshare KIND N`: N processes, each of which unshares once.
///
/// One process each, because a second `CLONE_NEWPID` of one process is refused and user namespaces nest.
pub(crate) fn unshare(arguments: &[&str]) -> Answer {
    let flag = kind(arguments.first().unwrap_or(&""))?;
    let count: u64 = argument(arguments, 1, "number of unshares")?;
    let mut tally = Tally::default();
    for done in 0..count {
        let code = fork_child(|| match nix::sched::unshare(flag) {
            Ok(()) => 0,
            // Every errno of unshare(2) is below 256.
            Err(errno) => u8::try_from(errno as i32).unwrap_or(u8::MAX),
        })
        .and_then(code_of)
        .map_err(|errno| format!("unshare {done} of {count}: {errno}"))?;
        tally.add(&if code == 0 { Ok(()) } else { Err(Errno::from_raw(code)) });
    }
    let mut answer = tally.answer();
    answer["forks"] = json!(count);
    Ok(answer)
}

/// `setns KIND N`: enters the namespace that the process is already in, N times.
pub(crate) fn setns(arguments: &[&str]) -> Answer {
    let name = *arguments.first().unwrap_or(&"");
    let flag = kind(name)?;
    let count: u64 = argument(arguments, 1, "number of setns")?;
    let path = format!("/proc/self/ns/{name}");
    let namespace = File::open(&path).map_err(|error| format!("open {path}: {error}"))?;
    let mut tally = Tally::default();
    for _ in 0..count {
        tally.add(&nix::sched::setns(&namespace, flag));
    }
    Ok(tally.answer())
}

/// `cap-sys-admin on|off`: raises or lowers `CAP_SYS_ADMIN` in the effective set, so that the kernel refuses what it guards.
pub(crate) fn cap_sys_admin(arguments: &[&str]) -> Answer {
    match arguments {
        ["on"] => caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN),
        ["off"] => caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN),
        _ => return Err("cap-sys-admin takes on or off".to_owned()),
    }
    .map_err(|error| format!("CAP_SYS_ADMIN {}: {error}", arguments[0]))?;
    Ok(json!({}))
}
