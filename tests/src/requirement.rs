//! What a test needs of the machine, and how it says that it was skipped.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

/// One thing that a test needs.
#[derive(Debug, Clone, Copy)]
pub enum Requirement {
    /// The effective user is root.
    Root,
    /// A cgroup v2 hierarchy is mounted, alone or beside v1 (hybrid).
    CgroupV2,
    /// The memory controller stands in cgroup v1.
    CgroupV1Memory,
    /// The memory controller stands in cgroup v2.
    CgroupV2Memory,
    /// The memory controller stands in either version.
    MemoryController,
    /// The kernel carries type information (`CONFIG_DEBUG_INFO_BTF`).
    Btf,
    /// Functions of the kernel can be probed (`CONFIG_KPROBES`).
    Kprobes,
    /// The kernel speaks IPv6, and nftables translates its addresses.
    Ipv6,
    /// A program is in `PATH`.
    Program(&'static str),
    /// The repository that the tests were built from is here.
    Sources,
    /// unshare(1) and its like are util-linux's: busybox's know fewer options.
    UtilLinux,
    /// A variable of the environment names something that `cargo xtask test` has made.
    Made(&'static str),
}

impl Requirement {
    /// Why it is not met, with what to do about it.
    pub fn unmet(self) -> Option<String> {
        let (met, reason) = match self {
            Self::Root => {
                (nix::unistd::geteuid().is_root(), "needs root (run the tests as root)".to_owned())
            }
            Self::CgroupV2 => (
                crate::kernel_state::cgroup_mounts().iter().any(|mount| mount.version == 2),
                "needs a cgroup v2 hierarchy (mount -t cgroup2)".to_owned(),
            ),
            Self::CgroupV1Memory => (
                crate::kernel_state::cgroup_mount_of("memory")
                    .is_some_and(|mount| mount.version == 1),
                "needs the memory controller in cgroup v1 (this kernel has it in v2 or not at all)"
                    .to_owned(),
            ),
            Self::CgroupV2Memory => (
                crate::kernel_state::cgroup_mount_of("memory")
                    .is_some_and(|mount| mount.version == 2),
                "needs the memory controller in cgroup v2 (this kernel has it in v1 or not at all)"
                    .to_owned(),
            ),
            Self::MemoryController => (
                crate::kernel_state::cgroup_mount_of("memory").is_some(),
                "needs the memory cgroup controller".to_owned(),
            ),
            Self::Btf => (
                Path::new("/sys/kernel/btf/vmlinux").exists(),
                "needs /sys/kernel/btf/vmlinux (a kernel with CONFIG_DEBUG_INFO_BTF)".to_owned(),
            ),
            Self::Kprobes => (
                Path::new("/sys/bus/event_source/devices/kprobe").exists(),
                "needs a kernel whose functions can be probed (CONFIG_KPROBES)".to_owned(),
            ),
            Self::Ipv6 => (
                translates_ipv6(),
                "needs a kernel with IPv6 and nftables' NAT for it (modprobe ipv6 nft_fib_ipv6)"
                    .to_owned(),
            ),
            Self::Sources => (
                crate::binaries::repository().join("README.md").is_file(),
                "needs the sources of terrarium, which are on the machine that built the tests"
                    .to_owned(),
            ),
            Self::UtilLinux => (
                std::process::Command::new("unshare")
                    .arg("--version")
                    .output()
                    .is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("util-linux")),
                "needs unshare of util-linux (busybox's knows fewer options)".to_owned(),
            ),
            Self::Made(name) => (
                std::env::var_os(name).is_some(),
                format!(
                    "needs {name} (cargo xtask test makes it, where mmdebstrap, npm or python3-venv is)"
                ),
            ),
            Self::Program(name) => (
                program(name).is_some(),
                format!("needs the program {name} (cargo xtask setup installs it)"),
            ),
        };
        (!met).then_some(reason)
    }
}

/// Whether rules as for published ports can be made, in a namespace of their own.
fn translates_ipv6() -> bool {
    let rules = "add table ip6 t; add chain ip6 t p { type nat hook prerouting priority -100; }; \
                 add rule ip6 t p fib daddr type local tcp dport 80 dnat to [fd00::2]:80; \
                 add chain ip6 t q { type nat hook postrouting priority 100; }; add rule ip6 t q masquerade";
    program("nft").is_some() && crate::NetworkNamespace::new().run("nft", &[rules]).code == 0
}

/// The path of a program, also of those in the system folders that an unprivileged `PATH` lacks.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// What `cargo xtask test` has made and named by the variable `name`, for a test that requires it.
pub fn made(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("the test requires {name}")).into()
}

/// Says that `test` is skipped, on stdout and in the file that `TERRARIUM_SKIP_LOG` names.
pub fn skip(test: &str, reason: &dyn fmt::Display) {
    println!("skipped: {reason}");
    if let Some(log) = std::env::var_os("TERRARIUM_SKIP_LOG") {
        // One write of one line to a file opened for appending: lines of parallel tests do not mix.
        let line = format!("{test}\t{reason}\n");
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("write {}: {error}", log.display()));
    }
    assert!(
        std::env::var_os("TERRARIUM_NO_SKIP").is_none_or(|value| value != "1"),
        "{test} is skipped, and TERRARIUM_NO_SKIP forbids it: {reason}"
    );
}

/// Returns from the test, with the reason told, unless every [`Requirement`] is met.
///
/// `require!(Root, Btf, Program("prometheus"))`
#[macro_export]
macro_rules! require {
    ($($name:ident $(($argument:expr))?),+ $(,)?) => {
        $(
            if let Some(reason) = $crate::Requirement::$name $(($argument))?.unmet() {
                fn here() {}
                // `crate::module::test_name::here`: the thread's name is `main` where one test runs alone.
                let name = std::any::type_name_of_val(&here).trim_end_matches("::here");
                $crate::requirement::skip(name, &reason);
                return;
            }
        )+
    };
}
