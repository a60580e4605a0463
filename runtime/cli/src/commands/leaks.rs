//! `terrarium leaks`: where a container's isolation leaks.

use super::ask::{Endpoint, Guard, URL};
use super::terminal::harmless;
use crate::Global;
use crate::exit::WithCode;
use anyhow::Context;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Read;
use std::process::ExitCode;
use terrarium_observatory::leaks::graph::{Passed, Seen, Signals, graph};
use terrarium_observatory::leaks::{
    self, About, CHECKS, Check, Finding, LookError, Places, Report, Severity, Source, Suggestion,
    Wanted, about, every_check, json_line, residue,
};

/// Exit code when something at or above `--fail-on` was found.
const FOUND: u8 = 3;

/// How much evidence the table shows; JSON has all of it.
const MOST_EVIDENCE: usize = 4;

/// How to print
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// A finding a line, for programs
    Json,
    /// For code scanning (SARIF 2.1.0)
    Sarif,
}

/// How to write the graph
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GraphFormat {
    /// For Graphviz; what nobody declared is red
    Dot,
    /// An object, for programs
    Json,
}

/// Say where a container's isolation leaks, with evidence and what closes it.
///
/// Any container of the host, whoever started it. What its own spec asks for counts one step less than what nobody asked
/// for. Exit code 3 when something at or above --fail-on was found, 0 when not, 1 or 2 when it could not look.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container, by id, name or the beginning of an id
    #[arg(required_unless_present_any = ["pid", "all", "list", "explain", "graph"], conflicts_with_all = ["pid", "all"])]
    container: Option<String>,
    /// The container that this process belongs to
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Every container that runs
    #[arg(long, conflicts_with = "pid")]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Exit with 3 when a finding is at least this severe: info, low, medium, high or critical
    #[arg(long, value_name = "SEVERITY", default_value = "high")]
    fail_on: Severity,
    /// Only these checks
    #[arg(long, value_name = "ID", value_delimiter = ',', num_args = 1)]
    check: Vec<String>,
    /// Tell the smallest change that closes each finding: options of run, and a JSON Patch of config.json
    #[arg(long)]
    suggest: bool,
    /// Ask this observatory for what it has seen [default: `http://127.0.0.1:9750`, where one listens]
    #[arg(long, visible_alias = "url", value_name = "URL")]
    observatory: Option<String>,
    #[command(flatten)]
    guard: Guard,
    /// Instead of findings, tell where containers touch each other and the host, as a graph
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with_all = ["format", "check", "suggest"])]
    graph: Option<GraphFormat>,
    /// Explain a check
    #[arg(long, value_name = "ID")]
    explain: Option<String>,
    /// List the checks
    #[arg(long)]
    list: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    if args.list {
        return list(args.format).map(|()| ExitCode::SUCCESS);
    }
    if let Some(id) = &args.explain {
        super::print(&explain(&known(id)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    for id in &args.check {
        known(id)?;
    }
    let wanted = match (&args.container, args.pid) {
        (Some(text), _) => Wanted::Named(text.clone()),
        (None, Some(pid)) => Wanted::Process(pid),
        (None, None) => Wanted::All,
    };
    let root = std::path::absolute(&global.root).context("find state folder")?;
    let chosen =
        |check: &Check| args.check.is_empty() || args.check.iter().any(|id| id == check.id);
    let places = Places::of_host(&root);
    if let Some(format) = args.graph {
        let graph = graph(&places, &wanted, &crossings(args)?).map_err(with_code)?;
        super::print(&match format {
            GraphFormat::Dot => graph.dot(harmless),
            GraphFormat::Json => json_line(&graph),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = match leaks::judge(&places, &wanted, chosen) {
        // One that has ended may have left something.
        Err(LookError::NoContainer(id)) => left_of(&places, &args.check, id)?,
        judged => judged.map_err(with_code)?,
    };
    if let Some(text) = seen(args.observatory.as_deref(), &args.guard)? {
        add_seen(&text, &args.check, &mut report)?;
    }
    if !args.suggest {
        for finding in &mut report.findings {
            finding.suggestion = None;
        }
    }
    match args.format {
        Format::Table => super::print(&table(&report))?,
        Format::Json => {
            let lines: Vec<String> = report.findings.iter().map(json_line).collect();
            if !lines.is_empty() {
                super::print(&lines.join("\n"))?;
            }
        }
        Format::Sarif => super::print(&json_line(&sarif(&report)))?,
    }
    let failed = report.findings.iter().any(|finding| finding.severity >= args.fail_on);
    Ok(if failed { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

/// What a running observatory answers. That none runs at the usual place is no error.
fn asked(
    url: Option<&str>,
    guard: &Guard,
    path: &str,
    what: &str,
) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    let asked = Endpoint::new("--observatory", url.unwrap_or(URL), guard)
        .and_then(|observatory| observatory.lines(path, what))
        .and_then(|mut answer| Ok(answer.read_to_string(&mut text)?));
    match asked {
        Ok(_) => Ok(Some(text)),
        Err(_) if url.is_none() && !guard.is_given() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The signals and descriptors between containers that an observatory remembers.
fn crossings(args: &Args) -> anyhow::Result<Seen> {
    let told = |kind: &str, what: &str| {
        let path = format!("/api/v1/events?follow=false&type=guard.{kind}");
        let told = asked(args.observatory.as_deref(), &args.guard, &path, what)?;
        anyhow::Ok(told.unwrap_or_default())
    };
    Ok(Seen {
        signals: Signals::of_events(told("signal", "signals")?.lines()),
        passed: Passed::of_events(told("scm_rights", "descriptors")?.lines()),
    })
}

/// What a running observatory has found, if one runs.
pub(super) fn seen(url: Option<&str>, guard: &Guard) -> anyhow::Result<Option<String>> {
    asked(url, guard, "/api/v1/leaks", "findings")
}

/// Adds what an observatory has seen of the containers in question, as far as these `checks`, all where there are none, tell of it.
pub(super) fn add_seen(text: &str, checks: &[String], report: &mut Report) -> anyhow::Result<()> {
    let seen: Vec<Value> = serde_json::from_str(text).context("read what the observatory found")?;
    for finding in seen.iter().filter_map(Finding::read) {
        // Who made it so, where that was seen.
        let same = report.findings.iter_mut().find(|known| {
            known.check == finding.check
                && known.container.id == finding.container.id
                && known.observed == finding.observed
        });
        if let Some(known) = same.filter(|known| known.source != Source::Event) {
            let seen = finding.evidence.iter().filter(|e| ["event", "processes"].contains(&e.kind));
            known.evidence.extend(seen.cloned());
            known.first_seen.clone_from(&finding.first_seen);
            known.count = finding.count + 1;
            continue;
        }
        let ours = report.containers.iter().any(|container| container.id == finding.container.id);
        let wanted = checks.is_empty() || checks.iter().any(|id| id == finding.check);
        if finding.source == Source::Event && ours && wanted {
            // What was seen being done says more than what is left of it.
            report.findings.retain(|known| {
                known.check != finding.check
                    || known.source == Source::Event
                    || known.container.id != finding.container.id
            });
            report.findings.push(finding);
        }
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(())
}

/// What a container that has ended left behind.
fn left_of(places: &Places, chosen: &[String], id: String) -> anyhow::Result<Report> {
    let Some((name, mut findings)) = residue::of(places, &id)? else {
        return Err(LookError::NoContainer(id).into());
    };
    findings.retain(|finding| chosen.is_empty() || chosen.iter().any(|id| id == finding.check));
    let mut report = Report::default();
    report.containers.push(name.into());
    report.findings = findings;
    Ok(report)
}

/// Gives a name that means several the code of wrong usage.
pub(super) fn with_code(error: LookError) -> anyhow::Error {
    match error {
        LookError::Ambiguous { .. } => WithCode::error(2, error),
        error => error.into(),
    }
}

fn known(id: &str) -> anyhow::Result<About> {
    about(id).ok_or_else(|| {
        let error = anyhow::anyhow!(
            "find check {id:?}: there is none (`terrarium leaks --list` lists them)"
        );
        WithCode::error(2, error)
    })
}

fn list(format: Format) -> anyhow::Result<()> {
    let width = every_check().map(|check| check.id.len()).max().unwrap_or_default();
    let rows = every_check().map(|About { id, source, severity, seen, .. }| match format {
        Format::Table => format!("{id:width$}  {:<8}  {severity}", source.name()),
        _ => json_line(
            &json!({ "check": id, "source": source.name(), "severity": severity, "seen": seen }),
        ),
    });
    super::print(&rows.collect::<Vec<_>>().join("\n"))
}

fn explain(check: &About) -> String {
    let About { id, source, severity, seen, why, sources, remedy } = check;
    let more = match source {
        Source::State | Source::Declared => "; one less where the container's own spec asks for it",
        Source::Event | Source::Residue => "",
    };
    let by = if *source == Source::Event { "; by an observatory that runs" } else { "" };
    format!(
        "{id}\n\nseverity: {severity}{more}\nseen:     {seen}{by}\nwhy:      {why}\nremedy:   {remedy}\nsources:  {}",
        sources.join(", ")
    )
}

fn table(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(paragraph).collect();
    let judged = report.containers.len();
    let noun = if judged == 1 { "container" } else { "containers" };
    lines.push(format!(
        "{judged} {noun}, {} checks: {}",
        CHECKS.len(),
        match report.findings.len() {
            0 => "nothing found".to_owned(),
            1 => "1 finding".to_owned(),
            found => format!("{found} findings"),
        }
    ));
    lines.join("\n")
}

/// A finding for people.
pub fn paragraph(finding: &Finding) -> String {
    let Finding { check, severity, source, container, declared, observed, remedy, .. } = finding;
    let mut lines = vec![format!(
        "{:<8}  {check}  {} ({}, {})",
        severity.name(),
        harmless(&container.name),
        harmless(&container.runtime),
        source.name()
    )];
    lines.push(format!("          observed: {}", harmless(observed)));
    lines.push(format!("          declared: {}", harmless(declared)));
    for evidence in finding.evidence.iter().take(MOST_EVIDENCE) {
        let text = format!("{}: {}", evidence.path, evidence.value);
        lines.push(format!("          evidence: {}", harmless(&text)));
    }
    lines.push(format!("          remedy:   {}", harmless(remedy)));
    if let Some(Suggestion { run, config }) = &finding.suggestion {
        lines.push(format!("          run:      {}", harmless(run)));
        for operation in config {
            lines.push(format!("          config:   {}", json_line(operation)));
        }
    }
    lines.join("\n")
}

/// SARIF 2.1.0 (OASIS): a rule a check, a result a finding.
fn sarif(report: &Report) -> Value {
    let level = |severity: Severity| match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Info => "note",
    };
    let rules: Vec<Value> = every_check()
        .map(|check| {
            json!({
                "id": check.id,
                "shortDescription": { "text": check.seen },
                "fullDescription": { "text": check.why },
                "help": { "text": check.remedy },
            })
        })
        .collect();
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let rule = every_check().position(|check| check.id == finding.check);
            let locations: Vec<Value> = finding
                .evidence
                .iter()
                .map(|evidence| {
                    json!({
                        "physicalLocation": { "artifactLocation": { "uri": uri(&evidence.path) } },
                        "message": { "text": evidence.value },
                    })
                })
                .collect();
            let key = finding.key();
            json!({
                "ruleId": finding.check,
                "ruleIndex": rule,
                "level": level(finding.severity),
                "message": { "text": format!(
                    "{}: {}. Declared: {}. Remedy: {}",
                    finding.container.name, finding.observed, finding.declared, finding.remedy
                ) },
                "locations": locations,
                "partialFingerprints": { "terrarium/v1": format!("{}/{}/{}", key.0, key.1, key.2) },
                "properties": { "severity": finding.severity, "container": finding.container },
            })
        })
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "terrarium",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "results": results,
        }],
    })
}

/// A path as a URI: what is not plain is escaped by its bytes.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_hold_plain_characters_only() {
        assert_eq!(uri("/proc/7/ns/pid"), "file:///proc/7/ns/pid");
        assert_eq!(uri("/a b\u{1b}ü"), "file:///a%20b%1B%C3%BC");
    }
}
