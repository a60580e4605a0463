//! Where isolation leaks: what was asked for, held against what the kernel says.
//!
//! [`Host::look`] reads one state of the host from `/proc` and the cgroup filesystems, live or captured; each check of
//! [`CHECKS`] judges a container of it and says what it found. It needs neither probes nor a running observatory.
//!
//! To add a check: a file in `checks/` (what the state shows), `acts/` (what is done) or `residue/` (what stays), and a line in its
//! table. Nothing is told under two names: a check leaves alone what
//! another one says better, and [`judge`] drops what `privileged` sums up.

pub mod acts;
pub mod capability;
mod cgroups;
pub mod checks;
mod devices;
mod engines;
pub mod events;
mod finding;
pub mod graph;
mod host;
mod mounts;
pub mod namespaces;
mod owners;
mod process;
pub mod profile;
mod provenance;
pub mod residue;
mod sessions;
mod spec;
mod suggest;
#[cfg(test)]
mod tests;

pub use checks::{CHECKS, Check};
pub use engines::EngineRoots;
pub use finding::{ContainerName, Evidence, Finding, Severity, Source, json_line};
pub use host::{Container, Host, LookError, Places, Wanted};
pub use process::{Kind, Proc};
pub use provenance::Place;
pub use suggest::Suggestion;

use crate::kernel::cgroup_namespace;
use crate::precedence::give_way;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long what may be the runtime's own passing step (a process between its cgroup and its namespaces, a program that is
/// just being executed) is given until it is looked at again.
const SETTLE: Duration = Duration::from_millis(120);

impl Places {
    /// The running host as its own processes see it, with terrarium's containers below `root`. Takes this thread out of a cgroup
    /// namespace of its own; where that cannot be, paths of cgroups stay relative to its root, and with the host's processes out of
    /// sight that is as it should be.
    pub fn of_host(root: &Path) -> Self {
        let places = Self::live(root);
        let _ = cgroup_namespace::enter_hosts(places.proc.root());
        places
    }

    /// The running host, with terrarium's containers below `root`.
    pub fn live(root: &Path) -> Self {
        Self { proc: Proc::live(), engines: EngineRoots::usual(root), sys: PathBuf::from("/sys") }
    }
}

/// What was found, and of which containers.
#[derive(Debug, Default)]
pub struct Report {
    /// The containers that were judged.
    pub containers: Vec<Arc<ContainerName>>,
    /// The paths of their cgroups, and whose they are.
    pub cgroups: Vec<(String, Arc<ContainerName>)>,
    /// The namespaces that they are in and the host is not, and whose each is.
    namespaces: Vec<(u64, owners::Owner)>,
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
}

