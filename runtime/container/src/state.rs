//! `state.json`: what the outside world, the observatory first, may know of a container.
//!
//! docs/ARCHITECTURE.md is the contract. Fields are only ever added.

use crate::error::{Error, Result, Tried};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being set up.
    Creating,
    /// Set up; its program has not been started.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// One cgroup of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupState {
    /// `unified` for cgroup v2, else the name of a v1 controller.
    pub hierarchy: String,
    /// Path below the hierarchy's root, as `/proc/PID/cgroup` shows it.
    pub path: String,
    /// The kernel's cgroup id: the inode number of the folder.
    pub id: u64,
}

/// How a container is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// `none`, `host`, `bridge`, or `path` for an existing namespace.
    pub mode: String,
    /// The bridge, in mode `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The host's end of the veth pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub veth: Option<String>,
    /// Address of `eth0` with its prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The default route's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// IPv6 address of `eth0` with its prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<String>,
    /// The IPv6 default route's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<String>,
    /// Published ports, as `0.0.0.0:8080->80/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of the format: 1.
    pub version: u32,
    /// Id: folder name and last part of the cgroup paths.
    pub id: String,
    /// Name that people gave; the id where they gave none.
    pub name: String,
    /// Image it was made from; empty for a plain folder.
    #[serde(default)]
    pub image: String,
    /// Where it is in its life, as last written; see [`State::observed_status`].
    pub status: Status,
    /// Host pid of its first process; 0 before there is one and after it has ended.
    pub pid: i32,
    /// Start time of that process (field 22 of `/proc/PID/stat`).
    #[serde(default)]
    pub pid_start_ticks: u64,
    /// The terrarium process that waits for it; 0 when there is none.
    #[serde(default)]
    pub supervisor_pid: i32,
    /// Start time of the supervisor.
    #[serde(default)]
    pub supervisor_start_ticks: u64,
    /// The OCI bundle: folder of `config.json`.
    pub bundle: PathBuf,
    /// The root filesystem on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Annotations of the spec.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Labels that people gave.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its cgroups.
    #[serde(default)]
    pub cgroups: Vec<CgroupState>,
    /// Inode of each namespace of its first process, by kind.
    #[serde(default)]
    pub namespaces: BTreeMap<String, u64>,
    /// How it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkState>,
    /// The command.
    #[serde(default)]
    pub command: Vec<String>,
    /// Exit code as a shell gives it (128 + n for signal n), once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When it stopped, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// Whether the state goes away with the container (`--rm`).
    #[serde(default)]
    pub remove: bool,
    /// When it is started again (`--restart`), as it was asked for; empty for never.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub restart: String,
    /// How often its supervisor has started it again.
    #[serde(default)]
    pub restart_count: u32,
    /// Bytes of its log that are kept, 0 for all (`--log-opt max-size`); none where it was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// Somebody wants it stopped: it is not started again.
    #[serde(default)]
    pub stop_requested: bool,
}

/// File name in the container's folder.
pub(crate) const FILE: &str = "state.json";

impl State {
    /// Reads the state in `folder`; none where the file does not exist.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|why| Error::Malformed { path, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).tried("read", &path),
        }
    }

    /// Writes the state into `folder`: a reader sees the old file or the new one, whole.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("a state has no map with non-string keys");
        write_atomically(&folder.join(FILE), &bytes, 0o644)
    }

    /// The status now: a container whose first process is gone is stopped, whatever the file says.
    pub fn observed_status(&self) -> Status {
        match self.status {
            Status::Created | Status::Running | Status::Paused if !self.is_alive() => {
                Status::Stopped
            }
            status => status,
        }
    }

    /// Whether the first process exists (as itself, not as a reused pid) and is not a zombie.
    pub fn is_alive(&self) -> bool {
        self.pid > 0
            && process_stat(self.pid)
                .is_some_and(|stat| stat.start_ticks == self.pid_start_ticks && !stat.is_dead())
    }

    /// Whether the supervisor exists; false where there never was one.
    pub fn is_supervised(&self) -> bool {
        self.supervisor_pid > 0
            && process_stat(self.supervisor_pid).is_some_and(|stat| {
                stat.start_ticks == self.supervisor_start_ticks && !stat.is_dead()
            })
    }
}

