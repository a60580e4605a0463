//! What `/proc` tells of one process. A process may end, or its pid pass to another, between any two reads: what is read
//! counts only if the start time is the same before and after.

use super::mounts::{self, Mount, Tables};
use crate::precedence::give_way;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A container can make its mountinfo as long as it likes; more than this of it is not read.
const LONGEST_FILE: u64 = 16 << 20;

/// Flag `PF_KTHREAD` of field 9 of `/proc/PID/stat` (include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The kinds of namespaces, as `/proc/PID/ns` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Mounts.
    Mnt,
    /// Network.
    Net,
    /// Process ids.
    Pid,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Users and capabilities.
    User,
    /// Root of the cgroups.
    Cgroup,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Mnt, Self::Net, Self::Pid, Self::Ipc, Self::Uts, Self::User, Self::Cgroup];

    /// The kernel's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
        }
    }

    /// The word of the OCI specification.
    pub const fn spec_name(self) -> &'static str {
        match self {
            Self::Mnt => "mount",
            Self::Net => "network",
            other => other.name(),
        }
    }

    /// The inode of the initial namespace where it is fixed (`include/linux/proc_ns.h`).
    pub const fn initial(self) -> Option<u64> {
        match self {
            Self::Ipc => Some(0xEFFF_FFFF),
            Self::Uts => Some(0xEFFF_FFFE),
            Self::User => Some(0xEFFF_FFFD),
            Self::Pid => Some(0xEFFF_FFFC),
            Self::Cgroup => Some(0xEFFF_FFFB),
            Self::Mnt | Self::Net => None,
        }
    }

    /// How a link in `/proc/PID/ns` reads.
    pub fn link(self, inode: u64) -> String {
        format!("{}:[{inode}]", self.name())
    }
}

/// The inode in `net:[4026531840]`, for namespaces of `kind`.
pub fn inode_of_link(kind: Kind, link: &str) -> Option<u64> {
    link.strip_prefix(kind.name())?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// The kind and inode in `net:[4026531840]`.
pub fn namespace_of_link(link: &str) -> Option<(Kind, u64)> {
    Kind::ALL.into_iter().find_map(|kind| Some((kind, inode_of_link(kind, link)?)))
}

/// A process, as far as every process is looked at.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Its id, in the reader's pid namespace.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// Its name: any bytes that it chose.
    pub name: String,
    /// Inodes of its namespaces in the order of [`Kind::ALL`], 0 where they may not be read.
    pub(super) namespaces: [u64; Kind::ALL.len()],
    /// Its cgroups: the controllers of a hierarchy (empty for cgroup v2), and the path.
    pub cgroups: Vec<(String, String)>,
}

impl Process {
    /// The inode of one of its namespaces; none where it may not be read.
    pub fn namespace(&self, kind: Kind) -> Option<u64> {
        let at = Kind::ALL.iter().position(|k| *k == kind)?;
        Some(self.namespaces[at]).filter(|inode| *inode != 0)
    }

    /// Its path in a hierarchy.
    pub fn cgroup(&self, controllers: &str) -> Option<&str> {
        self.cgroups.iter().find(|(name, _)| name == controllers).map(|(_, path)| path.as_str())
    }
}

/// `/proc/PID/status`, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Effective user id, in the reader's user namespace.
    pub uid: u64,
    /// The process that it is a thread of.
    pub process: i32,
    /// The thread that traces it; 0 for none.
    pub tracer: i32,
    /// Its pid in each pid namespace, the reader's first.
    pub pids: Vec<i64>,
    /// `CapPrm`
    pub permitted: u64,
    /// `CapEff`
    pub effective: u64,
    /// `CapBnd`
    pub bounding: u64,
    /// `CapAmb`
    pub ambient: u64,
    /// `NoNewPrivs`
    pub no_new_privileges: bool,
    /// `Seccomp`: 0 none, 1 strict, 2 filter; none where the kernel has no seccomp.
    pub seccomp: Option<u8>,
}

/// An open descriptor, or the working folder, the root or the executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// `fd/7`, `cwd`, `root`, `exe`
    pub name: String,
    /// What the link says.
    pub target: String,
    /// The mount that it lies on, where the kernel tells.
    pub mount: Option<u64>,
    /// Flags of open(2), for descriptors.
    pub flags: u32,
}

/// A procfs: the live one, or a captured folder that looks like it.
#[derive(Debug, Clone)]
pub struct Proc {
    root: PathBuf,
    /// Whether the kernel answers there, so that links can be followed.
    live: bool,
}

