//! Lease files: names and contents, each ended by a NUL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tempfile::TempDir;
use terrarium_container::fuzzing;

static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("the folder for temporary files is writable"));

fuzz_target!(|bytes: &[u8]| fuzzing::leases(bytes, FOLDER.path()));
