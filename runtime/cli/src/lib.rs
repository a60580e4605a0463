//! The command line: arguments, output and exit codes; no mechanism.
//!
//! Containers are made by `terrarium-container`, probes and metrics by `terrarium-observatory`;
//! this crate is the only one that knows both.
//!
//! There are two programs. `terrarium` is all of it. `terrarium-runtime` is what engines call for every container and
//! nothing else, two fifths of the size, which is executed the faster for it and takes less memory; what it does not know it
//! leaves to the `terrarium` beside it.

mod commands;
mod companion;
#[cfg(test)]
mod documented;
#[cfg(own_entry)]
mod entry;
mod exit;
mod log;

use anyhow::Context;
use clap::Parser;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terrarium_container::CgroupDriver;

/// Builds containers and observes them from the kernel.
#[derive(Debug, Parser)]
#[command(name = "terrarium", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: commands::Command,
}

/// What engines read of `--version`: each line is a word and a value.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.1");

/// Options that stand before the command, as OCI engines pass them.
#[derive(Debug, clap::Args)]
struct Global {
    /// Folder that holds the state of containers [default: /run/terrarium; without root `$XDG_RUNTIME_DIR/terrarium`]
    #[arg(
        long,
        value_name = "DIR",
        env = "TERRARIUM_ROOT",
        default_value_os_t = default_root(),
        hide_default_value = true
    )]
    root: PathBuf,
    /// File for the log that engines read
    #[arg(long, value_name = "FILE", help_heading = "For engines")]
    log: Option<PathBuf>,
    /// Form of that log
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", help_heading = "For engines")]
    log_format: log::Format,
    /// Who makes cgroups: this program, or systemd; with disabled nobody does
    #[arg(long, value_enum, default_value_t, value_name = "MANAGER", help_heading = "For engines")]
    cgroup_manager: CgroupManager,
    /// The same as --cgroup-manager systemd
    #[arg(long, help_heading = "For engines")]
    systemd_cgroup: bool,
    /// Log more
    #[arg(long, help_heading = "For engines")]
    debug: bool,
    /// Whether this is rootless: auto, true or false; it makes no difference, the kernel is asked
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "For engines"
    )]
    rootless: Option<String>,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum CgroupManager {
    /// This program, in the cgroup filesystems
    #[default]
    Cgroupfs,
    /// systemd, by D-Bus
    Systemd,
    /// Nobody: containers stay in the caller's cgroup
    Disabled,
}

/// Where containers' state lies if nobody says otherwise.
fn default_root() -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return PathBuf::from("/run/terrarium");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => Path::new(&folder).join("terrarium"),
        None => PathBuf::from(format!("/tmp/terrarium-{}", user.as_raw())),
    }
}

impl Global {
    /// Who makes cgroups; refuses what is not possible.
    fn cgroup_driver(&self) -> anyhow::Result<CgroupDriver> {
        if !self.systemd_cgroup && self.cgroup_manager != CgroupManager::Systemd {
            return Ok(match self.cgroup_manager {
                CgroupManager::Disabled => CgroupDriver::Disabled,
                _ => CgroupDriver::Cgroupfs,
            });
        }
        anyhow::ensure!(
            CgroupDriver::is_systemd_running(),
            "make cgroups by systemd: it does not run {} (leave --systemd-cgroup out; with Podman, --cgroup-manager cgroupfs)",
            if rustix::process::geteuid().is_root() { "here" } else { "for you" }
        );
        Ok(CgroupDriver::Systemd)
    }
}

/// The program `terrarium`.
pub fn whole() -> ExitCode {
    if commands::may_execute_images(std::env::args_os()) {
        // Before anything is parsed: it would be parsed twice.
        if let Err(error) = run_sealed() {
            return exit::report(&error);
        }
    }
    if let Some((global, engine)) = commands::parse_engine(std::env::args_os()) {
        return conclude(engine.run(&global), &global);
    }
    let alone = commands::parse_alone(std::env::args_os());
    let cli = match alone.map_or_else(Cli::try_parse, Ok) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    conclude(commands::run(cli.command, &cli.global), &cli.global)
}

/// The program `terrarium-runtime`.
pub fn runtime() -> ExitCode {
    let Some((global, engine)) = commands::parse_engine(std::env::args_os()) else {
        return companion::execute();
    };
    if engine.may_execute_images()
        && let Err(error) = run_sealed()
    {
        return exit::report(&error);
    }
    conclude(engine.run(&global), &global)
}

/// [`runtime`] where nothing has been done before `main`: does what of it is needed, and never returns.
pub fn runtime_alone() -> ! {
    let code = match prepare() {
        Ok(()) => runtime(),
        Err(error) => exit::report(&anyhow::Error::new(error).context("open /dev/null")),
    };
    // Who prints has flushed it. What the C library and Rust would clean up is memory, and pages that lie as
    // they did before the clone would be copied for it.
    // SAFETY: nobody has registered anything that is to be done before a process of this program ends.
    unsafe { libc::_exit(exit::number(code)) }
}

/// What Rust does before its own `main` (`library/std/src/sys/pal/unix/mod.rs`): descriptors 0 to 2 are open, for what would be opened in
/// their place would be written to as if it were the standard error; and who writes to a closed pipe is told so by an
/// error.
fn prepare() -> std::io::Result<()> {
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array has that many elements; what is not open is told, not touched.
    let result = unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    for one in standard.iter().filter(|one| one.revents & libc::POLLNVAL != 0) {
        // The lowest number that is free is this one: those below are open by now. It stays open in what is executed.
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())?;
        debug_assert_eq!(null.as_raw_fd(), one.fd);
        let _ = null.into_raw_fd();
    }
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}

/// Executes this program again from where no container can write to it, unless that is so already.
fn run_sealed() -> anyhow::Result<()> {
    #[cfg(own_entry)]
    let is_sealed = entry::is_sealed();
    #[cfg(not(own_entry))]
    let is_sealed = false;
    terrarium_container::run_sealed(is_sealed)
        .context("protect the executable from containers: execute it from a read-only mount")
}

fn conclude(result: anyhow::Result<ExitCode>, global: &Global) -> ExitCode {
    result.unwrap_or_else(|error| {
        // The engine shows the last error of the log to its user.
        log::error(global, &format!("{error:#}"));
        exit::report(&error)
    })
}
