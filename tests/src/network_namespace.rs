//! A network namespace of the test's own.
//!
//! Every container of a test is started from inside of one, so that it plays the host's: bridges, veths and nftables
//! rules land in it, parallel tests may use the same names and addresses, nothing reaches the machine's
//! interfaces, and all of it goes with the namespace's last file descriptor.

use crate::process::{self, Outcome};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::process::Command;

/// A network namespace, held by a file descriptor.
#[derive(Debug)]
pub struct NetworkNamespace(File);

impl NetworkNamespace {
    /// Makes one, with its loopback interface up.
    pub fn new() -> Self {
        // A thread of its own: the namespace is the thread's, and a thread that has entered one is never used again.
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may unshare the network namespace");
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        })
        .join()
        .expect("the thread gives the namespace");
        let namespace = Self(file);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Does `work` inside, in a thread of its own. Processes that it starts are inside as well.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root may enter its namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside, to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        let path = crate::requirement::program(program)
            .unwrap_or_else(|| panic!("{program} is installed (cargo xtask setup installs it)"));
        self.enter(|| process::run(Command::new(path).args(arguments)))
    }

    /// Runs `ip` inside and gives what it prints.
    pub fn ip(&self, arguments: &[&str]) -> String {
        self.run("ip", arguments).success()
    }

    /// The names of the interfaces inside.
    pub fn links(&self) -> Vec<String> {
        let list = self.ip(&["-json", "link", "show"]);
        let list: serde_json::Value = serde_json::from_str(&list).expect("ip -json prints JSON");
        list.as_array()
            .expect("ip -json prints a list")
            .iter()
            .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
            .collect()
    }

    /// The nftables rules inside; empty when there is no table.
    pub fn nft_ruleset(&self) -> String {
        self.run("nft", &["list", "ruleset"]).success()
    }

    /// A veth pair between this namespace (`name`) and `other` (`other_name`), both ends up.
    pub fn connect(&self, name: &str, other: &Self, other_name: &str) {
        self.ip(&["link", "add", name, "type", "veth", "peer", "name", other_name]);
        // `ip link set netns` takes a process or a name below /run/netns, or a path: that of the descriptor, as seen by `ip`.
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&other.0)
        );
        self.ip(&["link", "set", other_name, "netns", &path]);
        self.ip(&["link", "set", name, "up"]);
        other.ip(&["link", "set", other_name, "up"]);
    }
}

impl Default for NetworkNamespace {
    fn default() -> Self {
        Self::new()
    }
}
