//! Events on disk: the last ones of every container, there also after the container and after the observatory.
//!
//! A log of our own, because what is kept are lines that are only ever appended and read in order: a folder a container,
//! two files in it, `new` and, once that is full, `old`, which the next full one replaces. So every container has its own
//! bound and a noisy one pushes out nobody else's events; a database would need an index and a deletion per event for that.
//! A write is one `write(2)` of whole lines. What a kill leaves half-written is the last line of a file, and the next writer
//! cuts it off; what the kernel has taken it keeps. Once a second is written, so no more than that second is lost; a crash of
//! the machine may lose what the kernel had not written out either.

use super::history::{Event, Filter, History, Reader};
use super::json::{self, Context};
use super::select::Selection;
use nix::unistd::AccessFlags;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What fits into each of the two files of a container, bytes.
const FILE_BYTES: u64 = 256 << 10;

/// Events of one container that are written at a time: about what fits into both files. Those before would be pushed out at
/// once.
const AT_A_TIME: usize = 750;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Folders of containers that nothing was written to for so long are removed.
    pub age: Duration,
    /// The oldest folders are removed beyond so many bytes in all.
    pub bytes: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { age: Duration::from_hours(7 * 24), bytes: 256 << 20 }
    }
}

/// Writes what a history gets.
pub struct Store {
    folder: PathBuf,
    keep: Keep,
    reader: Reader,
    context: Context,
    /// Folders whose last line has been looked at.
    mended: HashSet<PathBuf>,
}

/// Makes the folder of a store, for whoever may read it: root alone.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

impl Store {
    /// A store in `folder`, which is there; an error where this process may not write to it.
    pub fn open(
        folder: &Path,
        keep: Keep,
        history: &Arc<History>,
        context: Context,
    ) -> io::Result<Self> {
        nix::unistd::access(folder, AccessFlags::W_OK | AccessFlags::X_OK)?;
        let reader = history.reader(Filter::default());
        let mended = HashSet::new();
        Ok(Self { folder: folder.to_owned(), keep, reader, context, mended })
    }

    /// Writes what has come since.
    pub fn write(&mut self) -> io::Result<()> {
        let mut by_folder: BTreeMap<PathBuf, Vec<Arc<Event>>> = BTreeMap::new();
        loop {
            // What it missed is told by the stream's own numbers.
            let batch = self.reader.read_quietly(1024);
            if batch.events.is_empty() && self.reader.at_end() {
                break;
            }
            for event in batch.events {
                let events = by_folder.entry(self.folder_of(&event)).or_default();
                events.push(event);
                if events.len() >= 2 * AT_A_TIME {
                    events.drain(..AT_A_TIME);
                }
            }
        }
        let offset = json::wall_offset();
        for (folder, events) in by_folder {
            let mut text = String::new();
            for event in &events[events.len().saturating_sub(AT_A_TIME)..] {
                text += &json::line(event, &self.context, event.number, 0, offset);
                text.push('\n');
            }
            self.append(&folder, &text)?;
        }
        Ok(())
    }

    /// The folder of the container that an event is about.
    fn folder_of(&self, event: &Event) -> PathBuf {
        let name = event.attribution.container.as_ref().map_or("host".to_owned(), |container| {
            let path = container.path.trim_matches('/').replace('%', "%25").replace('/', "%2f");
            // A file's name has 255 bytes; the end of a path is what tells containers apart.
            let start = path.len().saturating_sub(240);
            format!("c-{}", &path[path.ceil_char_boundary(start)..])
        });
        self.folder.join(name)
    }

    fn append(&mut self, folder: &Path, text: &str) -> io::Result<()> {
        if !folder.exists() {
            fs::create_dir(folder)?;
        }
        let path = folder.join("new");
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
        if self.mended.insert(folder.to_owned()) {
            mend(&mut file)?;
        }
        if file.metadata()?.len() + text.len() as u64 > FILE_BYTES {
            fs::rename(&path, folder.join("old"))?;
            file = OpenOptions::new().create(true).append(true).open(&path)?;
        }
        file.write_all(text.as_bytes())
    }

    /// Removes what is too old or too much.
    pub fn expire(&mut self) -> io::Result<()> {
        let mut folders: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let mut newest = SystemTime::UNIX_EPOCH;
            let mut bytes = 0;
            for file in ["old", "new"] {
                if let Ok(metadata) = fs::metadata(entry.path().join(file)) {
                    bytes += metadata.len();
                    newest = newest.max(metadata.modified()?);
                }
            }
            folders.push((newest, bytes, entry.path()));
        }
        folders.sort_unstable_by(|a, b| b.cmp(a));
        let mut total = 0;
        for (newest, bytes, folder) in folders {
            total += bytes;
            let age = SystemTime::now().duration_since(newest).unwrap_or_default();
            if age > self.keep.age || total > self.keep.bytes {
                self.mended.remove(&folder);
                fs::remove_dir_all(&folder)?;
            }
        }
        Ok(())
    }
}

