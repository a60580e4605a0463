//! The openings of the lab.

use super::write_caller;
use anyhow::{Context, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::any::Any;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What is done on the host for an opening, and undone when this goes.
pub(super) type Held = Box<dyn Any>;

/// One opening.
pub(super) struct Opening {
    /// The check that finds it, whose name it has.
    pub check: &'static str,
    /// Options of run. `{folder}` stands for a folder of its own, `{pid}` for a process of the host, `{other}` for the
    /// container beside it.
    pub options: &'static [&'static str],
    /// What runs inside.
    pub program: Program,
    /// Options of a container that is started before it, where it takes two.
    pub companion: Option<&'static [&'static str]>,
    /// Done before it starts, with the folder.
    pub before: Option<fn(&Path) -> anyhow::Result<Held>>,
    /// Done when it runs.
    pub after: Option<fn(&Subject<'_>) -> anyhow::Result<Held>>,
    /// Other checks that see the same thing.
    pub beside: &'static [&'static str],
    /// A file that is there where the kernel has what this needs.
    pub needs: Option<&'static str>,
}

/// What runs inside.
pub(super) enum Program {
    /// Nothing but sleep.
    Sleep,
    /// A shell's script.
    Script(&'static str),
    /// Words of `terrarium-call`, and sleep.
    Calls(fn() -> String),
}

/// A container that runs.
pub(super) struct Subject<'a> {
    pub name: &'a str,
    /// Its first process.
    pub pid: i32,
    /// That of the container beside it, 0 where there is none.
    pub other: i32,
    /// The folder of the opening.
    pub folder: &'a Path,
    /// Its folder in the state root.
    pub state: &'a Path,
    /// This program.
    pub terrarium: &'a dyn Fn() -> Command,
}

