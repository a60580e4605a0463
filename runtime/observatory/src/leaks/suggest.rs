//! The smallest change of a container's settings that closes what a check found.
//!
//! For `terrarium run` in words of its options, for a bundle as a JSON Patch (RFC 6902) of `config.json`. What no setting
//! closes, such as a process that somebody put into the container's cgroup, has no suggestion.

use super::finding::{Finding, Source};
use super::mounts::is_within;
use super::process::Kind;
use super::spec::Spec;
use serde::Serialize;
use serde_json::{Value, json};

/// What closes an opening when the container is started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The options of `terrarium run` to add or to leave out.
    pub run: String,
    /// What to change in `config.json`, as a JSON Patch; its operations apply in their order. Empty where words say more.
    pub config: Vec<Value>,
}

/// The first id of the host that is mapped where a suggestion makes a user namespace, and how many.
const IDS: (u64, u64) = (100_000, 65_536);

/// Limits to begin with: what most services stay far below and a host does not notice.
const MEMORY: (&str, u64) = ("512m", 512 << 20);
const PIDS: u64 = 1024;

/// The capabilities that Docker gives (its seccomp and capability documentation), for a container that had all.
const ORDINARY: [&str; 14] = [
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
    "CAP_SETUID", "CAP_SYS_CHROOT",
];

const SETS: [&str; 5] = ["bounding", "permitted", "effective", "inheritable", "ambient"];

/// What closes `finding` of a container with this spec.
pub fn suggestion(finding: &Finding, spec: &Spec) -> Option<Suggestion> {
    let spec = spec.value();
    match finding.check {
        "host-pid-namespace"
        | "host-network-namespace"
        | "host-ipc-namespace"
        | "host-uts-namespace"
        | "host-cgroup-namespace" => namespace(spec, kind_in(finding)?),
        "host-abstract-socket" => namespace(spec, Kind::Net),
        "root-without-user-namespace" => Some(user_namespace(spec)),
        "host-root-mapped" => other_ids(spec),
        "host-filesystem-mounted"
        | "engine-socket-mounted"
        | "namespace-file-exposed"
        | "shared-memory-object"
            // What the spec does not ask for goes by no change of it.
            if finding.source == Source::Declared =>
        {
            without_mount(spec, &finding.object)
        }
        "shared-propagation" => slave(spec, &finding.object),
        "kernel-filesystem-exposed" => kernel_filesystems(spec, finding),
        "dangerous-capability" => without_capabilities(spec, finding),
        "privileged" => Some(unprivileged(spec)),
        "device-exposed" => without_devices(spec, finding),
        "no-seccomp" => Some(Suggestion {
            run: "leave out --security-opt seccomp=unconfined and --privileged".to_owned(),
            config: Vec::new(),
        }),
        "new-privileges-allowed" => Some(Suggestion {
            run: "leave out --security-opt no-new-privileges=false and --privileged".to_owned(),
            config: vec![set("/process/noNewPrivileges", json!(true))],
        }),
        "limit-missing" => Some(limits(spec, finding)),
        _ => None,
    }
}

/// Operations of JSON Patch. `add` replaces what is there.
fn set(path: &str, value: impl Into<Value>) -> Value {
    json!({ "op": "add", "path": path, "value": value.into() })
}

fn replace(path: &str, value: impl Into<Value>) -> Value {
    json!({ "op": "replace", "path": path, "value": value.into() })
}

/// What makes the object at `/linux/resources` where there is none.
fn resources(spec: &Value) -> Vec<Value> {
    let there = spec["linux"]["resources"].is_object();
    if there { Vec::new() } else { vec![set("/linux/resources", json!({}))] }
}

fn remove(path: &str) -> Value {
    json!({ "op": "remove", "path": path })
}

/// Removes elements of a list: the last first, so that no index moves before its turn.
fn remove_all(list: &str, mut indexes: Vec<usize>) -> Vec<Value> {
    indexes.sort_unstable();
    indexes.iter().rev().map(|at| remove(&format!("{list}/{at}"))).collect()
}

