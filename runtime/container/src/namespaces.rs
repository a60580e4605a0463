//! Namespaces: which are new, which are joined by path, which stay the host's; and id maps.

use crate::error::{Error, Result, Tried};
use crate::explain;
use crate::id_maps;
use crate::init::{Failure, Step};
use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `CLONE_NEWTIME` of linux/sched.h, which libc and nix leave out: it lies in the bits of clone(2)'s exit signal.
pub(crate) const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// A namespace to join.
#[derive(Debug)]
pub(crate) struct Join {
    /// Which kind.
    pub kind: CloneFlags,
    /// Where the spec found it.
    pub path: PathBuf,
    /// The namespace, opened before anything was made.
    pub fd: OwnedFd,
}

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct NamespacePlan {
    /// New ones.
    pub new: CloneFlags,
    /// Existing ones.
    pub join: Vec<Join>,
    /// An existing user namespace: a process in between enters it first, so that what is new belongs to it.
    pub join_user: Option<Join>,
    /// An existing pid namespace, which only a child of whoever joins it is in.
    pub join_pid: Option<Join>,
    /// Lines of `uid_map`; empty without a new user namespace.
    pub uid_map: Vec<LinuxIdMapping>,
    /// Lines of `gid_map`.
    pub gid_map: Vec<LinuxIdMapping>,
    /// Whether setgroups(2) stays allowed in the user namespace.
    pub may_set_groups: bool,
    /// Whether the maps are beyond the caller's rights, and newuidmap and newgidmap write them.
    mapped_by_helpers: bool,
    /// Lines of `timens_offsets` for a new time namespace.
    pub time_offsets: String,
}

/// Names in state.json and /proc/PID/ns.
pub(crate) const KINDS: [&str; 8] = ["mnt", "net", "user", "pid", "ipc", "uts", "cgroup", "time"];

impl NamespacePlan {
    /// Reads the spec. Opens the namespaces to join.
    pub(crate) fn from_spec(linux: &Linux, privileged: bool) -> Result<Self> {
        let mut new = CloneFlags::empty();
        let mut join = Vec::new();
        let mut join_pid = None;
        let mut join_user = None;
        for namespace in linux.namespaces().iter().flatten() {
            let kind = match namespace.typ() {
                LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
                LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
                LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
                LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
                LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
                LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
                LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
                LinuxNamespaceType::Time => CLONE_NEWTIME,
            };
            let Some(path) = namespace.path().clone().filter(|p| !p.as_os_str().is_empty()) else {
                new |= kind;
                continue;
            };
            if kind == CloneFlags::CLONE_NEWNS {
                return Err(Error::unsupported(
                    format!("joining the mount namespace {}", path.display()),
                    "another root and other mounts would be made for everybody in it; \
                     give {\"type\":\"mount\"} without a path, and share folders by mounts",
                ));
            }
            let file = File::open(&path).tried_hint(
                "open namespace",
                &path,
                "linux.namespaces[].path must name an existing namespace",
            )?;
            let found = Join { kind, path, fd: file.into() };
            if kind == CloneFlags::CLONE_NEWPID {
                join_pid = Some(found);
            } else if kind == CloneFlags::CLONE_NEWUSER {
                // Nobody can enter the one that he is in.
                join_user = (!is_own(&found, "/proc/self/ns/user")?).then_some(found);
            } else {
                join.push(found);
            }
        }
        if !new.contains(CloneFlags::CLONE_NEWNS) {
            return Err(Error::unsupported(
                "a container in the host's mount namespace",
                "add {\"type\":\"mount\"} to linux.namespaces",
            ));
        }
        if new.contains(CLONE_NEWTIME) && !Path::new("/proc/self/timens_offsets").exists() {
            return Err(Error::unsupported(
                "a time namespace",
                "this kernel has none (Linux 5.6 with CONFIG_TIME_NS); remove it from linux.namespaces",
            ));
        }
        let time_offsets = time_offsets(linux, new.contains(CLONE_NEWTIME))?;
        let maps = |maps: &Option<Vec<LinuxIdMapping>>| maps.clone().unwrap_or_default();
        let (uid_map, gid_map) = (maps(linux.uid_mappings()), maps(linux.gid_mappings()));
        let user = new.contains(CloneFlags::CLONE_NEWUSER);
        if user && (uid_map.is_empty() || gid_map.is_empty()) {
            return Err(Error::unsupported(
                "a user namespace without an id map",
                "give linux.uidMappings and linux.gidMappings",
            ));
        }
        let mapped = !uid_map.is_empty() || !gid_map.is_empty();
        let (uid_map, gid_map) =
            if join_user.is_some() { (Vec::new(), Vec::new()) } else { (uid_map, gid_map) };
        // One that is joined has its maps already.
        if mapped && !user && join_user.is_none() {
            return Err(Error::unsupported(
                "an id map without a user namespace",
                "add {\"type\":\"user\"} to linux.namespaces",
            ));
        }
        let mapped_by_helpers = user && !privileged && !id_maps::are_own_ids(&uid_map, &gid_map);
        let may_set_groups = privileged || mapped_by_helpers;
        Ok(Self {
            new,
            join,
            join_user,
            join_pid,
            uid_map,
            gid_map,
            may_set_groups,
            mapped_by_helpers,
            time_offsets,
        })
    }

