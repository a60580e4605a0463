//! `no-lsm-confinement`: the host has a Linux security module, and it does not confine the container.

use super::Check;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "no-lsm-confinement",
    severity: "low",
    seen: "unconfined, while the host has AppArmor, SELinux or another such module",
    why: "A profile still holds where a capability or a mount was given by mistake.",
    sources: &["apparmor(7)", "selinux(8)", "https://docs.docker.com/engine/security/apparmor/"],
    remedy: "give it a profile (process.apparmorProfile or process.selinuxLabel)",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host.security_modules.is_empty() || !container.started {
        return;
    }
    let pid = container.init.pid;
    let own = format!("attr/{}/current", host.security_modules[0]);
    let label = host.proc().text(pid, &own).or_else(|| host.proc().text(pid, "attr/current"));
    let Some(label) = label.map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned()) else {
        return;
    };
    let unconfined = label.is_empty()
        || label.starts_with("unconfined")
        || label.contains(":unconfined_t:")
        || label.contains(":spc_t:");
    if !unconfined {
        return;
    }
    let asked = container.spec.as_ref().is_some_and(|spec| !spec.has_lsm_label());
    found.add(
        Severity::Low,
        Opening {
            asked,
            declared: if asked { "no profile" } else { "a profile" }.to_owned(),
            observed: format!(
                "unconfined, and the host has {}",
                host.security_modules.join(", ")
            ),
            evidence: vec![Evidence::proc(format!("/proc/{pid}/attr/current"), label)],
            ..Opening::default()
        },
    );
}
