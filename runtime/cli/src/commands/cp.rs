//! `terrarium cp`: files between the host and a running container, as `docker cp` copies them.
//!
//! What reads or writes in the container is a child with the container's root ([`Root::run`]); between it and the host's
//! side goes a tar archive, of which the host takes nothing that leads out of the target's folder.

use crate::Global;
use crate::exit::WithCode;
use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use terrarium_container::Store;
use terrarium_container::inside::{Direction, Found, Root};

/// Copy files between the host and a running container.
///
/// A folder is copied with all that is in it, links as links; pipes, sockets and devices are left out. What lies at the target already is written over. A source
/// that ends with `/.` means what is in the folder. `-` is a tar archive on standard input or output.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  terrarium cp web:/etc/nginx .\n  terrarium cp site/. web:/srv\n  terrarium cp web:/var/log - | tar t"
)]
pub struct Args {
    /// Keep user and group ids; without it, files belong to whoever copies, or to the container's root
    #[arg(long, short)]
    archive: bool,
    /// CONTAINER:PATH, a path of the host, or -
    source: String,
    /// CONTAINER:PATH, a path of the host, or -
    target: String,
}

/// Where files are.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Container(&'a str, PathBuf),
    Host(&'a str),
    Stream,
}

impl<'a> Place<'a> {
    /// `NAME:PATH` is in a container, unless it begins like a path.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Place::Stream,
            Some((name, path))
                if !name.is_empty() && !name.contains('/') && !text.starts_with('.') =>
            {
                // Relative paths begin at the root, as there is no other place to begin at.
                Place::Container(name, Path::new("/").join(path))
            }
            _ => Place::Host(text),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let root = |name: &str| -> anyhow::Result<Root> {
        Ok(Root::of(&store, &super::named(&store, name)?)?)
    };
    let tried = || format!("copy {} to {}", args.source, args.target);
    match (Place::parse(&args.source), Place::parse(&args.target)) {
        (Place::Container(name, path), Place::Host(target)) => {
            from_container(&root(name)?, &path, &args.source, target, args.archive)
                .with_context(tried)?;
        }
        (Place::Container(name, path), Place::Stream) => {
            let root = root(name)?;
            if root.find(&path)?.is_none() {
                return Err(missing(&args.source)).with_context(tried);
            }
            let top = name_of(&path).map_or_else(|| PathBuf::from("."), PathBuf::from);
            let (child, mut archive) =
                root.run(Direction::Out, move |out| pack(&path, &top, out, Specials::Kept))?;
            let written = io::copy(&mut archive, &mut io::stdout().lock());
            drop(archive);
            child.finish().and(written).with_context(tried)?;
        }
        (Place::Host(source), Place::Container(name, path)) => {
            into_container(&root(name)?, source, &path, &args.target, args.archive)
                .with_context(tried)?;
        }
        (Place::Stream, Place::Container(name, path)) => {
            let root = root(name)?;
            if root.find(&path)? != Some(Found::Folder) {
                return Err(anyhow::anyhow!(
                    "{}: it is no folder, and an archive needs one",
                    args.target
                ))
                .with_context(tried);
            }
            let keep = args.archive;
            let (child, mut archive) =
                root.run(Direction::In, move |input| unpack(input, &path, keep))?;
            let written = io::copy(&mut io::stdin().lock(), &mut archive);
            drop(archive);
            // What the child says is the reason why nobody reads.
            child.finish().and(written).with_context(tried)?;
        }
        _ => {
            let error = anyhow::anyhow!(
                "cp: one of the two must be in a container, and the other not (CONTAINER:PATH; ./a:b is a path of the host)"
            );
            return Err(WithCode::error(2, error));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn missing(text: &str) -> anyhow::Error {
    anyhow::anyhow!("{text}: there is no such file")
}

fn from_container(
    root: &Root,
    path: &Path,
    source: &str,
    target: &str,
    keep: bool,
) -> anyhow::Result<()> {
    let Some(kind) = root.find(path)? else { return Err(missing(source)) };
    let find = |path: &Path| {
        Ok(fs::metadata(path)
            .ok()
            .map(|meta| if meta.is_dir() { Found::Folder } else { Found::File }))
    };
    let (folder, top) = aim(Path::new(target), target, path, source, kind, find)?;
    let from = path.to_owned();
    let (child, archive) =
        root.run(Direction::Out, move |out| pack(&from, &top, out, Specials::LeftOut))?;
    let unpacked = unpack(archive, &folder, keep);
    child.finish().and(unpacked)?;
    Ok(())
}

fn into_container(
    root: &Root,
    source: &str,
    path: &Path,
    target: &str,
    keep: bool,
) -> anyhow::Result<()> {
    let from = Path::new(source);
    let kind = match fs::symlink_metadata(from) {
        Ok(meta) if meta.is_dir() => Found::Folder,
        // A link to a folder is one where its text says so.
        Ok(_) if source.ends_with('/') || source.ends_with("/.") => Found::Folder,
        Ok(_) => Found::File,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(source)),
        Err(error) => return Err(error.into()),
    };
    let (folder, top) = aim(path, target, from, source, kind, |path| Ok(root.find(path)?))?;
    let (child, archive) = root.run(Direction::In, move |input| unpack(input, &folder, keep))?;
    let packed = pack(from, &top, archive, Specials::LeftOut);
    child.finish().and(packed)?;
    Ok(())
}

/// The folder into which something is unpacked, and the name that it has there; `.` for what is in it.
fn aim(
    target: &Path,
    target_text: &str,
    source: &Path,
    source_text: &str,
    kind: Found,
    find: impl Fn(&Path) -> anyhow::Result<Option<Found>>,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let contents = kind == Found::Folder && source_text.ends_with("/.");
    match find(target)? {
        Some(Found::Folder) => {
            let name = name_of(source).filter(|_| !contents);
            return Ok((target.to_owned(), name.map_or_else(|| PathBuf::from("."), PathBuf::from)));
        }
        Some(Found::File) if kind == Found::Folder => {
            bail!("{target_text}: it is a file, and a folder cannot take its place")
        }
        None if kind == Found::File && target_text.ends_with('/') => {
            bail!("{target_text}: there is no such folder (make it, or leave out the / at the end)")
        }
        _ => {}
    }
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let Some(name) = name_of(target) else { bail!("{target_text}: there is no such folder") };
    if find(&folder)? != Some(Found::Folder) {
        bail!("{target_text}: there is no folder {} (make it first)", folder.display());
    }
    Ok((folder, PathBuf::from(name)))
}

/// The last part of a path, unless that is none of its own.
fn name_of(path: &Path) -> Option<&OsStr> {
    match path.components().next_back() {
        Some(Component::Normal(name)) => Some(name),
        _ => None,
    }
}

/// What becomes of pipes and devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Specials {
    Kept,
    LeftOut,
}

/// Writes what is at `source` as a tar archive, under the name `top`.
fn pack(source: &Path, top: &Path, out: File, specials: Specials) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 17, out));
    archive.follow_symlinks(false);
    // A name that ends with a slash means what a link leads to.
    let text = source.as_os_str().as_encoded_bytes();
    let meta = if text.ends_with(b"/") || text.ends_with(b"/.") {
        fs::metadata(source)?
    } else {
        fs::symlink_metadata(source)?
    };
    if meta.is_dir() {
        pack_folder(&mut archive, source, top, specials)?;
    } else {
        pack_one(&mut archive, source, top, meta.file_type(), specials)?;
    }
    archive.into_inner()?.flush()
}