/// An opening by options alone.
const fn options(check: &'static str, options: &'static [&'static str]) -> Opening {
    Opening {
        check,
        options,
        program: Program::Sleep,
        companion: None,
        before: None,
        after: None,
        beside: &[],
        needs: None,
    }
}

/// System calls that the default seccomp profile refuses.
const fn calls(check: &'static str, calls: fn() -> String) -> Opening {
    Opening {
        program: Program::Calls(calls),
        beside: &["no-seccomp"],
        ..options(check, UNCONFINED)
    }
}

/// The same, with the host's processes in view.
const fn across(check: &'static str, calls: fn() -> String) -> Opening {
    let options = &["--security-opt", "seccomp=unconfined", "--pid", "host"];
    Opening { options, beside: &["no-seccomp", "host-pid-namespace"], ..self::calls(check, calls) }
}

/// Done by a shell inside.
const fn script(check: &'static str, script: &'static str) -> Opening {
    Opening { program: Program::Script(script), ..options(check, &[]) }
}

const UNCONFINED: &[&str] = &["--security-opt", "seccomp=unconfined"];
/// What mounting and entering takes.
const ADMIN: &[&str] = &["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"];

pub(super) const OPENINGS: &[Opening] = &[
    options("host-pid-namespace", &["--pid", "host"]),
    options("host-network-namespace", &["--net", "host"]),
    options("host-ipc-namespace", &["--ipc", "host"]),
    options("host-uts-namespace", &["--uts", "host"]),
    options("host-cgroup-namespace", &["--cgroupns", "host"]),
    // It enters the other's network by itself: nobody declared that.
    Opening {
        options: &[
            "--pid", "container:{other}", "--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE",
            "--security-opt", "seccomp=unconfined",
        ],
        companion: Some(&[]),
        beside: &["dangerous-capability", "no-seccomp"],
        ..script("shared-namespace", "exec nsenter -t 1 -n sleep 3600")
    },
    Opening {
        options: &["--cap-add", "SYS_ADMIN"],
        beside: &["dangerous-capability"],
        ..script("namespace-drift", "unshare -u sleep 3600 & wait")
    },
    Opening {
        options: UNCONFINED,
        beside: &["no-seccomp"],
        ..script("user-namespace-created", "unshare -U sleep 3600 & wait")
    },
    Opening { after: Some(enter), ..options("task-outside-cgroup", &[]) },
    Opening {
        after: Some(put_in),
        // As they are of the process that was put in.
        beside: &["no-seccomp", "dangerous-capability"],
        ..options("task-outside-namespaces", &["--pids", "64"])
    },
    options("namespace-file-exposed", &["--volume", "/proc/{pid}/ns/uts:/srv/uts"]),
    options("root-without-user-namespace", &[]),
    options("host-root-mapped", &["--userns=0:65536"]),
    Opening {
        companion: Some(&["--userns=700000:65536"]),
        ..options("overlapping-id-map", &["--userns=765535:65536"])
    },
    options("host-filesystem-mounted", &["--volume", "/etc:/srv/etc:ro"]),
    Opening {
        before: Some(engine_socket),
        ..options("engine-socket-mounted", &["--volume", "{folder}/docker.sock:/run/docker.sock"])
    },
    options("kernel-filesystem-exposed", &["--security-opt", "systempaths=unconfined"]),
    Opening {
        before: Some(shared_mount),
        ..options("shared-propagation", &["--volume", "{folder}/shared:/srv:rshared"])
    },
    options("device-exposed", &["--device", "/dev/kmsg"]),
    options("dangerous-capability", &["--cap-add", "SYS_PTRACE"]),
    Opening { beside: &["kernel-filesystem-exposed"], ..options("privileged", &["--privileged"]) },
    options("no-seccomp", UNCONFINED),
    options("new-privileges-allowed", &["--security-opt", "no-new-privileges=false"]),
    Opening { beside: &["uid-gained"], ..set_user_id("capability-gained") },
    Opening { beside: &["capability-gained"], ..set_user_id("uid-gained") },
    Opening {
        needs: Some("/sys/kernel/security/apparmor/profiles"),
        ..options("no-lsm-confinement", &["--security-opt", "apparmor=unconfined"])
    },
    Opening { after: Some(leak_folder), ..options("leaked-descriptor", &[]) },
    Opening {
        after: Some(run_host_program),
        beside: &["leaked-descriptor"],
        ..options("runtime-binary-exposed", &[])
    },
    Opening {
        before: Some(abstract_socket),
        beside: &["host-network-namespace"],
        ..options("host-abstract-socket", &["--net", "host"])
    },
    options("limit-missing", &[]),
    Opening { after: Some(change_limit), ..options("limit-not-applied", &["--pids", "64"]) },
    options("shared-memory-object", &["--volume", "/dev/shm:/srv/shm"]),
    Opening {
        companion: Some(&[]),
        after: Some(mount_in_both),
        ..options("shared-superblock", &[])
    },
    Opening {
        options: &["--privileged", "--pid", "host"],
        beside: &["privileged", "host-pid-namespace", "kernel-filesystem-exposed"],
        ..script("setns-out", "nsenter -t {pid} -u true; exec sleep 3600")
    },
    Opening { after: Some(visit), ..options("entered-from-outside", &[]) },
    Opening {
        options: ADMIN,
        beside: &["dangerous-capability", "no-seccomp"],
        ..script("mount-performed", "mount -t tmpfs lab /tmp; exec sleep 3600")
    },
    Opening {
        options: ADMIN,
        beside: &["dangerous-capability", "no-seccomp"],
        ..script("pivot-performed", "pivot_root /tmp /tmp; exec sleep 3600")
    },
    Opening {
        options: &["--volume", "/sys/fs/cgroup:/cgroups"],
        beside: &["kernel-filesystem-exposed", "task-outside-cgroup"],
        ..script(
            "cgroup-escape",
            "for root in /cgroups/unified /cgroups; do [ -e $root/cgroup.controllers ] && echo $$ > $root/cgroup.procs; done; exec sleep 3600",
        )
    },
    across("ptrace-across", || format!("{} {PTRACE_SEIZE} {{pid}} 0 0", libc::SYS_ptrace)),
    across("process-memory-across", || format!("{} {{pid}} 0 0 0 0", libc::SYS_process_vm_writev)),
    across("descriptor-passed", || {
        format!("{} {{pid}} 0 , {} @ 1 0", libc::SYS_pidfd_open, libc::SYS_pidfd_getfd)
    }),
    Opening {
        needs: Some("/proc/sys/kernel/modules_disabled"),
        ..calls("module-load", || format!("{} 0 0 lab", libc::SYS_init_module))
    },
    calls("bpf-load", || format!("{} {BPF_PROG_LOAD} 0 0", libc::SYS_bpf)),
    Opening {
        needs: Some("/sys/kernel/kexec_loaded"),
        ..calls("kexec", || format!("{} 0 0 0 0", libc::SYS_kexec_load))
    },
    calls("open-by-handle", || format!("{} -1 0 0", libc::SYS_open_by_handle_at)),
    script("kernel-tunable-written", "true >> /proc/sys/kernel/core_pattern; exec sleep 3600"),
    script("runtime-binary-opened-for-write", "true >> /proc/1/exe; exec sleep 3600"),
    script("chroot-performed", "chroot / true; exec sleep 3600"),
    script("device-node-created", "mknod /tmp/disk b 7 0; exec sleep 3600"),
    Opening {
        needs: Some("/proc/keys"),
        ..calls("keyring-access", || format!("{} 0 -3 0", libc::SYS_keyctl))
    },
    Opening {
        needs: Some("/proc/sys/vm/unprivileged_userfaultfd"),
        ..calls("userfaultfd-created", || format!("{} 1", libc::SYS_userfaultfd))
    },
    calls("perf-opened", || format!("{} 0 0 -1 -1 0", libc::SYS_perf_event_open)),
    // Nobody heeds this one.
    Opening {
        options: &["--pid", "host"],
        beside: &["host-pid-namespace"],
        ..script("signal-across", "kill -WINCH {pid}; exec sleep 3600")
    },
];

/// `PTRACE_SEIZE` (linux/ptrace.h); the kernel refuses it to who has fewer capabilities.
const PTRACE_SEIZE: u32 = 0x4206;
/// `BPF_PROG_LOAD` (linux/bpf.h), of nothing.
const BPF_PROG_LOAD: u32 = 5;

/// A set-user-id program that another user than root executes; it waits for nothing (ppoll(2)).
const fn set_user_id(check: &'static str) -> Opening {
    Opening {
        options: &[
            "--user", "1000:1000", "--security-opt", "no-new-privileges=false", "--volume",
            "{folder}/as-root:/as-root",
        ],
        before: Some(set_user_id_program),
        ..script(check, WAIT_AS_ROOT)
    }
}

#[cfg(target_arch = "x86_64")]
const WAIT_AS_ROOT: &str = "/as-root 271 0 0 0 0 & wait";
#[cfg(not(target_arch = "x86_64"))]
const WAIT_AS_ROOT: &str = "/as-root 73 0 0 0 0 & wait";

fn set_user_id_program(folder: &Path) -> anyhow::Result<Held> {
    write_caller(&folder.join("as-root"), 0o4755)?;
    Ok(Box::new(()))
}

fn engine_socket(folder: &Path) -> anyhow::Result<Held> {
    let path = folder.join("docker.sock");
    let listener =
        UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    Ok(Box::new(listener))
}

fn abstract_socket(folder: &Path) -> anyhow::Result<Held> {
    let name = folder.to_string_lossy().into_owned();
    let address = SocketAddr::from_abstract_name(&name).context("name a socket")?;
    let listener =
        UnixListener::bind_addr(&address).with_context(|| format!("listen on @{name}"))?;
    Ok(Box::new(listener))
}

/// A mount that is unmounted when this goes.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn shared_mount(folder: &Path) -> anyhow::Result<Held> {
    const NONE: Option<&str> = None;
    let path = folder.join("shared");
    let tried = || format!("make a shared mount at {}", path.display());
    fs::create_dir(&path).with_context(tried)?;
    mount(Some("lab"), &path, Some("tmpfs"), MsFlags::empty(), NONE).with_context(tried)?;
    let mounted = Mounted(path.clone());
    mount(NONE, &path, NONE, MsFlags::MS_SHARED, NONE).with_context(tried)?;
    Ok(Box::new(mounted))
}