    /// Whether a namespace of `kind` is made.
    pub(crate) fn has_new(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
    }

    /// Whether it has another user namespace than the host.
    pub(crate) fn has_user_namespace(&self) -> bool {
        self.has_new(CloneFlags::CLONE_NEWUSER) || self.join_user.is_some()
    }

    /// Whether it has another cgroup namespace than the host.
    pub(crate) fn has_cgroup_namespace(&self) -> bool {
        let kind = CloneFlags::CLONE_NEWCGROUP;
        self.has_new(kind) || self.join.iter().any(|join| join.kind == kind)
    }

    /// Flags for clone3: all new namespaces but the time one ([`Self::enter_new_time`]) and the cgroup one, which is unshared by the first process once it
    /// is in its cgroups (the namespace's root is the cgroup that its creator is in).
    pub(crate) fn clone_flags(&self) -> u64 {
        let flags = self.new - CloneFlags::CLONE_NEWCGROUP - CLONE_NEWTIME;
        u64::from(flags.bits().cast_unsigned())
    }

    /// What makes the same namespaces in a shell.
    pub(crate) fn shell_command(&self) -> String {
        let mut words = vec!["unshare".to_owned()];
        for (flag, option) in [
            (CloneFlags::CLONE_NEWUSER, "--user"),
            (CloneFlags::CLONE_NEWNS, "--mount"),
            (CloneFlags::CLONE_NEWUTS, "--uts"),
            (CloneFlags::CLONE_NEWIPC, "--ipc"),
            (CloneFlags::CLONE_NEWNET, "--net"),
            (CloneFlags::CLONE_NEWPID, "--pid"),
        ] {
            words.extend(self.has_new(flag).then(|| option.to_owned()));
        }
        words.push("--fork".to_owned());
        words.join(" ")
    }

    /// Does `work` with the pid namespace to be joined, if there is one, as that of this process's children.
    pub(crate) fn with_pid_namespace<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(Join { kind, path, fd }) = &self.join_pid else { return work() };
        let own = "/proc/self/ns/pid";
        let own = File::open(own).tried("open", own)?;
        nix::sched::setns(fd.as_fd(), *kind).tried_hint(
            "join namespace",
            path,
            "a pid namespace can be joined from one above it (`pid_namespaces(7)`)",
        )?;
        let done = work();
        // Hooks and what else is started later belong to the runtime's own. In the child of a clone this is not reached.
        nix::sched::setns(own.as_fd(), *kind).tried("return to namespace", "/proc/self/ns/pid")?;
        done
    }

    /// Makes the time namespace, and enters it: its offsets can be set only while nobody is in it
    /// (`time_namespaces(7)`). The caller must have one thread only.
    pub(crate) fn enter_new_time(&self) -> Result<(), Failure> {
        if !self.new.contains(CLONE_NEWTIME) {
            return Ok(());
        }
        let timer = explain::timer();
        nix::sched::unshare(CLONE_NEWTIME).step("unshare", "time namespace")?;
        timer.note("unshare", || "unshare --time".to_owned());
        if !self.time_offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", &self.time_offsets).step_hint(
                "write",
                "/proc/self/timens_offsets",
                "a clock cannot be set back to before the boot",
            )?;
        }
        let path = "/proc/self/ns/time_for_children";
        let namespace = File::open(path).step("open", path)?;
        nix::sched::setns(namespace.as_fd(), CLONE_NEWTIME).step("enter", "time namespace")
    }

    /// Writes the id maps of the process `pid`.
    pub(crate) fn write_maps(&self, pid: i32) -> Result<()> {
        if self.mapped_by_helpers {
            id_maps::write_by("newgidmap", pid, &self.gid_map)?;
            return id_maps::write_by("newuidmap", pid, &self.uid_map);
        }
        let write = |file: &str, text: &str| {
            let path = PathBuf::from(format!("/proc/{pid}/{file}"));
            std::fs::write(&path, text).tried_hint(
                "write id map",
                &path,
                "ids that are not yours need privileges or newuidmap",
            )
        };
        if !self.may_set_groups {
            // user_namespaces(7): without privileges, gid_map may be written only after this.
            write("setgroups", "deny")?;
        }
        for (file, map) in [("gid_map", &self.gid_map), ("uid_map", &self.uid_map)] {
            let (timer, text) = (explain::timer(), id_maps::text(map));
            write(file, &text)?;
            timer.note(file, || {
                format!("echo {} > /proc/{pid}/{file}", explain::word(text.trim_end()))
            });
        }
        Ok(())
    }

    /// Enters what can be entered from outside the user namespace to be joined, then that one, and makes the new namespaces,
    /// which belong to it then. Says which of [`Self::join`] were entered: the others belong to it or to one below, and
    /// are entered from inside.
    pub(crate) fn enter_user_namespace(&self) -> Result<Vec<bool>, Failure> {
        let Some(user) = &self.join_user else { return Ok(Vec::new()) };
        let mut entered = Vec::new();
        for Join { kind, path, fd } in &self.join {
            match nix::sched::setns(fd.as_fd(), *kind) {
                Err(nix::errno::Errno::EPERM) => entered.push(false),
                result => {
                    result.step("join namespace", path.as_path())?;
                    entered.push(true);
                }
            }
        }
        let timer = explain::timer();
        nix::sched::setns(user.fd.as_fd(), user.kind).step_hint(
            "join namespace",
            user.path.as_path(),
            "a user namespace can be joined by who has CAP_SYS_ADMIN in it (`user_namespaces(7)`)",
        )?;
        timer.note("setns", || {
            format!("nsenter --user={}", explain::word(&user.path.to_string_lossy()))
        });
        let new = self.new - CloneFlags::CLONE_NEWCGROUP - CLONE_NEWTIME;
        nix::sched::unshare(new).step("unshare", "namespaces of the container")?;
        Ok(entered)
    }

    /// Whether ids inside differ from those outside for the ids of a root filesystem.
    pub(crate) fn shifts_ids(&self) -> bool {
        // Whose maps these are is known when somebody is inside; the host's own cannot be joined.
        self.join_user.is_some()
            || self.uid_map.iter().chain(&self.gid_map).any(|m| m.host_id() != m.container_id())
    }
}

