//! What cgroups use, told to who walks the kernel's cgroups (`iter/cgroup`, Linux 6.1): one reading instead of a dozen files for each.
//!
//! The numbers are those that the kernel's files show, from the same fields:
//!
//! - `*.pressure` (kernel/sched/psi.c): `psi_group.total` of the averages, brought up to date every two seconds while something waits.
//! - `memory.current`, `memory.peak`, `memory.max`, `memory.swap.current`, `memory.events`, in v1 `memory.usage_in_bytes`,
//!   `memory.max_usage_in_bytes`, `memory.limit_in_bytes`, `memory.failcnt` and `memory.oom_control` (mm/memcontrol.c): the page counters and
//!   the events of the `mem_cgroup`.
//! - `pids.current`, `pids.max` (kernel/cgroup/pids.c)
//! - `cpu.max`, `cpu.weight` and v1's files of the same (kernel/sched/core.c): quota and weight of the `task_group`; `cpu.stat` of v1.
//!   That of v2 has sums that only the file brings up to date.
//! - `io.stat` (block/blk-cgroup.c): only that there is nothing in it, as a cgroup has a `blkcg_gq` for each device it has used.
//! - `cgroup.procs` (kernel/cgroup/cgroup.c): how many, one of them, and its network namespace.

use crate::kernel::{
    NULL, Probed, Ptr, Typed, cgroup_id, config, namespace_inode, pointer_argument,
};
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::bpf_map_lookup_percpu_elem;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use core::ffi::c_void;
use terrarium_abi::usage::{MOST_CPUS, told};
use terrarium_abi::{ABSENT, CgroupUsage, NsKind};

/// How many cells follow, and a cell for each cgroup of a walk, in the order in which it comes. Walks take turns, in user space. The
/// loader sets the size.
#[map]
static USAGE: Array<CgroupUsage> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Memory of each processor, from which [`learn_places`] learns where theirs begins.
#[map]
static OWN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What is to be added to the address of something that each processor has, to get that of each one's (`__per_cpu_offset`).
#[map]
static PLACES: Array<u64> = Array::with_max_entries(MOST_CPUS, 0);

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
    let CgroupUsage { cgroup_id: filled, told: wanted, .. } = unsafe { &mut *head };
    if *filled == 0 && *wanted & told::CPU_TIME != 0 && config!(cgroup_cpuacct) != ABSENT {
        learn_places();
    }
    if let Some(cell) = USAGE.get_ptr_mut(*filled as u32 + 1) {
        // SAFETY: as above.
        unsafe { tell(cgroup, *wanted, &mut *cell) };
        *filled += 1;
    }
    0
}

