//! Who made the mounts that the checks of a container's state find.
//!
//! A look at the state sees that a mount is there; the mount event, if one was seen, tells which process made it and when. The
//! events of mounts are remembered for as long as their container's cgroup exists, and those of the history on disk are taken
//! in when an observatory starts.

use super::finding::Evidence;
use super::mounts::is_within;
use crate::event::select::point_in_time;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// More mounts are not remembered; the oldest go.
const MOST_MADE: usize = 4096;

/// A mount that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it is, as the container sees it.
    pub point: String,
    /// The path of what is mounted there, where it has one on the host.
    pub path: String,
    /// The kind of its filesystem.
    pub kind: String,
}

/// A mount operation that succeeded.
#[derive(Debug, Clone)]
pub struct Made {
    /// The path of the cgroup of who did it, or of the container that he had entered.
    pub cgroup: Arc<str>,
    /// As in the event.
    pub op: String,
    /// As in the event.
    pub source: String,
    /// As in the event.
    pub target: String,
    /// As in the event.
    pub kind: String,
    /// `process PID (COMMAND), ROLE, at TIME`.
    pub who: String,
    /// The processes that it came from; empty where they were not seen.
    pub chain: String,
}

impl Made {
    /// From an event of the history.
    fn read(event: &Value) -> Option<Self> {
        let word = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        if event.pointer("/result/ok") != Some(&Value::Bool(true)) {
            return None;
        }
        let at = word("/time").filter(|time| point_in_time(time).is_ok())?;
        Some(Self {
            cgroup: Arc::from(word("/cgroup/path")?),
            op: word("/mount/op")?.to_owned(),
            source: word("/mount/source")?.to_owned(),
            target: word("/mount/target")?.to_owned(),
            kind: word("/mount/fstype")?.to_owned(),
            who: who(
                event.pointer("/process/pid")?,
                word("/process/comm")?,
                word("/process/role")?,
                at,
            ),
            chain: String::new(),
        })
    }

    /// How well it fits the making of the mount: by where, by what, by kind; 0 where it does not.
    fn fits(&self, place: &Place) -> u8 {
        let makes =
            ["mount", "bind", "move", "fsopen", "open_tree", "open_tree_attr", "move_mount"];
        if !makes.contains(&self.op.as_str()) {
            return 0;
        }
        // The runtime mounts below the folder that becomes the container's root.
        let ends = self.target.strip_suffix(place.point.as_str());
        let is_below = ends.is_some_and(|before| before.is_empty() || before.starts_with('/'));
        let copies = ["bind", "open_tree", "open_tree_attr"].contains(&self.op.as_str());
        if place.point.len() > 1 && is_below {
            3
        } else if copies && !place.path.is_empty() && self.source == place.path {
            2
        } else {
            u8::from(!copies && !self.kind.is_empty() && self.kind == place.kind)
        }
    }

    fn evidence(&self) -> Vec<Evidence> {
        let Self { op, source, target, kind, who, chain, .. } = self;
        let mut value = op.clone();
        for (word, text) in [(" of ", source), (" (", kind), (" at ", target)] {
            if !text.is_empty() {
                value.push_str(word);
                value.push_str(text);
                value.push_str(if word == " (" { ")" } else { "" });
            }
        }
        let mut evidence = vec![Evidence { kind: "event", path: format!("made by {who}"), value }];
        if !chain.is_empty() {
            let path = "from the first process that was seen to the one that mounted it".to_owned();
            evidence.push(Evidence { kind: "processes", path, value: chain.clone() });
        }
        evidence
    }
}

/// Who did it, in words.
pub fn who(pid: impl std::fmt::Display, comm: &str, role: &str, at: &str) -> String {
    format!("process {pid} ({comm}), {role}, at {at}")
}

/// The mounts that were seen being made.
#[derive(Debug, Default)]
pub struct Mounts {
    made: VecDeque<Made>,
}

impl Mounts {
    /// Takes one in.
    pub fn made(&mut self, made: Made) {
        if self.made.len() >= MOST_MADE {
            self.made.pop_front();
        }
        self.made.push_back(made);
    }

    /// A cgroup was removed: another container may take its path.
    pub fn cgroup_removed(&mut self, path: &str) {
        self.made.retain(|made| !is_within(&made.cgroup, path));
    }

