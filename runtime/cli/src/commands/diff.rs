//! `terrarium diff`: the isolation of two containers side by side.

use super::Format;
use super::leaks::with_code;
use super::terminal::harmless;
use crate::Global;
use anyhow::Context;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terrarium_observatory::leaks::profile::{Profile, against_spec, profile};
use terrarium_observatory::leaks::{Places, Wanted};

/// Exit code when they differ.
const DIFFERENT: u8 = 3;

/// Compare what isolates two running containers: namespaces, ids, capabilities, seccomp, limits, mounts, and findings.
///
/// Any containers of the host, whoever started them; or one with what its spec asks for, or with what it was earlier. Only what differs is shown. Exit code 3 when something does, 0 when
/// nothing does, 1 or 2 when it could not look.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  terrarium diff web db\n  terrarium diff web db --all --format json\n  terrarium diff web --spec\n  terrarium diff web --save then.json; sleep 1h; terrarium diff then.json web"
)]
pub struct Args {
    /// One container, by id, name or the beginning of an id; or a file of `--save`
    one: String,
    /// Another
    #[arg(required_unless_present_any = ["spec", "save"], conflicts_with_all = ["spec", "save"])]
    other: Option<String>,
    /// Compare with what its spec asks for
    #[arg(long)]
    spec: bool,
    /// Keep what isolates it now in a file, to compare with later
    #[arg(long, value_name = "FILE", conflicts_with_all = ["spec", "all", "format"])]
    save: Option<PathBuf>,
    /// Show what is the same as well
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let places = Places::of_host(&std::path::absolute(&global.root).context("find state folder")?);
    let of = |name: &str| -> anyhow::Result<Profile> {
        if Path::new(name).is_file() {
            let text = fs::read(name).with_context(|| format!("read {name}"))?;
            return Profile::read(&text)
                .with_context(|| format!("read {name}: it is no file of `terrarium diff --save`"));
        }
        let found = profile(&places, &Wanted::Named(name.to_owned())).map_err(with_code)?;
        found.with_context(|| format!("look for container {name:?}: it has just ended"))
    };
    if let Some(file) = &args.save {
        let text = serde_json::to_string_pretty(&of(&args.one)?).context("write JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (one, other) = match &args.other {
        Some(other) => (of(&args.one)?, of(other)?),
        None => against_spec(&places, &Wanted::Named(args.one.clone()))
            .map_err(with_code)?
            .with_context(|| format!("compare {:?} with its spec: none can be read", args.one))?,
    };
    let names: BTreeSet<&String> = one.walls.keys().chain(other.walls.keys()).collect();
    let value = |of: &Profile, name: &str| of.walls.get(name).cloned().unwrap_or_default();
    let rows: Vec<[String; 3]> = names
        .into_iter()
        .map(|name| [name.clone(), value(&one, name), value(&other, name)])
        .filter(|[_, a, b]| args.all || a != b)
        .collect();
    let differ = rows.iter().any(|[_, a, b]| a != b);
    match args.format {
        Format::Table if rows.is_empty() => super::print("Nothing that isolates them differs.")?,
        Format::Table => super::print(&table(&one, &other, &rows))?,
        Format::Json => {
            let walls: Vec<_> = rows
                .iter()
                .map(|[wall, a, b]| json!({ "wall": wall, "one": a, "other": b }))
                .collect();
            let both = json!({ "one": one.container, "other": other.container, "walls": walls });
            super::print(&both.to_string())?;
        }
    }
    Ok(if differ { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS })
}

/// Three lines a wall: values are too long to stand beside each other.
fn table(one: &Profile, other: &Profile, rows: &[[String; 3]]) -> String {
    let width = one.container.name.chars().count().max(other.container.name.chars().count());
    let mut text = String::new();
    for [wall, a, b] in rows {
        let _ = writeln!(text, "{}", harmless(wall));
        for (profile, value) in [(one, a), (other, b)] {
            let value = if value.is_empty() { "-" } else { value };
            let name = harmless(&profile.container.name);
            let _ = writeln!(text, "  {name:width$}  {}", harmless(value));
        }
    }
    text.trim_end().to_owned()
}
