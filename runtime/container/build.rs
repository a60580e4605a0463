//! Builds `reaper/main.rs`, the init of `--init`: a program without any library, which the crate carries as bytes.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "reaper/main.rs";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=build.rs");
    let variable =
        |name: &str| std::env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("terrarium-init");
    if !["x86_64", "aarch64"].contains(&variable("CARGO_CFG_TARGET_ARCH").as_str()) {
        std::fs::write(&output, [])
            .unwrap_or_else(|error| panic!("write {}: {error}", output.display()));
        return;
    }
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "terrarium_init"]);
    rustc.args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"]);
    rustc.args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"]);
    rustc.args([
        "-C", "link-arg=-nostdlib", "-C", "link-arg=-nostartfiles", "-C", "link-arg=-static",
    ]);
    rustc.args(["--target", &variable("TARGET"), source, "-o"]).arg(&output);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let done = rustc.output().unwrap_or_else(|error| panic!("run {rustc:?}: {error}"));
    assert!(done.status.success(), "{rustc:?}: {}", String::from_utf8_lossy(&done.stderr));
}
