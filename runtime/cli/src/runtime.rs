//! The program `terrarium-runtime`: see the library.
//!
//! The C library calls `main` itself. Rust's own would read `/proc/self/maps` first and set up a second stack, to have a word for an
//! overflow of the first: seventeen system calls for each command of an engine.

#![no_main]

use std::ffi::{c_char, c_int};

// SAFETY: no other `main` is linked into a program that has none of Rust's.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    terrarium_cli::runtime_alone()
}