/// Judges the containers that are `wanted` by the checks that `chosen` lets through.
///
/// What might be a step of the runtime in passing is looked at twice.
pub fn judge(
    places: &Places,
    wanted: &Wanted,
    chosen: impl Fn(&Check) -> bool,
) -> Result<Report, LookError> {
    let mut report = look(places, wanted, &chosen)?;
    let passing = |finding: &Finding| {
        // What is no alarm need not wait.
        finding.severity > Severity::Low
            && checks::by_id(finding.check).is_some_and(|check| check.may_pass)
    };
    if report.findings.iter().any(passing) && places.proc.is_live() {
        std::thread::sleep(SETTLE);
        // Those that may be passing alone: all others once more would double what a look has in memory.
        let may_pass = |check: &Check| check.may_pass && chosen(check);
        let again = match look(places, wanted, &may_pass) {
            Ok(again) => again.findings,
            // It has ended meanwhile: what it looked like while it ended says nothing.
            Err(LookError::NoContainer(_) | LookError::NoProcess(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let still: BTreeSet<_> = again.iter().map(Finding::key).collect();
        report.findings.retain(|finding| !passing(finding) || still.contains(&finding.key()));
    }
    Ok(report)
}

/// One look.
fn look(
    places: &Places,
    wanted: &Wanted,
    chosen: &impl Fn(&Check) -> bool,
) -> Result<Report, LookError> {
    let host = Host::look(places, wanted)?;
    let now = now();
    let mut report = Report::default();
    for at in host.chosen(wanted)? {
        let container = &host.containers[at];
        let mut findings = Vec::new();
        for check in CHECKS {
            give_way();
            let judge = check.judge;
            let mut found = Found { check, container, now: &now, list: &mut findings };
            judge(&host, container, &mut found);
        }
        // A pid that has passed to another process meanwhile would tell of that one.
        if !host.proc().is_still(&container.init) {
            continue;
        }
        drop_summed_up(&mut findings);
        if let Some(spec) = &container.spec {
            for finding in &mut findings {
                finding.suggestion = suggest::suggestion(finding, spec);
            }
        }
        findings.retain(|finding| checks::by_id(finding.check).is_some_and(chosen));
        report.containers.push(container.name.clone());
        let paths = container.cgroups.iter().map(|(_, path)| path.clone());
        report.cgroups.extend(paths.map(|path| (path, container.name.clone())));
        let own = Kind::ALL.into_iter().filter_map(|kind| {
            container.namespace(kind).filter(|inode| !host.is_own(kind, *inode))
        });
        let owner = owners::Owner {
            name: container.name.clone(),
            cgroup: container.cgroups.first().map_or("", |(_, path)| path).into(),
            pid: container.init.pid.cast_unsigned(),
        };
        report.namespaces.extend(own.map(|inode| (inode, owner.clone())));
        report.findings.extend(findings);
    }
    report.findings.sort_by(|a, b| {
        (b.severity, &a.container.id, a.check, &a.object)
            .cmp(&(a.severity, &b.container.id, b.check, &b.object))
    });
    Ok(report)
}

/// What a check is, for people.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its id.
    pub id: &'static str,
    /// What it looks at.
    pub source: Source,
    /// How bad it is, in words.
    pub severity: &'static str,
    /// What is seen.
    pub seen: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// Manual pages, CVEs, kernel documents.
    pub sources: &'static [&'static str],
    /// What closes or prevents it.
    pub remedy: &'static str,
}

/// Every check: of the state, of events, of residue. One that is seen both in the state and as an event is told once, as the
/// state's.
pub fn every_check() -> impl Iterator<Item = About> {
    macro_rules! about {
        ($check:ident, $source:expr, $severity:expr) => {
            About {
                id: $check.id,
                source: $source,
                severity: $severity,
                seen: $check.seen,
                why: $check.why,
                sources: $check.sources,
                remedy: $check.remedy,
            }
        };
    }
    let state = CHECKS.iter().map(|check| about!(check, Source::State, check.severity));
    let events = acts::EVENT_CHECKS.iter().filter(|check| checks::by_id(check.id).is_none());
    let events = events.map(|check| about!(check, Source::Event, check.severity));
    let residue = residue::RESIDUE_CHECKS
        .iter()
        .map(|check| about!(check, Source::Residue, check.severity.name()));
    state.chain(events).chain(residue)
}

/// The check with this id.
pub fn about(id: &str) -> Option<About> {
    every_check().find(|check| check.id == id)
}

/// Now, RFC 3339.
fn now() -> Arc<str> {
    time::OffsetDateTime::now_utc()
        .format(&time::format_description::well_known::Rfc3339)
        .expect("the present has a four-digit year")
        .into()
}

/// Drops the parts of which `privileged` is the sum.
fn drop_summed_up(findings: &mut Vec<Finding>) {
    if findings.iter().any(|finding| finding.check == "privileged") {
        const PARTS: [&str; 3] = ["dangerous-capability", "device-exposed", "no-seccomp"];
        findings.retain(|finding| !PARTS.contains(&finding.check));
    }
}

/// Where a check puts what it finds.
pub struct Found<'a> {
    check: &'static Check,
    container: &'a Container,
    now: &'a Arc<str>,
    list: &'a mut Vec<Finding>,
}

