//! `config.json`, and the argument of `update --resources`: all that happens before the first thing is made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tempfile::TempDir;
use terrarium_container::fuzzing;

static BUNDLE: LazyLock<TempDir> = LazyLock::new(|| {
    let bundle = tempfile::tempdir().expect("the folder for temporary files is writable");
    std::fs::create_dir(bundle.path().join("rootfs")).expect("it is new");
    bundle
});

fuzz_target!(|bytes: &[u8]| {
    fuzzing::config(bytes, BUNDLE.path());
    fuzzing::resources(bytes);
});
