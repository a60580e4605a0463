//! `terrarium events`: the events of a running observatory, by its HTTP side.

use super::Format;
use super::ask::{Endpoint, Guard, NobodyListens, URL, percent};
use super::terminal::{harmless, is_harmful};
use crate::Global;
use crate::exit::WithCode;
use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use terrarium_container::{ContainerId, Error, Store};
use terrarium_observatory::event::select::{Query, Selection};
use terrarium_observatory::event::store;
use terrarium_observatory::probe::plan::probe_by_name;

/// Print the events that the observatory has seen
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Only events of the container with this name, id or cgroup path; `host` for those of none
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Only events of this probe
    #[arg(long, value_name = "PROBE")]
    probe: Option<String>,
    /// Only events of this type, as mount.bind, or of all whose type begins so, as mount
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only events of what failed with this error, as EPERM
    #[arg(long, value_name = "ERRNO")]
    errno: Option<String>,
    /// Only events from then on: a time, or how long ago, as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Read what an observatory keeps in this folder, running or not
    #[arg(long, value_name = "DIR", conflicts_with = "follow")]
    history: Option<PathBuf>,
    /// How to print; as JSON a line an event, as the observatory writes them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// What a container of terrarium's uses now, as JSON, without an observatory
    #[arg(long, requires = "id")]
    stats: bool,
    /// Print that again and again, each time after so long
    #[arg(long, value_name = "TIME", default_value = "5s", requires = "id")]
    interval: String,
    /// The container, for OCI engines: its statistics at every interval, or once with --stats
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Where the observatory listens
    #[arg(long, visible_alias = "url", value_name = "URL", default_value = URL)]
    observatory: String,
    #[command(flatten)]
    guard: Guard,
}

/// How long after the kernel killed for want of memory it is told.
const OOM_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the command.
pub fn run(args: &Events, global: &Global) -> anyhow::Result<ExitCode> {
    if let Some(id) = &args.id {
        return statistics(args, id, global);
    }
    if let Some(probe) = &args.probe {
        probe_by_name(probe).map_err(|e| WithCode::error(2, anyhow!("--probe {probe}: {e}")))?;
    }
    let query = query(args);
    let selection = query.clone().selection().map_err(|e| WithCode::error(2, anyhow!("--{e}")))?;
    let mut out = std::io::stdout().lock();
    let mut wants_header = args.format == Format::Table;
    let mut print = |line: &str| {
        if std::mem::take(&mut wants_header) {
            writeln!(out, "{}", header())?;
        }
        let text = match args.format {
            Format::Json => harmless_json(line),
            Format::Table => match serde_json::from_str(line) {
                Ok(event) => row(&event),
                Err(error) => return Err(std::io::Error::other(format!("not an event: {error}"))),
            },
        };
        writeln!(out, "{text}").and_then(|()| out.flush())
    };
    let usual = Path::new(super::observe::HISTORY);
    // A time in the past is what the history is for; a running observatory remembers the last minutes only.
    let stored = match &args.history {
        Some(folder) => Some(folder.as_path()),
        None if args.follow || args.since.is_none() && args.until.is_none() => None,
        None => Some(usual).filter(|folder| folder.is_dir()),
    };
    if let Some(folder) = stored {
        return from_store(folder, &selection, &mut print);
    }
    let observatory = Endpoint::new("--observatory", &args.observatory, &args.guard)?;
    let address = observatory.address();
    let mut lines = match observatory.request(&path(args), "events") {
        Ok(lines) => lines,
        // One that was named is not replaced by another's history.
        Err(error)
            if !args.follow
                && args.observatory == URL
                && error.is::<NobodyListens>()
                && usual.is_dir() =>
        {
            eprintln!("terrarium: {error:#}; these are the events that it kept");
            return from_store(usual, &selection, &mut print);
        }
        Err(error) => return Err(error),
    };
    let mut line = String::new();
    loop {
        line.clear();
        let read =
            lines.read_line(&mut line).with_context(|| format!("read events from {address}"))?;
        if read == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        if let Err(error) = print(line.trim_end()) {
            return closed(error);
        }
    }
}

