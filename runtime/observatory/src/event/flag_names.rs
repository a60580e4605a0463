//! Names of flags and of error numbers.

use nix::errno::Errno;

/// The flags of clone and unshare (linux/sched.h).
pub const CLONE: &[(u64, &str)] = &[
    (0x0000_0100, "CLONE_VM"),
    (0x0000_0200, "CLONE_FS"),
    (0x0000_0400, "CLONE_FILES"),
    (0x0000_0800, "CLONE_SIGHAND"),
    (0x0000_1000, "CLONE_PIDFD"),
    (0x0000_2000, "CLONE_PTRACE"),
    (0x0000_4000, "CLONE_VFORK"),
    (0x0000_8000, "CLONE_PARENT"),
    (0x0001_0000, "CLONE_THREAD"),
    (0x0002_0000, "CLONE_NEWNS"),
    (0x0004_0000, "CLONE_SYSVSEM"),
    (0x0008_0000, "CLONE_SETTLS"),
    (0x0010_0000, "CLONE_PARENT_SETTID"),
    (0x0020_0000, "CLONE_CHILD_CLEARTID"),
    (0x0040_0000, "CLONE_DETACHED"),
    (0x0080_0000, "CLONE_UNTRACED"),
    (0x0100_0000, "CLONE_CHILD_SETTID"),
    (0x0200_0000, "CLONE_NEWCGROUP"),
    (0x0400_0000, "CLONE_NEWUTS"),
    (0x0800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
    (0x8000_0000, "CLONE_IO"),
    (0x1_0000_0000, "CLONE_CLEAR_SIGHAND"),
    (0x2_0000_0000, "CLONE_INTO_CGROUP"),
];

/// `CLONE_NEWTIME` shares its bit with clone's exit signal.
pub const NEWTIME: (u64, &str) = (0x80, "CLONE_NEWTIME");

/// The flags of mount (linux/mount.h).
pub const MOUNT: &[(u64, &str)] = &[
    (1, "MS_RDONLY"),
    (1 << 1, "MS_NOSUID"),
    (1 << 2, "MS_NODEV"),
    (1 << 3, "MS_NOEXEC"),
    (1 << 4, "MS_SYNCHRONOUS"),
    (1 << 5, "MS_REMOUNT"),
    (1 << 6, "MS_MANDLOCK"),
    (1 << 7, "MS_DIRSYNC"),
    (1 << 8, "MS_NOSYMFOLLOW"),
    (1 << 10, "MS_NOATIME"),
    (1 << 11, "MS_NODIRATIME"),
    (1 << 12, "MS_BIND"),
    (1 << 13, "MS_MOVE"),
    (1 << 14, "MS_REC"),
    (1 << 15, "MS_SILENT"),
    (1 << 16, "MS_POSIXACL"),
    (1 << 17, "MS_UNBINDABLE"),
    (1 << 18, "MS_PRIVATE"),
    (1 << 19, "MS_SLAVE"),
    (1 << 20, "MS_SHARED"),
    (1 << 21, "MS_RELATIME"),
    (1 << 23, "MS_I_VERSION"),
    (1 << 24, "MS_STRICTATIME"),
    (1 << 25, "MS_LAZYTIME"),
];

/// The flags of umount2 (linux/fs.h).
pub const UMOUNT: &[(u64, &str)] =
    &[(1, "MNT_FORCE"), (2, "MNT_DETACH"), (4, "MNT_EXPIRE"), (8, "UMOUNT_NOFOLLOW")];

/// The flags of `move_mount` (linux/mount.h).
pub const MOVE_MOUNT: &[(u64, &str)] = &[
    (0x01, "MOVE_MOUNT_F_SYMLINKS"),
    (0x02, "MOVE_MOUNT_F_AUTOMOUNTS"),
    (0x04, "MOVE_MOUNT_F_EMPTY_PATH"),
    (0x10, "MOVE_MOUNT_T_SYMLINKS"),
    (0x20, "MOVE_MOUNT_T_AUTOMOUNTS"),
    (0x40, "MOVE_MOUNT_T_EMPTY_PATH"),
    (0x100, "MOVE_MOUNT_SET_GROUP"),
    (0x200, "MOVE_MOUNT_BENEATH"),
];

/// The flags of `open_tree` (linux/mount.h, linux/fcntl.h).
pub const OPEN_TREE: &[(u64, &str)] = &[
    (0x1, "OPEN_TREE_CLONE"),
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x8000, "AT_RECURSIVE"),
    (0x8_0000, "OPEN_TREE_CLOEXEC"),
];

