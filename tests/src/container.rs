//! A container that a test runs, and its hand inside.

use crate::deadline::{PATIENCE, eventually};
use crate::kernel_state;
use crate::process::{Outcome, Process, Sink};
use crate::rootfs::WORKLOAD;
use crate::testbed::TestBed;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

/// A container to be run.
#[derive(Debug, Clone)]
pub struct Container<'a> {
    bed: &'a TestBed,
    name: String,
    rootfs: PathBuf,
    options: Vec<OsString>,
}

impl<'a> Container<'a> {
    pub(crate) fn new(bed: &'a TestBed, name: String) -> Self {
        Self { bed, name, rootfs: bed.rootfs(), options: Vec::new() }
    }

    /// Its name, the test's tag included.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds options of `terrarium run`.
    #[must_use]
    pub fn with<I, S>(mut self, options: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Another root filesystem than the bed's.
    #[must_use]
    pub fn rootfs(mut self, path: impl Into<PathBuf>) -> Self {
        self.rootfs = path.into();
        self
    }

    /// `terrarium --root … run --rm --name … ROOTFS -- WORDS`.
    pub fn command<I, S>(&self, words: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.bed.terrarium();
        command.args(["run", "--rm", "--name", &self.name]).args(&self.options);
        command.arg(&self.rootfs).arg("--").args(words);
        command
    }

    /// Runs it to its end.
    pub fn run<I, S>(&self, words: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.bed.finish(&mut self.command(words))
    }

    /// Starts it with the workload inside, which waits for instructions.
    pub fn follow(&self) -> Running<'a> {
        let mut running = self.start([WORKLOAD, "follow"]);
        running.call("true");
        running
    }

    /// Starts it.
    pub fn start<I, S>(&self, words: I) -> Running<'a>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let stderr = Sink::new();
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.stdio());
        let mut process = self.bed.spawn(&mut command);
        let stdin = process.child().stdin.take();
        let stdout = process.child().stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Running { bed: self.bed, name: self.name.clone(), process, stdin, lines, stderr }
    }
}

/// A running container. When it goes after a test that passed, it is asked to end and must do so.
#[derive(Debug)]
pub struct Running<'a> {
    bed: &'a TestBed,
    name: String,
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Sink,
}

impl Running<'_> {
    /// Its name, the test's tag included.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process of `terrarium run`.
    pub fn runtime(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Gives the workload an instruction and waits for its answer.
    #[track_caller]
    pub fn call(&mut self, instruction: &str) -> Value {
        match self.attempt(instruction) {
            Ok(answer) => answer,
            Err(error) => panic!("{}: {instruction}: {error}", self.name),
        }
    }

    /// Gives the workload an instruction; `Err` says why it failed.
    pub fn attempt(&mut self, instruction: &str) -> Result<Value, String> {
        let stdin = self.stdin.as_mut().expect("stdin is open until the container is finished");
        let written = writeln!(stdin, "{instruction}").and_then(|()| stdin.flush());
        if let Err(error) = written {
            return Err(format!("write: {error}; {}", self.post_mortem()));
        }
        let line = self.line()?;
        let answer: Value =
            serde_json::from_str(&line).map_err(|error| format!("{error} in {line}"))?;
        if answer["ok"] == true {
            Ok(answer)
        } else {
            Err(answer["error"].as_str().unwrap_or("no reason given").to_owned())
        }
    }

    /// The next line of stdout.
    pub fn line(&mut self) -> Result<String, String> {
        self.lines.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {PATIENCE:?}"),
            RecvTimeoutError::Disconnected => self.post_mortem(),
        })
    }

    fn post_mortem(&mut self) -> String {
        let code = self.process.wait_for(PATIENCE);
        format!("terrarium run ended with {code:?}; stderr: {}", self.stderr.text())
    }

    /// The container's state file, once its status is `running`.
    pub fn state(&self) -> Value {
        let path = self.bed.root().join(&self.name).join("state.json");
        eventually("state.json says running", || {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("read {}: {error}", path.display()))?;
            let state: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if state["status"] == "running" { Ok(state) } else { Err(text) }
        })
    }

    /// The folder of its cgroup in the hierarchy that `state.json` calls `hierarchy`.
    pub fn cgroup(&self, hierarchy: &str) -> Option<PathBuf> {
        let state = self.state();
        let below = state["cgroups"]
            .as_array()?
            .iter()
            .find(|cgroup| cgroup["hierarchy"] == hierarchy)?["path"]
            .as_str()?;
        let mounts = kernel_state::cgroup_mounts();
        let mount = mounts.iter().find(|mount| match hierarchy {
            "unified" => mount.version == 2,
            controller => mount.controllers.iter().any(|name| name == controller),
        })?;
        Some(mount.path.join(Path::new(below).strip_prefix("/").unwrap_or(Path::new(below))))
    }

    /// Asks the workload to end by closing its input, waits for `terrarium run`, and gives what is left of its output.
    pub fn finish(mut self) -> Outcome {
        self.stdin = None;
        self.outcome()
    }

    /// Waits for `terrarium run` to end without asking for it.
    pub fn outcome(&mut self) -> Outcome {
        let code = self.process.wait();
        self.stdin = None;
        let mut stdout = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        Outcome { code, stdout, stderr: self.stderr.text() }
    }

    /// Sends `terrarium run` a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.stdin = None;
        if !std::thread::panicking() {
            self.process.wait();
        }
    }
}
