//! systemd as the maker of cgroups (`--systemd-cgroup`): each container is a transient scope of its own, in the slice that
//! was asked for, started and stopped over D-Bus (`org.freedesktop.systemd1(5)`).
//!
//! A scope begins with processes that exist. So that the container's first process is born in its cgroup as with cgroupfs,
//! and is never seen elsewhere, the scope is started with a process that only waits (a [`Keeper`]), which goes once the first
//! process is there. Limits are told to systemd, which keeps them over a `daemon-reload`, and written to the cgroup
//! files as well, which know more of them.

use crate::cgroup::{swap_alone, weight_of_shares};
use crate::error::{Error, Result, Tried};
use crate::syscall::{Cloned, clone3};
use crate::units::{CPU_PERIOD_US, number_list};
use futures_util::StreamExt;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::env;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zbus::zvariant::{OwnedObjectPath, Value};
use zbus::{Connection, Proxy};

/// How long systemd may take for one thing: a scope that is to stop has its processes killed by then.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Prefix of annotations that become properties of the unit, as runc and crun read them.
const PROPERTY_PREFIX: &str = "org.systemd.property.";

/// Which systemd: the host's, or that of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Manager {
    /// The system's.
    System,
    /// The caller's own (`systemd --user`), for who is not root.
    User,
}

/// A unit, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// Whose it is.
    pub manager: Manager,
    /// Its name, `terrarium-web.scope`.
    pub name: String,
}

/// The scope that a container is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// What is started.
    pub unit: Unit,
    /// The slice that it is in.
    slice: String,
    /// Properties that annotations ask for.
    properties: Vec<(String, Property)>,
}

/// A value of a unit's property, of the types that annotations can name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Property {
    Bool(bool),
    I32(i32),
    I64(i64),
    U32(u32),
    U64(u64),
    Text(String),
    Texts(Vec<String>),
}

impl Scope {
    /// Reads the `slice:prefix:name` of a spec's `cgroupsPath`, and the annotations that are meant for systemd.
    pub(crate) fn parse(path: &str, annotations: Option<&HashMap<String, String>>) -> Result<Self> {
        let manager = Manager::of_caller();
        let invalid = |reason: &'static str| Err(Error::invalid("cgroupsPath", path, reason));
        let parts: Vec<&str> = path.split(':').collect();
        let &[slice, prefix, name] = parts.as_slice() else {
            return invalid(
                "with systemd the form is slice:prefix:name, as system.slice:terrarium:web",
            );
        };
        let slice = match (slice, manager) {
            ("", Manager::System) => "system.slice",
            ("", Manager::User) => "user.slice",
            _ => slice,
        };
        if slice_path(slice).is_none() {
            return invalid("a slice is named as in machine.slice or a-b.slice");
        }
        let is_name = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@\\".contains(&byte))
        };
        if name.is_empty() || !is_name(name) || !is_name(prefix) {
            return invalid("the name of a unit is made of letters, digits and - _ . @ \\");
        }
        if slice_path(name).is_some() {
            return invalid("a container is a scope; a slice has no processes of its own");
        }
        let name = match prefix {
            "" => format!("{name}.scope"),
            _ => format!("{prefix}-{name}.scope"),
        };
        if name.len() > 255 {
            return invalid("the name of a unit has 255 letters at most");
        }
        Ok(Self {
            unit: Unit { manager, name },
            slice: slice.to_owned(),
            properties: properties(annotations)?,
        })
    }

    /// Its cgroup, below that of the manager.
    pub(crate) fn path(&self) -> String {
        let slice = slice_path(&self.slice).expect("it was looked at when the scope was read");
        format!("{slice}/{}", self.unit.name)
    }

    /// Starts it with `keeper` in it, and the limits that systemd knows of; returns when its cgroup is there.
    pub(crate) fn start(
        &self,
        keeper: &Keeper,
        resources: Option<&LinuxResources>,
        unified: bool,
    ) -> Result<()> {
        let description = format!("terrarium container {}", self.unit.name);
        let mut all: Vec<(&str, Value<'_>)> = vec![
            ("Description", description.as_str().into()),
            ("Slice", self.slice.as_str().into()),
            ("PIDs", vec![keeper.pid].into()),
            // The container may divide what it has; and systemd leaves the files below alone.
            ("Delegate", true.into()),
            ("DefaultDependencies", false.into()),
            // A container that was killed for memory leaves no unit that somebody has to reset.
            ("CollectMode", "inactive-or-failed".into()),
            ("CPUAccounting", true.into()),
            ("MemoryAccounting", true.into()),
            ("TasksAccounting", true.into()),
            (if unified { "IOAccounting" } else { "BlockIOAccounting" }, true.into()),
        ];
        if let Some(resources) = resources {
            all.extend(limits(resources, unified)?);
            all.extend(devices(resources.devices().as_deref().unwrap_or_default()));
        }
        for (name, value) in &self.properties {
            all.retain(|(other, _)| other != name);
            all.push((name, value.into()));
        }
        self.unit.start(&all)
    }

    /// What starts it in a shell.
    pub(crate) fn shell_command(&self) -> String {
        let user = if self.unit.manager == Manager::User { "--user " } else { "" };
        format!(
            "systemd-run {user}--scope --slice={} --unit={} --property=Delegate=yes …",
            self.slice, self.unit.name
        )
    }
}

