//! A spec, checked against what terrarium and this kernel can do, becomes the first process's list of work.
//! Nothing is made before this has succeeded.

use crate::attributes::Attributes;
use crate::capabilities::Sets;
use crate::cgroup::Cgroups;
use crate::console::TerminalPlan;
use crate::devices;
use crate::error::{Error, Result};
use crate::hooks::{InitHooks, OciState};
use crate::init::{InitPlan, ProcessPlan};
use crate::layers::{self, Layers};
use crate::lsm::Labels;
use crate::mount::Mount;
use crate::namespaces::NamespacePlan;
use crate::reaper;
use crate::rootfs::RootPlan;
use crate::seccomp::{self, Filter, listener};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::resource::Resource;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxSeccomp, PosixRlimitType, Process, Spec};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// What the caller decides, besides the spec.
pub(crate) struct PlanContext<'a> {
    /// Folder that relative paths of the spec are relative to.
    pub bundle: &'a Path,
    /// The container's cgroups.
    pub cgroups: &'a Cgroups,
    /// Whether the first process dies with the runtime.
    pub dies_with_runtime: bool,
    /// Whether the runtime wants a netlink socket of the network namespace.
    pub wants_netlink: bool,
    /// What the container's own hooks are told of it.
    pub oci_state: OciState,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// How many of them are of socket activation.
    pub listen_fds: u32,
    /// Whether the caller's session keyring is the container's, too.
    pub keeps_keyring: bool,
    /// What the root filesystem is made of, where it is not a folder.
    pub layers: Option<&'a Layers>,
    /// Binds of terrarium's own: `/etc/hosts` and the like.
    pub extra_mounts: Vec<Mount>,
}

/// Checks `spec` and works out what to do.
pub(crate) fn plan(spec: &Spec, context: &PlanContext<'_>) -> Result<InitPlan> {
    refuse_unsupported(spec)?;
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
    let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let privileged = rustix::process::geteuid().is_root();
    let namespaces = NamespacePlan::from_spec(linux, privileged)?;
    layers::check(context.layers, namespaces.has_user_namespace())?;
    if spec.hostname().is_some() && !namespaces.has_new(CloneFlags::CLONE_NEWUTS) {
        return Err(Error::unsupported(
            "a host name without a UTS namespace of its own",
            "it would rename the host; add {\"type\":\"uts\"} to linux.namespaces",
        ));
    }
    Ok(InitPlan {
        root: root(spec, linux, &namespaces, context)?,
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        sysctl: sysctl(spec, linux, &namespaces)?,
        wants_netlink: context.wants_netlink,
        dies_with_runtime: context.dies_with_runtime,
        process: ProcessPlan {
            new_keyring: !context.keeps_keyring,
            listen_fds: context.listen_fds,
            ..program(process, linux)?
        },
        hooks: InitHooks::from_spec(spec)?,
        oci_state: context.oci_state.clone(),
        preserve_fds: context.preserve_fds,
        reaper: reaper::wanted(spec).then(reaper::open).transpose()?,
        namespaces,
    })
}

/// Path of the root filesystem.
pub(crate) fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    let path = bundle.join(root.path());
    if !path.is_dir() {
        return Err(Error::Rootfs { path, reason: "it is not a folder".into() });
    }
    Ok(path)
}

fn missing(field: &'static str) -> Error {
    Error::invalid(field, "", "the spec lacks this field")
}

fn refuse_unsupported(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let table = [
        (
            "linux.mountLabel",
            linux.and_then(|l| l.mount_label().as_ref()).is_some_and(|label| !label.is_empty()),
            "terrarium labels processes, not mounts; remove it",
        ),
        (
            "linux.intelRdt",
            linux.is_some_and(|l| l.intel_rdt().is_some()),
            "terrarium does not divide caches (resctrl); remove it",
        ),
    ];
    match table.iter().find(|(_, present, _)| *present) {
        Some((field, _, reason)) => Err(Error::unsupported(*field, *reason)),
        None => Ok(()),
    }
}

fn root(
    spec: &Spec,
    linux: &Linux,
    namespaces: &NamespacePlan,
    context: &PlanContext<'_>,
) -> Result<RootPlan> {
    let mut mounts = spec
        .mounts()
        .iter()
        .flatten()
        .map(|mount| Mount::from_spec(mount, context.bundle))
        .collect::<Result<Vec<_>>>()?;
    for mount in &mut mounts {
        complete_idmap(mount, linux)?;
    }
    mounts.extend(context.extra_mounts.iter().cloned());
    let propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("" | "private" | "rprivate") => MsFlags::MS_PRIVATE,
        Some("slave" | "rslave") => MsFlags::MS_SLAVE,
        Some("shared") => MsFlags::MS_SHARED,
        Some("rshared") => MsFlags::MS_SHARED | MsFlags::MS_REC,
        Some("unbindable" | "runbindable") => MsFlags::MS_UNBINDABLE,
        Some(other) => {
            let reason =
                "known are private, slave, shared and unbindable, each also with r before it";
            return Err(Error::invalid("linux.rootfsPropagation", other, reason));
        }
    };
    let absolute = |field: &'static str, paths: &Option<Vec<String>>| {
        let paths = paths.iter().flatten().map(PathBuf::from);
        paths
            .map(|path| {
                if path.is_absolute() {
                    Ok(path)
                } else {
                    Err(Error::invalid(field, path.display().to_string(), "it must be absolute"))
                }
            })
            .collect::<Result<Vec<_>>>()
    };
    Ok(RootPlan {
        path: match context.layers {
            Some(layers) => layers.root(),
            None => rootfs(spec, context.bundle)?,
        },
        layers: context.layers.cloned(),
        readonly: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
        propagation,
        mounts,
        devices: devices::from_spec(linux.devices().as_deref().unwrap_or_default()),
        masked: absolute("linux.maskedPaths", linux.masked_paths())?,
        readonly_paths: absolute("linux.readonlyPaths", linux.readonly_paths())?,
        cgroups: context.cgroups.view(namespaces.has_cgroup_namespace()),
        bind_devices: namespaces.has_user_namespace(),
    })
}

