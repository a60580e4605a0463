//! What user space tells the programs before it loads them: offsets of kernel fields, and switches.
//!
//! rustc emits no CO-RE relocations, so the loader reads the offsets from the kernel's BTF and hands them over in
//! a read-only global, which the verifier treats as constants.

use crate::namespace::NS_KINDS;
use core::mem::size_of;

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Offsets that concern one kind of namespace.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NsFields {
    /// Offset of the pointer to the namespace in `nsproxy`; for the user namespace in `cred`.
    pub pointer: u32,
    /// Offset of the inode number in the namespace's struct.
    pub inum: u32,
    /// Inode number of the initial namespace; 0 when unknown.
    pub initial: u32,
}

const _: () = assert!(size_of::<NsFields>() == 12);

/// Declares [`Config`] with all fields [`ABSENT`] in [`Config::UNSET`].
macro_rules! config {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {
        /// The global `CONFIG`. Offsets are bytes from the start of the struct named first in each line.
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub struct Config {
            $($(#[$meta])* pub $name: u32,)+
            /// Per kind of namespace, in the order of [`crate::NsKind`].
            pub ns: [NsFields; NS_KINDS],
        }

        /// Number of plain fields.
        const FIELDS: usize = [$(stringify!($name)),+].len();

        impl Config {
            /// No field known, every switch off.
            pub const UNSET: Self = Self {
                $($name: ABSENT,)+
                ns: [NsFields { pointer: ABSENT, inum: ABSENT, initial: 0 }; NS_KINDS],
            };
        }
    };
}

// What every counted event needs comes first: it lies in one or two lines of the processor's cache.
config! {
    /// `task_struct.cgroups`
    task_cgroups,
    /// `css_set.dfl_cgrp`
    css_set_dfl_cgrp,
    /// `cgroup.kn`
    cgroup_kn,
    /// `kernfs_node.id`
    kernfs_id,
    /// 1: the memory controller is in a v1 hierarchy.
    memory_is_v1,
    /// `css_set.subsys`, the element of the memory controller
    css_set_memory,
    /// `cgroup_subsys_state.cgroup`
    css_cgroup,
    /// 1: only cgroups in the map `WATCHED` are counted and reported.
    watch,
    /// Bits of the probes whose records are written to the ring buffer: bit `n` stands for the [`crate::Probe`] with number `n`.
    events,
    /// 1: the kernel has the helper `bpf_get_current_task_btf` (5.11).
    typed_current_task,
    /// 1: the kernel has the helper `bpf_task_pt_regs` (5.15).
    task_registers,
    /// `task_struct.signal`
    task_signal,
    /// 1: `sched_process_exit` tells as its second argument whether the last thread ended.
    exit_tells_group_dead,
    /// `signal_struct.flags`
    signal_flags,
    /// `signal_struct.group_exit_code`
    signal_group_exit_code,
    /// `task_struct.group_leader`
    task_group_leader,
    /// `task_struct.exit_code`
    task_exit_code,
    /// `signal_struct.oom_mm`
    signal_oom_mm,
    /// `signal_struct.live`
    signal_live,
    /// `signal_struct.nr_threads`
    signal_nr_threads,
    /// How many records a cgroup may write in 2^30 nanoseconds; 0 sets no limit.
    event_rate,
    /// `task_struct.nsproxy`
    task_nsproxy,
    /// `task_struct.cred`
    task_cred,
    /// `task_struct.real_parent`
    task_real_parent,
    /// `task_struct.flags`
    task_flags,
    /// `task_struct.pid`
    task_pid,
    /// `task_struct.tgid`
    task_tgid,
    /// `task_struct.comm`
    task_comm,
    /// `task_struct.start_boottime`
    task_start,
    /// `task_struct.thread_pid`
    task_thread_pid,
    /// `task_struct.mm`
    task_mm,
    /// `mm_struct.arg_start`
    mm_arg_start,
    /// `mm_struct.arg_end`
    mm_arg_end,
    /// The first count of `mm_struct.rss_stat`
    mm_rss,
    /// Bytes from one count of `mm_struct.rss_stat` to the next
    mm_rss_step,
    /// `task_struct.files`
    task_files,
    /// `cred.uid`
    cred_uid,
    /// `pid.level`
    pid_level,
    /// `pid.numbers`
    pid_numbers,
    /// Size of struct upid.
    upid_size,
    /// `cgroup_subsys_state.parent`
    css_parent,
    /// `cgroup.self`
    cgroup_self,
    /// `cgroup.root`
    cgroup_root,
    /// `cgroup.level`
    cgroup_level,
    /// `cgroup_root.hierarchy_id`
    root_hierarchy_id,
    /// `linux_binprm.filename`
    binprm_filename,
    /// `files_struct.fdt`
    files_fdt,
    /// `fdtable.fd`
    fdtable_fd,
    /// `fdtable.max_fds`
    fdtable_max_fds,
    /// `file.f_path.dentry`
    file_dentry,
    /// `file.f_path.mnt`
    file_mnt,
    /// `mount.mnt`
    mount_mnt,
    /// `mount.mnt_ns`
    mount_mnt_ns,
    /// `file.private_data`
    file_private,
    /// `file.f_inode`
    file_inode,
    /// `inode.i_sb`
    inode_sb,
    /// `inode.i_mode`
    inode_mode,
    /// `dentry.d_name.name`
    dentry_name,
    /// `inode.i_private`
    inode_private,
    /// `super_block.s_magic`
    sb_magic,
    /// `ns_common.inum`
    ns_common_inum,
    /// `ns_common.ns_type` (where the kernel has it)
    ns_common_type,
    /// `ns_common.ops`
    ns_common_ops,
    /// `proc_ns_operations.type` (where the kernel has it)
    ns_ops_type,
    /// `mem_cgroup.css`
    memcg_css,
    /// `mem_cgroup.memory.usage`
    memcg_usage,
    /// `mem_cgroup.memory.max`
    memcg_max,
    /// `mem_cgroup.memory.high` (where the kernel has it there)
    memcg_high,
    /// `mem_cgroup.memory_events_local`, the element of OOM kills
    memcg_oom_kills,
    /// Number of the hierarchy of the memory controller; 0 is the unified one.
    memory_hierarchy,
    /// 1: the probe of memory limits is wanted.
    memory_probe,
    /// 1: a cgroup `/terrarium` that is made is watched, with all that is below it.
    watch_terrarium,
    /// 1: records of exec carry the arguments.
    argv,
}

const _: () = assert!(size_of::<Config>() == 4 * FIELDS + 12 * NS_KINDS);

crate::pod!(NsFields, Config);
