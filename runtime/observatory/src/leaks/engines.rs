//! Containers that engines have written down: terrarium, runc (by hand, or below containerd, Docker and Podman) and crun.
//!
//! What nobody wrote down is found by its namespaces and cgroups, see `host.rs`; then the program that watches over it
//! (conmon, a containerd shim, a runtime in the foreground) may still tell where its spec lies.

use super::process::Proc;
use super::spec::Spec;
use crate::attribution;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where engines keep what they know.
#[derive(Debug, Clone)]
pub struct EngineRoots {
    /// terrarium's state root.
    pub terrarium: PathBuf,
    /// State roots of runc and crun, and where containerd keeps bundles.
    pub others: Vec<PathBuf>,
}

impl EngineRoots {
    /// Where they are unless somebody says otherwise.
    pub fn usual(terrarium: &Path) -> Self {
        let others = [
            "/run/runc",
            "/run/crun",
            "/run/containerd/runc/default",
            "/run/containerd/runc/k8s.io",
            "/run/containerd/runc/moby",
            "/run/docker/runtime-runc/moby",
            "/run/docker/runtime-runc/plugins.moby",
        ];
        Self { terrarium: terrarium.to_owned(), others: others.map(PathBuf::from).to_vec() }
    }
}

/// A container as its engine knows it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who made it.
    pub runtime: String,
    /// Its first process.
    pub pid: i32,
    /// Start time of that process; none where the engine does not write it down.
    pub start_ticks: Option<u64>,
    /// Its cgroups by the engine's word for the hierarchy: a controller, or empty for cgroup v2; absolute folders below
    /// the mount, or paths below the hierarchy's root.
    pub cgroups: BTreeMap<String, String>,
    /// Its spec.
    pub spec: Option<Spec>,
    /// Limits that were set after the spec was written, by name of the resource.
    pub limits: BTreeMap<[&'static str; 2], i64>,
    /// Whether its program has been started.
    pub started: bool,
    /// Whether the engine is still building it.
    pub building: bool,
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn pid(value: &Value) -> i32 {
    value.as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default()
}

/// The spec of a bundle.
pub fn spec_in(bundle: &Path) -> Option<Spec> {
    Spec::parse(&fs::read(bundle.join("config.json")).ok()?)
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// Every container that engines have written down and that has a first process.
pub fn known(roots: &EngineRoots) -> Vec<Known> {
    let own = folders(&roots.terrarium).into_iter().filter_map(|folder| terrarium(&folder));
    let others = roots.others.iter().flat_map(|root| folders(root));
    let others = others.filter_map(|folder| runc(&folder).or_else(|| crun(&folder)));
    own.chain(others).filter(|known| known.pid > 0).collect()
}

/// Whether an engine other than terrarium has this id written down, running or not.
pub fn is_known_elsewhere(roots: &EngineRoots, id: &str) -> bool {
    roots.others.iter().any(|root| root.join(id).is_dir())
}

/// `<root>/<id>/state.json`: docs/ARCHITECTURE.md.
fn terrarium(folder: &Path) -> Option<Known> {
    let state = json(&folder.join("state.json"))?;
    let status = text(&state["status"]);
    let cgroups = state["cgroups"].as_array().into_iter().flatten();
    let (id, name) = (text(&state["id"]), text(&state["name"]));
    let bundle = PathBuf::from(text(&state["bundle"]));
    // The engine above it has given another name than its runtime was told.
    let by_engine =
        (id == name && is_of_podman(&bundle)).then(|| engine_name("podman", &id, &bundle));
    Some(Known {
        name: by_engine.unwrap_or(name),
        id,
        runtime: "terrarium".to_owned(),
        pid: pid(&state["pid"]),
        start_ticks: state["pid_start_ticks"].as_u64(),
        cgroups: cgroups
            .map(|cgroup| {
                let hierarchy = text(&cgroup["hierarchy"]);
                let hierarchy = if hierarchy == "unified" { String::new() } else { hierarchy };
                (hierarchy, text(&cgroup["path"]))
            })
            .collect(),
        spec: spec_in(folder),
        limits: BTreeMap::new(),
        started: status != "created",
        building: status == "creating",
    })
}

/// runc's `<root>/<id>/state.json` (libcontainer's `State`).
fn runc(folder: &Path) -> Option<Known> {
    let state = json(&folder.join("state.json"))?;
    // `bundle=/path` among the labels.
    let labels = state["config"]["labels"].as_array().into_iter().flatten();
    let bundle = labels.filter_map(Value::as_str).find_map(|label| label.strip_prefix("bundle="));
    let bundle = PathBuf::from(bundle.unwrap_or_default());
    let paths = state["cgroup_paths"].as_object().into_iter().flatten();
    let cgroups = &state["config"]["cgroups"];
    let mut limits = BTreeMap::new();
    for (key, resource) in [
        ("memory", ["memory", "limit"]),
        ("memory_swap", ["memory", "swap"]),
        ("pids_limit", ["pids", "limit"]),
        ("cpu_quota", ["cpu", "quota"]),
    ] {
        // `update` writes here, not into the spec.
        if let Some(value) = cgroups[key].as_i64().filter(|value| *value != 0) {
            limits.insert(resource, value);
        }
    }
    let below = |part: &str| folder.to_string_lossy().contains(part);
    let runtime = match () {
        () if below("/moby/") => "docker",
        () if below("/containerd/") => "containerd",
        () if is_of_podman(&bundle) => "podman",
        () => "runc",
    };
    let id = text(&state["id"]);
    Some(Known {
        name: engine_name(runtime, &id, &bundle),
        id,
        runtime: runtime.to_owned(),
        pid: pid(&state["init_process_pid"]),
        start_ticks: state["init_process_start"].as_u64(),
        cgroups: paths.map(|(name, path)| (name.clone(), text(path))).collect(),
        spec: spec_in(&bundle),
        limits,
        started: !folder.join("exec.fifo").exists(),
        building: false,
    })
}

/// crun's `<root>/<id>/status`.
fn crun(folder: &Path) -> Option<Known> {
    let status = json(&folder.join("status"))?;
    let bundle = PathBuf::from(text(&status["bundle"]));
    let id = folder.file_name()?.to_string_lossy().into_owned();
    let cgroup = text(&status["cgroup-path"]);
    let runtime = if is_of_podman(&bundle) { "podman" } else { "crun" };
    Some(Known {
        name: engine_name(runtime, &id, &bundle),
        id,
        runtime: runtime.to_owned(),
        pid: pid(&status["pid"]),
        start_ticks: status["process-start-time"].as_u64(),
        // One path, the same in every hierarchy that it uses.
        cgroups: [("*".to_owned(), cgroup)].into_iter().filter(|(_, p)| !p.is_empty()).collect(),
        spec: spec_in(&bundle),
        limits: BTreeMap::new(),
        started: !folder.join("exec.fifo").exists(),
        building: false,
    })
}

/// Whether a bundle lies where Podman puts them: `<storage>/<driver>-containers/<id>/userdata`.
fn is_of_podman(bundle: &Path) -> bool {
    let above = bundle.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default();
    bundle.ends_with("userdata") && above.to_string_lossy().ends_with("-containers")
}

/// The name that an engine's own files or annotations give, else the id.
fn engine_name(runtime: &str, id: &str, bundle: &Path) -> String {
    if ["docker", "podman"].contains(&runtime) {
        let details = attribution::engines::look_up(Path::new("/"), runtime, id, Some(bundle));
        if let Some(details) = details.filter(|details| !details.name.is_empty()) {
            return details.name;
        }
    }
    let spec = spec_in(bundle);
    let annotations = spec.as_ref().map(|spec| &spec.value()["annotations"]);
    ["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"]
        .iter()
        .find_map(|key| annotations?[key].as_str().map(str::to_owned))
        .unwrap_or_else(|| id.to_owned())
}

/// What the program that watches over a container tells of it by its arguments and working folder.
pub fn from_watcher(proc: &Proc, watcher: i32) -> Option<Known> {
    let words = proc.arguments(watcher);
    let program = words.first()?.rsplit('/').next()?.to_owned();
    let value = |names: &[&str]| {
        let at = words.iter().position(|word| names.contains(&word.as_str()))?;
        words.get(at + 1).cloned()
    };
    let folder = proc.link(watcher, "cwd").map(PathBuf::from)?;
    if program == "conmon" {
        let id = value(&["-c", "--cid"])?;
        return Some(Known {
            name: value(&["-n", "--name"]).unwrap_or_else(|| id.clone()),
            id,
            runtime: "podman".to_owned(),
            spec: spec_in(Path::new(&value(&["-b", "--bundle"])?)),
            started: true,
            ..Known::default()
        });
    }
    if program.starts_with("containerd-shim") {
        // The shim of a container works in its bundle.
        let id = value(&["-id"])?;
        let docker = words.iter().any(|word| word == "moby");
        return Some(Known {
            name: id.clone(),
            id,
            runtime: if docker { "docker" } else { "containerd" }.to_owned(),
            spec: spec_in(&folder),
            started: true,
            ..Known::default()
        });
    }
    if ["runc", "crun"].contains(&program.as_str()) && words.iter().any(|word| word == "run") {
        let bundle = value(&["-b", "--bundle"]).map_or(folder.clone(), |path| folder.join(path));
        let id = words.last()?.clone();
        return Some(Known {
            name: id.clone(),
            id,
            runtime: program,
            spec: spec_in(&bundle),
            started: true,
            ..Known::default()
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_each_engine_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let bundle = folder.path().join("bundle");
        write("bundle/config.json", r#"{"process":{"noNewPrivileges":true}}"#);
        write(
            "terrarium/web/state.json",
            r#"{"id":"web","name":"w","pid":5,"pid_start_ticks":7,"status":"running",
            "cgroups":[{"hierarchy":"unified","path":"/terrarium/web"}]}"#,
        );
        write("terrarium/ended/state.json", r#"{"id":"ended","pid":0,"status":"stopped"}"#);
        write("terrarium/broken/state.json", "{");
        write(
            "runc/one/state.json",
            &format!(
                r#"{{"id":"one","init_process_pid":6,"init_process_start":8,"cgroup_paths":{{"memory":"/c/memory/one"}},
                "config":{{"labels":["bundle={}"],"cgroups":{{"memory":4096}}}}}}"#,
                bundle.display()
            ),
        );
        write(
            "crun/two/status",
            &format!(
                r#"{{"pid":9,"process-start-time":3,"cgroup-path":"/two","bundle":"{}"}}"#,
                bundle.display()
            ),
        );
        write("crun/two/exec.fifo", "");
        let roots = EngineRoots {
            terrarium: folder.path().join("terrarium"),
            others: vec![folder.path().join("runc"), folder.path().join("crun")],
        };
        let all = known(&roots);
        let [web, one, two] = &all[..] else { panic!("{all:?}") };
        assert_eq!((web.id.as_str(), web.name.as_str(), web.pid), ("web", "w", 5));
        assert_eq!(web.cgroups[""], "/terrarium/web");
        assert_eq!((one.runtime.as_str(), one.pid, one.start_ticks), ("runc", 6, Some(8)));
        assert_eq!(one.limits[&["memory", "limit"]], 4096);
        assert!(one.spec.as_ref().unwrap().no_new_privileges() && one.started);
        assert_eq!((two.runtime.as_str(), two.cgroups["*"].as_str()), ("crun", "/two"));
        assert!(!two.started && two.spec.is_some());
    }
}
