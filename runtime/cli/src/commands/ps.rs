//! `terrarium ps`: the containers of this state folder.

use super::Format;
use crate::Global;
use anyhow::Context;
use std::io::{self, Write};
use std::process::ExitCode;
use terrarium_container::{ContainerId, State, Store};

/// List containers, those that have stopped and were not removed included.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print; as JSON an array, each element the container's state.json with its status now
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Taken for docker's sake: those that have ended are listed in any case
    #[arg(long, short)]
    all: bool,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// List only what fits: id=, name= (parts are enough), status=, network=, label=KEY or label=KEY=VALUE; of several of
    /// one kind one must fit, of labels all
    #[arg(long, short, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    /// List the processes of this container instead, as OCI engines ask for them
    id: Option<String>,
}

/// One condition of `--filter`.
#[derive(Debug, Clone)]
struct Filter {
    kind: FilterKind,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FilterKind {
    Id,
    Name,
    Status,
    Network,
    Label,
}

impl Filter {
    fn parse(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once('=').unwrap_or((text, ""));
        let kind = match kind {
            "id" => FilterKind::Id,
            "name" => FilterKind::Name,
            "status" => FilterKind::Status,
            "network" => FilterKind::Network,
            "label" => FilterKind::Label,
            _ => return Err("it is none of id=, name=, status=, network= and label=".to_owned()),
        };
        if value.is_empty() {
            return Err("a value is missing after the =".to_owned());
        }
        let statuses = ["creating", "created", "running", "paused", "stopped"];
        if kind == FilterKind::Status && !statuses.contains(&value) {
            return Err(format!("a status is one of {}", statuses.join(", ")));
        }
        Ok(Self { kind, value: value.to_owned() })
    }

    fn fits(&self, state: &State) -> bool {
        let value = self.value.as_str();
        match self.kind {
            FilterKind::Id => state.id.contains(value),
            FilterKind::Name => state.name.contains(value),
            FilterKind::Status => state.status.as_str() == value,
            FilterKind::Network => state.network.as_ref().is_some_and(|network| {
                network.mode == value || network.bridge.as_deref() == Some(value)
            }),
            FilterKind::Label => match value.split_once('=') {
                Some((key, value)) => state.labels.get(key).is_some_and(|has| has == value),
                None => state.labels.contains_key(value),
            },
        }
    }
}

/// Whether of each kind of condition one fits, as docker has it; labels must all fit.
fn fits(state: &State, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| {
        filter.fits(state)
            || filter.kind != FilterKind::Label
                && filters.iter().any(|other| other.kind == filter.kind && other.fits(state))
    })
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    if let Some(id) = &args.id {
        return processes(args.format, id, global);
    }
    let (mut states, errors) = if global.root.is_dir() {
        Store::open(&global.root)?.containers()?
    } else {
        (Vec::new(), Vec::new())
    };
    for state in &mut states {
        state.status = state.observed_status();
    }
    // After the status is that of now.
    states.retain(|state| fits(state, &args.filter));
    let mut out = io::stdout().lock();
    let printed = if args.quiet {
        states.iter().try_for_each(|state| writeln!(out, "{}", state.id))
    } else {
        match args.format {
            Format::Json => {
                let text = serde_json::to_string_pretty(&states).context("write JSON")?;
                writeln!(out, "{text}")
            }
            Format::Table => table(&mut out, &states),
        }
    };
    match printed {
        // Nobody reads on: `terrarium ps | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.context("write to standard output")?,
    }
    for error in &errors {
        eprintln!("terrarium: {error}");
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Host pids of the container's processes.
fn processes(format: Format, id: &str, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(id))?;
    let pids = terrarium_container::processes(&Store::open(&global.root)?, &id)?;
    let text = match format {
        Format::Json => serde_json::to_string(&pids).context("write JSON")?,
        Format::Table => {
            let row = |pid: &i32| {
                let read =
                    |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let words = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
                let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
                let command = if words.is_empty() { format!("[{name}]") } else { words };
                format!("{pid:<8} {}", super::terminal::harmless(command.trim_end()))
            };
            let head = format!("{:<8} COMMAND", "PID");
            std::iter::once(head).chain(pids.iter().map(row)).collect::<Vec<_>>().join("\n")
        }
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(out: &mut impl Write, states: &[State]) -> io::Result<()> {
    let rows: Vec<[String; 7]> = states.iter().map(row).collect();
    let head = ["ID", "STATUS", "PID", "ADDRESS", "PORTS", "CREATED", "COMMAND"].map(str::to_owned);
    let mut widths = [0; 7];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn row(state: &State) -> [String; 7] {
    let status = match state.exit_code {
        Some(code) => format!("{} ({code})", state.status.as_str()),
        None => state.status.as_str().to_owned(),
    };
    let dash = || "-".to_owned();
    let alive = state.is_alive();
    let address = state.network.as_ref().and_then(|network| network.address.clone());
    let ports = state.network.as_ref().map(|network| network.ports.join(", "));
    // Seconds are enough for people.
    let created = state.created.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let command: String = state.command.join(" ").chars().filter(|c| !c.is_control()).collect();
    let command = match command.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command,
    };
    [
        state.id.clone(),
        status,
        if alive { state.pid.to_string() } else { dash() },
        address.unwrap_or_else(dash),
        ports.filter(|ports| !ports.is_empty()).unwrap_or_else(dash),
        created.replace('T', " "),
        command,
    ]
}