impl Unit {
    /// Starts it, with `properties`.
    fn start(&self, properties: &[(&str, Value<'_>)]) -> Result<()> {
        // There are no units to be made along with it.
        let auxiliary: &[(&str, Vec<(&str, Value<'_>)>)] = &[];
        let arguments = (self.name.as_str(), "fail", properties, auxiliary);
        self.job("start scope", "StartTransientUnit", &arguments)
    }

    /// Tells systemd the limits of `resources`, until the unit ends.
    pub(crate) fn set(&self, resources: &LinuxResources, unified: bool) -> Result<()> {
        let properties = limits(resources, unified)?;
        if properties.is_empty() {
            return Ok(());
        }
        // True: not beyond the next boot.
        let arguments = (self.name.as_str(), true, properties);
        talk(self.manager, "set properties of", &self.name, async |proxy| {
            proxy.call::<_, _, ()>("SetUnitProperties", &arguments).await
        })
    }

    /// Stops it, which kills what is in it. One that is gone, as with its last process, is stopped.
    #[inline(never)]
    pub(crate) fn stop(&self) -> Result<()> {
        if !self.manager.is_running() {
            return Ok(());
        }
        self.job("stop scope", "StopUnit", &(self.name.as_str(), "replace"))
    }

    /// Has `method` called, which begins a job, and waits for its end. A unit that is gone has nothing to be done on.
    fn job<A>(&self, tried: &'static str, method: &str, arguments: &A) -> Result<()>
    where
        A: Serialize + zbus::zvariant::DynamicType,
    {
        let result = talk(self.manager, tried, &self.name, async |proxy| {
            // Else the manager tells nobody of the ends of jobs.
            proxy.call::<_, _, ()>("Subscribe", &()).await?;
            let mut ends = proxy.receive_signal("JobRemoved").await?;
            let job: OwnedObjectPath = match proxy.call(method, arguments).await {
                Err(error) if is_gone(&error) => return Ok(None),
                job => job?,
            };
            while let Some(end) = ends.next().await {
                let (_, ended, _, result): (u32, OwnedObjectPath, String, String) =
                    end.body().deserialize()?;
                if ended == job {
                    return Ok(Some(result));
                }
            }
            Err(zbus::Error::InterfaceNotFound)
        })?;
        match result.as_deref() {
            None | Some("done" | "skipped") => Ok(()),
            Some(other) => Err(io::Error::other(format!("the job ended as {other:?}"))).tried_hint(
                tried,
                self.name.as_str(),
                "`journalctl` and `systemctl status` of the unit tell more",
            ),
        }
    }
}

impl Manager {
    /// That which makes scopes for the caller.
    pub(crate) fn of_caller() -> Self {
        if rustix::process::geteuid().is_root() { Self::System } else { Self::User }
    }

    /// Whether it is there to be asked.
    pub(crate) fn is_running(self) -> bool {
        match self {
            Self::System => Path::new("/run/systemd/system").is_dir(),
            Self::User => {
                runtime_folder().is_some_and(|folder| folder.join("systemd").is_dir())
                    || env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some()
            }
        }
    }

    /// The cgroup that its own units are below, as `/proc/PID/cgroup` shows it, without a slash at its end.
    pub(crate) fn control_group(self) -> Result<String> {
        let folder: String = talk(self, "ask systemd for", "its cgroup", async |proxy| {
            proxy.get_property("ControlGroup").await
        })?;
        Ok(folder.trim_end_matches('/').to_owned())
    }

    /// Moves this process into a scope of the caller's manager, if it runs elsewhere, as in a session of a login: only
    /// within what is delegated to him may an unprivileged user have a process born in another cgroup (cgroups(7), "Cgroup
    /// delegation containment").
    // With a dot: a container may be called by any number.
    pub(crate) fn take_in_caller(self) -> Result<()> {
        if self == Self::System {
            return Ok(());
        }
        let path = "/proc/self/cgroup";
        let own = fs::read_to_string(path).tried("read", path)?;
        let group = self.control_group()?;
        let is_inside = own.lines().any(|line| {
            let path =
                line.strip_prefix("0::").or_else(|| Some(line.split_once(":name=systemd:")?.1));
            path.and_then(|path| path.strip_prefix(&group))
                .is_some_and(|rest| rest.starts_with('/'))
        });
        if is_inside {
            return Ok(());
        }
        let pid = std::process::id();
        let unit = Unit { manager: self, name: format!("terrarium.{pid}.scope") };
        let properties: Vec<(&str, Value<'_>)> = vec![
            ("Description", "terrarium".into()),
            ("Slice", "user.slice".into()),
            ("PIDs", vec![pid].into()),
            ("CollectMode", "inactive-or-failed".into()),
        ];
        unit.start(&properties)
    }

    /// A connection to its bus. (On the manager's own socket `/run/systemd/private` it calls itself by its well-known
    /// name as the sender, which zbus does not take.)
    async fn connect(self) -> zbus::Result<Connection> {
        use zbus::connection::Builder;
        match self {
            Self::System => Builder::system()?.build().await,
            Self::User => match runtime_folder().map(|folder| folder.join("bus")) {
                Some(bus) if env::var_os("DBUS_SESSION_BUS_ADDRESS").is_none() => {
                    let stream = tokio::net::UnixStream::connect(&bus).await?;
                    Builder::unix_stream(stream).build().await
                }
                _ => Builder::session()?.build().await,
            },
        }
    }
}

fn runtime_folder() -> Option<PathBuf> {
    env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Does `work` with the manager, on this thread; nothing of the connection is left afterwards.
fn talk<T>(
    manager: Manager,
    tried: &'static str,
    on: &str,
    work: impl AsyncFnOnce(&Proxy<'_>) -> zbus::Result<T>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .tried("start", "event loop for D-Bus")?;
    let done = runtime.block_on(limited(async {
        let connection = manager.connect().await?;
        let proxy = Proxy::new(
            &connection,
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
        )
        .await?;
        work(&proxy).await
    }));
    done.map_err(|error| {
        let (why, hint) = match error {
            zbus::Error::MethodError(name, said, _) => {
                let said = said.unwrap_or_else(|| name.to_string());
                let hint = match name.as_str() {
                    "org.freedesktop.systemd1.UnitExists" => {
                        "another container or a crashed one uses it; `terrarium gc` removes what is left over"
                    }
                    "org.freedesktop.DBus.Error.AccessDenied"
                    | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
                        "run as root, or where `systemd --user` runs for you"
                    }
                    _ => "",
                };
                (io::Error::other(said), hint)
            }
            zbus::Error::InputOutput(error) => (
                io::Error::from(error.kind()),
                "systemd must run and its D-Bus socket be reachable; else leave --systemd-cgroup out",
            ),
            other => (io::Error::other(other.to_string()), ""),
        };
        Error::System { tried: tried.into(), on: on.to_owned(), why, hint: hint.into() }
    })
}

async fn limited<T>(work: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| {
        Err(zbus::Error::InputOutput(io::Error::from(io::ErrorKind::TimedOut).into()))
    })
}

fn is_gone(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _)
        if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

/// A process that only waits, so that a scope has one. It ends with its owner.
#[derive(Debug)]
pub(crate) struct Keeper {
    pid: u32,
    pidfd: OwnedFd,
}

impl Keeper {
    /// Makes one. The caller must have one thread only.
    pub(crate) fn new() -> Result<Self> {
        let caller = nix::unistd::getpid();
        match clone3(0, None).tried("clone3", "the process that holds the scope")? {
            Cloned::Child => {
                // None of the caller's files, nor locks; and no longer than the caller.
                // SAFETY: this process uses none of its descriptors, and never returns.
                unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                // It may have gone before that.
                while nix::unistd::getppid() == caller {
                    nix::unistd::pause();
                }
                std::process::exit(0)
            }
            Cloned::Parent { pid, pidfd } => Ok(Self { pid: pid.cast_unsigned(), pidfd }),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It may be gone: systemd kills what is in a scope that it stops.
        let _ = crate::syscall::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED);
    }
}

/// The path of a slice below the root one: `a-b.slice` is in `a.slice` (`systemd.slice(5)`). None for what is no name of a
/// slice.
fn slice_path(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.@\\".contains(&byte))
    };
    let parts: Vec<&str> = name.split('-').collect();
    if !parts.iter().all(|part| is_part(part)) {
        return None;
    }
    let folders = (1..=parts.len()).map(|n| format!("/{}.slice", parts[..n].join("-")));
    Some(folders.collect())
}

/// The limits that systemd has properties for (`systemd.resource-control(5)`).
fn limits(
    resources: &LinuxResources,
    unified: bool,
) -> Result<Vec<(&'static str, Value<'static>)>> {
    let mut all: Vec<(&'static str, Value<'static>)> = Vec::new();
    // -1 is none, which is the highest number there.
    let bytes = |value: i64| Value::from(u64::try_from(value).unwrap_or(u64::MAX));
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit() {
            all.push((if unified { "MemoryMax" } else { "MemoryLimit" }, bytes(limit)));
        }
        if let (Some(reservation), true) = (memory.reservation(), unified) {
            all.push(("MemoryLow", bytes(reservation)));
        }
        if let (Some(swap), true) = (swap_alone(memory), unified) {
            all.push(("MemorySwapMax", bytes(swap)));
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit() } else { -1 };
        all.push(("TasksMax", bytes(limit)));
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|&shares| shares > 0) {
            all.push(if unified {
                ("CPUWeight", weight_of_shares(shares).into())
            } else {
                ("CPUShares", shares.into())
            });
        }
        if let Some(quota) = cpu.quota() {
            let period = cpu.period().filter(|&period| period > 0).unwrap_or(CPU_PERIOD_US);
            let per_second = u64::try_from(quota)
                .ok()
                .filter(|&quota| quota > 0)
                .map_or(u64::MAX, |quota| quota.saturating_mul(1_000_000) / period);
            // It is kept in steps of 10 ms.
            let rounded = per_second.checked_next_multiple_of(10_000).unwrap_or(u64::MAX);
            all.push(("CPUQuotaPerSecUSec", rounded.into()));
            if cpu.period().is_some() {
                all.push(("CPUQuotaPeriodUSec", period.into()));
            }
        }
        if unified {
            for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
                if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                    all.push((name, bits(list)?.into()));
                }
            }
        }
    }
    Ok(all)
}

/// The mask that says the same as a list such as `0-3,5` (cpuset(7)): the lowest number in the lowest bit of the first byte.
fn bits(text: &str) -> Result<Vec<u8>> {
    let mut mask = Vec::new();
    for n in number_list("cpuset", text)? {
        if mask.len() <= n / 8 {
            mask.resize(n / 8 + 1, 0);
        }
        mask[n / 8] |= 1 << (n % 8);
    }
    Ok(mask)
}

/// The devices that systemd is to allow: at least those that the rules allow, for systemd cannot say "all but". What is
/// exact are the container's own rules.
fn devices(rules: &[LinuxDeviceCgroup]) -> Vec<(&'static str, Value<'static>)> {
    let mut strict = false;
    let mut allowed: Vec<(String, String)> = Vec::new();
    for rule in rules {
        let kinds: &[&str] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => &["block", "char"],
            LinuxDeviceType::B => &["block"],
            LinuxDeviceType::C | LinuxDeviceType::U => &["char"],
            LinuxDeviceType::P => continue,
        };
        let number = |number: Option<i64>| number.filter(|&number| number >= 0);
        let (major, minor) = (number(rule.major()), number(rule.minor()));
        if kinds.len() == 2 && major.is_none() && minor.is_none() {
            strict = !rule.allow();
            allowed.clear();
            continue;
        }
        let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm").to_owned();
        for kind in kinds {
            let name = match (major, minor) {
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (Some(major), None) => match driver(kind, major) {
                    Some(driver) => format!("{kind}-{driver}"),
                    None => format!("{kind}-*"),
                },
                (None, _) => format!("{kind}-*"),
            };
            if rule.allow() {
                allowed.push((name, access.clone()));
            } else {
                allowed.retain(|(other, others)| *other != name || *others != access);
            }
        }
    }
    if !strict {
        // Without a policy of its own systemd looks at what is allowed: nothing said is everything.
        return vec![("DevicePolicy", "auto".into())];
    }
    vec![("DevicePolicy", "strict".into()), ("DeviceAllow", allowed.into())]
}