/// What is asked for, in the terms of the HTTP side.
fn query(args: &Events) -> Query {
    Query {
        follow: Some(args.follow),
        container: args.container.clone(),
        probe: args.probe.clone(),
        errno: args.errno.clone(),
        kind: args.kind.clone(),
        since: args.since.clone(),
        until: args.until.clone(),
    }
}

/// Prints what an observatory has kept on disk.
fn from_store(
    folder: &Path,
    selection: &Selection,
    print: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut closed_early = None;
    let result = store::read(folder, selection, &mut |line| {
        print(line).inspect_err(|error| closed_early = Some(error.kind()))
    });
    match result {
        Err(_) if closed_early == Some(ErrorKind::BrokenPipe) => Ok(ExitCode::SUCCESS),
        result => result
            .map(|()| ExitCode::SUCCESS)
            .with_context(|| format!("read the events kept in {}", folder.display())),
    }
}

/// `events ID` as OCI engines call it: runc's JSON, an object a line.
fn statistics(args: &Events, id: &str, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(id))?;
    let number = args.interval.strip_suffix("ms").map(|n| (n, 1));
    let number = number.or(args.interval.strip_suffix('s').map(|n| (n, 1000)));
    let milliseconds = number.and_then(|(n, unit)| n.parse::<u64>().ok()?.checked_mul(unit));
    let Some(milliseconds) = milliseconds.filter(|&n| n > 0) else {
        let why = anyhow::anyhow!("--interval {:?}: the form is 5s or 500ms", args.interval);
        return Err(WithCode::error(2, why));
    };
    let store = Store::open(&global.root)?;
    super::print(&terrarium_container::stats(&store, &id)?.to_string())?;
    if args.stats {
        return Ok(ExitCode::SUCCESS);
    }
    let mut kills = terrarium_container::oom_kills(&store, &id).unwrap_or(0);
    loop {
        let next = Instant::now() + Duration::from_millis(milliseconds);
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(OOM_INTERVAL));
            let now = terrarium_container::oom_kills(&store, &id).unwrap_or(kills);
            for _ in kills..now {
                super::print(&json!({ "type": "oom", "id": id.as_str() }).to_string())?;
            }
            kills = now;
            if !store.state(&id).is_ok_and(|state| state.is_alive()) {
                return Ok(ExitCode::SUCCESS);
            }
        }
        match terrarium_container::stats(&store, &id) {
            Ok(stats) => super::print(&stats.to_string())?,
            // It has ended, and so has this.
            Err(Error::NotRunning { .. } | Error::DoesNotExist { .. }) => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whoever read our output has enough.
fn closed(error: std::io::Error) -> anyhow::Result<ExitCode> {
    if error.kind() == ErrorKind::BrokenPipe {
        return Ok(ExitCode::SUCCESS);
    }
    Err(error).context("write events")
}

fn path(args: &Events) -> String {
    let mut path = format!("/api/v1/events?follow={}", args.follow);
    for (name, value) in [
        ("container", &args.container),
        ("probe", &args.probe),
        ("type", &args.kind),
        ("errno", &args.errno),
        ("since", &args.since),
        ("until", &args.until),
    ] {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", percent(value));
        }
    }
    path
}

/// The path that asks for all events of `container` that are kept.
pub(super) fn path_of(container: &str) -> String {
    format!("/api/v1/events?follow=false&container={}", percent(container))
}

/// The events that an observatory answers with on `path`; what is no event is left out.
pub(super) fn all(observatory: &Endpoint, path: &str) -> anyhow::Result<Vec<Value>> {
    let address = observatory.address();
    let lines = observatory.request(path, "events")?.lines();
    let lines = lines.map(|line| line.with_context(|| format!("read events from {address}")));
    lines.filter_map(|line| line.map(|line| serde_json::from_str(&line).ok()).transpose()).collect()
}

pub fn header() -> String {
    format!(
        "{:<15} {:<18} {:<16} {:>7} {:<16} {:<9} DETAIL",
        "TIME", "TYPE", "CONTAINER", "PID", "COMMAND", "RESULT"
    )
}

