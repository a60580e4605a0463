//! What processes of a container do, judged as an observatory sees it: one file a check. To add one: a file here with a
//! `CHECK`, and a line in [`EVENT_CHECKS`].
//!
//! Whose process it is, and whether the runtime's own step, `events.rs` has found out before.

use super::events;
use super::finding::Severity;
use crate::attribution::{Attribution, Container};
use crate::event::decode::text;
use crate::event::flag_names;
use crate::event::guard::{event_name, is_signal, signal_name};
use terrarium_abi::{CgroupAttach, Guard, GuardEvent, Mount, NewTask, NsChange, NsKind};

/// One kind of event that is a finding.
#[derive(Debug, Clone, Copy)]
pub struct EventCheck {
    /// Its id.
    pub id: &'static str,
    /// How bad it is, in words.
    pub severity: &'static str,
    /// What is seen.
    pub seen: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// Manual pages, CVEs, kernel documents.
    pub sources: &'static [&'static str],
    /// What prevents it.
    pub remedy: &'static str,
    /// Judges what was done.
    pub(super) judge: fn(&Act<'_>) -> Vec<Seen>,
}

/// What was done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed<'a> {
    /// It made a process (clone(2)).
    Cloned(&'a NewTask),
    /// It changed namespaces (setns(2), unshare(2)).
    Namespaces(&'a NsChange),
    /// It joined one of the container's namespaces, and is not of the container.
    Entered {
        /// The namespace's kind.
        kind: NsKind,
        /// The namespace's inode.
        inode: u32,
        /// Its name.
        by: &'a str,
    },
    /// An operation on mounts.
    Mounted(&'a Mount),
    /// It was moved to another cgroup.
    Moved(&'a CgroupAttach),
    /// A guarded call.
    Guarded(&'a Guard),
}

/// What a process did, and what is known around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act<'a> {
    pub deed: Deed<'a>,
    /// The container that the finding would be about.
    pub container: &'a Container,
    /// Whom a signal went to.
    pub target: Option<&'a Attribution>,
    /// Who else the mount namespace is of that a descriptor came from: the host, or a container's name.
    pub origin: Option<&'a str>,
    /// The inodes of the host's namespaces.
    pub initial: &'a [u32; 8],
}

impl<'a> Act<'a> {
    /// The guarded call, if it is one of this kind.
    fn calls(&self, event: GuardEvent) -> impl Iterator<Item = Call<'a>> + use<'a> {
        let call = match self.deed {
            Deed::Guarded(guard) if guard.event == event as u32 => Some(Call(guard)),
            _ => None,
        };
        call.into_iter()
    }
}

/// A guarded call.
struct Call<'a>(&'a Guard);

impl Call<'_> {
    /// What it was given: a path, a name.
    fn said(&self) -> String {
        text(&self.0.text).into_owned()
    }

    /// The process that it is on.
    fn target(&self) -> String {
        format!("process {}", self.0.target_pid)
    }

    /// Whether it is on a process that is none of the container's. One that does not exist is nobody's.
    fn is_across(&self, container: &Container) -> bool {
        self.0.target_pid != 0 && events::is_outside(self.0.target_pid, container)
    }

    /// The call in words, without its result.
    fn in_words(&self) -> String {
        let Self(guard) = self;
        let said = text(&guard.text);
        if is_signal(guard) {
            let signal = signal_name(guard.values[0]);
            return format!("{signal} to {} ({said})", self.target());
        }
        let mut words = event_name(guard).to_owned();
        if guard.event == GuardEvent::MknodDevice as u32
            && let Some(device) = device_node_created::device_of(guard.values[0], guard.values[1])
        {
            words = format!("{words} {device}");
        }
        if !said.is_empty() {
            words = format!("{words} of {said}");
        }
        if guard.target_pid != 0 {
            words = format!("{words} on {}", self.target());
        }
        words
    }
}

/// What a check has seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub severity: Severity,
    /// What tells this from another of the same check.
    pub object: String,
    /// In words.
    pub what: String,
}

impl Seen {
    fn call(severity: Severity, object: String, call: &Call<'_>) -> Self {
        let what = format!("{}: {}", call.in_words(), result_of(call.0.result));
        Self { severity, object, what }
    }
}

/// What became of a call, in words.
fn result_of(result: i32) -> String {
    match flag_names::errno(result) {
        Some(errno) if result < 0 => format!("refused with {errno}"),
        _ if result < 0 => "refused".to_owned(),
        _ => "done".to_owned(),
    }
}

macro_rules! checks {
    ($($module:ident),+ $(,)?) => {
        $(pub(super) mod $module;)+
        /// All of them.
        pub static EVENT_CHECKS: &[EventCheck] = &[$($module::CHECK),+];
    };
}

checks! {
    setns_out,
    entered_from_outside,
    user_namespace_created,
    mount_performed,
    pivot_performed,
    cgroup_escape,
    ptrace_across,
    process_memory_across,
    descriptor_passed,
    module_load,
    bpf_load,
    kexec,
    open_by_handle,
    kernel_tunable_written,
    runtime_binary_opened_for_write,
    chroot_performed,
    device_node_created,
    keyring_access,
    userfaultfd_created,
    perf_opened,
    signal_across,
}