/// The kind of namespace that a finding proves by its file in /proc.
fn kind_in(finding: &Finding) -> Option<Kind> {
    finding.evidence.iter().find_map(|evidence| {
        let (_, name) = evidence.path.rsplit_once("/ns/")?;
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    })
}

fn namespace(spec: &Value, kind: Kind) -> Option<Suggestion> {
    let word = kind.spec_name();
    let entries = spec["linux"]["namespaces"].as_array();
    let at = entries.into_iter().flatten().position(|entry| entry["type"] == word);
    let config = match at {
        Some(at) if spec["linux"]["namespaces"][at].get("path").is_some() => {
            remove(&format!("/linux/namespaces/{at}/path"))
        }
        // It has one of its own and the process is not in it: no setting did that.
        Some(_) => return None,
        None if entries.is_some() => set("/linux/namespaces/-", json!({ "type": word })),
        None => set("/linux/namespaces", json!([{ "type": word }])),
    };
    let run = match kind {
        Kind::Net => "leave out --net host and --net container:ID".to_owned(),
        Kind::Pid | Kind::Ipc | Kind::Uts => {
            let option = kind.name();
            format!("leave out --{option} host and --{option} container:ID")
        }
        Kind::Cgroup => "leave out --cgroupns host and --cgroupns container:ID".to_owned(),
        Kind::Mnt | Kind::User => {
            "without --bundle: run gives every container one of its own".to_owned()
        }
    };
    Some(Suggestion { run, config: vec![config] })
}

fn user_namespace(spec: &Value) -> Suggestion {
    let (first, size) = IDS;
    let map = json!([{ "containerID": 0, "hostID": first, "size": size }]);
    let mut config = Vec::new();
    if spec["linux"]["namespaces"].is_array() {
        config.push(set("/linux/namespaces/-", json!({ "type": "user" })));
    } else {
        config.push(set("/linux/namespaces", json!([{ "type": "user" }])));
    }
    config.push(set("/linux/uidMappings", map.clone()));
    config.push(set("/linux/gidMappings", map));
    Suggestion { run: format!("--userns={first}:{size}, or --user with another than 0"), config }
}

fn other_ids(spec: &Value) -> Option<Suggestion> {
    let (first, size) = IDS;
    let mut config = Vec::new();
    for list in ["uidMappings", "gidMappings"] {
        let maps = spec["linux"][list].as_array().into_iter().flatten();
        for (at, _) in maps.enumerate().filter(|(_, map)| map["hostID"] == 0) {
            config.push(set(&format!("/linux/{list}/{at}/hostID"), json!(first)));
        }
    }
    (!config.is_empty()).then(|| Suggestion { run: format!("--userns={first}:{size}"), config })
}

/// The mount of the spec that makes what lies at `point`.
fn mount_at(spec: &Value, point: &str) -> Option<usize> {
    let destination = |mount: &Value| {
        mount["destination"].as_str().unwrap_or_default().trim_end_matches('/').to_owned()
    };
    let mounts = spec["mounts"].as_array()?;
    let over = |(_, mount): &(usize, &Value)| {
        let destination = destination(mount);
        !destination.is_empty() && is_within(point, &destination)
    };
    let all = mounts.iter().enumerate().filter(over);
    all.max_by_key(|(_, mount)| destination(mount).len()).map(|(at, _)| at)
}

fn without_mount(spec: &Value, point: &str) -> Option<Suggestion> {
    let at = mount_at(spec, point)?;
    let mount = &spec["mounts"][at];
    let word = |key: &str| mount[key].as_str().unwrap_or_default();
    let run = match (word("destination"), word("source")) {
        // The host's, with its IPC namespace.
        ("/dev/shm", _) => "leave out --ipc host".to_owned(),
        (destination, source) => format!("leave out --volume {source}:{destination}"),
    };
    Some(Suggestion { run, config: vec![remove(&format!("/mounts/{at}"))] })
}