    /// Takes in a line of the history, which come in their order; those of another boot tell nothing of now.
    pub fn recall(&mut self, line: &str, boot: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let key = event.pointer("/process/key").and_then(Value::as_str).unwrap_or_default();
        if key.split('-').next() != Some(boot) {
            return;
        }
        if event["type"] == "cgroup.remove" {
            if let Some(path) = event.pointer("/cgroup/path").and_then(Value::as_str) {
                self.cgroup_removed(path);
            }
        } else if let Some(made) = Made::read(&event) {
            self.made(made);
        }
    }

    /// What is known of how mounts of the container with these cgroups were made.
    pub fn of(&self, places: &[Place], cgroups: &[&str]) -> Vec<Evidence> {
        let own = |made: &&Made| cgroups.iter().any(|path| is_within(&made.cgroup, path));
        let mut evidence = Vec::new();
        for place in places {
            let candidates = self.made.iter().filter(own).map(|made| (made.fits(place), made));
            // Of several that fit as well, the last is what is seen.
            let best = candidates.filter(|(fits, _)| *fits > 0).max_by_key(|(fits, _)| *fits);
            for new in best.map(|(_, made)| made.evidence()).unwrap_or_default() {
                if !evidence.contains(&new) {
                    evidence.push(new);
                }
            }
        }
        evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(op: &str, source: &str, target: &str, kind: &str) -> Made {
        Made {
            cgroup: Arc::from("/c/web/below"),
            op: op.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            kind: kind.to_owned(),
            who: who(7, "sh", "workload", "2026-11-28T17:00:00Z"),
            chain: String::new(),
        }
    }

    #[track_caller]
    fn check(made: &Made, point: &str, path: &str, kind: &str, expected: u8) {
        let word = str::to_owned;
        let place = Place { point: word(point), path: word(path), kind: word(kind) };
        assert_eq!(made.fits(&place), expected, "{made:?} {place:?}");
    }

    #[test]
    fn a_mount_is_known_by_where_it_is_or_by_what_it_shows() {
        let below = made("bind", "/etc", "/var/lib/roots/1/mnt/x", "");
        check(&below, "/mnt/x", "/etc", "ext4", 3);
        check(&below, "/x", "/etc", "ext4", 3);
        check(&below, "/t/x", "/etc", "ext4", 2);
        check(&below, "/", "/srv", "ext4", 0);
        let by_descriptor = made("bind", "/etc", "/proc/self/fd/7", "");
        check(&by_descriptor, "/mnt/x", "/etc", "ext4", 2);
        check(&by_descriptor, "/mnt/x", "/etc/x", "ext4", 0);
        check(&made("fsopen", "", "", "debugfs"), "/d", "", "debugfs", 1);
        check(&made("umount", "", "/d", ""), "/d", "", "debugfs", 0);
    }

    #[test]
    fn a_mount_of_one_that_is_gone_is_not_told_of_another() {
        let mut mounts = Mounts::default();
        mounts.made(made("bind", "/etc", "/x", ""));
        let places = [Place { point: "/x".to_owned(), path: String::new(), kind: String::new() }];
        assert_eq!(mounts.of(&places, &["/c/we"]), []);
        assert_eq!(mounts.of(&places, &["/c/web"]).len(), 1);
        mounts.cgroup_removed("/c/web");
        assert_eq!(mounts.of(&places, &["/c/web"]), []);
    }

    #[test]
    fn the_history_of_this_boot_is_recalled() {
        let line = |boot: &str, ok: bool| {
            format!(
                r#"{{"type":"mount.bind","time":"2026-11-28T17:00:00Z","cgroup":{{"path":"/c/web"}},"process":{{"key":"{boot}-1-7","pid":7,"comm":"sh","role":"workload"}},"mount":{{"op":"bind","source":"/etc","target":"/x","fstype":""}},"result":{{"ok":{ok}}}}}"#
            )
        };
        let mut mounts = Mounts::default();
        mounts.recall(&line("aa", true), "bb");
        mounts.recall(&line("bb", false), "bb");
        mounts.recall("no JSON", "bb");
        assert!(mounts.made.is_empty());
        mounts.recall(&line("bb", true), "bb");
        let who = "process 7 (sh), workload, at 2026-11-28T17:00:00Z";
        assert_eq!(mounts.made[0].who, who);
    }
}