/// What terrarium reads of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    /// Field 3: R, S, D, Z, …
    pub state: u8,
    /// Field 22: start time in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Reads a file whose text the kernel makes as it is read, and whose length it does not tell: in pieces as large as such
/// a file mostly is, for each piece takes the kernel to where the last one ended.
pub(crate) fn read_proc(path: &Path) -> io::Result<String> {
    let mut text = Vec::with_capacity(PROC_BYTES);
    // A `File` itself would be asked for its length first, which is told as 0.
    fs::File::open(path)?.take(u64::MAX).read_to_end(&mut text)?;
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Two pages hold most of them.
const PROC_BYTES: usize = 8192;

/// Reads `/proc/PID/stat`; none where there is no such process.
pub(crate) fn process_stat(pid: i32) -> Option<ProcessStat> {
    parse_stat(&read_proc(Path::new(&format!("/proc/{pid}/stat"))).ok()?)
}

fn parse_stat(text: &str) -> Option<ProcessStat> {
    // The name (field 2) may hold spaces and parentheses: the last ')' ends it.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(ProcessStat { state, start_ticks })
}

/// Now, as RFC 3339 with nanoseconds.
pub(crate) fn now() -> String {
    time::OffsetDateTime::now_utc()
        .format(&time::format_description::well_known::Rfc3339)
        .expect("the present has a four-digit year")
}

/// Writes `bytes` to `path` by a temporary file and a rename.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().expect("callers name a file").to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .tried("create", &temporary)?;
    file.write_all(bytes).tried("write", &temporary)?;
    fs::rename(&temporary, path).tried("rename to", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> State {
        State {
            version: 1,
            id: "web".into(),
            name: "web".into(),
            image: String::new(),
            status: Status::Running,
            pid: 4711,
            pid_start_ticks: 812_345,
            supervisor_pid: 0,
            supervisor_start_ticks: 0,
            bundle: "/run/terrarium/web".into(),
            rootfs: "/srv/rootfs".into(),
            created: "2026-11-23T22:01:02.123456789Z".into(),
            annotations: BTreeMap::new(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            cgroups: vec![CgroupState {
                hierarchy: "unified".into(),
                path: "/terrarium/web".into(),
                id: 4312,
            }],
            namespaces: [("mnt".to_owned(), 4_026_532_201)].into(),
            network: Some(NetworkState { mode: "none".into(), ..NetworkState::default() }),
            command: vec!["sh".into()],
            exit_code: None,
            finished: None,
            remove: false,
            restart: String::new(),
            restart_count: 0,
            log_bytes: None,
            stop_requested: false,
        }
    }

    #[test]
    fn state_survives_a_round_trip_and_ignores_unknown_fields() {
        let folder = tempfile::tempdir().unwrap();
        let state = sample();
        state.write(folder.path()).unwrap();
        assert_eq!(State::read(folder.path()).unwrap().unwrap(), state);
        let mut value: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.path().join(FILE)).unwrap()).unwrap();
        assert_eq!(value["status"], "running");
        assert_eq!(value["cgroups"][0]["id"], 4312);
        value["later"] = 1.into();
        fs::write(folder.path().join(FILE), value.to_string()).unwrap();
        assert_eq!(State::read(folder.path()).unwrap().unwrap(), state);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn missing_state_is_none_and_broken_state_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(State::read(folder.path()).unwrap().is_none());
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(matches!(State::read(folder.path()), Err(Error::Malformed { .. })));
    }

    #[test]
    fn process_names_do_not_confuse_the_parser() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 812345 20";
        for name in ["sh", "a b", "a) S 1", "((", ")"] {
            let stat = parse_stat(&format!("12 ({name}) {tail}"));
            assert_eq!(stat, Some(ProcessStat { state: b'S', start_ticks: 812_345 }), "{name}");
        }
        assert_eq!(parse_stat("12 (sh"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_reused_pid_is_not_the_container() {
        let me = i32::try_from(std::process::id()).unwrap();
        let ticks = process_stat(me).unwrap().start_ticks;
        let mut state = State { pid: me, pid_start_ticks: ticks, ..sample() };
        assert_eq!(state.observed_status(), Status::Running);
        state.pid_start_ticks += 1;
        assert_eq!(state.observed_status(), Status::Stopped);
    }
}