/// Writes what `cgroup` uses, of what is `wanted`. Its own fields are read by plain loads, which need them to be there; its controllers',
/// whose types the verifier does not know, by the helper.
#[inline(always)]
fn tell(cgroup: Ptr, wanted: u64, cell: &mut CgroupUsage) {
    cell.told = 0;
    let has_pressure = config!(cgroup_psi) != ABSENT && config!(psi_total) != ABSENT;
    if has_pressure && wanted & told::PRESSURE != 0 {
        tell_pressure(cgroup.follow::<Typed>(config!(cgroup_psi)), cell);
    }
    if config!(cgroup_memory) != ABSENT && wanted & told::MEMORY != 0 {
        let memory = cgroup.follow::<Typed>(config!(cgroup_memory));
        if !memory.is_null() {
            cell.memory_pages = memory.field::<Probed, u64>(config!(memcg_usage));
            cell.memory_peak_pages = memory.field::<Probed, u64>(config!(memcg_peak));
            cell.memory_max_pages = memory.field::<Probed, u64>(config!(memcg_max));
            cell.swap_pages = memory.field::<Probed, u64>(config!(memcg_swap));
            cell.memory_failcnt = memory.field::<Probed, u64>(config!(memcg_failcnt));
            cell.memory_events = memory.field::<Probed, [u64; 6]>(config!(memcg_events));
            cell.told |= told::MEMORY;
        }
    }
    if config!(cgroup_pids) != ABSENT && wanted & told::PIDS != 0 {
        let pids = cgroup.follow::<Typed>(config!(cgroup_pids));
        if !pids.is_null() {
            cell.pids = pids.field::<Probed, u64>(config!(pids_counter));
            cell.pids_max = pids.field::<Probed, u64>(config!(pids_limit));
            cell.told |= told::PIDS;
        }
    }
    if config!(cgroup_cpu) != ABSENT && wanted & told::CPU != 0 {
        let group = cgroup.follow::<Typed>(config!(cgroup_cpu));
        if !group.is_null() {
            cell.cpu_quota_ns = group.field::<Probed, u64>(config!(group_quota));
            cell.cpu_period_ns = group.field::<Probed, u64>(config!(group_period));
            // The kernel reckons with 1024 times as fine a weight (scale_load_down in kernel/sched/sched.h).
            cell.cpu_shares = group.field::<Probed, u64>(config!(group_shares)) >> 10;
            cell.cpu_periods = u64::from(group.field::<Probed, u32>(config!(group_periods)));
            cell.cpu_throttled = u64::from(group.field::<Probed, u32>(config!(group_throttled)));
            cell.cpu_throttled_ns = group.field::<Probed, u64>(config!(group_throttled_time));
            cell.told |= told::CPU;
        }
    }
    if config!(cgroup_cpuacct) != ABSENT && wanted & told::CPU_TIME != 0 {
        let time = cgroup.follow::<Typed>(config!(cgroup_cpuacct));
        if !time.is_null() {
            tell_cpu_time(time, cell);
        }
    }
    if config!(cgroup_io) != ABSENT && wanted & told::NO_IO != 0 {
        let io = cgroup.follow::<Typed>(config!(cgroup_io));
        if !io.is_null() && io.follow::<Probed>(config!(blkcg_groups)).is_null() {
            cell.told |= told::NO_IO;
        }
    }
    if config!(cgroup_sets) != ABSENT && wanted & told::PROCESSES != 0 {
        tell_processes(cgroup, cell);
    }
    cell.cgroup_id = cgroup_id::<Typed>(cgroup);
}

#[inline(always)]
fn tell_pressure(pressure: Ptr, cell: &mut CgroupUsage) {
    if pressure.is_null() {
        return;
    }
    if config!(psi_enabled) != ABSENT && pressure.field::<Typed, u8>(config!(psi_enabled)) == 0 {
        return;
    }
    cell.pressure_ns = pressure.field::<Typed, [u64; 6]>(config!(psi_total));
    cell.told |= told::PRESSURE;
}

/// Adds up the time of a `struct cpuacct` on all processors.
#[inline(always)]
fn tell_cpu_time(time: Ptr, cell: &mut CgroupUsage) {
    let usage = time.follow::<Probed>(config!(cpuacct_usage));
    let stat = time.follow::<Probed>(config!(cpuacct_stat));
    let (mut all, mut user, mut system) = (0, 0, 0);
    for cpu in 0..MOST_CPUS {
        if cpu >= config!(cpus) {
            break;
        }
        let Some(place) = PLACES.get(cpu) else { return };
        all += usage.at(*place).field::<Probed, u64>(0);
        let [own, nice, kernel, softirq, irq] = stat.at(*place).field::<Probed, [u64; 5]>(0);
        user += own + nice;
        system += kernel + softirq + irq;
    }
    (cell.cpu_ns, cell.cpu_user_ns, cell.cpu_system_ns) = (all, user, system);
    cell.told |= told::CPU_TIME;
}

