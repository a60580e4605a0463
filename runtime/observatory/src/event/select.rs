//! Which events somebody wants to see: the same for the stream, for the store, and for `terrarium events`.

use super::flag_names::errno_by_name;
use super::history::Filter;
use crate::probe::plan::{probe_by_name, probe_name};
use serde::Deserialize;
use serde_json::Value;
use terrarium_abi::Probe;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The query, as the HTTP side takes it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Query {
    /// Go on with what comes; true unless told otherwise.
    pub follow: Option<bool>,
    /// Only of the container with this name, id or cgroup path; `host` for those of none.
    pub container: Option<String>,
    /// Only of this probe.
    pub probe: Option<String>,
    /// Only that ended with this error, as `EPERM`.
    pub errno: Option<String>,
    /// Only of this type, or of all whose type begins so, as `mount`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Only from then on: RFC 3339, or so long ago, as `10m`.
    pub since: Option<String>,
    /// Only before then.
    pub until: Option<String>,
}

/// A query that has been understood.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What can be told before an event is written as JSON.
    pub filter: Filter,
    /// What is told from the line.
    pub lines: LineFilter,
}

/// Chooses among lines of `terrarium.event/v1`.
#[derive(Debug, Clone, Default)]
pub struct LineFilter {
    errno: Option<String>,
    kind: Option<String>,
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
}

impl Query {
    /// Understands it; the error says what is wrong.
    pub fn selection(self) -> Result<Selection, String> {
        let probe = self.probe.as_deref().map(probe_by_name).transpose()?;
        let time = |name: &str, text: Option<String>| {
            let time = text.map(|text| point_in_time(&text).map_err(|e| format!("{name}: {e}")));
            time.transpose()
        };
        let errno = self.errno.map(|name| errno_by_name(&name).map_err(|e| format!("errno: {e}")));
        let errno = errno.transpose()?;
        let kind = self.kind.map(|kind| checked_type(kind).map_err(|e| format!("type: {e}")));
        let kind = kind.transpose()?;
        let lines = LineFilter {
            errno: errno.map(|name| format!("\"errno\":\"{name}\"")),
            kind: kind.map(|kind| format!("\"type\":\"{kind}")),
            since: time("since", self.since)?,
            until: time("until", self.until)?,
        };
        Ok(Selection { filter: Filter { container: self.container, probe }, lines })
    }
}

impl Selection {
    /// Whether a line of the store is wanted.
    pub fn wants_line(&self, line: &str) -> bool {
        if !self.lines.wants(line) {
            return false;
        }
        let Filter { container, probe } = &self.filter;
        if container.is_none() && probe.is_none() {
            return true;
        }
        let Ok(event) = serde_json::from_str::<Value>(line) else { return false };
        let is = |pointer: &str, wanted: &str| event.pointer(pointer).is_some_and(|v| v == wanted);
        container.as_ref().is_none_or(|wanted| {
            ["/container/name", "/container/id", "/cgroup/path"].iter().any(|at| is(at, wanted))
        }) && probe.is_none_or(|probe| {
            let domain = event["type"].as_str().and_then(|kind| kind.split('.').next());
            // All that this probe tells of is named after it, but for tasks.
            domain == Some(if probe == Probe::Task { "process" } else { probe_name(probe) })
        })
    }
}

