//! Memory limits: reclaim at a limit, and OOM kills.
//!
//! - `mm_vmscan_memcg_reclaim_begin(order, gfp_flags)` and `mm_vmscan_memcg_reclaim_end(nr_reclaimed)`, in
//!   `try_to_free_mem_cgroup_pages`, in the task that has to wait. They do not tell whose limit it was; that is the
//!   cgroup with the least room among the task's and its ancestors.
//! - `mark_victim(task, uid)` since 6.8. Before, it gives only a process id; there the function behind it,
//!   `mark_oom_victim(task)`, is hooked, and where that cannot be, the kill is counted when the victim exits.
//!
//! These programs run rarely and in slow paths, so all of them read through the helper: a plain load could not go from
//! a css to the memory cgroup around it anyhow.

use crate::counters::{add, count, time};
use crate::events::{emit_in_place, now};
use crate::kernel::{
    Access, Cgroups, Probed, Ptr, TaskCgroups, argument, cgroup_id, config, current_task,
    pointer_argument, task_cgroups, task_memcg, tracepoint,
};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{fentry, kprobe, map};
use aya_ebpf::maps::{HashMap, LruHashMap};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use aya_log_ebpf::info;
use core::ffi::c_void;
use terrarium_abi::counter::family;
use terrarium_abi::memory::{LEVEL_GLOBAL, LEVEL_UNKNOWN, LIMIT_HIGH, LIMIT_MAX};
use terrarium_abi::{ABSENT, Kind, Oom, Probe, Reclaim, RecordType};

/// A limit of this many pages or more is none: `PAGE_COUNTER_MAX` is 2^51 with pages of 4 KiB, 2^47 with 64 KiB.
const UNLIMITED: u64 = 1 << 47;

/// Limits are looked for this many levels up.
const LEVELS: u32 = 12;

/// An OOM kill in a cgroup comes when this many pages do not fit: a charge is at most one huge page of 2 MiB beyond
/// the batch. With more room left, it is the machine that has no memory.
const OOM_ROOM: u64 = 1024;

/// When each thread that is in reclaim at a limit entered it.
#[map]
static RECLAIMS: HashMap<u64, u64> = HashMap::with_max_entries(8192, 0);

/// The OOM kills that were counted: the memory cgroup, and the kernel's own count of its kills at that moment.
#[map]
static OOM_SEEN: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(1024, 0);

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h: insert only what is not there.
const NO_EXIST: u64 = 1;

/// Victims that were seen when they were chosen, by process id, until they exit.
#[map]
static OOM_VICTIMS: LruHashMap<u32, u8> = LruHashMap::with_max_entries(1024, 0);

tracepoint!(
    tp_btf_mm_vmscan_memcg_reclaim_begin,
    raw_tp_mm_vmscan_memcg_reclaim_begin,
    untyped reclaim_begins
);
tracepoint!(tp_btf_mm_vmscan_memcg_reclaim_end, raw_tp_mm_vmscan_memcg_reclaim_end, untyped reclaim_ends);
tracepoint!(tp_btf_mark_victim, raw_tp_mark_victim, untyped marked);

#[fentry]
fn fentry_mark_oom_victim(ctx: FEntryContext) {
    victim_chosen(pointer_argument(ctx.as_ptr(), 0));
}

#[kprobe]
fn kprobe_mark_oom_victim(ctx: ProbeContext) {
    victim_chosen(crate::call::probe_argument(ctx.as_ptr()));
}

/// The limit with the least room.
#[derive(Clone, Copy)]
struct Limit {
    /// Levels above the task's own cgroup.
    level: u8,
    /// Whether it is `memory.high`.
    high: bool,
    cgroup_id: u64,
    pages: u64,
    usage: u64,
    room: u64,
}

#[inline(always)]
fn tightest_limit(task: Ptr) -> Limit {
    let mut tightest = Limit {
        level: LEVEL_UNKNOWN,
        high: false,
        cgroup_id: 0,
        pages: u64::MAX,
        usage: 0,
        room: u64::MAX,
    };
    if config!(memcg_usage) == ABSENT || config!(memcg_max) == ABSENT {
        return tightest;
    }
    let mut memcg = task_memcg::<Probed>(task);
    for level in 0..LEVELS {
        if memcg.is_null() {
            break;
        }
        let usage = memcg.field::<Probed, u64>(config!(memcg_usage));
        let max = memcg.field::<Probed, u64>(config!(memcg_max));
        // Absent on a kernel without it, where it reads as zero; never a limit on v1.
        let high = memcg.field::<Probed, u64>(config!(memcg_high));
        let by_high = high != 0 && high < max;
        let pages = if by_high { high } else { max };
        let room = pages.saturating_sub(usage);
        if pages < UNLIMITED && room < tightest.room {
            let cgroup = memcg.follow::<Probed>(config!(css_cgroup));
            tightest = Limit {
                level: level as u8,
                high: by_high,
                cgroup_id: cgroup_id::<Probed>(cgroup),
                pages,
                usage,
                room,
            };
        }
        // The css is the first member of a memory cgroup (the loader checks it), so this is the parent itself.
        memcg = memcg.follow::<Probed>(config!(css_parent));
    }
    tightest
}

