//! What an escape from a container is made of: tracing other tasks, loading code into the kernel, opening files past
//! the mount namespace, writing to files that make the kernel run programs.
//!
//! Most are system calls without a tracepoint made for them (`module:module_load` tells success only, and an attempt is
//! as telling), so they are seen at entry and exit. What is no guarded call (an open for reading, a `bpf` that reads a map)
//! is left at the entry, before anything is remembered.
//!
//! Signals to another cgroup are seen where the kernel queues them: `signal_generate(sig, info, task, group, result)`. The many
//! calls that can send one all end there, and a process that signals its own threads all day pays for no system call
//! tracepoint.

use crate::call::{Arguments, Call, Ended, current_thread, restarts, system_call};
use crate::cgroup;
use crate::counters::count;
use crate::events::{emit_in_place, now};
use crate::files::{self, ShortName, short};
use crate::kernel::{
    Access, Cgroups, Probed, Ptr, argument, config, current_task, pointer_argument, task_cgroups,
    tracepoint,
};
use crate::text::{read_kernel_text, read_user_text};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use core::ffi::c_void;
use terrarium_abi::guard::TEXT_LEN;
use terrarium_abi::{ABSENT, Guard, GuardCall, GuardEvent, Kind, NsKind, Probe, RecordType};

/// Declares the programs of a guarded call: what they are called, and the condition at the entry.
macro_rules! guarded {
    ($count:literal, $call:ident, $wanted:expr,
     $fentry:ident, $fexit:ident, $kprobe:ident, $kretprobe:ident, $at_enter:ident, $at_exit:ident) => {
        system_call!(
            $count,
            |arguments: Arguments| {
                if ($wanted)(&arguments) {
                    if let Some(call) = Call::begins(Probe::Guard) {
                        call.arguments = arguments;
                    }
                }
            },
            |result| ends(GuardCall::$call as u32, result),
            $fentry,
            $fexit,
            $kprobe,
            $kretprobe,
            $at_enter,
            $at_exit
        );
    };
}

#[inline(always)]
fn always(_: &Arguments) -> bool {
    true
}

// ptrace(request, pid, addr, data)
guarded!(
    4, Ptrace, takes_hold, fentry_ptrace, fexit_ptrace, kprobe_ptrace, kretprobe_ptrace,
    enter_ptrace, exit_ptrace
);

/// Requests of ptrace that begin to trace or change a task (linux/ptrace.h); a tracer makes thousands of others.
#[inline(always)]
fn takes_hold(arguments: &Arguments) -> bool {
    matches!(
        arguments[0],
        // TRACEME, POKETEXT, POKEDATA, POKEUSER, SETREGS, SETFPREGS, ATTACH, SETREGSET, SEIZE
        0 | 4 | 5 | 6 | 13 | 15 | 16 | 0x4205 | 0x4206
    )
}

// process_vm_writev(pid, local, local_count, remote, remote_count, flags)
guarded!(
    6, ProcessVmWritev, always, fentry_process_vm_writev, fexit_process_vm_writev,
    kprobe_process_vm_writev, kretprobe_process_vm_writev, enter_process_vm_writev,
    exit_process_vm_writev
);

// bpf(command, attributes, size)
guarded!(
    3, Bpf, changes_programs, fentry_bpf, fexit_bpf, kprobe_bpf, kretprobe_bpf, enter_bpf, exit_bpf
);

/// Commands of bpf that make, attach or take hold of something (`enum bpf_cmd` of linux/bpf.h).
#[inline(always)]
fn changes_programs(arguments: &Arguments) -> bool {
    // MAP_CREATE, PROG_LOAD to PROG_ATTACH, PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID, RAW_TRACEPOINT_OPEN, BTF_LOAD,
    // LINK_CREATE to LINK_GET_FD_BY_ID, TOKEN_CREATE
    const COMMANDS: u64 = 1
        | 1 << 5
        | 1 << 6
        | 1 << 7
        | 1 << 8
        | 1 << 13
        | 1 << 14
        | 1 << 17
        | 1 << 18
        | 1 << 28
        | 1 << 29
        | 1 << 30
        | 1 << 36;
    arguments[0] < 64 && COMMANDS >> (arguments[0] & 63) & 1 == 1
}

// init_module(image, length, parameters)
guarded!(
    3, InitModule, always, fentry_init_module, fexit_init_module, kprobe_init_module,
    kretprobe_init_module, enter_init_module, exit_init_module
);

