//! What runc and crun do alike, terrarium does: the same bundles, the same commands, the same answers.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use terrarium_tests::kernel_state::cgroup_mounts;
use terrarium_tests::process::Outcome;
use terrarium_tests::{Observatory, TestBed, eventually, require, turn};

const RUNTIMES: [&str; 3] = ["terrarium", "runc", "crun"];

/// What a test changes of a spec.
type Changes = fn(&mut Value);

/// A case's name, what it runs, and how.
type Case = (&'static str, &'static str, Changes);

/// A runtime with its state in the test's own folder.
struct Runtime<'a> {
    bed: &'a TestBed,
    name: &'static str,
}

impl Runtime<'_> {
    fn call(&self, words: &[&str]) -> Outcome {
        let root = self.bed.folder().join(format!("state-{}", self.name));
        let mut command = match self.name {
            "terrarium" => Command::new(self.bed.runtime().get_program()),
            "crun" => crun(),
            name => Command::new(name),
        };
        self.bed.finish(command.arg("--root").arg(root).args(words))
    }

    fn id(&self, name: &str) -> String {
        self.bed.unique(&format!("{}-{name}", self.name))
    }
}

/// crun 1.8 refuses a hybrid host, unless it does not see the unified hierarchy.
fn crun() -> Command {
    let mounts = cgroup_mounts();
    let unified = mounts.iter().find(|mount| mount.version == 2);
    let Some(unified) = unified.filter(|_| mounts.len() > 1) else { return Command::new("crun") };
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none \"$0\" && exec crun \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(&unified.path);
    command
}

/// A bundle made by `spec` of `runtime`, which runs `script` in the bed's root filesystem.
fn bundle(runtime: &Runtime<'_>, name: &str, script: &str) -> PathBuf {
    let folder = runtime.bed.folder().join(format!("{}-{name}", runtime.name));
    fs::create_dir(&folder).expect("the test's folder is writable");
    let mut command = match runtime.name {
        "terrarium" => Command::new(runtime.bed.runtime().get_program()),
        other => Command::new(other),
    };
    runtime.bed.finish(command.arg("spec").current_dir(&folder)).success();
    change(&folder, |spec| {
        spec["root"] = json!({ "path": runtime.bed.rootfs(), "readonly": true });
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["process"]["terminal"] = json!(false);
    });
    folder
}

fn change(bundle: &Path, change: impl FnOnce(&mut Value)) {
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).expect("config.json was written");
    let mut spec = serde_json::from_str(&text).expect("config.json is JSON");
    change(&mut spec);
    fs::write(&path, spec.to_string()).expect("the bundle is writable");
}

/// Runs `bundle` under each runtime and gives what came of it.
fn everywhere(bed: &TestBed, bundle: &Path, name: &str) -> Vec<Outcome> {
    RUNTIMES
        .iter()
        .map(|runtime| {
            let runtime = Runtime { bed, name: runtime };
            let id = runtime.id(name);
            // Not below a parent, which some of them would leave behind.
            change(bundle, |spec| spec["linux"]["cgroupsPath"] = json!(format!("/{id}")));
            let folder = bundle.to_str().expect("paths of tests are UTF-8");
            runtime.call(&["run", "--bundle", folder, &id])
        })
        .collect()
}

#[test]
fn each_runs_the_bundles_of_the_others() {
    require!(Root, Program("busybox"), Program("runc"), Program("crun"), Program("unshare"));
    let bed = TestBed::new();
    for maker in RUNTIMES {
        let maker = Runtime { bed: &bed, name: maker };
        let folder = bundle(&maker, "spec", "echo from $(hostname); exit 6");
        change(&folder, |spec| spec["hostname"] = json!("inside"));
        for outcome in everywhere(&bed, &folder, maker.name) {
            let seen = (outcome.code, outcome.stdout.as_str());
            assert_eq!(seen, (6, "from inside\n"), "made by {}: {outcome:?}", maker.name);
        }
    }
}

