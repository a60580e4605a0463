//! mount and its relatives, old and new.
//!
//! All are seen at entry and exit. The strings are read at the exit: the kernel has read them by then, so their pages
//! are in memory. A task that changes them meanwhile can make the record, but not the count, say something else.
//! Mounts that the kernel makes by itself, or takes away with a namespace, are not calls and are not seen.

use crate::call::{Arguments, Call, Ended, restarts, running_thread, system_call};
use crate::counters::time;
use crate::events::{emit_in_place, writes};
use crate::kernel::{Access, Ptr, for_current_task, task_cgroups};
use crate::text::read_user_text;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use terrarium_abi::{Kind, Mount, MountOp, Probe, RecordType};

#[inline(always)]
fn begins(arguments: Arguments) {
    let Some(call) = Call::begins(Probe::Mount) else { return };
    if writes(Probe::Mount) {
        call.arguments = arguments;
    } else {
        // All that counting asks for.
        call.arguments[MOUNT.flags] = arguments[MOUNT.flags];
    }
}

/// `open_tree_attr(fd, path, flags, attributes, size)`, since 6.15
const OPEN_TREE_ATTR: Shape =
    Shape { op: MountOp::OpenTreeAttr, source: 1, target: NONE, fstype: NONE, flags: 2 };
system_call!(
    5,
    begins,
    |result| ends(&OPEN_TREE_ATTR, result),
    fentry_open_tree_attr,
    fexit_open_tree_attr,
    kprobe_open_tree_attr,
    kretprobe_open_tree_attr,
    enter_open_tree_attr,
    exit_open_tree_attr
);

/// Where the strings and the flags of a call are among its arguments: their index, or [`NONE`].
struct Shape {
    op: MountOp,
    source: usize,
    target: usize,
    fstype: usize,
    flags: usize,
}

/// No such argument.
const NONE: usize = 6;

/// `mount(source, target, fstype, flags, data)`
const MOUNT: Shape = Shape { op: MountOp::Mount, source: 0, target: 1, fstype: 2, flags: 3 };
system_call!(
    5,
    begins,
    |result| ends(&MOUNT, result),
    fentry_mount,
    fexit_mount,
    kprobe_mount,
    kretprobe_mount,
    enter_mount,
    exit_mount
);

/// `umount2(target, flags)`, which the kernel calls umount
const UMOUNT: Shape =
    Shape { op: MountOp::Umount, source: NONE, target: 0, fstype: NONE, flags: 1 };
system_call!(
    2,
    begins,
    |result| ends(&UMOUNT, result),
    fentry_umount,
    fexit_umount,
    kprobe_umount,
    kretprobe_umount,
    enter_umount,
    exit_umount
);

/// `move_mount(from_fd, from_path, to_fd, to_path, flags)`
const MOVE_MOUNT: Shape =
    Shape { op: MountOp::MoveMount, source: 1, target: 3, fstype: NONE, flags: 4 };
system_call!(
    5,
    begins,
    |result| ends(&MOVE_MOUNT, result),
    fentry_move_mount,
    fexit_move_mount,
    kprobe_move_mount,
    kretprobe_move_mount,
    enter_move_mount,
    exit_move_mount
);

/// `pivot_root(new_root, put_old)`
const PIVOT_ROOT: Shape =
    Shape { op: MountOp::PivotRoot, source: 1, target: 0, fstype: NONE, flags: NONE };
system_call!(
    2,
    begins,
    |result| ends(&PIVOT_ROOT, result),
    fentry_pivot_root,
    fexit_pivot_root,
    kprobe_pivot_root,
    kretprobe_pivot_root,
    enter_pivot_root,
    exit_pivot_root
);

/// `fsopen(fstype, flags)`
const FSOPEN: Shape =
    Shape { op: MountOp::Fsopen, source: NONE, target: NONE, fstype: 0, flags: 1 };
system_call!(
    2,
    begins,
    |result| ends(&FSOPEN, result),
    fentry_fsopen,
    fexit_fsopen,
    kprobe_fsopen,
    kretprobe_fsopen,
    enter_fsopen,
    exit_fsopen
);

/// `fsconfig(fd, command, key, value, aux)`: the value of a string or a path is the data; user space covers secrets
const FSCONFIG: Shape =
    Shape { op: MountOp::Fsconfig, source: 2, target: NONE, fstype: NONE, flags: 1 };
system_call!(
    5,
    begins,
    |result| ends(&FSCONFIG, result),
    fentry_fsconfig,
    fexit_fsconfig,
    kprobe_fsconfig,
    kretprobe_fsconfig,
    enter_fsconfig,
    exit_fsconfig
);