// finit_module(fd, parameters, flags)
guarded!(
    3, FinitModule, always, fentry_finit_module, fexit_finit_module, kprobe_finit_module,
    kretprobe_finit_module, enter_finit_module, exit_finit_module
);

// kexec_load(entry, segment_count, segments, flags)
guarded!(
    4, KexecLoad, always, fentry_kexec_load, fexit_kexec_load, kprobe_kexec_load,
    kretprobe_kexec_load, enter_kexec_load, exit_kexec_load
);

// kexec_file_load(kernel_fd, initrd_fd, command_line_length, command_line, flags)
guarded!(
    5, KexecFileLoad, always, fentry_kexec_file_load, fexit_kexec_file_load,
    kprobe_kexec_file_load, kretprobe_kexec_file_load, enter_kexec_file_load, exit_kexec_file_load
);

// open_by_handle_at(mount_fd, handle, flags)
guarded!(
    3, OpenByHandleAt, always, fentry_open_by_handle_at, fexit_open_by_handle_at,
    kprobe_open_by_handle_at, kretprobe_open_by_handle_at, enter_open_by_handle_at,
    exit_open_by_handle_at
);

// capset(header, data)
guarded!(
    2, Capset, always, fentry_capset, fexit_capset, kprobe_capset, kretprobe_capset, enter_capset,
    exit_capset
);

// chroot(path)
guarded!(
    1, Chroot, always, fentry_chroot, fexit_chroot, kprobe_chroot, kretprobe_chroot, enter_chroot,
    exit_chroot
);

// keyctl(operation, …)
guarded!(
    5, Keyctl, always, fentry_keyctl, fexit_keyctl, kprobe_keyctl, kretprobe_keyctl, enter_keyctl,
    exit_keyctl
);

// add_key(type, description, payload, length, keyring): the payload is left alone, it is a secret
guarded!(
    5, AddKey, always, fentry_add_key, fexit_add_key, kprobe_add_key, kretprobe_add_key,
    enter_add_key, exit_add_key
);

// request_key(type, description, callout, keyring)
guarded!(
    4, RequestKey, always, fentry_request_key, fexit_request_key, kprobe_request_key,
    kretprobe_request_key, enter_request_key, exit_request_key
);

// userfaultfd(flags)
guarded!(
    1, Userfaultfd, always, fentry_userfaultfd, fexit_userfaultfd, kprobe_userfaultfd,
    kretprobe_userfaultfd, enter_userfaultfd, exit_userfaultfd
);

// mknod(path, mode, device)
guarded!(
    3,
    Mknod,
    |arguments: &Arguments| is_device(arguments[1], arguments[2]),
    fentry_mknod,
    fexit_mknod,
    kprobe_mknod,
    kretprobe_mknod,
    enter_mknod,
    exit_mknod
);

// mknodat(folder, path, mode, device)
guarded!(
    4,
    Mknodat,
    |arguments: &Arguments| is_device(arguments[2], arguments[3]),
    fentry_mknodat,
    fexit_mknodat,
    kprobe_mknodat,
    kretprobe_mknodat,
    enter_mknodat,
    exit_mknodat
);

/// Whether mknod makes a device: `S_IFCHR` or `S_IFBLK`, but not the whiteout of overlayfs, device 0:0.
#[inline(always)]
fn is_device(mode: u64, device: u64) -> bool {
    matches!(mode & 0o170_000, 0o020_000 | 0o060_000) && device as u32 != 0
}

// perf_event_open(attributes, pid, cpu, group, flags)
guarded!(
    5, PerfEventOpen, always, fentry_perf_event_open, fexit_perf_event_open,
    kprobe_perf_event_open, kretprobe_perf_event_open, enter_perf_event_open, exit_perf_event_open
);

// pidfd_getfd(pidfd, target_fd, flags)
guarded!(
    3, PidfdGetfd, always, fentry_pidfd_getfd, fexit_pidfd_getfd, kprobe_pidfd_getfd,
    kretprobe_pidfd_getfd, enter_pidfd_getfd, exit_pidfd_getfd
);

// recvmsg(socket, message, flags)
guarded!(
    3, Recvmsg, takes_control_messages, fentry_recvmsg, fexit_recvmsg, kprobe_recvmsg,
    kretprobe_recvmsg, enter_recvmsg, exit_recvmsg
);

