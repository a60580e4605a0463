//! Declares the setting by which the programs learn the architecture that they will run on.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(bpf_target_arch, values(any()))");
    println!("cargo::rerun-if-changed=build.rs");
}