#[inline(always)]
fn reclaim_begins(_ctx: *mut c_void) {
    let task = current_task();
    let limit = tightest_limit(task);
    count(task_cgroups::<Probed>(task), Kind::new(family::MEMORY_LIMIT, [limit.level, 0, 0]));
    // Without room the stall is not timed; the entry above is counted all the same.
    let _ = RECLAIMS.insert(bpf_get_current_pid_tgid(), now(), 0);
}

#[inline(always)]
fn reclaim_ends(ctx: *mut c_void) {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes or removes this entry.
    let Some(start_ns) = unsafe { RECLAIMS.get(thread) }.copied() else { return };
    let _ = RECLAIMS.remove(thread);
    let duration_ns = now().saturating_sub(start_ns);
    let reclaimed_pages = argument(ctx, 0);
    let task = current_task();
    let cgroups = task_cgroups::<Probed>(task);
    time(cgroups, Kind::new(family::MEMORY_STALL, [0, 0, 0]), duration_ns);
    add(cgroups, Kind::new(family::RECLAIMED_PAGES, [0, 0, 0]), reclaimed_pages);
    // Here and not where the record is filled, which the compiler makes a function of: before Linux 6.4 the verifier knows
    // less of two states being alike there, and follows each way through the loop.
    let limit = tightest_limit(task);
    emit_in_place::<Probed, Reclaim>(
        Probe::Memory,
        RecordType::Reclaim,
        task,
        cgroups,
        now,
        |record| {
            record.duration_ns = duration_ns;
            record.reclaimed_pages = reclaimed_pages;
            record.limit_cgroup_id = limit.cgroup_id;
            record.limit_pages = limit.pages;
            record.usage_pages = limit.usage;
            record.level = u32::from(limit.level);
            record.limit = if limit.high { LIMIT_HIGH } else { LIMIT_MAX };
        },
    );
}

#[inline(always)]
fn marked(ctx: *mut c_void) {
    victim_chosen(pointer_argument(ctx, 0));
}

#[inline(always)]
fn victim_chosen(task: Ptr) {
    let pid = task.field::<Probed, u32>(config!(task_tgid));
    let _ = OOM_VICTIMS.insert(pid, 1, 0);
    if !kernel_counted(task) {
        return;
    }
    killed(task, task_cgroups::<Probed>(task));
}

/// An OOM victim exits: the kill is counted here if no hook has told of it before.
#[inline(always)]
pub fn victim_exits<A: Access>(task: Ptr, cgroups: TaskCgroups<A>) {
    let pid = task.field::<Probed, u32>(config!(task_tgid));
    if OOM_VICTIMS.remove(pid).is_err() && config!(memory_probe) == 1 && kernel_counted(task) {
        killed(task, cgroups);
    }
}

/// Whether the kernel counted a kill for this victim. A task that is exiting anyway is marked as a victim too, so that
/// it may use the reserves, but it is not killed, and `memory.events` does not count it.
#[inline(always)]
fn kernel_counted(task: Ptr) -> bool {
    if config!(memcg_oom_kills) == ABSENT {
        return true;
    }
    let memcg = task_memcg::<Probed>(task);
    let id = cgroup_id::<Probed>(memcg.follow::<Probed>(config!(css_cgroup)));
    let kills = memcg.field::<Probed, u64>(config!(memcg_oom_kills));
    // One insertion claims the kill. Reading and then writing would let the victim's exit on one processor and its choice on
    // another both find the old count, and count the one kill twice.
    kills != 0 && OOM_SEEN.insert([id, kills], 1, NO_EXIST).is_ok()
}

#[inline(always)]
fn killed<A: Access>(task: Ptr, cgroups: TaskCgroups<A>) {
    let limit = tightest_limit(task);
    let level = if limit.room > OOM_ROOM { LEVEL_GLOBAL } else { limit.level };
    info!(&(), "oom victim in cgroup {}, limit {} levels up", cgroups.ids().unified, level);
    count(cgroups, Kind::new(family::OOM_KILL, [level, 0, 0]));
    emit_in_place::<Probed, Oom>(Probe::Memory, RecordType::Oom, task, cgroups, now, |record| {
        let by_limit = level != LEVEL_GLOBAL;
        record.limit_cgroup_id = if by_limit { limit.cgroup_id } else { 0 };
        record.limit_pages = if by_limit { limit.pages } else { u64::MAX };
        record.usage_pages = limit.usage;
        record.victim_pages = resident_pages(task);
        record.trigger_pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        record.level = u32::from(level);
    });
}

/// Resident memory of a task, pages; 0 when it has none any more.
#[inline(always)]
fn resident_pages(task: Ptr) -> u64 {
    /// `MM_FILEPAGES`, `MM_ANONPAGES` and `MM_SHMEMPAGES` of linux/mm_types_task.h.
    const COUNTS: [u32; 3] = [0, 1, 3];
    let mm = task.follow::<Probed>(config!(task_mm));
    if mm.is_null() || config!(mm_rss) == ABSENT {
        return 0;
    }
    let mut pages = 0_i64;
    for count in COUNTS {
        let offset = config!(mm_rss).wrapping_add(config!(mm_rss_step).wrapping_mul(count));
        pages = pages.wrapping_add(mm.field::<Probed, i64>(offset));
    }
    // Counts of single CPUs are not in it, so it can be below zero for a moment.
    if pages < 0 { 0 } else { pages.cast_unsigned() }
}