fn slave(spec: &Value, point: &str) -> Option<Suggestion> {
    let mut config = Vec::new();
    let mut run = String::new();
    if let Some(at) = mount_at(spec, point) {
        let source = spec["mounts"][at]["source"].as_str().unwrap_or_default();
        run = format!("--volume {source}:{point}:rslave instead of :rshared");
        let options = spec["mounts"][at]["options"].as_array().into_iter().flatten();
        for (option, word) in options.enumerate() {
            let slave = match word.as_str() {
                Some("shared") => "slave",
                Some("rshared") => "rslave",
                _ => continue,
            };
            let path = format!("/mounts/{at}/options/{option}");
            config.push(replace(&path, slave));
        }
    }
    if matches!(spec["linux"]["rootfsPropagation"].as_str(), Some("shared" | "rshared")) {
        config.push(set("/linux/rootfsPropagation", json!("slave")));
    }
    (!config.is_empty()).then_some(Suggestion { run, config })
}

fn kernel_filesystems(spec: &Value, finding: &Finding) -> Option<Suggestion> {
    let mut config = Vec::new();
    let mut run = Vec::new();
    // What the container's own /proc shows.
    for (list, paths) in [
        ("maskedPaths", &["/proc/kcore"][..]),
        ("readonlyPaths", &["/proc/sys", "/proc/sysrq-trigger"]),
    ] {
        let shown: Vec<&&str> = paths
            .iter()
            .filter(|path| {
                finding.observed.split("; ").any(|text| text.split(' ').next() == Some(**path))
            })
            .collect();
        if shown.is_empty() {
            continue;
        }
        if !spec["linux"][list].is_array() {
            config.push(set(&format!("/linux/{list}"), json!([])));
        }
        let add = shown.iter().map(|path| set(&format!("/linux/{list}/-"), json!(path)));
        config.extend(add);
        run = vec!["leave out --security-opt systempaths=unconfined and --privileged".to_owned()];
    }
    let mut gone = Vec::new();
    for (at, mount) in spec["mounts"].as_array().into_iter().flatten().enumerate() {
        let word = |key: &str| mount[key].as_str().unwrap_or_default();
        let destination = word("destination");
        // `mountinfo` is the evidence: the mount point is a word of it.
        let is_told = finding
            .evidence
            .iter()
            .any(|evidence| evidence.value.split(' ').any(|part| part == destination));
        if destination.is_empty() || destination == "/proc" || !is_told {
            continue;
        }
        if matches!(word("type"), "sysfs" | "cgroup" | "cgroup2") {
            let options = mount["options"].as_array();
            let writable = options.into_iter().flatten().position(|option| option == "rw");
            match (options, writable) {
                (_, Some(option)) => {
                    config.push(replace(&format!("/mounts/{at}/options/{option}"), "ro"));
                }
                (Some(_), None) => {
                    config.push(set(&format!("/mounts/{at}/options/-"), json!("ro")));
                }
                (None, None) => config.push(set(&format!("/mounts/{at}/options"), json!(["ro"]))),
            }
        } else {
            gone.push(at);
            run.push(format!("leave out --volume {}:{destination}", word("source")));
        }
    }
    config.extend(remove_all("/mounts", gone));
    if run.is_empty() {
        run.push("without --bundle: run mounts sysfs and cgroups read-only".to_owned());
    }
    (!config.is_empty()).then(|| Suggestion { run: run.join(", and "), config })
}

fn without_capabilities(spec: &Value, finding: &Finding) -> Option<Suggestion> {
    // Evidence reads `CAP_SYS_ADMIN (bounding, permitted)`.
    let mut names: Vec<&str> = finding
        .evidence
        .iter()
        .filter_map(|evidence| evidence.value.split(' ').next())
        .filter(|name| name.starts_with("CAP_"))
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut config = Vec::new();
    for set in SETS {
        let held = spec["process"]["capabilities"][set].as_array();
        let is_named = |held: &Value| names.iter().any(|name| *held == *name);
        let Some(held) = held.filter(|held| held.iter().any(is_named)) else { continue };
        // The whole set: sets have no order, and a runtime that keeps the spec may change it.
        let mut rest: Vec<&Value> = held.iter().filter(|held| !is_named(held)).collect();
        rest.sort_by_key(|name| name.as_str());
        config.push(replace(&format!("/process/capabilities/{set}"), json!(rest)));
    }
    let options =
        names.iter().map(|name| format!("--cap-drop {}", name.trim_start_matches("CAP_")));
    let run = options.collect::<Vec<_>>().join(" ");
    (!config.is_empty()).then_some(Suggestion { run, config })
}

