//! Seccomp: an OCI profile becomes a BPF filter, and the filter is loaded.
//!
//! A profile names system calls; the kernel wants a classic BPF program. What is known of libseccomp's
//! output is a chain of comparisons in the order of the rules, which the kernel then walks for every system
//! call number when it prepares its bitmap of always-allowed calls (`seccomp_cache_prepare` in
//! kernel/seccomp.c, Linux 5.11 and later), and for every call that is not in it. Here the numbers are sorted, runs with one
//! answer are merged, and the program is a binary search over them: ten comparisons where a chain has
//! hundreds, and a load that costs a fraction.
//!
//! - [`compile()`] turns a profile into a [`Filter`]; nothing of it touches the kernel.
//! - [`Filter::load`] puts it on the calling thread, and gives the listener where the profile notifies.
//! - [`default_profile`] is what `terrarium run` uses when nobody asked for anything else.

mod arch;
mod assembler;
mod compile;
pub(crate) mod listener;
mod load;
mod profile;

pub use compile::{Filter, compile};
pub use profile::default_profile;

/// What can be wrong with a seccomp profile, or with loading it.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// An argument index beyond the six arguments that a system call has.
    #[error("seccomp rule for {syscall}: argument index {index} is not in 0..=5")]
    ArgumentIndex {
        /// The system call whose rule it is.
        syscall: String,
        /// The index that was given.
        index: usize,
    },
    /// `SCMP_ACT_NOTIFY` where it cannot work.
    #[error("seccomp profile: SCMP_ACT_NOTIFY {reason}")]
    Notify {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An `errnoRet` that does not fit the 16 bits of `SECCOMP_RET_DATA`.
    #[error("seccomp profile: errnoRet {value} is larger than 65535")]
    ErrnoRet {
        /// The value that was given.
        value: u32,
    },
    /// The kernel takes at most 4,096 instructions (`BPF_MAXINSNS`).
    #[error(
        "seccomp profile compiles to {instructions} instructions, and the kernel takes at most 4096 (use fewer rules with arguments)"
    )]
    TooLong {
        /// The length of the compiled program.
        instructions: usize,
    },
    /// The kernel refused the filter.
    #[error("load seccomp filter of {instructions} instructions: {source} ({hint})")]
    Load {
        /// The length of the program.
        instructions: usize,
        /// What the kernel said.
        source: std::io::Error,
        /// What to do about it.
        hint: &'static str,
    },
}