/// What a check found; the rest of a finding follows from the check and the container.
#[derive(Debug, Default)]
pub struct Opening {
    /// What tells it from another of the same check.
    pub object: String,
    /// What the spec says; where there is none, that is said instead.
    pub declared: String,
    /// Whether the spec asks for it.
    pub asked: bool,
    /// What the kernel says.
    pub observed: String,
    /// What proves it.
    pub evidence: Vec<Evidence>,
    /// The setting that closes it; the check's where it is empty.
    pub remedy: String,
    /// The mounts that it is about.
    pub mounts: Vec<Place>,
}

impl Found<'_> {
    /// Takes an opening that is `severity` when nobody asked for it.
    pub fn add(&mut self, severity: Severity, opening: Opening) {
        let severity = if opening.asked { severity.one_less() } else { severity };
        self.add_as(severity, opening);
    }

    /// Takes an opening whose severity already says whether somebody asked for it.
    pub fn add_as(&mut self, severity: Severity, opening: Opening) {
        let declared = match &self.container.spec {
            Some(_) => opening.declared.into(),
            None => "nothing that can be read: held against full isolation".into(),
        };
        let remedy = if opening.remedy.is_empty() {
            self.check.remedy.into()
        } else {
            opening.remedy.into()
        };
        self.list.push(Finding {
            check: self.check.id,
            severity,
            source: if opening.asked { Source::Declared } else { Source::State },
            container: self.container.name.clone(),
            declared,
            observed: opening.observed,
            evidence: opening.evidence,
            remedy,
            first_seen: Arc::clone(self.now),
            last_seen: Arc::clone(self.now),
            count: 1,
            suggestion: None,
            object: opening.object,
            mounts: opening.mounts,
        });
    }
}

#[cfg(test)]
mod pages {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn every_check_has_an_id_of_its_own_and_says_what_it_must() {
        let mut ids = BTreeSet::new();
        for About { id, severity, seen, why, sources, remedy, .. } in every_check() {
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{id}");
            assert!(ids.insert(id), "{id} twice");
            for text in [severity, seen, why, remedy] {
                assert!(!text.is_empty(), "{id}");
            }
            assert!(!sources.is_empty(), "{id}");
        }
        for check in acts::EVENT_CHECKS {
            assert!(ids.contains(check.id), "{}", check.id);
        }
    }

    /// The part of docs/LEAKS.md that is made from the checks.
    fn document() -> String {
        let mut text = String::new();
        let mut told = Source::State;
        for About { id, source, severity, seen, why, sources, remedy } in every_check() {
            if source != told {
                text.push_str(match source {
                    Source::Event => {
                        "## Events: what it did\n\nAn attempt counts like the deed where the kernel saw it; the finding tells the result. `user-namespace-created`, above,\nis seen as it is made as well.\n\n"
                    }
                    _ => "## Residue: what it left behind\n\n",
                });
                told = source;
            }
            let sources = sources.iter().map(|source| match source {
                source if source.starts_with("https://") => format!("<{source}>"),
                source => format!("`{source}`"),
            });
            let sources = sources.collect::<Vec<_>>().join(", ");
            let _ = write!(
                text,
                "### {id}\n\nSeverity: {severity}.\n\n- Seen: {seen}.\n- Why it matters: {why}\n- Remedy: {remedy}.\n- See: {sources}.\n\n"
            );
        }
        text
    }

    /// With `TERRARIUM_WRITE_DOCS=1` it writes the page instead.
    #[test]
    fn the_page_of_checks_is_made_from_them() {
        const MARK: &str = "<!-- from here on made from runtime/observatory/src/leaks -->\n\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/LEAKS.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (head, tail) = page.split_once(MARK).expect("the page has the mark");
        if std::env::var_os("TERRARIUM_WRITE_DOCS").is_some() {
            std::fs::write(&path, format!("{head}{MARK}{}\n", document().trim_end())).unwrap();
            return;
        }
        assert_eq!(
            tail.trim_end(),
            document().trim_end(),
            "docs/LEAKS.md is old: TERRARIUM_WRITE_DOCS=1 cargo test -p terrarium-observatory made_from_them"
        );
    }
}