/// Without a rule everything is allowed.
fn no_devices(spec: &Value) -> Vec<Value> {
    let mut config = resources(spec);
    config.push(set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }])));
    config
}

fn unprivileged(spec: &Value) -> Suggestion {
    let sets = ["bounding", "permitted", "effective"].map(|set| (set.to_owned(), json!(ORDINARY)));
    let sets: serde_json::Map<String, Value> = sets.into_iter().collect();
    let mut config = vec![set("/process/capabilities", Value::Object(sets))];
    config.extend(no_devices(spec));
    let run = "leave out --privileged; give what is really needed by --cap-add and --device";
    Suggestion { run: run.to_owned(), config }
}

/// A device as evidence tells it: `b 7:0`, or as a rule `b 7:* rwm`.
fn device(text: &str) -> Option<(&str, &str, &str)> {
    let mut words = text.split(' ');
    let kind = words.next()?;
    let (major, minor) = words.next()?.split_once(':')?;
    Some((kind, major, minor))
}

fn without_devices(spec: &Value, finding: &Finding) -> Option<Suggestion> {
    let told: Vec<_> =
        finding.evidence.iter().filter_map(|evidence| device(&evidence.value)).collect();
    let number = |value: &Value| value.as_i64().filter(|n| *n >= 0).map(|n| n.to_string());
    let covers = |entry: &Value| {
        let kind = entry["type"].as_str().unwrap_or("a");
        let (major, minor) = (number(&entry["major"]), number(&entry["minor"]));
        told.iter().any(|(told_kind, told_major, told_minor)| {
            let within = |own: &Option<String>, told: &str| {
                own.as_deref().is_none_or(|own| own == told) || told == "*"
            };
            (kind == "a" || *told_kind == "a" || kind == *told_kind)
                && within(&major, told_major)
                && within(&minor, told_minor)
        })
    };
    let indexes = |list: &Value, allowing: bool| -> Vec<usize> {
        let all = list.as_array().into_iter().flatten().enumerate();
        // To make a node is no way to use it.
        let opens = |entry: &Value| {
            entry["allow"] == true && entry["access"].as_str().is_none_or(|access| access != "m")
        };
        let found = all.filter(|(_, entry)| (!allowing || opens(entry)) && covers(entry));
        found.map(|(at, _)| at).collect()
    };
    let nodes = indexes(&spec["linux"]["devices"], false);
    let rules = indexes(&spec["linux"]["resources"]["devices"], true);
    let mut run: Vec<String> = nodes
        .iter()
        .filter_map(|at| spec["linux"]["devices"][at]["path"].as_str())
        .map(|path| format!("leave out --device {path}"))
        .collect();
    let mut config = remove_all("/linux/devices", nodes);
    if spec["linux"]["resources"]["devices"].as_array().is_none_or(Vec::is_empty) {
        config.extend(no_devices(spec));
    } else {
        config.extend(remove_all("/linux/resources/devices", rules));
    }
    if run.is_empty() {
        run.push("leave out --privileged and --device".to_owned());
    }
    (!config.is_empty()).then(|| Suggestion { run: run.join(", "), config })
}

fn limits(spec: &Value, finding: &Finding) -> Suggestion {
    let lacks = |word: &str| finding.observed.contains(word);
    let (mut run, mut config) = (Vec::new(), resources(spec));
    for (word, controller, option, limit) in [
        ("memory", "memory", format!("--memory {}", MEMORY.0), MEMORY.1),
        ("processes", "pids", format!("--pids {PIDS}"), PIDS),
    ] {
        if lacks(word) {
            run.push(option);
            // Beside a reservation, say, which stays.
            if !spec["linux"]["resources"][controller].is_object() {
                config.push(set(&format!("/linux/resources/{controller}"), json!({})));
            }
            config.push(set(&format!("/linux/resources/{controller}/limit"), limit));
        }
    }
    Suggestion { run: run.join(" ") + ", or what it needs", config }
}
