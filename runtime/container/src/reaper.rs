//! `--init`: a tiny first process that reaps orphans and passes signals on, for programs that were not made to be pid 1.
//!
//! It is a program of its own (`freestanding/init.rs`, built along), without libraries, so that it runs in any root filesystem,
//! and nothing of the runtime's memory, arguments or environment stays to be read inside. It is executed from memory.

use crate::error::{Error, Result, Tried};
use oci_spec::runtime::Spec;
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

/// The annotation by which a spec asks for it.
pub const ANNOTATION: &str = "io.terrarium.init";

/// The program; empty on architectures that it was not written for.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/terrarium-init"));

/// Whether `spec` asks for it.
pub(crate) fn wanted(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "true")
}

/// A sealed file in memory that holds the program.
pub(crate) fn open() -> Result<OwnedFd> {
    if PROGRAM.is_empty() {
        return Err(Error::unsupported(
            "--init on this processor",
            "terrarium's init exists for x86_64 and aarch64",
        ));
    }
    let name = "terrarium-init";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags).tried("make", name)?);
    file.write_all(PROGRAM).tried("write", name)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).tried("seal", name)?;
    Ok(file.into())
}