/// Cuts off a last line that was not written to its end.
fn mend(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let tail = length.min(64 << 10);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    if text.last().is_none_or(|&byte| byte == b'\n') {
        return Ok(());
    }
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1);
    file.set_len(length - tail + whole)
}

/// Calls `visit` with the events in `folder` that are chosen, oldest first, numbered anew without gaps. Lines that are
/// not whole are left out.
pub fn read(
    folder: &Path,
    chosen: &Selection,
    visit: &mut dyn FnMut(&str) -> io::Result<()>,
) -> io::Result<()> {
    for (seq, line) in (1_u64..).zip(lines(folder, |line| chosen.wants_line(line))?) {
        visit(&renumbered(&line, seq))?;
    }
    Ok(())
}

/// The events in `folder` that are `wanted`, oldest first. Lines that are not whole are left out.
pub fn lines(
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<impl Iterator<Item = String>> {
    let mut found: Vec<(OffsetDateTime, String)> = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        for name in ["old", "new"] {
            let Ok(file) = File::open(entry.path().join(name)) else { continue };
            for line in BufReader::new(file).lines() {
                let Ok(line) = line else { break };
                let Some(time) = time_of(&line).filter(|_| line.ends_with('}')) else { continue };
                if wanted(&line) {
                    found.push((time, line));
                }
            }
        }
    }
    found.sort_by_key(|(time, _)| *time);
    Ok(found.into_iter().map(|(_, line)| line))
}

fn time_of(line: &str) -> Option<OffsetDateTime> {
    let (time, _) = line.split_once("\"time\":\"")?.1.split_once('"')?;
    OffsetDateTime::parse(time, &Rfc3339).ok()
}

/// A line with another `seq`.
fn renumbered(line: &str, seq: u64) -> String {
    match line.split_once("\"seq\":") {
        Some((before, rest)) => {
            let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}\"seq\":{seq}{after}")
        }
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::select::Query;

    const LINE: &str = r#"{"schema":"terrarium.event/v1","seq":7,"time":"2026-11-23T22:01:02.5Z","type":"process.exit","container":{"id":"1","name":"web"},"cgroup":{"path":"/web"}}"#;

    #[test]
    fn a_torn_file_opens_again_and_loses_its_last_line_only() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let own = folder.path().join("c-web");
        fs::create_dir(&own).expect("make folder");
        for cut in [0, 1, 40, LINE.len()] {
            fs::write(own.join("new"), format!("{LINE}\n{LINE}\n{}", &LINE[..cut])).expect("write");
            let mut lines = Vec::new();
            read(folder.path(), &Selection::default(), &mut |line| {
                lines.push(line.to_owned());
                Ok(())
            })
            .expect("it is read");
            // A whole line without its newline is whole all the same.
            assert_eq!(lines.len(), if cut == LINE.len() { 3 } else { 2 });
            assert!(lines[1].contains("\"seq\":2,"), "{}", lines[1]);
            let mut file =
                OpenOptions::new().append(true).read(true).open(own.join("new")).expect("open");
            mend(&mut file).expect("mend");
            file.write_all(LINE.as_bytes()).expect("append");
            let text = fs::read_to_string(own.join("new")).expect("read");
            assert_eq!(text, format!("{LINE}\n{LINE}\n{LINE}"), "cut at {cut}");
        }
    }

    #[test]
    fn a_container_is_found_by_name_id_or_path_and_one_file_by_time() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(folder.path().join("c-web")).expect("make folder");
        fs::write(folder.path().join("c-web/old"), format!("{LINE}\n")).expect("write");
        for (container, since, expected) in [
            (Some("web"), None, 1),
            (Some("1"), None, 1),
            (Some("we"), None, 0),
            (None, Some("2026-11-23T22:01:02Z"), 1),
            (None, Some("2026-11-24T00:00:00Z"), 0),
        ] {
            let query = Query {
                container: container.map(str::to_owned),
                since: since.map(str::to_owned),
                ..Query::default()
            };
            let mut lines = 0;
            let selection = query.selection().expect("a query");
            read(folder.path(), &selection, &mut |_| {
                lines += 1;
                Ok(())
            })
            .expect("it is read");
            assert_eq!(lines, expected, "{container:?} {since:?}");
        }
    }
}
