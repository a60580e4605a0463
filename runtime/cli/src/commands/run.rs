//! `terrarium run`: a container from a folder, in the foreground or behind a supervisor.

use super::Format;
use super::audit::{Audit, AuditArgs};
use super::bundle::BundleArgs;
use super::explain::Explanation;
use super::image::{ForRun, Location};
use super::stop;
use crate::Global;
use crate::exit::WithCode;
use anyhow::Context;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terrarium_container::{
    CgroupDriver, Container, ContainerId, CreateOptions, Error, Fork, NamespaceChoice,
    NetworkOptions, RestartPolicy, RunOptions, SignalNumber, Signals, Store,
};

/// Exit code for failures of terrarium's own.
const OWN_FAILURE: u8 = 125;

/// Run a command in a new container.
///
/// The exit code is the command's own; 125 when terrarium failed, 126 when the command cannot be executed, 127 when
/// it was not found, 128 + n when signal n ended it.
#[derive(Debug, clap::Args)]
pub struct Args {
    // First, because each field takes its own away.
    #[command(flatten)]
    given: Given,
    /// Name, and id, of the container; 12 random hexadecimal digits if not given
    #[arg(long)]
    name: Option<String>,
    /// Run it behind a supervisor and print its id; its output goes to container.log in its folder
    #[arg(long, short)]
    detach: bool,
    /// Forget the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Start it again when it has ended, after a pause that doubles from 0.1 s to a minute: `no`, `on-failure[:N]` or `always`
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// How much of what it writes is kept for `logs`: `max-size=SIZE`, -1 for all; 16m if not given
    #[arg(long, value_name = "KEY=VALUE", requires = "detach")]
    log_opt: Vec<LogOption>,
    /// Write its id there; the file must not exist
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Print each step of making it to standard error, with what one would type for it in a shell, what it cost, and the
    /// event that an observatory saw for it
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "table", value_name = "FORMAT")]
    explain: Option<Format>,
    /// Limit memory, such as 32m or 1g (no swap unless --memory-swap says so)
    #[arg(long, short, value_name = "BYTES", help_heading = "Limits")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, help_heading = "Limits")]
    memory_swap: Option<String>,
    /// Memory that it may keep when the host runs short
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    memory_reservation: Option<String>,
    /// Weight of its CPU time where CPUs are short, from 2 to 262144 [default: 1024]
    #[arg(long, short = 'c', value_name = "N", help_heading = "Limits")]
    cpu_shares: Option<u64>,
    /// Use these memory nodes only, such as 0-1
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_mems: Option<String>,
    /// Weight of its block I/O, from 10 to 1000
    #[arg(long, value_name = "N", help_heading = "Limits")]
    blkio_weight: Option<u16>,
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
    /// Set a resource limit of processes (getrlimit(2)); -1 for none
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Limits")]
    ulimit: Vec<String>,
    /// How readily the OOM killer takes its processes, from -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    oom_score_adj: Option<i32>,
    /// Make the container's cgroups below this one [default: /terrarium]
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    cgroup_parent: Option<PathBuf>,
    /// Network: none, host, bridge, bridge:NAME, container:ID, ns:PATH, or without root pasta or slirp4netns [default: none]
    #[arg(long, alias = "network", value_name = "NETWORK", help_heading = "Network")]
    net: Option<String>,
    /// Subnet of a bridge that does not exist yet [default: 10.77.0.0/16]
    #[arg(long, value_name = "SUBNET", env = "TERRARIUM_SUBNET", help_heading = "Network")]
    subnet: Option<String>,
    /// Address on the bridge, instead of the next free one
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    ip: Option<String>,
    /// IPv6 address on the bridge, instead of the next free one
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    ip6: Option<String>,
    /// Link address of eth0 [default: made from the address]
    #[arg(long, alias = "mac-address", value_name = "MAC", help_heading = "Network")]
    mac: Option<String>,
    /// Lead a port of the host to one of the container; both may be ranges
    #[arg(long, short, value_name = "[IP:]HOST:CONTAINER[/udp]", help_heading = "Network")]
    publish: Vec<String>,
    /// Name server, instead of the host's
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    dns: Vec<String>,
    /// Another line of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    add_host: Vec<String>,
    /// Host name inside [default: the id's first 12 characters]
    #[arg(long, help_heading = "Network")]
    hostname: Option<String>,
    /// Set an environment variable, or pass the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]", help_heading = "Program")]
    env: Vec<String>,
    /// Set the environment variables of a file, a line NAME=VALUE or NAME each
    #[arg(long, value_name = "FILE", help_heading = "Program")]
    env_file: Vec<PathBuf>,
    /// Signal by which `stop` asks the program to end [default: TERM]
    #[arg(long, value_name = "SIGNAL", help_heading = "Program")]
    stop_signal: Option<String>,
    /// Seconds that `stop` gives it before KILL [default: 10]
    #[arg(long, value_name = "SECONDS", help_heading = "Program")]
    stop_timeout: Option<u32>,
    /// Working folder inside
    #[arg(long, short, value_name = "PATH", help_heading = "Program")]
    workdir: Option<PathBuf>,
    /// User and group inside, by name or number
    #[arg(long, short, value_name = "USER[:GROUP]", help_heading = "Program")]
    user: Option<String>,
    /// More groups for the program, by name or number
    #[arg(long, value_name = "GROUP", help_heading = "Program")]
    group_add: Vec<String>,
    /// Program to run, instead of the image's; CMD becomes its arguments
    #[arg(long, value_name = "PROGRAM", help_heading = "Program")]
    entrypoint: Option<String>,
    /// Have a tiny init as the first process, which reaps orphans and passes signals on to the program
    #[arg(long, help_heading = "Program")]
    init: bool,
    /// Show a file or folder of the host inside
    #[arg(long, short, value_name = "HOST:CONTAINER[:ro]", help_heading = "Filesystem")]
    volume: Vec<String>,
    /// Put an empty tmpfs there
    #[arg(long, value_name = "PATH[:OPTIONS]", help_heading = "Filesystem")]
    tmpfs: Vec<String>,
    /// Mount something: type=bind|tmpfs,source=HOST,target=PATH, and more
    #[arg(long, value_name = "FIELDS", help_heading = "Filesystem")]
    mount: Vec<String>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES", help_heading = "Filesystem")]
    shm_size: Option<String>,
    /// Give a device of the host, to read, write and make nodes unless fewer of r, w, m are given
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]", help_heading = "Filesystem")]
    device: Vec<String>,
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
    /// Share the process ids of the host or of another container
    #[arg(long, value_name = "private|host|container:ID", help_heading = "Isolation")]
    pid: Option<String>,
    /// Share System V IPC and message queues with the host or another container, /dev/shm with the host
    #[arg(long, value_name = "private|host|container:ID", help_heading = "Isolation")]
    ipc: Option<String>,
    /// Share the host name, with the host or another container
    #[arg(long, value_name = "private|host|container:ID", help_heading = "Isolation")]
    uts: Option<String>,
    /// See the host's cgroups, or those that another container sees
    #[arg(long, value_name = "private|host|container:ID", help_heading = "Isolation")]
    cgroupns: Option<String>,
    /// Give a capability besides the default ones, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    cap_drop: Vec<String>,
    /// Give every capability and every device of the host, mask nothing, filter no system calls
    #[arg(long, help_heading = "Isolation")]
    privileged: bool,
    /// no-new-privileges[=false], seccomp=unconfined|FILE, systempaths=unconfined, apparmor=PROFILE, label=disable
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
    #[command(flatten)]
    images: Location,
    #[command(flatten)]
    bundle: BundleArgs,
    /// Keep the state of a bundle's container when it has ended
    #[arg(long, help_heading = "Bundle")]
    keep: bool,
    /// Become the parent of its processes that lose theirs, and reap them, where it has no pid namespace of its own
    #[arg(
        long,
        help_heading = "Program",
        overrides_with = "no_subreaper",
        conflicts_with = "detach"
    )]
    subreaper: bool,
    /// That is the default; taken for runc's sake
    #[arg(long, help_heading = "Program", overrides_with = "subreaper", hide = true)]
    no_subreaper: bool,
    /// Give the program a terminal
    #[arg(long, short, help_heading = "Program")]
    tty: bool,
    /// Standard input is always passed on; taken for docker's sake
    #[arg(long, short, help_heading = "Program")]
    interactive: bool,
    #[command(flatten)]
    audit: AuditArgs,
    /// Name of an image, or a folder that holds the container's files; with --bundle, or in a folder with config.json, the container's id
    #[arg(value_name = "ROOTFS")]
    rootfs: PathBuf,
    /// Command and its arguments
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// What goes with a bundle; all else is for its config.json to say.
const WITH_BUNDLE: [&str; 16] = [
    "bundle", "pid_file", "console_socket", "preserve_fds", "no_pivot", "no_new_keyring", "keep",
    "subreaper", "no_subreaper", "detach", "rm", "audit", "assert_clean", "observatory",
    "http_config", "rootfs",
];

