//! A program that runs in the background of a benchmark.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};

use crate::shell;

/// How a program is told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its input ends.
    Input,
    /// It is killed.
    Signal,
}

/// A program that has said that it is ready. It is told to end when this goes.
pub struct Running {
    child: Child,
    /// The line by which it said so.
    pub said: String,
    end: End,
    /// Kept open, for a program that prints on would die of SIGPIPE.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts it and waits until it prints a line that begins with `ready`.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends before it has said so.
    pub fn start(command: &mut Command, ready: &str, end: End) -> Result<Self> {
        shell::announce(command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("its output")?);
        let mut running = Self { child, said: String::new(), end, stdout: None };
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            if line.starts_with(ready) {
                line.trim_end().clone_into(&mut running.said);
                running.stdout = Some(stdout);
                return Ok(running);
            }
            line.clear();
        }
        anyhow::bail!("{} ended before it was ready", shell::line(command));
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if self.end == End::Signal {
            // It may have ended by itself.
            let _ = self.child.kill();
        }
        drop(self.stdout.take());
        let _ = self.child.wait();
    }
}
