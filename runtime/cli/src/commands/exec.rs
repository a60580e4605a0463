//! `terrarium exec`: one more process in a running container.

use super::bundle::listening;
use crate::Global;
use crate::exit::WithCode;
use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;
use terrarium_container::{
    ContainerId, Error, ExecOptions, OciProcess, Signals, Store, change_process, exec, process_of,
};

/// Run a command in a running container.
///
/// The exit code is the command's own; 126 when it cannot be executed, 127 when it was not found, 128 + n when signal
/// n ended it.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Examples:\n  terrarium exec -it web sh\n  terrarium exec -e A=b -u 1000 web env"
)]
pub struct Args {
    /// An OCI process object; without it the container's own process is taken, with CMD instead of its command
    #[arg(long, short, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Write the host pid of the process there
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Unix socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Return when the program was executed
    #[arg(long, short)]
    pub(super) detach: bool,
    /// Give the process a terminal
    #[arg(long, short)]
    pub(super) tty: bool,
    /// Standard input is always passed on; taken for docker's sake
    #[arg(long, short)]
    interactive: bool,
    /// Working folder inside
    #[arg(long, alias = "workdir", short = 'w', value_name = "PATH")]
    cwd: Option<PathBuf>,
    /// Set an environment variable; NAME alone takes the caller's
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User and group inside, by name or number
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Additional group ids
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Give a capability besides the container's
    #[arg(long, short, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Give every capability; what the container's seccomp filter and user namespace refuse stays refused
    #[arg(long)]
    privileged: bool,
    /// exec may not gain rights
    #[arg(long)]
    no_new_privs: bool,
    /// Pass this many descriptors from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Cgroup below the container's own
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Go on although the container is paused
    #[arg(long)]
    ignore_paused: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// The container
    pub(super) id: String,
    /// Command and its arguments
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let code = execute(args, global).map_err(|error| {
        let code = error.downcast_ref::<Error>().map_or(1, |error| match error.run_exit_code() {
            125 => 1,
            code => code,
        });
        if error.is::<WithCode>() { error } else { WithCode::error(code, error) }
    })?;
    Ok(ExitCode::from(code))
}

fn execute(args: &Args, global: &Global) -> anyhow::Result<u8> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    let store = Store::open(&global.root)?;
    let process = process(args, &store, &id)?;
    let options = ExecOptions {
        console_socket: args.console_socket.clone(),
        pid_file: args.pid_file.clone(),
        preserve_fds: args.preserve_fds.saturating_add(listening()),
        listen_fds: listening(),
        detach: args.detach,
        ignore_paused: args.ignore_paused,
        cgroup: args.cgroup.clone(),
    };
    if args.detach {
        exec(&store, &id, &process, &options)?;
        return Ok(0);
    }
    let signals = Signals::block()?;
    let process = exec(&store, &id, &process, &options)?;
    let code = signals.wait_for(&process)?;
    process.finish();
    u8::try_from(code).context("read exit code")
}

/// The process: from a file, or the container's own with what the options say.
fn process(args: &Args, store: &Store, id: &ContainerId) -> anyhow::Result<OciProcess> {
    if let Some(path) = &args.process {
        let bytes =
            std::fs::read(path).with_context(|| format!("read process: {}", path.display()))?;
        let mut process: OciProcess = super::bundle::parse(&bytes, "/capabilities")
            .with_context(|| format!("read {}: it is not an OCI process", path.display()))?;
        if args.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    if args.command.is_empty() {
        let why = anyhow::anyhow!("exec: {id}: say what to run, or give --process");
        return Err(WithCode::error(2, why));
    }
    let mut process = process_of(store, id)?;
    process.set_args(Some(args.command.clone())).set_terminal(Some(args.tty));
    if args.tty && !process.env().iter().flatten().any(|variable| variable.starts_with("TERM=")) {
        let mut env = process.env().clone().unwrap_or_default();
        env.push("TERM=xterm".to_owned());
        process.set_env(Some(env));
    }
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    let all = ["ALL".to_owned()];
    let capabilities = if args.privileged { &all[..] } else { &args.cap };
    // Not the folder on the host: a root filesystem of layers is mounted in the container alone.
    let rootfs = format!("/proc/{}/root", store.state(id)?.pid);
    super::usage(change_process(
        &mut process,
        rootfs.as_ref(),
        args.user.as_deref(),
        &args.additional_gids,
        (&args.env_file, &args.env),
        capabilities,
    ))?;
    Ok(process)
}
