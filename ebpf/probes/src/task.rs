//! Clone, exec, exit, by the scheduler's tracepoints.
//!
//! - `task_newtask(task, clone_flags)`, at the end of `copy_process`, when the new task is already in its cgroup
//!   (also with `CLONE_INTO_CGROUP`).
//! - `sched_process_exec(task, old_pid, bprm)`, after the point of no return.
//! - `sched_process_exit(task)`, on newer kernels `(task, group_dead)`, in `do_exit` after `signal->live` went down,
//!   for every thread.
//! - Clones that fail pass none of these. They are seen where `kernel_clone` returns, or at the exits of its system
//!   calls.
//!
//! All since before 5.10 (`kernel_clone` since 5.10).

use crate::call::{probe_result, restarts, tracepoint_result, wrapper_result};
use crate::counters::count;
use crate::events::{emit, emit_in_place, now, now_boottime, writes};
use crate::kernel::{
    Access, Probed, Ptr, TaskCgroups, argument, config, current_task, for_current_task,
    namespace_inode, pointer_argument, task_cgroups, tracepoint, unified_cgroup,
};
use crate::memory;
use crate::text::read_kernel_text;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::{fexit, kretprobe, map, tracepoint as perf_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{FExitContext, RetProbeContext, TracePointContext};
use core::ffi::c_void;
use terrarium_abi::counter::family;
use terrarium_abi::namespace::{CLONE_NS_FLAGS, NS_KINDS};
use terrarium_abi::task::ARGV_LEN;
use terrarium_abi::{
    CloneFailed, Exec, Exit, ExitCause, Kind, NewTask, NsKind, Probe, RecordType, Via,
};

const CLONE_THREAD: u64 = 0x0001_0000;

/// `SIGNAL_GROUP_EXIT` (linux/sched/signal.h): `group_exit_code` holds the status of the whole process.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// Processes with threads whose end has been counted, by process id. Two threads that end at the same time may both
/// find `signal->live` at zero; the one that gets its entry in counts. An entry is of no use once the process is gone.
#[map]
static ENDED: LruHashMap<u32, u8> = LruHashMap::with_max_entries(1024, 0);

tracepoint!(tp_btf_task_newtask, raw_tp_task_newtask, newtask);
tracepoint!(tp_btf_sched_process_exec, raw_tp_sched_process_exec, exec);
tracepoint!(tp_btf_sched_process_exit, raw_tp_sched_process_exit, exit);

#[fexit]
fn fexit_kernel_clone(ctx: FExitContext) {
    // `kernel_clone(struct kernel_clone_args *)`, whose first member is the flags.
    let flags = pointer_argument(ctx.as_ptr(), 0).field::<Probed, u64>(0);
    failed_clone(wrapper_result(ctx.as_ptr()) as i32, flags);
}

#[kretprobe]
fn kretprobe_kernel_clone(ctx: RetProbeContext) {
    failed_clone(probe_result(ctx.as_ptr()) as i32, 0);
}

#[perf_tracepoint]
fn exit_kernel_clone(ctx: TracePointContext) {
    failed_clone(tracepoint_result(ctx.as_ptr()) as i32, 0);
}

#[inline(always)]
fn newtask<A: Access>(ctx: *mut c_void) {
    let task = pointer_argument(ctx, 0);
    let flags = argument(ctx, 1);
    let cgroups = task_cgroups::<A>(task);
    let thread = flags & CLONE_THREAD != 0;
    count(cgroups, Kind::new(family::CLONE, [u8::from(thread), 0, 0]));
    count_namespaces(cgroups, flags, false);
    if !thread && config!(exit_tells_group_dead) != 1 {
        // The id of a process whose end was counted is in use again.
        let _ = ENDED.remove(task.field::<A, u32>(config!(task_tgid)));
    }
    if !writes(Probe::Task) {
        return;
    }
    emit::<A, NewTask>(Probe::Task, RecordType::NewTask, task, cgroups, now, |header| {
        let caller = current_task();
        let caller_thread = bpf_get_current_pid_tgid();
        let mut from = [0; NS_KINDS];
        let mut to = [0; NS_KINDS];
        if flags & CLONE_NS_FLAGS != 0 {
            for n in 0..NS_KINDS {
                if flags & CLONE_NS_FLAGS & NsKind::ALL[n].clone_flag() != 0 {
                    from[n] = namespace_inode::<Probed>(caller, n);
                    to[n] = namespace_inode::<A>(task, n);
                }
            }
        }
        NewTask {
            header,
            flags,
            caller_cgroup_id: for_current_task!(unified_cgroup()),
            caller_pid: (caller_thread >> 32) as u32,
            caller_tid: caller_thread as u32,
            from,
            to,
        }
    });
}

#[inline(always)]
fn exec<A: Access>(ctx: *mut c_void) {
    let task = pointer_argument(ctx, 0);
    let old_tid = argument(ctx, 1) as u32;
    let filename = pointer_argument(ctx, 2).follow::<A>(config!(binprm_filename));
    let cgroups = task_cgroups::<A>(task);
    count(cgroups, Kind::new(family::EXEC, [0, 0, 0]));
    emit_in_place::<A, Exec>(Probe::Task, RecordType::Exec, task, cgroups, now, |record| {
        record.old_tid = old_tid;
        record.mount_ns = namespace_inode::<A>(task, NsKind::Mnt as usize);
        let (len, flags) = read_kernel_text(&mut record.filename, filename);
        record.filename_len = len;
        record.header.flags |= flags;
        if config!(argv) == 1 {
            record.argv_total = read_arguments(&mut record.argv, task);
        }
    });
}

/// Reads the arguments of the program that the running task has just become: how long all of them are.
#[inline(always)]
fn read_arguments(out: &mut [u8; ARGV_LEN], task: Ptr) -> u64 {
    let mm = task.follow::<Probed>(config!(task_mm));
    let start = mm.field::<Probed, u64>(config!(mm_arg_start));
    let total = mm.field::<Probed, u64>(config!(mm_arg_end)).saturating_sub(start);
    // Bounded by a mask, which the verifier understands whatever the compiler makes of it.
    let len =
        if total >= ARGV_LEN as u64 { ARGV_LEN as u64 } else { total & (ARGV_LEN as u64 - 1) };
    if len != 0 {
        // SAFETY: the destination is `out`, which has at least `len` bytes; the helper checks the source.
        unsafe { bpf_probe_read_user(out.as_mut_ptr().cast(), len as u32, start as *const _) };
    }
    total
}

#[inline(always)]
fn exit<A: Access>(ctx: *mut c_void) {
    let task = pointer_argument(ctx, 0);
    let signal = task.follow::<A>(config!(task_signal));
    if config!(exit_tells_group_dead) == 1 {
        if argument(ctx, 1) & 1 == 0 {
            return;
        }
    } else if !ended_just_now::<A>(task, signal) {
        return;
    }
    let cgroups = task_cgroups::<A>(task);
    let status = if signal.field::<A, u32>(config!(signal_flags)) & SIGNAL_GROUP_EXIT != 0 {
        signal.field::<A, u32>(config!(signal_group_exit_code))
    } else {
        // Without a group exit the status of the process is that of its first thread, whichever ended last.
        let leader = task.follow::<A>(config!(task_group_leader));
        leader.field::<A, u32>(config!(task_exit_code))
    };
    let by_signal = status & 0x7f != 0;
    // A victim that was about to end by itself is one all the same: counted when it was chosen, else now.
    let oom_victim = (by_signal || config!(victims_seen) != 1)
        && !signal.follow::<A>(config!(signal_oom_mm)).is_null();
    let cause = match (by_signal, oom_victim) {
        (false, _) => ExitCause::Exit,
        (true, true) => ExitCause::Oom,
        (true, false) => ExitCause::Signal,
    };
    count(cgroups, Kind::new(family::EXIT, [cause as u8, 0, 0]));
    if oom_victim {
        memory::victim_exits(task, cgroups);
    }
    if !writes(Probe::Task) {
        return;
    }
    emit::<A, Exit>(Probe::Task, RecordType::Exit, task, cgroups, now, |header| Exit {
        status,
        cause: cause as u32,
        ran_ns: now_boottime().saturating_sub(header.start_ns),
        header,
    });
}

/// Whether this is the last thread of its process, told once for each process. For kernels that do not say so
/// themselves.
#[inline(always)]
fn ended_just_now<A: Access>(task: Ptr, signal: Ptr) -> bool {
    if signal.field::<A, u32>(config!(signal_live)) != 0 {
        return false;
    }
    if signal.field::<A, u32>(config!(signal_nr_threads)) <= 1 {
        return true;
    }
    let pid = task.field::<A, u32>(config!(task_tgid));
    ENDED.insert(pid, 1, u64::from(BPF_NOEXIST)).is_ok()
}

/// `kernel_clone` returns an `int`: of the register that holds it the upper half means nothing.
#[inline(always)]
fn failed_clone(result: i32, flags: u64) {
    if result >= 0 || restarts(i64::from(result)) {
        return;
    }
    let task = current_task();
    let cgroups = task_cgroups::<Probed>(task);
    let errno = result.unsigned_abs() as u8;
    count(cgroups, Kind::new(family::CLONE_FAILED, [errno, 0, 0]));
    count_namespaces(cgroups, flags, true);
    emit::<Probed, CloneFailed>(
        Probe::Task,
        RecordType::CloneFailed,
        task,
        cgroups,
        now,
        |header| CloneFailed { header, flags, result, pad: 0 },
    );
}

/// Counts the namespaces that the flags of a clone ask for.
#[inline(always)]
fn count_namespaces<A: Access>(cgroups: TaskCgroups<A>, flags: u64, failed: bool) {
    if flags & CLONE_NS_FLAGS == 0 {
        return;
    }
    for ns in NsKind::ALL {
        if flags & CLONE_NS_FLAGS & ns.clone_flag() != 0 {
            count(cgroups, Kind::ns_create(ns, Via::Clone, failed));
        }
    }
}