/// `fsmount(fd, flags, attributes)`
const FSMOUNT: Shape =
    Shape { op: MountOp::Fsmount, source: NONE, target: NONE, fstype: NONE, flags: 1 };
system_call!(
    3,
    begins,
    |result| ends(&FSMOUNT, result),
    fentry_fsmount,
    fexit_fsmount,
    kprobe_fsmount,
    kretprobe_fsmount,
    enter_fsmount,
    exit_fsmount
);

/// `fspick(fd, path, flags)`
const FSPICK: Shape =
    Shape { op: MountOp::Fspick, source: NONE, target: 1, fstype: NONE, flags: 2 };
system_call!(
    3,
    begins,
    |result| ends(&FSPICK, result),
    fentry_fspick,
    fexit_fspick,
    kprobe_fspick,
    kretprobe_fspick,
    enter_fspick,
    exit_fspick
);

/// `open_tree(fd, path, flags)`
const OPEN_TREE: Shape =
    Shape { op: MountOp::OpenTree, source: 1, target: NONE, fstype: NONE, flags: 2 };
system_call!(
    3,
    begins,
    |result| ends(&OPEN_TREE, result),
    fentry_open_tree,
    fexit_open_tree,
    kprobe_open_tree,
    kretprobe_open_tree,
    enter_open_tree,
    exit_open_tree
);

/// `mount_setattr(fd, path, flags, attributes, size)`
const MOUNT_SETATTR: Shape =
    Shape { op: MountOp::MountSetattr, source: NONE, target: 1, fstype: NONE, flags: 2 };
system_call!(
    5,
    begins,
    |result| ends(&MOUNT_SETATTR, result),
    fentry_mount_setattr,
    fexit_mount_setattr,
    kprobe_mount_setattr,
    kretprobe_mount_setattr,
    enter_mount_setattr,
    exit_mount_setattr
);

/// The argument at an index of a [`Shape`], 0 for [`NONE`].
#[inline(always)]
fn argument(arguments: &Arguments, index: usize) -> u64 {
    if index < NONE { arguments[index] } else { 0 }
}

#[inline(always)]
fn ends(shape: &Shape, result: i64) {
    for_current_task!(ended(shape, result));
}

#[inline(always)]
fn ended<A: Access>(task: Ptr, shape: &Shape, result: i64) {
    let Some(call) = Ended::now(running_thread::<A>(task)) else { return };
    if restarts(result) {
        return;
    }
    let cgroups = task_cgroups::<A>(task);
    let arguments = &call.arguments;
    let op = match shape.op {
        MountOp::Mount => MountOp::of_mount_flags(argument(arguments, shape.flags)),
        op => op,
    };
    time(cgroups, Kind::mount(op, result < 0), call.duration_ns());
    if !writes(Probe::Mount) {
        return;
    }
    let when = || call.end_ns;
    emit_in_place::<A, Mount>(Probe::Mount, RecordType::Mount, task, cgroups, when, |record| {
        record.flags = argument(arguments, shape.flags);
        record.duration_ns = call.duration_ns();
        record.result = result as i32;
        record.op = op as u32;
        record.header.flags |=
            read_user_text(&mut record.source, argument(arguments, shape.source))
                | read_user_text(&mut record.target, argument(arguments, shape.target))
                | read_user_text(&mut record.fstype, argument(arguments, shape.fstype))
                | read_user_text(&mut record.data, data(op, arguments));
        attributes(record, op, arguments);
    });
}

/// The address of the options that a call carries as text, else 0.
#[inline(always)]
fn data(op: MountOp, arguments: &Arguments) -> u64 {
    match op {
        MountOp::Mount | MountOp::Remount => arguments[4],
        // FSCONFIG_SET_STRING, FSCONFIG_SET_PATH, FSCONFIG_SET_PATH_EMPTY
        MountOp::Fsconfig if matches!(arguments[1], 1 | 3 | 4) => arguments[3],
        _ => 0,
    }
}

/// What a call of the newer mount API changes.
#[inline(always)]
fn attributes(record: &mut Mount, op: MountOp, arguments: &Arguments) {
    match op {
        MountOp::Fsmount => record.attr_set = arguments[2],
        MountOp::MountSetattr | MountOp::OpenTreeAttr if arguments[4] >= 24 => {
            // `struct mount_attr`: set, clear, propagation
            let mut words = [0_u64; 3];
            // SAFETY: the destination is `words`, of the size given; the helper checks the source.
            unsafe {
                bpf_probe_read_user(words.as_mut_ptr().cast(), 24, arguments[3] as *const _);
            }
            [record.attr_set, record.attr_clr, record.propagation] = words;
        }
        _ => {}
    }
}