fn pack_folder(
    archive: &mut tar::Builder<impl Write>,
    folder: &Path,
    name: &Path,
    specials: Specials,
) -> io::Result<()> {
    if name != Path::new(".") {
        archive.append_dir(name, folder)?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            pack_folder(archive, &path, &name, specials)?;
        } else {
            pack_one(archive, &path, &name, kind, specials)?;
        }
    }
    Ok(())
}

fn pack_one(
    archive: &mut tar::Builder<impl Write>,
    path: &Path,
    name: &Path,
    kind: fs::FileType,
    specials: Specials,
) -> io::Result<()> {
    if kind.is_file() {
        // What has taken its place meanwhile is neither followed nor waited for.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        return archive.append_file(name, &mut file);
    }
    let meta = fs::symlink_metadata(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&meta);
    header.set_size(0);
    if kind.is_symlink() {
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    // A socket is nothing without who listens on it.
    if kind.is_socket() || specials == Specials::LeftOut {
        return Ok(());
    }
    if kind.is_block_device() || kind.is_char_device() {
        header.set_device_major(libc::major(meta.rdev()))?;
        header.set_device_minor(libc::minor(meta.rdev()))?;
    }
    archive.append_data(&mut header, name, io::empty())
}

/// Unpacks a tar archive into `folder`; the archive's paths do not lead out of it.
fn unpack(input: impl Read, folder: &Path, keep_ids: bool) -> io::Result<()> {
    let mut input = BufReader::with_capacity(1 << 17, input);
    let mut archive = tar::Archive::new(&mut input);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(keep_ids);
    archive.set_overwrite(true);
    archive.unpack(folder)?;
    // The padding at the end, so that whoever writes does not find nobody there.
    io::copy(&mut input, &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_paths_of_the_host_are_told_apart() {
        assert_eq!(Place::parse("web:/etc"), Place::Container("web", "/etc".into()));
        assert_eq!(Place::parse("web:etc"), Place::Container("web", "/etc".into()));
        for host in ["/a:b", "./web:/etc", "plain", ":x", "a/b:c"] {
            assert_eq!(Place::parse(host), Place::Host(host));
        }
        assert_eq!(Place::parse("-"), Place::Stream);
    }

    #[test]
    fn the_target_is_what_docker_makes_of_it() {
        let find = |path: &Path| {
            Ok(match path.to_str() {
                Some("/there" | "/" | ".") => Some(Found::Folder),
                Some("/there/file") => Some(Found::File),
                _ => None,
            })
        };
        let aim = |target: &str, source: &str, kind| {
            let to = aim(Path::new(target), target, Path::new(source), source, kind, find);
            to.map(|(folder, name)| format!("{} {}", folder.display(), name.display())).ok()
        };
        let (file, folder) = (Found::File, Found::Folder);
        for (target, source, kind, expected) in [
            ("/there", "/a/b", file, Some("/there b")),
            ("/there", "/a/b", folder, Some("/there b")),
            ("/there", "/a/b/.", folder, Some("/there .")),
            ("/there", "/", folder, Some("/there .")),
            ("/there/new", "/a/b", folder, Some("/there new")),
            ("/there/new", "/a/b/.", folder, Some("/there new")),
            ("/there/new", "/a/b", file, Some("/there new")),
            ("/there/file", "/a/b", file, Some("/there file")),
            ("/there/file", "/a/b", folder, None),
            ("/there/new/", "/a/b", file, None),
            ("/there/new/", "/a/b", folder, Some("/there new")),
            ("/gone/new", "/a/b", file, None),
            ("new", "/a/b", file, Some(". new")),
        ] {
            assert_eq!(aim(target, source, kind).as_deref(), expected, "{source} to {target}");
        }
    }
}
