//! Observers that others wrote, run beside terrarium's, so that what the two saw can be compared.

use crate::process::{Process, Sink};
use crate::{eventually, requirement};
use nix::sys::signal::Signal;
use std::fs;
use std::process::{Command, Stdio};

/// Runs a program in a mount namespace of its own in which tracefs is mounted: hosts need not have it, and these programs
/// look nowhere else.
const WITH_TRACEFS: &str = "[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; \
                            exec \"$0\" \"$@\"";

/// A running observer.
#[derive(Debug)]
pub struct Witness {
    process: Process,
    stdout: Sink,
    stderr: Sink,
}

impl Witness {
    /// Starts `program` and waits until it observes: until what it reads records from is there, and it sleeps.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let path = requirement::program(program).unwrap_or_else(|| panic!("{program} is required"));
        let (stdout, stderr) = (Sink::new(), Sink::new());
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", WITH_TRACEFS]).arg(path).args(arguments);
        command.stdin(Stdio::null()).stdout(stdout.stdio()).stderr(stderr.stdio());
        let mut witness = Self { process: Process::spawn(&mut command), stdout, stderr };
        eventually(&format!("{program} observes"), || match witness.process.ended() {
            Some(code) => panic!("{program} ended with {code}: {}", witness.stderr.text()),
            None => witness.observes(),
        });
        witness
    }

    fn observes(&self) -> Result<(), String> {
        let waits = fs::read_dir(format!("/proc/{}/fd", self.process.pid()))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| target.ends_with("anon_inode:[eventpoll]"));
        if waits { self.sleeps() } else { Err("nothing to wait for".to_owned()) }
    }

    /// Whether it sleeps: then it has read all that there was to be read.
    fn sleeps(&self) -> Result<(), String> {
        let stat = format!("/proc/{}/stat", self.process.pid());
        let state = fs::read_to_string(stat).unwrap_or_default();
        if state.contains(") S ") { Ok(()) } else { Err(state) }
    }

    /// Ends it as a user does, by SIGINT, once it has read everything, and gives what it printed.
    pub fn end(mut self) -> String {
        eventually("the witness has read everything", || self.sleeps());
        self.process.signal(Signal::SIGINT);
        self.process.wait();
        self.stdout.text()
    }
}
