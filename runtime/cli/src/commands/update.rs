//! `terrarium update`: new limits for a container that exists.

use crate::Global;
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terrarium_container::{ContainerId, LinuxResources, Store, parse_bytes};

/// Change the limits of a container; all of them are set, or none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  terrarium update --memory 128m --pids-limit 200 web\n  \
                        echo '{\"pids\":{\"limit\":50}}' | terrarium update -r - web")]
pub struct Args {
    /// File with a resources object of the OCI spec; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Memory, such as 32m; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that is kept when memory is scarce
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Length of a CPU period, in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU time in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Share of CPU time, against 1024 of others
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// Use these CPUs only
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Use these memory nodes only
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Number of processes and threads; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Weight of block I/O
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// The container
    id: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    let resources = match &args.resources {
        Some(path) => read(path)?,
        None => serde_json::from_value(flags(args)?).context("read limits")?,
    };
    terrarium_container::update(&Store::open(&global.root)?, &id, &resources)?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<LinuxResources> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("read limits: standard input")?;
    } else {
        text = std::fs::read_to_string(path)
            .with_context(|| format!("read limits: {}", path.display()))?;
    }
    serde_json::from_str(&text)
        .with_context(|| format!("read limits: {}: no OCI resources object", path.display()))
}

fn flags(args: &Args) -> anyhow::Result<Value> {
    let bytes = |option: &'static str, text: &Option<String>| match text.as_deref() {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => super::usage(parse_bytes(option, text)).map(Some),
    };
    let object = |pairs: Vec<(&str, Value)>| {
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_null());
        let map: Map<_, _> = pairs.map(|(name, value)| (name.to_owned(), value)).collect();
        if map.is_empty() { Value::Null } else { Value::Object(map) }
    };
    let memory = object(vec![
        ("limit", json!(bytes("--memory", &args.memory)?)),
        ("swap", json!(bytes("--memory-swap", &args.memory_swap)?)),
        ("reservation", json!(bytes("--memory-reservation", &args.memory_reservation)?)),
    ]);
    let cpu = object(vec![
        ("period", json!(args.cpu_period)),
        ("quota", json!(args.cpu_quota)),
        ("shares", json!(args.cpu_share)),
        ("cpus", json!(args.cpuset_cpus)),
        ("mems", json!(args.cpuset_mems)),
    ]);
    let all = object(vec![
        ("memory", memory),
        ("cpu", cpu),
        ("pids", object(vec![("limit", json!(args.pids_limit))])),
        ("blockIO", object(vec![("weight", json!(args.blkio_weight))])),
    ]);
    Ok(if all.is_null() { json!({}) } else { all })
}
