//! Cgroups made and removed, and tasks moved between them, by the tracepoints
//! `cgroup_mkdir(cgroup, path)`, `cgroup_rmdir(cgroup, path)` and
//! `cgroup_attach_task(cgroup, path, task, threadgroup)`; the same in every kernel since before 5.10.
//!
//! `cgroup_mkdir` comes before the directory can be opened, so before any task can be in it: user space learns the
//! name of a container before the first clone in it.

use crate::counters::{count, count_ids};
use crate::events::{emit_in_place, now};
use crate::files::short_text;
use crate::kernel::{
    Access, CgroupIds, Cgroups, Probed, Ptr, cgroup_id, config, current_task, pointer_argument,
    task_cgroups, tracepoint,
};
use crate::text::read_kernel_text;
use crate::watch;
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{fentry, kprobe, map};
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use aya_log_ebpf::debug;
use core::ffi::c_void;
use terrarium_abi::cgroup::PATH_LEN;
use terrarium_abi::counter::family;
use terrarium_abi::{
    ABSENT, CgroupAttach, CgroupEvent, CgroupInfo, CgroupKey, Kind, Probe, RecordType,
};

/// Where each cgroup of the unified and of the memory hierarchy was made. User space removes what it has read.
#[map]
static CGROUPS: HashMap<CgroupKey, CgroupInfo> = HashMap::with_max_entries(16_384, 0);

/// Room to build a [`CgroupInfo`], which is too big for the stack.
#[map]
static CGROUP_SCRATCH: PerCpuArray<CgroupInfo> = PerCpuArray::with_max_entries(1, 0);

/// Which processes have made a cgroup lately, and when (`CLOCK_MONOTONIC`, nanoseconds): those that make containers, among others.
#[map]
static MAKERS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(256, 0);

/// How long one counts as its maker.
const LATELY_NS: u64 = 60_000_000_000;

/// Whether the task's process has made a cgroup lately, or was forked of one that has and still runs its program.
#[inline(always)]
pub fn makes_one(task: Ptr) -> bool {
    /// `PF_FORKNOEXEC` (linux/sched.h)
    const FORKED: u32 = 0x40;
    if config!(task_flags) == ABSENT {
        return false;
    }
    let mut process = task;
    for _ in 0..2 {
        let pid = process.field::<Probed, u32>(config!(task_tgid));
        // SAFETY: the value is read at once, and nobody removes it but to make room for another.
        if let Some(made_ns) = unsafe { MAKERS.get(&pid) } {
            return now().saturating_sub(*made_ns) < LATELY_NS;
        }
        if process.field::<Probed, u32>(config!(task_flags)) & FORKED == 0 {
            return false;
        }
        process = process.follow::<Probed>(config!(task_real_parent));
    }
    false
}

tracepoint!(tp_btf_cgroup_mkdir, raw_tp_cgroup_mkdir, made_or_removed, RecordType::CgroupMkdir);
tracepoint!(tp_btf_cgroup_rmdir, raw_tp_cgroup_rmdir, made_or_removed, RecordType::CgroupRmdir);
/// The unified and the memory cgroup of a task that is about to be moved, by the thread that moves it. The tracepoint comes after the
/// move, when nothing tells any more where the task was.
#[map]
static LEAVING: LruHashMap<u64, [u64; 2]> = LruHashMap::with_max_entries(1024, 0);

// cgroup_migrate(leader, threadgroup, context) of kernel/cgroup/cgroup.c
#[fentry]
fn fentry_cgroup_migrate(ctx: FEntryContext) {
    leaves(pointer_argument(ctx.as_ptr(), 0));
}

#[kprobe]
fn kprobe_cgroup_migrate(ctx: ProbeContext) {
    leaves(crate::call::probe_argument(ctx.as_ptr()));
}

#[inline(always)]
fn leaves(task: Ptr) {
    let cgroups = task_cgroups::<Probed>(task).ids();
    // The map makes room for it; where it cannot, the cgroup that is left is not told.
    let _ = LEAVING.insert(bpf_get_current_pid_tgid(), [cgroups.unified, cgroups.memory], 0);
}

/// Counts a move for the cgroup that was left for the one with this id.
#[inline(always)]
fn count_left(hierarchy: u32, id: u64) {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes or removes this entry, but for the map making room.
    let Some([unified, memory]) = (unsafe { LEAVING.get(&thread) }).copied() else { return };
    let _ = LEAVING.remove(&thread);
    let left = if hierarchy == 0 { unified } else { memory };
    if left != id {
        let watched = watch::is_watched(unified, memory);
        let cgroups = CgroupIds { unified, memory, watched };
        count_ids(cgroups, Kind::new(family::CGROUP_ATTACH, [1, 0, 0]));
    }
}