/// A mount with `idmap` and no map of its own has the container's (runtime-spec, config.md, "Linux mount options").
fn complete_idmap(mount: &mut Mount, linux: &Linux) -> Result<()> {
    let Some(map) = mount.idmap.as_mut().filter(|map| map.uid.is_empty()) else { return Ok(()) };
    let own = |map: &Option<Vec<LinuxIdMapping>>| map.clone().unwrap_or_default();
    (map.uid, map.gid) = (own(linux.uid_mappings()), own(linux.gid_mappings()));
    if map.uid.is_empty() || map.gid.is_empty() {
        return Err(Error::invalid(
            format!("mount on {}", mount.destination.display()),
            "idmap",
            "without a user namespace it needs uidMappings and gidMappings of its own",
        ));
    }
    Ok(())
}

/// Kernel parameters that belong to a namespace: others would change the host.
fn sysctl(
    spec: &Spec,
    linux: &Linux,
    namespaces: &NamespacePlan,
) -> Result<Vec<(PathBuf, String)>> {
    const IPC: [&str; 9] = [
        "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
        "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "fs.mqueue.",
    ];
    let mut all = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let key_dots = if key.contains('/') { key.replace('/', ".") } else { key.clone() };
        let kind = if key_dots.starts_with("net.") {
            Some(CloneFlags::CLONE_NEWNET)
        } else if IPC.iter().any(|name| key_dots == *name || key_dots.starts_with("fs.mqueue.")) {
            Some(CloneFlags::CLONE_NEWIPC)
        } else if matches!(key_dots.as_str(), "kernel.domainname" | "kernel.hostname") {
            Some(CloneFlags::CLONE_NEWUTS)
        } else {
            None
        };
        let owned = kind.is_some_and(|kind| {
            namespaces.has_new(kind) || namespaces.join.iter().any(|join| join.kind == kind)
        });
        if !owned || key.split(['.', '/']).any(str::is_empty) {
            return Err(Error::invalid(
                "sysctl",
                key,
                "only parameters of a namespace that the container does not share with the host can be set",
            ));
        }
        let is_said = match key_dots.as_str() {
            "kernel.hostname" => spec.hostname().is_some(),
            "kernel.domainname" => spec.domainname().is_some(),
            _ => false,
        };
        if is_said {
            return Err(Error::invalid("sysctl", key, "the spec has a field of that name, too"));
        }
        // An interface name with a dot is written with slashes between the other parts.
        let path = if key.contains('/') { key.clone() } else { key.replace('.', "/") };
        all.push((Path::new("/proc/sys").join(path), value.clone()));
    }
    Ok(all)
}

/// Checks the process of a spec, whose container is as `linux` says.
pub(crate) fn program(process: &Process, linux: &Linux) -> Result<ProcessPlan> {
    let text = |field: &'static str, text: &str| {
        CString::new(text)
            .map_err(|_| Error::invalid(field, text.replace('\0', "␀"), "it has a NUL byte"))
    };
    let args = process.args().as_deref().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args", "", "there is no program to run"));
    }
    if !process.cwd().is_absolute() {
        let value = process.cwd().display().to_string();
        return Err(Error::invalid("process.cwd", value, "it must be absolute"));
    }
    let user = process.user();
    Ok(ProcessPlan {
        args: args.iter().map(|arg| text("process.args", arg)).collect::<Result<_>>()?,
        env: process
            .env()
            .iter()
            .flatten()
            .map(|variable| text("process.env", variable))
            .collect::<Result<_>>()?,
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022) & 0o777,
        capabilities: Sets::from_spec(process.capabilities().as_ref()),
        rlimits: process
            .rlimits()
            .iter()
            .flatten()
            .map(|limit| (resource(limit.typ()), limit.soft(), limit.hard()))
            .collect(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
        terminal: TerminalPlan::from_spec(process),
        attributes: Attributes::from_spec(process, linux)?,
        labels: Labels::from_spec(process)?,
        seccomp: linux.seccomp().as_ref().map(filter).transpose()?,
        new_keyring: true,
        listen_fds: 0,
    })
}

fn filter(profile: &LinuxSeccomp) -> Result<Filter> {
    let filter = seccomp::compile(profile).map_err(Error::Seccomp)?;
    if filter.notifies() {
        listener::check(profile)?;
    }
    Ok(filter)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}
