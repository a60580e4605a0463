//! `dangerous-capability`: one that leads to the host.

use super::Check;
use crate::leaks::devices::Allowed;
use crate::leaks::process::{Kind, Status};
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity, capability};

pub const CHECK: Check = Check {
    id: "dangerous-capability",
    severity: "medium to critical, by capability; less in a user namespace of its own",
    seen: "in a bounding, permitted, effective or ambient set: SYS_ADMIN, SYS_MODULE, SYS_RAWIO, BPF (critical); SYS_PTRACE, DAC_READ_SEARCH, SYS_BOOT, MAC_ADMIN, MAC_OVERRIDE, CHECKPOINT_RESTORE (high); PERFMON, SYSLOG, SYS_TIME, LINUX_IMMUTABLE, IPC_LOCK, SYS_RESOURCE, NET_ADMIN with the host's network (medium)",
    why: "These were made for managing a host: mounting, loading code into the kernel, reading memory, opening files past their permissions.",
    sources: &["capabilities(7)", "CVE-2022-0492", "https://docs.docker.com/engine/security/#linux-kernel-capabilities"],
    remedy: "drop it (--cap-drop; process.capabilities, all sets)",
    may_pass: true,
    judge,
};

const CRITICAL: [&str; 4] = ["SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "BPF"];
const HIGH: [&str; 6] = [
    "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_BOOT", "MAC_ADMIN", "MAC_OVERRIDE", "CHECKPOINT_RESTORE",
];
const MEDIUM: [&str; 6] =
    ["PERFMON", "SYSLOG", "SYS_TIME", "LINUX_IMMUTABLE", "IPC_LOCK", "SYS_RESOURCE"];

/// The sets of a process, by the names of the spec.
fn sets(status: &Status) -> [(&'static str, u64); 4] {
    [
        ("bounding", status.bounding),
        ("permitted", status.permitted),
        ("effective", status.effective),
        ("ambient", status.ambient),
    ]
}

fn severity_of(name: &str, host_network: bool, devices: bool) -> Option<Severity> {
    match name {
        _ if CRITICAL.contains(&name) => Some(Severity::Critical),
        _ if HIGH.contains(&name) => Some(Severity::High),
        _ if MEDIUM.contains(&name) => Some(Severity::Medium),
        "NET_ADMIN" if host_network => Some(Severity::Medium),
        // What it opens, `device-exposed` tells.
        "MKNOD" if devices => Some(Severity::Low),
        _ => None,
    }
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if !container.started {
        return;
    }
    let host_network = host.shares(container, Kind::Net);
    let all_devices = Allowed::of(host, container).0 == Allowed::All;
    let own_users = !container.has_host_users(host);
    let init = container.init.pid;
    let mut worst: Option<Severity> = None;
    let mut asked_all = true;
    let mut texts = Vec::new();
    let mut evidence = Vec::new();
    for pid in &container.tasks {
        let Some(status) =
            (if *pid == init { Some(container.status.clone()) } else { host.proc().status(*pid) })
        else {
            continue;
        };
        // In a user namespace made inside it has all of them, over nothing but that.
        let users = host.process(*pid).and_then(|process| process.namespace(Kind::User));
        if *pid != init && users != container.namespace(Kind::User) {
            continue;
        }
        let sets = sets(&status);
        let union = sets.iter().fold(0, |all, (_, set)| all | set);
        for name in capability::names(union) {
            let short = name.trim_start_matches("CAP_");
            let Some(mut severity) = severity_of(short, host_network, all_devices) else {
                continue;
            };
            if own_users {
                // It counts for what the user namespace owns: less, but still much of the kernel.
                severity = severity.one_less().one_less();
            }
            let bit = capability::bit(short);
            let held = sets.iter().filter(|(_, set)| set & bit != 0);
            let held: Vec<&str> = held.map(|(name, _)| *name).collect();
            let asked = container.spec.as_ref().is_some_and(|spec| {
                held.iter().any(|set| spec.capabilities(set) & bit != 0)
            });
            let text = format!("{name} ({})", held.join(", "));
            if texts.contains(&text) {
                continue;
            }
            let bad = if asked { severity.one_less() } else { severity };
            worst = worst.max(Some(bad));
            asked_all &= asked;
            evidence.push(Evidence::proc(format!("/proc/{pid}/status"), text.clone()));
            texts.push(text);
        }
    }
    let Some(severity) = worst else { return };
    let names: Vec<&str> = texts.iter().map(|t| t.split(' ').next().unwrap_or_default()).collect();
    let remedy = format!("drop {} (--cap-drop; process.capabilities, all sets)", names.join(", "));
    found.add_as(
        severity,
        Opening {
            asked: asked_all,
            declared: "the capabilities of the spec".to_owned(),
            observed: texts.join("; "),
            evidence,
            remedy,
            ..Opening::default()
        },
    );
}