/// The arguments that were given, by the names of their fields.
#[derive(Debug)]
struct Given(Vec<String>);

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |id: &&clap::Id| {
            let source = matches.value_source(id.as_str());
            // Groups have names of types.
            source == Some(ValueSource::CommandLine) && !id.as_str().starts_with(char::is_uppercase)
        };
        Ok(Self(matches.ids().filter(given).map(|id| id.as_str().to_owned()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Given {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

impl Args {
    /// Whether this is the OCI command: an id and a bundle.
    fn is_bundle(&self) -> bool {
        self.bundle.bundle.is_some()
            || self.command.is_empty()
                && self.beside_bundle().is_none()
                && !self.rootfs.is_dir()
                && Path::new("config.json").is_file()
    }

    /// What was given that does not go with a bundle.
    fn beside_bundle(&self) -> Option<String> {
        let beside = self.given.0.iter().find(|given| !WITH_BUNDLE.contains(&given.as_str()))?;
        Some(match beside.as_str() {
            "command" => "a command".to_owned(),
            option => format!("--{}", option.replace('_', "-")),
        })
    }

    /// The OCI command, which [`Self::is_bundle`] says that this is.
    pub(super) fn of_bundle(&self) -> anyhow::Result<OfBundle> {
        if let Some(option) = self.beside_bundle() {
            let error = anyhow::anyhow!(
                "run a bundle: {option} is for root filesystems and images; here config.json says it (terrarium spec makes one)"
            );
            return Err(WithCode::error(2, error));
        }
        let id = self.rootfs.to_str().context("read id: it is not UTF-8")?.to_owned();
        Ok(OfBundle {
            bundle: self.bundle.clone(),
            id,
            detach: self.detach,
            keep: self.keep,
            subreaper: self.subreaper,
        })
    }

    fn options(
        &self,
        store: &Store,
        image: Option<&ForRun>,
        cgroups: CgroupDriver,
    ) -> anyhow::Result<RunOptions> {
        let (network, files_of) =
            match self.net.as_deref().and_then(|n| n.strip_prefix("container:")) {
                None => (self.net.clone(), None),
                Some(id) => (
                    Some(format!("ns:/proc/{}/ns/net", running_pid(store, "--net", id)?)),
                    Some(super::named(store, id)?.to_string()),
                ),
            };
        let choice = |option, value| namespace_choice(store, option, value);
        Ok(RunOptions {
            rootfs: image.map_or_else(|| self.rootfs.clone(), |image| image.layers().root()),
            layers: image.map(|image| image.layers().lower.clone()).unwrap_or_default(),
            image_env: image.map(ForRun::env).unwrap_or_default(),
            args: match (&self.entrypoint, image) {
                (Some(program), _) if !program.is_empty() => {
                    std::iter::once(program).chain(&self.command).cloned().collect()
                }
                // An empty one takes the image's away.
                (None, Some(image)) => image.command(&self.command),
                _ => self.command.clone(),
            },
            cgroups,
            memory_reservation: self.memory_reservation.clone(),
            cpu_shares: self.cpu_shares,
            cpuset_mems: self.cpuset_mems.clone(),
            blkio_weight: self.blkio_weight,
            group_add: self.group_add.clone(),
            privileged: self.privileged,
            init: self.init,
            hostname: self.hostname.clone(),
            env: self.env.clone(),
            workdir: self.workdir.clone().or_else(|| image?.workdir()),
            user: self.user.clone().or_else(|| image?.user()),
            memory: self.memory.clone(),
            memory_swap: self.memory_swap.clone(),
            cpus: self.cpus.clone(),
            cpuset_cpus: self.cpuset_cpus.clone(),
            pids: self.pids.clone(),
            network,
            network_options: NetworkOptions {
                ip: self.ip.clone(),
                ip6: self.ip6.clone(),
                files_of,
                mac: self.mac.clone(),
                dns: self.dns.clone(),
                hosts: self.add_host.clone(),
                publish: self.publish.clone(),
            },
            pid: choice("--pid", self.pid.as_deref())?,
            ipc: choice("--ipc", self.ipc.as_deref())?,
            uts: choice("--uts", self.uts.as_deref())?,
            cgroupns: choice("--cgroupns", self.cgroupns.as_deref())?,
            env_files: self.env_file.clone(),
            mounts: self.mount.clone(),
            shm_size: self.shm_size.clone(),
            devices: self.device.clone(),
            ulimits: self.ulimit.clone(),
            oom_score_adj: self.oom_score_adj,
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
            annotations: self.annotations(image)?,
        })
    }

    fn annotations(&self, image: Option<&ForRun>) -> anyhow::Result<Vec<String>> {
        let mut all = self.annotation.clone();
        if let Some(signal) = self.stop_signal.clone().or_else(|| image?.stop_signal()) {
            SignalNumber::parse(&signal)?;
            all.push(format!("{}={signal}", stop::ANNOTATION_SIGNAL));
        }
        if let Some(seconds) = self.stop_timeout {
            all.push(format!("{}={seconds}", stop::ANNOTATION_TIMEOUT));
        }
        Ok(all)
    }
}

/// Reads `private`, `host`, or `container:ID`.
fn namespace_choice(
    store: &Store,
    option: &'static str,
    value: Option<&str>,
) -> anyhow::Result<NamespaceChoice> {
    let Some(value) = value.filter(|value| *value != "private") else {
        return Ok(NamespaceChoice::Own);
    };
    if value == "host" {
        return Ok(NamespaceChoice::Host);
    }
    let Some(id) = value.strip_prefix("container:") else {
        let error =
            anyhow::anyhow!("{option} {value:?}: the form is private, host or container:ID");
        return Err(WithCode::error(2, error));
    };
    running_pid(store, option, id).map(NamespaceChoice::OfProcess)
}

/// The first process of the container whose namespace is to be shared.
fn running_pid(store: &Store, option: &'static str, id: &str) -> anyhow::Result<i32> {
    let state = store.state(&super::named(store, id)?)?;
    if !state.is_alive() {
        anyhow::bail!(
            "{option} container:{id}: it is {}, and namespaces are those of a living process (start it first)",
            state.observed_status().as_str()
        );
    }
    Ok(state.pid)
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let result = if args.is_bundle() {
        args.of_bundle().and_then(|of| {
            from_bundle(&of, global, |store, signals, container| {
                supervise_audited(store, signals, container, &args.audit)
            })
        })
    } else if args.detach {
        detached(args, global)
    } else {
        foreground(args, global)
    };
    result.map(ExitCode::from).map_err(with_code)
}

/// What `run` takes of OCI engines.
#[derive(Debug)]
pub struct OfBundle {
    /// The bundle and what goes with it.
    pub bundle: BundleArgs,
    /// Id of the new container.
    pub id: String,
    /// Whether not to wait for its end.
    pub detach: bool,
    /// Whether its state stays when it has ended.
    pub keep: bool,
    /// Whether who runs it becomes the parent of its orphans.
    pub subreaper: bool,
}

/// `run` as OCI engines call it.
pub fn of_bundle(args: &OfBundle, global: &Global) -> anyhow::Result<ExitCode> {
    from_bundle(args, global, supervise).map(ExitCode::from).map_err(with_code)
}

/// `supervise` waits for its end; the program for engines has none that audits.
fn from_bundle(
    args: &OfBundle,
    global: &Global,
    supervise: impl FnOnce(&Store, &Signals, Container) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    let id = ContainerId::new(args.id.as_str())?;
    let (bundle, spec) = args.bundle.spec()?;
    let store = Store::open(&global.root)?;
    let options = args.bundle.options(bundle, global)?;
    if args.detach {
        let options = CreateOptions { leave: true, ..options };
        Container::create(&store, &id, spec, &options)?.leave(options.pid_file.as_deref())?;
        let started = terrarium_container::start(&store, &id);
        if started.is_err() {
            // The first error is what the user needs; gc tries again what fails here.
            let _ = terrarium_container::delete(&store, &id, true);
        }
        started?;
        return Ok(0);
    }
    let options = CreateOptions { supervised: true, remove: !args.keep, ..options };
    let signals = held_back(args.subreaper)?;
    let mut container = Container::create(&store, &id, spec, &options)?;
    if let Some(path) = &options.pid_file {
        container.write_pid_file(path)?;
    }
    container.start()?;
    supervise(&store, &signals, container)
}

/// Signals, held back for who waits for a container; `subreaper`: and for its orphans.
fn held_back(subreaper: bool) -> anyhow::Result<Signals> {
    let signals = Signals::block()?;
    if subreaper {
        signals.adopt_orphans()?;
    }
    Ok(signals)
}

/// Binds the exit code of `run` to `error`.
fn with_code(error: anyhow::Error) -> anyhow::Error {
    if error.is::<WithCode>() { error } else { WithCode::error(exit_code(&error), error) }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(with) = error.downcast_ref::<WithCode>() {
        return with.code();
    }
    error.downcast_ref::<Error>().map_or(OWN_FAILURE, Error::run_exit_code)
}

fn foreground(args: &Args, global: &Global) -> anyhow::Result<u8> {
    let signals = held_back(args.subreaper)?;
    let container = create(args, global)?;
    supervise_audited(&Store::open(&global.root)?, &signals, container, &args.audit)
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
                    supervise_audited(&Store::open(&global.root)?, &signals, container, &args.audit)
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
    let restart = super::usage(RestartPolicy::parse(args.restart.as_deref().unwrap_or("no")))?;
    if restart != RestartPolicy::No && args.rm {
        let error = anyhow::anyhow!(
            "--restart {restart}: it does not go with --rm, which forgets the container at its end"
        );
        return Err(WithCode::error(2, error));
    }
    let store = Store::open(&global.root)?;
    if let Some(name) = &args.name
        && let Some(other) = super::with_name(&store, name)?.filter(|state| &state.id != name)
    {
        anyhow::bail!("--name {name}: container {} has that name (rename it)", other.id);
    }
    let image = ForRun::find(&args.rootfs, &args.images, &store, &id)?;
    let mut labels = image.as_ref().map(ForRun::labels).unwrap_or_default();
    for text in &args.label {
        // As docker does: a label without a value is an empty one.
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            let error = anyhow::anyhow!("--label {text:?}: the form is KEY=VALUE");
            return Err(WithCode::error(2, error));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    let cgroups = global.cgroup_driver()?;
    let mut spec = args.options(&store, image.as_ref(), cgroups)?.to_spec(&id)?;
    if args.tty
        && let Some(process) = spec.process_mut()
    {
        process.set_terminal(Some(true));
    }
    let options = CreateOptions {
        name: args.name.clone(),
        labels,
        image: image.as_ref().map(|image| image.name().to_owned()).unwrap_or_default(),
        layers: image.as_ref().map(|image| image.layers().clone()),
        supervised: true,
        remove: args.rm,
        log_output: args.detach,
        log_bytes: args.log_opt.last().map(|option| option.keep),
        restart,
        cgroups,
        ..CreateOptions::default()
    };
    let id_file = args.cidfile.as_deref().map(IdFile::create).transpose()?;
    let explain = |format| {
        args.audit.observatory().map(|asked| Explanation::begin(format, asked, id.as_str()))
    };
    let mut explanation = args.explain.map(explain).transpose()?;
    let mut container = Container::create(&store, &id, Box::new(spec), &options)?;
    if let Some(path) = &args.bundle.pid_file {
        container.write_pid_file(path)?;
    }
    if let Some(explanation) = &mut explanation {
        // Before the program writes anything of its own.
        container.prepare()?;
        explanation.print();
    }
    container.start()?;
    if let Some(explanation) = &mut explanation {
        explanation.print();
        explanation.end();
    }
    if let Some(file) = id_file {
        file.keep(&id)?;
    }
    Ok(container)
}

/// What `--log-opt` says.
#[derive(Debug, Clone, Copy)]
struct LogOption {
    /// Bytes; 0 for all.
    keep: u64,
}

impl std::str::FromStr for LogOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.strip_prefix("max-size=").ok_or("the only option is max-size=SIZE")?;
        if size == "-1" {
            return Ok(Self { keep: 0 });
        }
        let size = terrarium_container::parse_bytes("max-size", size);
        let size = size.map_err(|error| error.to_string())?;
        match u64::try_from(size) {
            Ok(keep) if keep >= SMALLEST_LOG => Ok(Self { keep }),
            _ => Err("the least is 64k".to_owned()),
        }
    }
}

/// Fewer bytes of a log cannot be kept: it is cut at this granularity.
const SMALLEST_LOG: u64 = 64 << 10;

/// The file of `--cidfile`; removed again where there will be no container.
struct IdFile<'a> {
    path: &'a Path,
    file: Option<std::fs::File>,
}

impl<'a> IdFile<'a> {
    fn create(path: &'a Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create_new(path)
            .with_context(|| format!("create --cidfile: {}", path.display()))?;
        Ok(Self { path, file: Some(file) })
    }

    fn keep(mut self, id: &ContainerId) -> anyhow::Result<()> {
        use std::io::Write;
        let file = self.file.take();
        file.map_or(Ok(()), |mut file| file.write_all(id.as_str().as_bytes()))
            .with_context(|| format!("write --cidfile: {}", self.path.display()))
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The error for want of which there is no container is what the user needs.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn supervise(store: &Store, signals: &Signals, container: Container) -> anyhow::Result<u8> {
    let code = terrarium_container::supervise(store, signals, container)?;
    u8::try_from(code).context("read exit code")
}

fn supervise_audited(
    store: &Store,
    signals: &Signals,
    container: Container,
    audit: &AuditArgs,
) -> anyhow::Result<u8> {
    let audit = audit.begin(container.root(), container.id().as_str());
    // Its end takes away what says what it had.
    let ended = audit.as_ref().map(Audit::ended);
    let code = terrarium_container::supervise(store, signals, container)?;
    if let (Some(audit), Some(ended)) = (audit, ended) {
        audit.finish(ended, code)?;
    }
    u8::try_from(code).context("read exit code")
}

/// Starts a container anew that `run` made and that has stopped, behind a supervisor.
pub fn start_again(store: &Store, id: &ContainerId) -> anyhow::Result<()> {
    match terrarium_container::fork_supervisor()? {
        Fork::Caller(report) => match report.read()? {
            Ok(_) => Ok(()),
            Err((code, text)) => Err(WithCode::error(code, anyhow::Error::msg(text))),
        },
        Fork::Supervisor(report) => {
            let again = || {
                let signals = Signals::block()?;
                Ok((signals, terrarium_container::again(store, id, 0, true)?))
            };
            let code = match again() {
                Ok((signals, container)) => {
                    report.started(id.as_str())?;
                    supervise(store, &signals, container)?
                }
                Err(error) => {
                    report.failed(exit_code(&error), &format!("{error:#}"))?;
                    OWN_FAILURE
                }
            };
            // The caller's work is the caller's.
            std::process::exit(code.into())
        }
    }
}
