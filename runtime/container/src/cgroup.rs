//! Cgroups: which hierarchies a container uses, its folder in each, its limits, and their removal.
//!
//! Limits are written through `cgroups-rs`. Placement is done here: with cgroup v2 the container is born in its
//! cgroup (`CLONE_INTO_CGROUP`, Linux 5.7); in v1 its first process writes `0` into `tasks`, for a write of
//! another process's pid into `cgroup.procs` waits for an RCU grace period. Only those v1 hierarchies are
//! joined that a limit needs; the unified one always, for that is the cgroup that eBPF sees.

use crate::device_filter::DeviceFilter;
use crate::error::{Error, Result, Tried};
use crate::explain;
use crate::resource_files;
use crate::rootfs::{CgroupFolder, CgroupView};
use crate::state::{CgroupState, read_proc};
use crate::systemd::{Keeper, Manager, Scope};
use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::devices::{DevicePermissions, DeviceType, DevicesController};
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// The cgroup that holds the containers' own, in every hierarchy.
pub(crate) const DEFAULT_PARENT: &str = "/terrarium";

/// How long removal waits for the last processes to leave.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who makes a container's cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// This program, in the cgroup filesystems.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus: each container is a scope.
    Systemd,
    /// Nobody: the container stays in the caller's.
    Disabled,
}

impl CgroupDriver {
    /// Whether there is a systemd that the caller can ask: the system's for root, his own for others.
    pub fn is_systemd_running() -> bool {
        Manager::of_caller().is_running()
    }
}

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// Where it is mounted.
    mountpoint: PathBuf,
    /// Which part of it is mounted there.
    root: String,
    /// Its v1 controllers (`cpu`, `cpuacct`, `name=systemd`); none for cgroup v2.
    controllers: Vec<String>,
    /// The folder below the mount point that containers' paths begin at: none for root, else the one that is delegated
    /// to the caller.
    base: String,
}

impl Hierarchy {
    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// The path as `/proc/PID/cgroup` shows it.
    fn kernel_path(&self, path: &str) -> String {
        format!("{}{}{path}", self.root.trim_end_matches('/'), self.base)
    }

    /// Where containers' paths begin.
    fn top(&self) -> PathBuf {
        self.mountpoint.join(self.base.trim_start_matches('/'))
    }

    /// The same for a caller who may not write everywhere: from the folder that is delegated to him on, if there is one.
    fn delegated(mut self, own_cgroups: &str) -> Option<Self> {
        let own = own_cgroups.lines().find_map(|line| {
            // cgroups(7): hierarchy-ID:controller-list:cgroup-path
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let names: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
            (names == self.controllers).then_some(path)
        })?;
        let own = own.strip_prefix(self.root.trim_end_matches('/'))?.trim_end_matches('/');
        // A cgroup with processes in it, as the caller's own, hands no controllers down (cgroups(7), "no internal
        // processes"): so rather one beside it.
        let beside =
            if self.is_unified() { own.rsplit_once('/').map(|(parent, _)| parent) } else { None };
        let base = beside.into_iter().chain([own]).find(|base| {
            let folder = self.mountpoint.join(base.trim_start_matches('/'));
            is_writable(&folder)
                && (!self.is_unified() || is_writable(&folder.join("cgroup.procs")))
        })?;
        self.base = base.to_owned();
        Some(self)
    }
}

