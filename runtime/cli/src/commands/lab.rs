//! `terrarium lab`: containers with one known opening each, to learn from and to hold other detectors against.
//!
//! Each is started by `terrarium run` with options that anybody may give, does nothing but sleep, and must raise its finding
//! and no other above low but what the same options open ([`Opening::beside`]). To add one: a line in [`OPENINGS`].

use super::diff::Format;
use super::leaks::paragraph;
use crate::Global;
use crate::exit::WithCode;
use anyhow::{Context, anyhow, bail, ensure};
use serde_json::json;
use std::any::Any;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use terrarium_container::explain::word;
use terrarium_observatory::leaks::{self, Finding, Places, Severity, Wanted, checks, json_line};

/// Exit code when a container raised something else than its finding.
const DIFFERENT: u8 = 3;

/// How long a finding may take that a program inside has yet to cause.
const PATIENCE: Duration = Duration::from_secs(10);

/// Start containers with one known opening each, and see it found: to learn from, and to try other detectors on.
///
/// Each container only sleeps. It must raise its finding, and no other above low but what the same options open; exit code 3
/// when one did otherwise.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  terrarium lab list\n  terrarium lab host-pid-namespace\n  terrarium lab engine-socket-mounted --keep\n  terrarium lab all --format json"
)]
pub struct Args {
    /// The opening's name, which is that of its check; `list` for their names, `all` for one after the other
    #[arg(value_name = "NAME")]
    name: String,
    /// Root filesystem or image with `sleep` and `unshare`; else one of this machine's static busybox
    #[arg(value_name = "ROOTFS")]
    rootfs: Option<String>,
    /// Leave the container running
    #[arg(long)]
    keep: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// What is done on the host for an opening, and undone when this goes.
type Held = Box<dyn Any>;

/// One opening.
struct Opening {
    /// The check that finds it, whose name it has.
    check: &'static str,
    /// Options of run. `{folder}` stands for a folder of its own, `{pid}` for a process of the host.
    options: &'static [&'static str],
    /// What runs inside, where that makes the opening.
    program: &'static [&'static str],
    /// Done before it starts, with the folder.
    before: Option<fn(&Path) -> anyhow::Result<Held>>,
    /// Done when it runs, with its first process.
    after: Option<fn(i32) -> anyhow::Result<Held>>,
    /// Other checks that see the same thing.
    beside: &'static [&'static str],
}

