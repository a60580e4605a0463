//! Builds the programs of `freestanding/`, which use no library and which the crate carries as bytes: `init.rs`, the init of `--init`, and
//! `call.rs`, which makes one system call.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=freestanding");
    println!("cargo::rerun-if-changed=build.rs");
    let output = PathBuf::from(variable("OUT_DIR"));
    build("freestanding/init.rs", &output.join("terrarium-init"));
    build("freestanding/call.rs", &output.join("terrarium-call"));
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn build(source: &str, output: &Path) {
    if !["x86_64", "aarch64"].contains(&variable("CARGO_CFG_TARGET_ARCH").as_str()) {
        std::fs::write(output, [])
            .unwrap_or_else(|error| panic!("write {}: {error}", output.display()));
        return;
    }
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([
        "--edition", "2024", "--crate-type", "bin", "--crate-name", "terrarium_freestanding",
    ]);
    rustc.args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"]);
    rustc.args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"]);
    rustc.args([
        "-C", "link-arg=-nostdlib", "-C", "link-arg=-nostartfiles", "-C", "link-arg=-static",
    ]);
    rustc.args(["--target", &variable("TARGET"), source, "-o"]).arg(output);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let done = rustc.output().unwrap_or_else(|error| panic!("run {rustc:?}: {error}"));
    assert!(done.status.success(), "{rustc:?}: {}", String::from_utf8_lossy(&done.stderr));
}
