//! The options of `terrarium run` become an OCI spec; from there on there is one path.

use crate::capabilities;
use crate::cgroup::{self, CgroupDriver};
use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use crate::id_maps::IdMaps;
use crate::network::{self, NetworkOptions, NetworkRequest};
use crate::option_forms::{self, mount};
use crate::seccomp;
use crate::systemd::Scope;
use crate::units::{CPU_PERIOD_US, key_value, parse_bytes, parse_cpus, parse_memory, parse_pids};
use crate::user;
use oci_spec::runtime::{
    Capabilities, LinuxBlockIoBuilder, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder,
    LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxNamespace, LinuxNamespaceType, LinuxPidsBuilder, LinuxResourcesBuilder, LinuxSeccomp,
    Mount, ProcessBuilder, RootBuilder, Spec, UserBuilder,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What `terrarium run` was asked for, as written on the command line.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The root filesystem: a folder.
    pub rootfs: PathBuf,
    /// The folders that make the root filesystem, the topmost first, where it is not one folder.
    pub layers: Vec<PathBuf>,
    /// `NAME=VALUE` of the image.
    pub image_env: Vec<String>,
    /// The command.
    pub args: Vec<String>,
    /// `--hostname`; the id's first 12 characters if not given.
    pub hostname: Option<String>,
    /// `--env NAME=VALUE`, or `NAME` to pass the caller's.
    pub env: Vec<String>,
    /// `--env-file`
    pub env_files: Vec<PathBuf>,
    /// `--workdir`
    pub workdir: Option<PathBuf>,
    /// `--user NAME|UID[:GROUP|GID]`
    pub user: Option<String>,
    /// `--memory`
    pub memory: Option<String>,
    /// `--memory-swap`: memory and swap together; -1 for no limit.
    pub memory_swap: Option<String>,
    /// `--memory-reservation`
    pub memory_reservation: Option<String>,
    /// `--cpu-shares`, from 2 to 262144
    pub cpu_shares: Option<u64>,
    /// `--cpuset-mems`
    pub cpuset_mems: Option<String>,
    /// `--blkio-weight`, from 10 to 1000
    pub blkio_weight: Option<u16>,
    /// `--group-add`, by name or number
    pub group_add: Vec<String>,
    /// `--privileged`: every capability, every device, nothing masked, no seccomp filter.
    pub privileged: bool,
    /// `--init`: terrarium's own program is pid 1.
    pub init: bool,
    /// `--cpus`
    pub cpus: Option<String>,
    /// `--cpuset-cpus`
    pub cpuset_cpus: Option<String>,
    /// `--pids`
    pub pids: Option<String>,
    /// `--net`
    pub network: Option<String>,
    /// `--subnet`
    pub subnet: Option<String>,
    /// `--ip`, `--mac`, `--dns`, `--add-host`
    pub network_options: NetworkOptions,
    /// `--pid`: a namespace of its own unless it says otherwise, as the next three.
    pub pid: NamespaceChoice,
    /// `--ipc`
    pub ipc: NamespaceChoice,
    /// `--uts`
    pub uts: NamespaceChoice,
    /// `--cgroupns`
    pub cgroupns: NamespaceChoice,
    /// `--volume HOST:CONTAINER[:OPTIONS]`
    pub volumes: Vec<String>,
    /// `--tmpfs PATH[:OPTIONS]`
    pub tmpfs: Vec<String>,
    /// `--mount type=…,source=…,target=…`
    pub mounts: Vec<String>,
    /// `--shm-size`
    pub shm_size: Option<String>,
    /// `--device HOST[:CONTAINER][:rwm]`
    pub devices: Vec<String>,
    /// `--ulimit NAME=SOFT[:HARD]`
    pub ulimits: Vec<String>,
    /// `--oom-score-adj`, from -1000 to 1000
    pub oom_score_adj: Option<i32>,
    /// `--read-only`
    pub read_only: bool,
    /// `--userns`: `auto` or `HOSTID[:SIZE]`; without it root makes none, and others the one that they can.
    pub userns: Option<String>,
    /// `--cap-add`
    pub cap_add: Vec<String>,
    /// `--cap-drop`
    pub cap_drop: Vec<String>,
    /// `--security-opt`
    pub security: Vec<String>,
    /// `--sysctl KEY=VALUE`
    pub sysctl: Vec<String>,
    /// `--cgroup-parent`
    pub cgroup_parent: Option<PathBuf>,
    /// `--cgroup-manager`
    pub cgroups: CgroupDriver,
    /// `--annotation KEY=VALUE`
    pub annotations: Vec<String>,
}

