//! Guarded calls as findings: which check each is, how bad, and what of it tells two apart.

use super::events::EventCheck;
use super::finding::Severity;
use crate::event::decode::text;
use crate::event::guard::{event_name, is_signal, signal_name};
use terrarium_abi::{Guard, GuardEvent};

const PTRACE_ACROSS: EventCheck = EventCheck {
    id: "ptrace-across",
    severity: "high",
    seen: "a process of the container traced one outside it, or tried to",
    remedy: "give the container a pid namespace of its own, and drop CAP_SYS_PTRACE",
};
const PROCESS_MEMORY_ACROSS: EventCheck = EventCheck {
    id: "process-memory-across",
    severity: "high",
    seen: "a process of the container wrote into the memory of one outside it, or tried to",
    remedy: "give the container a pid namespace of its own, and drop CAP_SYS_PTRACE",
};
const DESCRIPTOR_PASSED: EventCheck = EventCheck {
    id: "descriptor-passed",
    severity: "medium",
    seen: "a process of the container took a descriptor of one outside it (pidfd_getfd), or tried to",
    remedy: "give the container a pid namespace of its own, and drop CAP_SYS_PTRACE",
};
const MODULE_LOAD: EventCheck = EventCheck {
    id: "module-load",
    severity: "critical",
    seen: "a process of the container loaded a kernel module, or tried to",
    remedy: "drop CAP_SYS_MODULE, and refuse init_module and finit_module by seccomp (the default profile does)",
};
const BPF_LOAD: EventCheck = EventCheck {
    id: "bpf-load",
    severity: "critical",
    seen: "a process of the container loaded eBPF into the kernel, or tried to",
    remedy: "drop CAP_BPF and CAP_SYS_ADMIN, and refuse bpf by seccomp (the default profile does)",
};
const KEXEC: EventCheck = EventCheck {
    id: "kexec",
    severity: "critical",
    seen: "a process of the container loaded another kernel, or tried to",
    remedy: "drop CAP_SYS_BOOT, and refuse kexec_load and kexec_file_load by seccomp (the default profile does)",
};
const OPEN_BY_HANDLE: EventCheck = EventCheck {
    id: "open-by-handle",
    severity: "high",
    seen: "a process of the container opened a file by its handle, which asks for no path, or tried to (Shocker)",
    remedy: "drop CAP_DAC_READ_SEARCH, and refuse open_by_handle_at by seccomp (the default profile does)",
};
const KERNEL_TUNABLE_WRITTEN: EventCheck = EventCheck {
    id: "kernel-tunable-written",
    severity: "critical",
    seen: "a process of the container opened a file for writing that makes the kernel run a program, or obey, or tried to",
    remedy: "mount /proc/sys, /sys and cgroup filesystems read-only inside, mask sysrq-trigger, and drop CAP_SYS_ADMIN",
};
const RUNTIME_BINARY_WRITTEN: EventCheck = EventCheck {
    id: "runtime-binary-opened-for-write",
    severity: "critical",
    seen: "a process of the container opened the executable of a process for writing through /proc, or tried to (CVE-2019-5736)",
    remedy: "use a runtime that executes itself from a read-only mount or a sealed copy, and a user namespace",
};
const CHROOT_PERFORMED: EventCheck = EventCheck {
    id: "chroot-performed",
    severity: "low",
    seen: "a process of the container changed its root after the start, or tried to",
    remedy: "drop CAP_SYS_CHROOT",
};
const DEVICE_NODE_CREATED: EventCheck = EventCheck {
    id: "device-node-created",
    severity: "high",
    seen: "a process of the container made a device node beyond the usual ones, or tried to",
    remedy: "drop CAP_MKNOD, and let the devices cgroup refuse it",
};
const KEYRING_ACCESS: EventCheck = EventCheck {
    id: "keyring-access",
    severity: "low",
    seen: "a process of the container used the kernel's keyrings, which know no namespace but that of users",
    remedy: "refuse keyctl, add_key and request_key by seccomp (the default profile does)",
};
const USERFAULTFD_CREATED: EventCheck = EventCheck {
    id: "userfaultfd-created",
    severity: "medium",
    seen: "a process of the container made a userfaultfd, which exploits use to stop the kernel at a chosen place",
    remedy: "refuse userfaultfd by seccomp (the default profile does), or set vm.unprivileged_userfaultfd to 0",
};
const PERF_OPENED: EventCheck = EventCheck {
    id: "perf-opened",
    severity: "medium",
    seen: "a process of the container opened a performance counter, or tried to",
    remedy: "refuse perf_event_open by seccomp (the default profile does), or raise kernel.perf_event_paranoid",
};

const SIGNAL_ACROSS: EventCheck = EventCheck {
    id: "signal-across",
    severity: "medium",
    seen: "a process of the container sent a signal to one outside it: of the host, or of another container",
    remedy: "give each its own pid namespace (no --pid host, no --pid container:ID), so that neither can name the other's processes",
};