/// The flags of fsopen (linux/mount.h).
pub const FSOPEN: &[(u64, &str)] = &[(1, "FSOPEN_CLOEXEC")];

/// The commands of fsconfig (linux/mount.h).
pub const FSCONFIG: &[(u64, &str)] = &[
    (0, "FSCONFIG_SET_FLAG"),
    (1, "FSCONFIG_SET_STRING"),
    (2, "FSCONFIG_SET_BINARY"),
    (3, "FSCONFIG_SET_PATH"),
    (4, "FSCONFIG_SET_PATH_EMPTY"),
    (5, "FSCONFIG_SET_FD"),
    (6, "FSCONFIG_CMD_CREATE"),
    (7, "FSCONFIG_CMD_RECONFIGURE"),
    (8, "FSCONFIG_CMD_CREATE_EXCL"),
];

/// The flags of fsmount (linux/mount.h).
pub const FSMOUNT: &[(u64, &str)] = &[(1, "FSMOUNT_CLOEXEC")];

/// The flags of fspick (linux/mount.h).
pub const FSPICK: &[(u64, &str)] = &[
    (1, "FSPICK_CLOEXEC"),
    (2, "FSPICK_SYMLINK_NOFOLLOW"),
    (4, "FSPICK_NO_AUTOMOUNT"),
    (8, "FSPICK_EMPTY_PATH"),
];

/// The flags of `mount_setattr` (linux/fcntl.h).
pub const MOUNT_SETATTR: &[(u64, &str)] = &[
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x8000, "AT_RECURSIVE"),
];

/// Attributes of mounts (linux/mount.h). The way of updating access times is a number of two bits.
pub const MOUNT_ATTR: &[(u64, &str)] = &[
    (0x01, "MOUNT_ATTR_RDONLY"),
    (0x02, "MOUNT_ATTR_NOSUID"),
    (0x04, "MOUNT_ATTR_NODEV"),
    (0x08, "MOUNT_ATTR_NOEXEC"),
    (0x10, "MOUNT_ATTR_NOATIME"),
    (0x20, "MOUNT_ATTR_STRICTATIME"),
    (0x80, "MOUNT_ATTR_NODIRATIME"),
    (0x10_0000, "MOUNT_ATTR_IDMAP"),
    (0x20_0000, "MOUNT_ATTR_NOSYMFOLLOW"),
];

/// Requests of ptrace that are reported (linux/ptrace.h).
pub const PTRACE: &[(u64, &str)] = &[
    (0, "PTRACE_TRACEME"),
    (4, "PTRACE_POKETEXT"),
    (5, "PTRACE_POKEDATA"),
    (6, "PTRACE_POKEUSR"),
    (13, "PTRACE_SETREGS"),
    (15, "PTRACE_SETFPREGS"),
    (16, "PTRACE_ATTACH"),
    (0x4205, "PTRACE_SETREGSET"),
    (0x4206, "PTRACE_SEIZE"),
];

/// Commands of bpf that are reported (`enum bpf_cmd` of linux/bpf.h).
pub const BPF: &[(u64, &str)] = &[
    (0, "BPF_MAP_CREATE"),
    (5, "BPF_PROG_LOAD"),
    (6, "BPF_OBJ_PIN"),
    (7, "BPF_OBJ_GET"),
    (8, "BPF_PROG_ATTACH"),
    (13, "BPF_PROG_GET_FD_BY_ID"),
    (14, "BPF_MAP_GET_FD_BY_ID"),
    (17, "BPF_RAW_TRACEPOINT_OPEN"),
    (18, "BPF_BTF_LOAD"),
    (28, "BPF_LINK_CREATE"),
    (29, "BPF_LINK_UPDATE"),
    (30, "BPF_LINK_GET_FD_BY_ID"),
    (36, "BPF_TOKEN_CREATE"),
];

