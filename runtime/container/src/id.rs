//! The id of a container: the name of its folder and of its cgroups.

use crate::error::{Error, Result};
use std::fmt;
use std::path::Path;

/// Longest id, in bytes; leaves room for suffixes within a file name's 255.
const MAX_LEN: usize = 200;

/// Folder names below the state root that are not containers.
const RESERVED: [&str; 1] = ["networks"];

/// A checked container id: `[A-Za-z0-9][A-Za-z0-9_.+-]*`, so it cannot leave its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks `id`.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        let bytes = id.as_bytes();
        let reason = if bytes.is_empty() {
            "a name needs at least one character"
        } else if bytes.len() > MAX_LEN {
            "a name has at most 200 characters"
        } else if !bytes[0].is_ascii_alphanumeric() {
            "a name starts with a letter or a digit"
        } else if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(b)) {
            "a name has only letters, digits and _ . + -"
        } else if RESERVED.contains(&id.as_str()) {
            "this name is reserved for terrarium's own files"
        } else {
            return Ok(Self(id));
        };
        Err(Error::invalid("container id", id, reason))
    }

    /// A random id of 12 hexadecimal digits.
    pub fn generate() -> Self {
        Self(random_hex(12))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `digits` random hexadecimal digits.
pub(crate) fn random_hex(digits: usize) -> String {
    let mut bytes = [0_u8; 32];
    // With 32 bytes and an initialised pool, getrandom(2) neither blocks nor returns less.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        bytes[..16].copy_from_slice(&(now ^ u128::from(std::process::id())).to_le_bytes());
    }
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).take(digits).map(hex_digit).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16")
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for ContainerId {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_folder() {
        for good in ["a", "web", "Web-1.2_3+x", "0", &"a".repeat(200)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "a/b", "-a", "_a", "a b", "networks", "ä", "a\n", &"a".repeat(201)]
        {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_ids_differ_and_are_valid() {
        let (a, b) = (ContainerId::generate(), ContainerId::generate());
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), 12);
        assert!(ContainerId::new(a.as_str()).is_ok());
    }
}