/// Whose namespace of a kind a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NamespaceChoice {
    /// A new one.
    #[default]
    Own,
    /// The caller's.
    Host,
    /// That of the process with this id.
    OfProcess(i32),
}

impl NamespaceChoice {
    /// The namespace of the spec, where it has one; `name` is the kernel's, as in `/proc/PID/ns`.
    fn namespace(&self, typ: LinuxNamespaceType, name: &str) -> Option<LinuxNamespace> {
        match self {
            Self::Own => Some(namespace(typ, None)),
            Self::Host => None,
            Self::OfProcess(pid) => {
                Some(namespace(typ, Some(format!("/proc/{pid}/ns/{name}").into())))
            }
        }
    }
}

/// Paths hidden from containers: what Docker and Podman hide.
pub(crate) const MASKED: [&str; 13] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
];

/// Paths that containers may read only.
pub(crate) const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Search path of programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl RunOptions {
    /// Makes the spec of container `id`.
    pub fn to_spec(&self, id: &ContainerId) -> Result<Spec> {
        if self.args.is_empty() {
            return Err(Error::invalid("CMD", "", "say what to run, behind `--`"));
        }
        let rootfs =
            if self.layers.is_empty() { check_rootfs(&self.rootfs)? } else { self.rootfs.clone() };
        let network = NetworkRequest::parse(self.network.as_deref(), self.subnet.as_deref())?;
        let has_hostname = self.uts == NamespaceChoice::Own;
        let hostname = match &self.hostname {
            Some(name) if !has_hostname => {
                let reason = "it is the name of the UTS namespace that --uts shares";
                return Err(Error::invalid("--hostname", name, reason));
            }
            Some(name) => check_hostname(name)?.to_owned(),
            None if self.uts == NamespaceChoice::Host => host_name(),
            None => id.as_str().chars().take(12).collect(),
        };
        let maps = IdMaps::for_run(self.userns.as_deref())?;

        let mut annotations = HashMap::new();
        for text in &self.annotations {
            let (key, value) = key_value("--annotation", text)?;
            annotations.insert(key, value);
        }
        network.annotate(&mut annotations);
        self.network_options.check(&network)?;
        self.network_options.annotate(&mut annotations);
        if self.init {
            annotations.insert(crate::reaper::ANNOTATION.to_owned(), "true".to_owned());
        }

        let devices = self
            .devices
            .iter()
            .map(|text| option_forms::device(text))
            .collect::<Result<Vec<_>>>()?;
        let (mut nodes, mut rules): (Vec<_>, Vec<_>) = devices.into_iter().unzip();
        if self.privileged {
            nodes.extend(option_forms::host_devices());
            let everything = LinuxDeviceCgroupBuilder::default().allow(true).access("rwm");
            rules.push(built(everything.build()));
        }
        let hidden =
            !self.privileged && !self.security.iter().any(|text| is_unconfined_paths(text));
        let paths = |paths: &[&str]| -> Vec<String> {
            paths.iter().filter(|_| hidden).map(|&path| path.to_owned()).collect()
        };
        let mut linux = LinuxBuilder::default()
            .namespaces(self.namespaces(&network, maps.is_some()))
            .devices(nodes)
            .resources(self.resources(rules)?)
            .cgroups_path(self.cgroup_path(id)?)
            .masked_paths(paths(&MASKED))
            .readonly_paths(paths(&READONLY));
        let mounts = self.mounts(&network, maps.as_ref())?;
        if mounts.iter().any(option_forms::is_shared) {
            // Else the mounts that the container starts with are cut off from the host's.
            linux = linux.rootfs_propagation("shared");
        }
        if let Some(profile) = self.seccomp()? {
            linux = linux.seccomp(profile);
        }
        if let Some(maps) = &maps {
            linux = linux.uid_mappings(maps.uid.clone()).gid_mappings(maps.gid.clone());
        }
        let mut sysctl = HashMap::new();
        for text in &self.sysctl {
            let (key, value) = key_value("--sysctl", text)?;
            sysctl.insert(key, value);
        }
        if !sysctl.is_empty() {
            linux = linux.sysctl(sysctl);
        }

        let mut spec = Spec::default();
        spec.set_version("1.2.1".into())
            .set_root(Some(built(
                RootBuilder::default().path(rootfs.clone()).readonly(self.read_only).build(),
            )))
            .set_mounts(Some(mounts))
            .set_process(Some(self.process(&rootfs, &hostname)?))
            .set_hostname(Some(hostname).filter(|_| has_hostname))
            .set_annotations(Some(annotations))
            .set_linux(Some(built(linux.build())));
        Ok(spec)
    }

    fn cgroup_path(&self, id: &ContainerId) -> Result<PathBuf> {
        if self.cgroups == CgroupDriver::Systemd {
            let slice = self.cgroup_parent.as_deref().unwrap_or(Path::new(""));
            let path = format!("{}:terrarium:{id}", slice.display());
            return match Scope::parse(&path, None) {
                Ok(_) => Ok(path.into()),
                Err(_) => Err(Error::invalid(
                    "--cgroup-parent",
                    slice.display().to_string(),
                    "with --cgroup-manager systemd it is a slice, such as machine.slice",
                )),
            };
        }
        let parent = self.cgroup_parent.as_deref().unwrap_or(Path::new(cgroup::DEFAULT_PARENT));
        let parent = if parent == Path::new("/") {
            String::new()
        } else {
            let invalid = || {
                let value = parent.display().to_string();
                Error::invalid("--cgroup-parent", value, "it is an absolute path without ..")
            };
            if !parent.is_absolute() {
                return Err(invalid());
            }
            cgroup::check_path(parent).map_err(|_| invalid())?
        };
        Ok(PathBuf::from(format!("{parent}/{id}")))
    }

    fn resources(
        &self,
        more_rules: Vec<LinuxDeviceCgroup>,
    ) -> Result<oci_spec::runtime::LinuxResources> {
        let rules = device_rules().into_iter().chain(more_rules).collect::<Vec<_>>();
        let mut resources = LinuxResourcesBuilder::default().devices(rules);
        let mut memory = LinuxMemoryBuilder::default();
        if let Some(text) = &self.memory {
            let limit = parse_memory("--memory", text)?;
            let swap = match self.memory_swap.as_deref() {
                // Without a word about swap there is none: a limit that swapping softens is hard to observe.
                None => limit,
                Some("-1") => -1,
                Some(text) => parse_memory("--memory-swap", text)?,
            };
            if swap != -1 && swap < limit {
                return Err(Error::invalid(
                    "--memory-swap",
                    self.memory_swap.clone().unwrap_or_default(),
                    "it counts memory and swap together: give at least the memory limit",
                ));
            }
            memory = memory.limit(limit).swap(swap);
        } else if let Some(text) = &self.memory_swap {
            return Err(Error::invalid("--memory-swap", text, "it needs --memory"));
        }
        if let Some(text) = &self.memory_reservation {
            memory = memory.reservation(parse_memory("--memory-reservation", text)?);
        }
        if self.memory.is_some() || self.memory_reservation.is_some() {
            resources = resources.memory(built(memory.build()));
        }
        if let Some(weight) = self.blkio_weight {
            if !(10..=1000).contains(&weight) {
                let reason = "it is from 10 to 1000";
                return Err(Error::invalid("--blkio-weight", weight.to_string(), reason));
            }
            let io = LinuxBlockIoBuilder::default().weight(weight);
            resources = resources.block_io(built(io.build()));
        }
        let sets_cpu = self.cpus.is_some() || self.cpu_shares.is_some();
        if sets_cpu || self.cpuset_cpus.is_some() || self.cpuset_mems.is_some() {
            let mut cpu = LinuxCpuBuilder::default();
            if let Some(shares) = self.cpu_shares {
                if !(2..=262_144).contains(&shares) {
                    let reason = "it is from 2 to 262144, and 1024 unless given";
                    return Err(Error::invalid("--cpu-shares", shares.to_string(), reason));
                }
                cpu = cpu.shares(shares);
            }
            if let Some(text) = &self.cpuset_mems {
                cpu = cpu.mems(check_list("--cpuset-mems", text)?);
            }
            if let Some(text) = &self.cpus {
                cpu = cpu.quota(parse_cpus(text)?).period(CPU_PERIOD_US);
            }
            if let Some(text) = &self.cpuset_cpus {
                cpu = cpu.cpus(check_list("--cpuset-cpus", text)?);
            }
            resources = resources.cpu(built(cpu.build()));
        }
        if let Some(text) = &self.pids {
            resources =
                resources.pids(built(LinuxPidsBuilder::default().limit(parse_pids(text)?).build()));
        }
        Ok(built(resources.build()))
    }

    fn process(&self, rootfs: &Path, hostname: &str) -> Result<oci_spec::runtime::Process> {
        let wanted = self.user.as_deref().unwrap_or("0");
        let own = [rootfs.to_owned()];
        let layers = if self.layers.is_empty() { own.as_slice() } else { self.layers.as_slice() };
        let found = user::find(layers, wanted)?;
        let mut groups = found.groups;
        for group in user::groups(layers, &self.group_add)? {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let set = self.capabilities()?;
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(set.clone())
            .effective(set.clone())
            .permitted(set)
            .inheritable(Capabilities::new())
            .ambient(Capabilities::new())
            .build();
        let cwd = self.workdir.clone().unwrap_or_else(|| "/".into());
        if !cwd.is_absolute() {
            let value = cwd.display().to_string();
            return Err(Error::invalid(
                "--workdir",
                value,
                "it is an absolute path in the container",
            ));
        }
        let mut process = ProcessBuilder::default()
            .args(self.args.clone())
            .env(self.environment(&found.home, hostname)?)
            .cwd(cwd)
            .capabilities(built(capabilities))
            .no_new_privileges(self.no_new_privileges()?)
            .user(built(
                UserBuilder::default()
                    .uid(found.uid)
                    .gid(found.gid)
                    .additional_gids(groups)
                    .build(),
            ))
            .build()
            .map(|mut process| {
                process.set_rlimits(None);
                process
            });
        if let Ok(process) = &mut process {
            process.set_terminal(None);
            let limits =
                self.ulimits.iter().map(|t| option_forms::ulimit(t)).collect::<Result<Vec<_>>>()?;
            process.set_rlimits(Some(limits).filter(|limits| !limits.is_empty()));
            let profile =
                self.security.iter().rev().find_map(|text| text.strip_prefix("apparmor="));
            if let Some(profile) = profile.filter(|profile| *profile != "unconfined") {
                process.set_apparmor_profile(Some(profile.to_owned()));
            }
            if let Some(score) = self.oom_score_adj {
                if !(-1000..=1000).contains(&score) {
                    let reason = "it is from -1000 to 1000 (proc_pid_oom_score_adj(5))";
                    return Err(Error::invalid("--oom-score-adj", score.to_string(), reason));
                }
                process.set_oom_score_adj(Some(score));
            }
        }
        Ok(built(process))
    }

    fn environment(&self, home: &str, hostname: &str) -> Result<Vec<String>> {
        let mut all = vec![
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOSTNAME".to_owned(), hostname.to_owned()),
            ("HOME".to_owned(), home.to_owned()),
        ];
        if let Some(term) = std::env::var("TERM").ok().filter(|_| rustix_isatty()) {
            all.push(("TERM".to_owned(), term));
        }
        // An image cannot ask for the caller's variables.
        let of_image: Vec<String> =
            self.image_env.iter().filter(|word| word.contains('=')).cloned().collect();
        let asked = variables(&[], &of_image)?.into_iter();
        for (key, value) in asked.chain(variables(&self.env_files, &self.env)?) {
            all.retain(|(name, _)| *name != key);
            all.push((key, value));
        }
        Ok(all.into_iter().map(|(key, value)| format!("{key}={value}")).collect())
    }

    fn capabilities(&self) -> Result<Capabilities> {
        let mut add = self.cap_add.clone();
        if self.privileged {
            add.push("ALL".to_owned());
        }
        capabilities::choose(&add, &self.cap_drop)
    }

    fn no_new_privileges(&self) -> Result<bool> {
        let mut result = !self.privileged;
        for text in &self.security {
            match text.as_str() {
                "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => {
                    result = true;
                }
                "no-new-privileges=false" | "no-new-privileges:false" => result = false,
                "apparmor=unconfined" | "label=disable" | "label:disable" => {}
                _ if text.starts_with("seccomp=") || is_unconfined_paths(text) => {}
                _ if text.starts_with("apparmor=") => {}
                _ => {
                    return Err(Error::invalid(
                        "--security-opt",
                        text,
                        "known are no-new-privileges[=false], seccomp=unconfined|FILE, systempaths=unconfined, \
                         apparmor=unconfined|PROFILE, label=disable",
                    ));
                }
            }
        }
        Ok(result)
    }

    /// The seccomp profile: the default one, one from a file, or none.
    fn seccomp(&self) -> Result<Option<LinuxSeccomp>> {
        match self.security.iter().rev().find_map(|text| text.strip_prefix("seccomp=")) {
            None if self.privileged => Ok(None),
            None => {
                let set = self.capabilities()?;
                let set: Vec<_> = set.into_iter().collect();
                Ok(Some(seccomp::default_profile(&set)))
            }
            Some("unconfined") => Ok(None),
            Some(path) => {
                let text = std::fs::read_to_string(path).tried("read seccomp profile", path)?;
                serde_json::from_str(&text).map(Some).map_err(|error| {
                    let reason = format!("it is not an OCI seccomp profile: {error}");
                    Error::invalid("--security-opt", format!("seccomp={path}"), reason)
                })
            }
        }
    }

    /// `/dev/shm`, by which POSIX shared memory goes: the host's with its IPC namespace. Another container's lies in that
    /// one's mount namespace, from which nothing can be bound.
    fn shared_memory(&self) -> Result<Mount> {
        match (&self.ipc, &self.shm_size) {
            (NamespaceChoice::Host, Some(size)) => {
                let reason = "--ipc host shares the host's /dev/shm";
                Err(Error::invalid("--shm-size", size, reason))
            }
            (NamespaceChoice::Host, None) => Ok(mount("/dev/shm", "bind", "/dev/shm", &["bind"])),
            (_, size) => {
                let size = match size {
                    Some(text) => format!("size={}", parse_bytes("--shm-size", text)?),
                    None => "size=65536k".to_owned(),
                };
                let options = ["nosuid", "noexec", "nodev", "mode=1777", &size];
                Ok(mount("/dev/shm", "tmpfs", "shm", &options))
            }
        }
    }

    fn namespaces(&self, network: &NetworkRequest, user: bool) -> Vec<LinuxNamespace> {
        use LinuxNamespaceType as T;
        let mut all = vec![namespace(T::Mount, None)];
        all.extend(self.cgroupns.namespace(T::Cgroup, "cgroup"));
        all.extend(self.pid.namespace(T::Pid, "pid"));
        all.extend(self.ipc.namespace(T::Ipc, "ipc"));
        all.extend(self.uts.namespace(T::Uts, "uts"));
        if !network.shares_host() {
            all.push(namespace(T::Network, network.path().map(Path::to_owned)));
        }
        if user {
            all.push(namespace(T::User, None));
        }
        all
    }

    fn mounts(&self, network: &NetworkRequest, maps: Option<&IdMaps>) -> Result<Vec<Mount>> {
        let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        // The group `tty`, where the user namespace has it.
        if maps.is_none_or(|maps| maps.has_group(5)) {
            terminals.push("gid=5");
        }
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &terminals),
            self.shared_memory()?,
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ];
        if maps.is_some() && network.shares_host() {
            // sysfs belongs to the network namespace, and the host's may not be mounted by a user namespace.
            mounts.push(mount(
                "/sys",
                "bind",
                "/sys",
                &["rbind", "nosuid", "noexec", "nodev", "rro"],
            ));
        } else {
            let mode = if self.privileged { "rw" } else { "ro" };
            mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", mode]));
            mounts.push(mount(
                "/sys/fs/cgroup",
                "cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", mode],
            ));
        }
        for text in &self.tmpfs {
            mounts.push(option_forms::tmpfs(text)?);
        }
        for text in &self.volumes {
            mounts.push(option_forms::volume(text)?);
        }
        for text in &self.mounts {
            mounts.push(option_forms::mount_option(text)?);
        }
        Ok(mounts)
    }
}

