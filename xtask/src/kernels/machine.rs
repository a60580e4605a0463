//! The virtual machine: qemu, two serial lines, a deadline.
//!
//! The first serial line is the kernel's console and goes into a file. The second carries what the
//! guest reports, so that a kernel message never falls into the middle of a result.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, access};

use crate::progress::{self, Progress};
use crate::qemu::{self, PROGRAM as QEMU};
use crate::shell;

/// A processor that does nothing but spin in the kernel for a minute is a panic, which tells where, and ends the guest. Once one
/// hung so until its deadline, and nobody could tell why.
const KERNEL_OPTIONS: &str = "console=ttyS0 panic=-1 quiet random.trust_cpu=on mitigations=off \
                              softlockup_panic=1 watchdog_thresh=30";

/// A guest that runs at all says its first word long before.
const FIRST_WORD: Duration = Duration::from_mins(1);

/// How the guest's instructions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// In software.
    Tcg,
}

/// A kernel with an initial file system, to be booted.
pub struct Machine {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// A file system that the guest may read.
    pub disk: Option<PathBuf>,
    /// Where the kernel's messages go.
    pub console: PathBuf,
}

/// What the guest reports, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Pass(String),
    Fail(String, String),
    Skip(String, String),
    /// A probe and the way in which it is attached.
    Probe {
        name: String,
        mechanism: String,
    },
}

impl Machine {
    /// Boots it and gives what it reported. KVM first, where it is there and works.
    pub fn run(&self, deadline: Duration) -> Result<Vec<Record>> {
        let kvm = access(Path::new("/dev/kvm"), AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
        if kvm {
            if let Some(records) = self.attempt(Accelerator::Kvm, deadline)? {
                return Ok(records);
            }
            shell::note("/dev/kvm is there and does not work: emulating in software");
        }
        match self.attempt(Accelerator::Tcg, deadline)? {
            Some(records) => Ok(records),
            None => bail!("the guest said nothing; its console: {}", self.tail_of_console()),
        }
    }

    /// The command that boots it.
    pub fn command(&self, accelerator: Accelerator) -> Command {
        let found = qemu::find();
        let mut command = found.as_ref().map_or_else(|| Command::new(QEMU), qemu::Qemu::command);
        command.args(match accelerator {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => ["-accel", qemu::emulation(found.as_ref()), "-cpu", "max"],
        });
        command.args(["-smp", "2", "-m", "2048", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        command.args(["-append", KERNEL_OPTIONS]);
        if let Some(disk) = &self.disk {
            let drive = format!("file={},format=raw,if=virtio,readonly=on", disk.display());
            command.args(["-drive", &drive]);
        }
        command.arg("-serial").arg(format!("file:{}", self.console.display()));
        command.args(["-serial", "stdio"]);
        command
    }

    /// `None` when the guest ended, or had to be ended, before its first word.
    fn attempt(&self, accelerator: Accelerator, deadline: Duration) -> Result<Option<Vec<Record>>> {
        let mut command = self.command(accelerator);
        shell::announce(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = Guard(command.spawn().with_context(|| format!("start {QEMU}"))?);
        let lines = lines_of(&mut qemu.0);
        let end = Instant::now() + deadline;
        let mut heard = false;
        let mut report = Report::default();
        loop {
            let patience = if heard { end } else { end.min(Instant::now() + FIRST_WORD) };
            match lines.recv_timeout(patience.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    heard = true;
                    report.line(line.trim_end());
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if !heard => return Ok(None),
                Err(RecvTimeoutError::Timeout) => bail!(
                    "the guest is not done after {} s; its console: {}",
                    deadline.as_secs(),
                    self.tail_of_console()
                ),
            }
        }
        if !heard {
            return Ok(None);
        }
        if !report.done {
            bail!("the guest ended before its tests did; its console: {}", self.tail_of_console());
        }
        Ok(Some(report.records))
    }

    fn tail_of_console(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let tail = &lines[lines.len().saturating_sub(20)..];
        format!("{}\n{}", self.console.display(), tail.join("\n"))
    }
}

/// Ends qemu when it goes, so that neither an error nor a deadline leaves a machine running.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_of(qemu: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    if let Some(stdout) = qemu.stdout.take() {
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
    }
    if let Some(stderr) = qemu.stderr.take() {
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                shell::note(&line);
            }
        });
    }
    lines
}

/// Reads the guest's lines: our own and those of Rust's test harness; shows all of them.
#[derive(Default)]
struct Report {
    records: Vec<Record>,
    done: bool,
    /// Of the tests that the harness has announced.
    progress: Option<Progress>,
}

impl Report {
    fn line(&mut self, line: &str) {
        progress::aside(|| println!("  {line}"));
        let announced = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test"));
        if let Some(count) = announced.and_then(|(count, _)| count.parse().ok()) {
            // The old one goes before the new one is there.
            self.progress = None;
            self.progress = Some(Progress::new("tests", count));
        }
        if let Some(rest) = line.strip_prefix("TERRARIUM_VM ") {
            let mut words = rest.splitn(3, ' ');
            let kind = words.next().unwrap_or_default();
            let name = words.next().unwrap_or_default().to_owned();
            let detail = words.next().unwrap_or_default().to_owned();
            match kind {
                "pass" => self.records.push(Record::Pass(name)),
                "fail" => self.records.push(Record::Fail(name, detail)),
                "skip" => self.records.push(Record::Skip(name, detail)),
                "probe" => self.records.push(Record::Probe { name, mechanism: detail }),
                "done" => self.done = true,
                _ => {}
            }
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            match outcome {
                "ok" => self.records.push(Record::Pass(name.to_owned())),
                "FAILED" => {
                    let why = "see the output above".to_owned();
                    self.records.push(Record::Fail(name.to_owned(), why));
                }
                _ => {}
            }
            if let Some(progress) = &self.progress {
                progress.step();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_and_of_the_test_harness_become_records() {
        let mut report = Report::default();
        for line in [
            "TERRARIUM_VM pass doctor",
            "TERRARIUM_VM probe mount fentry",
            "running 2 tests",
            "test counts::forks ... ok",
            "test memory::oom ... FAILED",
            "test result: FAILED. 1 passed; 1 failed;",
            "TERRARIUM_VM skip counts::forks needs the program prometheus",
            "TERRARIUM_VM done",
        ] {
            report.line(line);
        }
        assert!(report.done);
        assert_eq!(
            report.records,
            [
                Record::Pass("doctor".into()),
                Record::Probe { name: "mount".into(), mechanism: "fentry".into() },
                Record::Pass("counts::forks".into()),
                Record::Fail("memory::oom".into(), "see the output above".into()),
                Record::Skip("counts::forks".into(), "needs the program prometheus".into()),
            ]
        );
    }
}
