//! `terrarium lab`: containers with one known opening each, to learn from and to hold other detectors against.
//!
//! Each is started by `terrarium run` with options that anybody may give, does one harmless thing and sleeps, and must raise its
//! finding and no other above low but what the same options open ([`Opening::beside`]). To add one: a line in [`OPENINGS`].

mod openings;

use super::Format;
use super::ask::Guard;
use super::leaks::{add_seen, paragraph, seen};
use crate::Global;
use anyhow::{Context, bail, ensure};
use clap::builder::PossibleValuesParser;
use openings::{OPENINGS, Opening, Program, Subject};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use terrarium_container::SYSTEM_CALLER;
use terrarium_container::explain::word;
use terrarium_observatory::leaks::{
    self, Finding, Places, Severity, Source, Wanted, about, json_line,
};

/// Exit code when a container raised something else than its finding.
const DIFFERENT: u8 = 3;

/// How long a finding may take that a program inside has yet to cause, or an observatory to see.
const PATIENCE: Duration = Duration::from_secs(10);

/// Start containers with one known opening each, and see it found: to learn from, and to try other detectors on.
///
/// Each container does one harmless thing at most, and sleeps. It must raise its finding, and no other above low but what the same
/// options open; exit code 3 when one did otherwise. What a container does is seen by an observatory that runs (`terrarium observe`).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  terrarium lab list\n  terrarium lab host-pid-namespace\n  terrarium lab engine-socket-mounted --keep\n  terrarium lab ptrace-across --observatory http://127.0.0.1:9750\n  terrarium lab all --format json"
)]
pub struct Args {
    /// The opening's name, which is that of its check; `list` for their names, `all` for one after the other
    #[arg(value_name = "NAME", value_parser = names(), hide_possible_values = true)]
    name: String,
    /// Root filesystem or image with `sleep` and `unshare`; else one of this machine's static busybox
    #[arg(value_name = "ROOTFS")]
    rootfs: Option<String>,
    /// Ask this observatory for what it has seen [default: `http://127.0.0.1:9750`, where one listens]
    #[arg(long, value_name = "URL")]
    observatory: Option<String>,
    #[command(flatten)]
    guard: Guard,
    /// Leave the container running
    #[arg(long)]
    keep: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// What may be asked for, which completions know.
fn names() -> PossibleValuesParser {
    let openings = OPENINGS.iter().map(|opening| opening.check);
    ["list", "all"].into_iter().chain(openings).collect::<Vec<_>>().into()
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    if args.name == "list" {
        return list(args.format).map(|()| ExitCode::SUCCESS);
    }
    let chosen: Vec<&Opening> =
        OPENINGS.iter().filter(|o| args.name == "all" || o.check == args.name).collect();
    let root = std::path::absolute(&global.root).context("find state folder")?;
    let bench = Bench { root, args };
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
        let known = about(check).expect("a test holds the lab against the checks");
        match format {
            Format::Table => format!("{check:width$}  {}", options.join(" ")).trim_end().to_owned(),
            Format::Json => json_line(&json!({
                "name": check, "check": check, "source": known.source.name(), "options": options,
                "seen": known.seen,
            })),
        }
    });
    super::print(&rows.collect::<Vec<_>>().join("\n"))
}

/// What of busybox the containers use, and who looks around in one.
const APPLETS: [&str; 14] = [
    "sh", "sleep", "unshare", "nsenter", "mount", "pivot_root", "chroot", "mknod", "kill", "true",
    "cat", "ls", "id", "ps",
];

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
            for applet in APPLETS {
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
struct Bench<'a> {
    root: PathBuf,
    args: &'a Args,
}

/// A container of the lab, deleted when this goes.
struct Specimen<'a> {
    bench: &'a Bench<'a>,
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

