//! `terrarium run --audit` and `--assert-clean`: what a container did, what was open while it ran, and what it left.
//!
//! What it did is known where an observatory runs; without one, and it says so, only the state is judged: twice a second
//! while the container runs.

use super::ask::{Endpoint, Guard, percent};
use super::leaks::{paragraph, seen};
use super::terminal::harmless;
use anyhow::bail;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use terrarium_observatory::leaks::residue::{self, Ended};
use terrarium_observatory::leaks::{self, Finding, Places, Severity, Source, Wanted};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Between two looks at the state.
const PACE: Duration = Duration::from_millis(500);

/// How long the kernel may take to give back what it gives back in the background.
const SETTLE: Duration = Duration::from_secs(3);

/// How long an observatory may take to tell of the end.
const NEWS: Duration = Duration::from_secs(2);

/// How many names of a kind the report tells.
const MOST_NAMED: usize = 12;

/// The options.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    /// Say at the end, on stderr, what it did, what was open and what it left
    #[arg(long, conflicts_with = "detach", help_heading = "Audit")]
    audit: bool,
    /// Fail with 125 when it left anything behind
    #[arg(long, conflicts_with = "detach", help_heading = "Audit")]
    assert_clean: bool,
    /// Where the observatory listens that --audit and --explain ask
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9750",
        help_heading = "Audit"
    )]
    observatory: String,
    #[command(flatten)]
    guard: Guard,
    /// When this command began: what an observatory saw before was another container of that id.
    #[arg(skip = Moment(OffsetDateTime::now_utc()))]
    began: Moment,
}

/// A moment that is no part of what was asked for: two command lines of the same words are the same.
#[derive(Clone, Copy)]
struct Moment(OffsetDateTime);

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moment")
    }
}

/// Findings by what makes them the same.
type Findings = BTreeMap<(String, String), Finding>;

/// A container that is being audited.
pub struct Audit {
    args: AuditArgs,
    places: Places,
    id: String,
    folder: PathBuf,
    since: Instant,
    /// Closing it ends the looks.
    looks: Option<(Sender<()>, JoinHandle<Findings>)>,
}

impl AuditArgs {
    /// The observatory.
    pub fn observatory(&self) -> anyhow::Result<Endpoint> {
        Endpoint::new("--observatory", &self.observatory, &self.guard)
    }

    /// Begins, if it is wanted, for the container `id` whose folder lies below `root`.
    pub fn begin(&self, root: &Path, id: &str) -> Option<Audit> {
        if !self.audit && !self.assert_clean {
            return None;
        }
        let places = Places::live(root);
        let looks = self.audit.then(|| {
            let (sender, receiver) = channel();
            let (places, id) = (places.clone(), id.to_owned());
            (sender, std::thread::spawn(move || look(&places, &id, &receiver)))
        });
        Some(Audit {
            args: self.clone(),
            folder: root.join(id),
            places,
            id: id.to_owned(),
            since: Instant::now(),
            looks,
        })
    }
}

/// Looks until the sender is gone.
fn look(places: &Places, id: &str, stop: &Receiver<()>) -> Findings {
    let mut all = Findings::new();
    let wanted = Wanted::Named(id.to_owned());
    loop {
        // One that has ended is not to be found any more.
        if let Ok(report) = leaks::judge(places, &wanted, |_| true) {
            for finding in report.findings {
                let key = (finding.check.to_owned(), finding.object.clone());
                match all.get_mut(&key) {
                    Some(known) => {
                        known.count += 1;
                        known.last_seen = finding.last_seen;
                    }
                    None => {
                        all.insert(key, finding);
                    }
                }
            }
        }
        match stop.recv_timeout(PACE) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return all,
        }
    }
}

impl Audit {
    /// What is known of the container, as long as its folder is there: to be asked for before its end is dealt with.
    pub fn ended(&self) -> Ended {
        Ended::read(&self.folder, false)
    }

    /// Ends: reports, and fails where something stayed and that was not to be.
    pub fn finish(mut self, ended: Ended, code: i32) -> anyhow::Result<()> {
        let ran = self.since.elapsed();
        let ended = if self.folder.is_dir() { ended.finished() } else { ended.removed() };
        let left = self.left(&ended)?;
        if let Some((stop, looks)) = self.looks.take() {
            drop(stop);
            // A panic there is a bug that has been told already; what was left is still worth telling.
            let findings = looks.join().unwrap_or_default();
            eprint!("{}", self.report(&findings, &left, ran, code));
        }
        if self.args.assert_clean && !left.is_empty() {
            let what: Vec<String> =
                left.iter().map(|finding| harmless(&finding.observed)).collect();
            bail!(
                "take container {} away: {} (`terrarium gc --dry-run` says what holds it)",
                self.id,
                what.join("; ")
            );
        }
        Ok(())
    }

