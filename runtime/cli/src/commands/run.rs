//! `terrarium run`: a container from a folder, in the foreground or behind a supervisor.

use crate::Global;
use crate::exit::WithCode;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use terrarium_container::{
    Container, ContainerId, CreateOptions, Error, Fork, RunOptions, Signals, Store,
};

/// Exit code for failures of terrarium's own.
const OWN_FAILURE: u8 = 125;

/// Run a command in a new container.
///
/// The exit code is the command's own; 125 when terrarium failed, 126 when the command cannot be executed, 127 when
/// it was not found, 128 + n when signal n ended it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, and id, of the container; 12 random hexadecimal digits if not given
    #[arg(long)]
    name: Option<String>,
    /// Run it behind a supervisor and print its id; its output goes to container.log in its folder
    #[arg(long, short)]
    detach: bool,
    /// Forget the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Limit memory, such as 32m or 1g (no swap unless --memory-swap says so)
    #[arg(long, short, value_name = "BYTES", help_heading = "Limits")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, help_heading = "Limits")]
    memory_swap: Option<String>,
    /// Limit CPU time, in CPUs, such as 1.5
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    cpus: Option<String>,
    /// Use these CPUs only, such as 0-2,5
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_cpus: Option<String>,
    /// Limit the number of processes and threads; -1 for no limit
    #[arg(
        long,
        alias = "pids-limit",
        value_name = "N",
        allow_hyphen_values = true,
        help_heading = "Limits"
    )]
    pids: Option<String>,
    /// Make the container's cgroups below this one [default: /terrarium]
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    cgroup_parent: Option<PathBuf>,
    /// Network: none, host, bridge, bridge:NAME or ns:PATH [default: none]
    #[arg(long, alias = "network", value_name = "NETWORK", help_heading = "Network")]
    net: Option<String>,
    /// Subnet of a bridge that does not exist yet [default: 10.77.0.0/16]
    #[arg(long, value_name = "SUBNET", env = "TERRARIUM_SUBNET", help_heading = "Network")]
    subnet: Option<String>,
    /// Host name inside [default: the id's first 12 characters]
    #[arg(long, help_heading = "Network")]
    hostname: Option<String>,
    /// Set an environment variable, or pass the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]", help_heading = "Program")]
    env: Vec<String>,
    /// Working folder inside
    #[arg(long, short, value_name = "PATH", help_heading = "Program")]
    workdir: Option<PathBuf>,
    /// User and group inside, by name or number
    #[arg(long, short, value_name = "USER[:GROUP]", help_heading = "Program")]
    user: Option<String>,
    /// Show a file or folder of the host inside
    #[arg(long, short, value_name = "HOST:CONTAINER[:ro]", help_heading = "Filesystem")]
    volume: Vec<String>,
    /// Put an empty tmpfs there
    #[arg(long, value_name = "PATH[:OPTIONS]", help_heading = "Filesystem")]
    tmpfs: Vec<String>,
    /// Make the root filesystem read-only
    #[arg(long, help_heading = "Filesystem")]
    read_only: bool,
    /// Make a user namespace: `auto`, or the host's first id and how many
    #[arg(
        long,
        value_name = "HOSTID[:SIZE]",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto",
        help_heading = "Isolation"
    )]
    userns: Option<String>,
    /// Give a capability besides the default ones, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    cap_drop: Vec<String>,
    /// no-new-privileges[=false], seccomp=unconfined, seccomp=FILE
    #[arg(long, value_name = "OPTION", help_heading = "Isolation")]
    security_opt: Vec<String>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Isolation")]
    sysctl: Vec<String>,
    /// Label for people and dashboards
    #[arg(long, short, value_name = "KEY=VALUE", help_heading = "Metadata")]
    label: Vec<String>,
    /// Annotation of the OCI spec
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Metadata")]
    annotation: Vec<String>,
    /// Folder that holds the container's files
    #[arg(value_name = "ROOTFS")]
    rootfs: PathBuf,
    /// Command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

impl Args {
    fn options(&self) -> RunOptions {
        RunOptions {
            rootfs: self.rootfs.clone(),
            args: self.command.clone(),
            hostname: self.hostname.clone(),
            env: self.env.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            memory: self.memory.clone(),
            memory_swap: self.memory_swap.clone(),
            cpus: self.cpus.clone(),
            cpuset_cpus: self.cpuset_cpus.clone(),
            pids: self.pids.clone(),
            network: self.net.clone(),
            subnet: self.subnet.clone(),
            volumes: self.volume.clone(),
            tmpfs: self.tmpfs.clone(),
            read_only: self.read_only,
            userns: self.userns.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            security: self.security_opt.clone(),
            sysctl: self.sysctl.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            annotations: self.annotation.clone(),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let result = if args.detach { detached(args, global) } else { foreground(args, global) };
    result.map(ExitCode::from).map_err(with_code)
}

/// Binds the exit code of `run` to `error`.
fn with_code(error: anyhow::Error) -> anyhow::Error {
    if error.is::<WithCode>() { error } else { WithCode::error(exit_code(&error), error) }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Error>().map_or(OWN_FAILURE, Error::run_exit_code)
}

fn foreground(args: &Args, global: &Global) -> anyhow::Result<u8> {
    let signals = Signals::block()?;
    let container = create(args, global)?;
    supervise(&signals, container)
}

/// Forks a supervisor, which does what `foreground` does; waits until the program was executed.
fn detached(args: &Args, global: &Global) -> anyhow::Result<u8> {
    match terrarium_container::fork_supervisor()? {
        Fork::Caller(report) => match report.read()? {
            Ok(id) => {
                println!("{id}");
                Ok(0)
            }
            Err((code, text)) => Err(WithCode::error(code, anyhow::Error::msg(text))),
        },
        Fork::Supervisor(report) => {
            let started = (|| Ok((Signals::block()?, create(args, global)?)))();
            match started {
                Ok((signals, container)) => {
                    report.started(container.id().as_str())?;
                    supervise(&signals, container)
                }
                Err(error) => {
                    report.failed(exit_code(&error), &format!("{error:#}"))?;
                    Ok(exit_code(&error))
                }
            }
        }
    }
}

/// Makes and starts the container.
fn create(args: &Args, global: &Global) -> anyhow::Result<Container> {
    let id = match &args.name {
        Some(name) => ContainerId::new(name.as_str())?,
        None => ContainerId::generate(),
    };
    let mut labels = BTreeMap::new();
    for text in &args.label {
        // As docker does: a label without a value is an empty one.
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        labels.insert(key.to_owned(), value.to_owned());
    }
    let spec = args.options().to_spec(&id)?;
    let store = Store::open(&global.root)?;
    let options = CreateOptions {
        name: args.name.clone(),
        labels,
        supervised: true,
        remove: args.rm,
        log_output: args.detach,
        ..CreateOptions::default()
    };
    let mut container = Container::create(&store, &id, &spec, &options)?;
    container.start()?;
    Ok(container)
}

fn supervise(signals: &Signals, container: Container) -> anyhow::Result<u8> {
    let code = signals.wait_for(&container)?;
    container.finish(code)?;
    u8::try_from(code).context("read exit code")
}
