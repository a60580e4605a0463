//! What a container's own spec asks for: the OCI runtime specification's `config.json`, read with tolerance, since every
//! engine writes its own dialect.

use super::process::Kind;
use serde_json::Value;

/// What a spec says about one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    Private,
    /// That of the path.
    Joined(String),
    /// Nothing: the one of whoever started it.
    Shared,
}

/// A `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec(Value);

/// A mount that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedMount {
    /// Where.
    pub destination: String,
    /// The kind of filesystem; empty or `bind` for a part of the host's.
    pub kind: String,
    /// What.
    pub source: String,
    /// How.
    pub options: Vec<String>,
}

/// A device, or a rule about devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedDevice {
    /// `b`, `c`, or `a` for both.
    pub kind: char,
    /// None for all.
    pub major: Option<u64>,
    /// None for all.
    pub minor: Option<u64>,
    /// Of `r`, `w` and `m`; empty for a node.
    pub access: String,
}

impl AskedDevice {
    /// Whether it is about this device.
    pub fn covers(&self, kind: char, major: Option<u64>, minor: Option<u64>) -> bool {
        let within = |own: Option<u64>, other: Option<u64>| own.is_none() || own == other;
        (self.kind == 'a' || self.kind == kind)
            && within(self.major, major)
            && within(self.minor, minor)
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Spec {
    /// Reads a `config.json`; none where it is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        value.is_object().then_some(Self(value))
    }

    /// The whole of it.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// What it says about a kind of namespace.
    pub fn namespace(&self, kind: Kind) -> Namespace {
        let all = self.0["linux"]["namespaces"].as_array();
        let entry = all.into_iter().flatten().find(|entry| entry["type"] == kind.spec_name());
        match entry {
            None => Namespace::Shared,
            Some(entry) => match entry["path"].as_str() {
                Some(path) if !path.is_empty() => Namespace::Joined(path.to_owned()),
                _ => Namespace::Private,
            },
        }
    }

    /// One set of capabilities of its process, as bits.
    pub fn capabilities(&self, set: &str) -> u64 {
        strings(&self.0["process"]["capabilities"][set])
            .iter()
            .filter_map(|name| super::capability::number(name))
            .fold(0, |bits, number| bits | 1 << number)
    }

    /// The user that its process is started as.
    pub fn user(&self) -> u64 {
        self.0["process"]["user"]["uid"].as_u64().unwrap_or(0)
    }

    /// The mounts.
    pub fn mounts(&self) -> Vec<AskedMount> {
        let all = self.0["mounts"].as_array().into_iter().flatten();
        all.map(|mount| AskedMount {
            destination: word(&mount["destination"]),
            kind: word(&mount["type"]),
            source: word(&mount["source"]),
            options: strings(&mount["options"]),
        })
        .collect()
    }

    /// The mount at `point`, or at the nearest folder above it but the root.
    pub fn mount_over(&self, point: &str) -> Option<AskedMount> {
        let over = |mount: &AskedMount| {
            let destination = mount.destination.trim_end_matches('/');
            !destination.is_empty() && super::mounts::is_within(point, destination)
        };
        let all = self.mounts().into_iter().filter(over);
        all.max_by_key(|mount| mount.destination.trim_end_matches('/').len())
    }

    /// The paths to be hidden, and those to be read only.
    pub fn guarded_paths(&self) -> (Vec<String>, Vec<String>) {
        let linux = &self.0["linux"];
        (strings(&linux["maskedPaths"]), strings(&linux["readonlyPaths"]))
    }

    /// Whether it asks for a filter of system calls.
    pub fn has_seccomp(&self) -> bool {
        self.0["linux"]["seccomp"].is_object()
    }

    /// Whether no new privileges are to be had by execve.
    pub fn no_new_privileges(&self) -> bool {
        self.0["process"]["noNewPrivileges"] == true
    }

    /// Whether it names a profile of a Linux security module.
    pub fn has_lsm_label(&self) -> bool {
        let process = &self.0["process"];
        ["apparmorProfile", "selinuxLabel"].iter().any(|key| {
            process[key].as_str().is_some_and(|text| !text.is_empty() && text != "unconfined")
        })
    }

    /// The device nodes to be made.
    pub fn devices(&self) -> Vec<AskedDevice> {
        Self::asked_devices(&self.0["linux"]["devices"])
    }

    /// The rules that allow devices.
    pub fn device_rules(&self) -> Vec<AskedDevice> {
        let rules = &self.0["linux"]["resources"]["devices"];
        let allowing = rules.as_array().into_iter().flatten().filter(|rule| rule["allow"] == true);
        allowing.map(Self::asked_device).collect()
    }

    fn asked_devices(list: &Value) -> Vec<AskedDevice> {
        list.as_array().into_iter().flatten().map(Self::asked_device).collect()
    }

    fn asked_device(value: &Value) -> AskedDevice {
        // -1 stands for all, as no number does.
        AskedDevice {
            kind: value["type"].as_str().and_then(|kind| kind.chars().next()).unwrap_or('a'),
            major: value["major"].as_u64(),
            minor: value["minor"].as_u64(),
            access: word(&value["access"]),
        }
    }

    /// The host's ids that its user namespace maps: first and how many.
    pub fn host_uids(&self) -> Vec<(u64, u64)> {
        let maps = self.0["linux"]["uidMappings"].as_array().into_iter().flatten();
        maps.filter_map(|map| Some((map["hostID"].as_u64()?, map["size"].as_u64()?))).collect()
    }

    /// The path of its root filesystem.
    pub fn root(&self) -> String {
        word(&self.0["root"]["path"])
    }

    /// `rootfsPropagation`
    pub fn root_propagation(&self) -> String {
        word(&self.0["linux"]["rootfsPropagation"])
    }

    /// A number of `linux.resources`, such as `["memory", "limit"]`.
    pub fn resource(&self, path: [&str; 2]) -> Option<i64> {
        self.0["linux"]["resources"][path[0]][path[1]].as_i64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_read_and_nonsense_is_none() {
        let spec = Spec::parse(
            br#"{"process":{"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_MODULE","CAP_X"]}},
            "mounts":[{"destination":"/a","source":"/b","options":["ro"]},{"destination":"/a/b/"}],
            "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/p"},7],
            "resources":{"memory":{"limit":5},"devices":[{"allow":false},{"allow":true,"type":"b","major":-1}]}}}"#,
        )
        .unwrap();
        assert_eq!(spec.namespace(Kind::Pid), Namespace::Private);
        assert_eq!(spec.namespace(Kind::Net), Namespace::Joined("/p".into()));
        assert_eq!(spec.namespace(Kind::Uts), Namespace::Shared);
        assert_eq!(spec.capabilities("bounding"), 1 << 16 | 1);
        assert_eq!(spec.mount_over("/a/x").unwrap().source, "/b");
        assert_eq!(spec.mount_over("/a/b/c").unwrap().destination, "/a/b/");
        assert_eq!(spec.mount_over("/ab"), None);
        assert_eq!(spec.resource(["memory", "limit"]), Some(5));
        let [rule] = &spec.device_rules()[..] else { panic!() };
        assert!(rule.covers('b', Some(8), None) && !rule.covers('c', None, None));
        for nonsense in ["", "[]", "null", "{", "\"x\""] {
            assert_eq!(Spec::parse(nonsense.as_bytes()), None);
        }
        let odd = Spec::parse(br#"{"linux":7,"mounts":{"a":1},"process":[]}"#).unwrap();
        assert!(odd.mounts().is_empty() && !odd.has_seccomp() && odd.host_uids().is_empty());
    }
}
