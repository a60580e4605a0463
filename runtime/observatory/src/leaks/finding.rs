//! What a check says: one wall that is missing, with what proves it and what closes it.

use super::provenance::Place;
use super::suggest::Suggestion;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// The walls hold; one more would be better.
    Low,
    /// A wall is missing, others hold.
    Medium,
    /// One step from the host.
    High,
    /// The container controls the host, or has left.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// One less, as for what the container's own spec asks for. What is low stays so: a wall that is missing is more than
    /// a thing worth knowing.
    #[must_use]
    pub const fn one_less(self) -> Self {
        match self {
            Self::Info => Self::Info,
            Self::Low | Self::Medium => Self::Low,
            Self::High => Self::Medium,
            Self::Critical => Self::High,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.name() == text)
            .ok_or_else(|| "one of info, low, medium, high, critical".to_owned())
    }
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Where a finding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The kernel says so, and the container's own spec asks for it.
    Declared,
    /// The kernel says so, and nobody asked for it.
    State,
    /// It was done, or tried.
    Event,
    /// It is still there after the container's end.
    Residue,
}

impl Source {
    /// The word, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::State => "state",
            Self::Event => "event",
            Self::Residue => "residue",
        }
    }
}

/// One thing that proves a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What kind of thing: `proc`, `cgroup`, `device`, `file`, `event`, `processes`.
    pub kind: &'static str,
    /// Where to look.
    pub path: String,
    /// What is there.
    pub value: String,
}

impl Evidence {
    /// Something below /proc.
    pub fn proc(path: impl Into<String>, value: impl Into<String>) -> Self {
        Self { kind: "proc", path: path.into(), value: value.into() }
    }

    /// Something in a cgroup filesystem.
    pub fn cgroup(path: impl Into<String>, value: impl Into<String>) -> Self {
        Self { kind: "cgroup", path: path.into(), value: value.into() }
    }
}

/// The words of [`Evidence::kind`].
const EVIDENCE_KINDS: [&str; 6] = ["proc", "cgroup", "device", "file", "event", "processes"];

/// Which container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ContainerName {
    /// Its id, as its runtime has it.
    pub id: String,
    /// Its name; the id where it has none.
    pub name: String,
    /// Who made it; `unknown` where nothing tells.
    pub runtime: String,
}

/// One finding; its fields in JSON stand in this order. With 1,000 containers there are thousands, many times the same words: these
/// are there once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's id.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where it comes from.
    pub source: Source,
    /// Which container.
    pub container: Arc<ContainerName>,
    /// What was asked for.
    pub declared: Cow<'static, str>,
    /// What the kernel says.
    pub observed: String,
    /// What proves it.
    pub evidence: Vec<Evidence>,
    /// The setting that closes it.
    pub remedy: Cow<'static, str>,
    /// RFC 3339.
    pub first_seen: Arc<str>,
    /// RFC 3339.
    pub last_seen: Arc<str>,
    /// How often it was seen.
    pub count: u64,
    /// The smallest change that closes it, where a setting does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<Suggestion>,
    /// What tells two findings of one check and container apart.
    #[serde(skip)]
    pub object: String,
    /// The mounts that it is about.
    #[serde(skip)]
    pub mounts: Vec<Place>,
}

impl Finding {
    /// Reads a finding that an observatory tells; none where it is of a check that is not known here.
    pub fn read(value: &Value) -> Option<Self> {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let of = |source: &Source| Some(source.name()) == value["source"].as_str();
        let evidence = value["evidence"].as_array().into_iter().flatten().filter_map(|evidence| {
            let kind = EVIDENCE_KINDS.into_iter().find(|kind| evidence["kind"] == *kind)?;
            Some(Evidence {
                kind,
                path: word(&evidence["path"])?,
                value: word(&evidence["value"])?,
            })
        });
        let container = &value["container"];
        let observed = word(&value["observed"])?;
        Some(Self {
            check: super::about(value["check"].as_str()?)?.id,
            severity: value["severity"].as_str()?.parse().ok()?,
            source: [Source::Declared, Source::State, Source::Event, Source::Residue]
                .into_iter()
                .find(of)?,
            container: Arc::new(ContainerName {
                id: word(&container["id"])?,
                name: word(&container["name"])?,
                runtime: word(&container["runtime"])?,
            }),
            declared: word(&value["declared"])?.into(),
            evidence: evidence.collect(),
            remedy: word(&value["remedy"])?.into(),
            first_seen: word(&value["first_seen"])?.into(),
            last_seen: word(&value["last_seen"])?.into(),
            count: value["count"].as_u64()?,
            suggestion: None,
            object: observed.clone(),
            observed,
            mounts: Vec::new(),
        })
    }

    /// What makes it the same finding at another look.
    pub fn key(&self) -> (&'static str, &str, &str) {
        (self.check, &self.container.id, &self.object)
    }

    /// Which check found something of which container.
    pub fn what(&self) -> (&'static str, &str) {
        (self.check, &self.container.id)
    }
}

/// The JSON text of `value` on one line, in which nothing steers a terminal: what JSON itself leaves (delete, C1 controls,
/// marks that turn the direction of writing) is escaped as well.
pub fn json_line(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("findings are plain data");
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_direction_mark(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks that change the direction of writing or break lines; all of them lie below U+10000.
const fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_one_less_and_never_only_information() {
        use Severity::{Critical, High, Info, Low, Medium};
        for (severity, less) in
            [(Critical, High), (High, Medium), (Medium, Low), (Low, Low), (Info, Info)]
        {
            assert_eq!(severity.one_less(), less);
            assert_eq!(severity.name().parse::<Severity>().unwrap(), severity);
        }
        assert!("severe".parse::<Severity>().is_err());
        assert!(Critical > High && High > Medium && Medium > Low && Low > Info);
    }

    #[test]
    fn json_lines_steer_no_terminal_and_mean_the_same() {
        let text = "a\u{1b}[31m\u{7f}\u{9b}2J\n\u{202e}ü\u{1f600}\"\\";
        let line = json_line(&text);
        assert!(line.chars().all(|c| !c.is_control() && !is_direction_mark(c)), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