/// Types of eBPF programs (`enum bpf_prog_type` of linux/bpf.h).
pub const BPF_PROGRAM: &[(u64, &str)] = &[
    (1, "SOCKET_FILTER"),
    (2, "KPROBE"),
    (3, "SCHED_CLS"),
    (4, "SCHED_ACT"),
    (5, "TRACEPOINT"),
    (6, "XDP"),
    (7, "PERF_EVENT"),
    (8, "CGROUP_SKB"),
    (9, "CGROUP_SOCK"),
    (10, "LWT_IN"),
    (11, "LWT_OUT"),
    (12, "LWT_XMIT"),
    (13, "SOCK_OPS"),
    (14, "SK_SKB"),
    (15, "CGROUP_DEVICE"),
    (16, "SK_MSG"),
    (17, "RAW_TRACEPOINT"),
    (18, "CGROUP_SOCK_ADDR"),
    (19, "LWT_SEG6LOCAL"),
    (20, "LIRC_MODE2"),
    (21, "SK_REUSEPORT"),
    (22, "FLOW_DISSECTOR"),
    (23, "CGROUP_SYSCTL"),
    (24, "RAW_TRACEPOINT_WRITABLE"),
    (25, "CGROUP_SOCKOPT"),
    (26, "TRACING"),
    (27, "STRUCT_OPS"),
    (28, "EXT"),
    (29, "LSM"),
    (30, "SK_LOOKUP"),
    (31, "SYSCALL"),
    (32, "NETFILTER"),
];

/// Operations of keyctl (linux/keyctl.h).
pub const KEYCTL: &[(u64, &str)] = &[
    (0, "KEYCTL_GET_KEYRING_ID"),
    (1, "KEYCTL_JOIN_SESSION_KEYRING"),
    (2, "KEYCTL_UPDATE"),
    (3, "KEYCTL_REVOKE"),
    (4, "KEYCTL_CHOWN"),
    (5, "KEYCTL_SETPERM"),
    (6, "KEYCTL_DESCRIBE"),
    (7, "KEYCTL_CLEAR"),
    (8, "KEYCTL_LINK"),
    (9, "KEYCTL_UNLINK"),
    (10, "KEYCTL_SEARCH"),
    (11, "KEYCTL_READ"),
    (12, "KEYCTL_INSTANTIATE"),
    (13, "KEYCTL_NEGATE"),
    (14, "KEYCTL_SET_REQKEY_KEYRING"),
    (15, "KEYCTL_SET_TIMEOUT"),
    (16, "KEYCTL_ASSUME_AUTHORITY"),
    (17, "KEYCTL_GET_SECURITY"),
    (18, "KEYCTL_SESSION_TO_PARENT"),
    (19, "KEYCTL_REJECT"),
    (20, "KEYCTL_INSTANTIATE_IOV"),
    (21, "KEYCTL_INVALIDATE"),
    (22, "KEYCTL_GET_PERSISTENT"),
];

/// Types of events of `perf_event_open` (`linux/perf_event.h`).
pub const PERF: &[(u64, &str)] = &[
    (0, "PERF_TYPE_HARDWARE"),
    (1, "PERF_TYPE_SOFTWARE"),
    (2, "PERF_TYPE_TRACEPOINT"),
    (3, "PERF_TYPE_HW_CACHE"),
    (4, "PERF_TYPE_RAW"),
    (5, "PERF_TYPE_BREAKPOINT"),
];

/// The flags of open, but for the way of access (asm-generic/fcntl.h).
pub const OPEN: &[(u64, &str)] = &[
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10_000, "O_DSYNC"),
    (0o40_000, "O_DIRECT"),
    (0o100_000, "O_LARGEFILE"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
];

