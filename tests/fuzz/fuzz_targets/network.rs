//! `network.json`, and the file of a container's published ports.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrarium_container::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::network(bytes));
