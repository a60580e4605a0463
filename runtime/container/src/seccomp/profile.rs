//! The default profile: what `terrarium run` allows when nobody asked for anything else.
//!
//! It allows what programs need and denies what opens the kernel or the host: mounts, namespaces, modules, bpf,
//! keyrings, raw memory and ports, clocks, swap, reboot. A call that belongs to a capability is allowed when the
//! container holds that capability. The same calls are allowed as by the default profile of Docker and Podman
//! (docs.docker.com, "Seccomp security profiles for Docker"), so an image that runs there runs here; `io_uring` is left out
//! as Docker has left it out since 25.0.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Files and descriptors.
const FILES: &[&str] = &[
    "access", "cachestat", "chdir", "chmod", "chown", "chown32", "close", "close_range",
    "copy_file_range", "creat", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64",
    "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2",
    "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr",
    "flock", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64",
    "fsync", "ftruncate", "ftruncate64", "futimesat", "getcwd", "getdents", "getdents64",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "ioctl", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listmount",
    "listxattr", "listxattrat", "llistxattr", "_llseek", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat",
    "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2",
    "read", "readahead", "readlink", "readlinkat", "readv", "removexattr", "removexattrat",
    "rename", "renameat", "renameat2", "rmdir", "sendfile", "sendfile64", "setxattr", "setxattrat",
    "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "symlink", "symlinkat",
    "sync", "sync_file_range", "syncfs", "tee", "truncate", "truncate64", "umask", "unlink",
    "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes", "vmsplice", "write", "writev",
];

/// Memory.
const MEMORY: &[&str] = &[
    "brk", "get_thread_area", "madvise", "map_shadow_stack", "membarrier", "memfd_create",
    "memfd_secret", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect",
    "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "process_madvise", "process_mrelease", "remap_file_pages", "set_thread_area",
    "set_tid_address",
];

/// Processes, identities, limits and scheduling.
const PROCESSES: &[&str] = &[
    "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list",
    "getcpu", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom",
    "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid",
    "gettid", "getuid", "getuid32", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "pidfd_open", "pidfd_send_signal",
    "prctl", "prlimit64", "process_vm_readv", "process_vm_writev", "ptrace", "restart_syscall",
    "rseq", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list", "setfsgid", "setfsgid32",
    "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setpgid",
    "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid",
    "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setuid", "setuid32",
    "sysinfo", "tgkill", "times", "tkill", "ugetrlimit", "uname", "vfork", "wait4", "waitid",
    "waitpid",
];

/// Signals, timers and waiting.
const SIGNALS_AND_TIME: &[&str] = &[
    "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64",
    "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "getitimer", "gettimeofday",
    "nanosleep", "_newselect", "pause", "poll", "ppoll", "ppoll_time64", "pselect6",
    "pselect6_time64", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
    "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "select", "setitimer", "sigaltstack", "signal", "signalfd", "signalfd4",
    "sigprocmask", "sigreturn", "time", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create",
    "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "uretprobe",
];

/// Sockets, pipes, message queues and System V IPC.
const COMMUNICATION: &[&str] = &[
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "ipc", "listen", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "msgctl",
    "msgget", "msgrcv", "msgsnd", "pipe", "pipe2", "recv", "recvfrom", "recvmmsg",
    "recvmmsg_time64", "recvmsg", "semctl", "semget", "semop", "semtimedop", "semtimedop_time64",
    "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "socketcall", "socketpair",
];

/// Calls that only some architectures have.
const ARCHITECTURE: &[&str] = &[
    "arch_prctl", "arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush",
    "modify_ldt", "riscv_flush_icache", "riscv_hwprobe", "s390_guarded_storage",
    "s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr", "set_tls", "swapcontext",
    "switch_endian", "sync_file_range2", "sys_debug_setcontext",
];

/// Calls that belong to a capability: allowed where the container holds it.
const BY_CAPABILITY: &[(Capability, &[&str])] = &[
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick",
            "lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr",
            "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr",
            "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns",
            "syslog", "umount", "umount2", "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysPacct, &["acct"]),
    (Capability::SysPtrace, &["kcmp", "pidfd_getfd"]),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (
        Capability::SysNice,
        &["get_mempolicy", "mbind", "move_pages", "set_mempolicy", "set_mempolicy_home_node"],
    ),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
];