impl LineFilter {
    /// Whether a line is wanted. Names and values are found as text: the quotes of strings that a container chooses are
    /// escaped, so nothing of it can look like them.
    pub fn wants(&self, line: &str) -> bool {
        let has = |part: &Option<String>| part.as_ref().is_none_or(|part| line.contains(part));
        if !has(&self.errno) || !self.kind.as_ref().is_none_or(|kind| is_of_type(line, kind)) {
            return false;
        }
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let time = line.split_once("\"time\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let Some(time) = time.and_then(|(time, _)| OffsetDateTime::parse(time, &Rfc3339).ok())
        else {
            return false;
        };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

/// The first parts of the types of events.
const DOMAINS: [&str; 10] = [
    "process", "namespace", "mount", "memory", "cgroup", "guard", "container", "finding",
    "residue", "stream",
];

/// A type that an event may have, as far as its first part tells.
fn checked_type(kind: String) -> Result<String, String> {
    let domain = kind.split('.').next().unwrap_or_default();
    // A quote of its own could only end the string that it is compared in.
    if DOMAINS.contains(&domain) && !kind.contains('"') {
        return Ok(kind);
    }
    Err(format!("no event is of type {kind:?} (types begin with {})", DOMAINS.join(", ")))
}

/// A type as a whole, or its domain: `mount` is not `mountain`.
fn is_of_type(line: &str, kind: &str) -> bool {
    line.find(kind).is_some_and(|at| line[at + kind.len()..].starts_with(['"', '.']))
}

/// A point in time: RFC 3339, or how long ago, as `90s`, `10m`, `2h`, `1d`.
pub fn point_in_time(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let wrong = || format!("{text:?} is no time such as 2026-11-23T22:01:02Z or 10m (ago)");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let ago = time::Duration::seconds(i64::from(number) * seconds);
    OffsetDateTime::now_utc().checked_sub(ago).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"schema":"terrarium.event/v1","seq":1,"time":"2026-11-23T22:01:02.5Z","type":"mount.bind","process":{"comm":"a\"errno\":\"EPERM\""},"result":{"ok":false,"errno":"EBUSY"}}"#;

    #[track_caller]
    fn check(query: Query, expected: bool) {
        let told = format!("{query:?}");
        let selection = query.selection().expect("a query");
        assert_eq!(selection.lines.wants(LINE), expected, "{told}");
    }

    #[test]
    fn the_schemas_types_begin_with_these() {
        let schema = include_str!("../../../../docs/schema/event.v1.json");
        let schema: Value = serde_json::from_str(schema).expect("it is JSON");
        let forms = schema["$defs"]["type"]["oneOf"].as_array().expect("forms of types");
        let names = forms.iter().flat_map(|form| form["enum"].as_array().into_iter().flatten());
        let patterns = forms.iter().map(|form| &form["pattern"]);
        let mut told: Vec<&str> = names
            .chain(patterns)
            .filter_map(|text| text.as_str()?.split(['.', '\\']).next())
            .flat_map(|first| first.trim_matches(['^', '(', ')']).split('|'))
            .collect();
        told.sort_unstable();
        told.dedup();
        let mut known = DOMAINS;
        known.sort_unstable();
        assert_eq!(told, known);
    }

    #[test]
    fn lines_are_chosen_by_error_type_and_time() {
        let text = |text: &str| Some(text.to_owned());
        check(Query::default(), true);
        check(Query { errno: text("EBUSY"), ..Query::default() }, true);
        check(Query { errno: text("EPERM"), ..Query::default() }, false);
        check(Query { kind: text("mount"), ..Query::default() }, true);
        check(Query { kind: text("mount.bind"), ..Query::default() }, true);
        check(Query { kind: text("mount.bin"), ..Query::default() }, false);
        check(Query { since: text("2026-11-23T22:01:02Z"), ..Query::default() }, true);
        check(Query { since: text("2026-11-23T22:01:03Z"), ..Query::default() }, false);
        check(Query { until: text("2026-11-23T22:01:02.5Z"), ..Query::default() }, false);
        check(Query { until: text("2026-11-23T22:01:03Z"), ..Query::default() }, true);
        for wrong in ["", "soon", "m", "-5m", "5y", "é"] {
            let query = Query { since: text(wrong), ..Query::default() };
            assert!(query.selection().is_err(), "{wrong}");
        }
        for wrong in ["", "mou", "mount\"", "mountain.x"] {
            let query = Query { kind: text(wrong), ..Query::default() };
            assert!(query.selection().is_err(), "{wrong}");
        }
        let query = Query { errno: text("EFOO"), ..Query::default() };
        assert!(query.selection().is_err());
    }
}
