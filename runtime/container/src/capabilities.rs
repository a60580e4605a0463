//! Capabilities: names, Docker's default set, and how a process gives up the rest (capabilities(7)).

use crate::error::{Error, Result};
use crate::init::{Failure, Step};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::collections::HashSet;
use std::str::FromStr;

/// What a container gets unless it is told otherwise: the set that Docker and Podman give.
pub(crate) const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Every capability, by the kernel's number (linux/capability.h).
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Reads `NET_ADMIN`, `cap_net_admin` or `CAP_NET_ADMIN`.
fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper)).ok()
}

/// The set that `--cap-add` and `--cap-drop` leave of the default one.
pub(crate) fn choose(add: &[String], drop: &[String]) -> Result<Capabilities> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let read = |option: &'static str, name: &String| {
        parse(name).ok_or_else(|| {
            Error::invalid(
                option,
                name.clone(),
                "unknown capability; `man 7 capabilities` lists them",
            )
        })
    };
    let mut set: Capabilities = if add.iter().any(is_all) {
        ALL.into_iter().collect()
    } else if drop.iter().any(is_all) {
        HashSet::new()
    } else {
        DEFAULT.into_iter().collect()
    };
    for name in drop.iter().filter(|name| !is_all(name)) {
        set.remove(&read("--cap-drop", name)?);
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        set.insert(read("--cap-add", name)?);
    }
    Ok(set)
}

/// The names of all capabilities that are known here.
pub fn capability_names() -> Vec<String> {
    ALL.iter().map(|capability| format!("CAP_{}", name_of(*capability))).collect()
}

fn name_of(capability: Capability) -> String {
    // The specification's names are those of capabilities(7) already.
    let text = serde_json::to_value(capability).ok();
    let text = text.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    text.trim_start_matches("CAP_").to_owned()
}

/// The five sets of a process, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sets {
    bounding: CapabilitySet,
    effective: CapabilitySet,
    permitted: CapabilitySet,
    inheritable: CapabilitySet,
    ambient: CapabilitySet,
}

impl Sets {
    /// The bounding set as setpriv(1) takes it: `-all,+chown,+kill`.
    pub(crate) fn bounding_words(&self) -> String {
        let has = |number: usize| self.bounding.bits() >> number & 1 == 1;
        let names = capability_names().into_iter().enumerate().filter(|(number, _)| has(*number));
        let added = names.map(|(_, name)| {
            format!("+{}", name.to_lowercase().trim_start_matches("cap_").to_owned())
        });
        std::iter::once("-all".to_owned()).chain(added).collect::<Vec<_>>().join(",")
    }

    /// Reads the spec's sets; a missing one is empty, and all are where it has none, as with runc and crun.
    pub(crate) fn from_spec(capabilities: Option<&LinuxCapabilities>) -> Self {
        let set = |of: fn(&LinuxCapabilities) -> &Option<Capabilities>| {
            bits(capabilities.and_then(|all| of(all).as_ref()))
        };
        Self {
            bounding: set(LinuxCapabilities::bounding),
            effective: set(LinuxCapabilities::effective),
            permitted: set(LinuxCapabilities::permitted),
            inheritable: set(LinuxCapabilities::inheritable),
            ambient: set(LinuxCapabilities::ambient),
        }
    }

    /// Drops what is not in the bounding set. Before the user is changed: it needs `CAP_SETPCAP`.
    pub(crate) fn bound(&self) -> Result<(), Failure> {
        for number in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(capability) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The first number past the kernel's last capability.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error).step("drop from the bounding set", "capability"),
            }
        }
        Ok(())
    }

    /// Takes the sets. After the user was changed.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        // A kernel or a parent that lacks one of them cannot give it: take the rest.
        let have = rustix::thread::capabilities(None).step("read", "capabilities")?;
        let permitted = self.permitted & have.permitted;
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: self.effective & permitted,
                permitted,
                inheritable: self.inheritable & (have.permitted | have.inheritable),
            },
        )
        .step("set", "capabilities")?;
        rustix::thread::clear_ambient_capability_set().step("clear", "ambient capabilities")?;
        for capability in self.ambient & permitted & self.inheritable {
            rustix::thread::configure_capability_in_ambient_set(capability, true)
                .step("raise", "ambient capabilities")?;
        }
        Ok(())
    }
}

fn bits(set: Option<&Capabilities>) -> CapabilitySet {
    let set = set.into_iter().flatten();
    set.filter_map(|capability| ALL.iter().position(|c| c == capability))
        .fold(CapabilitySet::empty(), |bits, n| bits | CapabilitySet::from_bits_retain(1 << n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn add_and_drop_change_the_default_set() {
        let check = |add: &[&str], drop: &[&str]| choose(&strings(add), &strings(drop)).unwrap();
        assert_eq!(check(&[], &[]).len(), 14);
        assert_eq!(check(&["NET_ADMIN", "cap_sys_admin"], &[]).len(), 16);
        assert_eq!(check(&[], &["ALL"]).len(), 0);
        assert_eq!(check(&["kill"], &["all"]), [Capability::Kill].into());
        assert_eq!(check(&["all"], &["CAP_SYS_ADMIN"]).len(), 40);
        assert!(choose(&strings(&["fly"]), &[]).is_err());
        assert!(choose(&[], &strings(&["fly"])).is_err());
    }

    #[test]
    fn numbers_are_the_kernels() {
        let one = |capability| bits(Some(&[capability].into()));
        assert_eq!(one(Capability::Chown), CapabilitySet::CHOWN);
        assert_eq!(one(Capability::SysAdmin), CapabilitySet::SYS_ADMIN);
        assert_eq!(one(Capability::Mknod), CapabilitySet::MKNOD);
        assert_eq!(one(Capability::Setfcap), CapabilitySet::SETFCAP);
        assert_eq!(one(Capability::CheckpointRestore), CapabilitySet::CHECKPOINT_RESTORE);
    }
}