/// The name of the driver that has `major`, of /proc/devices.
fn driver(kind: &str, major: i64) -> Option<String> {
    let text = fs::read_to_string("/proc/devices").ok()?;
    let heading = if kind == "char" { "Character devices:" } else { "Block devices:" };
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then(|| name.to_owned())
    })
}

/// The annotations that are properties of the unit: `org.systemd.property.NAME`, with a value as `GVariant` writes it.
fn properties(annotations: Option<&HashMap<String, String>>) -> Result<Vec<(String, Property)>> {
    let mut all = Vec::new();
    for (key, text) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(PROPERTY_PREFIX) else { continue };
        let invalid = |reason| Err(Error::invalid(key.clone(), text.clone(), reason));
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return invalid("the name of a property is made of letters");
        }
        let Some(value) = Property::parse(text) else {
            return invalid(
                "a value as GVariant writes it: true, 5, uint64 5, 'text' or ['text', 'text']",
            );
        };
        // What units' files write in seconds, the bus has in microseconds.
        match (name.strip_suffix("Sec").filter(|_| !name.ends_with("USec")), value) {
            (None, value) => all.push((name.to_owned(), value)),
            (Some(stem), value) => match value.microseconds() {
                Some(value) => all.push((format!("{stem}USec"), Property::U64(value))),
                None => return invalid("seconds are a number"),
            },
        }
    }
    // A map has no order; the same spec makes the same unit.
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(all)
}