/// A process of the host's that ends when this goes.
struct Visitor(Child);

impl Drop for Visitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts a process of the host's into namespaces of the container, as a debugger may.
fn enter(subject: &Subject<'_>) -> anyhow::Result<Held> {
    let pid = subject.pid.to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--mount", "--uts", "sleep", "3600"]);
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .context("run nsenter (Debian's package util-linux has it)")?;
    Ok(Box::new(Visitor(child)))
}

/// Looks into the container, and leaves it again.
fn visit(subject: &Subject<'_>) -> anyhow::Result<Held> {
    let pid = subject.pid.to_string();
    let mut command = Command::new("nsenter");
    let status = command
        .args(["--target", &pid, "--uts", "--ipc", "true"])
        .stdin(Stdio::null())
        .status()
        .context("run nsenter (Debian's package util-linux has it)")?;
    ensure!(status.success(), "enter process {pid}: nsenter ended with {status}");
    Ok(Box::new(()))
}

/// The container's own cgroups, one of each hierarchy that it uses.
fn cgroups(subject: &Subject<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let path = subject.state.join("journal.json");
    let read = || format!("read {}", path.display());
    let journal: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).with_context(read)?).with_context(read)?;
    let all = journal["cgroups"].as_array().into_iter().flatten();
    Ok(all.filter_map(|path| path.as_str().map(PathBuf::from)).collect())
}

