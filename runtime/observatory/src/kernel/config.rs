//! Fills in what the programs need to know of this kernel.
//!
//! One table lists the fields. A field that a kernel lacks is left [`ABSENT`]: what depends on it reads as zero, and
//! the table says what that costs, so that `doctor` can tell.

use crate::kernel::btf::KernelTypes;
use crate::kernel::cgroup_mounts::CgroupMounts;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use terrarium_abi::usage::MOST_CPUS;
use terrarium_abi::{ABSENT, Config, NsKind};

/// A field of the kernel that the programs read.
struct Field {
    /// Its place in [`Config`].
    place: fn(&mut Config) -> &mut u32,
    /// Where it is, newest kernel first.
    paths: &'static [&'static str],
    /// What is lost without it; empty when other kernels simply do it another way.
    loss: &'static str,
}

macro_rules! fields {
    ($($place:ident: [$($path:literal),+] => $loss:literal,)+) => {
        &[$(Field { place: |config| &mut config.$place, paths: &[$($path),+], loss: $loss }),+]
    };
}

const FIELDS: &[Field] = fields! {
    task_cgroups: ["task_struct.cgroups"] => "no event can be attributed to a cgroup",
    task_nsproxy: ["task_struct.nsproxy"] => "namespace inodes",
    task_cred: ["task_struct.cred"] => "user ids and user namespaces",
    task_real_parent: ["task_struct.real_parent"] => "parent process ids",
    task_flags: ["task_struct.flags"] => "when the network of a container is set up",
    task_group_leader: ["task_struct.group_leader"] => "exit status of processes with threads",
    task_pid: ["task_struct.pid"] => "thread ids",
    task_tgid: ["task_struct.tgid"] => "process ids",
    task_comm: ["task_struct.comm"] => "names of tasks",
    task_start: ["task_struct.start_boottime", "task_struct.real_start_time"] => "run times",
    task_thread_pid: ["task_struct.thread_pid"] => "process ids inside pid namespaces",
    task_signal: ["task_struct.signal"] => "exits cannot be counted",
    task_exit_code: ["task_struct.exit_code"] => "exit status",
    task_mm: ["task_struct.mm"] => "arguments of programs, sizes of OOM victims",
    mm_arg_start: ["mm_struct.arg_start"] => "arguments of programs",
    mm_arg_end: ["mm_struct.arg_end"] => "arguments of programs",
    task_files: ["task_struct.files"] => "the kind of namespace of setns(fd, 0)",
    cred_uid: ["cred.uid"] => "user ids",
    pid_level: ["pid.level"] => "process ids inside pid namespaces",
    pid_numbers: ["pid.numbers"] => "process ids inside pid namespaces",
    css_set_dfl_cgrp: ["css_set.dfl_cgrp"] => "no event can be attributed to a cgroup",
    css_cgroup: ["cgroup_subsys_state.cgroup"] => "v1 memory cgroups",
    cgroup_serial: ["cgroup.self.serial_nr"] => "counting at the least cost",
    css_serial: ["cgroup_subsys_state.serial_nr"] => "counting at the least cost",
    css_parent: ["cgroup_subsys_state.parent"] => "whose memory limit was hit",
    cgroup_kn: ["cgroup.kn"] => "no event can be attributed to a cgroup",
    cgroup_self: ["cgroup.self"] => "watching what is made below a cgroup",
    cgroup_root: ["cgroup.root"] => "names of short-lived cgroups",
    cgroup_level: ["cgroup.level"] => "depth of cgroups",
    root_hierarchy_id: ["cgroup_root.hierarchy_id"] => "names of short-lived cgroups",
    kernfs_id: ["kernfs_node.id"] => "no event can be attributed to a cgroup",
    signal_live: ["signal_struct.live"] => "exits of processes with threads",
    signal_nr_threads: ["signal_struct.nr_threads"] => "exits of processes with threads",
    signal_flags: ["signal_struct.flags"] => "exit status of processes with threads",
    signal_group_exit_code: ["signal_struct.group_exit_code"] => "exit status of processes with threads",
    signal_oom_mm: ["signal_struct.oom_mm"] => "exits because of lack of memory",
    binprm_filename: ["linux_binprm.filename"] => "paths of programs",
    files_fdt: ["files_struct.fdt"] => "the kind of namespace of setns(fd, 0)",
    fdtable_fd: ["fdtable.fd"] => "the kind of namespace of setns(fd, 0)",
    fdtable_max_fds: ["fdtable.max_fds"] => "the kind of namespace of setns(fd, 0)",
    file_dentry: ["file.f_path.dentry"] => "which files were opened for writing",
    file_mnt: ["file.f_path.mnt"] => "descriptors that come from other mount namespaces",
    mount_mnt: ["mount.mnt"] => "descriptors that come from other mount namespaces",
    mount_mnt_ns: ["mount.mnt_ns"] => "descriptors that come from other mount namespaces",
    file_private: ["file.private_data"] => "the target of pidfd_getfd",
    file_inode: ["file.f_inode"] => "the kind of namespace of setns(fd, 0)",
    inode_sb: ["inode.i_sb"] => "the kind of namespace of setns(fd, 0)",
    inode_mode: ["inode.i_mode"] => "executables opened for writing through /proc",
    dentry_name: ["dentry.d_name.name"] => "which files were opened for writing",
    inode_private: ["inode.i_private"] => "the kind of namespace of setns(fd, 0)",
    sb_magic: ["super_block.s_magic"] => "the kind of namespace of setns(fd, 0)",
    ns_common_inum: ["ns_common.inum"] => "namespace inodes",
    // Up to 6.17 the operations tell the type, from 6.18 on the namespace itself does.
    ns_common_type: ["ns_common.ns_type"] => "",
    ns_common_ops: ["ns_common.ops"] => "",
    ns_ops_type: ["proc_ns_operations.type"] => "",
    memcg_css: ["mem_cgroup.css"] => "whose memory limit was hit",
    memcg_usage: ["mem_cgroup.memory.usage"] => "whose memory limit was hit",
    memcg_max: ["mem_cgroup.memory.max"] => "whose memory limit was hit",
    memcg_high: ["mem_cgroup.memory.high"] => "",
    // Without these, or without iterators of cgroups, files tell what containers use.
    cgroup_psi: ["cgroup.psi"] => "",
    psi_enabled: ["psi_group.enabled"] => "",
    psi_total: ["psi_group.total"] => "",
    memcg_peak: ["mem_cgroup.memory.watermark"] => "",
    memcg_failcnt: ["mem_cgroup.memory.failcnt"] => "",
    memcg_events: ["mem_cgroup.memory_events"] => "",
    memcg_swap: ["mem_cgroup.swap.usage"] => "",
    pids_counter: ["pids_cgroup.counter"] => "",
    pids_limit: ["pids_cgroup.limit"] => "",
    group_quota: ["task_group.cfs_bandwidth.quota"] => "",
    group_period: ["task_group.cfs_bandwidth.period"] => "",
    group_shares: ["task_group.shares"] => "",
    blkcg_groups: ["blkcg.blkg_list"] => "",
    cpuacct_usage: ["cpuacct.cpuusage"] => "",
    cpuacct_stat: ["cpuacct.cpustat"] => "",
    array_memory: ["bpf_array.pptrs"] => "",
    cgroup_sets: ["cgroup.cset_links"] => "",
    cgroup_threaded: ["cgroup.nr_threaded_children"] => "",
    cgroup_domain: ["cgroup.dom_cgrp"] => "",
    link_next: ["cgrp_cset_link.cset_link"] => "",
    link_set: ["cgrp_cset_link.cset"] => "",
    set_count: ["css_set.nr_tasks"] => "",
    set_tasks: ["css_set.tasks"] => "",
    set_dying: ["css_set.dying_tasks"] => "",
    task_next: ["task_struct.cg_list"] => "",
    group_periods: ["task_group.cfs_bandwidth.nr_periods"] => "",
    group_throttled: ["task_group.cfs_bandwidth.nr_throttled"] => "",
    group_throttled_time: ["task_group.cfs_bandwidth.throttled_time"] => "",
};

