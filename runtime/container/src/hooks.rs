//! Hooks: programs of the engine's that run at fixed points of a container's life.
//!
//! runtime-spec, "POSIX-platform Hooks": each reads the container's state as JSON from its standard input.

use crate::error::{Error, Result};
use oci_spec::runtime::{Hook, Hooks, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Longest part of a hook's output that is shown.
const SHOWN: u64 = 1024;

/// What hooks and `terrarium state` are told of a container (runtime-spec, "State").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// Version of the runtime specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running`, `paused` or `stopped`.
    pub status: &'static str,
    /// Pid of the first process as the reader sees it; 0 when it is gone.
    pub pid: i32,
    /// Folder of the spec.
    pub bundle: PathBuf,
    /// Annotations of the spec.
    pub annotations: BTreeMap<String, String>,
}

/// The hooks that the first process runs itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct InitHooks {
    /// Whether the runtime has hooks of its own to run before `create_container`.
    pub runtime: bool,
    /// In the container's namespaces, before its root is entered.
    pub create_container: Vec<Hook>,
    /// In the container, before its program is executed.
    pub start_container: Vec<Hook>,
}

impl InitHooks {
    /// Takes them from `spec`, checking all hooks.
    pub(crate) fn from_spec(spec: &Spec) -> Result<Self> {
        let Some(hooks) = spec.hooks() else { return Ok(Self::default()) };
        for hook in KINDS.iter().flat_map(|&(_, get)| get(hooks).iter().flatten()) {
            if !hook.path().is_absolute() {
                let value = hook.path().display().to_string();
                return Err(Error::invalid("hooks[].path", value, "it must be absolute"));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                let reason = "a timeout is more than 0 seconds";
                return Err(Error::invalid("hooks[].timeout", "", reason));
            }
        }
        let list = |hooks: &Option<Vec<Hook>>| hooks.clone().unwrap_or_default();
        Ok(Self {
            runtime: !before_pivot(spec).is_empty(),
            create_container: list(hooks.create_container()),
            start_container: list(hooks.start_container()),
        })
    }

    /// Whether the first process stops for the runtime before it enters its root.
    pub(crate) fn stop_before_pivot(&self) -> bool {
        self.runtime
    }
}

type Get = fn(&Hooks) -> &Option<Vec<Hook>>;

const KINDS: [(&str, Get); 6] = [
    ("prestart", Hooks::prestart),
    ("createRuntime", Hooks::create_runtime),
    ("createContainer", Hooks::create_container),
    ("startContainer", Hooks::start_container),
    ("poststart", Hooks::poststart),
    ("poststop", Hooks::poststop),
];

/// The kinds of hooks, in the order of a container's life.
pub const HOOK_KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The hooks of `kind`.
pub(crate) fn of_kind<'a>(spec: &'a Spec, kind: &str) -> &'a [Hook] {
    let get = KINDS.iter().find(|(name, _)| *name == kind).map(|(_, get)| get);
    match (spec.hooks(), get) {
        (Some(hooks), Some(get)) => get(hooks).as_deref().unwrap_or_default(),
        _ => &[],
    }
}

/// The hooks that the runtime runs in its own namespaces before the container's root is entered, in order.
pub(crate) fn before_pivot(spec: &Spec) -> Vec<(&'static str, &Hook)> {
    ["prestart", "createRuntime"]
        .into_iter()
        .flat_map(|kind| of_kind(spec, kind).iter().map(move |hook| (kind, hook)))
        .collect()
}

/// A hook that failed.
#[derive(Debug)]
pub(crate) struct HookFailure {
    /// What the kernel said; `ECANCELED` where the hook itself failed.
    pub source: io::Error,
    /// How it ended and what it wrote.
    pub words: String,
}

impl HookFailure {
    /// As an error of the runtime.
    pub(crate) fn into_error(self, kind: &str, path: &Path) -> Error {
        Error::System {
            tried: format!("run {kind} hook").into(),
            on: path.display().to_string(),
            why: self.source,
            hint: self.words.into(),
        }
    }
}

impl From<io::Error> for HookFailure {
    fn from(source: io::Error) -> Self {
        Self { source, words: String::new() }
    }
}

/// Runs `hook` to its end, in `folder` if given.
pub(crate) fn run(
    hook: &Hook,
    state: &OciState,
    folder: Option<&Path>,
) -> std::result::Result<(), HookFailure> {
    // Files, not pipes: a hook that reads nothing, or whose children live on, cannot make the runtime wait.
    let mut input = memory_file()?;
    input.write_all(&serde_json::to_vec(state).expect("a state is plain data"))?;
    input.rewind()?;
    let mut output = memory_file()?;

    let mut command = Command::new(hook.path());
    if let Some((first, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(first).args(rest);
    }
    let env = hook.env().iter().flatten();
    command.env_clear().envs(env.filter_map(|variable| variable.split_once('=')));
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    command.stdin(Stdio::from(input)).stdout(Stdio::from(output.try_clone()?));
    command.stderr(Stdio::from(output.try_clone()?));
    let mut child = command.spawn()?;
    if let Some(seconds) = hook.timeout()
        && !ends_within(child.id(), seconds)
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(HookFailure {
            source: io::Error::from_raw_os_error(libc::ETIMEDOUT),
            words: format!("it did not end within its timeout of {seconds} s"),
        });
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    output.rewind()?;
    let mut text = Vec::new();
    output.take(SHOWN).read_to_end(&mut text)?;
    Err(HookFailure {
        source: io::Error::from_raw_os_error(libc::ECANCELED),
        words: words(status, &String::from_utf8_lossy(&text)),
    })
}

fn memory_file() -> io::Result<File> {
    Ok(rustix::fs::memfd_create(c"hook", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

/// Whether the process ends within `seconds`.
fn ends_within(pid: u32, seconds: i64) -> bool {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

fn words(status: ExitStatus, output: &str) -> String {
    let output = output.split_whitespace().collect::<Vec<_>>().join(" ");
    if output.is_empty() {
        format!("the hook ended with {status}")
    } else {
        format!("the hook ended with {status}: {output}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let mut hook = Hook::default();
        hook.set_path("/bin/sh".into())
            .set_args(Some(vec!["hook".into(), "-c".into(), script.into()]))
            .set_env(Some(vec!["A=b".into()]))
            .set_timeout(timeout);
        hook
    }

    fn state() -> OciState {
        OciState {
            oci_version: "1.2.1".into(),
            id: "web".into(),
            status: "creating",
            pid: 7,
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_sees_its_own_environment_only() {
        let folder = tempfile::tempdir().unwrap();
        let script = "/bin/cat > state; echo \"$0 $A ${HOME-none}\" > seen";
        run(&hook(script, None), &state(), Some(folder.path())).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("seen"), "hook b none\n");
        let value: serde_json::Value = serde_json::from_str(&read("state")).unwrap();
        assert_eq!((value["pid"].as_i64(), value["status"].as_str()), (Some(7), Some("creating")));
        assert_eq!(value["ociVersion"], "1.2.1");
    }

    #[test]
    fn a_hook_that_fails_or_does_not_end_is_told() {
        let failure = run(&hook("echo so sad >&2; exit 3", None), &state(), None).unwrap_err();
        assert!(failure.words.contains("so sad") && failure.words.contains('3'), "{failure:?}");
        let failure = run(&hook("/bin/sleep 60", Some(1)), &state(), None).unwrap_err();
        assert_eq!(failure.source.raw_os_error(), Some(libc::ETIMEDOUT));
        let mut gone = hook("", None);
        gone.set_path("/no/such".into());
        assert!(run(&gone, &state(), None).is_err());
    }
}
