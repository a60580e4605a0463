//! Options, annotations, /etc/subuid, hosts files, environment files: lines of text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrarium_container::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::text(bytes));
