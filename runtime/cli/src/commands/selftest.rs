//! `terrarium selftest`: does known things in a cgroup of its own and says whether every counter is exact on this machine.
//!
//! What `doctor` is for attaching, this is for truth. The parent runs an observatory on a free port of loopback; the child
//! moves into the cgroup, waits until its counters have been read, does what [`EXPECTED`] says, and waits again.

use super::Format;
use super::observe::probes;
use crate::Global;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount as new_api;
use serde_json::json;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use terrarium_observatory::kernel::cgroup_mounts::CgroupMounts;
use terrarium_observatory::metrics::Shown;
use terrarium_observatory::observe::{self, Options};
use terrarium_observatory::probe::Settings;

/// Do known things and say whether every counter is exact on this machine
#[derive(Debug, Args)]
pub struct Selftest {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The program's own helper: what it is to do
    #[arg(long, hide = true, value_enum)]
    inside: Option<Inside>,
}

/// What a helper does.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Inside {
    /// What is counted.
    Work,
    /// Nothing.
    Nothing,
    /// Takes more memory than the limit allows.
    Eat,
}

/// How often each thing is done.
const TIMES: u64 = 10;

/// The limit for [`Inside::Eat`], which takes four times as much.
const LIMIT_BYTES: usize = 32 << 20;

