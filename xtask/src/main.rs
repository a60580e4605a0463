//! `cargo xtask`: set-up, build, demo, test, kernels, lint.
fn main() {}
