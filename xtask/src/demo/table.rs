//! What `/metrics` says, as a table of events per cgroup.

use std::collections::BTreeMap;

/// The rows: what is counted, in which metric, under which labels.
const ROWS: &[(&str, &str, &[&str])] = &[
    ("processes made (clone, fork)", "terrarium_clone_total", &["kind=\"process\""]),
    ("threads made", "terrarium_clone_total", &["kind=\"thread\""]),
    ("programs started (exec)", "terrarium_exec_total", &[]),
    ("tasks ended", "terrarium_exit_total", &[]),
    ("namespaces made by clone", "terrarium_namespace_create_total", &["via=\"clone\"", "ok"]),
    ("namespaces made by unshare", "terrarium_namespace_create_total", &["via=\"unshare\"", "ok"]),
    ("namespaces entered (setns)", "terrarium_namespace_enter_total", &["ok"]),
    ("mounts", "terrarium_mount_operations_total", &["op=\"mount\"", "ok"]),
    ("umounts", "terrarium_mount_operations_total", &["op=\"umount\"", "ok"]),
    ("pivot_root", "terrarium_mount_operations_total", &["op=\"pivot_root\"", "ok"]),
    ("mount calls refused", "terrarium_mount_operations_total", &["result=\"error\""]),
    ("times at the memory limit", "terrarium_memory_limit_hits_total", &[]),
    ("killed by the OOM killer", "terrarium_oom_kills_total", &[]),
    ("  … in the kernel's own file", "terrarium_memory_events_total", &["event=\"oom_kill\""]),
];

/// Prints the counts of the container beside those of everything else.
pub fn print(metrics: &str, container: &str) {
    let cgroup = cgroup_of(metrics, container).unwrap_or_else(|| container.to_owned());
    println!("  {:<32} {:>20} {:>20}", "events by cgroup", cgroup, "elsewhere");
    for (what, metric, labels) in ROWS {
        let [inside, outside] = sums(metrics, metric, labels, container);
        println!("  {what:<32} {inside:>20} {outside:>20}");
    }
    let mut ways: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in metrics.lines() {
        let Some(labels) = line
            .strip_prefix("terrarium_probe_attached{")
            .and_then(|rest| rest.strip_suffix("} 1"))
        else {
            continue;
        };
        if let (Some(probe), Some(way)) = (label(labels, "probe"), label(labels, "mechanism")) {
            ways.entry(way).or_default().push(probe);
        }
    }
    for (way, probes) in ways {
        println!("  attached by {way}: {}", probes.join(", "));
    }
}

/// Series that the container's own script accounts for.
const TELLING: &[(&str, &str)] = &[
    ("terrarium_clone_total", "kind=\"process\""),
    ("terrarium_namespace_create_total", "via=\"unshare\""),
    ("terrarium_namespace_enter_total", "result=\"ok\""),
    ("terrarium_mount_operations_total", "op=\"mount\""),
    ("terrarium_mount_operations_total", "op=\"umount\""),
    ("terrarium_memory_limit_hits_total", "scope=\"self\""),
    ("terrarium_oom_kills_total", "scope=\"self\""),
    ("terrarium_memory_events_total", "event=\"oom_kill\""),
];

/// The container's lines that say what the table says, as they stand there; none that is zero.
pub fn lines<'a>(metrics: &'a str, container: &str) -> Vec<&'a str> {
    metrics
        .lines()
        .filter(|line| {
            let Some((metric, labels, value)) = parts(line) else { return false };
            let tells = |(name, text): &(&str, &str)| metric == *name && labels.contains(text);
            value != 0.0 && label(labels, "name") == Some(container) && TELLING.iter().any(tells)
        })
        .collect()
}

/// One series on lines of at most `width` columns, broken after a comma.
pub fn folded(line: &str, width: usize) -> Vec<String> {
    let mut out = vec![String::new()];
    for piece in line.split_inclusive([',', '{']) {
        let last = out.last_mut().expect("it starts with one line");
        if !last.is_empty() && last.len() + piece.len() > width {
            out.push(format!("    {piece}"));
        } else {
            last.push_str(piece);
        }
    }
    out
}

/// A line of at most `width` characters.
pub fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Inside the container and elsewhere.
fn sums(metrics: &str, metric: &str, wanted: &[&str], container: &str) -> [f64; 2] {
    let mut sums = [0.0, 0.0];
    for line in metrics.lines() {
        let Some((found, labels, value)) = parts(line) else { continue };
        let fits = wanted.iter().all(|text| match *text {
            "ok" => label(labels, "result").is_none_or(|result| result == "ok"),
            text => labels.contains(text),
        });
        if found == metric && fits {
            sums[usize::from(label(labels, "name") != Some(container))] += value;
        }
    }
    sums
}

fn cgroup_of(metrics: &str, container: &str) -> Option<String> {
    metrics.lines().filter_map(parts).find_map(|(_, labels, _)| {
        (label(labels, "name") == Some(container))
            .then(|| label(labels, "id").map(str::to_owned))?
    })
}

/// `name{labels} value` of the text format.
fn parts(line: &str) -> Option<(&str, &str, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    Some((name, labels, value.parse().ok()?))
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE terrarium_clone_total counter\n\
        terrarium_clone_total{id=\"/terrarium/demo\",name=\"demo\",kind=\"process\"} 104\n\
        terrarium_clone_total{id=\"/terrarium/demo\",name=\"demo\",kind=\"thread\"} 0\n\
        terrarium_clone_total{id=\"/\",name=\"host\",kind=\"process\"} 7\n";

    #[test]
    fn the_container_is_told_from_the_rest() {
        let kind = ["kind=\"process\""];
        let [inside, outside] = sums(METRICS, "terrarium_clone_total", &kind, "demo");
        assert_eq!(format!("{inside} {outside}"), "104 7");
        assert_eq!(cgroup_of(METRICS, "demo").as_deref(), Some("/terrarium/demo"));
        let lines = lines(METRICS, "demo");
        assert_eq!(lines.len(), 1);
        assert_eq!(
            folded(lines[0], 60),
            [
                "terrarium_clone_total{id=\"/terrarium/demo\",name=\"demo\",",
                "    kind=\"process\"} 104"
            ]
        );
    }
}