/// Per kind: where the pointer to it is, and which struct it points to.
const NAMESPACES: [(NsKind, &str, &str); 8] = [
    (NsKind::Mnt, "nsproxy.mnt_ns", "mnt_namespace"),
    (NsKind::Net, "nsproxy.net_ns", "net"),
    (NsKind::User, "cred.user_ns", "user_namespace"),
    (NsKind::Pid, "nsproxy.pid_ns_for_children", "pid_namespace"),
    (NsKind::Ipc, "nsproxy.ipc_ns", "ipc_namespace"),
    (NsKind::Uts, "nsproxy.uts_ns", "uts_namespace"),
    (NsKind::Cgroup, "nsproxy.cgroup_ns", "cgroup_namespace"),
    (NsKind::Time, "nsproxy.time_ns_for_children", "time_namespace"),
];

/// A field that this kernel lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingField {
    /// Its name on the newest kernel.
    pub field: &'static str,
    /// What is lost without it.
    pub loss: &'static str,
}

/// The settings for this kernel, and what it lacks; without its types nothing is found in it.
pub fn config(
    types: Option<&KernelTypes>,
    mounts: &CgroupMounts,
    proc: &Path,
) -> (Config, Vec<MissingField>) {
    let mut config = Config::UNSET;
    let mut missing = Vec::new();
    config.memory_is_v1 = u32::from(mounts.memory_is_v1());
    config.memory_hierarchy = mounts.memory_hierarchy;
    let Some(types) = types else { return (config, missing) };
    for Field { place, paths, loss } in FIELDS {
        match paths.iter().find_map(|path| types.offset_of(path)) {
            Some(offset) => *place(&mut config) = offset,
            None if loss.is_empty() => {}
            None => missing.push(MissingField { field: paths[0], loss }),
        }
    }
    config.upid_size = types.size_of("upid").unwrap_or(ABSENT);
    config.css_set_memory = element(
        types.offset_of("css_set.subsys"),
        types.constant("cgroup_subsys_id", "memory_cgrp_id"),
    );
    config.memcg_oom_kills = element(
        types.offset_of("mem_cgroup.memory_events_local"),
        types.constant("memcg_memory_event", "MEMCG_OOM_KILL"),
    );
    let controller = |name| {
        let at = types.constant("cgroup_subsys_id", name);
        element(types.offset_of("cgroup.subsys"), at)
    };
    config.cgroup_memory = controller("memory_cgrp_id");
    config.cgroup_pids = controller("pids_cgrp_id");
    config.cgroup_cpu = controller("cpu_cgrp_id");
    config.cgroup_io = controller("io_cgrp_id");
    config.cgroup_cpuacct = controller("cpuacct_cgrp_id");
    for (kind, pointer, holder) in NAMESPACES {
        let ns = &mut config.ns[kind as usize];
        ns.pointer = types.offset_of(pointer).unwrap_or(ABSENT);
        ns.inum = types.offset_of(&format!("{holder}.ns.inum")).unwrap_or(ABSENT);
        ns.initial = initial_namespace(proc, kind);
    }
    // Since 6.2 an array of per-CPU counters, before a struct around an array of words.
    let counter = types.size_of("percpu_counter").zip(types.offset_of("percpu_counter.count"));
    (config.mm_rss, config.mm_rss_step) =
        match (types.offset_of("mm_struct.rss_stat.count"), counter) {
            (Some(words), _) => (words, 8),
            (None, Some((size, count))) => {
                (types.offset_of("mm_struct.rss_stat").map_or(ABSENT, |array| array + count), size)
            }
            (None, None) => (ABSENT, ABSENT),
        };
    config.exit_tells_group_dead = u32::from(
        types.tracepoint_arguments("sched_process_exit").is_some_and(|args| args.len() >= 2),
    );
    // Plain loads do not ask whether a field is there.
    config.typed_current_task =
        u32::from(missing.is_empty() && types.has_function("bpf_get_current_task_btf"));
    config.task_registers = u32::from(types.has_function("bpf_task_pt_regs"));
    // The programs take the address of the css for that of the memory cgroup.
    if config.memcg_css != 0 {
        config.memcg_usage = ABSENT;
        config.memcg_oom_kills = ABSENT;
    }
    let begins_with_css = |name| types.offset_of(&format!("{name}.css")) == Some(0);
    if !begins_with_css("pids_cgroup") || config.pids_limit == ABSENT {
        config.cgroup_pids = ABSENT;
    }
    let quota = [config.group_periods, config.group_quota, config.group_period];
    if !begins_with_css("task_group") || quota.contains(&ABSENT) || config.group_shares == ABSENT {
        config.cgroup_cpu = ABSENT;
    }
    if !begins_with_css("blkcg") || config.blkcg_groups == ABSENT {
        config.cgroup_io = ABSENT;
    }
    let times = ["USER", "NICE", "SYSTEM", "SOFTIRQ", "IRQ"];
    let times_in_order = (0..)
        .zip(times)
        .all(|(n, time)| types.constant("cpu_usage_stat", &format!("CPUTIME_{time}")) == Some(n));
    config.cpus = possible_cpus().unwrap_or(0);
    let read = [config.cpuacct_usage, config.cpuacct_stat, config.array_memory];
    let few = (1..=MOST_CPUS).contains(&config.cpus);
    if !begins_with_css("cpuacct") || !times_in_order || !few || read.contains(&ABSENT) {
        config.cgroup_cpuacct = ABSENT;
    }
    let lists = [
        config.cgroup_threaded, config.cgroup_domain, config.link_next, config.link_set,
        config.set_count, config.set_tasks, config.set_dying, config.task_next,
    ];
    if lists.contains(&ABSENT) {
        config.cgroup_sets = ABSENT;
    }
    // The first six of them: `PSI_IO_SOME` to `PSI_CPU_FULL`.
    if types.constant("psi_states", "PSI_CPU_FULL") != Some(5) {
        config.psi_total = ABSENT;
    }
    let events = ["LOW", "HIGH", "MAX", "OOM", "OOM_KILL", "OOM_GROUP_KILL"];
    let in_order = (0..).zip(events).all(|(n, event)| {
        types.constant("memcg_memory_event", &format!("MEMCG_{event}")) == Some(n)
    });
    let read = [config.memcg_usage, config.memcg_peak, config.memcg_max, config.memcg_events];
    if !in_order || read.contains(&ABSENT) {
        // No numbers of memory rather than some.
        config.cgroup_memory = ABSENT;
    }
    (config, missing)
}