    /// What stayed, once the kernel has had time.
    fn left(&self, ended: &Ended) -> anyhow::Result<Vec<Finding>> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let left = residue::after(&self.places, ended)?;
            if left.is_empty() || Instant::now() > deadline {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn report(&self, findings: &Findings, left: &[Finding], ran: Duration, code: i32) -> String {
        let mut text =
            format!("audit of {}: {:.1} s, exit code {code}\n", self.id, ran.as_secs_f64());
        // Writing to a string cannot fail, here and below.
        let mut seen = Vec::new();
        match self.did().and_then(|tally| Ok((tally, self.seen()?))) {
            Ok((tally, findings)) => {
                for line in tally.lines() {
                    let _ = writeln!(text, "  {line}");
                }
                seen = findings;
            }
            Err(error) => {
                let _ = writeln!(
                    text,
                    "  did:     unknown, only the state was judged: {}",
                    harmless(&format!("{error:#}"))
                );
            }
        }
        // What was seen being done says more than what is left of it.
        let is_told = |check: &str| seen.iter().any(|finding| finding.check == check);
        let state = findings.values().filter(|finding| !is_told(finding.check));
        let mut open: Vec<&Finding> = state.chain(&seen).collect();
        open.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let above = open.iter().filter(|finding| finding.severity > Severity::Low).count();
        let _ = writeln!(text, "  open:    {} findings, {above} above low", open.len());
        let _ = writeln!(
            text,
            "  left:    {}",
            if left.is_empty() { "nothing".to_owned() } else { left.len().to_string() }
        );
        for finding in open.into_iter().chain(left) {
            let _ = writeln!(text, "{}", paragraph(finding));
        }
        text
    }

    /// What an observatory saw it do, up to its end.
    fn did(&self) -> anyhow::Result<Tally> {
        let began = self.args.began.0.format(&Rfc3339)?;
        let (id, since) = (percent(&self.id), percent(&began));
        let path = format!("/api/v1/events?follow=false&container={id}&since={since}");
        let deadline = Instant::now() + NEWS;
        loop {
            let mut answer = self.args.observatory()?.lines(&path, "events")?;
            let mut tally = Tally::default();
            let mut line = String::new();
            while answer.read_line(&mut line)? > 0 {
                if let Ok(event) = serde_json::from_str(&line) {
                    tally.take(&event);
                }
                line.clear();
            }
            if tally.has_ended || Instant::now() > deadline {
                return Ok(tally);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The findings that an observatory made of that.
    fn seen(&self) -> anyhow::Result<Vec<Finding>> {
        let text = seen(Some(&self.args.observatory), &self.args.guard)?.unwrap_or_default();
        let all: Vec<Value> = serde_json::from_str(&text)?;
        let all = all.iter().filter_map(Finding::read);
        Ok(all.filter(|one| one.source == Source::Event && one.container.id == self.id).collect())
    }
}

/// What events say, added up.
#[derive(Debug, Default)]
struct Tally {
    /// What its own processes did, and those that hooks and `exec` started.
    kinds: BTreeMap<String, u64>,
    /// Steps of the runtime, to set it up and to take it down.
    steps: u64,
    has_ended: bool,
    programs: BTreeSet<String>,
    touched: BTreeSet<String>,
    lost: u64,
}

impl Tally {
    fn take(&mut self, event: &Value) {
        let word =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        self.lost += event["lost_before"].as_u64().unwrap_or(0);
        let kind = word("/type");
        self.has_ended |= kind == "container.stopped";
        match word("/process/role") {
            "runtime" => {
                self.steps += 1;
                return;
            }
            "workload" | "exec" | "hook" => {}
            // Of others, and of no process.
            _ => return,
        }
        *self.kinds.entry(kind.to_owned()).or_default() += 1;
        let add = |set: &mut BTreeSet<String>, text: &str| {
            if !text.is_empty() {
                set.insert(harmless(text));
            }
        };
        add(&mut self.programs, word("/process/exe"));
        add(&mut self.touched, word("/mount/target"));
        if let Some(to) = event.pointer("/namespace/to").and_then(Value::as_u64) {
            add(&mut self.touched, &format!("{}:[{to}]", word("/namespace/kind")));
        }
    }

    fn lines(&self) -> Vec<String> {
        let kinds: Vec<String> =
            self.kinds.iter().map(|(kind, count)| format!("{count} {}", harmless(kind))).collect();
        let some = |set: &BTreeSet<String>| {
            let mut words: Vec<&str> = set.iter().take(MOST_NAMED).map(String::as_str).collect();
            if set.len() > MOST_NAMED {
                words.push("…");
            }
            if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
        };
        let did =
            if kinds.is_empty() { "nothing that was seen".to_owned() } else { kinds.join(", ") };
        let mut lines = vec![
            format!("did:     {did}"),
            format!("ran:     {}", some(&self.programs)),
            format!("touched: {}", some(&self.touched)),
            format!("set up:  {} steps of the runtime's", self.steps),
        ];
        if self.lost > 0 {
            lines.push(format!("lost:    {} events", self.lost));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_added_up_and_escaped() {
        let mut tally = Tally::default();
        let shell = json!({"exe": "/bin/\u{1b}sh", "role": "workload"});
        let runtime = json!({"exe": "/proc/self/exe", "role": "runtime"});
        let none = json!({ "role": "workload" });
        for event in [
            json!({"type": "process.exec", "process": shell, "lost_before": 2}),
            json!({"type": "process.exec", "process": {"exe": "/bin/ls", "role": "exec"}}),
            json!({"type": "namespace.create", "process": none, "namespace": {"kind": "net", "to": 7}}),
            json!({"type": "mount.fsopen", "process": runtime}),
            json!({"type": "container.stopped"}),
        ] {
            tally.take(&event);
        }
        assert!(tally.has_ended);
        let lines = tally.lines();
        assert_eq!(lines[0], "did:     1 namespace.create, 2 process.exec");
        assert_eq!(lines[1], "ran:     /bin/\\u{1b}sh, /bin/ls");
        assert_eq!(lines[2], "touched: net:[7]");
        assert_eq!(lines[3], "set up:  1 steps of the runtime's");
        assert_eq!(lines[4], "lost:    2 events");
    }
}