/// Changes a process as the options of `exec` say.
pub fn change_process(
    process: &mut oci_spec::runtime::Process,
    rootfs: &Path,
    user: Option<&str>,
    groups: &[u32],
    (env_files, env): (&[PathBuf], &[String]),
    capabilities: &[String],
) -> Result<()> {
    if let Some(user) = user {
        let found = user::find(&[rootfs], user)?;
        let mut user = process.user().clone();
        user.set_uid(found.uid).set_gid(found.gid).set_additional_gids(Some(found.groups));
        process.set_user(user);
    }
    if !groups.is_empty() {
        let mut user = process.user().clone();
        let mut all = user.additional_gids().clone().unwrap_or_default();
        all.extend(groups);
        user.set_additional_gids(Some(all));
        process.set_user(user);
    }
    let variables = variables(env_files, env)?;
    if !variables.is_empty() {
        let mut all = process.env().clone().unwrap_or_default();
        for (name, value) in variables {
            all.retain(|variable| variable.split('=').next() != Some(&name));
            all.push(format!("{name}={value}"));
        }
        process.set_env(Some(all));
    }
    if !capabilities.is_empty() {
        let more = capabilities::choose(capabilities, &["ALL".to_owned()])?;
        let mut sets = process.capabilities().clone().unwrap_or_default();
        let with = |set: &Option<Capabilities>| {
            Some(set.iter().flatten().copied().chain(more.iter().copied()).collect())
        };
        let (bounding, effective, permitted) =
            (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        process.set_capabilities(Some(sets));
    }
    Ok(())
}

/// The variables that `--env-file` and `--env` name, in this order: `NAME=VALUE`, or `NAME` for what the caller has.
fn variables(files: &[PathBuf], words: &[String]) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for path in files {
        all.extend(option_forms::env_file(path)?);
    }
    all.extend(words.iter().cloned());
    let mut variables = Vec::new();
    for text in &all {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match std::env::var(text) {
                Ok(value) => (text.as_str(), value),
                // As docker does: a variable that the caller does not have is not set.
                Err(_) => continue,
            },
        };
        if name.is_empty() {
            return Err(Error::invalid("--env", text, "the form is NAME=VALUE or NAME"));
        }
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// Checks a list of CPUs or memory nodes.
fn check_list(option: &'static str, text: &str) -> Result<String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b"-,".contains(&b)) {
        return Err(Error::invalid(option, text, "the form is 0-2,5"));
    }
    Ok(text.to_owned())
}