/// Where `struct user_msghdr` (linux/socket.h) has the address of the control messages, and their length.
const MSG_CONTROL: u64 = 32;
const MSG_CONTROLLEN: u64 = 40;
/// `struct cmsghdr`: length, level, type; what comes behind is the data.
const CMSG_HEADER: u64 = 16;

/// Whether recvmsg has room for a control message with a descriptor.
#[inline(always)]
fn takes_control_messages(arguments: &Arguments) -> bool {
    user_word(arguments[1].wrapping_add(MSG_CONTROLLEN)) >= CMSG_HEADER + 4
}

/// The first descriptor among those that a message brought whose file is mounted in another mount namespace than the task's, and the
/// inode of that namespace. Descriptors are the last of the kernel's control messages, behind credentials where those are asked
/// for: they are looked for among the first three. More than a few of one message are as a rule of one kind.
#[inline(always)]
fn received(message: u64) -> Option<(u32, u32)> {
    /// `SOL_SOCKET` and `SCM_RIGHTS` (linux/socket.h) as one word.
    const RIGHTS: u64 = 1 | 1 << 32;
    let mut control = user_word(message.wrapping_add(MSG_CONTROL));
    let mut left = user_word(message.wrapping_add(MSG_CONTROLLEN));
    for _ in 0..3 {
        let mut head = [0_u64; 2];
        if left < CMSG_HEADER + 4 || !read_user(&mut head, control) {
            return None;
        }
        if head[1] == RIGHTS {
            return foreign(
                control.wrapping_add(CMSG_HEADER),
                head[0].wrapping_sub(CMSG_HEADER) / 4,
            );
        }
        let step = head[0].wrapping_add(7) & !7;
        if step > left {
            return None;
        }
        control = control.wrapping_add(step);
        left -= step;
    }
    None
}

/// The same, among `count` descriptors at an address of the task.
#[inline(always)]
fn foreign(descriptors: u64, count: u64) -> Option<(u32, u32)> {
    let task = current_task();
    let kind = config!(ns[NsKind::Mnt as usize].pointer);
    if kind == ABSENT {
        return None;
    }
    let own = task.follow::<Probed>(config!(task_nsproxy)).follow::<Probed>(kind);
    for n in 0..4 {
        let mut fd = 0_u32;
        if n >= count || !read_user(&mut fd, descriptors.wrapping_add(4 * n)) {
            return None;
        }
        let Some(file) = files::file_of(task, fd) else { continue };
        let namespace = files::mount_namespace_of(file);
        if !namespace.is_null() && namespace.0.addr() != own.0.addr() {
            let inode = namespace.field::<Probed, u32>(config!(ns[NsKind::Mnt as usize].inum));
            return Some((fd, inode));
        }
    }
    None
}

// seccomp(operation, flags, filter)
guarded!(
    3,
    Seccomp,
    |arguments: &Arguments| arguments[0] == SET_MODE_FILTER,
    fentry_seccomp,
    fexit_seccomp,
    kprobe_seccomp,
    kretprobe_seccomp,
    enter_seccomp,
    exit_seccomp
);

/// `SECCOMP_SET_MODE_FILTER` (linux/seccomp.h).
const SET_MODE_FILTER: u64 = 1;

// prctl(option, mode, filter), by which runc installs a filter without flags
guarded!(
    3,
    Prctl,
    |arguments: &Arguments| arguments[0] == PR_SET_SECCOMP && arguments[1] == SECCOMP_MODE_FILTER,
    fentry_prctl,
    fexit_prctl,
    kprobe_prctl,
    kretprobe_prctl,
    enter_prctl,
    exit_prctl
);

/// linux/prctl.h
const PR_SET_SECCOMP: u64 = 22;
/// linux/seccomp.h
const SECCOMP_MODE_FILTER: u64 = 2;

// socket(family, type, protocol)
guarded!(
    3, Socket, configures_a_container, fentry_socket, fexit_socket, kprobe_socket,
    kretprobe_socket, enter_socket, exit_socket
);

/// Whether it is a socket of rtnetlink, of whoever makes a container: the C library makes one whenever it looks up a name.
#[inline(always)]
fn configures_a_container(arguments: &Arguments) -> bool {
    /// `AF_NETLINK` (linux/socket.h) and `NETLINK_ROUTE` (linux/netlink.h).
    const NETLINK: u64 = 16;
    const ROUTE: u64 = 0;
    arguments[0] == NETLINK && arguments[2] == ROUTE && cgroup::makes_one(current_task())
}

