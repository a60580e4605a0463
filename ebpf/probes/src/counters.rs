//! The counters: exact, per CPU, and independent of the ring buffer.

use crate::kernel::CgroupIds;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, PerCpuHashMap};
use core::mem::offset_of;
use terrarium_abi::{CounterKey, Kind, Loss, Probe, Stat, Timed};

/// A cell per cgroup and kind. Never LRU: eviction would forget in silence; user space deletes the cells of
/// removed cgroups. Preallocated, because counting happens where memory is short. The loader sets the size.
#[map]
static COUNTS: PerCpuHashMap<CounterKey, u64> = PerCpuHashMap::with_max_entries(65_536, 0);

/// The same for operations whose durations are told: a cell per cgroup, kind and bucket.
#[map]
static TIMES: PerCpuHashMap<CounterKey, Timed> = PerCpuHashMap::with_max_entries(65_536, 0);

/// The probes' own counters, see [`Stat`].
#[map]
static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Stat::CELLS, 0);

/// Adds `n` to the counter of `kind` for the cgroup.
#[inline(always)]
pub fn add(cgroups: CgroupIds, kind: Kind, n: u64) {
    if !cgroups.watched {
        return;
    }
    add_to(&COUNTS, key(cgroups, kind), n, |cell| bump(cell, n));
}

/// Counts an operation of `kind` that took `ns` nanoseconds, and how long it took.
#[inline(always)]
pub fn time(cgroups: CgroupIds, kind: Kind, ns: u64) {
    if !cgroups.watched {
        return;
    }
    add_to(&TIMES, key(cgroups, kind.lasting(ns)), Timed { count: 1, ns }, |cell| {
        let field = |offset| cell.cast::<u8>().wrapping_add(offset).cast();
        bump(field(offset_of!(Timed, count)), 1);
        bump(field(offset_of!(Timed, ns)), ns);
    });
}

/// Adds to the cell by `bump`, or makes it with what it holds `first`.
#[inline(always)]
fn add_to<V>(map: &PerCpuHashMap<CounterKey, V>, key: CounterKey, first: V, bump: impl Fn(*mut V)) {
    if let Some(cell) = map.get_ptr_mut(key) {
        return bump(cell);
    }
    if map.insert(key, first, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another CPU made the cell between the two calls, or the map is full.
    match map.get_ptr_mut(key) {
        Some(cell) => bump(cell),
        None => stat(Stat::CountsLost),
    }
}

#[inline(always)]
fn key(cgroups: CgroupIds, kind: Kind) -> CounterKey {
    CounterKey { cgroup_id: cgroups.unified, memory_cgroup_id: cgroups.memory, kind, pad: 0 }
}

/// Counts one for the cgroup.
#[inline(always)]
pub fn count(cgroups: CgroupIds, kind: Kind) {
    add(cgroups, kind, 1);
}

/// Counts a record that a probe is about to write.
#[inline(always)]
pub fn produced(probe: Probe) {
    stat(Stat::Produced(probe));
}

/// Counts a record that could not be written.
#[inline(always)]
pub fn lost(probe: Probe, loss: Loss) {
    stat(Stat::Lost(probe, loss));
    stat(Stat::LostByAny);
}

/// Counts a count that could not be made.
#[inline(always)]
pub fn count_lost() {
    stat(Stat::CountsLost);
}

#[inline(always)]
fn stat(stat: Stat) {
    if let Some(cell) = STATS.get_ptr_mut(stat.index()) {
        bump(cell, 1);
    }
}

/// Adds to a cell. Atomic although a counter's cell is this CPU's own: programs attached by fentry can be preempted, and another
/// program on this CPU may then add to the same cell. The instruction that gives no old value back is the one
/// that kernels before 5.12 know as well; `AtomicU64::fetch_add` does not exist for this target.
#[inline(always)]
pub fn bump(cell: *mut u64, n: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the verifier has checked that the pointer is to a live, aligned map value of eight bytes.
    unsafe {
        core::arch::asm!("lock *(u64 *)({cell} + 0) += {n}", cell = in(reg) cell, n = in(reg) n);
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = (cell, n);
}
