//! The eBPF programs: one file a probe.
//!
//! They are built for the eBPF target by the build script of `terrarium-observatory` and embedded there. On any
//! other target this crate is an empty program, compiled only so that the compiler and clippy check the code.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "nothing calls the programs where they are only checked")
)]
#![expect(
    clippy::inline_always,
    reason = "the verifier of older kernels follows pointers into kernel memory only within one function"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's attributes hand the context over by value"
)]
#![expect(clippy::cast_possible_truncation, reason = "sizes of records fit into 16 bits")]

mod call;
mod cgroup;
mod counters;
mod events;
mod files;
mod guard;
mod kernel;
mod memory;
mod mount;
mod namespace;
mod task;
mod text;
mod usage;
mod watch;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this could be reached.
    loop {}
}

/// The helpers that trace programs need are for GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
