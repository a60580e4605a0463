//! `/api/v1/containers`: the containers, with what they use and what has been counted for them.

use super::{App, problem};
use crate::attribution::patterns;
use crate::lives::Life;
use crate::sample::{Observed, Row, Sample};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::PoisonError;
use terrarium_abi::counter::family;
use time::format_description::well_known::Rfc3339;

/// Answers.
pub async fn containers(State(app): State<App>) -> Response {
    let page_bytes = app.shared.context.page_bytes;
    let shared = app.shared;
    let views = move || -> Vec<Value> {
        let sample = Sample::take(&shared, true);
        let lives = shared.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let life = |observed: &Observed| lives.of(&observed.snapshot.container.path);
        sample.containers.iter().map(|one| view(one, &life(one), page_bytes)).collect()
    };
    match tokio::task::spawn_blocking(views).await {
        Ok(all) => axum::Json(all).into_response(),
        Err(error) => problem(&error.to_string()),
    }
}

fn view(observed: &Observed, life: &Life, page_bytes: u64) -> Value {
    let Observed { snapshot, row, usage, memory_events } = observed;
    let container = &snapshot.container;
    let cgroups: Vec<Value> = snapshot
        .cgroup_ids
        .iter()
        .map(|(hierarchy, id, path)| json!({"hierarchy": hierarchy.name(), "id": id, "path": &**path}))
        .collect();
    let limits = &usage.limits;
    let stat = usage.memory_stat.unwrap_or_default();
    let network: Vec<Value> = usage
        .network
        .iter()
        .map(|interface| {
            let counters = |[bytes, packets, errors, dropped]: [u64; 4]| {
                json!({"bytes": bytes, "packets": packets, "errors": errors, "dropped": dropped})
            };
            json!({"interface": interface.name, "receive": counters(interface.receive),
                   "transmit": counters(interface.transmit)})
        })
        .collect();
    let io: Vec<Value> = usage
        .io
        .iter()
        .map(|io| {
            json!({"device": io.device, "read_bytes": io.read_bytes,
                   "written_bytes": io.written_bytes, "reads": io.reads, "writes": io.writes})
        })
        .collect();
    let pressure =
        |n: usize| usage.pressure[n].map(|p| json!({"some_us": p.some_us, "full_us": p.full_us}));
    let own_pattern = patterns::recognise(&container.path);
    json!({
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "runtime": container.runtime,
        "pod": container.pod,
        "pod_namespace": container.pod_namespace,
        "state": snapshot.state().name(),
        "pid": snapshot.pid.or(usage.first_pid),
        "started": snapshot.started.format(&Rfc3339).ok(),
        "start_phases": life
            .phases()
            .map(|(phase, ns)| json!({"phase": phase.name(), "ns": ns}))
            .collect::<Vec<_>>(),
        "generation": container.generation,
        "labels": container.labels,
        // Services of the host's own are listed as well; a reader may want to tell them apart.
        "kind": own_pattern.map_or("container", |found| found.kind()),
        "cgroup": container.path,
        "cgroup_driver": container.cgroup_driver,
        "cgroups": cgroups,
        "limits": {
            "memory_bytes": limits.memory_bytes,
            "cpu_quota_us": limits.cpu_quota_us,
            "cpu_period_us": limits.cpu_period_us,
            "cpu_shares": limits.cpu_shares,
            "pids": limits.pids,
        },
        "cpu": {
            "usage_ns": usage.cpu_ns,
            "user_ns": usage.cpu_user_ns,
            "system_ns": usage.cpu_system_ns,
            "throttled_ns": usage.cpu_throttled_ns,
            "throttled_periods": usage.cpu_throttled_periods,
        },
        "memory": {
            "usage_bytes": usage.memory_bytes,
            "working_set_bytes": usage.working_set_bytes(),
            "max_usage_bytes": usage.memory_max_bytes,
            "anon_bytes": usage.memory_stat.map(|_| stat.anon),
            "file_bytes": usage.memory_stat.map(|_| stat.file),
            "swap_bytes": usage.memory_stat.map(|_| stat.swap),
            "events": memory_events.named().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        },
        "tasks": {"processes": usage.processes, "threads": usage.threads},
        "io": io,
        "network": network,
        "pressure": {"cpu": pressure(0), "memory": pressure(1), "io": pressure(2)},
        "counters": counters(row, page_bytes),
    })
}

/// The sums that people ask for first; all labels are in `/metrics`.
fn counters(row: &Row, page_bytes: u64) -> Value {
    let sum = |wanted: u8, label: Option<(usize, u8)>| -> u64 {
        row.iter()
            .filter(|(kind, _)| {
                let (family, labels) = kind.parts();
                family == wanted && label.is_none_or(|(n, value)| labels[n] == value)
            })
            .map(|(_, count)| count)
            .sum()
    };
    // Label 2 of namespaces and mounts says whether the call failed.
    json!({
        "processes": sum(family::CLONE, Some((0, 0))),
        "threads": sum(family::CLONE, Some((0, 1))),
        "clone_failures": sum(family::CLONE_FAILED, None),
        "execs": sum(family::EXEC, None),
        "exits": sum(family::EXIT, None),
        "namespaces_created": sum(family::NS_CREATE, Some((2, 0))),
        "namespaces_entered": sum(family::NS_ENTER, Some((2, 0))),
        "mount_operations": sum(family::MOUNT, Some((2, 0))),
        "mount_operation_failures": sum(family::MOUNT, Some((2, 1))),
        "memory_limit_hits": sum(family::MEMORY_LIMIT, None),
        "memory_stall_ns": sum(family::MEMORY_STALL_SUM, None),
        "memory_reclaimed_bytes": sum(family::RECLAIMED_PAGES, None) * page_bytes,
        "oom_kills": sum(family::OOM_KILL, None),
    })
}
