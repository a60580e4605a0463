//! Where the executable begins: see `src/entry.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(own_entry)");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_static = variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|one| one == "crt-static");
    let is_known =
        variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ARCH") == "x86_64";
    // Without optimisation the entry would call the C library, for a copy or a comparison.
    let is_optimised = !matches!(variable("OPT_LEVEL").as_str(), "0" | "1");
    // A dynamic executable has run its loader by then: there is nothing to save.
    if is_static && is_known && is_optimised {
        println!("cargo::rustc-cfg=own_entry");
        println!("cargo::rustc-link-arg-bins=-Wl,--entry=terrarium_entry");
        // What every start executes lies side by side (`cargo xtask bench hot`).
        println!("cargo::rerun-if-changed=hot.ld");
        let folder = variable("CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/hot.ld");
    }
}
