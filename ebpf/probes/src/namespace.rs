//! unshare(flags) and setns(fd, nstype).
//!
//! Both are seen at entry and exit: the entry notes which namespaces the task is in, the exit the result and which it
//! is in then. There is no tracepoint made for them.

use crate::call::{Arguments, Call, Ended, first_argument, restarts, running_thread, system_call};
use crate::counters::count;
use crate::events::{emit_in_place, writes};
use crate::files;
use crate::kernel::{
    Access, Probed, Ptr, TaskCgroups, config, current_task, for_current_task, namespace_inode,
    task_cgroups,
};
use terrarium_abi::counter::family;
use terrarium_abi::namespace::{CLONE_NS_FLAGS, NS_KINDS};
use terrarium_abi::{ABSENT, Kind, NsChange, NsKind, NsTarget, Probe, RecordType, Via};

/// `NSFS_MAGIC` (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The flags of clone that name namespaces; clone(2) itself has no room for the one of time.
const FLAGS: u64 = CLONE_NS_FLAGS | NsKind::Time.clone_flag();

/// Number that stands for no kind of namespace in a counter's key.
const NO_KIND: u8 = 255;

system_call!(
    1, unshare_begins, unshare_ends, fentry_unshare, fexit_unshare, kprobe_unshare,
    kretprobe_unshare, enter_unshare, exit_unshare
);
system_call!(
    2, setns_begins, setns_ends, fentry_setns, fexit_setns, kprobe_setns, kretprobe_setns,
    enter_setns, exit_setns
);

/// The kinds that flags of clone name, as records have them. Without a branch: the verifier would follow each of the 256 results to the
/// end of the program, for a second or more a program.
#[inline(always)]
fn kinds_of(flags: u64) -> u32 {
    let mut kinds = 0;
    for ns in NsKind::ALL {
        kinds |= (flags >> ns.clone_flag().trailing_zeros() & 1) << ns as u32;
    }
    kinds as u32
}

/// The inodes of those of the task's namespaces that these flags name.
#[inline(always)]
fn inodes<A: Access>(task: Ptr, namespaces: u64) -> [u32; NS_KINDS] {
    let mut inodes = [0; NS_KINDS];
    for (n, inode) in inodes.iter_mut().enumerate() {
        if namespaces & NsKind::ALL[n].clone_flag() != 0 {
            *inode = namespace_inode::<A>(task, n);
        }
    }
    inodes
}

/// Whether unshare is counted at its exit alone: nothing is written, and the exit sees the flags.
#[inline(always)]
fn counted_at_exit() -> bool {
    !writes(Probe::Namespace) && config!(task_registers) == 1
}

#[inline(always)]
fn unshare_begins(arguments: Arguments) {
    if counted_at_exit() {
        return;
    }
    let namespaces = arguments[0] & FLAGS;
    if namespaces == 0 {
        // Files, file system information, semaphores.
        return;
    }
    let Some(call) = Call::begins(Probe::Namespace) else { return };
    call.arguments[0] = arguments[0];
    call.namespaces = namespaces;
    call.from = for_current_task!(inodes(namespaces));
}

#[inline(always)]
fn unshare_ends(result: i64) {
    for_current_task!(unshare_ended(result));
}

#[inline(always)]
fn unshare_ended<A: Access>(task: Ptr, result: i64) {
    if counted_at_exit() {
        let namespaces = first_argument() & FLAGS;
        if namespaces != 0 && !restarts(result) {
            count_unshared(task_cgroups::<A>(task), namespaces, result);
        }
        return;
    }
    let Some(call) = Ended::now(running_thread::<A>(task)) else { return };
    if restarts(result) {
        return;
    }
    let cgroups = task_cgroups::<A>(task);
    count_unshared(cgroups, call.namespaces, result);
    let change = Change { via: Via::Unshare, flags: call.arguments[0], fd: -1, result };
    emit_change::<A>(task, cgroups, &call, &change, || {
        if result < 0 { [0; NS_KINDS] } else { inodes::<A>(task, call.namespaces) }
    });
}

#[inline(always)]
fn count_unshared<A: Access>(cgroups: TaskCgroups<A>, namespaces: u64, result: i64) {
    for ns in NsKind::ALL {
        if namespaces & ns.clone_flag() != 0 {
            count(cgroups, Kind::ns_create(ns, Via::Unshare, result < 0));
        }
    }
}