impl Property {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(value) = text.parse() {
            return Some(Self::Bool(value));
        }
        // A number without a type is an int32.
        if let Ok(value) = text.parse() {
            return Some(Self::I32(value));
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            let mut texts = Vec::new();
            let mut rest = inner.trim();
            while !rest.is_empty() {
                let (text, after) = quoted(rest)?;
                texts.push(text);
                rest = after.trim_start();
                rest = match rest.strip_prefix(',') {
                    Some(after) => after.trim_start(),
                    None if rest.is_empty() => rest,
                    None => return None,
                };
            }
            return Some(Self::Texts(texts));
        }
        if let Some((kind, number)) = text.split_once(' ')
            && !text.starts_with(['\'', '"'])
        {
            let number = number.trim();
            return match kind {
                "int32" => number.parse().ok().map(Self::I32),
                "int64" => number.parse().ok().map(Self::I64),
                "uint32" => number.parse().ok().map(Self::U32),
                "uint64" => number.parse().ok().map(Self::U64),
                _ => None,
            };
        }
        let (value, rest) = quoted(text)?;
        rest.is_empty().then_some(Self::Text(value))
    }

    fn microseconds(&self) -> Option<u64> {
        let seconds = match *self {
            Self::I32(value) => u64::try_from(value).ok()?,
            Self::I64(value) => u64::try_from(value).ok()?,
            Self::U32(value) => value.into(),
            Self::U64(value) => value,
            _ => return None,
        };
        seconds.checked_mul(1_000_000)
    }
}

