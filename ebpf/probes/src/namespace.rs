//! unshare(flags) and setns(fd, nstype).
//!
//! Both are seen at entry and exit: the entry notes which namespaces the task is in, the exit the result and which it
//! is in then. There is no tracepoint made for them.

use crate::call::{Arguments, Call, restarts, system_call};
use crate::counters::count;
use crate::events::emit_in_place;
use crate::files;
use crate::kernel::{Probed, Ptr, config, current_task, namespace_inode, task_cgroups};
use terrarium_abi::counter::family;
use terrarium_abi::namespace::{CLONE_NEWTIME, CLONE_NS_FLAGS, NS_KINDS};
use terrarium_abi::{ABSENT, Kind, NsChange, NsKind, NsTarget, Probe, RecordType, Via};

/// `NSFS_MAGIC` (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

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

/// The kinds that flags of unshare or setns name.
#[inline(always)]
fn kinds_of(flags: u64) -> u32 {
    let mut kinds = 0;
    if flags & (CLONE_NS_FLAGS | CLONE_NEWTIME) != 0 {
        for ns in NsKind::ALL {
            if flags & ns.clone_flag() != 0 {
                kinds |= 1 << ns as u32;
            }
        }
    }
    kinds
}

/// The inodes of the task's namespaces of these kinds.
#[inline(always)]
fn inodes(task: Ptr, kinds: u32) -> [u32; NS_KINDS] {
    let mut inodes = [0; NS_KINDS];
    for (n, inode) in inodes.iter_mut().enumerate() {
        if kinds & (1 << n) != 0 {
            *inode = namespace_inode::<Probed>(task, n);
        }
    }
    inodes
}

#[inline(always)]
fn unshare_begins(arguments: Arguments) {
    let mut call = Call::begins(arguments);
    call.kinds = kinds_of(arguments[0]);
    if call.kinds == 0 {
        // It concerns no namespace: files, file system information, semaphores.
        return;
    }
    call.from = inodes(current_task(), call.kinds);
    call.remember(Probe::Namespace);
}

#[inline(always)]
fn unshare_ends(result: i64) {
    let Some((mut call, duration_ns)) = Call::ends() else { return };
    if restarts(result) {
        return;
    }
    let task = current_task();
    let cgroups = task_cgroups::<Probed>(task);
    for ns in NsKind::ALL {
        if call.kinds & (1 << ns as u32) != 0 {
            count(cgroups, Kind::ns_create(ns, Via::Unshare, result < 0));
        }
    }
    if result >= 0 {
        call.to = inodes(task, call.kinds);
    }
    emit_change(&call, Via::Unshare, call.arguments[0], -1, result, duration_ns);
}

#[inline(always)]
fn setns_begins(arguments: Arguments) {
    let mut call = Call::begins(arguments);
    let task = current_task();
    match asked_for(task, arguments[0] as u32) {
        Some((kind, inode)) => {
            call.kinds = 1 << kind;
            // The index is a kind, below 8 as the verifier has to see.
            call.to[kind as usize & (NS_KINDS - 1)] = inode;
        }
        // A descriptor of a process, or of nothing that setns takes: what the caller says it is.
        None => call.kinds = kinds_of(arguments[1]),
    }
    call.from = inodes(task, call.kinds);
    call.remember(Probe::Namespace);
}

#[inline(always)]
fn setns_ends(result: i64) {
    let Some((mut call, duration_ns)) = Call::ends() else { return };
    if restarts(result) {
        return;
    }
    let task = current_task();
    let cgroups = task_cgroups::<Probed>(task);
    if result >= 0 {
        call.to = inodes(task, call.kinds);
    }
    let mut counted = false;
    for n in 0..NS_KINDS {
        if call.kinds & (1 << n) != 0 {
            let target = target(n, call.from[n], call.to[n]);
            count(cgroups, Kind::ns_enter(NsKind::ALL[n], target, result < 0));
            counted = true;
        }
    }
    if !counted {
        let labels = [NO_KIND, NsTarget::Other as u8, u8::from(result < 0)];
        count(cgroups, Kind::new(family::NS_ENTER, labels));
    }
    let fd = call.arguments[0] as i32;
    emit_change(&call, Via::Setns, call.arguments[1], fd, result, duration_ns);
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

/// The number of the kind, and the inode, of the namespace that a descriptor of the task stands for.
#[inline(always)]
fn asked_for(task: Ptr, fd: u32) -> Option<(u32, u32)> {
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
            return Some((ns as u32, namespace.field::<Probed, u32>(config!(ns_common_inum))));
        }
    }
    None
}

#[inline(always)]
fn emit_change(call: &Call, via: Via, flags: u64, fd: i32, result: i64, duration_ns: u64) {
    let task = current_task();
    let cgroups = task_cgroups::<Probed>(task);
    emit_in_place::<Probed, NsChange>(
        Probe::Namespace,
        RecordType::NsChange,
        task,
        cgroups,
        |record| {
            record.flags = flags;
            record.duration_ns = duration_ns;
            record.result = result as i32;
            record.kinds = call.kinds;
            record.via = via as u32;
            record.fd = fd;
            record.from = call.from;
            record.to = call.to;
        },
    );
}
