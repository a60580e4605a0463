//! Mounts.

use crate::{Answer, Tally, argument};
use nix::mount::{MsFlags, umount};
use serde_json::json;

/// Where `mount` mounts.
const TARGET: &str = "/tmp/terrarium-workload.mount";

/// `mount N`: N times a tmpfs mounted and unmounted; a mount that fails is not unmounted.
pub(crate) fn mount(arguments: &[&str]) -> Answer {
    let count: u64 = argument(arguments, 0, "number of mounts")?;
    std::fs::create_dir_all(TARGET).map_err(|error| format!("make {TARGET}: {error}"))?;
    let mut mounts = Tally::default();
    let mut umounts = Tally::default();
    for _ in 0..count {
        let mounted =
            nix::mount::mount(Some("tmpfs"), TARGET, Some("tmpfs"), MsFlags::empty(), None::<&str>);
        mounts.add(&mounted);
        if mounted.is_ok() {
            umounts.add(&umount(TARGET));
        }
    }
    std::fs::remove_dir(TARGET).map_err(|error| format!("remove {TARGET}: {error}"))?;
    let mut answer = mounts.answer();
    answer["umounts"] = umounts.answer();
    Ok(json!(answer))
}
