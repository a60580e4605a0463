//! Files of an archive, or of a folder, by their names: where OCI layouts and docker-archives keep their parts.

use crate::error::{Error, Result, Tried};
use crate::layer::decompress;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// More than this of a JSON file is not read.
const MAX_JSON: u64 = 16 << 20;

/// Where the parts of an image lie.
pub(crate) enum Parts {
    /// In a folder.
    Folder(PathBuf),
    /// In an uncompressed tar archive, at these places.
    Archive {
        file: PathBuf,
        /// Keeps what was decompressed, or read from standard input.
        _copy: Option<tempfile::TempPath>,
        entries: HashMap<PathBuf, Place>,
    },
}

/// Where a file lies in an archive.
#[derive(Clone)]
pub(crate) enum Place {
    At {
        offset: u64,
        size: u64,
    },
    /// The same as another file: old docker-archives share layers by symlinks.
    Link(PathBuf),
}

impl Parts {
    /// Opens the folder or archive `path`; `-` is standard input. `scratch` takes what has to be copied.
    pub(crate) fn open(path: &Path, scratch: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let input: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).tried("open", path)?)
        };
        let is_plain = path != Path::new("-") && is_tar(path)?;
        let (file, copy) = if is_plain {
            (path.to_owned(), None)
        } else {
            let mut plain = decompress(input).tried("read", path)?;
            let mut copy = tempfile::NamedTempFile::new_in(scratch).tried("create in", scratch)?;
            io::copy(&mut plain, &mut copy).tried("decompress", path)?;
            (copy.path().to_owned(), Some(copy.into_temp_path()))
        };
        let entries = index(&file).map_err(|error| {
            Error::malformed(path.display().to_string(), format!("as a tar archive: {error}"))
        })?;
        Ok(Self::Archive { file, _copy: copy, entries })
    }

    /// Whether there is a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Archive { entries, .. } => entries.contains_key(Path::new(name)),
        }
    }

    /// The whole archive, where it is one.
    pub(crate) fn whole(&self) -> Option<&Path> {
        match self {
            Self::Folder(_) => None,
            Self::Archive { file, .. } => Some(file),
        }
    }

    /// Opens one file.
    pub(crate) fn read(&self, name: &str) -> Result<Box<dyn Read>> {
        let missing = || Error::malformed(name, "the image lacks this file");
        let wanted = clean(Path::new(name)).ok_or_else(missing)?;
        match self {
            Self::Folder(folder) => {
                let path = folder.join(wanted);
                Ok(Box::new(File::open(&path).tried("open", path)?))
            }
            Self::Archive { file, entries, .. } => {
                let mut place = entries.get(&wanted).ok_or_else(missing)?;
                // A link to a link is not followed further than this: archives could make them circular.
                for _ in 0..8 {
                    match place {
                        Place::At { offset, size } => {
                            let mut open = File::open(file).tried("open", file)?;
                            open.seek(SeekFrom::Start(*offset)).tried("seek in", file)?;
                            return Ok(Box::new(open.take(*size)));
                        }
                        Place::Link(target) => place = entries.get(target).ok_or_else(missing)?,
                    }
                }
                Err(missing())
            }
        }
    }

    /// The bytes of a file that is small in honest images.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read(name)?.take(MAX_JSON + 1).read_to_end(&mut bytes).tried("read", name)?;
        if bytes.len() as u64 > MAX_JSON {
            return Err(Error::malformed(name, "it is larger than 16 MiB"));
        }
        Ok(bytes)
    }
}

/// A relative path without `.` and leading slashes; `None` where it has `..`.
fn clean(path: &Path) -> Option<PathBuf> {
    path.components()
        .filter(|component| !matches!(component, Component::CurDir | Component::RootDir))
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// Whether the file is a tar archive that is not compressed.
fn is_tar(path: &Path) -> Result<bool> {
    let mut start = [0; 512];
    let mut file = File::open(path).tried("open", path)?;
    let mut have = 0;
    while have < start.len() {
        match file.read(&mut start[have..]).tried("read", path)? {
            0 => break,
            n => have += n,
        }
    }
    // POSIX and GNU archives alike have it there.
    Ok(start[257..262] == *b"ustar")
}

/// Where each file of the archive lies.
fn index(path: &Path) -> io::Result<HashMap<PathBuf, Place>> {
    let mut entries = HashMap::new();
    let mut archive = tar::Archive::new(File::open(path)?);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let Some(name) = clean(Path::new(OsStr::from_bytes(&entry.path_bytes()))) else { continue };
        let place = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                Place::At { offset: entry.raw_file_position(), size: entry.size() }
            }
            kind @ (EntryType::Symlink | EntryType::Link) => {
                let Some(target) = entry.link_name_bytes() else { continue };
                let target = Path::new(OsStr::from_bytes(&target)).to_owned();
                let folder = name.parent().unwrap_or(Path::new(""));
                let whole = if kind == EntryType::Symlink { folder.join(target) } else { target };
                Place::Link(without_parents(&whole))
            }
            _ => continue,
        };
        entries.insert(name, place);
    }
    Ok(entries)
}

/// `a/../b` as `b`: links inside an archive are names, not places in a file system.
fn without_parents(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}
