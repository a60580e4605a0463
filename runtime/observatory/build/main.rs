//! Builds the eBPF programs of `ebpf/probes` into `OUT_DIR/terrarium-probes`, which the crate embeds.
//!
//! It has a target folder of its own below `OUT_DIR`: the outer cargo holds the lock of the usual one.

mod ebpf_toolchain;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said(reason)) => {
            // Cargo prints this as an error of the build, with none of its own noise around it.
            println!("cargo::error={reason}");
            ExitCode::SUCCESS
        }
        Err(Failure::Shown(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Why there are no eBPF programs.
enum Failure {
    /// In one sentence.
    Said(String),
    /// With what the compiler said.
    Shown(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Said(reason)
    }
}

fn build() -> Result<(), Failure> {
    let ebpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ebpf");
    for path in ["abi/src", "abi/Cargo.toml", "probes/src", "probes/build.rs", "probes/Cargo.toml"]
    {
        println!("cargo::rerun-if-changed={}", ebpf.join(path).display());
    }
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed={}", ebpf_toolchain::LINKER_VARIABLE);
    println!("cargo::rerun-if-env-changed=PATH");

    let toolchain = ebpf_toolchain::find().map_err(|missing| missing.to_string())?;
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());

    let variable = |name: &str| env::var(name).map_err(|_| format!("cargo did not set {name}"));
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = out_dir.join("ebpf");
    let mut command = toolchain.build_command(&ebpf.join("probes/Cargo.toml"), &target_dir, &arch);
    run(&mut command, &toolchain)?;

    let object = target_dir.join(ebpf_toolchain::TARGET).join("release/terrarium-probes");
    let embedded = out_dir.join("terrarium-probes");
    fs::copy(&object, &embedded)
        .map_err(|e| format!("copy {} to {}: {e}", object.display(), embedded.display()))?;
    Ok(())
}

fn run(command: &mut Command, toolchain: &ebpf_toolchain::Toolchain) -> Result<(), Failure> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot build the eBPF programs with {}: {e}", toolchain.route))?;
    if out.status.success() {
        return Ok(());
    }
    Err(Failure::Shown(format!(
        "cannot build the eBPF programs with {} and {}:\n{}",
        toolchain.route,
        toolchain.linker.display(),
        String::from_utf8_lossy(&out.stderr)
    )))
}