/// A text in quotes at the beginning of `text`, without them and with its escapes undone, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(letters.next()?.1),
            letter if letter == quote => return Some((value, &text[at + 1..])),
            letter => value.push(letter),
        }
    }
    None
}

impl<'a> From<&'a Property> for Value<'a> {
    fn from(property: &'a Property) -> Self {
        match property {
            Property::Bool(value) => (*value).into(),
            Property::I32(value) => (*value).into(),
            Property::I64(value) => (*value).into(),
            Property::U32(value) => (*value).into(),
            Property::U64(value) => (*value).into(),
            Property::Text(value) => value.as_str().into(),
            Property::Texts(values) => values.iter().map(String::as_str).collect::<Vec<_>>().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids};

    #[test]
    fn a_path_becomes_a_scope_in_its_slice() {
        let path = |text: &str| Scope::parse(text, None).unwrap().path();
        assert_eq!(
            path("machine-a.slice:libpod:5f"),
            "/machine.slice/machine-a.slice/libpod-5f.scope"
        );
        assert_eq!(path("-.slice::web"), "/web.scope");
        let own = if rustix::process::geteuid().is_root() { "system" } else { "user" };
        assert_eq!(path(":terrarium:web"), format!("/{own}.slice/terrarium-web.scope"));
        for bad in [
            "", "a", "/a/b", "a:b", "a:b:c", "a.slice:b:", "a..slice/x:b:c", "-a.slice:b:c",
            "a--b.slice:b:c", "../a.slice:b:c", "a.slice:b:../c", "a.slice:b:c.slice",
            "a.slice:b:c:d",
        ] {
            assert!(Scope::parse(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_are_values_of_gvariant() {
        let read = |text: &str| Property::parse(text);
        assert_eq!(read("true"), Some(Property::Bool(true)));
        assert_eq!(read(" -5 "), Some(Property::I32(-5)));
        assert_eq!(read("uint64 90000000"), Some(Property::U64(90_000_000)));
        assert_eq!(read("'SIGRTMIN+3'"), Some(Property::Text("SIGRTMIN+3".into())));
        assert_eq!(read("\"it\\\"s 'x'\""), Some(Property::Text("it\"s 'x'".into())));
        assert_eq!(
            read("['a.service', 'b, c']"),
            Some(Property::Texts(vec!["a.service".into(), "b, c".into()]))
        );
        assert_eq!(read("[]"), Some(Property::Texts(vec![])));
        for bad in ["", "text", "'open", "'a' b", "['a' 'b']", "uint8 5", "uint64 -5", "{'a': 1}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let annotation = |name: &str, text: &str| {
            properties(Some(&HashMap::from([(name.to_owned(), text.to_owned())])))
        };
        assert_eq!(
            annotation("org.systemd.property.TimeoutStopSec", "90").unwrap(),
            [("TimeoutStopUSec".to_owned(), Property::U64(90_000_000))]
        );
        assert_eq!(annotation("other", "x").unwrap(), []);
        assert!(annotation("org.systemd.property.TimeoutStopSec", "'x'").is_err());
        assert!(annotation("org.systemd.property.A b", "1").is_err());
    }

    #[test]
    fn limits_become_properties() {
        let mut resources = LinuxResources::default();
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(64 << 20)).set_swap(Some(96 << 20));
        let mut pids = LinuxPids::default();
        pids.set_limit(-1);
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(Some(12_345)).set_cpus(Some("0-1,9".into()));
        resources.set_memory(Some(memory)).set_pids(Some(pids)).set_cpu(Some(cpu));
        let all: HashMap<_, _> = limits(&resources, true).unwrap().into_iter().collect();
        assert_eq!(all["MemoryMax"], Value::from(64_u64 << 20));
        assert_eq!(all["MemorySwapMax"], Value::from(32_u64 << 20));
        assert_eq!(all["TasksMax"], Value::from(u64::MAX));
        assert_eq!(all["CPUQuotaPerSecUSec"], Value::from(130_000_u64));
        assert_eq!(all["AllowedCPUs"], Value::from(vec![0b11_u8, 0b10]));
        let all: HashMap<_, _> = limits(&resources, false).unwrap().into_iter().collect();
        assert!(all.contains_key("MemoryLimit") && !all.contains_key("AllowedCPUs"));
    }

    #[test]
    fn devices_are_at_least_those_that_the_rules_allow() {
        let rules = crate::spec::device_rules();
        let all: HashMap<_, _> = devices(&rules).into_iter().collect();
        assert_eq!(all["DevicePolicy"], Value::from("strict"));
        let allowed = format!("{:?}", all["DeviceAllow"]);
        assert!(allowed.contains("/dev/char/1:3") && allowed.contains("char-"), "{allowed}");
        // Nothing said is everything.
        assert_eq!(devices(&[]), [("DevicePolicy", Value::from("auto"))]);
    }
}
