//! The initial file system of a guest: a cpio archive in the "newc" format, compressed by gzip.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

const FOLDER: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;

/// Files by their paths without the leading slash; a folder sorts before what is in it.
#[derive(Default)]
pub struct Archive(BTreeMap<String, (u32, Vec<u8>)>);

impl Archive {
    /// Adds a folder and those above it.
    pub fn folder(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.0.entry(path[..at].to_owned()).or_insert((FOLDER, Vec::new()));
        }
    }

    /// Adds a file and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.0.insert(path.to_owned(), (REGULAR | mode, content.to_vec()));
    }

    /// Adds a copy of a program of this machine.
    pub fn program(&mut self, path: &str, file: &Path) -> Result<()> {
        let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        self.file(path, 0o755, &content);
        Ok(())
    }

    /// Writes it, for the kernel's `-initrd`.
    pub fn write_gzip(&self, file: &Path) -> Result<()> {
        let out = fs::File::create(file).with_context(|| format!("create {}", file.display()))?;
        let mut gzip = GzEncoder::new(std::io::BufWriter::new(out), Compression::fast());
        gzip.write_all(&self.cpio())
            .and_then(|()| gzip.finish()?.flush())
            .with_context(|| format!("write {}", file.display()))
    }

    fn cpio(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, (mode, content))) in (1..).zip(&self.0) {
            entry(&mut out, number, path, *mode, content);
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[]);
        out
    }
}

/// One header (110 bytes of hexadecimal text), the name with its NUL, the content; each padded to 4.
fn entry(out: &mut Vec<u8>, number: u32, path: &str, mode: u32, content: &[u8]) {
    let size = u32::try_from(content.len()).expect("no file of a guest reaches 4 GiB");
    let name_size = u32::try_from(path.len() + 1).expect("no path of a guest reaches 4 GiB");
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
    // namesize, check.
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_first() {
        let mut archive = Archive::default();
        archive.file("a/b/c", 0o755, b"hello");
        let cpio = archive.cpio();
        let text = String::from_utf8_lossy(&cpio);
        let at = |what: &str| text.find(what).expect("the entry is in the archive");
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
        assert_eq!(cpio.len() % 4, 0);
        // Header 110, "a/b/c\0" 6: the content starts on a multiple of four by itself.
        let file = at("a/b/c\0") - 110;
        assert_eq!(&cpio[file..file + 6], b"070701");
        assert_eq!(&text[file + 6 + 8..file + 6 + 16], "000081ed");
        assert_eq!(&text[file + 6 + 48..file + 6 + 56], "00000005");
        assert_eq!(&cpio[file + 116..file + 121], b"hello");
        assert!(text.contains("TRAILER!!!"));
    }
}
