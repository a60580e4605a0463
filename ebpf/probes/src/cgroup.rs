//! Cgroups made and removed, and tasks moved between them, by the tracepoints
//! `cgroup_mkdir(cgroup, path)`, `cgroup_rmdir(cgroup, path)` and
//! `cgroup_attach_task(cgroup, path, task, threadgroup)`; the same in every kernel since before 5.10.
//!
//! `cgroup_mkdir` comes before the directory can be opened, so before any task can be in it: user space learns the
//! name of a container before the first clone in it.

use crate::counters::count;
use crate::events::emit_in_place;
use crate::files::short_text;
use crate::kernel::{
    Access, Probed, Ptr, cgroup_id, config, current_task, pointer_argument, task_cgroups,
    tracepoint,
};
use crate::text::read_kernel_text;
use crate::watch;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_log_ebpf::debug;
use core::ffi::c_void;
use terrarium_abi::cgroup::PATH_LEN;
use terrarium_abi::counter::family;
use terrarium_abi::{CgroupAttach, CgroupEvent, CgroupInfo, CgroupKey, Kind, Probe, RecordType};

/// Where each cgroup of the unified and of the memory hierarchy was made. User space removes what it has read.
#[map]
static CGROUPS: HashMap<CgroupKey, CgroupInfo> = HashMap::with_max_entries(16_384, 0);

/// Room to build a [`CgroupInfo`], which is too big for the stack.
#[map]
static CGROUP_SCRATCH: PerCpuArray<CgroupInfo> = PerCpuArray::with_max_entries(1, 0);

tracepoint!(tp_btf_cgroup_mkdir, raw_tp_cgroup_mkdir, made_or_removed, RecordType::CgroupMkdir);
tracepoint!(tp_btf_cgroup_rmdir, raw_tp_cgroup_rmdir, made_or_removed, RecordType::CgroupRmdir);
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
    }
    if record_type == RecordType::CgroupMkdir {
        debug!(&(), "cgroup {} made at level {} of hierarchy {}", id, level, hierarchy);
    } else {
        debug!(&(), "cgroup {} removed from hierarchy {}", id, hierarchy);
    }
    let task = current_task();
    // The cgroup is what counts here, not the task that makes it.
    let mut cgroups = task_cgroups::<Probed>(task);
    cgroups.watched = watch::cgroup_is_watched(id, hierarchy);
    emit_in_place::<Probed, CgroupEvent>(Probe::Cgroup, record_type, task, cgroups, |record| {
        record.header.flags |= read_kernel_text(&mut record.path, path).1;
        record.id = id;
        record.hierarchy = hierarchy;
        record.level = level;
    });
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
    if hierarchy == 0 || cgroups.unified == 1 {
        count(cgroups, Kind::new(family::CGROUP_ATTACH, [0, 0, 0]));
    }
    emit_in_place::<A, CgroupAttach>(
        Probe::Cgroup,
        RecordType::CgroupAttach,
        task,
        cgroups,
        |record| {
            record.header.flags |= read_kernel_text(&mut record.path, path).1;
            record.id = id;
            record.hierarchy = hierarchy;
            record.mover_pid = current_task().field::<Probed, u32>(config!(task_tgid));
        },
    );
}