/// All mounted hierarchies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hierarchies {
    all: Vec<Hierarchy>,
    /// Whether the caller is a user to whom at most parts are delegated.
    restricted: bool,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`.
    pub(crate) fn read() -> Result<Self> {
        let hierarchies = Self::mounted()?;
        if rustix::process::geteuid().is_root() {
            return Ok(hierarchies);
        }
        let path = "/proc/self/cgroup";
        let own = fs::read_to_string(path).tried("read", path)?;
        let all = hierarchies.all.into_iter().filter_map(|one| one.delegated(&own)).collect();
        Ok(Self { all, restricted: true })
    }

    fn mounted() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        Ok(Self::parse(&read_proc(Path::new(path)).tried("read", path)?))
    }

    /// Those in which the manager of `scope` has a cgroup, from there on.
    fn of_manager(scope: &Scope) -> Result<Self> {
        let mut hierarchies = Self::mounted()?;
        let group = scope.unit.manager.control_group()?;
        let restricted = !rustix::process::geteuid().is_root();
        hierarchies.restricted = restricted;
        hierarchies.all.retain_mut(|hierarchy| {
            let Some(base) = group.strip_prefix(hierarchy.root.trim_end_matches('/')) else {
                return false;
            };
            base.clone_into(&mut hierarchy.base);
            // What is not the caller's own is not delegated to his manager, v1's controllers never are.
            hierarchy.top().is_dir() && (!restricted || is_writable(&hierarchy.top()))
        });
        Ok(hierarchies)
    }

    pub(crate) fn parse(mountinfo: &str) -> Self {
        let mut all: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            // proc_pid_mountinfo(5): id parent major:minor root mountpoint options … - fstype source superoptions
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(mountpoint)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (Some(fstype), _, Some(options)) = (right.next(), right.next(), right.next())
            else {
                continue;
            };
            let controllers: Vec<String> = match fstype {
                "cgroup2" => Vec::new(),
                "cgroup" => options
                    .split(',')
                    .filter(|option| is_controller(option))
                    .map(str::to_owned)
                    .collect(),
                _ => continue,
            };
            if fstype == "cgroup" && controllers.is_empty() {
                continue;
            }
            if all.iter().any(|h| h.controllers == controllers) {
                continue;
            }
            all.push(Hierarchy {
                mountpoint: unescape(mountpoint).into(),
                root: unescape(root),
                controllers,
                base: String::new(),
            });
        }
        Self { all, restricted: false }
    }

    fn unified(&self) -> Option<&Hierarchy> {
        self.all.iter().find(|h| h.is_unified())
    }

    fn v1(&self, controller: &str) -> Option<&Hierarchy> {
        self.all.iter().find(|h| h.controllers.iter().any(|c| c == controller))
    }

    fn is_pure_unified(&self) -> bool {
        self.all.len() == 1 && self.unified().is_some()
    }
}

fn is_writable(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD};
    rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Whether a superblock option of a v1 mount names a controller.
fn is_controller(option: &str) -> bool {
    const OTHERS: [&str; 10] = [
        "rw", "ro", "none", "noprefix", "clone_children", "xattr", "cpuset_v2_mode", "all",
        "favordynmods", "nofavordynmods",
    ];
    !OTHERS.contains(&option) && !option.starts_with("release_agent=")
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'\\'
            && let Some(octal) = tail.get(..3)
            && let Some(value) =
                std::str::from_utf8(octal).ok().and_then(|o| u8::from_str_radix(o, 8).ok())
        {
            bytes.push(value);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The v1 controllers whose files tell what a container uses; blkio first, as in [`needed`].
const ACCOUNTING: [&str; 5] = ["blkio", "memory", "pids", "cpuacct", "cpu"];

/// Those of cgroup v2.
const UNIFIED_ACCOUNTING: [&str; 4] = ["io", "memory", "pids", "cpu"];

/// A container's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    hierarchy: Hierarchy,
    /// The folder.
    folder: PathBuf,
    /// Controllers whose limits are set here.
    controllers: BTreeSet<String>,
}

/// A container's cgroups: first worked out, then made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cgroups {
    /// Path below each hierarchy's mount, absolute.
    path: String,
    members: Vec<Member>,
    pure_unified: bool,
    /// Device rules, where no devices controller of v1 takes them.
    device_filter: Option<DeviceFilter>,
    /// The scope that systemd makes them for.
    scope: Option<Scope>,
}

/// Checks a cgroup path of the spec.
pub(crate) fn check_path(path: &Path) -> Result<String> {
    let invalid = |reason: &'static str| {
        Err(Error::invalid("cgroupsPath", path.display().to_string(), reason))
    };
    if path.as_os_str().is_empty() {
        return invalid("a cgroup path has a name");
    }
    if path.to_str().is_some_and(|text| !text.contains('/') && text.matches(':').count() == 2) {
        return invalid("slice:prefix:name is the form of --systemd-cgroup; give a path");
    }
    if path.components().any(|c| matches!(c, Component::ParentDir | Component::CurDir)) {
        return invalid("a cgroup path has neither . nor ..");
    }
    // A relative path is relative to the runtime's own parent (runtime-spec, "Cgroups Path").
    let path: PathBuf = Path::new(DEFAULT_PARENT).join(path).components().collect();
    match path.to_str() {
        Some("/") => invalid("the root cgroup cannot be a container's own"),
        Some(text) => Ok(text.to_owned()),
        None => invalid("a cgroup path is UTF-8"),
    }
}

impl Cgroups {
    /// Works out which cgroups a container at `path` with `resources` needs.
    pub(crate) fn plan(
        hierarchies: &Hierarchies,
        path: &str,
        resources: Option<&LinuxResources>,
    ) -> Result<Self> {
        let mut members: Vec<Member> = Vec::new();
        let mut device_filter = None;
        if let Some(unified) = hierarchies.unified() {
            add(&mut members, path, unified, None);
        }
        if !Path::new(path).starts_with(DEFAULT_PARENT) {
            // Whoever chose the path reads there what the container uses, of all that it can use: an engine.
            let accounting =
                ACCOUNTING.into_iter().filter_map(|name| Some((name, hierarchies.v1(name)?)));
            for (name, hierarchy) in accounting.filter(|(_, h)| is_writable(&h.top())) {
                add(&mut members, path, hierarchy, Some(name));
            }
        }
        if let Some(resources) = resources {
            resource_files::check(resources)?;
            add_unified(&mut members, path, hierarchies, resources)?;
        }
        for controller in resources.map(needed).unwrap_or_default() {
            if controller == "devices" && hierarchies.restricted {
                // Without privileges nobody makes a device node, and rules cannot be set.
                continue;
            }
            if let Some(hierarchy) = hierarchies.v1(controller) {
                add(&mut members, path, hierarchy, Some(controller));
            } else if controller == "devices" {
                // cgroup v2 has no such controller, but programs.
                let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
                let filter = DeviceFilter::new(rules).map_err(Error::DeviceRules)?;
                device_filter = Some(filter).filter(|_| hierarchies.unified().is_some());
            } else if let Some(unified) =
                hierarchies.unified().filter(|u| has_controller(&u.top(), unified_name(controller)))
            {
                if let Some(resources) = resources {
                    check_unified(controller, resources)?;
                }
                add(&mut members, path, unified, Some(unified_name(controller)));
            } else if hierarchies.restricted {
                return Err(Error::unsupported(
                    format!("a {controller} limit"),
                    format!(
                        "no cgroup with the {controller} controller is delegated to you (run as root, or ask for delegation: \
                         with systemd `systemd-run --user --scope -p Delegate=yes terrarium …`)"
                    ),
                ));
            } else {
                return Err(Error::unsupported(
                    format!("a {controller} limit"),
                    format!(
                        "no cgroup hierarchy with the {controller} controller is mounted here \
                         (`terrarium doctor` shows what is; cgroup_disable= on the kernel command line \
                         turns controllers off)"
                    ),
                ));
            }
        }
        if members.is_empty()
            && let Some(hierarchy) =
                ["freezer", "pids", "memory"].iter().find_map(|c| hierarchies.v1(c))
        {
            // Without a unified hierarchy one v1 cgroup at least, so that the container can be found.
            add(&mut members, path, hierarchy, Some(&hierarchy.controllers[0]));
        }
        Ok(Self {
            path: path.to_owned(),
            members,
            pure_unified: hierarchies.is_pure_unified(),
            device_filter,
            scope: None,
        })
    }

    /// Works out which cgroups a container in `scope` with `resources` has.
    pub(crate) fn plan_scope(scope: Scope, resources: Option<&LinuxResources>) -> Result<Self> {
        scope.unit.manager.take_in_caller()?;
        let hierarchies = Hierarchies::of_manager(&scope)?;
        let path = scope.path();
        let mut cgroups = Self::plan(&hierarchies, &path, resources)?;
        // systemd itself moves a scope's processes in these (src/core/cgroup.c, "unit_attach_pids_to_cgroup"): where it
        // follows them, and where it is told to account.
        for name in ["name=systemd", "blkio", "memory", "pids", "cpu"] {
            if let Some(hierarchy) = hierarchies.v1(name) {
                add(&mut cgroups.members, &path, hierarchy, Some(name));
            }
        }
        cgroups.scope = Some(scope);
        Ok(cgroups)
    }

    /// The scope, for the journal.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// The folders, for the journal.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        self.members.iter().map(|m| m.folder.clone()).collect()
    }

    /// Folders above the container's own that are to go when they become empty: the default parent, and
    /// whatever does not exist yet.
    pub(crate) fn parents(&self) -> Vec<PathBuf> {
        let mut parents = Vec::new();
        for member in &self.members {
            for folder in member.folder.ancestors().skip(1) {
                if folder == member.hierarchy.top() {
                    break;
                }
                let default = member.hierarchy.top().join(&DEFAULT_PARENT[1..]);
                if folder == default || !folder.exists() {
                    parents.push(folder.to_owned());
                }
            }
        }
        parents
    }

    /// Has systemd start the scope, where there is to be one; its keeper is to live until the container's first process
    /// is in it.
    pub(crate) fn start_scope(&self, resources: Option<&LinuxResources>) -> Result<Option<Keeper>> {
        let Some(scope) = &self.scope else { return Ok(None) };
        let timer = explain::timer();
        let keeper = Keeper::new()?;
        scope.start(&keeper, resources, self.pure_unified)?;
        timer.note("scope", || scope.shell_command());
        Ok(Some(keeper))
    }

    /// Makes the folders and sets the limits; gives what state.json says of them.
    pub(crate) fn make(&self, resources: Option<&LinuxResources>) -> Result<Vec<CgroupState>> {
        let mut states = Vec::new();
        for member in &self.members {
            let timer = explain::timer();
            if self.scope.is_some() {
                make_in_scope(member)?;
            } else {
                make_folder(member)?;
            }
            timer.note("cgroup", || {
                format!("mkdir -p {}", explain::word(&member.folder.to_string_lossy()))
            });
            let id = fs::metadata(&member.folder).tried("stat", &member.folder)?.ino();
            let path = member.hierarchy.kernel_path(&self.path);
            if member.hierarchy.is_unified() {
                states.push(CgroupState { hierarchy: "unified".into(), path, id });
            } else {
                states.extend(member.controllers.iter().map(|controller| CgroupState {
                    hierarchy: controller.clone(),
                    path: path.clone(),
                    id,
                }));
            }
            if let Some(resources) = resources {
                let timer = explain::timer();
                limit(member, resources)?;
                let commands = if explain::is_recording() {
                    shell_commands(member, resources)
                } else {
                    Vec::new()
                };
                if !commands.is_empty() {
                    timer.note("limits", || commands.join(" && "));
                }
            }
        }
        if let Some(resources) = resources {
            self.write_lines(resources)?;
        }
        if let Some(filter) = &self.device_filter
            && let Some(unified) = self.open_unified()?
        {
            filter.attach(unified.as_fd()).map_err(Error::DeviceRules)?;
        }
        Ok(states)
    }

    /// Those of the cgroups that are not among `folders`.
    pub(crate) fn missing(&self, folders: &[PathBuf]) -> Self {
        let mut missing = self.clone();
        missing.members.retain(|member| !folders.contains(&member.folder));
        missing
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Sets limits in cgroups that exist.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<()> {
        if let Some(scope) = &self.scope {
            scope.unit.set(resources, self.pure_unified)?;
        }
        self.members.iter().try_for_each(|member| {
            if self.scope.is_none() {
                hand_down_to(member)?;
            }
            if resources.memory().and_then(|memory| memory.check_before_update()) == Some(true) {
                check_usage(member, resources)?;
            }
            limit(member, resources)
        })?;
        self.write_lines(resources)
    }

    /// The limits that are a line in a file each: after the others, which some of them are checked against.
    fn write_lines(&self, resources: &LinuxResources) -> Result<()> {
        let all: Vec<_> = self
            .members
            .iter()
            .map(|member| {
                let has = |controller: &str| member.controllers.contains(controller);
                let v2 = member.hierarchy.is_unified();
                (member.folder.clone(), resource_files::lines(resources, v2, has))
            })
            .collect();
        resource_files::write(&all)
    }

    /// Moves processes that exist into the cgroups.
    pub(crate) fn adopt(&self, pids: &[i32]) -> Result<()> {
        for member in &self.members {
            let path = member.folder.join("cgroup.procs");
            for pid in pids {
                match fs::write(&path, pid.to_string()) {
                    // It ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    result => result.tried("move processes into", &path)?,
                }
            }
        }
        Ok(())
    }

    /// The unified cgroup's folder, for `CLONE_INTO_CGROUP`.
    pub(crate) fn open_unified(&self) -> Result<Option<OwnedFd>> {
        let Some(member) = self.members.iter().find(|m| m.hierarchy.is_unified()) else {
            return Ok(None);
        };
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&member.folder)
            .tried("open cgroup", &member.folder)?;
        Ok(Some(file.into()))
    }

    /// `tasks` of each v1 cgroup, and with `unified` also `cgroup.procs` of the unified one, for the first process
    /// to write itself into.
    pub(crate) fn open_joins(&self, unified: bool) -> Result<Vec<OwnedFd>> {
        self.members
            .iter()
            .filter(|m| unified || !m.hierarchy.is_unified())
            .map(|member| {
                let name = if member.hierarchy.is_unified() { "cgroup.procs" } else { "tasks" };
                let path = member.folder.join(name);
                let file =
                    fs::OpenOptions::new().write(true).open(&path).tried("open cgroup", &path)?;
                Ok(file.into())
            })
            .collect()
    }

    /// What `/sys/fs/cgroup` is to show inside. Where no cgroup namespace tells the kernel (`is_namespaced`), it is the container's own
    /// cgroups that are shown, and not the host's.
    pub(crate) fn view(&self, is_namespaced: bool) -> CgroupView {
        if self.pure_unified {
            let top = self.members.first().map(|member| member.hierarchy.top());
            let top = top.filter(|_| !is_namespaced);
            return CgroupView { pure_unified: true, top, folders: Vec::new() };
        }
        let folders = self
            .members
            .iter()
            .map(|member| {
                let controllers = &member.hierarchy.controllers;
                let name = if controllers.is_empty() {
                    "unified".to_owned()
                } else {
                    controllers.join(",").replace("name=", "")
                };
                let own = (!is_namespaced).then(|| member.folder.clone());
                CgroupFolder { name, controllers: controllers.clone(), own }
            })
            .collect();
        CgroupView { pure_unified: false, top: None, folders }
    }
}

/// Notes that the container has a cgroup in `hierarchy`, with limits of `controller`.
fn add(members: &mut Vec<Member>, path: &str, hierarchy: &Hierarchy, controller: Option<&str>) {
    let index = members.iter().position(|m| m.hierarchy == *hierarchy).unwrap_or_else(|| {
        members.push(Member {
            folder: hierarchy.top().join(&path[1..]),
            hierarchy: hierarchy.clone(),
            controllers: BTreeSet::new(),
        });
        members.len() - 1
    });
    members[index].controllers.extend(controller.map(str::to_owned));
}

/// Notes which controllers the files of `unified` need: they are cgroup v2's alone.
fn add_unified(
    members: &mut Vec<Member>,
    path: &str,
    hierarchies: &Hierarchies,
    resources: &LinuxResources,
) -> Result<()> {
    for file in resources.unified().iter().flatten().map(|(file, _)| file) {
        let controller = resource_files::controller_of(file)?;
        let unified = hierarchies
            .unified()
            .filter(|u| controller.is_none_or(|name| has_controller(&u.top(), name)));
        match unified {
            Some(unified) => add(members, path, unified, controller),
            None => {
                return Err(Error::unsupported(
                    format!("linux.resources.unified {file:?}"),
                    "that controller is not in a cgroup v2 hierarchy here (`terrarium doctor` shows what is)",
                ));
            }
        }
    }
    Ok(())
}

/// Whether the unified hierarchy mounted at `mountpoint` has `controller`.
fn has_controller(mountpoint: &Path, controller: &str) -> bool {
    fs::read_to_string(mountpoint.join("cgroup.controllers"))
        .is_ok_and(|text| text.split_ascii_whitespace().any(|c| c == controller))
}

/// The controllers that `resources` needs, by their names in v1.
fn needed(resources: &LinuxResources) -> Vec<&'static str> {
    let mut needed = Vec::new();
    let given = |list: Option<bool>| list == Some(false);
    // blkio first: writeback accounting wants a task's blkio cgroup set before its memory cgroup.
    if resources.block_io().as_ref().is_some_and(|io| *io != LinuxBlockIo::default()) {
        needed.push("blkio");
    }
    if resources.memory().as_ref().is_some_and(|m| *m != LinuxMemory::default()) {
        needed.push("memory");
    }
    if resources.pids().as_ref().is_some_and(|pids| pids.limit() != 0) {
        needed.push("pids");
    }
    if let Some(cpu) = resources.cpu() {
        let mut rest = cpu.clone();
        rest.set_cpus(None).set_mems(None);
        if rest != LinuxCpu::default() {
            needed.push("cpu");
        }
        if cpu.cpus().is_some() || cpu.mems().is_some() {
            needed.push("cpuset");
        }
    }
    if given(resources.hugepage_limits().as_ref().map(Vec::is_empty)) {
        needed.push("hugetlb");
    }
    if given(resources.rdma().as_ref().map(HashMap::is_empty)) {
        needed.push("rdma");
    }
    if let Some(network) = resources.network() {
        if network.class_id().is_some() {
            needed.push("net_cls");
        }
        if given(network.priorities().as_ref().map(Vec::is_empty)) {
            needed.push("net_prio");
        }
    }
    if given(resources.devices().as_ref().map(Vec::is_empty)) {
        needed.push("devices");
    }
    needed
}

/// Name of a v1 controller in cgroup v2.
fn unified_name(controller: &'static str) -> &'static str {
    if controller == "blkio" { "io" } else { controller }
}

/// Refuses limits that cgroup v2 does not have, where `controller` stands there.
fn check_unified(controller: &str, resources: &LinuxResources) -> Result<()> {
    let refused = |what: &'static str, reason: &'static str| Err(Error::unsupported(what, reason));
    let cpu = resources.cpu().as_ref().filter(|_| controller == "cpu");
    if cpu.is_some_and(|cpu| cpu.realtime_runtime().is_some() || cpu.realtime_period().is_some()) {
        return refused("cpu.realtimeRuntime", "cgroup v2 has no budget for real-time tasks");
    }
    if let Some(memory) = resources.memory().as_ref().filter(|_| controller == "memory") {
        if memory.swappiness().is_some() {
            return refused("memory.swappiness", "cgroup v2 has no swappiness of its own");
        }
        if memory.disable_oom_killer() == Some(true) {
            return refused("disableOOMKiller", "cgroup v2 cannot turn the OOM killer off");
        }
        if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
            return refused(
                "memory.kernel",
                "cgroup v2 counts it as memory: it has no limit apart",
            );
        }
    }
    let leaf = |io: &LinuxBlockIo| {
        let mut devices = io.weight_device().iter().flatten();
        io.leaf_weight().is_some() || devices.any(|device| device.leaf_weight().is_some())
    };
    if controller == "blkio" && resources.block_io().as_ref().is_some_and(leaf) {
        return refused("blockIO.leafWeight", "cgroup v2 has no weights of leaves");
    }
    Ok(())
}

/// Makes a container's folder and those above it, and in cgroup v2 hands the controllers down to it.
fn make_folder(member: &Member) -> Result<()> {
    let top = &member.hierarchy.top();
    let mut above: Vec<&Path> =
        member.folder.ancestors().skip(1).take_while(|f| f.starts_with(top)).collect();
    above.reverse();
    let (controllers, accounting) = if member.hierarchy.is_unified() {
        // Those that the top hands down already: for what is only counted it stays as it is.
        let handed_down =
            fs::read_to_string(top.join("cgroup.subtree_control")).unwrap_or_default();
        let wanted = |name: &&str| {
            handed_down.split_ascii_whitespace().any(|there| there == *name)
                && !member.controllers.contains(*name)
        };
        let accounting: Vec<&str> = UNIFIED_ACCOUNTING.into_iter().filter(wanted).collect();
        (member.controllers.iter().map(String::as_str).collect(), accounting)
    } else {
        (Vec::new(), Vec::new())
    };
    // Another container's end may remove an empty parent at any moment: start over then.
    for _ in 0..100 {
        match try_make_folder(member, &above, &controllers, &accounting) {
            Err(Error::System { why, .. }) if why.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    Err(io::Error::from(ErrorKind::NotFound)).tried("create cgroup", &member.folder)
}

/// `accounting` is handed down where that is possible.
fn try_make_folder(
    member: &Member,
    above: &[&Path],
    controllers: &[&str],
    accounting: &[&str],
) -> Result<()> {
    if controllers.is_empty() && accounting.is_empty() {
        // The usual case first: the parent exists.
        match fs::create_dir(&member.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return made(result, &member.folder),
        }
    }
    for (n, folder) in above.iter().enumerate() {
        if n > 0 {
            match fs::create_dir(folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => made(result, folder)?,
            }
        }
        hand_down(folder, controllers)?;
        if n > 0 {
            // Refused where processes sit in that cgroup itself; then the container goes uncounted.
            let _ = hand_down(folder, accounting);
        }
    }
    made(fs::create_dir(&member.folder), &member.folder)
}

/// Makes a folder that systemd has not made for a scope: in hierarchies that it does not use. In the unified one it is
/// asked what was handed down.
fn make_in_scope(member: &Member) -> Result<()> {
    match fs::create_dir_all(&member.folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        result => made(result, &member.folder)?,
    }
    if !member.hierarchy.is_unified() {
        return Ok(());
    }
    match member.controllers.iter().find(|name| !has_controller(&member.folder, name)) {
        None => Ok(()),
        Some(controller) => Err(Error::unsupported(
            format!("a {controller} limit"),
            format!(
                "systemd has not handed the controller down to {} (Delegate= of the user's manager says what it may have)",
                member.folder.display()
            ),
        )),
    }
}

fn made(result: io::Result<()>, folder: &Path) -> Result<()> {
    let hint = match result.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::AlreadyExists) => {
            "another container or a crashed one uses it; `terrarium gc` removes what is left over"
        }
        Err(ErrorKind::PermissionDenied) => {
            "containers with cgroups need root or a delegated cgroup"
        }
        Err(ErrorKind::ReadOnlyFilesystem) => "the cgroup filesystem is mounted read-only here",
        _ => "",
    };
    result.tried_hint("create cgroup", folder, hint)
}

/// Hands the controllers of `member` down to its folder (cgroup v2).
fn hand_down_to(member: &Member) -> Result<()> {
    if !member.hierarchy.is_unified() {
        return Ok(());
    }
    let controllers: Vec<&str> = member.controllers.iter().map(String::as_str).collect();
    let top = &member.hierarchy.top();
    let mut above: Vec<&Path> =
        member.folder.ancestors().skip(1).take_while(|f| f.starts_with(top)).collect();
    above.reverse();
    above.into_iter().try_for_each(|folder| hand_down(folder, &controllers))
}

/// Enables `controllers` for the children of `folder` (cgroup v2's `cgroup.subtree_control`).
fn hand_down(folder: &Path, controllers: &[&str]) -> Result<()> {
    if controllers.is_empty() {
        return Ok(());
    }
    let path = folder.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&path).tried("read", &path)?;
    let missing: Vec<String> = controllers
        .iter()
        .filter(|c| !enabled.split_ascii_whitespace().any(|e| e == **c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let result = fs::write(&path, missing.join(" "));
    let hint = match result.as_ref().map_err(io::Error::raw_os_error) {
        Err(Some(libc::EBUSY)) => {
            "processes sit in that cgroup itself; move them into a child, or choose another --cgroup-parent"
        }
        Err(Some(libc::ENOENT | libc::EINVAL)) => {
            "the controller is not handed down to that cgroup"
        }
        _ => "",
    };
    result.tried_hint(format!("enable {}", missing.join(" ")), &path, hint)
}

/// What sets the same limits in a shell, but for the devices, whose rules are many.
fn shell_commands(member: &Member, resources: &LinuxResources) -> Vec<String> {
    let v2 = member.hierarchy.is_unified();
    let has = |controller: &str| member.controllers.contains(controller);
    let mut commands = Vec::new();
    let mut echo = |value: String, v1_file: &str, v2_file: &str| {
        let file = member.folder.join(if v2 { v2_file } else { v1_file });
        commands.push(format!("echo {value} > {}", explain::word(&file.to_string_lossy())));
    };
    if let Some(memory) = resources.memory().as_ref().filter(|_| has("memory")) {
        if let Some(limit) = memory.limit() {
            echo(limit.to_string(), "memory.limit_in_bytes", "memory.max");
        }
        if let (Some(swap), false) = (memory.swap(), v2) {
            echo(swap.to_string(), "memory.memsw.limit_in_bytes", "");
        }
        if let Some(soft) = memory.reservation() {
            echo(soft.to_string(), "memory.soft_limit_in_bytes", "memory.low");
        }
    }
    if let Some(pids) = resources.pids().as_ref().filter(|_| has("pids")) {
        let limit = pids.limit();
        echo(if limit > 0 { limit.to_string() } else { "max".to_owned() }, "pids.max", "pids.max");
    }
    if let Some(cpu) = resources.cpu() {
        if let (Some(quota), true) = (cpu.quota(), has("cpu")) {
            let period = cpu.period().unwrap_or(100_000);
            let value = if v2 { format!("'{quota} {period}'") } else { quota.to_string() };
            echo(value, "cpu.cfs_quota_us", "cpu.max");
        }
        if let (Some(shares), true) = (cpu.shares(), has("cpu")) {
            let value = if v2 { weight_of_shares(shares) } else { shares };
            echo(value.to_string(), "cpu.shares", "cpu.weight");
        }
        if let (Some(cpus), true) = (cpu.cpus(), has("cpuset")) {
            echo(cpus.clone(), "cpuset.cpus", "cpuset.cpus");
        }
    }
    if has("devices") {
        let deny = member.folder.join("devices.deny");
        commands.push(format!("echo a > {}", explain::word(&deny.to_string_lossy())));
    }
    commands
}

/// Sets the limits that belong to `member`.
fn limit(member: &Member, resources: &LinuxResources) -> Result<()> {
    let v2 = member.hierarchy.is_unified();
    let has = |controller: &str| member.controllers.contains(controller);
    if has("memory")
        && let Some(memory) = resources.memory()
    {
        limit_memory(&member.folder, memory, v2)?;
    }
    if has("pids")
        && let Some(pids) = resources.pids()
    {
        let max = if pids.limit() > 0 { MaxValue::Value(pids.limit()) } else { MaxValue::Max };
        PidController::new(member.folder.clone(), PathBuf::new(), v2)
            .set_pid_max(max)
            .wrote("pids.max", &member.folder)?;
    }
    if let Some(cpu) = resources.cpu() {
        if has("cpu") {
            limit_cpu(&member.folder, cpu, v2)?;
        }
        if has("cpuset") {
            limit_cpuset(&member.folder, cpu, v2)?;
        }
    }
    if has("devices") {
        limit_devices(&member.folder, resources.devices().as_deref().unwrap_or_default())?;
    }
    Ok(())
}

fn limit_memory(folder: &Path, memory: &LinuxMemory, v2: bool) -> Result<()> {
    let controller = MemController::new(folder.to_owned(), PathBuf::new(), v2);
    let exceeds = || memory.limit().is_some_and(|limit| exceeds_swap(folder, limit));
    if let Some(swap) = memory.swap().filter(|_| !v2 && exceeds()) {
        // Memory must not exceed memory and swap together, not even for a moment.
        controller.set_memswap_limit(swap).wrote("swap limit", folder)?;
    }
    if let Some(limit) = memory.limit() {
        controller.set_limit(limit).wrote("memory limit", folder)?;
    }
    if let Some(swap) = memory.swap() {
        let file = folder.join(if v2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" });
        let value = swap_alone(memory).filter(|_| v2).unwrap_or(swap);
        if file.exists() {
            controller.set_memswap_limit(value).wrote("swap limit", folder)?;
        } else if memory.limit() != Some(swap) {
            return Err(Error::unsupported(
                "a swap limit",
                "this kernel does not account swap (boot with swapaccount=1)",
            ));
        }
    }
    if let Some(reservation) = memory.reservation() {
        controller.set_soft_limit(reservation).wrote("memory reservation", folder)?;
    }
    if let Some(swappiness) = memory.swappiness().filter(|_| !v2) {
        controller.set_swappiness(swappiness).wrote("memory.swappiness", folder)?;
    }
    if let Some(disabled) = memory.disable_oom_killer().filter(|_| !v2) {
        let path = folder.join("memory.oom_control");
        fs::write(&path, if disabled { "1" } else { "0" }).tried("set", &path)?;
    }
    Ok(())
}

/// The swap limit as cgroup v2 has it: swap alone, where the spec counts memory and swap together, as v1 does.
pub(crate) fn swap_alone(memory: &LinuxMemory) -> Option<i64> {
    let swap = memory.swap()?;
    Some(match memory.limit() {
        Some(limit) if swap > 0 && limit > 0 => swap - limit,
        _ => swap,
    })
}

/// Refuses a memory limit below what is used now: cgroup v2 would kill for it (`checkBeforeUpdate`).
fn check_usage(member: &Member, resources: &LinuxResources) -> Result<()> {
    let Some(limit) = resources.memory().and_then(|memory| memory.limit()) else { return Ok(()) };
    let v2 = member.hierarchy.is_unified();
    if !member.controllers.contains("memory") || limit < 0 {
        return Ok(());
    }
    let path = member.folder.join(if v2 { "memory.current" } else { "memory.usage_in_bytes" });
    let used = fs::read_to_string(&path).tried("read", &path)?;
    match used.trim().parse::<i64>() {
        Ok(used) if used > limit => Err(Error::invalid(
            "memory.limit",
            limit.to_string(),
            format!("the container uses {used} bytes now, and checkBeforeUpdate is set"),
        )),
        _ => Ok(()),
    }
}

/// Whether `limit` is more than what memory and swap together are limited to now.
fn exceeds_swap(folder: &Path, limit: i64) -> bool {
    let text = fs::read_to_string(folder.join("memory.memsw.limit_in_bytes"));
    text.ok()
        .and_then(|text| text.trim().parse::<i64>().ok())
        .is_some_and(|now| limit < 0 || limit > now)
}

fn limit_cpu(folder: &Path, cpu: &LinuxCpu, v2: bool) -> Result<()> {
    let controller = CpuController::new(folder.to_owned(), PathBuf::new(), v2);
    if let Some(shares) = cpu.shares().filter(|&shares| shares > 0) {
        let value = if v2 { weight_of_shares(shares) } else { shares };
        controller.set_shares(value).wrote("cpu shares", folder)?;
    }
    if cpu.period().is_some() || cpu.quota().is_some() {
        // The period first: v1 checks each write against the other value.
        if let Some(period) = cpu.period().filter(|_| !v2) {
            controller.set_cfs_period(period).wrote("cpu period", folder)?;
        }
        let period = cpu.period().filter(|_| v2);
        controller.set_cfs_quota_and_period(cpu.quota(), period).wrote("cpu quota", folder)?;
    }
    Ok(())
}

/// cgroup v1's 2…262144 to cgroup v2's 1…10000, as runc and crun convert (runtime-spec, "CPU shares").
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn limit_cpuset(folder: &Path, cpu: &LinuxCpu, v2: bool) -> Result<()> {
    let controller = CpuSetController::new(folder.to_owned(), PathBuf::new(), v2);
    // A v1 cpuset without cpus or mems takes no task: what is not given is the parent's.
    // Nor may it have any that the parent has not.
    let value = |given: &Option<String>, file: &str| -> Result<Option<String>> {
        if v2 {
            return Ok(given.clone());
        }
        let inherited = inherited_cpuset(folder, file)?;
        Ok(Some(given.clone().unwrap_or(inherited)))
    };
    if let Some(cpus) = value(cpu.cpus(), "cpuset.cpus")? {
        controller.set_cpus(&cpus).wrote("cpuset.cpus", folder)?;
    }
    if let Some(mems) = value(cpu.mems(), "cpuset.mems")? {
        controller.set_mems(&mems).wrote("cpuset.mems", folder)?;
    }
    Ok(())
}

/// The value of the nearest cgroup above that has one, written into those between.
fn inherited_cpuset(folder: &Path, file: &str) -> Result<String> {
    let mut empty = Vec::new();
    for parent in folder.ancestors().skip(1) {
        let path = parent.join(file);
        let value = fs::read_to_string(&path).tried("read", &path)?.trim().to_owned();
        if value.is_empty() {
            empty.push(path);
            continue;
        }
        for path in empty.iter().rev() {
            fs::write(path, &value).tried("write", path)?;
        }
        return Ok(value);
    }
    Err(io::Error::from(ErrorKind::NotFound)).tried("find a value for", folder.join(file).as_path())
}

fn limit_devices(folder: &Path, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let controller = DevicesController::new(folder.to_owned(), PathBuf::new());
    for rule in rules {
        let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
        let permissions = DevicePermissions::from_str(access)
            .map_err(|_| Error::invalid("devices access", access, "it is made of r, w and m"))?;
        let (major, minor) = (rule.major().unwrap_or(-1), rule.minor().unwrap_or(-1));
        let kinds: &[DeviceType] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::B => &[DeviceType::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[DeviceType::Char],
            LinuxDeviceType::P => continue,
            // `a` is all or nothing in the kernel: numbers and access are ignored.
            LinuxDeviceType::A if major == -1 && minor == -1 => &[DeviceType::All],
            LinuxDeviceType::A => &[DeviceType::Block, DeviceType::Char],
        };
        for &kind in kinds {
            let result = if rule.allow() {
                controller.allow_device(kind, major, minor, &permissions)
            } else {
                controller.deny_device(kind, major, minor, &permissions)
            };
            result.wrote("device rule", folder)?;
        }
    }
    Ok(())
}

/// Turns an error of cgroups-rs, whose text repeats the path, into one of ours.
trait Wrote {
    fn wrote(self, what: &'static str, folder: &Path) -> Result<()>;
}

impl Wrote for Result<(), cgroups_rs::fs::error::Error> {
    fn wrote(self, what: &'static str, folder: &Path) -> Result<()> {
        self.map_err(|error| {
            let kernel = std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<io::Error>())
                .and_then(io::Error::raw_os_error)
                .map(io::Error::from_raw_os_error);
            let hint = match kernel.as_ref().and_then(io::Error::raw_os_error) {
                Some(libc::EINVAL) => "the kernel refuses this value",
                Some(libc::EBUSY) => "the container uses more than that already",
                Some(libc::ENOENT) => "this kernel lacks the file",
                _ => "",
            };
            Error::System {
                tried: format!("set {what}").into(),
                on: folder.display().to_string(),
                why: kernel.unwrap_or_else(|| io::Error::other(error.to_string())),
                hint: hint.into(),
            }
        })
    }
}

/// Removes those of the cgroups `folders` that hold neither processes nor cgroups; whether that was all of them.
pub(crate) fn remove_empty(folders: &[PathBuf]) -> bool {
    // All are tried: each that goes need not be looked into.
    folders.iter().filter(|folder| !is_removed(fs::remove_dir(folder))).count() == 0
}

fn is_removed(result: io::Result<()>) -> bool {
    result.map_or_else(|error| error.kind() == ErrorKind::NotFound, |()| true)
}

/// Kills every process in the cgroups `folders` and below, and waits until they are gone.
#[inline(never)]
pub(crate) fn kill_all(folders: &[PathBuf]) -> Result<()> {
    crate::freeze::thaw_for_kill(folders);
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    for folder in folders {
        // Linux 5.14; it also reaches processes that fork meanwhile.
        let by_kernel = fs::write(folder.join("cgroup.kill"), "1").is_ok();
        loop {
            let pids = processes(folder);
            if pids.is_empty() {
                break;
            }
            if !by_kernel {
                for &pid in &pids {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    // ESRCH: it went by itself.
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
            if Instant::now() > deadline {
                return Err(io::Error::from(ErrorKind::TimedOut)).tried_hint(
                    format!("kill {} processes in cgroup", pids.len()),
                    folder,
                    "they may wait for a device or be frozen from above",
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Every process in the cgroup `folder` and below; zombies are not listed by the kernel.
pub(crate) fn processes(folder: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(folder.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        // 0 is a process of another pid namespace, which we could not signal.
        .filter_map(|line| line.parse().ok().filter(|&pid| pid > 0))
        .collect();
    for child in children(folder) {
        pids.extend(processes(&child));
    }
    pids
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes the cgroups `folders` with those below. What does not exist is removed already.
pub(crate) fn remove(folders: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    for folder in folders {
        remove_tree(folder, deadline)?;
    }
    Ok(())
}

/// Removes the cgroups `folders` where they are empty.
pub(crate) fn remove_parents(folders: &[PathBuf]) {
    for folder in folders {
        // A cgroup has a link from each of those below (`kernfs_refresh_inode` of fs/kernfs/inode.c). To ask that is cheap;
        // a removal, also one that is refused, waits for the lock of all cgroups.
        let has_children = fs::metadata(folder).is_ok_and(|metadata| metadata.nlink() > 2);
        if !has_children {
            // Gone already, or used by somebody: both are fine.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn remove_tree(folder: &Path, deadline: Instant) -> Result<()> {
    loop {
        let error = match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        // Busy: it has children (made inside), or a process that has exited has not been let go of yet.
        for child in children(folder) {
            remove_tree(&child, deadline)?;
        }
        if Instant::now() > deadline {
            return Err(error).tried_hint(
                "remove cgroup",
                folder,
                "a process is still in it; `terrarium gc` tries again",
            );
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxPids;

    const HYBRID: &str = "\
24 23 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
25 23 0:23 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
26 23 0:24 /lxc/a /sys/fs/cgroup/net_cls,net_prio rw,relatime - cgroup cgroup rw,net_cls,net_prio
27 23 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/a,name=systemd
28 23 0:26 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw
29 23 0:27 / /tmp rw - tmpfs tmpfs rw
30 23 0:26 / /mnt/other rw,relatime - cgroup2 cgroup2 rw
31 23 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

    fn resources(memory: Option<i64>, pids: Option<i64>) -> LinuxResources {
        let mut resources = LinuxResources::default();
        resources.set_memory(memory.map(|limit| {
            let mut memory = LinuxMemory::default();
            memory.set_limit(Some(limit));
            memory
        }));
        resources.set_pids(pids.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        }));
        resources
    }

    #[test]
    fn mountinfo_tells_hierarchies_apart() {
        let hierarchies = Hierarchies::parse(HYBRID);
        assert_eq!(hierarchies.all.len(), 6);
        assert_eq!(hierarchies.unified().unwrap().mountpoint, Path::new("/sys/fs/cgroup/uni fied"));
        let net = hierarchies.v1("net_prio").unwrap();
        assert_eq!(net.controllers, ["net_cls", "net_prio"]);
        assert_eq!(net.kernel_path("/terrarium/a"), "/lxc/a/terrarium/a");
        assert_eq!(hierarchies.v1("name=systemd").unwrap().controllers, ["name=systemd"]);
        assert!(hierarchies.v1("blkio").is_none());
        assert!(!hierarchies.is_pure_unified());
    }

    #[test]
    fn only_hierarchies_that_a_limit_needs_are_used() {
        let hierarchies = Hierarchies::parse(HYBRID);
        let folders = |resources: &LinuxResources| {
            Cgroups::plan(&hierarchies, "/terrarium/a", Some(resources)).unwrap().folders()
        };
        let unified = PathBuf::from("/sys/fs/cgroup/uni fied/terrarium/a");
        let memory = PathBuf::from("/sys/fs/cgroup/memory/terrarium/a");
        let pids = PathBuf::from("/sys/fs/cgroup/pids/terrarium/a");
        assert_eq!(folders(&resources(None, None)), std::slice::from_ref(&unified));
        assert_eq!(
            folders(&resources(Some(1 << 20), Some(10))),
            [unified.clone(), memory, pids.clone()]
        );
        assert_eq!(folders(&resources(None, Some(-1))), [unified, pids]);
    }

    #[test]
    fn a_limit_without_its_controller_is_refused() {
        let hierarchies = Hierarchies::parse("31 23 0:28 / /c/pids rw - cgroup cgroup rw,pids\n");
        let limits = resources(Some(1 << 20), None);
        assert!(Cgroups::plan(&hierarchies, "/a", Some(&limits)).is_err());
        // Without any limit there is one cgroup nevertheless.
        let cgroups = Cgroups::plan(&hierarchies, "/a", None).unwrap();
        assert_eq!(cgroups.folders(), [PathBuf::from("/c/pids/a")]);
    }

    #[test]
    fn cgroup_paths_stay_below_the_mount() {
        assert_eq!(check_path(Path::new("/a//b/")).unwrap(), "/a/b");
        assert_eq!(check_path(Path::new("a/b")).unwrap(), "/terrarium/a/b");
        for bad in [".", "a/../..", "/", "/a/../b", "/..", "system.slice:x:y", ""] {
            assert!(check_path(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_become_weights_in_the_whole_range() {
        assert_eq!(
            [0, 2, 1024, 262_144, u64::MAX].map(weight_of_shares),
            [1, 1, 39, 10_000, 10_000]
        );
    }

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(unescape("/a\\"), "/a\\");
        assert_eq!(unescape("/a\\09z"), "/a\\09z");
    }
}