/// A series, by its name and its labels beside `id` and `name`, and what it has to grow by.
const EXPECTED: &[(&str, &str, u64)] = &[
    // Each exec is by a process of its own; one more takes too much memory.
    ("terrarium_clone_total", r#"kind="process""#, TIMES + 1),
    ("terrarium_clone_total", r#"kind="thread""#, TIMES),
    ("terrarium_exec_total", "", TIMES + 1),
    ("terrarium_exit_total", r#"cause="exit""#, TIMES),
    ("terrarium_namespace_create_total", r#"ns="uts",via="unshare",result="ok""#, TIMES),
    ("terrarium_namespace_create_total", r#"ns="ipc",via="unshare",result="ok""#, TIMES),
    ("terrarium_namespace_enter_total", r#"ns="uts",target="own""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="mount",result="ok""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="mount",result="error""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="bind",result="ok""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="remount",result="ok""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="move",result="ok""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="umount",result="ok""#, 3 * TIMES),
    ("terrarium_mount_operations_total", r#"op="fsopen",result="ok""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="fsmount",result="ok""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="move_mount",result="ok""#, TIMES),
    ("terrarium_mount_operations_total", r#"op="open_tree",result="ok""#, TIMES),
];

/// Those that need a limit of memory.
const EXPECTED_AT_LIMIT: &[(&str, &str, u64)] = &[
    ("terrarium_oom_kills_total", r#"scope="self""#, 1),
    ("terrarium_exit_total", r#"cause="oom""#, 1),
    ("terrarium_memory_events_total", r#"event="oom_kill""#, 1),
];

/// What came out for one series.
struct Outcome {
    series: String,
    expected: u64,
    counted: u64,
}

/// Runs the command: exit code 0 when everything is exact, else 1.
pub fn run(args: &Selftest, _global: &Global) -> anyhow::Result<ExitCode> {
    match args.inside {
        Some(Inside::Work) => work().map(|()| ExitCode::SUCCESS),
        Some(Inside::Nothing) => Ok(ExitCode::SUCCESS),
        Some(Inside::Eat) => {
            eat();
            Ok(ExitCode::SUCCESS)
        }
        None => {
            super::logging::start();
            test(args.format)
        }
    }
}

fn test(format: Format) -> anyhow::Result<ExitCode> {
    let mounts = CgroupMounts::read(Path::new("/proc")).context("find the cgroup hierarchies")?;
    let cgroups = Cgroups::make(&mounts)?;
    let address = start_observatory()?;
    let mut child = Worker::start(&cgroups)?;
    let before = series_of(&get(address)?, &cgroups.path);
    child.go_on("done")?;
    let mut expected = EXPECTED.to_vec();
    if cgroups.limited {
        expected.extend_from_slice(EXPECTED_AT_LIMIT);
    }
    let after = series_of(&get(address)?, &cgroups.path);
    drop(child);
    let outcomes: Vec<Outcome> = expected
        .into_iter()
        .map(|(name, labels, expected)| {
            let growth = |all: &[(String, u64)]| {
                let wanted = |series: &&(String, u64)| {
                    series.0.starts_with(&format!("{name}{{"))
                        && labels.split(',').all(|label| series.0.contains(label))
                };
                all.iter().filter(wanted).map(|(_, value)| value).sum::<u64>()
            };
            let counted = growth(&after).saturating_sub(growth(&before));
            Outcome { series: format!("{name}{{{labels}}}"), expected, counted }
        })
        .collect();
    let exact = outcomes.iter().all(|outcome| outcome.counted == outcome.expected);
    super::terminal::print(&told(format, &outcomes, exact, cgroups.limited))?;
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(format: Format, outcomes: &[Outcome], exact: bool, limited: bool) -> String {
    if let Format::Json = format {
        let all: Vec<_> = outcomes
            .iter()
            .map(|o| json!({"series": o.series, "expected": o.expected, "counted": o.counted, "exact": o.counted == o.expected}))
            .collect();
        return json!({"exact": exact, "memory_limit": limited, "counters": all}).to_string()
            + "\n";
    }
    let mut out = format!("{:<7} {:>8} {:>8}  COUNTER\n", "", "EXPECTED", "COUNTED");
    for Outcome { series, expected, counted } in outcomes {
        let word = if expected == counted { "exact" } else { "WRONG" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{word:<7} {expected:>8} {counted:>8}  {series}");
    }
    if !limited {
        out += "not tested: kills at a memory limit (no memory controller here)\n";
    }
    let wrong = outcomes.iter().filter(|o| o.counted != o.expected).count();
    let _ = if exact {
        writeln!(out, "every counter is exact on this machine")
    } else {
        writeln!(out, "{wrong} of {} counters are wrong (see `terrarium doctor`)", outcomes.len())
    };
    out
}

/// Runs an observatory until this process ends.
fn start_observatory() -> anyhow::Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    let names: Vec<String> = super::observe::PROBES.map(str::to_owned).to_vec();
    let settings = Settings { probes: probes(&names)?, ..Settings::default() };
    let thread = std::thread::spawn(move || {
        let options = Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            // Containers of terrarium's own have no part in this.
            root: PathBuf::from("/nonexistent"),
            settings,
            grace: Duration::from_mins(1),
            shown: Shown { cadvisor_names: false, max_series: 0, ..Shown::default() },
            history: None,
            events_file: None,
            collector: None,
            web_config: None,
            drop_capabilities: false,
        };
        observe::run(&options, |url, _| {
            if let Some(address) = url.strip_prefix("http://").and_then(|text| text.parse().ok()) {
                // Whoever waited may have given up.
                let _ = sender.send(address);
            }
        })
    });
    if let Ok(address) = receiver.recv() {
        return Ok(address);
    }
    match thread.join() {
        Ok(Err(error)) => Err(error.into()),
        _ => bail!("start an observatory: it ended by itself"),
    }
}

fn get(address: SocketAddr) -> anyhow::Result<String> {
    let what = || format!("ask the observatory at {address}");
    let mut stream = TcpStream::connect(address).with_context(what)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").with_context(what)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(what)?;
    Ok(text)
}

/// The series of a container in an answer, with their values.
fn series_of(text: &str, path: &str) -> Vec<(String, u64)> {
    let id = format!("{{id=\"{path}\",");
    text.lines()
        .filter(|line| line.contains(&id))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
        .collect()
}

/// The cgroups of the test, gone with this.
struct Cgroups {
    path: String,
    folders: Vec<PathBuf>,
    /// Whether they have a limit of memory.
    limited: bool,
}

impl Cgroups {
    fn make(mounts: &CgroupMounts) -> anyhow::Result<Self> {
        // Below a cgroup of its own, for others make and remove theirs in `/terrarium` at the same time.
        let own = format!("terrarium-selftest-{}", std::process::id());
        let path = format!("/{own}/terrarium/selftest");
        let mut cgroups = Self { path, folders: Vec::new(), limited: false };
        let points = mounts.unified.iter().chain(&mounts.memory);
        for point in points {
            let parent = point.join(&own).join("terrarium");
            fs::create_dir_all(&parent)
                .with_context(|| format!("make the cgroup {} (are you root?)", parent.display()))?;
            if Some(point) == mounts.unified.as_ref() && !mounts.memory_is_v1() {
                for folder in [point, &point.join(&own), &parent] {
                    // What is refused shows below: there is no limit then.
                    let _ = fs::write(folder.join("cgroup.subtree_control"), "+memory");
                }
            }
            let folder = point.join(cgroups.path.trim_start_matches('/'));
            fs::create_dir(&folder)
                .with_context(|| format!("make the cgroup {}", folder.display()))?;
            cgroups.folders.push(folder.clone());
            for file in ["memory.max", "memory.limit_in_bytes"] {
                cgroups.limited |= folder.join(file).exists()
                    && fs::write(folder.join(file), LIMIT_BYTES.to_string()).is_ok();
            }
            // Not every kernel has them; without swap there is nothing to forbid.
            let _ = fs::write(folder.join("memory.swap.max"), "0");
            let _ = fs::write(folder.join("memory.memsw.limit_in_bytes"), LIMIT_BYTES.to_string());
        }
        if cgroups.folders.is_empty() {
            bail!("make a cgroup: no cgroup v2 and no v1 memory hierarchy is mounted");
        }
        Ok(cgroups)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.folders {
            for _ in 0..200 {
                // Busy until the last process has been reaped.
                if fs::remove_dir(folder).is_ok() || !folder.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            for parent in folder.ancestors().skip(1).take(2) {
                // It is empty, or the folder in it could not be removed either.
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// The child. It says `ready`, and `done`; between the two it waits for a line.
struct Worker {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(cgroups: &Cgroups) -> anyhow::Result<Self> {
        let mut command = helper("work");
        let folders = std::env::join_paths(&cgroups.folders).context("name the cgroups")?;
        command.env(CGROUPS, folders).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a helper")?;
        let stdout = child.stdout.take().context("listen to the helper")?;
        let mut worker = Self { child, said: BufReader::new(stdout) };
        worker.wait_for("ready")?;
        Ok(worker)
    }

    fn go_on(&mut self, until: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("talk to the helper")?;
        stdin.write_all(b"go\n").context("talk to the helper")?;
        self.wait_for(until)
    }

    fn wait_for(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("listen to the helper")?;
        if line.trim() == word {
            return Ok(());
        }
        bail!("the helper ended before it was {word}")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends with its input; if it hangs, by this.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names the cgroups that the child moves into.
const CGROUPS: &str = "TERRARIUM_SELFTEST_CGROUPS";

/// This program, as a helper.
fn helper(inside: &str) -> Command {
    // By the link, not by its path: the worker mounts over /tmp, below which the program may lie.
    let mut command = Command::new("/proc/self/exe");
    command.args(["selftest", "--inside", inside]);
    command
}

/// What the child does.
fn work() -> anyhow::Result<()> {
    let mut input = std::io::stdin().lines();
    let folders = std::env::var_os(CGROUPS).context("find the cgroups to move into")?;
    for folder in std::env::split_paths(&folders) {
        fs::write(folder.join("cgroup.procs"), "0")
            .with_context(|| format!("move into {}", folder.display()))?;
    }
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("keep mounts here")?;
    let base = Path::new("/tmp");
    mount(Some("none"), base, Some("tmpfs"), MsFlags::empty(), none).context("mount a tmpfs")?;
    let [a, b] = ["a", "b"].map(|name| base.join(name));
    for folder in [&a, &b] {
        fs::create_dir(folder).context("make a folder")?;
    }
    println!("ready");
    input.next();

    for _ in 0..TIMES {
        let status = helper("nothing").status().context("start a helper")?;
        anyhow::ensure!(status.success(), "a helper failed: {status}");
        std::thread::spawn(|| {}).join().ok().context("join a thread")?;
        unshare(CloneFlags::CLONE_NEWUTS).context("make a uts namespace")?;
        unshare(CloneFlags::CLONE_NEWIPC).context("make an ipc namespace")?;
        let own = fs::File::open("/proc/self/ns/uts").context("open the uts namespace")?;
        setns(own, CloneFlags::CLONE_NEWUTS).context("enter the uts namespace")?;

        mount(Some("none"), &a, Some("tmpfs"), MsFlags::empty(), none).context("mount")?;
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &a, none, read_only, none).context("remount")?;
        mount(Some(&a), &b, none, MsFlags::MS_MOVE, none).context("move a mount")?;
        umount2(&b, MntFlags::empty()).context("unmount")?;
        mount(Some(&a), &b, none, MsFlags::MS_BIND, none).context("bind")?;
        umount2(&b, MntFlags::empty()).context("unmount")?;
        let missing = base.join("missing");
        anyhow::ensure!(
            mount(Some("none"), &missing, Some("tmpfs"), MsFlags::empty(), none).is_err(),
            "mounted on a folder that does not exist"
        );
        by_the_new_api(&a)?;
    }
    if folders_have_limit(&folders) {
        // By a signal, or by its own failing allocation where the kernel says no first.
        helper("eat").status().context("start a helper")?;
    }
    println!("done");
    input.next();
    Ok(())
}

fn by_the_new_api(target: &Path) -> anyhow::Result<()> {
    use new_api::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
    let context = new_api::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen")?;
    new_api::fsconfig_create(&context).context("fsconfig")?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let tree = new_api::fsmount(&context, flags, MountAttrFlags::empty()).context("fsmount")?;
    let here = rustix::fs::CWD;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    new_api::move_mount(&tree, "", here, target, flags).context("move_mount")?;
    new_api::open_tree(here, target, OpenTreeFlags::OPEN_TREE_CLOEXEC).context("open_tree")?;
    // A mount that somebody holds open is busy.
    drop((tree, context));
    umount2(target, MntFlags::empty()).context("unmount")
}

fn folders_have_limit(folders: &std::ffi::OsStr) -> bool {
    let limits = ["memory.max", "memory.limit_in_bytes"];
    std::env::split_paths(folders).any(|f| limits.iter().any(|name| f.join(name).exists()))
}

/// Touches four times as much memory as the limit allows.
fn eat() {
    let mut eaten = Vec::new();
    for _ in 0..4 * LIMIT_BYTES / 4096 {
        eaten.push([1_u8; 4096]);
    }
    std::hint::black_box(&eaten);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_container_are_found_with_their_values() {
        let text = "a{id=\"/x\",name=\"x\"} 3\na{id=\"/xy\",name=\"x\"} 4\nb 5\n";
        assert_eq!(series_of(text, "/x"), [("a{id=\"/x\",name=\"x\"}".to_owned(), 3)]);
    }

    #[test]
    fn a_wrong_counter_is_told() {
        let outcomes = [
            Outcome { series: "a".to_owned(), expected: 1, counted: 1 },
            Outcome { series: "b".to_owned(), expected: 2, counted: 3 },
        ];
        let table = told(Format::Table, &outcomes, false, false);
        assert!(table.contains("WRONG          2        3  b\n"), "{table}");
        assert!(table.contains("1 of 2 counters are wrong"), "{table}");
        let json: serde_json::Value =
            serde_json::from_str(&told(Format::Json, &outcomes, false, true)).expect("JSON");
        assert_eq!((&json["exact"], &json["counters"][1]["exact"]), (&false.into(), &false.into()));
    }
}
