//! Clone, exec, exit, by the scheduler's tracepoints.
//!
//! - `task_newtask(task, clone_flags)`, at the end of `copy_process`, when the new task is already in its cgroup
//!   (also with `CLONE_INTO_CGROUP`). Clones that fail do not come here.
//! - `sched_process_exec(task, old_pid, bprm)`, after the point of no return.
//! - `sched_process_exit(task)`, since 6.16 `(task, group_dead)`, in `do_exit` after `signal->live` went down, for
//!   every thread.
//!
//! All since before 5.10.

use crate::counters::count;
use crate::events::emit;
use crate::kernel::{
    Access, Probed, Ptr, argument, config, current_task, pointer_argument, task_cgroups, tracepoint,
};
use core::ffi::c_void;
use terrarium_abi::counter::family;
use terrarium_abi::namespace::{CLONE_NS_FLAGS, NS_KINDS};
use terrarium_abi::{ABSENT, Kind, NewTask, NsKind, Probe, RecordType, Via};

const CLONE_THREAD: u64 = 0x0001_0000;

tracepoint!(tp_btf_task_newtask, raw_tp_task_newtask, newtask);

#[inline(always)]
fn newtask<A: Access>(ctx: *mut c_void) {
    let task = pointer_argument(ctx, 0);
    let flags = argument(ctx, 1);
    let cgroups = task_cgroups::<A>(task);
    let thread = flags & CLONE_THREAD != 0;
    count(cgroups, Kind::new(family::CLONE, [u8::from(thread), 0, 0]));
    if flags & CLONE_NS_FLAGS != 0 {
        for ns in NsKind::ALL {
            if flags & CLONE_NS_FLAGS & ns.clone_flag() != 0 {
                count(cgroups, Kind::ns_create(ns, Via::Clone, false));
            }
        }
    }
    emit::<A, NewTask>(Probe::Task, RecordType::NewTask, task, cgroups, |header| {
        let caller = current_task();
        let mut to = [0; NS_KINDS];
        for (n, inode) in to.iter_mut().enumerate() {
            if flags & CLONE_NS_FLAGS & NsKind::ALL[n].clone_flag() != 0 {
                *inode = namespace_inode::<A>(task, n);
            }
        }
        NewTask {
            header,
            flags,
            caller_cgroup_id: task_cgroups::<Probed>(caller).unified,
            caller_pid: caller.field::<Probed, u32>(config!(task_tgid)),
            caller_tid: caller.field::<Probed, u32>(config!(task_pid)),
            to,
        }
    });
}

/// The inode number of the task's namespace of the kind with number `n`, 0 when unknown.
#[inline(always)]
fn namespace_inode<A: Access>(task: Ptr, n: usize) -> u32 {
    let pointer = config!(ns[n].pointer);
    let inum = config!(ns[n].inum);
    if pointer == ABSENT || inum == ABSENT {
        return 0;
    }
    let holder =
        if n == NsKind::User as usize { config!(task_cred) } else { config!(task_nsproxy) };
    task.follow::<A>(holder).follow::<A>(pointer).field::<A, u32>(inum)
}
