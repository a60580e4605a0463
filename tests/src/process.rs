//! Programs that a test starts: each is waited for with a deadline, and none outlives its test.

use crate::deadline::{PATIENCE, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How a program ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit code; `-n` when signal n ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Outcome {
    /// Stdout, when the program succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "exit code; stdout: {}; stderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

/// The exit code, or `-n` after signal n.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// Where a program writes to: a file without a name, so that a grandchild that keeps it open holds nobody up.
#[derive(Debug)]
pub(crate) struct Sink(File);

impl Sink {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempfile().expect("the folder for temporary files is writable"))
    }

    /// For [`Command::stdout`] and [`Command::stderr`].
    pub(crate) fn stdio(&self) -> Stdio {
        self.0.try_clone().expect("a file descriptor is free").into()
    }

    /// What was written so far. Only after the program has ended: its offset is shared with the reader.
    pub(crate) fn text(&mut self) -> String {
        let mut bytes = Vec::new();
        self.0.rewind().and_then(|()| self.0.read_to_end(&mut bytes)).expect("a file is readable");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Runs `command` to its end without input.
pub fn run(command: &mut Command) -> Outcome {
    let (mut stdout, mut stderr) = (Sink::new(), Sink::new());
    let mut process =
        Process::spawn(command.stdin(Stdio::null()).stdout(stdout.stdio()).stderr(stderr.stdio()));
    let code = process.wait();
    Outcome { code, stdout: stdout.text(), stderr: stderr.text() }
}

/// A running program, killed when this goes.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    ended: Option<i32>,
}

impl Process {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("start {what}: {error}"));
        Self { child, what, ended: None }
    }

    /// The standard streams that were piped, to be taken.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is positive"))
    }

    /// Sends it `signal`.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{} has ended before {signal}", self.what);
        kill(self.pid(), signal).unwrap_or_else(|errno| panic!("send {signal}: {errno}"));
    }

    /// The exit code if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child is ours").map(code);
        }
        self.ended
    }

    /// Waits for its exit code.
    pub fn wait(&mut self) -> i32 {
        self.wait_for(PATIENCE)
            .unwrap_or_else(|| panic!("{} did not end within {PATIENCE:?}", self.what))
    }

    /// Waits for its exit code until `limit` is over.
    pub fn wait_for(&mut self, limit: Duration) -> Option<i32> {
        within(limit, || self.ended().ok_or_else(String::new)).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // It may end by itself in between; then there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