impl Bench<'_> {
    fn terrarium(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(&self.root).stdin(Stdio::null());
        command
    }

    fn tell(&self, text: &str) -> anyhow::Result<()> {
        if self.args.format == Format::Table { super::print(text) } else { Ok(()) }
    }

    fn skip(&self, opening: &Opening, error: &anyhow::Error) -> anyhow::Result<()> {
        let (name, reason) = (opening.check, format!("{error:#}"));
        match self.args.format {
            Format::Table => super::print(&format!("skipped {name}: {reason}\n")),
            Format::Json => super::print(&json_line(&json!({ "name": name, "skipped": reason }))),
        }
    }

    /// Starts a container with the opening and tells what is found: whether that is its finding alone.
    fn show(&self, opening: &Opening, made: &Folder, rootfs: &str) -> anyhow::Result<bool> {
        let about = about(opening.check).context("find the check of the opening")?;
        if let Some(path) = opening.needs
            && !Path::new(path).exists()
        {
            bail!("open {}: this kernel has no such thing ({path} is not there)", opening.check);
        }
        if about.source == Source::Event && self.seen()?.is_none() {
            bail!(
                "see {}: it is something that a container does, and no observatory watches: start `terrarium observe`",
                opening.check
            );
        }
        let folder = tempfile::tempdir_in(made.path()).context("make a folder for the opening")?;
        let folder = folder.path();
        let held = opening.before.map(|before| before(folder)).transpose()?;
        let name = format!("lab-{}", opening.check);
        let other = format!("{name}-other");
        let filled = |text: &str| {
            text.replace("{folder}", &folder.display().to_string())
                .replace("{pid}", &std::process::id().to_string())
                .replace("{other}", &other)
        };
        let mut companion = None;
        if let Some(options) = opening.companion {
            let options = options.iter().map(|option| filled(option)).collect();
            companion = Some(self.start(&other, options, rootfs, &["sleep", "3600"])?);
        }
        let mut options: Vec<String> = opening.options.iter().map(|text| filled(text)).collect();
        let (is_asleep, script) = match opening.program {
            Program::Sleep => (true, String::new()),
            Program::Script(script) => (false, filled(script)),
            Program::Calls(calls) => {
                let caller = folder.join("call");
                write_caller(&caller, 0o755)?;
                options.extend(["--volume".to_owned(), format!("{}:/call:ro", caller.display())]);
                (false, format!("/call {}; exec sleep 3600", filled(&calls())))
            }
        };
        let program: &[&str] = if is_asleep { &["sleep", "3600"] } else { &["sh", "-c", &script] };
        let mut specimen = self.start(&name, options, rootfs, program)?;
        let visitor = match opening.after {
            Some(after) => {
                let pid = self.first_process(&name)?;
                let other = companion.as_ref().map(|it| self.first_process(&it.name));
                let subject = Subject {
                    name: &name,
                    pid,
                    other: other.transpose()?.unwrap_or_default(),
                    folder,
                    state: &self.root.join(&name),
                    terrarium: &|| self.terrarium(),
                };
                Some(after(&subject)?)
            }
            None => None,
        };
        let may_come = opening.after.is_some() || !is_asleep || about.source == Source::Event;
        let findings = self.findings(&name, opening, may_come, about.source)?;
        drop((visitor, held));
        let exact = self.judge(opening, &name, &findings)?;
        if self.args.keep {
            specimen.kept = true;
            self.tell(&format!(
                "It runs: terrarium exec {name} sh; terrarium delete --force {name}"
            ))?;
            if let Some(companion) = &mut companion {
                companion.kept = true;
                self.tell(&format!("So does the one beside it: terrarium delete --force {other}"))?;
            }
            if opening.before.is_some() || opening.after.is_some() {
                self.tell("What was done for it on the host has ended with this command.")?;
            }
        }
        Ok(exact)
    }

    /// Starts a container.
    fn start(
        &self,
        name: &str,
        options: Vec<String>,
        rootfs: &str,
        program: &[&str],
    ) -> anyhow::Result<Specimen<'_>> {
        let mut words: Vec<String> = ["run", "--detach", "--name", name].map(str::to_owned).into();
        words.extend(options);
        words.extend([rootfs.to_owned(), "--".to_owned()]);
        words.extend(program.iter().map(|word| (*word).to_owned()));
        let shown: Vec<String> = words.iter().map(|text| word(text)).collect();
        self.tell(&format!("$ terrarium {}", shown.join(" ")))?;
        let output = self.terrarium().args(&words).output().context("run terrarium")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "start {name}: {}",
            said.trim().trim_start_matches("terrarium: ")
        );
        Ok(Specimen { bench: self, name: name.to_owned(), kept: false })
    }

    fn first_process(&self, name: &str) -> anyhow::Result<i32> {
        let output = self.terrarium().args(["state", name]).output().context("run terrarium")?;
        let state: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("read state of {name}"))?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.with_context(|| format!("look for the first process of {name}: it has ended"))
    }

    /// What a running observatory has seen, if one runs.
    fn seen(&self) -> anyhow::Result<Option<String>> {
        seen(self.args.observatory.as_deref(), &self.args.guard)
    }

    /// What is found of a container; what `may_come` is waited for.
    fn findings(
        &self,
        name: &str,
        opening: &Opening,
        may_come: bool,
        source: Source,
    ) -> anyhow::Result<Vec<Finding>> {
        let places = Places::live(&self.root);
        let start = Instant::now();
        loop {
            let mut report = leaks::judge(&places, &Wanted::Named(name.to_owned()), |_| true)?;
            if source == Source::Event
                && let Some(text) = self.seen()?
            {
                add_seen(&text, &[], &mut report)?;
            }
            let there = report.findings.iter().any(|finding| finding.check == opening.check);
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
        if self.args.format == Format::Json {
            super::print(&json_line(&json!({
                "name": check, "container": name, "options": opening.options, "raised": raised,
                "exact": exact, "findings": findings,
            })))?;
            return Ok(exact);
        }
        for finding in findings.iter().filter(|finding| finding.check == check) {
            super::print(&paragraph(finding))?;
        }
        let Some(known) = about(check) else { bail!("find check {check}: there is none") };
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

/// Writes the program that makes system calls.
fn write_caller(path: &Path, mode: u32) -> anyhow::Result<()> {
    ensure!(
        !SYSTEM_CALLER.is_empty(),
        "make a system call: terrarium's program for that exists for x86_64 and aarch64"
    );
    fs::write(path, SYSTEM_CALLER)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("write {}", path.display()))
}
