//! The table of what each command needs, and how to see whether it is there.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ebpf_toolchain;
use crate::shell;

/// The row of the eBPF compiler, which has two routes.
pub const EBPF_COMPILER: &str = "eBPF compiler";
/// The row of the eBPF linker, which comes from crates, not from a package.
pub const BPF_LINKER: &str = "bpf-linker";

/// The row of the emulator, which need not be installed: see `qemu.rs`.
pub const QEMU: &str = "qemu";

/// What a need is for. A command asks for the groups that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Compiling the workspace.
    Build,
    /// Running the demo.
    Run,
    /// Programs that the tests compare with or scrape by; a test without its peer skips.
    Peers,
    /// Booting other kernels.
    Machine,
}

impl Group {
    /// Whether commands fail without it, instead of skipping.
    pub const fn is_required(self) -> bool {
        matches!(self, Self::Build | Self::Run)
    }
}

/// Whether a need is met.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// Where it was found, or which version.
    Found(String),
    Missing,
}

/// One row of the table.
pub struct Need {
    pub name: &'static str,
    pub group: Group,
    /// What it is for, in a few words.
    pub why: &'static str,
    /// Debian's packages that bring it.
    pub packages: &'static [&'static str],
    /// What to look for where there is no apt.
    pub elsewhere: &'static str,
    /// Looks for the thing of the row's name.
    look: fn(&str) -> Option<String>,
}

impl Need {
    /// Looks on this machine. Cheap: files, and for the compiler and the linker one question each.
    pub fn state(&self) -> State {
        (self.look)(self.name).map_or(State::Missing, State::Found)
    }

    /// How `setup` gets it.
    pub fn remedy(&self) -> String {
        match (self.name, self.packages) {
            (BPF_LINKER, packages) => format!("cargo install, with apt {}", packages.join(" ")),
            (_, packages) => format!("apt {}", packages.join(" ")),
        }
    }
}

/// Every need, in the order in which a user meets it.
pub fn all() -> Vec<Need> {
    vec![
        Need {
            name: "C toolchain",
            group: Group::Build,
            why: "links the programs, statically too",
            packages: &["gcc", "libc6-dev"],
            elsewhere: "a C compiler and the C library's headers and static archive",
            look: |_| c_toolchain(),
        },
        Need {
            name: EBPF_COMPILER,
            group: Group::Build,
            why: "compiles the probes",
            packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
            elsewhere: "rustup component add rust-src",
            look: |_| ebpf_compiler(),
        },
        Need {
            name: BPF_LINKER,
            group: Group::Build,
            why: "links the probes",
            packages: &["g++", "llvm-22-dev", "libzstd-dev", "zlib1g-dev"],
            elsewhere: "bpf-linker 0.13.0 in PATH (its own releases, or cargo install with LLVM 22)",
            look: |_| bpf_linker(),
        },
        Need {
            name: "busybox-static",
            group: Group::Run,
            why: "root filesystem of demo and tests",
            packages: &["busybox-static"],
            elsewhere: "a statically linked busybox in PATH",
            look: |_| static_busybox().map(|file| file.display().to_string()),
        },
        peer("ip", "tests make networks with it", &["iproute2"]),
        peer("nft", "tests read the rule tables with it", &["nftables"]),
        peer("prometheus", "tests scrape with it", &["prometheus"]),
        peer("promtool", "tests check the metrics with it", &["prometheus"]),
        peer("chromium", "tests look at the page with it", &["chromium"]),
        peer("chromedriver", "tests drive chromium with it", &["chromium-driver"]),
        peer("tmux", "tests use terminals by it", &["tmux"]),
        peer("bpftrace", "tests compare events with it, and the bench costs", &["bpftrace"]),
        peer("mountsnoop", "tests compare events with it", &["libbpf-tools"]),
        peer("oomkill", "tests compare events with it", &["libbpf-tools"]),
        peer("runc", "tests compare with it", &["runc"]),
        peer("crun", "tests compare with it", &["crun"]),
        peer("podman", "tests drive terrarium with it", &["podman", "iptables"]),
        Need {
            name: "python3-venv",
            group: Group::Peers,
            why: "tests bring up the compose file by podman-compose, installed in it",
            packages: &["python3-venv"],
            elsewhere: "a python3 with the modules venv and ensurepip",
            look: |_| {
                let python = shell::program("python3")?;
                let modules = ["-c", "import venv, ensurepip"];
                shell::output(Command::new(&python).args(modules)).ok()?;
                Some(python.display().to_string())
            },
        },
        peer("newuidmap", "tests map ranges of ids with it", &["uidmap"]),
        peer("pasta", "tests have it carry a user's packets", &["passt"]),
        peer("slirp4netns", "tests have it carry a user's packets", &["slirp4netns"]),
        peer("ctr", "tests drive terrarium with it", &["containerd"]),
        peer("mmdebstrap", "tests install the packages in a Debian of its making", &["mmdebstrap"]),
        peer("docker-registry", "tests pull images from it", &["docker-registry"]),
        Need {
            name: QEMU,
            group: Group::Machine,
            why: "boots other kernels",
            packages: &["qemu-system-x86"],
            elsewhere: "qemu-system-x86_64 in PATH, and Debian's kernels cannot be fetched",
            look: |_| Some(crate::qemu::find()?.program().display().to_string()),
        },
    ]
}