/// The flags of `finit_module` (linux/module.h).
pub const FINIT_MODULE: &[(u64, &str)] = &[
    (1, "MODULE_INIT_IGNORE_MODVERSIONS"),
    (2, "MODULE_INIT_IGNORE_VERMAGIC"),
    (4, "MODULE_INIT_COMPRESSED_FILE"),
];

/// The flags of `kexec_file_load` (linux/kexec.h).
pub const KEXEC_FILE: &[(u64, &str)] =
    &[(1, "KEXEC_FILE_UNLOAD"), (2, "KEXEC_FILE_ON_CRASH"), (4, "KEXEC_FILE_NO_INITRAMFS")];

/// The flags of userfaultfd (linux/userfaultfd.h, linux/fcntl.h).
pub const USERFAULTFD: &[(u64, &str)] =
    &[(1, "UFFD_USER_MODE_ONLY"), (0o4000, "O_NONBLOCK"), (0o2_000_000, "O_CLOEXEC")];

/// The flags of seccomp with a filter (linux/seccomp.h).
pub const SECCOMP: &[(u64, &str)] = &[
    (1, "SECCOMP_FILTER_FLAG_TSYNC"),
    (2, "SECCOMP_FILTER_FLAG_LOG"),
    (4, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
    (8, "SECCOMP_FILTER_FLAG_NEW_LISTENER"),
    (16, "SECCOMP_FILTER_FLAG_TSYNC_ESRCH"),
    (32, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
];

/// Capabilities, by number (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
];

/// The names of the capabilities in a set.
pub fn capabilities(set: u64) -> Vec<&'static str> {
    let in_set = |number: &usize| set >> number & 1 == 1;
    (0..CAPABILITIES.len()).filter(in_set).map(|number| CAPABILITIES[number]).collect()
}

/// The names of the flags that are set.
pub fn names(flags: u64, table: &[(u64, &'static str)]) -> Vec<&'static str> {
    table.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect()
}

/// The name of a negative result, as `EPERM`; none for success.
pub fn errno(result: i32) -> Option<String> {
    (result < 0).then(|| match Errno::from_raw(result.wrapping_neg()) {
        // System calls may return numbers that user space never sees, as ERESTARTSYS.
        Errno::UnknownErrno => format!("E{}", result.wrapping_neg()),
        errno => format!("{errno:?}"),
    })
}

/// The name of an error as [`errno`] gives it, also by its second name (errno(3)), or what is wrong with it.
pub fn errno_by_name(name: &str) -> Result<String, String> {
    let wanted = match name.to_ascii_uppercase().as_str() {
        "EWOULDBLOCK" => "EAGAIN".to_owned(),
        "EDEADLOCK" => "EDEADLK".to_owned(),
        "ENOTSUP" => "EOPNOTSUPP".to_owned(),
        name => name.to_owned(),
    };
    // `MAX_ERRNO` of linux/err.h.
    (1..=4095)
        .filter_map(|number: i32| errno(-number))
        .find(|known| *known == wanted)
        .ok_or_else(|| format!("{name:?} is no error such as EPERM (see errno(3))"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_errors_by_name() {
        assert_eq!(names(0x1002_0000, CLONE), ["CLONE_NEWNS", "CLONE_NEWUSER"]);
        assert_eq!(names(4096 | 1, MOUNT), ["MS_RDONLY", "MS_BIND"]);
        assert_eq!(errno(0), None);
        assert_eq!(errno(3), None);
        assert_eq!(errno(-1).as_deref(), Some("EPERM"));
        assert_eq!(errno(-512).as_deref(), Some("E512"));
        for name in ["EPERM", "eperm", "E512"] {
            assert_eq!(errno_by_name(name), Ok(name.to_ascii_uppercase()));
        }
        for (second, first) in [
            ("EWOULDBLOCK", libc::EWOULDBLOCK),
            ("EDEADLOCK", libc::EDEADLOCK),
            ("ENOTSUP", libc::ENOTSUP),
        ] {
            assert_eq!(errno_by_name(second).ok(), errno(-first));
        }
        for wrong in ["", "EFOO", "1", "-1", "E0", "E4096"] {
            assert!(errno_by_name(wrong).is_err(), "{wrong}");
        }
    }
}
