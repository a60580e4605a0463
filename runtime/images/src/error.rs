//! What can go wrong with images.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name of an image that is none.
    #[error("image {name:?}: {reason}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No image of this name is in the store.
    #[error("image {name}: it is not here (terrarium pull {name}, or terrarium image import FILE)")]
    NotFound {
        /// The name, in full.
        name: String,
    },
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A layer could not be unpacked.
    #[error("unpack {entry:?} of layer {layer}: {reason}")]
    Layer {
        /// The layer's digest, or what it is called.
        layer: String,
        /// The archive's entry.
        entry: String,
        /// Why.
        reason: String,
    },
    /// Something is not what its digest says.
    #[error(
        "{what}: its digest is {found}, not {expected} (it was damaged or changed on its way; try again)"
    )]
    Digest {
        /// What was checked.
        what: String,
        /// Digest of what came.
        found: String,
        /// Digest of what should have come.
        expected: String,
    },
    /// A file that is neither of the known forms, or a broken one.
    #[error("read {what}: {reason}")]
    Malformed {
        /// The file, or the part of it.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry refused, or is not reached.
    #[error("pull {image}: {reason}")]
    Registry {
        /// The image.
        image: String,
        /// What it said, with what to do.
        reason: String,
    },
    /// A container uses what was to be removed.
    #[error("image {name}: container {container} uses it (delete the container first, or --force)")]
    InUse {
        /// The image.
        name: String,
        /// One of the containers.
        container: String,
    },
}

impl Error {
    pub(crate) fn malformed(what: impl Into<String>, reason: impl fmt::Display) -> Self {
        let reason = format!("{reason}");
        Self::Malformed { what: what.into(), reason }
    }
}

/// Says what was tried, on what.
pub(crate) trait Tried<T> {
    fn tried(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Tried<T> for std::result::Result<T, E> {
    fn tried(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|error| Error::File { what, path: path.into(), source: error.into() })
    }
}
