//! Guarded calls: what an escape from a container is made of.

use crate::Header;
use core::mem::{offset_of, size_of};

/// Longest text in a record, with its NUL.
pub const TEXT_LEN: usize = 160;

/// What was tried, as in the label `event` and in the type `guard.<event>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GuardEvent {
    /// ptrace: a request that begins to trace a task or changes one. Reads and resumptions are left out.
    Ptrace = 0,
    /// `process_vm_writev`
    ProcessVmWrite = 1,
    /// bpf: programs, maps and links made, attached or taken by id. Reads and updates of map elements are left out.
    Bpf = 2,
    /// `init_module`, `finit_module`
    ModuleLoad = 3,
    /// `kexec_load`, `kexec_file_load`
    Kexec = 4,
    /// `open_by_handle_at`
    OpenByHandleAt = 5,
    /// capset
    Capset = 6,
    /// chroot
    Chroot = 7,
    /// keyctl, `add_key`, `request_key`
    Keyctl = 8,
    /// userfaultfd
    Userfaultfd = 9,
    /// mknod, mknodat of a block or character device; the whiteout 0:0 is left out.
    MknodDevice = 10,
    /// `perf_event_open`
    PerfEventOpen = 11,
    /// `pidfd_getfd`
    PidfdGetfd = 12,
    /// A file that makes the kernel run a program of the writer's choice, or obey it, opened for writing.
    KernelTunableWrite = 13,
    /// The executable of a process opened for writing through `/proc`.
    ExecutableWrite = 14,
    /// A signal that a process sent to one of another cgroup: not the kernel's own (a terminal's, a timer's, `SIGCHLD`), and
    /// not one that was refused.
    Signal = 15,
    /// A descriptor that came over a unix socket, of a file that is mounted in another mount namespace than the receiver's.
    ScmRights = 16,
    /// seccomp, or prctl with `PR_SET_SECCOMP`: a filter installed.
    Seccomp = 17,
    /// A file `uid_map` or `gid_map` opened for writing: whose the ids of a user namespace are (`user_namespaces(7)`).
    IdMapWrite = 18,
    /// A socket of rtnetlink, by which networks are configured, made by the maker of a cgroup, or a child of it, soon after.
    RouteSocket = 19,
}

impl GuardEvent {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Ptrace,
        Self::ProcessVmWrite,
        Self::Bpf,
        Self::ModuleLoad,
        Self::Kexec,
        Self::OpenByHandleAt,
        Self::Capset,
        Self::Chroot,
        Self::Keyctl,
        Self::Userfaultfd,
        Self::MknodDevice,
        Self::PerfEventOpen,
        Self::PidfdGetfd,
        Self::KernelTunableWrite,
        Self::ExecutableWrite,
        Self::Signal,
        Self::ScmRights,
        Self::Seccomp,
        Self::IdMapWrite,
        Self::RouteSocket,
    ];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ptrace => "ptrace",
            Self::ProcessVmWrite => "process_vm_write",
            Self::Bpf => "bpf",
            Self::ModuleLoad => "module_load",
            Self::Kexec => "kexec",
            Self::OpenByHandleAt => "open_by_handle_at",
            Self::Capset => "capset",
            Self::Chroot => "chroot",
            Self::Keyctl => "keyctl",
            Self::Userfaultfd => "userfaultfd",
            Self::MknodDevice => "mknod_device",
            Self::PerfEventOpen => "perf_event_open",
            Self::PidfdGetfd => "pidfd_getfd",
            Self::KernelTunableWrite => "kernel_tunable_write",
            Self::ExecutableWrite => "executable_write",
            Self::Signal => "signal",
            Self::ScmRights => "scm_rights",
            Self::Seccomp => "seccomp",
            Self::IdMapWrite => "id_map_write",
            Self::RouteSocket => "route_socket",
        }
    }
}

