//! Guarded calls as JSON.

use super::decode::text;
use super::flag_names::{self, names};
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use terrarium_abi::{Guard, GuardCall, GuardEvent};

/// The name of the event, as in `guard.<event>`.
pub fn event_name(record: &Guard) -> &'static str {
    find(&GuardEvent::ALL, record.event).map_or("other", GuardEvent::name)
}

fn find<T: Copy>(all: &[T], number: u32) -> Option<T> {
    usize::try_from(number).ok().and_then(|index| all.get(index)).copied()
}

/// The object `guard`.
pub fn payload(record: &Guard) -> Value {
    let mut guard = Map::new();
    let mut set = |key: &str, value: Value| {
        guard.insert(key.to_owned(), value);
    };
    let call = find(&GuardCall::ALL, record.call);
    set("event", json!(event_name(record)));
    set("call", json!(call.map_or("other", GuardCall::name)));
    let [a, b, c] = record.values;
    let text = text(&record.text);
    let named = |number: u64, table: &[(u64, &'static str)]| {
        table
            .iter()
            .find(|(known, _)| *known == number)
            .map_or_else(|| json!(number), |(_, name)| json!(name))
    };
    match call {
        Some(GuardCall::Ptrace) => set("operation", named(a, flag_names::PTRACE)),
        Some(GuardCall::Bpf) => {
            set("operation", named(a, flag_names::BPF));
            match a {
                0 => set("map_type", json!(b)),
                5 => set("program_type", named(b, flag_names::BPF_PROGRAM)),
                _ => {}
            }
        }
        Some(GuardCall::Keyctl) => set("operation", named(a, flag_names::KEYCTL)),
        Some(GuardCall::InitModule) => set("image_bytes", json!(a)),
        Some(GuardCall::AddKey | GuardCall::RequestKey) => {
            // Keyrings are numbers of 32 bits, the special ones negative.
            set("keyring", json!(a.to_ne_bytes()[..4].try_into().map(i32::from_ne_bytes).ok()));
        }
        Some(GuardCall::Capset) => {
            set("effective", json!(flag_names::capabilities(a)));
            set("permitted", json!(flag_names::capabilities(b)));
            set("inheritable", json!(flag_names::capabilities(c)));
        }
        Some(GuardCall::Mknod | GuardCall::Mknodat) => {
            let kind = if a & 0o170_000 == 0o060_000 { "block" } else { "char" };
            set(
                "device",
                json!({"kind": kind, "major": b >> 8 & 0xfff,
                                 "minor": b & 0xff | b >> 12 & 0x000f_ff00}),
            );
            set("mode", json!(a & 0o7777));
        }
        Some(GuardCall::PerfEventOpen) => {
            set("event_type", named(a, flag_names::PERF));
            let cpu = u32::try_from(b).map_or(-1, u32::cast_signed);
            set("cpu", json!(cpu));
            set("flags", json!(c));
        }
        Some(GuardCall::PidfdGetfd) => set("target_fd", json!(a)),
        Some(GuardCall::Recvmsg) => {
            set("mount_namespace", json!(a));
            set("fd", json!(b));
        }
        Some(GuardCall::Kill) => {
            set("signal", json!(a));
            set("signal_name", json!(signal_name(a)));
        }
        Some(
            GuardCall::Open | GuardCall::Openat | GuardCall::Openat2 | GuardCall::OpenByHandleAt,
        ) => {
            set("flags", json!(a));
            set("flag_names", json!(open_flags(a)));
        }
        Some(
            GuardCall::ProcessVmWritev
            | GuardCall::FinitModule
            | GuardCall::KexecLoad
            | GuardCall::KexecFileLoad
            | GuardCall::Userfaultfd
            | GuardCall::Seccomp,
        ) => {
            set("flags", json!(a));
            let table = match call {
                Some(GuardCall::FinitModule) => flag_names::FINIT_MODULE,
                Some(GuardCall::KexecFileLoad) => flag_names::KEXEC_FILE,
                Some(GuardCall::Userfaultfd) => flag_names::USERFAULTFD,
                Some(GuardCall::Seccomp) => flag_names::SECCOMP,
                _ => &[],
            };
            set("flag_names", json!(names(a, table)));
        }
        Some(GuardCall::Chroot | GuardCall::Creat | GuardCall::Socket | GuardCall::Prctl)
        | None => {}
    }
    if let Some(key) = call.and_then(meaning_of_text) {
        set(key, json!(text));
    }
    Value::Object(guard)
}

/// What the text of a record is, where the call has one.
const fn meaning_of_text(call: GuardCall) -> Option<&'static str> {
    match call {
        GuardCall::Chroot
        | GuardCall::Mknod
        | GuardCall::Mknodat
        | GuardCall::Open
        | GuardCall::Openat
        | GuardCall::Openat2
        | GuardCall::Creat => Some("path"),
        GuardCall::FinitModule
        | GuardCall::KexecFileLoad
        | GuardCall::OpenByHandleAt
        | GuardCall::Recvmsg => Some("file"),
        GuardCall::AddKey | GuardCall::RequestKey | GuardCall::Keyctl => Some("description"),
        _ => None,
    }
}

/// The target's process, where the call has one: its id for the host, and as the caller gave it.
pub fn target(record: &Guard) -> Option<Value> {
    let number = |pid: u32| if pid == 0 { Value::Null } else { json!(pid) };
    (record.target_pid != 0 || record.target_ns_pid != 0).then(|| {
        let mut process = json!({"pid": number(record.target_pid),
                                 "ns_pid": number(record.target_ns_pid)});
        if is_signal(record) {
            process["comm"] = json!(text(&record.text));
        }
        json!({ "process": process })
    })
}

/// Whether it is a signal that was sent: then the record tells the target's cgroups.
pub fn is_signal(record: &Guard) -> bool {
    record.event == GuardEvent::Signal as u32
}

/// The name of a signal, as in signal(7); those of real time by their distance from the first, which the C library keeps two of.
pub fn signal_name(number: u64) -> String {
    let known = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
    match known {
        Some(signal) => signal.as_str().to_owned(),
        None if (34..=64).contains(&number) => format!("SIGRTMIN+{}", number - 34),
        None => format!("signal {number}"),
    }
}

/// The way of access is a number of two bits, not a flag each.
fn open_flags(flags: u64) -> Vec<&'static str> {
    let access = match flags & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        _ => "O_RDWR",
    };
    let mut all = vec![access];
    all.extend(names(flags, flag_names::OPEN));
    all
}