/// Whether a `--security-opt` says that nothing is masked or made read-only.
fn is_unconfined_paths(text: &str) -> bool {
    matches!(text, "systempaths=unconfined" | "unmask=ALL" | "unmask=all")
}

/// A builder without a required field left out cannot fail.
fn built<T>(result: Result<T, oci_spec::OciSpecError>) -> T {
    result.expect("every required field was given")
}

fn rustix_isatty() -> bool {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal()
}

fn check_rootfs(path: &Path) -> Result<PathBuf> {
    let error =
        |reason: &'static str| Error::Rootfs { path: path.to_owned(), reason: reason.into() };
    let full = path.canonicalize().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            error("no such folder (give a folder that holds the container's files, such as bin/ and etc/)")
        }
        _ => Error::Rootfs { path: path.to_owned(), reason: source.to_string().into() },
    })?;
    if !full.is_dir() {
        return Err(error("it is not a folder (unpack the image into one first)"));
    }
    if full == Path::new("/") {
        return Err(error("it is the host's own root (make a copy)"));
    }
    Ok(full)
}

fn check_hostname(name: &str) -> Result<&str> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fine) {
        let reason = "a host name has 1 to 64 letters, digits and - . _";
        return Err(Error::invalid("--hostname", name, reason));
    }
    Ok(name)
}