/// `CLONE_NEW*` of include/uapi/linux/sched.h, without `CLONE_NEWTIME`, which clone(2) has no room for.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// `AF_VSOCK`: the host's and its guests' control channel.
const AF_VSOCK: u64 = 40;

/// Domains of personality(2) that change nothing that matters: `PER_LINUX`, `PER_LINUX32`, `UNAME26`, both, and the question.
const PERSONALITIES: &[u64] = &[0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The default profile for a container that holds `capabilities` in its bounding set.
pub fn default_profile(capabilities: &[Capability]) -> LinuxSeccomp {
    let holds = |capability: &Capability| capabilities.contains(capability);
    let mut rules: Vec<LinuxSyscall> =
        [FILES, MEMORY, PROCESSES, SIGNALS_AND_TIME, COMMUNICATION, ARCHITECTURE]
            .into_iter()
            .map(|names| allow(names, vec![]))
            .collect();
    rules.extend(
        BY_CAPABILITY
            .iter()
            .filter(|(capability, _)| holds(capability))
            .map(|(_, names)| allow(names, vec![])),
    );
    rules.extend(PERSONALITIES.iter().map(|domain| {
        allow(&["personality"], vec![argument(0, LinuxSeccompOperator::ScmpCmpEq, *domain, None)])
    }));
    rules.push(allow(
        &["socket"],
        vec![argument(0, LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK, None)],
    ));
    if !holds(&Capability::SysAdmin) {
        // s390x has the flags in the second argument (clone(2), "C library/kernel differences").
        let flags = usize::from(cfg!(target_arch = "s390x"));
        rules.push(allow(
            &["clone"],
            vec![argument(flags, LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0))],
        ));
        // clone3's flags are behind a pointer, out of a filter's sight: ENOSYS makes C libraries use clone.
        rules.push(
            LinuxSyscallBuilder::default()
                .names(vec!["clone3".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .errno_ret(libc::ENOSYS.cast_unsigned())
                .build()
                .expect("every field of the builder has a default"),
        );
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM.cast_unsigned())
        .architectures(architectures())
        .syscalls(rules)
        .build()
        .expect("every field of the builder has a default")
}

/// The native architecture with those whose programs it runs too.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}

fn allow(names: &[&str], args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let rule = LinuxSyscallBuilder::default()
        .names(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow);
    let rule = if args.is_empty() { rule } else { rule.args(args) };
    rule.build().expect("every field of the builder has a default")
}

fn argument(
    index: usize,
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    let argument = match value_two {
        Some(value) => argument.value_two(value),
        None => argument,
    };
    argument.build().expect("every field of the builder has a default")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &LinuxSeccomp, name: &str) -> bool {
        profile.syscalls().iter().flatten().any(|rule| {
            rule.action() == LinuxSeccompAction::ScmpActAllow
                && rule.names().iter().any(|n| n == name)
                && rule.args().is_none()
        })
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let check = |capabilities: &[Capability], name: &str, expected: bool| {
            assert_eq!(
                allowed(&default_profile(capabilities), name),
                expected,
                "{name} with {capabilities:?}"
            );
        };
        check(&[], "read", true);
        check(&[], "mount", false);
        check(&[], "unshare", false);
        check(&[], "io_uring_setup", false);
        check(&[Capability::SysAdmin], "mount", true);
        check(&[Capability::SysAdmin], "clone3", true);
        check(&[Capability::SysChroot], "chroot", true);
        check(&[Capability::SysAdmin], "init_module", false);
    }

    #[test]
    fn every_name_is_a_system_call_of_some_architecture() {
        use super::super::arch::SyscallArch;
        // Not in the tables of numbers: too new, or of an architecture without a table here.
        let unknown: Vec<&str> = [FILES, MEMORY, PROCESSES, SIGNALS_AND_TIME, COMMUNICATION]
            .into_iter()
            .flatten()
            .copied()
            .filter(|name| {
                [SyscallArch::X86_64, SyscallArch::X86, SyscallArch::Aarch64, SyscallArch::Arm]
                    .iter()
                    .all(|arch| arch.number(name).is_none())
            })
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
