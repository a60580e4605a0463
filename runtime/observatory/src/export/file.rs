//! JSON lines in a file that is replaced when it is full, or on stdout.

use super::Sink;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file.
pub struct EventsFile {
    /// None for stdout.
    path: Option<PathBuf>,
    file: Option<File>,
    max_bytes: u64,
}

impl EventsFile {
    /// The file at `path`, `-` for stdout. One that has reached `max_bytes` is renamed to `<path>.1`, whose former contents
    /// go.
    pub fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { path: None, file: None, max_bytes });
        }
        let file = append_to(path)?;
        Ok(Self { path: Some(path.to_owned()), file: Some(file), max_bytes })
    }
}

/// Events tell of what people run: nobody else may read them.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Sink for EventsFile {
    fn take(&mut self, lines: &[String]) -> io::Result<()> {
        let text = lines.join("\n") + "\n";
        let Some(path) = &self.path else {
            let mut out = io::stdout().lock();
            return out.write_all(text.as_bytes()).and_then(|()| out.flush());
        };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => append_to(path)?,
        };
        let length = file.metadata()?.len();
        if length > 0 && length + text.len() as u64 > self.max_bytes {
            let mut older = path.clone().into_os_string();
            older.push(".1");
            fs::rename(path, older)?;
            file = append_to(path)?;
        }
        file.write_all(text.as_bytes())?;
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room_and_no_line_is_split() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("events");
        let mut file = EventsFile::open(&path, 30).expect("open");
        for n in 0..5 {
            file.take(&[format!("line number {n}")]).expect("write");
        }
        let read = |path: &Path| fs::read_to_string(path).expect("read");
        assert_eq!(read(&path), "line number 4\n");
        assert_eq!(read(&folder.path().join("events.1")), "line number 2\nline number 3\n");
    }
}