/// How many processors there may be, if their numbers are those from 0 on.
fn possible_cpus() -> Option<u32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    match text.trim().split_once('-') {
        Some(("0", last)) => last.parse::<u32>().ok()?.checked_add(1),
        _ => (text.trim() == "0").then_some(1),
    }
}

/// Offset of an element of an array of words.
fn element(array: Option<u32>, index: Option<u32>) -> u32 {
    match (array, index) {
        (Some(array), Some(index)) => array + 8 * index,
        _ => ABSENT,
    }
}

/// The inode of the initial namespace of a kind: fixed numbers for six kinds (`include/linux/proc_ns.h`), else
/// that of process 1, else, where that is out of reach, the observer's own; 0 when none can be read.
fn initial_namespace(proc: &Path, kind: NsKind) -> u32 {
    match kind {
        NsKind::Ipc => return 0xEFFF_FFFF,
        NsKind::Uts => return 0xEFFF_FFFE,
        NsKind::User => return 0xEFFF_FFFD,
        NsKind::Pid => return 0xEFFF_FFFC,
        NsKind::Cgroup => return 0xEFFF_FFFB,
        NsKind::Time => return 0xEFFF_FFFA,
        NsKind::Mnt | NsKind::Net => {}
    }
    ["1", "self"]
        .iter()
        .find_map(|pid| std::fs::metadata(proc.join(pid).join("ns").join(kind.name())).ok())
        .and_then(|metadata| u32::try_from(metadata.ino()).ok())
        .unwrap_or(0)
}
