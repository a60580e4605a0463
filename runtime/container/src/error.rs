//! What can go wrong, as one line each: what was tried: on what: why (what to do).

use crate::device_filter::DeviceFilterError;
use crate::seccomp::SeccompError;
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that the caller gave cannot be used; nothing was done.
    #[error("{option} {value:?}: {reason}")]
    InvalidValue {
        /// The option or field, as the user writes it (`--memory`, `process.cwd`).
        option: Cow<'static, str>,
        /// The value as given.
        value: String,
        /// Why it was refused and what would be accepted.
        reason: Cow<'static, str>,
    },
    /// Another container has the id.
    #[error("create container: {id}: the name is in use by a container that is {status} \
             (choose another name, or `terrarium delete{} {id}`)",
            if *status == "stopped" { "" } else { " --force" })]
    NameInUse {
        /// The id asked for.
        id: String,
        /// Status of the container that has it.
        status: &'static str,
    },
    /// There is no such container.
    #[error("container {id:?} does not exist (`terrarium ps` lists those that do)")]
    DoesNotExist {
        /// The id asked for.
        id: String,
    },
    /// A running container cannot be removed without force.
    #[error(
        "delete container: {id}: it is {status} \
             (stop it with `terrarium kill {id} KILL`, or use --force)"
    )]
    StillRunning {
        /// Its id.
        id: String,
        /// Its status.
        status: &'static str,
    },
    /// The state folder belongs to another user.
    #[error(
        "use state folder: {}: it belongs to user {owner} (choose a folder of your own with --root)", path.display()
    )]
    NotYours {
        /// The folder.
        path: PathBuf,
        /// Its owner's id.
        owner: u32,
    },
    /// The container is not in the state that the operation needs.
    #[error("{tried} container: {id}: it is {status}, not {wanted}")]
    WrongStatus {
        /// The operation.
        tried: &'static str,
        /// The container.
        id: String,
        /// Its status.
        status: &'static str,
        /// The status that is needed.
        wanted: &'static str,
    },
    /// A signal was sent to a container that has no process any more.
    #[error("signal container: {id}: container not running (its status is {status})")]
    NotRunning {
        /// Its id.
        id: String,
        /// Its status.
        status: &'static str,
    },
    /// Another process is creating or removing the container.
    #[error("lock container: {id}: another terrarium process is working on it (try again)")]
    Busy {
        /// Its id.
        id: String,
    },
    /// The spec asks for something that terrarium or this kernel cannot do.
    #[error("{what} is not possible: {reason}")]
    Unsupported {
        /// The spec field or the feature.
        what: Cow<'static, str>,
        /// Why, and what to do.
        reason: Cow<'static, str>,
    },
    /// The root filesystem cannot be used.
    #[error("use root filesystem: {}: {reason}", path.display())]
    Rootfs {
        /// The path given.
        path: PathBuf,
        /// Why not.
        reason: Cow<'static, str>,
    },
    /// A file of terrarium's own state is not what it should be.
    #[error("read {}: {why} (`terrarium delete --force` removes the container)", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: serde_json::Error,
    },
    /// The program does not exist in the container.
    #[error("execute {program:?} in the container: {reason}")]
    ProgramNotFound {
        /// First word of the command.
        program: String,
        /// What the kernel said, and what to do.
        reason: String,
    },
    /// The program exists in the container and cannot be executed.
    #[error("execute {program:?} in the container: {reason}")]
    ProgramNotExecutable {
        /// First word of the command.
        program: String,
        /// What the kernel said, and what to do.
        reason: String,
    },
    /// The process that sets up the container failed or died.
    #[error("set up container: {step}{}{on}: {why}{}",
            if on.is_empty() { "" } else { ": " }, hint_text(hint))]
    Init {
        /// What it was doing.
        step: String,
        /// On what.
        on: String,
        /// What the kernel said.
        why: io::Error,
        /// What to do.
        hint: String,
    },
    /// The process that sets up the container died without a word.
    #[error(
        "set up container: its first process ended {how} before the program was started \
             (`dmesg` may say more; a memory limit can be too small for the set-up itself)"
    )]
    InitDied {
        /// "with exit code 1", "by signal 9".
        how: String,
    },
    /// A system call or file operation failed.
    #[error("{tried}: {on}: {why}{}", hint_text(hint))]
    System {
        /// The operation.
        tried: Cow<'static, str>,
        /// The path or object.
        on: String,
        /// What the kernel said.
        why: io::Error,
        /// What to do, or empty.
        hint: Cow<'static, str>,
    },
    /// The seccomp profile cannot be used.
    #[error("{0}")]
    Seccomp(SeccompError),
    /// The device rules cannot be used.
    #[error("{0}")]
    DeviceRules(DeviceFilterError),
    /// Several clean-up steps failed; the first one is shown, all were tried.
    #[error("remove container {id}: {first} (and {more} more; run `terrarium gc`)")]
    Cleanup {
        /// The container.
        id: String,
        /// The first failure.
        first: Box<Error>,
        /// How many more.
        more: usize,
    },
}

fn hint_text(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!(" ({hint})") }
}

impl Error {
    /// A value that was refused.
    pub(crate) fn invalid(
        option: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::InvalidValue { option: option.into(), value: value.into(), reason: reason.into() }
    }

    /// Something that cannot be done.
    pub(crate) fn unsupported(
        what: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Unsupported { what: what.into(), reason: reason.into() }
    }

    /// Whether the caller's arguments are at fault (exit code 2).
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::InvalidValue { .. })
    }

    /// The exit code of `run` for this error: 127, 126 or 125.
    pub fn run_exit_code(&self) -> u8 {
        match self {
            Self::InvalidValue { .. } => 2,
            Self::ProgramNotFound { .. } => 127,
            Self::ProgramNotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

/// Adds what was tried, on what, to an error of the operating system.
pub(crate) trait Tried<T> {
    /// `tried: on: why`.
    fn tried(self, tried: impl Into<Cow<'static, str>>, on: impl Subject) -> Result<T>;
    /// `tried: on: why (hint)`.
    fn tried_hint(
        self,
        tried: impl Into<Cow<'static, str>>,
        on: impl Subject,
        hint: impl Into<Cow<'static, str>>,
    ) -> Result<T>;
}

impl<T, E: Into<io::Error>> Tried<T> for std::result::Result<T, E> {
    fn tried(self, tried: impl Into<Cow<'static, str>>, on: impl Subject) -> Result<T> {
        self.tried_hint(tried, on, "")
    }

    fn tried_hint(
        self,
        tried: impl Into<Cow<'static, str>>,
        on: impl Subject,
        hint: impl Into<Cow<'static, str>>,
    ) -> Result<T> {
        self.map_err(|source| Error::System {
            tried: tried.into(),
            on: on.subject(),
            why: source.into(),
            hint: hint.into(),
        })
    }
}

/// What an operation was tried on, as it is shown.
pub(crate) trait Subject {
    /// The text.
    fn subject(&self) -> String;
}

impl Subject for &str {
    fn subject(&self) -> String {
        (*self).to_owned()
    }
}

impl Subject for String {
    fn subject(&self) -> String {
        self.clone()
    }
}

impl Subject for &Path {
    fn subject(&self) -> String {
        self.display().to_string()
    }
}

impl Subject for &PathBuf {
    fn subject(&self) -> String {
        self.display().to_string()
    }
}
