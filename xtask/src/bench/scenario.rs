//! What is measured.

use std::ffi::OsString;
use std::path::Path;

use super::contender::{Contender, PLAIN, Place, SECCOMP};

/// One way of using a runtime.
#[derive(Debug)]
pub struct Scenario {
    /// As the table names it.
    pub name: &'static str,
    bundle: &'static str,
    /// Pause before each run, in milliseconds: on a quiet host an RCU wait takes longer than in a burst.
    pub idle_ms: u64,
    /// Whether all containers of a round start together.
    pub at_once: bool,
    /// How many containers a round has.
    pub containers: u32,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The OCI `run`, to exit and removal.
    Run,
    /// `create`, `start`, `delete --force`.
    Steps,
    /// terrarium's own `run` with this network.
    Network(&'static str),
}

const fn runs(name: &'static str) -> Scenario {
    Scenario { name, bundle: PLAIN, idle_ms: 0, at_once: false, containers: 1, kind: Kind::Run }
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    runs("run, back to back"),
    Scenario { idle_ms: 60, ..runs("run, 60 ms idle between") },
    Scenario { bundle: SECCOMP, ..runs("run, default seccomp profile") },
    Scenario { kind: Kind::Steps, ..runs("create + start + delete") },
    Scenario { at_once: true, containers: 50, ..runs("50 at once") },
    Scenario { kind: Kind::Network("none"), ..runs("run ROOTFS --net none") },
    Scenario { kind: Kind::Network("bridge"), ..runs("run ROOTFS --net bridge, bridge up") },
];

/// Many runs one after another, of which each must end.
pub const EXITS: Scenario = Scenario { containers: 50, ..runs("hangs") };

impl Scenario {
    /// Whether `contender` can do it.
    pub fn takes(&self, contender: &Contender) -> bool {
        match self.kind {
            Kind::Run => contender.is_runtime || self.bundle == PLAIN && self.containers == 1,
            Kind::Steps => contender.is_runtime,
            Kind::Network(_) => contender.name == "terrarium",
        }
    }

    /// Whether a bridge is to be up meanwhile.
    pub fn wants_bridge(&self) -> bool {
        self.kind == Kind::Network("bridge")
    }

    /// How many rounds are enough, when a scenario of one container gets `rounds`.
    pub fn rounds(&self, rounds: u32) -> u32 {
        if self.containers > 1 { (rounds / 6).max(3) } else { rounds }
    }

    /// The arguments of `measure` for one round.
    pub fn commands(&self, place: &Place, contender: &Contender, round: u32) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        for number in 0..self.containers {
            let id = format!("bench-{round}-{number}");
            for command in self.container(place, contender, &id) {
                if !words.is_empty() {
                    words.push("++".into());
                }
                words.extend(command);
            }
        }
        words
    }

    fn container(&self, place: &Place, contender: &Contender, id: &str) -> Vec<Vec<OsString>> {
        let program = place.program(contender);
        if !contender.is_runtime {
            return vec![vec![program.into(), place.rootfs().into(), id.into()]];
        }
        let state = place.state(contender);
        let command = |words: &[&str], last: &[&Path]| -> Vec<OsString> {
            let mut all = vec![program.clone().into(), "--root".into(), state.clone().into()];
            all.extend(words.iter().map(OsString::from));
            all.extend(last.iter().map(OsString::from));
            all
        };
        let bundle = place.bundle(self.bundle);
        let with_bundle = |name| command(&[name, "--bundle"], &[bundle.as_path(), Path::new(id)]);
        match self.kind {
            Kind::Run => vec![with_bundle("run")],
            Kind::Steps => vec![
                with_bundle("create"),
                command(&["start", id], &[]),
                command(&["delete", "--force", id], &[]),
            ],
            Kind::Network(network) => {
                let rootfs = place.rootfs();
                let limits = ["run", "--rm", "--memory", "64m", "--pids", "128", "--net", network];
                vec![command(&limits, &[rootfs.as_path(), Path::new("/bin/true")])]
            }
        }
    }
}