#[inline(always)]
fn setns_begins(arguments: Arguments) {
    let asked = asked_for(current_task(), arguments[0] as u32);
    let Some(call) = Call::begins(Probe::Namespace) else { return };
    [call.arguments[0], call.arguments[1], ..] = arguments;
    call.to = [0; NS_KINDS];
    call.namespaces = match asked {
        Some((kind, flag, inode)) => {
            // The index is a kind, below 8 as the verifier has to see.
            call.to[kind as usize & (NS_KINDS - 1)] = inode;
            flag
        }
        // A descriptor of a process, or of nothing that setns takes: what the caller says it is.
        None => arguments[1] & FLAGS,
    };
    let namespaces = call.namespaces;
    call.from = for_current_task!(inodes(namespaces));
}

#[inline(always)]
fn setns_ends(result: i64) {
    for_current_task!(setns_ended(result));
}

#[inline(always)]
fn setns_ended<A: Access>(task: Ptr, result: i64) {
    let Some(call) = Ended::now(running_thread::<A>(task)) else { return };
    if restarts(result) {
        return;
    }
    let cgroups = task_cgroups::<A>(task);
    let to = if result < 0 { call.to } else { inodes::<A>(task, call.namespaces) };
    let mut counted = false;
    for n in 0..NS_KINDS {
        if call.namespaces & NsKind::ALL[n].clone_flag() != 0 {
            let target = target(n, call.from[n], to[n]);
            count(cgroups, Kind::ns_enter(NsKind::ALL[n], target, result < 0));
            counted = true;
        }
    }
    if !counted {
        let labels = [NO_KIND, NsTarget::Other as u8, u8::from(result < 0)];
        count(cgroups, Kind::new(family::NS_ENTER, labels));
    }
    let [fd, flags, ..] = call.arguments;
    let change = Change { via: Via::Setns, flags, fd: fd as i32, result };
    emit_change::<A>(task, cgroups, &call, &change, || to);
}

/// Whose namespace the one with inode `to` is.
#[inline(always)]
fn target(n: usize, from: u32, to: u32) -> NsTarget {
    if to == 0 {
        NsTarget::Other
    } else if to == from {
        NsTarget::Own
    } else if to == config!(ns[n].initial) {
        NsTarget::Host
    } else {
        NsTarget::Other
    }
}

/// The number of the kind, its flag of clone, and the inode of the namespace that a descriptor of the task stands for.
#[inline(always)]
fn asked_for(task: Ptr, fd: u32) -> Option<(u32, u64, u32)> {
    if config!(inode_private) == ABSENT || config!(sb_magic) == ABSENT {
        return None;
    }
    let file = files::file_of(task, fd)?;
    let inode = file.follow::<Probed>(config!(file_inode));
    if files::magic_of(inode) != NSFS_MAGIC {
        return None;
    }
    let namespace = inode.follow::<Probed>(config!(inode_private));
    let flag = if config!(ns_common_type) == ABSENT {
        let operations = namespace.follow::<Probed>(config!(ns_common_ops));
        operations.field::<Probed, u32>(config!(ns_ops_type))
    } else {
        namespace.field::<Probed, u32>(config!(ns_common_type))
    };
    for ns in NsKind::ALL {
        if u64::from(flag) == ns.clone_flag() {
            let inode = namespace.field::<Probed, u32>(config!(ns_common_inum));
            return Some((ns as u32, ns.clone_flag(), inode));
        }
    }
    None
}

/// A call that has ended, as far as its record does not come from its entry.
struct Change {
    via: Via,
    flags: u64,
    fd: i32,
    result: i64,
}

/// Writes the record of a call after which the task is in the namespaces that `to` tells.
#[inline(always)]
fn emit_change<A: Access>(
    task: Ptr,
    cgroups: TaskCgroups<A>,
    call: &Ended,
    change: &Change,
    to: impl FnOnce() -> [u32; NS_KINDS],
) {
    emit_in_place::<A, NsChange>(
        Probe::Namespace,
        RecordType::NsChange,
        task,
        cgroups,
        || call.end_ns,
        |record| {
            record.flags = change.flags;
            record.duration_ns = call.duration_ns();
            record.result = change.result as i32;
            record.kinds = kinds_of(call.namespaces);
            record.via = change.via as u32;
            record.fd = change.fd;
            record.from = call.from;
            record.to = to();
        },
    );
}