/// An opening by options alone.
const fn options(check: &'static str, options: &'static [&'static str]) -> Opening {
    Opening { check, options, program: &SLEEP, before: None, after: None, beside: &[] }
}

const SLEEP: [&str; 2] = ["sleep", "3600"];

const OPENINGS: &[Opening] = &[
    options("host-pid-namespace", &["--pid", "host"]),
    options("host-network-namespace", &["--net", "host"]),
    options("host-ipc-namespace", &["--ipc", "host"]),
    options("host-uts-namespace", &["--uts", "host"]),
    options("host-root-mapped", &["--userns=0:65536"]),
    options("host-filesystem-mounted", &["--volume", "/etc:/srv/etc:ro"]),
    Opening {
        before: Some(engine_socket),
        ..options("engine-socket-mounted", &["--volume", "{folder}/docker.sock:/run/docker.sock"])
    },
    options("namespace-file-exposed", &["--volume", "/proc/{pid}/ns/uts:/srv/uts"]),
    options("shared-memory-object", &["--volume", "/dev/shm:/srv/shm"]),
    options("kernel-filesystem-exposed", &["--security-opt", "systempaths=unconfined"]),
    options("device-exposed", &["--device", "/dev/kmsg"]),
    options("dangerous-capability", &["--cap-add", "SYS_PTRACE"]),
    Opening { beside: &["kernel-filesystem-exposed"], ..options("privileged", &["--privileged"]) },
    options("no-seccomp", &["--security-opt", "seccomp=unconfined"]),
    options("new-privileges-allowed", &["--security-opt", "no-new-privileges=false"]),
    options("limit-missing", &[]),
    options("root-without-user-namespace", &[]),
    Opening {
        before: Some(abstract_socket),
        beside: &["host-network-namespace"],
        ..options("host-abstract-socket", &["--net", "host"])
    },
    Opening {
        program: &["sh", "-c", "unshare -U sleep 3600 & wait"],
        beside: &["no-seccomp"],
        ..options("user-namespace-created", &["--security-opt", "seccomp=unconfined"])
    },
    Opening {
        program: &["sh", "-c", "unshare -u sleep 3600 & wait"],
        beside: &["dangerous-capability"],
        ..options("namespace-drift", &["--cap-add", "SYS_ADMIN"])
    },
    Opening { after: Some(enter), ..options("task-outside-cgroup", &[]) },
];

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

/// A process of the host's that ends when this goes.
struct Visitor(std::process::Child);

impl Drop for Visitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts a process of the host's into namespaces of the container, as a debugger may.
fn enter(pid: i32) -> anyhow::Result<Held> {
    let pid = pid.to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--mount", "--uts", "sleep", "3600"]);
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .context("run nsenter (Debian's package util-linux has it)")?;
    Ok(Box::new(Visitor(child)))
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    if args.name == "list" {
        return list(args.format).map(|()| ExitCode::SUCCESS);
    }
    let chosen: Vec<&Opening> =
        OPENINGS.iter().filter(|o| args.name == "all" || o.check == args.name).collect();
    if chosen.is_empty() {
        let error = anyhow!("find opening {:?}: there is none (`terrarium lab list`)", args.name);
        return Err(WithCode::error(2, error));
    }
    let root = std::path::absolute(&global.root).context("find state folder")?;
    let bench = Bench { root, format: args.format, keep: args.keep };
    let made = Folder::make()?;
    let rootfs = match &args.rootfs {
        Some(given) => given.clone(),
        None => made.rootfs()?.display().to_string(),
    };
    let mut all_exact = true;
    for opening in chosen {
        match bench.show(opening, &made, &rootfs) {
            Ok(exact) => all_exact &= exact,
            // What this machine cannot have, another can.
            Err(error) if args.name == "all" => bench.skip(opening, &error)?,
            Err(error) => return Err(error),
        }
    }
    if args.keep && args.rootfs.is_none() {
        made.keep();
    }
    Ok(if all_exact { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn list(format: Format) -> anyhow::Result<()> {
    let width = OPENINGS.iter().map(|opening| opening.check.len()).max().unwrap_or_default();
    let rows = OPENINGS.iter().map(|opening| {
        let Opening { check, options, .. } = opening;
        let seen = checks::by_id(check).map_or("", |check| check.seen);
        match format {
            Format::Table => format!("{check:width$}  {}", options.join(" ")).trim_end().to_owned(),
            Format::Json => json_line(
                &json!({ "name": check, "check": check, "options": options, "seen": seen }),
            ),
        }
    });
    super::print(&rows.collect::<Vec<_>>().join("\n"))
}

/// A folder of this run alone, removed at its end.
struct Folder(Option<tempfile::TempDir>);

impl Folder {
    fn make() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("terrarium-lab-").tempdir();
        Ok(Self(Some(folder.context("make a temporary folder")?)))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().expect("it goes with keep alone").path()
    }

    fn keep(mut self) {
        if let Some(folder) = self.0.take() {
            let _ = folder.keep();
        }
    }

    /// A root filesystem of a static busybox.
    fn rootfs(&self) -> anyhow::Result<PathBuf> {
        let busybox = static_busybox().context(
            "find a static busybox (Debian's package busybox-static has it), or give a root filesystem: terrarium lab NAME ROOTFS",
        )?;
        let rootfs = self.path().join("rootfs");
        let bin = rootfs.join("bin");
        let made = || -> std::io::Result<()> {
            fs::create_dir_all(&bin)?;
            for name in ["dev", "etc", "proc", "root", "run", "srv", "sys", "tmp"] {
                fs::create_dir(rootfs.join(name))?;
            }
            fs::copy(&busybox, bin.join("busybox"))?;
            for applet in ["sh", "sleep", "unshare", "cat", "ls", "id", "ps", "mount"] {
                symlink("busybox", bin.join(applet))?;
            }
            Ok(())
        };
        made().with_context(|| format!("make a root filesystem in {}", rootfs.display()))?;
        Ok(rootfs)
    }
}

/// A busybox on the path that needs no library: it names no interpreter (`PT_INTERP`, elf(5)).
fn static_busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("busybox")).find(|file| {
        fs::read(file).is_ok_and(|elf| {
            let word = |at: usize, size: usize| {
                let bytes = elf.get(at..at + size)?;
                Some(bytes.iter().rev().fold(0_usize, |all, byte| all << 8 | usize::from(*byte)))
            };
            let headers = || {
                let (first, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
                (0..count).map(|n| word(first + n * size, 4)).collect::<Option<Vec<_>>>()
            };
            elf.starts_with(b"\x7fELF\x02\x01") && headers().is_some_and(|all| !all.contains(&3))
        })
    })
}

/// How openings are shown.
struct Bench {
    root: PathBuf,
    format: Format,
    keep: bool,
}

/// A container of the lab, deleted when this goes.
struct Specimen<'a> {
    bench: &'a Bench,
    name: String,
    kept: bool,
}

impl Drop for Specimen<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let mut command = self.bench.terrarium();
            command.args(["delete", "--force", &self.name]).stdout(Stdio::null());
            if !command.status().is_ok_and(|status| status.success()) {
                eprintln!("terrarium: {0} is left: terrarium delete --force {0}", self.name);
            }
        }
    }
}