impl Proc {
    /// The running kernel's.
    pub fn live() -> Self {
        Self { root: PathBuf::from("/proc"), live: true }
    }

    /// A captured one.
    pub fn captured(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), live: false }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the kernel answers.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Where something of a process lies.
    pub fn path(&self, pid: i32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    fn read_path(path: &Path) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path).ok()?.take(LONGEST_FILE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The bytes of a file below the root.
    pub fn read_own(&self, name: &str) -> Option<Vec<u8>> {
        Self::read_path(&self.root.join(name))
    }

    /// The text of a file of a process.
    pub fn text(&self, pid: i32, name: &str) -> Option<String> {
        let bytes = Self::read_path(&self.path(pid, name))?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A link of a process.
    pub fn link(&self, pid: i32, name: &str) -> Option<String> {
        let target = fs::read_link(self.path(pid, name)).ok()?;
        Some(String::from_utf8_lossy(target.as_os_str().as_bytes()).into_owned())
    }

    /// A link of the reader.
    pub fn own_link(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.root.join("self").join(name)).ok()?;
        Some(String::from_utf8_lossy(target.as_os_str().as_bytes()).into_owned())
    }

    /// The ids of all processes.
    pub fn pids(&self) -> Vec<i32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut pids: Vec<i32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        pids
    }

    /// A process; none for kernel threads, zombies and those that have gone.
    pub fn process(&self, pid: i32) -> Option<Process> {
        give_way();
        let mut process = self.stat(pid)?;
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let link = self.link(pid, &format!("ns/{}", kind.name()));
            process.namespaces[at] =
                link.and_then(|link| inode_of_link(kind, &link)).unwrap_or_default();
        }
        process.cgroups = parse_cgroups(&self.text(pid, "cgroup")?);
        self.is_still(&process).then_some(process)
    }

    /// Whether the pid is still the same process's.
    pub fn is_still(&self, process: &Process) -> bool {
        self.stat(process.pid).is_some_and(|now| now.start_ticks == process.start_ticks)
    }

    fn stat(&self, pid: i32) -> Option<Process> {
        let text = self.text(pid, "stat")?;
        // The name may hold blanks and parentheses: the last one ends it.
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let flags: u64 = fields.get(6)?.parse().ok()?;
        if flags & KERNEL_THREAD != 0 || matches!(*fields.first()?, "Z" | "X" | "x") {
            return None;
        }
        Some(Process {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
            name,
            ..Process::default()
        })
    }

    /// What `/proc/PID/status` says.
    pub fn status(&self, pid: i32) -> Option<Status> {
        Some(parse_status(&self.text(pid, "status")?))
    }

    /// The mounts that a process sees.
    pub fn mounts(&self, pid: i32) -> Vec<Mount> {
        Self::read_path(&self.path(pid, "mountinfo"))
            .map(|text| mounts::parse(&text))
            .unwrap_or_default()
    }

    /// The same, in one of `tables`.
    pub fn mounts_in(&self, pid: i32, tables: &mut Tables) -> Arc<[Mount]> {
        Self::read_path(&self.path(pid, "mountinfo"))
            .map(|text| tables.of(&text))
            .unwrap_or_default()
    }

    /// The mounts of the reader.
    pub fn own_mounts(&self) -> Vec<Mount> {
        self.read_own("self/mountinfo").map(|text| mounts::parse(&text)).unwrap_or_default()
    }

    /// The arguments of a process.
    pub fn arguments(&self, pid: i32) -> Vec<String> {
        let text = self.text(pid, "cmdline").unwrap_or_default();
        text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
    }

    /// The open descriptors of a process, at most `limit`.
    pub fn descriptors(&self, pid: i32, limit: usize) -> Vec<Open> {
        let entries = fs::read_dir(self.path(pid, "fd")).into_iter().flatten().flatten();
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .take(limit)
            .collect();
        numbers.sort_unstable();
        numbers
            .into_iter()
            .filter_map(|number| {
                let name = format!("fd/{number}");
                let target = self.link(pid, &name)?;
                let info = self.text(pid, &format!("fdinfo/{number}")).unwrap_or_default();
                let field = |key: &str| {
                    let line = info.lines().find_map(|line| line.strip_prefix(key))?;
                    Some(line.trim().to_owned())
                };
                Some(Open {
                    name,
                    target,
                    mount: field("mnt_id:").and_then(|id| id.parse().ok()),
                    flags: field("flags:")
                        .and_then(|octal| u32::from_str_radix(&octal, 8).ok())
                        .unwrap_or_default(),
                })
            })
            .collect()
    }

    /// The working folder, the root or the executable of a process.
    pub fn open_link(&self, pid: i32, name: &str) -> Option<Open> {
        let target = self.link(pid, name)?;
        let mount = if self.live { mount_id(&self.path(pid, name)) } else { None };
        Some(Open { name: name.to_owned(), target, mount, flags: 0 })
    }
}