/// Puts a process of the host's into the container's cgroups alone.
fn put_in(subject: &Subject<'_>) -> anyhow::Result<Held> {
    let child = Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn();
    let visitor = Visitor(child.context("run sleep")?);
    for folder in cgroups(subject)? {
        let path = folder.join("cgroup.procs");
        fs::write(&path, visitor.0.id().to_string())
            .with_context(|| format!("write into {}", path.display()))?;
    }
    Ok(Box::new(visitor))
}

/// Sets another limit than the one that was asked for.
fn change_limit(subject: &Subject<'_>) -> anyhow::Result<Held> {
    let mut files = cgroups(subject)?.into_iter().map(|folder| folder.join("pids.max"));
    let path = files.find(|path| path.exists()).context("find pids.max: it has none")?;
    fs::write(&path, "128").with_context(|| format!("write into {}", path.display()))?;
    Ok(Box::new(()))
}

/// `exec` with `file` as descriptor 3, as CVE-2024-21626 was.
fn exec_with(subject: &Subject<'_>, file: &Path, program: &[&str]) -> anyhow::Result<Held> {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3< \"$0\"; exec \"$@\""]).arg(file);
    // The shell's /proc/self is another.
    command.arg(format!("/proc/{}/exe", std::process::id())).args((subject.terrarium)().get_args());
    command.args(["exec", "--detach", "--preserve-fds", "1", subject.name]).args(program);
    let status = command.stdin(Stdio::null()).status().context("run sh")?;
    ensure!(status.success(), "run a program in {}: it ended with {status}", subject.name);
    Ok(Box::new(()))
}

fn leak_folder(subject: &Subject<'_>) -> anyhow::Result<Held> {
    exec_with(subject, Path::new("/etc"), &["sleep", "3600"])
}

fn run_host_program(subject: &Subject<'_>) -> anyhow::Result<Held> {
    let program = subject.folder.join("program");
    write_caller(&program, 0o755)?;
    let wait = WAIT_AS_ROOT.split(' ').nth(1).unwrap_or_default();
    exec_with(subject, &program, &["/proc/self/fd/3", wait, "0", "0", "0", "0"])
}

/// Mounts one folder of the host's into both containers, as nobody declared.
fn mount_in_both(subject: &Subject<'_>) -> anyhow::Result<Held> {
    let folder = subject.folder.join("common");
    fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
    for pid in [subject.pid, subject.other] {
        mount_in(&folder, pid)
            .with_context(|| format!("mount {} in process {pid}", folder.display()))?;
    }
    Ok(Box::new(()))
}

fn mount_in(folder: &Path, pid: i32) -> anyhow::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, folder, flags)?;
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    // A thread of its own, which does not come back.
    std::thread::scope(|scope| {
        let there = scope.spawn(|| -> anyhow::Result<()> {
            unshare(CloneFlags::CLONE_FS)?;
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS)?;
            move_mount(
                tree.as_fd(),
                "",
                rustix::fs::CWD,
                "/srv",
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
            Ok(())
        });
        there.join().unwrap_or_else(|_| anyhow::bail!("a thread ended early"))
    })
}
