//! What the engines' own files tell of a container that its cgroup's path has shown: name, image, labels, pod.
//!
//! No engine is asked: its files are there also when it hangs, and cost it nothing. To add an engine: a function that reads
//! its file, and a line in [`look_up`].

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known beside the id. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The name.
    pub name: String,
    /// The image.
    pub image: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the pod.
    pub pod: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
}

/// Looks a container up. `root` is `/` but for tests; `bundle` is where its OCI bundle is, if its runtime's state has told.
pub fn look_up(root: &Path, runtime: &str, id: &str, bundle: Option<&Path>) -> Option<Details> {
    match runtime {
        "docker" => docker(root, id),
        "podman" => podman(root, id, bundle),
        "containerd" | "cri-o" => {
            let places = bundles(root, runtime, id);
            bundle.map(Path::to_owned).into_iter().chain(places).find_map(|b| of_bundle(&b))
        }
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerFile {
    name: String,
    config: DockerConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// `config.v2.json` in Docker's folder of containers.
fn docker(root: &Path, id: &str) -> Option<Details> {
    let file = root.join("var/lib/docker/containers").join(id).join("config.v2.json");
    let DockerFile { name, config } = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let labels = config.labels.unwrap_or_default();
    let mut details = kubernetes(&labels).unwrap_or_default();
    if details.name.is_empty() {
        name.trim_start_matches('/').clone_into(&mut details.name);
    }
    Some(Details { image: config.image, labels, ..details })
}

#[derive(Deserialize)]
struct PodmanEntry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// JSON in a string.
    #[serde(default)]
    metadata: String,
}

/// The list that containers/storage keeps: beside the bundle, else where it usually is.
fn podman(root: &Path, id: &str, bundle: Option<&Path>) -> Option<Details> {
    // <storage>/<driver>-containers/<id>/userdata
    let beside = bundle.and_then(|bundle| Some(bundle.parent()?.parent()?.to_owned()));
    let storages = [root.join("var/lib/containers/storage")].into_iter().chain(homes(root));
    let usual = storages.flat_map(|storage| {
        ["overlay", "vfs", "btrfs", "zfs"].map(|d| storage.join(format!("{d}-containers")))
    });
    let folder_and_entry = beside.into_iter().chain(usual).find_map(|folder| {
        let text = std::fs::read(folder.join("containers.json")).ok()?;
        let entries: Vec<PodmanEntry> = serde_json::from_slice(&text).ok()?;
        Some((folder, entries.into_iter().find(|entry| entry.id == id)?))
    });
    let (folder, entry) = folder_and_entry?;
    let metadata: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&entry.metadata).unwrap_or_default();
    let text = |key: &str| metadata.get(key).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let mut details = of_bundle(&folder.join(id).join("userdata")).unwrap_or_default();
    let name = entry.names.first().cloned().unwrap_or_else(|| text("name"));
    if details.pod.is_empty() || details.name.is_empty() {
        details.name = name;
    }
    if details.image.is_empty() {
        details.image = text("image-name");
    }
    Some(details)
}

/// Where people's own containers are.
fn homes(root: &Path) -> impl Iterator<Item = PathBuf> {
    let homes = std::fs::read_dir(root.join("home")).into_iter().flatten().flatten();
    homes.map(|home| home.path().join(".local/share/containers/storage"))
}

/// Where the bundle of a container is, by what its engine does.
fn bundles(root: &Path, runtime: &str, id: &str) -> Vec<PathBuf> {
    if runtime == "cri-o" {
        return ["run", "var/lib"]
            .map(|at| {
                root.join(at)
                    .join("containers/storage/overlay-containers")
                    .join(id)
                    .join("userdata")
            })
            .to_vec();
    }
    // One folder a namespace of containerd.
    let tasks = ["run/containerd", "run/k3s/containerd"]
        .map(|at| root.join(at).join("io.containerd.runtime.v2.task"));
    let namespaces = tasks.into_iter().flat_map(|t| std::fs::read_dir(t).into_iter().flatten());
    namespaces.flatten().map(|namespace| namespace.path().join(id)).collect()
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What the annotations of a bundle tell.
fn of_bundle(bundle: &Path) -> Option<Details> {
    let text = std::fs::read(bundle.join("config.json")).ok()?;
    let Bundle { annotations } = serde_json::from_slice(&text).ok()?;
    let first = |keys: &[&str]| keys.iter().find_map(|key| annotations.get(*key).cloned());
    let image = first(&[
        "io.kubernetes.cri.image-name",
        "io.kubernetes.cri-o.ImageName",
        "org.opencontainers.image.ref.name",
    ]);
    let mut details = kubernetes(&annotations).unwrap_or_default();
    if details.name.is_empty() {
        details.name = first(&["nerdctl/name"]).unwrap_or_default();
    }
    details.image = image.unwrap_or_default();
    details.labels = annotations;
    Some(details)
}

/// What Kubernetes has its runtimes note down: as annotations of the bundle, or as labels of a Docker container.
fn kubernetes(notes: &BTreeMap<String, String>) -> Option<Details> {
    let first = |keys: &[&str]| keys.iter().find_map(|key| notes.get(*key).cloned());
    let pod = first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"])?;
    let kind = first(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
    let name = first(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]);
    let pod_namespace =
        first(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]);
    Some(Details {
        // The container that only holds the pod's namespaces has no name of its own; kubelet's word for it is POD.
        name: match (name, kind.as_deref()) {
            (_, Some("sandbox")) | (None, _) => "POD".to_owned(),
            (Some(name), _) => name,
        },
        pod,
        pod_namespace: pod_namespace.unwrap_or_default(),
        ..Details::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// The engine's file, and the name, image, pod and namespace that are found in it.
    #[track_caller]
    fn check(runtime: &str, file: &str, text: &str, expected: [&str; 4]) {
        let root = tempfile::tempdir().expect("temporary folder");
        assert_eq!(look_up(root.path(), runtime, ID, None), None);
        let file = root.path().join(file.replace("ID", ID));
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("make folder");
        std::fs::write(&file, text.replace("ID", ID)).expect("write file");
        let found = look_up(root.path(), runtime, ID, None).expect("it is found");
        assert_eq!([&*found.name, &*found.image, &*found.pod, &*found.pod_namespace], expected);
    }

    #[test]
    fn files_of_engines() {
        check(
            "docker",
            "var/lib/docker/containers/ID/config.v2.json",
            r#"{"ID":"ID","Name":"/web","Config":{"Image":"nginx:1","Labels":{"a":"b"}},"State":{"Pid":1}}"#,
            ["web", "nginx:1", "", ""],
        );
        check(
            "docker",
            "var/lib/docker/containers/ID/config.v2.json",
            r#"{"Name":"/k8s_app_shop-1_prod_uid_0","Config":{"Image":"sha256:1","Labels":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"shop-1","io.kubernetes.pod.namespace":"prod"}}}"#,
            ["app", "sha256:1", "shop-1", "prod"],
        );
        check(
            "podman",
            "var/lib/containers/storage/overlay-containers/containers.json",
            r#"[{"id":"other"},{"id":"ID","names":["web"],"image":"1","metadata":"{\"image-name\":\"docker.io/library/nginx:1\",\"name\":\"web\"}"}]"#,
            ["web", "docker.io/library/nginx:1", "", ""],
        );
        check(
            "podman",
            "home/ann/.local/share/containers/storage/vfs-containers/containers.json",
            r#"[{"id":"ID","names":["mine"]}]"#,
            ["mine", "", "", ""],
        );
        let cri = r#"{"annotations":{"io.kubernetes.cri.container-name":"app","io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-name":"shop-1","io.kubernetes.cri.sandbox-namespace":"prod","io.kubernetes.cri.image-name":"shop:2"}}"#;
        let expected = ["app", "shop:2", "shop-1", "prod"];
        let file = "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
        check("containerd", file, cri, expected);
        let file = "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
        check("containerd", file, cri, expected);
        check(
            "containerd",
            "run/containerd/io.containerd.runtime.v2.task/default/ID/config.json",
            r#"{"annotations":{"nerdctl/name":"web"}}"#,
            ["web", "", "", ""],
        );
        check(
            "cri-o",
            "run/containers/storage/overlay-containers/ID/userdata/config.json",
            r#"{"annotations":{"io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.pod.name":"shop-1","io.kubernetes.pod.namespace":"prod"}}"#,
            ["POD", "", "shop-1", "prod"],
        );
    }

    #[test]
    fn a_file_that_is_no_json_tells_nothing() {
        let root = tempfile::tempdir().expect("temporary folder");
        let folder = root.path().join("var/lib/docker/containers").join(ID);
        std::fs::create_dir_all(&folder).expect("make folder");
        std::fs::write(folder.join("config.v2.json"), "{\"Name\":").expect("write file");
        assert_eq!(look_up(root.path(), "docker", ID, None), None);
        assert_eq!(look_up(root.path(), "lxc", ID, None), None);
    }
}
