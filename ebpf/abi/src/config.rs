//! What user space tells the programs before it loads them: offsets of kernel fields, and switches.
//!
//! rustc emits no CO-RE relocations, so the loader reads the offsets from the kernel's BTF and writes them into the
//! instructions that load them; what concerns namespaces it hands over in a read-only global, which the verifier treats
//! as constants.

use crate::namespace::NS_KINDS;
use core::mem::size_of;

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// What stands in an instruction that loads a 64-bit number (`BPF_LD | BPF_IMM | BPF_DW`) until the loader puts the value of the
/// field of [`Config`] at `offset` there.
#[inline]
pub const fn place_of(offset: u64) -> u64 {
    PLACES | offset
}

/// The offset in [`Config`] that a number stands for, if it is one of [`place_of`].
#[inline]
pub const fn offset_in(place: u64) -> Option<u64> {
    let offset = place ^ PLACES;
    if offset < size_of::<Config>() as u64 { Some(offset) } else { None }
}

/// A number that means nothing to the kernel.
const PLACES: u64 = 0x7465_7272_6172_0000;

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

            /// All fields, four bytes each.
            pub const fn words(&self) -> &[u32] {
                // SAFETY: repr(C) and nothing but `u32` (its size is asserted below), borrowed as long as `self`.
                unsafe {
                    core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>() / 4)
                }
            }
        }
    };
}

// What every counted event needs comes first: it lies in one or two lines of the processor's cache.
config! {
    /// `task_struct.cgroups`
    task_cgroups,
    /// `css_set.dfl_cgrp`
    css_set_dfl_cgrp,
    /// `cgroup.self.serial_nr`
    cgroup_serial,
    /// `cgroup_subsys_state.serial_nr`
    css_serial,
    /// How many cells of `FRONT` each processor has; 0: it is not used.
    front_cells,
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
    /// 1: OOM victims are seen when they are chosen, or are not asked for.
    victims_seen,
    /// 1: a cgroup `/terrarium` that is made is watched, with all that is below it.
    watch_terrarium,
    /// 1: records of exec carry the arguments.
    argv,
    /// `cgroup.psi`
    cgroup_psi,
    /// `psi_group.enabled` (where it can be switched off)
    psi_enabled,
    /// `psi_group.total`
    psi_total,
    /// `cgroup.subsys`, the element of the memory controller
    cgroup_memory,
    /// The same of the pids controller
    cgroup_pids,
    /// The same of the cpu controller
    cgroup_cpu,
    /// `mem_cgroup.memory.watermark`
    memcg_peak,
    /// `mem_cgroup.memory.failcnt` (where the kernel has it)
    memcg_failcnt,
    /// `mem_cgroup.memory_events`
    memcg_events,
    /// `mem_cgroup.swap.usage`
    memcg_swap,
    /// `pids_cgroup.counter`
    pids_counter,
    /// `pids_cgroup.limit`
    pids_limit,
    /// `task_group.cfs_bandwidth.quota`
    group_quota,
    /// `task_group.cfs_bandwidth.period`
    group_period,
    /// `task_group.shares`
    group_shares,
    /// `cgroup.subsys`, the element of the io controller
    cgroup_io,
    /// `blkcg.blkg_list`
    blkcg_groups,
    /// `cgroup.subsys`, the element of the cpuacct controller
    cgroup_cpuacct,
    /// `cpuacct.cpuusage`
    cpuacct_usage,
    /// `cpuacct.cpustat`
    cpuacct_stat,
    /// `bpf_array.pptrs`
    array_memory,
    /// How many processors there may be: those from 0 on.
    cpus,
    /// `cgroup.cset_links`
    cgroup_sets,
    /// `cgroup.nr_threaded_children`
    cgroup_threaded,
    /// `cgroup.dom_cgrp`
    cgroup_domain,
    /// `cgrp_cset_link.cset_link`
    link_next,
    /// `cgrp_cset_link.cset`
    link_set,
    /// `css_set.nr_tasks`
    set_count,
    /// `css_set.tasks`
    set_tasks,
    /// `css_set.dying_tasks`
    set_dying,
    /// `task_struct.cg_list`
    task_next,
    /// `task_group.cfs_bandwidth.nr_periods`
    group_periods,
    /// `task_group.cfs_bandwidth.nr_throttled`
    group_throttled,
    /// `task_group.cfs_bandwidth.throttled_time`
    group_throttled_time,
}

const _: () = assert!(size_of::<Config>() == 4 * FIELDS + 12 * NS_KINDS);

crate::pod!(NsFields, Config);