/// Learns where each processor's memory is. What each of them has is known by one address (include/linux/percpu-defs.h), to which that
/// of its memory is added; of the memory of a map, both can be had.
#[inline(always)]
fn learn_places() {
    let Some(scratch) = PLACES.get_ptr_mut(0) else { return };
    // SAFETY: a live map value, only touched in a walk. By way of it the verifier takes the address of the map for a number.
    let map = unsafe {
        core::ptr::write_volatile(scratch, (&raw const OWN) as u64);
        core::ptr::read_volatile(scratch)
    };
    let one = Ptr(map as *const u8).field::<Probed, u64>(config!(array_memory));
    let key = 0_u32;
    for cpu in 0..MOST_CPUS {
        if cpu >= config!(cpus) {
            break;
        }
        let map = (&raw const OWN).cast_mut().cast();
        // SAFETY: the map is one, and the key is that of its only value.
        let own =
            unsafe { bpf_map_lookup_percpu_elem(map, (&raw const key).cast_mut().cast(), cpu) };
        let (Some(place), false) = (PLACES.get_ptr_mut(cpu), own.is_null()) else { return };
        let own = own.cast::<u64>();
        // SAFETY: a live map value of a word, which nothing else is done with.
        let address = unsafe {
            core::ptr::write_volatile(own, own as u64);
            core::ptr::read_volatile(own)
        };
        // SAFETY: as above.
        unsafe { *place = address.wrapping_sub(one) };
    }
}

/// So many steps are made from task to task and list to list; the file tells of more, by loads that cost less. The verifier follows
/// every one.
const STEPS: u32 = 64;

/// Counts the processes in the sets of tasks of `cgroup`, as `cgroup.procs` lists them (css_task_iter_advance in
/// kernel/cgroup/cgroup.c): leaders, of the dead those whose threads live on. The walk holds the lock of cgroups, so no task comes from
/// another; those that end meanwhile lead into a list without an end, where nothing is told.
#[inline(always)]
fn tell_processes(cgroup: Ptr, cell: &mut CgroupUsage) {
    // The list of a domain with threaded cgroups names their processes too, and a threaded one's names none.
    if cgroup.field::<Typed, u32>(config!(cgroup_threaded)) != 0
        || cgroup.follow::<Typed>(config!(cgroup_domain)).addr() != cgroup.addr()
    {
        return;
    }
    let sets = cgroup.add(config!(cgroup_sets));
    let mut link = sets.follow::<Probed>(0);
    let (mut set, mut end, mut at) = (NULL, NULL, NULL);
    let (mut processes, mut first, mut net) = (0, 0, 0);
    let mut dead = true;
    for _ in 0..STEPS {
        if at == end {
            // The dead of a set come after the living.
            if dead {
                if link == sets {
                    cell.processes = processes;
                    (cell.first_pid, cell.first_net) = (first, net);
                    cell.told |= told::PROCESSES;
                    return;
                }
                set = link.back(config!(link_next)).follow::<Probed>(config!(link_set));
                if set.field::<Probed, u32>(config!(set_count)) > STEPS {
                    return;
                }
                link = link.follow::<Probed>(0);
                end = set.add(config!(set_tasks));
            } else {
                end = set.add(config!(set_dying));
            }
            dead = !dead;
            at = end.follow::<Probed>(0);
            continue;
        }
        let task = at.back(config!(task_next));
        at = at.follow::<Probed>(0);
        let tgid = task.field::<Probed, u32>(config!(task_tgid));
        if task.field::<Probed, u32>(config!(task_pid)) == tgid {
            if !dead {
                processes += 1;
                if first == 0 {
                    first = tgid;
                    net = namespace_inode::<Probed>(task, NsKind::Net as usize);
                }
            } else if is_alive(task) {
                processes += 1;
            }
        } else if !dead && leads_from(task) != set {
            // A thread in another cgroup than its leader, as v1 allows: its list names the process all the same.
            return;
        }
    }
}

/// Whether threads of a leader live.
#[inline(always)]
fn is_alive(leader: Ptr) -> bool {
    leader.follow::<Probed>(config!(task_signal)).field::<Probed, u32>(config!(signal_live)) != 0
}

/// The set of cgroups in which the leader of a thread is.
#[inline(always)]
fn leads_from(thread: Ptr) -> Ptr {
    thread.follow::<Probed>(config!(task_group_leader)).follow::<Probed>(config!(task_cgroups))
}