/// The mount that a path leads to (`STATX_MNT_ID`, since Linux 5.8), without asking its filesystem anything: one that is
/// served by the container itself might never answer.
fn mount_id(path: &Path) -> Option<u64> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut answer = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a C string and the buffer a statx, both live during the call.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT,
            libc::STATX_MNT_ID,
            answer.as_mut_ptr(),
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: it was zeroed, which is a valid statx, and then filled by the kernel.
    let answer = unsafe { answer.assume_init() };
    (answer.stx_mask & libc::STATX_MNT_ID != 0).then_some(answer.stx_mnt_id)
}

fn parse_cgroups(text: &str) -> Vec<(String, String)> {
    // 4:memory:/path; the path may hold colons.
    let mut cgroups: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            Some((controllers.to_owned(), path.to_owned()))
        })
        .collect();
    cgroups.sort();
    cgroups
}

fn parse_status(text: &str) -> Status {
    let mut status = Status::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let bits = || u64::from_str_radix(value, 16).unwrap_or_default();
        match key {
            // Real, effective, saved, filesystem.
            "Uid" => {
                status.uid = value
                    .split_ascii_whitespace()
                    .nth(1)
                    .and_then(|uid| uid.parse().ok())
                    .unwrap_or(u64::MAX);
            }
            "Tgid" => status.process = value.parse().unwrap_or(0),
            "TracerPid" => status.tracer = value.parse().unwrap_or(0),
            "NSpid" => {
                status.pids =
                    value.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            }
            "CapPrm" => status.permitted = bits(),
            "CapEff" => status.effective = bits(),
            "CapBnd" => status.bounding = bits(),
            "CapAmb" => status.ambient = bits(),
            "NoNewPrivs" => status.no_new_privileges = value == "1",
            "Seccomp" => status.seccomp = value.parse().ok(),
            _ => {}
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_as_it_is() {
        let proc = Proc::live();
        let pid = i32::try_from(std::process::id()).unwrap();
        let process = proc.process(pid).unwrap();
        assert_eq!(process.pid, pid);
        let own = fs::metadata("/proc/self/ns/mnt").unwrap();
        assert_eq!(process.namespace(Kind::Mnt), Some(std::os::unix::fs::MetadataExt::ino(&own)));
        assert!(proc.is_still(&process));
        assert!(!proc.is_still(&Process { start_ticks: process.start_ticks + 1, ..process }));
        assert!(proc.status(pid).unwrap().seccomp.is_some());
        let folder = proc.open_link(pid, "cwd").unwrap();
        assert!(proc.own_mounts().iter().any(|mount| Some(mount.id) == folder.mount));
        let file = fs::File::open("/proc/self/status").unwrap();
        let name = format!("fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let open = proc.descriptors(pid, 1024);
        assert!(open.iter().any(|fd| fd.name == name && fd.mount.is_some()), "{open:?}");
    }

    #[test]
    fn names_and_paths_that_a_process_chose_do_not_confuse() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("12");
        fs::create_dir_all(own.join("ns")).unwrap();
        let tail = "S 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 812345 20";
        fs::write(own.join("stat"), format!("12 (a) S 1\n\u{1b}(b) {tail}")).unwrap();
        fs::write(own.join("cgroup"), "4:memory:/a:b/c\n0::/x\nbroken\n").unwrap();
        std::os::unix::fs::symlink("net:[4026531840]", own.join("ns/net")).unwrap();
        let process = Proc::captured(folder.path()).process(12).unwrap();
        assert_eq!((process.start_ticks, process.parent), (812_345, 1));
        assert_eq!(process.namespace(Kind::Net), Some(4_026_531_840));
        assert_eq!(process.namespace(Kind::Pid), None);
        assert_eq!(process.cgroup("memory"), Some("/a:b/c"));
        assert_eq!(process.cgroup(""), Some("/x"));
    }

    #[test]
    fn a_status_is_read() {
        let status = parse_status(
            "Name:\tx\nUid:\t1\t0\t2\t3\nNSpid:\t812\t7\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\n",
        );
        assert_eq!((status.uid, status.bounding), (0, 0x1ff_ffff_ffff));
        assert_eq!((status.pids, status.seccomp), (vec![812, 7], Some(2)));
        assert!(status.no_new_privileges);
    }
}