/// One event as a line. Everything that a container can choose is escaped: a terminal obeys control characters.
pub fn row(event: &Value) -> String {
    let text = |pointer: &str| match event.pointer(pointer) {
        Some(Value::String(text)) => harmless(text),
        Some(Value::Null) | None => String::new(),
        Some(other) => harmless(&other.to_string()),
    };
    let time = text("/time");
    // The time of day to the microsecond.
    let time = time.split_once('T').map_or("", |(_, time)| time.trim_end_matches('Z'));
    let time: String = time.chars().take(15).collect();
    let result = match event.pointer("/result/ok").and_then(Value::as_bool) {
        Some(true) => "ok".to_owned(),
        Some(false) => text("/result/errno"),
        None => String::new(),
    };
    let row = format!(
        "{time:<15} {:<18} {:<16} {:>7} {:<16} {result:<9} {}",
        text("/type"),
        text("/container/name"),
        text("/process/pid"),
        text("/process/comm"),
        detail(event)
    );
    let lost = event.get("lost_before").and_then(Value::as_u64).unwrap_or(0);
    let row = row.trim_end();
    if lost > 0 { format!("… {lost} events lost …\n{row}") } else { row.to_owned() }
}

/// What is particular to the type of event.
fn detail(event: &Value) -> String {
    let wanted: &[(&str, &str)] = &[
        ("/process/exe", ""),
        ("/process/kind", ""),
        ("/process/cause", ""),
        ("/process/exit_code", "code="),
        ("/process/signal", "signal="),
        ("/namespace/kind", ""),
        ("/namespace/via", "via="),
        ("/namespace/from", "from="),
        ("/namespace/to", "to="),
        ("/namespace/target", "target="),
        ("/mount/fstype", "type="),
        ("/mount/source", "source="),
        ("/mount/target", "target="),
        ("/memory/scope", "limit="),
        ("/memory/limit_bytes", "limit_bytes="),
        ("/memory/reclaimed_bytes", "reclaimed_bytes="),
        ("/finding/check", ""),
        ("/finding/observed", ""),
        ("/residue/check", ""),
        ("/residue/observed", ""),
        ("/container/state_before", "before="),
        ("/stream/lost", "lost="),
        ("/target/cgroup/path", "to="),
    ];
    let mut parts = Vec::new();
    for (pointer, label) in wanted {
        match event.pointer(pointer) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) => parts.push(format!("{label}{}", harmless(text))),
            Some(other) => parts.push(format!("{label}{other}")),
        }
    }
    let flags = ["/process/flag_names", "/namespace/flag_names", "/mount/flag_names"];
    for names in flags.iter().filter_map(|pointer| event.pointer(pointer)?.as_array()) {
        let names: Vec<String> = names.iter().filter_map(Value::as_str).map(harmless).collect();
        if !names.is_empty() {
            parts.push(names.join("|"));
        }
    }
    if let Some(ns) = event.get("duration_ns").and_then(Value::as_u64) {
        parts.push(format!("{}us", ns / 1000));
    }
    parts.join(" ")
}

/// A line of JSON in which control characters that JSON leaves alone are escaped as well.
fn harmless_json(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len()), |mut out, c| {
        if is_harmful(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_chooses_cannot_steer_the_terminal() {
        let event: Value = serde_json::from_str(
            r#"{"type":"mount.mount","time":"2026-11-24T02:20:02.478028599Z",
                "container":{"name":"web"},"process":{"pid":7,"comm":"a\u001b[2Jb"},
                "mount":{"source":"x\u009b31m\u202ey","target":"/m","flag_names":["MS_BIND"]},
                "result":{"ok":false,"errno":"EPERM"},"lost_before":2}"#,
        )
        .expect("JSON");
        let row = row(&event);
        assert!(row.starts_with("… 2 events lost …\n02:20:02.478028 mount.mount"), "{row}");
        assert!(row.contains("EPERM") && row.contains("MS_BIND"), "{row}");
        assert!(!row.chars().any(|c| c != '\n' && is_harmful(c)), "{row:?}");
        assert_eq!(harmless_json("{\"a\":\"\u{9b}\u{7f}\"}"), r#"{"a":"\u009b\u007f"}"#);
    }
}