// open(path, flags, mode)
guarded!(
    3,
    Open,
    |arguments: &Arguments| writes(arguments[1]),
    fentry_open,
    fexit_open,
    kprobe_open,
    kretprobe_open,
    enter_open,
    exit_open
);

// openat(folder, path, flags, mode)
guarded!(
    4,
    Openat,
    |arguments: &Arguments| writes(arguments[2]),
    fentry_openat,
    fexit_openat,
    kprobe_openat,
    kretprobe_openat,
    enter_openat,
    exit_openat
);

// openat2(folder, path, how, size)
guarded!(
    4,
    Openat2,
    |arguments: &Arguments| writes(user_word(arguments[2])),
    fentry_openat2,
    fexit_openat2,
    kprobe_openat2,
    kretprobe_openat2,
    enter_openat2,
    exit_openat2
);

// creat(path, mode)
guarded!(
    2, Creat, always, fentry_creat, fexit_creat, kprobe_creat, kretprobe_creat, enter_creat,
    exit_creat
);

/// Whether flags of open ask for writing: `O_WRONLY` or `O_RDWR`, without `O_PATH`.
#[inline(always)]
fn writes(flags: u64) -> bool {
    flags & 3 != 0 && flags & 0o10_000_000 == 0
}

/// The word at an address of the task, 0 when it cannot be read.
#[inline(always)]
fn user_word(address: u64) -> u64 {
    let mut word = 0_u64;
    read_user(&mut word, address);
    word
}

