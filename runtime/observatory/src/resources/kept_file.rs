//! A file of a cgroup that is read again and again: opened once, read from its start each time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many files may be kept open, shared by all of them. Files beyond are opened for each reading.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// Room for `files`.
    pub fn new(files: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(files) })
    }

    /// Four fifths of the descriptors that this process may have, after raising that to what it may raise it to.
    pub fn of_this_process() -> Arc<Self> {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(512, |(soft, hard)| {
            let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
            usize::try_from(if raised { hard } else { soft } / 5 * 4).unwrap_or(usize::MAX)
        });
        Self::new(files)
    }

    fn take(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// A file that may be kept open.
#[derive(Debug)]
pub struct KeptFile {
    /// Shared by the files of one cgroup.
    folder: Arc<Path>,
    name: &'static str,
    budget: Arc<Budget>,
    file: Option<File>,
    /// It could not be opened; a kernel without it does not get it later.
    absent: bool,
    /// It is read too seldom to be kept open.
    seldom: bool,
}

impl KeptFile {
    /// The file of this name in a folder, not opened yet.
    pub fn new(folder: &Arc<Path>, name: &'static str, budget: &Arc<Budget>) -> Self {
        let (folder, budget) = (Arc::clone(folder), Arc::clone(budget));
        Self { folder, name, budget, file: None, absent: false, seldom: false }
    }

    /// The same, opened for each reading: an open file of a cgroup takes 4 KiB of the kernel's memory.
    #[must_use]
    pub fn seldom(mut self, seldom: bool) -> Self {
        self.seldom = seldom;
        self
    }

    /// Its text, in `buffer`; none when there is no such file (any more).
    pub fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        if self.absent {
            return None;
        }
        if let Some(file) = &self.file {
            if let Ok(length) = read_all(file, buffer) {
                return std::str::from_utf8(&buffer[..length]).ok();
            }
            // The cgroup is gone (ENODEV).
            self.close();
        }
        let Ok(file) = File::open(self.folder.join(self.name)) else {
            self.absent = true;
            return None;
        };
        let Ok(length) = read_all(&file, buffer) else {
            self.absent = true;
            return None;
        };
        if !self.seldom && self.budget.take() {
            self.file = Some(file);
        }
        std::str::from_utf8(&buffer[..length]).ok()
    }

    /// The same, for a file that may come again after it has gone.
    pub fn read_again<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        self.absent = false;
        self.read(buffer)
    }

    fn close(&mut self) {
        if self.file.take().is_some() {
            self.budget.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads a file from its start into `buffer`, which grows as needed. A kernel file that fits is told by one call: it
/// gives less than there is room for.
fn read_all(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    if buffer.len() < 8192 {
        buffer.resize(8192, 0);
    }
    let mut length = 0;
    loop {
        let read = file.read_at(&mut buffer[length..], length as u64)?;
        length += read;
        // Files of one value end with their first piece; only one that filled a page can have more.
        if read == 0 || length % 4096 != 0 && length < buffer.len() {
            return Ok(length);
        }
        if length == buffer.len() {
            buffer.resize(2 * length, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_the_file_holds_now() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("value");
        let folder = Arc::from(folder.path());
        let budget = Budget::new(1);
        let mut kept = KeptFile::new(&folder, "value", &budget);
        let mut other = KeptFile::new(&folder, "value", &budget);
        let mut buffer = Vec::new();
        for text in ["1\n", "22\n", &"x".repeat(20_000)] {
            std::fs::write(&path, text).expect("write file");
            assert_eq!(kept.read(&mut buffer), Some(text));
            assert_eq!(other.read(&mut buffer), Some(text), "beyond the budget");
        }
        assert_eq!(budget.left.load(Ordering::Relaxed), 0);
        drop(kept);
        assert_eq!(budget.left.load(Ordering::Relaxed), 1);
        let mut missing = KeptFile::new(&folder, "missing", &budget);
        assert_eq!(missing.read(&mut buffer), None);
    }
}
