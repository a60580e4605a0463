//! Which cgroups are watched. A task of any other pays for one lookup.

use crate::files::{same, short};
use crate::kernel::{CgroupIds, config};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use terrarium_abi::WATCH_V1;

/// The watched cgroups. User space names the first ones; what is made below them is added here, before a task can be in it.
#[map]
static WATCHED: HashMap<u64, u8> = HashMap::with_max_entries(16_384, 0);

/// The name of a task's container in the maps of this file and in those of limits: its cgroup in the unified hierarchy,
/// or, where it has none of its own there, in the v1 memory hierarchy.
#[inline(always)]
pub fn key_of(unified: u64, memory: u64) -> u64 {
    // The root of the unified hierarchy has the id 1.
    if unified <= 1 && memory != 0 { memory | WATCH_V1 } else { unified }
}

/// Whether a task with these cgroups is watched.
#[inline(always)]
pub fn is_watched(unified: u64, memory: u64) -> bool {
    config!(watch) != 1 || knows(key_of(unified, memory))
}

/// Whether a cgroup is watched, whoever is in it.
#[inline(always)]
pub fn cgroup_is_watched(id: u64, hierarchy: u32) -> bool {
    config!(watch) != 1 || knows(key(id, hierarchy))
}

#[inline(always)]
fn key(id: u64, hierarchy: u32) -> u64 {
    if hierarchy == 0 { id } else { id | WATCH_V1 }
}

#[inline(always)]
fn knows(key: u64) -> bool {
    // SAFETY: the value is not looked at.
    unsafe { WATCHED.get(key) }.is_some()
}

/// A cgroup was made: it is watched if the one above it is, or if it is the one of all terrarium's containers.
#[inline(always)]
pub fn made(id: u64, above: u64, hierarchy: u32, path: &[u64; 3]) {
    if config!(watch) != 1 {
        return;
    }
    let own = config!(watch_terrarium) == 1 && same(path, &short(b"/terrarium"));
    if own || knows(key(above, hierarchy)) {
        // A full map leaves the cgroup unwatched, as those that were never named.
        let _ = WATCHED.insert(key(id, hierarchy), 1, 0);
    }
}

/// A cgroup was removed.
#[inline(always)]
pub fn removed(id: u64, hierarchy: u32) {
    if config!(watch) == 1 {
        let _ = WATCHED.remove(key(id, hierarchy));
    }
}

/// The key of a task's cgroups.
#[inline(always)]
pub fn key_of_ids(cgroups: CgroupIds) -> u64 {
    key_of(cgroups.unified, cgroups.memory)
}