/// Reads from the task's memory; what cannot be read is zero.
#[inline(always)]
fn read_user<T: Copy>(out: &mut T, address: u64) -> bool {
    // SAFETY: the destination is `out`, of the size given and made of integers; the helper checks the source.
    let result = unsafe {
        bpf_probe_read_user(
            core::ptr::from_mut(out).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    result == 0
}

tracepoint!(tp_btf_signal_generate, raw_tp_signal_generate, signal_generated);

/// Where `si_code` is in `struct siginfo` (asm-generic/siginfo.h): after the signal and the errno.
const SI_CODE: u32 = 8;

/// A signal is queued. The kernel's own are left: whoever runs when a timer fires, a terminal hangs up or a child ends has not
/// sent it.
#[inline(always)]
fn signal_generated<A: Access>(ctx: *mut c_void) {
    /// `SEND_SIG_PRIV` (linux/sched/signal.h): from the kernel.
    const PRIVILEGED: u64 = 1;
    /// `SI_USER`, `SI_QUEUE` and `SI_TKILL` (asm-generic/siginfo.h): from kill, sigqueue and tgkill.
    const FROM_A_TASK: [i32; 3] = [0, -1, -6];
    // For its special values Linux 6.12 takes it for a number, from which no plain load is allowed: there the program of raw_tp is
    // the one that loads.
    let info = pointer_argument(ctx, 1);
    if info.addr() == PRIVILEGED {
        return;
    }
    // Null is `SEND_SIG_NOINFO`: from the task that runs, without more about it.
    if !info.is_null() {
        let code = info.field::<A, i32>(SI_CODE);
        if !FROM_A_TASK.contains(&code) {
            return;
        }
    }
    let target = pointer_argument(ctx, 2);
    let task = current_task();
    let sender = task_cgroups::<Probed>(task);
    let (from, to) = (sender.ids(), task_cgroups::<Probed>(target).ids());
    if (from.unified, from.memory) == (to.unified, to.memory) {
        return;
    }
    let event = GuardEvent::Signal as u8;
    count(sender, Kind::new(terrarium_abi::counter::family::GUARD, [event, 0, 0]));
    emit_in_place::<Probed, Guard>(Probe::Guard, RecordType::Guard, task, sender, now, |record| {
        record.event = u32::from(event);
        record.call = GuardCall::Kill as u32;
        record.values = [argument(ctx, 0) & 0xff, to.unified, to.memory];
        record.target_pid = target.field::<Probed, u32>(config!(task_tgid));
        let name = target.field::<Probed, [u8; 16]>(config!(task_comm));
        record.text[..name.len()].copy_from_slice(&name);
    });
}

/// A call has ended. Not inlined: one body for all the programs of all calls keeps the object small.
#[inline(never)]
fn ends(call_number: u32, result: i64) {
    let Some(ended) = Ended::now(current_thread()) else { return };
    if restarts(result) {
        return;
    }
    let (mut arguments, end_ns, duration_ns) = (ended.arguments, ended.end_ns, ended.duration_ns());
    drop(ended);
    let event = if call_number == GuardCall::Recvmsg as u32 {
        let found = if result < 0 { None } else { received(arguments[1]) };
        let Some((fd, inode)) = found else { return };
        // In place of the address, which says nothing.
        (arguments[1], arguments[2]) = (u64::from(inode), u64::from(fd));
        GuardEvent::ScmRights as u8
    } else if call_number == GuardCall::Seccomp as u32 || call_number == GuardCall::Prctl as u32 {
        GuardEvent::Seccomp as u8
    } else if call_number == GuardCall::Socket as u32 {
        GuardEvent::RouteSocket as u8
    } else if call_number >= GuardCall::Open as u32 {
        let path = arguments[usize::from(is_at(call_number))];
        match opened(path, result) {
            Some(event) => event,
            None => return,
        }
    } else {
        event_of(call_number)
    };
    let task = current_task();
    let cgroups = task_cgroups::<Probed>(task);
    let failed = result < 0;
    count(cgroups, Kind::new(terrarium_abi::counter::family::GUARD, [event, 0, u8::from(failed)]));
    emit_in_place::<Probed, Guard>(
        Probe::Guard,
        RecordType::Guard,
        task,
        cgroups,
        || end_ns,
        |record| {
            record.event = u32::from(event);
            record.call = call_number;
            record.result = result as i32;
            record.duration_ns = duration_ns;
            describe(record, task, call_number, &arguments, result);
        },
    );
}

/// The event of a call that is guarded whatever it concerns.
#[inline(always)]
fn event_of(call: u32) -> u8 {
    const EVENTS: [GuardEvent; 18] = [
        GuardEvent::Ptrace,
        GuardEvent::ProcessVmWrite,
        GuardEvent::Bpf,
        GuardEvent::ModuleLoad,
        GuardEvent::ModuleLoad,
        GuardEvent::Kexec,
        GuardEvent::Kexec,
        GuardEvent::OpenByHandleAt,
        GuardEvent::Capset,
        GuardEvent::Chroot,
        GuardEvent::Keyctl,
        GuardEvent::Keyctl,
        GuardEvent::Keyctl,
        GuardEvent::Userfaultfd,
        GuardEvent::MknodDevice,
        GuardEvent::MknodDevice,
        GuardEvent::PerfEventOpen,
        GuardEvent::PidfdGetfd,
    ];
    let mut event = 0;
    let mut n = 0;
    // A table in read-only data would be one more map; the compiler makes comparisons of this.
    while n < EVENTS.len() {
        if call == n as u32 {
            event = EVENTS[n] as u8;
        }
        n += 1;
    }
    event
}

/// Whether the call takes a folder before the path.
#[inline(always)]
fn is_at(call: u32) -> bool {
    call == GuardCall::Openat as u32 || call == GuardCall::Openat2 as u32
}

/// What differs from call to call.
#[inline(always)]
fn describe(record: &mut Guard, task: Ptr, call: u32, arguments: &Arguments, result: i64) {
    let [a, b, c, d, e, _] = *arguments;
    // Values, target and text; a text is in the task's memory, or the name behind a descriptor.
    let mut text = 0;
    let mut fd = -1_i64;
    if call == GuardCall::Ptrace as u32 {
        record.values[0] = a;
        record.target_ns_pid = if a == 0 { 0 } else { b as u32 };
    } else if call == GuardCall::ProcessVmWritev as u32 {
        record.values[0] = arguments[5];
        record.target_ns_pid = a as u32;
    } else if call == GuardCall::Bpf as u32 {
        record.values[0] = a;
        record.values[1] = user_word(b) & 0xffff_ffff;
    } else if call == GuardCall::InitModule as u32 {
        record.values[0] = b;
    } else if call == GuardCall::FinitModule as u32 {
        record.values[0] = c;
        fd = i64::from(a as u32);
    } else if call == GuardCall::KexecLoad as u32 {
        record.values[0] = d;
    } else if call == GuardCall::KexecFileLoad as u32 {
        record.values[0] = e;
        fd = i64::from(a as u32);
    } else if call == GuardCall::OpenByHandleAt as u32 {
        record.values[0] = c;
        fd = result;
    } else if call == GuardCall::Capset as u32 {
        // Two of `struct __user_cap_data_struct`: effective, permitted and inheritable, low words first.
        let mut sets = [0_u32; 6];
        read_user(&mut sets, b);
        for (n, value) in record.values.iter_mut().enumerate() {
            *value = u64::from(sets[n]) | u64::from(sets[n + 3]) << 32;
        }
    } else if call == GuardCall::Keyctl as u32 {
        record.values[0] = a;
        // KEYCTL_JOIN_SESSION_KEYRING names a keyring.
        text = if a == 1 { b } else { 0 };
    } else if call == GuardCall::AddKey as u32 || call == GuardCall::RequestKey as u32 {
        record.values[0] = if call == GuardCall::AddKey as u32 { e } else { d };
        text = b;
    } else if call == GuardCall::Userfaultfd as u32 {
        record.values[0] = a;
    } else if call == GuardCall::Seccomp as u32 || call == GuardCall::Socket as u32 {
        record.values[0] = b;
    } else if call == GuardCall::Mknod as u32 {
        record.values[0] = b & 0xffff;
        record.values[1] = c & 0xffff_ffff;
        text = a;
    } else if call == GuardCall::Mknodat as u32 {
        record.values[0] = c & 0xffff;
        record.values[1] = d & 0xffff_ffff;
        text = b;
    } else if call == GuardCall::PerfEventOpen as u32 {
        record.values = [user_word(a) & 0xffff_ffff, c & 0xffff_ffff, e];
        let pid = b as u32;
        record.target_ns_pid = if pid == u32::MAX { 0 } else { pid };
    } else if call == GuardCall::PidfdGetfd as u32 {
        record.values[0] = b;
        record.target_pid = process_of(task, a as u32);
    } else if call == GuardCall::Recvmsg as u32 {
        record.values = [b, c, 0];
        fd = i64::from(c as u32);
    } else if call == GuardCall::Open as u32 {
        record.values[0] = b;
        text = a;
    } else if call == GuardCall::Openat as u32 {
        record.values[0] = c;
        text = b;
    } else if call == GuardCall::Openat2 as u32 {
        record.values[0] = user_word(c);
        text = b;
    } else if call != GuardCall::Prctl as u32 {
        // chroot, creat
        text = a;
    }
    let level =
        task.follow::<Probed>(config!(task_thread_pid)).field::<Probed, u32>(config!(pid_level));
    if record.target_pid == 0 && level == 0 {
        record.target_pid = record.target_ns_pid;
    }
    if fd >= 0 {
        if let Some(file) = files::file_of(task, fd as u32) {
            record.header.flags |= read_kernel_text(&mut record.text, files::name_of(file)).1;
        }
    } else {
        record.header.flags |= read_user_text(&mut record.text, text);
    }
}

/// The process, in the initial pid namespace, that a pidfd of the task stands for; 0 when it is none.
#[inline(always)]
fn process_of(task: Ptr, fd: u32) -> u32 {
    /// `PID_FS_MAGIC`, since 6.9; before, pidfds are anonymous inodes.
    const PID_FS_MAGIC: u64 = 0x5049_4446;
    const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;
    let Some(file) = files::file_of(task, fd) else { return 0 };
    let inode = file.follow::<Probed>(config!(file_inode));
    let magic = files::magic_of(inode);
    let pid = if magic == PID_FS_MAGIC {
        inode.follow::<Probed>(config!(inode_private))
    } else if magic == ANON_INODE_FS_MAGIC {
        file.follow::<Probed>(config!(file_private))
    } else {
        return 0;
    };
    // The first of `pid.numbers` is the one of the initial namespace; its first member is the number.
    pid.field::<Probed, u32>(config!(pid_numbers))
}

/// A file that makes the kernel run a program, or obey.
struct Tunable {
    /// The magic number of its file system.
    magic: u64,
    name: &'static [u8],
}

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const SYSFS_MAGIC: u64 = 0x6265_6572;
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
const BINFMTFS_MAGIC: u64 = 0x4249_4e4d;

/// The files, by name: they have these names in every mount of their file systems.
const TUNABLES: [Tunable; 6] = [
    Tunable { magic: CGROUP_SUPER_MAGIC, name: b"release_agent" },
    Tunable { magic: PROC_SUPER_MAGIC, name: b"core_pattern" },
    Tunable { magic: PROC_SUPER_MAGIC, name: b"modprobe" },
    Tunable { magic: SYSFS_MAGIC, name: b"uevent_helper" },
    Tunable { magic: BINFMTFS_MAGIC, name: b"register" },
    Tunable { magic: PROC_SUPER_MAGIC, name: b"sysrq-trigger" },
];

/// The event of an open for writing, if it is one. What was opened is told by the file itself, so no link, relative
/// path or other mount hides it; what could not be opened only by its path.
#[inline(always)]
fn opened(path: u64, result: i64) -> Option<u8> {
    if result >= 0 { opened_file(path, result as u32) } else { refused(path, result) }
}

#[inline(always)]
fn opened_file(path: u64, fd: u32) -> Option<u8> {
    const REGULAR: u16 = 0o100_000;
    let file = files::file_of(current_task(), fd)?;
    let inode = file.follow::<Probed>(config!(file_inode));
    let magic = files::magic_of(inode);
    if matches!(magic, PROC_SUPER_MAGIC | SYSFS_MAGIC | CGROUP_SUPER_MAGIC | BINFMTFS_MAGIC) {
        let name = files::short_name(file);
        if magic == PROC_SUPER_MAGIC
            && (files::same(&name, &short(b"uid_map")) || files::same(&name, &short(b"gid_map")))
        {
            return Some(GuardEvent::IdMapWrite as u8);
        }
        for tunable in &TUNABLES {
            let wanted: ShortName = short(tunable.name);
            if magic == tunable.magic && files::same(&name, &wanted) {
                return Some(GuardEvent::KernelTunableWrite as u8);
            }
        }
        return None;
    }
    // An executable regular file that was reached through a link of /proc: exe, or a descriptor of it.
    if config!(inode_mode) == ABSENT {
        return None;
    }
    let mode = inode.field::<Probed, u16>(config!(inode_mode));
    (mode & 0o170_000 == REGULAR && mode & 0o111 != 0 && begins(path, b"/proc/"))
        .then_some(GuardEvent::ExecutableWrite as u8)
}

/// Room for a path, which is too big for the stack.
#[map]
static PATH_SCRATCH: PerCpuArray<[u8; TEXT_LEN]> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn refused(path: u64, result: i64) -> Option<u8> {
    const ETXTBSY: i64 = -26;
    const ENOENT: i64 = -2;
    let proc = begins(path, b"/proc/");
    if result == ENOENT || !(proc || begins(path, b"/sys/")) {
        return None;
    }
    let room = PATH_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the destination is a live map value of the size given; the helper checks the source.
    let len = unsafe { bpf_probe_read_user_str(room.cast(), TEXT_LEN as u32, path as *const _) };
    if len <= 0 {
        return None;
    }
    let end = path.wrapping_add(len.unsigned_abs()).wrapping_sub(1);
    if ends_with::<4>(end, b"/exe") || (proc && result == ETXTBSY) {
        return Some(GuardEvent::ExecutableWrite as u8);
    }
    (ends_with::<14>(end, b"/release_agent")
        || ends_with::<13>(end, b"/core_pattern")
        || ends_with::<9>(end, b"/modprobe")
        || ends_with::<14>(end, b"/uevent_helper")
        || ends_with::<21>(end, b"/binfmt_misc/register")
        || ends_with::<14>(end, b"/sysrq-trigger"))
    .then_some(GuardEvent::KernelTunableWrite as u8)
}

/// Whether the string at an address of the task begins with these bytes.
#[inline(always)]
fn begins<const N: usize>(address: u64, with: &[u8; N]) -> bool {
    ends_with::<N>(address.wrapping_add(N as u64), with)
}

/// Whether these bytes stand before an address of the task.
#[inline(always)]
fn ends_with<const N: usize>(end: u64, with: &[u8; N]) -> bool {
    let mut words = [0_u64; 3];
    // SAFETY: the destination is `words`, which has at least `N` bytes (names are up to 24); the helper checks the source.
    let result = unsafe {
        bpf_probe_read_user(
            words.as_mut_ptr().cast(),
            N as u32,
            end.wrapping_sub(N as u64) as *const _,
        )
    };
    result == 0 && files::same(&words, &short(with))
}
