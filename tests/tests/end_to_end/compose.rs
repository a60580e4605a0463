//! The compose file brings up an observatory and a Prometheus that see the containers of the engine they run in.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use terrarium_tests::binaries::repository;
use terrarium_tests::podman::{Podman, ULIMITS};
use terrarium_tests::process::{self, Outcome};
use terrarium_tests::requirement::{made, program};
use terrarium_tests::{TestBed, eventually, http, require};

/// Makes an image of Debian's Prometheus, laid out as the one that the compose file names.
fn make_prometheus_image(bed: &TestBed, podman: &Podman<'_>) {
    let folder = bed.folder().join("prometheus-image");
    let binary = program("prometheus").expect("the test requires prometheus");
    let put = |from: &Path, to: PathBuf| {
        fs::create_dir_all(to.parent().expect("it lies below a folder"))
            .and_then(|()| fs::copy(from, &to))
            .unwrap_or_else(|error| panic!("copy {} to {}: {error}", from.display(), to.display()));
    };
    put(&binary, folder.join("bin/prometheus"));
    let libraries = process::run(Command::new("ldd").arg(&binary)).success();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        put(Path::new(library), folder.join(library.trim_start_matches('/')));
    }
    fs::create_dir(folder.join("prometheus")).expect("the test's folder is writable");
    let archive = bed.folder().join("prometheus.tar");
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&folder).arg(".");
    process::run(&mut tar).success();
    let archive = archive.to_str().expect("paths of tests are UTF-8");
    let changes = [
        "--change=ENTRYPOINT [\"/bin/prometheus\"]",
        "--change=CMD [\"--config.file=/etc/prometheus/prometheus.yml\", \"--storage.tsdb.path=/prometheus\"]",
        "--change=WORKDIR /prometheus",
    ];
    let words = [&["import", "--quiet"], &changes[..], &[archive, "docker.io/prom/prometheus"]];
    podman.call(&words.concat()).success();
}

/// podman-compose, with the repository's file and what a test has to add.
struct Compose<'a> {
    bed: &'a TestBed,
    project: String,
    podman: PathBuf,
    added: PathBuf,
    run: String,
}

impl<'a> Compose<'a> {
    fn new(bed: &'a TestBed, podman: &Podman<'_>) -> Self {
        // It takes the path of one program; quotes keep what has none in it.
        let command = podman.command(Command::new("podman"));
        let words = command.get_args().map(|word| format!("'{}'", word.display()));
        let script = bed.folder().join("podman.sh");
        let words = words.collect::<Vec<_>>().join(" ");
        fs::write(&script, format!("#!/bin/sh\nexec podman {words} \"$@\"\n"))
            .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
            .expect("the test's folder is writable");
        // The engine of the test keeps its files in the test's folder, others in /var/lib.
        let added = bed.folder().join("added.yml");
        let folder = bed.folder().display();
        fs::write(
            &added,
            format!("services: {{observatory: {{volumes: [\"{folder}:{folder}:ro,rslave\"]}}}}\n"),
        )
        .expect("the test's folder is writable");
        let run = format!("{} --cgroup-parent /{}", ULIMITS.join(" "), podman.cgroup_parent());
        Self { bed, project: bed.unique("compose"), podman: script, added, run }
    }

    fn call(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(made("TERRARIUM_PODMAN_COMPOSE"));
        command.arg("--podman-path").arg(&self.podman).args(["--podman-run-args", &self.run]);
        command.arg("--file").arg(repository().join("dashboards/compose.yml"));
        command.arg("--file").arg(&self.added).args(["--project-name", &self.project]);
        self.bed.finish(command.args(words))
    }

    /// The answer of one of its services on the loopback interface.
    fn ask(&self, url: &str) -> Result<String, String> {
        self.bed.network().enter(|| http::get(url)).map(|response| response.body)
    }
}

impl Drop for Compose<'_> {
    fn drop(&mut self) {
        // Its default network is a file of the machine's.
        self.call(&["down", "--volumes"]);
    }
}

#[test]
fn the_compose_file_brings_up_an_observatory_and_a_prometheus() {
    require!(
        Root,
        Sources,
        CgroupV2,
        Btf,
        Program("podman"),
        Program("prometheus"),
        Made("TERRARIUM_DIST_IMAGE"),
        Made("TERRARIUM_PODMAN_COMPOSE")
    );
    let bed = TestBed::new();
    let podman = Podman::new(&bed);
    let image = made("TERRARIUM_DIST_IMAGE");
    let image = image.to_str().expect("paths of tests are UTF-8");
    let loaded = podman.call(&["load", "--quiet", "--input", image]).success();
    let name = format!("localhost/terrarium:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(loaded, format!("Loaded image: {name}\n"));
    make_prometheus_image(&bed, &podman);

    let compose = Compose::new(&bed, &podman);
    // Grafana is in no registry that a test may ask.
    compose.call(&["up", "--detach", "observatory", "prometheus"]).success();
    let service = |service: &str| format!("{}_{service}_1", compose.project);
    let name = service("prometheus");
    // What it is, and what it uses.
    let query = format!(
        "terrarium_container_info{{name=\"{name}\"}} * on (id) \
         group_left () (container_cpu_usage_seconds_total{{name=\"{name}\"}} > bool 0)"
    );
    let url = format!("http://127.0.0.1:9090/api/v1/query?query={}", http::encode(&query));
    eventually("Prometheus knows itself as a container, from the observatory", || {
        let answer = compose.ask(&url).map_err(|error| {
            let log = |name: &str| podman.call(&["logs", &service(name)]);
            format!("{error}\n{:?}\n{:?}", log("observatory"), log("prometheus"))
        })?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        let series = &answer["data"]["result"][0];
        let image = &series["metric"]["image"];
        if image == "docker.io/prom/prometheus:latest" && series["value"][1] == "1" {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    });
    let rules = compose.ask("http://127.0.0.1:9090/api/v1/rules").expect("Prometheus answers");
    let rules: Value = serde_json::from_str(&rules).expect("JSON");
    let groups = rules["data"]["groups"].as_array().expect("groups of rules");
    assert!(!groups.is_empty(), "{rules}");
    compose.call(&["down", "--volumes"]).success();
    assert_eq!(podman.call(&["ps", "--all", "--quiet"]).success(), "");
}
