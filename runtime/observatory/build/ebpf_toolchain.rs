//! Finds what builds the eBPF programs: bpf-linker, and one of two compilers.
//!
//! The build script of `terrarium-observatory` and `cargo xtask setup` both include this file, so that what set-up
//! reports is what the build uses. It depends on the standard library only and installs nothing.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compiler's name for the target.
pub const TARGET: &str = "bpfel-unknown-none";

/// Names the linker to use instead of the one in `PATH` or `$CARGO_HOME/bin`.
pub const LINKER_VARIABLE: &str = "TERRARIUM_BPF_LINKER";

/// Where Debian's package `rustc-web` puts its compiler.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler for the eBPF target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A rustup toolchain that has the sources of the standard library, from which `core` is built: the name of
    /// the toolchain.
    RustSrc(String),
    /// A compiler whose sysroot has a ready `core` for the target, as Debian's `libstd-rust-web-dev-bpf` brings:
    /// the path of rustc.
    ReadyCore(PathBuf),
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RustSrc(toolchain) => write!(f, "rustup toolchain {toolchain} with rust-src"),
            Self::ReadyCore(rustc) => write!(f, "{} with a ready core library", rustc.display()),
        }
    }
}

/// What builds the eBPF programs.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The compiler.
    pub route: Route,
    /// The linker.
    pub linker: PathBuf,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Neither route has a compiler.
    Compiler,
    /// bpf-linker was not found.
    Linker,
    /// Neither.
    Both,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Compiler => "no Rust compiler for the eBPF target was found",
            Self::Linker => "bpf-linker was not found",
            Self::Both => "neither bpf-linker nor a Rust compiler for the eBPF target was found",
        };
        write!(f, "cannot build the eBPF programs: {what}; run `cargo xtask setup`")
    }
}

/// Finds both, or says what is missing.
pub fn find() -> Result<Toolchain, Missing> {
    match (find_route(), find_linker()) {
        (Some(route), Some(linker)) => Ok(Toolchain { route, linker }),
        (None, Some(_)) => Err(Missing::Compiler),
        (Some(_), None) => Err(Missing::Linker),
        (None, None) => Err(Missing::Both),
    }
}

/// The compiler: a rustup toolchain with rust-src where there is one, else Debian's.
pub fn find_route() -> Option<Route> {
    rustup_toolchains()
        .into_iter()
        .find(|name| {
            rustup_sysroot(name).is_some_and(|sysroot| {
                sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
            })
        })
        .map(Route::RustSrc)
        .or_else(|| {
            let rustc = PathBuf::from(DEBIAN_RUSTC);
            let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
            has_ready_core(Path::new(&sysroot)).then_some(Route::ReadyCore(rustc))
        })
}

/// bpf-linker: from the environment, else from `PATH`, else from cargo's own folder.
pub fn find_linker() -> Option<PathBuf> {
    if let Some(path) = env::var_os(LINKER_VARIABLE) {
        let path = PathBuf::from(path);
        return path.is_file().then_some(path);
    }
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|path| path.is_file())
}

impl Toolchain {
    /// The command that builds the package with this manifest into `target_dir`, for programs that will run on
    /// `arch` (as in `CARGO_CFG_TARGET_ARCH`). The result is `<target_dir>/bpfel-unknown-none/release/<bin>`.
    pub fn build_command(&self, manifest: &Path, target_dir: &Path, arch: &str) -> Command {
        let mut command = match &self.route {
            Route::RustSrc(toolchain) => {
                let mut command = Command::new("rustup");
                command.args(["run", toolchain, "cargo"]);
                command
            }
            Route::ReadyCore(_) => {
                Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
            }
        };
        // What the outer cargo set for its own build would leak into this one.
        for variable in [
            "RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS", "CARGO_TARGET_DIR",
            "CARGO_MAKEFLAGS", "MAKEFLAGS",
        ] {
            command.env_remove(variable);
        }
        command.args(["build", "--quiet", "--release", "--target", TARGET, "--manifest-path"]);
        command.arg(manifest).arg("--target-dir").arg(target_dir);
        match &self.route {
            Route::RustSrc(_) => {
                command.args(["-Z", "build-std=core"]);
            }
            Route::ReadyCore(rustc) => {
                command.env("RUSTC", rustc);
            }
        }
        // aya-ebpf uses inline assembly for eBPF, and -Zbuild-std is unstable as well.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        let flags = [
            format!("--cfg=bpf_target_arch=\"{arch}\""),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        ];
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        command
    }
}

/// Whether a sysroot has a ready `core` for the target.
fn has_ready_core(sysroot: &Path) -> bool {
    let Ok(entries) = sysroot.join("lib/rustlib").join(TARGET).join("lib").read_dir() else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// The installed rustup toolchains, nightlies first: only they are sure to know `-Zbuild-std`.
fn rustup_toolchains() -> Vec<String> {
    let list = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let mut names: Vec<String> =
        list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    names
}

fn rustup_sysroot(toolchain: &str) -> Option<PathBuf> {
    output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]))
        .map(PathBuf::from)
}

/// What a command printed, trimmed, if it ran and succeeded.
fn output(command: &mut Command) -> Option<String> {
    let out = command
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove(OsStr::new("RUSTC"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| text.trim().to_owned())
}