#[test]
fn programs_see_the_same_under_each() {
    require!(Root, Program("busybox"), Program("runc"), Program("crun"), Program("unshare"));
    let bed = TestBed::new();
    let maker = Runtime { bed: &bed, name: "runc" };
    let nothing: Changes = |_| {};
    let table: [Case; 12] = [
        ("signal", "kill -9 $$", nothing),
        ("rights", "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status", nothing),
        ("limits", "ulimit -n; ulimit -c", |spec| {
            let core = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
            spec["process"]["rlimits"].as_array_mut().expect("a list").push(core);
        }),
        ("user", "id -u; id -g; umask; pwd", |spec| {
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "umask": 0o27 });
            spec["process"]["cwd"] = json!("/tmp");
        }),
        ("groups", "id -G", |spec| {
            spec["process"]["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7, 8] });
        }),
        ("read-only", "touch /x 2>&1; echo $?; touch /dev/shm/x; echo $?", nothing),
        ("kernel", "echo x > /proc/sys/kernel/panic; echo $?; wc -c < /proc/kcore", nothing),
        ("devices", "ls /dev | grep -v core | sort; cat /dev/zero | head -c 3 | wc -c", nothing),
        ("environment", "env | grep -v -E '^(HOME|SHLVL|PWD)=' | sort", |spec| {
            spec["process"]["env"] = json!(["A=b c", "PATH=/bin", "EMPTY="]);
        }),
        ("oom", "cat /proc/self/oom_score_adj", |spec| {
            spec["process"]["oomScoreAdj"] = json!(321);
        }),
        ("sysctl", "cat /proc/sys/net/ipv4/ip_default_ttl", |spec| {
            spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "77" });
        }),
        ("seccomp", "mkdir /dev/shm/x 2>&1; echo $?", |spec| {
            let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
            spec["linux"]["seccomp"] =
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
        }),
    ];
    for (name, script, changes) in table {
        let folder = bundle(&maker, name, script);
        change(&folder, changes);
        let outcomes = everywhere(&bed, &folder, name);
        let seen: Vec<_> = outcomes.iter().map(|one| (one.code, &one.stdout)).collect();
        // Where they do not agree, there is nothing to agree with.
        assert_eq!(seen[1], seen[2], "{name}: runc and crun: {outcomes:?}");
        assert_eq!(seen[0], seen[1], "{name}: {outcomes:?}");
    }
}

#[test]
fn the_commands_of_engines_answer_alike() {
    require!(Root, Program("busybox"), Program("runc"), Program("crun"), Program("unshare"));
    let bed = TestBed::new();
    let maker = Runtime { bed: &bed, name: "runc" };
    let folder = bundle(&maker, "life", "trap 'exit 3' TERM; while :; do sleep 0.05; done");
    let path = folder.to_str().expect("paths of tests are UTF-8");
    for name in RUNTIMES {
        let runtime = Runtime { bed: &bed, name };
        let id = &runtime.id("life");
        change(&folder, |spec| {
            spec["linux"]["cgroupsPath"] = json!(format!("/{id}"));
            spec["annotations"] = json!({ "org.example": "kept" });
        });
        let state = || -> Value {
            serde_json::from_str(&runtime.call(&["state", id]).success()).expect("state is JSON")
        };
        let refused = |words: &[&str]| {
            let outcome = runtime.call(words);
            assert_eq!(outcome.code, 1, "{name} {words:?}: {outcome:?}");
            outcome.stderr
        };
        let missing = refused(&["state", id]);
        // crun says so of the file that is not there.
        assert!(name == "crun" || missing.contains("does not exist"), "{name}: {missing}");
        let pid_file = bed.folder().join(format!("{name}.pid"));
        let pid_path = pid_file.to_str().expect("paths of tests are UTF-8");
        let quiet = runtime.call(&["create", "--bundle", path, "--pid-file", pid_path, id]);
        assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""), "{name}");
        let created = state();
        assert_eq!(created["status"], "created", "{name}");
        for field in ["ociVersion", "id", "pid", "bundle", "rootfs", "created", "owner"] {
            assert!(created.get(field).is_some(), "{name} has no {field}: {created}");
        }
        assert_eq!(created["annotations"]["org.example"], "kept", "{name}");
        assert_eq!(created["pid"].to_string(), fs::read_to_string(&pid_file).unwrap(), "{name}");
        refused(&["create", "--bundle", path, id]);
        runtime.call(&["start", id]).success();
        assert_eq!(state()["status"], "running", "{name}");
        refused(&["start", id]);
        refused(&["delete", id]);
        let inside = runtime.call(&["exec", id, "sh", "-c", "echo in; exit 9"]);
        assert_eq!((inside.code, inside.stdout.as_str()), (9, "in\n"), "{name}: {inside:?}");
        runtime.call(&["kill", id, "TERM"]).success();
        eventually("it has stopped", || {
            let state = state();
            if state["status"] == "stopped" { Ok(()) } else { Err(format!("{name}: {state}")) }
        });
        assert_eq!(state()["pid"], 0, "{name}");
        let late = runtime.call(&["exec", id, "true"]);
        assert_ne!(late.code, 0, "{name}: {late:?}");
        runtime.call(&["delete", id]).success();
        refused(&["state", id]);
        refused(&["delete", id]);
        runtime.call(&["delete", "--force", id]).success();
    }
}