tracepoint!(tp_btf_cgroup_attach_task, raw_tp_cgroup_attach_task, attached);

/// The number of the hierarchy, if it is one that names containers.
#[inline(always)]
fn hierarchy<A: Access>(cgroup: Ptr) -> Option<u32> {
    let root = cgroup.follow::<A>(config!(cgroup_root));
    let number = root.field::<A, u32>(config!(root_hierarchy_id));
    (number == 0 || number == config!(memory_hierarchy)).then_some(number)
}

#[inline(always)]
fn made_or_removed<A: Access>(ctx: *mut c_void, record_type: RecordType) {
    let cgroup = pointer_argument(ctx, 0);
    let path = pointer_argument(ctx, 1);
    let Some(hierarchy) = hierarchy::<A>(cgroup) else { return };
    let id = cgroup_id::<A>(cgroup);
    let level = cgroup.field::<A, u32>(config!(cgroup_level));
    if record_type == RecordType::CgroupMkdir {
        let css = cgroup.add(config!(cgroup_self)).follow::<Probed>(config!(css_parent));
        let above = cgroup_id::<Probed>(css.follow::<Probed>(config!(css_cgroup)));
        watch::made(id, above, hierarchy, &short_text(path));
        remember(CgroupKey { id, hierarchy, pad: 0 }, level, path);
        let pid = current_task().field::<Probed, u32>(config!(task_tgid));
        // The map makes room for it; where it cannot, a phase of a start is not told.
        let _ = MAKERS.insert(pid, now(), 0);
    }
    if record_type == RecordType::CgroupMkdir {
        debug!(&(), "cgroup {} made at level {} of hierarchy {}", id, level, hierarchy);
    } else {
        debug!(&(), "cgroup {} removed from hierarchy {}", id, hierarchy);
    }
    let task = current_task();
    // The cgroup is what counts here, not the task that makes it.
    let mut cgroups = task_cgroups::<Probed>(task).ids();
    cgroups.watched = watch::cgroup_is_watched(id, hierarchy);
    emit_in_place::<Probed, CgroupEvent>(
        Probe::Cgroup,
        record_type,
        task,
        cgroups,
        now,
        |record| {
            record.header.flags |= read_kernel_text(&mut record.path, path).1;
            record.id = id;
            record.hierarchy = hierarchy;
            record.level = level;
        },
    );
    if record_type == RecordType::CgroupRmdir {
        watch::removed(id, hierarchy);
    }
}

#[inline(always)]
fn remember(key: CgroupKey, level: u32, path: Ptr) {
    let Some(info) = CGROUP_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: a live map value of this CPU, and tracepoints run with preemption off.
    let info = unsafe { &mut *info };
    info.level = level;
    info.path = [0; PATH_LEN];
    read_kernel_text(&mut info.path, path);
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "a copy would fill half the stack"
    )]
    // When the map is full the record in the ring buffer still tells the path.
    let _ = CGROUPS.insert(key, &*info, 0);
}

#[inline(always)]
fn attached<A: Access>(ctx: *mut c_void) {
    let cgroup = pointer_argument(ctx, 0);
    let path = pointer_argument(ctx, 1);
    let task = pointer_argument(ctx, 2);
    let Some(hierarchy) = hierarchy::<A>(cgroup) else { return };
    let id = cgroup_id::<A>(cgroup);
    let cgroups = task_cgroups::<A>(task);
    // A move within the memory hierarchy alone is part of the same step of a container's start: it is reported,
    // and counted only in the hierarchy that names the task.
    if hierarchy == 0 || cgroups.ids().unified == 1 {
        count(cgroups, Kind::new(family::CGROUP_ATTACH, [0, 0, 0]));
        count_left(hierarchy, id);
    }
    emit_in_place::<A, CgroupAttach>(
        Probe::Cgroup,
        RecordType::CgroupAttach,
        task,
        cgroups,
        now,
        |record| {
            record.header.flags |= read_kernel_text(&mut record.path, path).1;
            record.id = id;
            record.hierarchy = hierarchy;
            record.mover_pid = current_task().field::<Probed, u32>(config!(task_tgid));
        },
    );
}
