//! What cgroups use, told to who walks the kernel's cgroups (`iter/cgroup`, Linux 6.1): one reading instead of a dozen files for each.
//!
//! The numbers are those that the kernel's files show, from the same fields:
//!
//! - `*.pressure` (kernel/sched/psi.c): `psi_group.total` of the averages, brought up to date every two seconds while something waits.
//! - `memory.current`, `memory.peak`, `memory.events`, in v1 `memory.usage_in_bytes`, `memory.max_usage_in_bytes`, `memory.failcnt` and
//!   `memory.oom_control` (mm/memcontrol.c): the page counter and the events of the `mem_cgroup`.
//! - `pids.current` (kernel/cgroup/pids.c)
//! - `cpu.stat` of v1 (kernel/sched/core.c): the quota of the `task_group`. That of v2 has sums that only the file brings up to date.

use crate::kernel::{Probed, Ptr, cgroup_id, config, pointer_argument};
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use core::ffi::c_void;
use terrarium_abi::usage::told;
use terrarium_abi::{ABSENT, CgroupUsage};

/// How many cells follow, and a cell for each cgroup of a walk, in the order in which it comes. Walks take turns, in user space. The
/// loader sets the size.
#[map]
static USAGE: Array<CgroupUsage> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Called for each cgroup of a walk, and once more at its end, without one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/cgroup")]
extern "C" fn iter_cgroup(ctx: *mut c_void) -> i32 {
    // struct bpf_iter__cgroup: pointers to a `bpf_iter_meta`, which counts removed cgroups as well, and to a `cgroup`
    let cgroup = pointer_argument(ctx, 1);
    if cgroup.is_null() {
        return 0;
    }
    let Some(head) = USAGE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live map value, which no other walk changes and nobody reads before this one has ended.
    let filled = unsafe { &mut (*head).cgroup_id };
    if let Some(cell) = USAGE.get_ptr_mut(*filled as u32 + 1) {
        // SAFETY: as above.
        unsafe { tell(cgroup, &mut *cell) };
        *filled += 1;
    }
    0
}

/// Writes what `cgroup` uses.
#[inline(always)]
fn tell(cgroup: Ptr, cell: &mut CgroupUsage) {
    cell.told = 0;
    let pressure = cgroup.follow::<Probed>(config!(cgroup_psi));
    let enabled =
        config!(psi_enabled) == ABSENT || pressure.field::<Probed, u8>(config!(psi_enabled)) != 0;
    if config!(psi_total) != ABSENT && !pressure.is_null() && enabled {
        cell.pressure_ns = pressure.field::<Probed, [u64; 6]>(config!(psi_total));
        cell.told |= told::PRESSURE;
    }
    let memory = cgroup.follow::<Probed>(config!(cgroup_memory));
    if config!(memcg_usage) != ABSENT && !memory.is_null() {
        cell.memory_pages = memory.field::<Probed, u64>(config!(memcg_usage));
        cell.memory_peak_pages = memory.field::<Probed, u64>(config!(memcg_peak));
        cell.memory_failcnt = memory.field::<Probed, u64>(config!(memcg_failcnt));
        cell.memory_events = memory.field::<Probed, [u64; 6]>(config!(memcg_events));
        cell.told |= told::MEMORY;
    }
    let pids = cgroup.follow::<Probed>(config!(cgroup_pids));
    if config!(pids_counter) != ABSENT && !pids.is_null() {
        cell.pids = pids.field::<Probed, u64>(config!(pids_counter));
        cell.told |= told::PIDS;
    }
    let group = cgroup.follow::<Probed>(config!(cgroup_cpu));
    if config!(group_periods) != ABSENT && !group.is_null() {
        cell.cpu_periods = u64::from(group.field::<Probed, u32>(config!(group_periods)));
        cell.cpu_throttled = u64::from(group.field::<Probed, u32>(config!(group_throttled)));
        cell.cpu_throttled_ns = group.field::<Probed, u64>(config!(group_throttled_time));
        cell.told |= told::CPU;
    }
    cell.cgroup_id = cgroup_id::<Probed>(cgroup);
}