/// The checks of this file.
pub(super) const CHECKS: [EventCheck; 15] = [
    PTRACE_ACROSS, PROCESS_MEMORY_ACROSS, DESCRIPTOR_PASSED, MODULE_LOAD, BPF_LOAD, KEXEC,
    OPEN_BY_HANDLE, KERNEL_TUNABLE_WRITTEN, RUNTIME_BINARY_WRITTEN, CHROOT_PERFORMED,
    DEVICE_NODE_CREATED, KEYRING_ACCESS, USERFAULTFD_CREATED, PERF_OPENED, SIGNAL_ACROSS,
];

/// What a guarded call is.
#[derive(Debug)]
pub(super) struct Judged {
    pub check: &'static EventCheck,
    pub severity: Severity,
    /// What tells this from another of the same check.
    pub object: String,
    /// It is one only if this process is not the container's own.
    pub only_if_outside: Option<u32>,
}

/// Judges one call; `None` where it is no finding.
pub(super) fn judge(guard: &Guard) -> Option<Judged> {
    let event =
        usize::try_from(guard.event).ok().and_then(|index| GuardEvent::ALL.get(index).copied())?;
    let said = text(&guard.text).into_owned();
    let whole =
        |check, severity, object| Some(Judged { check, severity, object, only_if_outside: None });
    let across = |check, severity| {
        // One that does not exist is nobody's.
        let target = Some(guard.target_pid).filter(|pid| *pid != 0)?;
        let object = format!("process {target}");
        Some(Judged { check, severity, object, only_if_outside: Some(target) })
    };
    match event {
        GuardEvent::Ptrace => across(&PTRACE_ACROSS, Severity::High),
        GuardEvent::ProcessVmWrite => across(&PROCESS_MEMORY_ACROSS, Severity::High),
        GuardEvent::PidfdGetfd => across(&DESCRIPTOR_PASSED, Severity::Medium),
        GuardEvent::ModuleLoad => whole(&MODULE_LOAD, Severity::Critical, said),
        GuardEvent::Bpf => whole(&BPF_LOAD, Severity::Critical, String::new()),
        GuardEvent::Kexec => whole(&KEXEC, Severity::Critical, said),
        GuardEvent::OpenByHandleAt => whole(&OPEN_BY_HANDLE, Severity::High, said),
        GuardEvent::KernelTunableWrite => whole(&KERNEL_TUNABLE_WRITTEN, Severity::Critical, said),
        GuardEvent::ExecutableWrite => whole(&RUNTIME_BINARY_WRITTEN, Severity::Critical, said),
        GuardEvent::Chroot => whole(&CHROOT_PERFORMED, Severity::Low, said),
        GuardEvent::MknodDevice => {
            let [mode, device, _] = guard.values;
            let object = device_of(mode, device)?;
            whole(&DEVICE_NODE_CREATED, Severity::High, object)
        }
        GuardEvent::Keyctl => whole(&KEYRING_ACCESS, Severity::Low, said),
        GuardEvent::Userfaultfd => whole(&USERFAULTFD_CREATED, Severity::Medium, String::new()),
        GuardEvent::PerfEventOpen => whole(&PERF_OPENED, Severity::Medium, String::new()),
        // That its cgroups are not the sender's the kernel side has seen; whose they are, the caller knows.
        GuardEvent::Signal => {
            whole(&SIGNAL_ACROSS, Severity::Medium, format!("process {}", guard.target_pid))
        }
        // What capset gives was permitted before.
        GuardEvent::Capset => None,
    }
}

/// The call in words, without its result.
pub(super) fn in_words(guard: &Guard) -> String {
    let said = text(&guard.text);
    if is_signal(guard) {
        return format!(
            "{} to process {} ({said})",
            signal_name(guard.values[0]),
            guard.target_pid
        );
    }
    let mut words = event_name(guard).to_owned();
    if guard.event == GuardEvent::MknodDevice as u32
        && let Some(device) = device_of(guard.values[0], guard.values[1])
    {
        words = format!("{words} {device}");
    }
    if !said.is_empty() {
        words = format!("{words} of {said}");
    }
    if guard.target_pid != 0 {
        words = format!("{words} on process {}", guard.target_pid);
    }
    words
}

/// A device node as `ls` shows it, unless it is one that every container has (null, zero, full, random, urandom, tty,
/// console, ptmx and pseudo-terminals); `device` is as mknod(2) takes it.
fn device_of(mode: u64, device: u64) -> Option<String> {
    const USUAL: [(u64, u64); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0x000f_ff00);
    let is_block = mode & 0o170_000 == 0o060_000;
    let is_usual = !is_block && (USUAL.contains(&(major, minor)) || major == 136);
    (!is_usual).then(|| format!("{} {major}:{minor}", if is_block { 'b' } else { 'c' }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_devices_are_no_finding() {
        let block = 0o060_600;
        let character = 0o020_600;
        assert_eq!(device_of(character, 0x103), None);
        assert_eq!(device_of(character, 136 << 8 | 7), None);
        assert_eq!(device_of(block, 0x103).as_deref(), Some("b 1:3"));
        assert_eq!(device_of(block, 254 << 8).as_deref(), Some("b 254:0"));
        assert_eq!(device_of(character, 0x101).as_deref(), Some("c 1:1"));
    }
}
