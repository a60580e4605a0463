//! `state.json` and `journal.json`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrarium_container::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::state(bytes));