fn namespace(typ: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(typ).set_path(path);
    namespace
}

/// The caller's own host name.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What containers may do with devices: make any node, use the harmless ones.
pub(crate) fn device_rules() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType::{B, C};
    let rule = |allow, typ: Option<LinuxDeviceType>, major: Option<i64>, minor, access: &str| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).access(access);
        if let Some(typ) = typ {
            rule = rule.typ(typ);
        }
        let mut rule = built(rule.build());
        rule.set_major(major).set_minor(minor);
        rule
    };
    let mut rules = vec![
        rule(false, None, None, None, "rwm"),
        rule(true, Some(C), None, None, "m"),
        rule(true, Some(B), None, None, "m"),
    ];
    // null zero full random urandom tty console ptmx
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, Some(C), Some(major), Some(minor), "rwm"));
    }
    // pseudo terminals
    rules.push(rule(true, Some(C), Some(136), None, "rwm"));
    rules
}

/// The network that a spec asks for by terrarium's annotations.
pub(crate) fn network_of(spec: &Spec) -> Result<NetworkRequest> {
    match spec.annotations() {
        Some(annotations) => NetworkRequest::parse(
            annotations.get(network::ANNOTATION).map(String::as_str),
            annotations.get(network::ANNOTATION_SUBNET).map(String::as_str),
        ),
        None => NetworkRequest::parse(None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::Mount as ParsedMount;

    fn options(folder: &Path) -> RunOptions {
        RunOptions {
            rootfs: folder.to_owned(),
            args: vec!["sh".into(), "-c".into(), "true".into()],
            ..RunOptions::default()
        }
    }

    fn id() -> ContainerId {
        ContainerId::new("web").unwrap()
    }

    #[test]
    fn the_spec_survives_json() {
        let folder = tempfile::tempdir().unwrap();
        let options = RunOptions {
            memory: Some("32m".into()),
            cpus: Some("0.5".into()),
            pids: Some("64".into()),
            network: Some("bridge:t0".into()),
            subnet: Some("10.9.0.0/24".into()),
            userns: Some("100000:1000".into()),
            read_only: true,
            env: vec!["A=b".into(), "PATH=/x".into()],
            ..options(folder.path())
        };
        let spec = options.to_spec(&id()).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        let back: Spec = serde_json::from_str(&json).unwrap();
        assert_eq!(back, spec);
        let linux = back.linux().as_ref().unwrap();
        let resources = linux.resources().as_ref().unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(32 << 20));
        assert_eq!(resources.memory().unwrap().swap(), Some(32 << 20));
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(50_000));
        assert_eq!(resources.pids().unwrap().limit(), 64);
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/terrarium/web")));
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 7);
        let env = back.process().as_ref().unwrap().env().as_ref().unwrap();
        assert!(env.contains(&"A=b".to_owned()) && env.contains(&"PATH=/x".to_owned()));
        assert_eq!(env.iter().filter(|e| e.starts_with("PATH=")).count(), 1);
        assert_eq!(network_of(&back).unwrap(), network_of(&spec).unwrap());
    }

    #[test]
    fn without_limits_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let spec = options(folder.path()).to_spec(&id()).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert!(resources.memory().is_none() && resources.cpu().is_none());
        assert!(resources.pids().is_none());
        assert_eq!(spec.hostname().as_deref(), Some("web"));
    }

    #[test]
    fn every_default_mount_can_be_parsed() {
        let folder = tempfile::tempdir().unwrap();
        for (network, userns) in [("none", None), ("host", Some("auto"))] {
            let options = RunOptions {
                network: Some(network.into()),
                userns: userns.map(str::to_owned),
                volumes: vec!["/tmp:/t:ro".into()],
                tmpfs: vec!["/x:size=1m".into()],
                ..options(folder.path())
            };
            let spec = options.to_spec(&id()).unwrap();
            for mount in spec.mounts().iter().flatten() {
                ParsedMount::from_spec(mount, Path::new("/b")).unwrap();
            }
        }
    }

    #[test]
    fn bad_values_are_usage_errors_and_name_their_option() {
        let folder = tempfile::tempdir().unwrap();
        let check = |change: fn(&mut RunOptions), option: &str| {
            let mut options = options(folder.path());
            change(&mut options);
            let error = options.to_spec(&id()).unwrap_err();
            assert!(error.is_usage(), "{error}");
            assert!(error.to_string().starts_with(option), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        };
        check(|o| o.memory = Some("lots".into()), "--memory");
        check(|o| o.memory_swap = Some("64m".into()), "--memory-swap");
        check(|o| o.cpus = Some("-1".into()), "--cpus");
        check(|o| o.pids = Some("0".into()), "--pids");
        check(|o| o.network = Some("foo".into()), "--net");
        check(|o| o.subnet = Some("10.0.0.0/99".into()), "--subnet");
        check(|o| o.volumes = vec!["/tmp".into()], "--volume");
        check(|o| o.volumes = vec!["/no/such/folder:/x".into()], "--volume");
        check(|o| o.volumes = vec!["/tmp:/x:fast".into()], "--volume");
        check(|o| o.tmpfs = vec!["x".into()], "--tmpfs");
        check(|o| o.userns = Some("x".into()), "--userns");
        check(|o| o.cap_add = vec!["fly".into()], "--cap-add");
        check(|o| o.workdir = Some("x".into()), "--workdir");
        check(|o| o.hostname = Some("a b".into()), "--hostname");
        check(|o| o.cgroup_parent = Some("a".into()), "--cgroup-parent");
        check(|o| o.security = vec!["x".into()], "--security-opt");
        check(|o| o.env = vec!["=x".into()], "--env");
        check(|o| o.args = vec![], "CMD");
        check(|o| o.shm_size = Some("x".into()), "--shm-size");
        check(|o| o.oom_score_adj = Some(1001), "--oom-score-adj");
        check(|o| o.network_options.ip = Some("10.77.0.9".into()), "--ip");
        check(|o| o.network_options.dns = vec!["192.0.2.1".into()], "--dns");
        check(|o| (o.uts, o.hostname) = (NamespaceChoice::Host, Some("a".into())), "--hostname");
    }

    #[test]
    fn a_root_filesystem_must_be_a_folder_and_not_the_hosts() {
        for path in ["/no/such/folder", "/dev/null", "/", "/proc/.."] {
            let error = check_rootfs(Path::new(path)).unwrap_err();
            assert!(matches!(error, Error::Rootfs { .. }), "{path}: {error}");
        }
    }
}