#[test]
fn several_containers_are_meant_by_a_regular_expression() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let runtime = Runtime { bed: &bed, name: "terrarium" };
    let folder = bundle(&runtime, "many", "trap 'exit 3' TERM; while :; do sleep 0.05; done");
    let path = folder.to_str().expect("paths of tests are UTF-8");
    let ids: Vec<_> = ["one", "two", "other"].iter().map(|name| runtime.id(name)).collect();
    for id in &ids {
        change(&folder, |spec| spec["linux"]["cgroupsPath"] = json!(format!("/{id}")));
        runtime.call(&["run", "--detach", "--bundle", path, id]).success();
    }
    let status = |id: &str| {
        let state = runtime.call(&["state", id]).success();
        let state: Value = serde_json::from_str(&state).expect("state is JSON");
        state["status"].as_str().unwrap_or_default().to_owned()
    };
    runtime.call(&["kill", "--regex", "(one|two)-x", "KILL"]).success();
    eventually("both have stopped", || {
        let words = (status(&ids[0]), status(&ids[1]));
        if words == ("stopped".into(), "stopped".into()) {
            Ok(())
        } else {
            Err(format!("{words:?}"))
        }
    });
    assert_eq!(status(&ids[2]), "running");
    let wrong = runtime.call(&["delete", "--regex", "("]);
    assert!(wrong.code == 2 && wrong.stderr.contains("regular expression"), "{wrong:?}");
    runtime.call(&["delete", "--regex", "(one|two)-x"]).success();
    assert_eq!(status(&ids[2]), "running");
    runtime.call(&["delete", "--force", "--regex", "^terrarium-"]).success();
    assert_eq!(runtime.call(&["list", "--quiet"]).success(), "");
    bed.assert_nothing_left();
}

/// Starts a container that is in each phase, and waits until an observatory has told so of all but `untold`.
fn start_through_all_phases(runtime: &Runtime<'_>, untold: &[&str]) {
    let bed = runtime.bed;
    let observatory = Observatory::start(bed, &[]);
    let folder = bundle(runtime, "phases", "true");
    let id = runtime.id("phases");
    let hook = |seconds: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("sleep {seconds}")] }]);
    change(&folder, |spec| {
        spec["hooks"] = json!({ "createRuntime": hook("0.2"), "startContainer": hook("0.1") });
        let linux = &mut spec["linux"];
        linux["cgroupsPath"] = json!(format!("/{id}"));
        let whole = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        linux["uidMappings"] = whole.clone();
        linux["gidMappings"] = whole;
        let namespaces = linux["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|one| one["type"] != "user");
        namespaces.push(json!({ "type": "user" }));
        let refused = json!([{ "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" }]);
        linux["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": refused });
    });
    // With the state where each has it, for there it is looked for.
    let mut command = match runtime.name {
        "terrarium" => bed.runtime(),
        "crun" => crun(),
        name => Command::new(name),
    };
    bed.finish(command.args(["run", "--bundle"]).arg(&folder).arg(&id)).success();
    // Others start meanwhile: of all phases there are, this one was in each.
    let own = "terrarium_container_last_start_phase_seconds";
    let labels = [("name", id.as_str())];
    let metrics = eventually("each phase is told", || {
        let metrics = observatory.metrics();
        let told: Vec<String> =
            metrics.select(own, &labels).map(|sample| sample.labels["phase"].clone()).collect();
        let all = metrics.select("terrarium_container_start_phase_duration_seconds_count", &[]);
        let missing: Vec<_> = all
            .map(|sample| sample.labels["phase"].clone())
            .filter(|phase| !untold.contains(&phase.as_str()) && !told.contains(phase))
            .collect();
        if missing.is_empty() { Ok(metrics) } else { Err(format!("{missing:?} of {told:?}")) }
    });
    let sum = |name: &str, labels: &[(&str, &str)]| -> f64 {
        metrics.select(&format!("{name}_sum"), labels).map(|sample| sample.value).sum()
    };
    let phase = "terrarium_container_start_phase_duration_seconds";
    let whole = sum("terrarium_container_start_duration_seconds", &[]);
    let parts = sum(phase, &[]);
    assert!((whole - parts).abs() < 1e-6, "{parts} in the phases, {whole} in all");
    let in_hooks = [labels[0], ("phase", "hooks")];
    let hooks: f64 = metrics.select(own, &in_hooks).map(|sample| sample.value).sum();
    assert!(hooks >= 0.3, "{hooks} s of hooks");
}

#[test]
fn each_phase_of_a_start_is_told() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let _turn = turn::take();
    let bed = TestBed::new();
    // The loopback alone is brought up by ioctl(2).
    start_through_all_phases(&Runtime { bed: &bed, name: "terrarium" }, &["network"]);
}

#[test]
fn each_phase_of_a_start_by_another_runtime_is_told() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("runc"), Program("crun"));
    let _turn = turn::take();
    let bed = TestBed::new();
    start_through_all_phases(&Runtime { bed: &bed, name: "runc" }, &[]);
    // It maps ids before it makes the cgroup, and brings the loopback up by ioctl(2).
    start_through_all_phases(&Runtime { bed: &bed, name: "crun" }, &["userns", "network"]);
}
