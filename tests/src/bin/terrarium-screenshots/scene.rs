//! The containers of the pictures, and what they do.

use std::time::Duration;
use terrarium_tests::container::Running;
use terrarium_tests::{Observatory, TestBed};

/// An observatory with containers.
pub struct Scene<'a> {
    pub observatory: Observatory,
    web: Running<'a>,
    worker: Running<'a>,
    shell: Running<'a>,
    _quiet: Vec<Running<'a>>,
}

impl<'a> Scene<'a> {
    /// Starts everything.
    pub fn set(bed: &'a TestBed) -> Self {
        let observatory = Observatory::start(bed, &[]);
        let follow = |name: &str, options: &[&str]| {
            let running = bed.container_called(name).with(options.iter().copied()).follow();
            observatory.wait_for(name);
            running
        };
        let web = follow("web", &["--memory", "128m", "--net", "bridge", "--label", "tier=front"]);
        let sidecar = follow("web-sidecar", &["--memory", "48m", "--net", "container:web"]);
        let database = follow("db", &["--memory", "256m", "--net", "bridge"]);
        let worker =
            follow("worker", &["--memory", "48m", "--pids-limit", "64", "--net", "bridge"]);
        let shell = follow("debug", &["--cap-add", "SYS_ADMIN", "--net", "none", "--ipc", "host"]);
        Self { observatory, web, worker, shell, _quiet: vec![sidecar, database] }
    }

    /// About a second of everybody's life.
    pub fn play(&mut self) {
        self.web.call("fork 12");
        self.web.call("touch 24000000");
        self.worker.call("touch 30000000");
        self.worker.call("touch-in-child 90000000");
        self.shell.call("unshare uts 2");
        self.shell.call("mount 2");
        std::thread::sleep(Duration::from_millis(900));
    }
}