/// The system call. What [`Guard::values`] hold is told in each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GuardCall {
    /// request
    Ptrace = 0,
    /// flags
    ProcessVmWritev = 1,
    /// command, first word of its attributes (the type of a program or map)
    Bpf = 2,
    /// bytes of the image
    InitModule = 3,
    /// flags
    FinitModule = 4,
    /// flags
    KexecLoad = 5,
    /// flags
    KexecFileLoad = 6,
    /// flags of open
    OpenByHandleAt = 7,
    /// effective, permitted, inheritable set
    Capset = 8,
    /// nothing
    Chroot = 9,
    /// operation
    Keyctl = 10,
    /// keyring
    AddKey = 11,
    /// keyring
    RequestKey = 12,
    /// flags
    Userfaultfd = 13,
    /// mode, device
    Mknod = 14,
    /// mode, device
    Mknodat = 15,
    /// type of event, CPU, flags
    PerfEventOpen = 16,
    /// the target's descriptor
    PidfdGetfd = 17,
    /// of the first such file: the inode of the mount namespace, the descriptor
    Recvmsg = 18,
    /// flags of open
    Open = 19,
    /// flags of open
    Openat = 20,
    /// flags of open
    Openat2 = 21,
    /// nothing
    Creat = 22,
    /// kill, tkill, tgkill, `pidfd_send_signal`, `rt_sigqueueinfo`, `rt_tgsigqueueinfo`, or a write to `cgroup.kill`: the signal,
    /// and of the target the cgroup's id in the unified hierarchy and in the v1 memory hierarchy
    Kill = 23,
    /// flags
    Seccomp = 24,
    /// type of socket
    Socket = 25,
    /// nothing
    Prctl = 26,
}

impl GuardCall {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 27] = [
        Self::Ptrace,
        Self::ProcessVmWritev,
        Self::Bpf,
        Self::InitModule,
        Self::FinitModule,
        Self::KexecLoad,
        Self::KexecFileLoad,
        Self::OpenByHandleAt,
        Self::Capset,
        Self::Chroot,
        Self::Keyctl,
        Self::AddKey,
        Self::RequestKey,
        Self::Userfaultfd,
        Self::Mknod,
        Self::Mknodat,
        Self::PerfEventOpen,
        Self::PidfdGetfd,
        Self::Recvmsg,
        Self::Open,
        Self::Openat,
        Self::Openat2,
        Self::Creat,
        Self::Kill,
        Self::Seccomp,
        Self::Socket,
        Self::Prctl,
    ];

    /// The name of the system call.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ptrace => "ptrace",
            Self::ProcessVmWritev => "process_vm_writev",
            Self::Bpf => "bpf",
            Self::InitModule => "init_module",
            Self::FinitModule => "finit_module",
            Self::KexecLoad => "kexec_load",
            Self::KexecFileLoad => "kexec_file_load",
            Self::OpenByHandleAt => "open_by_handle_at",
            Self::Capset => "capset",
            Self::Chroot => "chroot",
            Self::Keyctl => "keyctl",
            Self::AddKey => "add_key",
            Self::RequestKey => "request_key",
            Self::Userfaultfd => "userfaultfd",
            Self::Mknod => "mknod",
            Self::Mknodat => "mknodat",
            Self::PerfEventOpen => "perf_event_open",
            Self::PidfdGetfd => "pidfd_getfd",
            Self::Recvmsg => "recvmsg",
            Self::Open => "open",
            Self::Openat => "openat",
            Self::Openat2 => "openat2",
            Self::Creat => "creat",
            Self::Kill => "kill",
            Self::Seccomp => "seccomp",
            Self::Socket => "socket",
            Self::Prctl => "prctl",
        }
    }
}

/// A guarded call, successful or not.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Guard {
    /// The calling task.
    pub header: Header,
    /// A [`GuardEvent`].
    pub event: u32,
    /// A [`GuardCall`].
    pub call: u32,
    /// What the call returned, cut to 32 bits: a negative errno when it failed.
    pub result: i32,
    /// Process id of the target in the initial pid namespace; 0 when there is none or it is not known.
    pub target_pid: u32,
    /// Process id of the target as the caller gave it, in the caller's pid namespace; 0 when there is none.
    pub target_ns_pid: u32,
    /// Zero.
    pub pad: u32,
    /// Time spent in the call, nanoseconds.
    pub duration_ns: u64,
    /// See [`GuardCall`].
    pub values: [u64; 3],
    /// A path as the caller gave it, the name of a file that a descriptor stands for, the description of a key, or the
    /// name (`comm`) of the task that a signal is for.
    pub text: [u8; TEXT_LEN],
}

const _: () = assert!(size_of::<Guard>() == 80 + 56 + TEXT_LEN);
const _: () = assert!(offset_of!(Guard, values) == 112 && offset_of!(Guard, text) == 136);

crate::pod!(Guard);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices() {
        for (index, event) in GuardEvent::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, index);
        }
        for (index, call) in GuardCall::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, index);
        }
    }
}
