//! `/api/v1/namespaces`: the namespaces of each container's first process, and the host's.

use super::{App, problem};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::path::Path;
use terrarium_abi::NsKind;

/// Answers.
pub async fn namespaces(State(app): State<App>) -> Response {
    let shared = app.shared;
    let answer = tokio::task::spawn_blocking(move || {
        let snapshots = {
            let mut registry = shared.registry();
            registry.read_state_files();
            registry.snapshots()
        };
        let mut resources = shared.resources();
        let (usages, _) = resources.read(&snapshots);
        drop(resources);
        let containers: Vec<Value> = snapshots
            .iter()
            .zip(&usages)
            .filter(|(snapshot, _)| snapshot.live)
            .filter_map(|(snapshot, usage)| {
                let pid = snapshot.pid.or(usage.first_pid)?;
                let namespaces = of_process(Path::new("/proc"), pid)?;
                let container = &snapshot.container;
                Some(json!({"id": container.id, "name": container.name, "cgroup": container.path,
                            "pid": pid, "namespaces": namespaces}))
            })
            .collect();
        json!({"host": host(&shared.context.initial_namespaces), "containers": containers})
    })
    .await;
    match answer {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(error) => problem(&error.to_string()),
    }
}

/// The inode of each namespace of a process (`namespaces(7)`); none when it has ended.
fn of_process(proc: &Path, pid: u32) -> Option<Value> {
    let folder = proc.join(pid.to_string()).join("ns");
    let mut all = Map::new();
    for kind in NsKind::ALL {
        let inode = std::fs::read_link(folder.join(kind.name())).ok().and_then(|link| inode(&link));
        all.insert(kind.name().to_owned(), json!(inode));
    }
    all.values().any(|inode| !inode.is_null()).then_some(Value::Object(all))
}

/// `4026531836` of `pid:[4026531836]`.
fn inode(link: &Path) -> Option<u64> {
    link.to_str()?.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

fn host(initial: &[u32; NsKind::ALL.len()]) -> Value {
    let of = |kind: NsKind| {
        let inode = initial[kind as usize];
        (kind.name().to_owned(), if inode == 0 { Value::Null } else { json!(inode) })
    };
    Value::Object(NsKind::ALL.into_iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_read_from_links() {
        let proc = tempfile::tempdir().expect("a folder");
        let folder = proc.path().join("7/ns");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::os::unix::fs::symlink("pid:[4026531836]", folder.join("pid")).expect("a link");
        let read = of_process(proc.path(), 7).expect("a process");
        assert_eq!((&read["pid"], &read["net"]), (&json!(4_026_531_836_u64), &Value::Null));
        assert_eq!(of_process(proc.path(), 8), None);
    }
}