/// Whether a namespace is the one that `own` of /proc/self/ns names.
fn is_own(namespace: &Join, own: &str) -> Result<bool> {
    let of = rustix::fs::fstat(&namespace.fd).tried("look at namespace", &namespace.path)?;
    let own = rustix::fs::stat(own).tried("look at namespace", own)?;
    Ok((of.st_dev, of.st_ino) == (own.st_dev, own.st_ino))
}

/// Checks `linux.timeOffsets`, and writes them as the kernel reads them.
fn time_offsets(linux: &Linux, new: bool) -> Result<String> {
    let mut text = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            let reason = "the clocks that have an offset are monotonic and boottime";
            return Err(Error::invalid("linux.timeOffsets", clock, reason));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            let reason = "nanosecs are less than a second";
            return Err(Error::invalid("linux.timeOffsets", nanoseconds.to_string(), reason));
        }
        let _ = writeln!(text, "{clock} {} {nanoseconds}", offset.secs().unwrap_or(0));
    }
    if !text.is_empty() && !new {
        return Err(Error::unsupported(
            "an offset of a clock without a time namespace",
            "add {\"type\":\"time\"} to linux.namespaces",
        ));
    }
    Ok(text)
}

/// Inode of each namespace of `pid`, by kind; what cannot be read is left out.
pub(crate) fn inodes(pid: i32) -> BTreeMap<String, u64> {
    KINDS
        .iter()
        .filter_map(|&kind| {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
            Some((kind.to_owned(), parse_link(link.to_str()?)?))
        })
        .collect()
}

/// `mnt:[4026532201]` → 4026532201
fn parse_link(link: &str) -> Option<u64> {
    link.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxNamespace;

    fn linux(namespaces: &[(LinuxNamespaceType, Option<&str>)]) -> Linux {
        let mut linux = Linux::default();
        linux.set_namespaces(Some(
            namespaces
                .iter()
                .map(|&(typ, path)| {
                    let mut namespace = LinuxNamespace::default();
                    namespace.set_typ(typ).set_path(path.map(Into::into));
                    namespace
                })
                .collect(),
        ));
        linux
    }

    #[test]
    fn the_cgroup_namespace_is_not_made_by_clone() {
        use LinuxNamespaceType as T;
        let plan = NamespacePlan::from_spec(
            &linux(&[(T::Mount, None), (T::Cgroup, None), (T::Ipc, Some("/proc/self/ns/ipc"))]),
            true,
        )
        .unwrap();
        assert_eq!(plan.clone_flags(), u64::from(libc::CLONE_NEWNS.cast_unsigned()));
        assert!(plan.has_new(CloneFlags::CLONE_NEWCGROUP));
        assert_eq!(plan.join.len(), 1);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        use LinuxNamespaceType as T;
        for namespaces in [
            &[][..],
            &[(T::Mount, None), (T::User, None)],
            &[(T::Mount, Some("/proc/self/ns/mnt"))],
            &[(T::Mount, None), (T::Ipc, Some("/no/such/file"))],
        ] {
            assert!(NamespacePlan::from_spec(&linux(namespaces), true).is_err(), "{namespaces:?}");
        }
    }

    #[test]
    fn the_user_namespace_that_one_is_in_is_not_joined() {
        use LinuxNamespaceType as T;
        let own = [(T::Mount, None), (T::User, Some("/proc/self/ns/user"))];
        let plan = NamespacePlan::from_spec(&linux(&own), true).unwrap();
        assert!(!plan.has_user_namespace() && !plan.shifts_ids());
    }

    #[test]
    fn links_have_the_kernels_form() {
        assert_eq!(parse_link("mnt:[4026532201]"), Some(4_026_532_201));
        assert_eq!(parse_link("mnt"), None);
        assert!(inodes(std::process::id().cast_signed()).contains_key("net"));
    }
}
