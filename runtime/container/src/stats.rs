//! What a container uses, as its cgroups tell, in the JSON of `runc events --stats`.

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::state::Status;
use crate::store::{Journal, Store};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A container's cgroup folders, as files of counters.
struct Counters(Vec<PathBuf>);

impl Counters {
    /// The text of the first cgroup that has `file`.
    fn text(&self, file: &str) -> Option<String> {
        self.0.iter().find_map(|folder| fs::read_to_string(folder.join(file)).ok())
    }

    /// The number in the first of `files` that exists; `max` is the largest one.
    fn number(&self, files: &[&str]) -> Option<u64> {
        let text = files.iter().find_map(|file| self.text(file))?;
        if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
    }

    /// A file of `name value` lines.
    fn table(&self, file: &str) -> BTreeMap<String, u64> {
        let text = self.text(file).unwrap_or_default();
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }
}

/// The statistics of container `id`: `type`, `id` and `data`. Times are in nanoseconds, sizes in bytes. What the
/// container has no cgroup for is left out.
pub fn stats(store: &Store, id: &ContainerId) -> Result<Value> {
    let state = store.state(id)?;
    let status = state.observed_status();
    if matches!(status, Status::Creating | Status::Stopped) {
        return Err(Error::NotRunning { id: state.id, status: status.as_str() });
    }
    let counters = Counters(Journal::read(&store.folder(id))?.cgroups);
    let mut data = Map::new();
    data.insert("cpu".to_owned(), cpu(&counters));
    if let Some(memory) = memory(&counters) {
        data.insert("memory".to_owned(), memory);
    }
    if let Some(current) = counters.number(&["pids.current"]) {
        let limit = counters.number(&["pids.max"]).filter(|&limit| limit != u64::MAX);
        let mut pids = json!({ "current": current });
        // As runc, which leaves it out where there is none.
        if let Some(limit) = limit {
            pids["limit"] = limit.into();
        }
        data.insert("pids".to_owned(), pids);
    }
    Ok(json!({ "type": "stats", "id": state.id, "data": data }))
}

/// How many processes of container `id` the kernel has killed for want of memory (`memory.events`, and `memory.oom_control` of
/// cgroup v1 since Linux 4.13); `None` where it has no memory cgroup, or is gone.
pub fn oom_kills(store: &Store, id: &ContainerId) -> Option<u64> {
    let counters = Counters(Journal::read(&store.folder(id)).ok()?.cgroups);
    let files = ["memory.events", "memory.oom_control"];
    files.iter().find_map(|file| counters.table(file).remove("oom_kill"))
}

fn cpu(counters: &Counters) -> Value {
    let table = counters.table("cpu.stat");
    let get = |name: &str| table.get(name).copied().unwrap_or(0);
    let micro = |name: &str| get(name).saturating_mul(1000);
    let (total, user, kernel) = match counters.number(&["cpuacct.usage"]) {
        Some(total) => (
            total,
            counters.number(&["cpuacct.usage_user"]),
            counters.number(&["cpuacct.usage_sys"]),
        ),
        // Every cgroup v2 counts it, with or without the controller.
        None => (micro("usage_usec"), Some(micro("user_usec")), Some(micro("system_usec"))),
    };
    let throttled = table.get("throttled_time").copied().unwrap_or_else(|| micro("throttled_usec"));
    json!({
        "usage": { "total": total, "user": user.unwrap_or(0), "kernel": kernel.unwrap_or(0) },
        "throttling": {
            "periods": get("nr_periods"),
            "throttledPeriods": get("nr_throttled"),
            "throttledTime": throttled
        }
    })
}

fn memory(counters: &Counters) -> Option<Value> {
    let usage = counters.number(&["memory.usage_in_bytes", "memory.current"])?;
    let raw = counters.table("memory.stat");
    let entry = |usage: &[&str], limit: &[&str], max: &[&str], failures: &[&str]| {
        let value = |files: &[&str]| counters.number(files).unwrap_or(0);
        json!({
            "usage": value(usage), "limit": value(limit), "max": value(max), "failcnt": value(failures)
        })
    };
    let mut all = json!({
        "usage": entry(
            &["memory.usage_in_bytes", "memory.current"],
            &["memory.limit_in_bytes", "memory.max"],
            &["memory.max_usage_in_bytes", "memory.peak"],
            &["memory.failcnt"],
        ),
        "swap": entry(
            &["memory.memsw.usage_in_bytes", "memory.swap.current"],
            &["memory.memsw.limit_in_bytes", "memory.swap.max"],
            &["memory.memsw.max_usage_in_bytes", "memory.swap.peak"],
            &["memory.memsw.failcnt"],
        ),
        "kernel": entry(
            &["memory.kmem.usage_in_bytes"],
            &["memory.kmem.limit_in_bytes"],
            &["memory.kmem.max_usage_in_bytes"],
            &["memory.kmem.failcnt"],
        ),
        "cache": raw.get("total_cache").or(raw.get("cache")).or(raw.get("file")).copied().unwrap_or(0),
        "raw": raw
    });
    all["usage"]["usage"] = json!(usage);
    let events = counters.table("memory.events");
    if let Some(hits) = events.get("max") {
        all["usage"]["failcnt"] = json!(hits);
        all["events"] = json!(events);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Counters) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let counters = Counters(vec![folder.path().to_owned()]);
        (folder, counters)
    }

    #[test]
    fn both_versions_of_cgroups_are_read() {
        let (_v1, counters) = folder(&[
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.limit_in_bytes", "67108864\n"),
            ("memory.failcnt", "3\n"),
            ("memory.stat", "cache 10\ntotal_cache 20\n"),
            ("cpuacct.usage", "77\n"),
        ]);
        let memory = memory(&counters).unwrap();
        assert_eq!(memory["usage"]["limit"], 67_108_864);
        assert_eq!((&memory["usage"]["failcnt"], &memory["cache"]), (&json!(3), &json!(20)));
        assert_eq!(cpu(&counters)["usage"]["total"], 77);

        let (_v2, counters) = folder(&[
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nmax 5\noom 1\n"),
            (
                "cpu.stat",
                "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\nthrottled_usec 9\n",
            ),
        ]);
        let memory = super::memory(&counters).unwrap();
        assert_eq!((&memory["usage"]["failcnt"], &memory["events"]["oom"]), (&json!(5), &json!(1)));
        assert_eq!(memory["usage"]["limit"], u64::MAX);
        assert_eq!(cpu(&counters)["usage"]["total"], 5000);
        assert_eq!(cpu(&counters)["throttling"]["throttledTime"], 9000);
        let (_none, counters) = folder(&[]);
        assert!(super::memory(&counters).is_none());
    }
}