impl Bench {
    fn terrarium(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(&self.root).stdin(Stdio::null());
        command
    }

    fn tell(&self, text: &str) -> anyhow::Result<()> {
        if self.format == Format::Table { super::print(text) } else { Ok(()) }
    }

    fn skip(&self, opening: &Opening, error: &anyhow::Error) -> anyhow::Result<()> {
        let (name, reason) = (opening.check, format!("{error:#}"));
        match self.format {
            Format::Table => super::print(&format!("skipped {name}: {reason}\n")),
            Format::Json => super::print(&json_line(&json!({ "name": name, "skipped": reason }))),
        }
    }

    /// Starts a container with the opening and tells what is found: whether that is its finding alone.
    fn show(&self, opening: &Opening, made: &Folder, rootfs: &str) -> anyhow::Result<bool> {
        let folder = tempfile::tempdir_in(made.path()).context("make a folder for the opening")?;
        let name = format!("lab-{}", opening.check);
        let held = opening.before.map(|before| before(folder.path())).transpose()?;
        let filled = |text: &&str| {
            let folder = folder.path().display().to_string();
            text.replace("{folder}", &folder).replace("{pid}", &std::process::id().to_string())
        };
        let mut words: Vec<String> = ["run", "--detach", "--name", &name].map(str::to_owned).into();
        words.extend(opening.options.iter().map(filled));
        words.extend([rootfs.to_owned(), "--".to_owned()]);
        words.extend(opening.program.iter().map(|word| (*word).to_owned()));
        let shown: Vec<String> = words.iter().map(|text| word(text)).collect();
        self.tell(&format!("$ terrarium {}", shown.join(" ")))?;
        let output = self.terrarium().args(&words).output().context("run terrarium")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "start {name}: {}",
            said.trim().trim_start_matches("terrarium: ")
        );
        let mut specimen = Specimen { bench: self, name: name.clone(), kept: false };
        let visitor = match opening.after {
            Some(after) => Some(after(self.first_process(&name)?)?),
            None => None,
        };
        let findings = self.findings(&name, opening)?;
        drop((visitor, held));
        let exact = self.judge(opening, &name, &findings)?;
        if self.keep {
            specimen.kept = true;
            self.tell(&format!(
                "It runs: terrarium exec {name} sh; terrarium delete --force {name}"
            ))?;
            if opening.before.is_some() || opening.after.is_some() {
                self.tell("What was done for it on the host has ended with this command.")?;
            }
        }
        Ok(exact)
    }

    fn first_process(&self, name: &str) -> anyhow::Result<i32> {
        let output = self.terrarium().args(["state", name]).output().context("run terrarium")?;
        let state: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("read state of {name}"))?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.with_context(|| format!("look for the first process of {name}: it has ended"))
    }

    /// What is found of a container; what a program inside has yet to do is waited for.
    fn findings(&self, name: &str, opening: &Opening) -> anyhow::Result<Vec<Finding>> {
        let places = Places::live(&self.root);
        let start = Instant::now();
        loop {
            let report = leaks::judge(&places, &Wanted::Named(name.to_owned()), |_| true)?;
            let there = report.findings.iter().any(|finding| finding.check == opening.check);
            let may_come = opening.after.is_some() || opening.program != SLEEP;
            if there || !may_come || start.elapsed() > PATIENCE {
                return Ok(report.findings);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn judge(&self, opening: &Opening, name: &str, findings: &[Finding]) -> anyhow::Result<bool> {
        let check = opening.check;
        let raised = findings.iter().any(|finding| finding.check == check);
        let beyond: Vec<&Finding> = findings
            .iter()
            .filter(|f| f.severity > Severity::Low)
            .filter(|f| f.check != check && !opening.beside.contains(&f.check))
            .collect();
        let exact = raised && beyond.is_empty();
        if self.format == Format::Json {
            super::print(&json_line(&json!({
                "name": check, "container": name, "options": opening.options, "raised": raised,
                "exact": exact, "findings": findings,
            })))?;
            return Ok(exact);
        }
        for finding in findings.iter().filter(|finding| finding.check == check) {
            super::print(&paragraph(finding))?;
        }
        let Some(known) = checks::by_id(check) else { bail!("find check {check}: there is none") };
        self.tell(&format!("why: {}", known.why))?;
        self.tell(&match (raised, beyond.first()) {
            (true, None) if opening.beside.is_empty() => {
                "found, and nothing else above low\n".to_owned()
            }
            (true, None) => {
                format!("found; the same options open {}\n", opening.beside.join(", "))
            }
            (false, _) => format!("NOT FOUND: {check}\n"),
            (true, Some(other)) => format!("found, and {} as well\n", other.check),
        })?;
        Ok(exact)
    }
}