/// A program that some test uses, looked up by the row's name.
fn peer(name: &'static str, why: &'static str, packages: &'static [&'static str]) -> Need {
    Need { name, group: Group::Peers, why, packages, elsewhere: "the program in PATH", look: found }
}

fn found(program: &str) -> Option<String> {
    shell::program(program).map(|file| file.display().to_string())
}

fn c_toolchain() -> Option<String> {
    let cc = shell::program("cc")?;
    // The static build links this; a compiler without the C library's development files lacks it.
    let multiarch = format!("/usr/lib/{}-linux-gnu/libc.a", std::env::consts::ARCH);
    [multiarch.as_str(), "/usr/lib64/libc.a", "/usr/lib/libc.a"]
        .iter()
        .any(|file| Path::new(file).is_file())
        .then(|| cc.display().to_string())
}

fn ebpf_compiler() -> Option<String> {
    Some(ebpf_toolchain::find_route()?.to_string())
}

/// Asked for its version, because a bpf-linker whose LLVM library has gone does not start.
fn bpf_linker() -> Option<String> {
    let program = ebpf_toolchain::find_linker()?;
    let said = shell::output(Command::new(&program).arg("--version")).ok()?;
    Some(format!("{} {}", program.display(), said.split_whitespace().last()?))
}

/// A busybox that runs in an otherwise empty root filesystem.
pub fn static_busybox() -> Option<PathBuf> {
    shell::program("busybox").filter(|file| is_static(file))
}

/// Whether an ELF file asks for no interpreter, that is, needs no shared library at all.
fn is_static(file: &Path) -> bool {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(4096).read_to_end(&mut bytes))
        .is_ok_and(|_| elf_interpreter(&bytes) == Some(false))
}

/// Whether a 64-bit little-endian ELF image has a `PT_INTERP` header; `None` when it is not one.
fn elf_interpreter(image: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if image.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half =
        |at: usize| Some(usize::from(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?)));
    let offset = usize::try_from(u64::from_le_bytes(image.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(54)?, half(56)?);
    for index in 0..count {
        let at = offset.checked_add(index * size)?;
        let kind = u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?);
        if kind == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

/// An LLVM that bpf-linker can be linked with.
pub struct Llvm {
    pub prefix: PathBuf,
    pub version: u32,
}

/// The newest LLVM that bpf-linker 0.13 knows and Debian's layout shows, 22 first because that is
/// what the Rust compilers in question emit.
pub fn llvm() -> Option<Llvm> {
    [22, 23, 21].into_iter().find_map(|version| {
        let prefix = PathBuf::from(format!("/usr/lib/llvm-{version}"));
        prefix.join("bin/llvm-config").exists().then_some(Llvm { prefix, version })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_elf_image_with_an_interpreter_is_not_static() {
        let image = |kinds: &[u32]| {
            let mut bytes = vec![0; 64 + 56 * kinds.len()];
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            bytes[32] = 64;
            bytes[54] = 56;
            bytes[56] = u8::try_from(kinds.len()).expect("a test has few headers");
            for (index, kind) in kinds.iter().enumerate() {
                bytes[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
            }
            bytes
        };
        for (bytes, expected) in [
            (image(&[1, 1]), Some(false)),
            (image(&[6, 3, 1]), Some(true)),
            (b"#!/bin/sh".to_vec(), None),
            (image(&[1])[..80].to_vec(), Some(false)),
            (image(&[1, 1])[..80].to_vec(), None),
        ] {
            assert_eq!(elf_interpreter(&bytes), expected);
        }
    }

    #[test]
    fn every_need_says_why_and_how() {
        for need in all() {
            assert!(!need.why.is_empty() && !need.elsewhere.is_empty(), "{}", need.name);
            assert!(!need.packages.is_empty(), "{}", need.name);
        }
    }
}
