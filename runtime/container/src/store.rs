//! The state root: a folder for each container, with `state.json`, `config.json` and `journal.json`.
//!
//! The journal is the crash rule: what will be made is written there before it is made, so that whoever comes
//! after a kill -9 knows what to take away. The container's folder appears, with its journal, in one rename;
//! a lock on it (flock(2), which ends with its holder) says that somebody is creating or removing it.

use crate::cgroup::CgroupDriver;
use crate::error::{Error, Result, Tried};
use crate::id::{ContainerId, random_hex};
use crate::state::{self, State, process_stat, write_atomically};
use crate::systemd::Unit;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Prefix of folders that are being filled.
const NEW_PREFIX: &str = ".new-";

/// The container's spec, in its folder.
pub(crate) const CONFIG: &str = "config.json";

/// How long to wait for another process that works on the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The state root.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What a container will leave on the host; written before any of it exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Version of the format: 1.
    pub version: u32,
    /// Folders of its cgroups.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Folders above them that go when they are empty.
    #[serde(default)]
    pub cgroup_parents: Vec<PathBuf>,
    /// The scope that systemd made them for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Unit>,
    /// Its place on a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<JournalNetwork>,
    /// The folder that holds what it writes on top of its image's layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable: Option<PathBuf>,
    /// Those layers, the topmost first: what it takes to make it again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<PathBuf>,
    /// The process that creates it; with its start time, so that a reused pid is told apart.
    #[serde(default)]
    pub creator_pid: i32,
    /// Start time of the creator.
    #[serde(default)]
    pub creator_start_ticks: u64,
}

/// What a container will leave on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalNetwork {
    /// The bridge.
    pub bridge: String,
    /// The host's end of the veth pair.
    pub veth: String,
}

impl Journal {
    const FILE: &'static str = "journal.json";

    /// Who made the container's cgroups.
    pub(crate) fn cgroup_driver(&self) -> CgroupDriver {
        match &self.scope {
            Some(_) => CgroupDriver::Systemd,
            None if self.cgroups.is_empty() => CgroupDriver::Disabled,
            None => CgroupDriver::Cgroupfs,
        }
    }

    /// Writes the journal into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("a journal is plain data");
        write_atomically(&folder.join(Self::FILE), &bytes, 0o600)
    }

    /// Reads the journal in `folder`; an empty one where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|why| Error::Malformed { path, why })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).tried("read", &path),
        }
    }
}

/// A container's folder with the lock on it.
#[derive(Debug)]
pub(crate) struct LockedFolder {
    path: PathBuf,
    lock: Flock<File>,
}

impl LockedFolder {
    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// In a child that has a copy of the descriptor and never returns: closes the copy, which would hold the lock after
    /// the parent was killed (flock(2): it belongs to the open file, and ends when the last copy is closed).
    pub(crate) fn leave_to_parent(&self) {
        // SAFETY: the child does not use the lock, nor drop it.
        unsafe { libc::close(self.lock.as_raw_fd()) };
    }

    /// Removes the folder and what is in it.
    pub(crate) fn remove(self) -> Result<()> {
        // Mostly there is no more in it than these. The journal goes last: it says what else there is of the container.
        for name in [state::FILE, CONFIG, Journal::FILE] {
            let _ = fs::remove_file(self.path.join(name));
        }
        if fs::remove_dir(&self.path).is_err() {
            remove_folder(&self.path)?;
        }
        drop(self.lock);
        Ok(())
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).tried("remove", path),
        _ => Ok(()),
    }
}

impl Store {
    /// Uses the state root `root`, made if it is missing.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).tried("find state folder", root)?;
        // Anybody may look up what is running; each file says for itself who may read it.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&root).tried_hint(
            "create state folder",
            &root,
            "run as root, or choose a folder of your own with --root",
        )?;
        let own = rustix::process::geteuid();
        let owner = fs::metadata(&root).tried("stat", &root)?.uid();
        if !own.is_root() && owner != own.as_raw() {
            // Whoever it belongs to could have it name anything.
            return Err(Error::NotYours { path: root, owner });
        }
        Ok(Self { root })
    }

    /// The state root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of container `id`.
    pub fn folder(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id)
    }

    /// The states of all containers, by id. Folders without a state yet are left out, broken ones reported.
    pub fn containers(&self) -> Result<(Vec<State>, Vec<Error>)> {
        let (mut states, mut errors) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match State::read(&self.folder(&id)) {
                Ok(state) => states.extend(state),
                Err(error) => errors.push(error),
            }
        }
        Ok((states, errors))
    }

    /// The ids of all folders that look like containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root).tried("read", &self.root)? {
            let entry = entry.tried("read", &self.root)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Some(name) = entry.file_name().to_str()
                && let Ok(id) = ContainerId::new(name)
            {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// The state of container `id`.
    pub fn state(&self, id: &ContainerId) -> Result<State> {
        State::read(&self.folder(id))?
            .ok_or_else(|| Error::DoesNotExist { id: id.as_str().to_owned() })
    }

    /// Takes `id`: its folder appears with `journal` and `files` in it, locked.
    pub(crate) fn reserve(
        &self,
        id: &ContainerId,
        journal: &Journal,
        files: &[(&str, &[u8])],
    ) -> Result<LockedFolder> {
        let path = self.folder(id);
        if path.exists() {
            return Err(self.name_in_use(id));
        }
        let new = self.root.join(format!("{NEW_PREFIX}{}-{}", std::process::id(), random_hex(16)));
        fs::DirBuilder::new().mode(0o711).create(&new).tried("create", &new)?;
        let fill = || {
            let lock = lock(&new)?.ok_or(ErrorKind::WouldBlock).map_err(std::io::Error::from);
            let lock = lock.tried("lock", &new)?;
            let bytes = serde_json::to_vec(journal).expect("a journal is plain data");
            write_new(&new.join(Journal::FILE), &bytes)?;
            for (name, bytes) in files {
                write_new(&new.join(name), bytes)?;
            }
            Ok(lock)
        };
        let lock = match fill() {
            Ok(lock) => lock,
            Err(error) => {
                let _ = remove_folder(&new);
                return Err(error);
            }
        };
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &path, flags) {
            Ok(()) => Ok(LockedFolder { path, lock }),
            Err(error) => {
                let _ = remove_folder(&new);
                match error {
                    rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY => {
                        Err(self.name_in_use(id))
                    }
                    error => Err(error).tried("create", &path),
                }
            }
        }
    }

    fn name_in_use(&self, id: &ContainerId) -> Error {
        let state = State::read(&self.folder(id)).ok().flatten();
        let status = state.map_or("being created", |state| state.observed_status().as_str());
        Error::NameInUse { id: id.as_str().to_owned(), status }
    }

    /// Locks container `id`, waiting a while for who has it.
    pub(crate) fn lock(&self, id: &ContainerId) -> Result<LockedFolder> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match self.try_lock(id)? {
                Some(folder) => return Ok(folder),
                None if Instant::now() > deadline => {
                    return Err(Error::Busy { id: id.as_str().to_owned() });
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Locks container `id` if nobody has it.
    pub(crate) fn try_lock(&self, id: &ContainerId) -> Result<Option<LockedFolder>> {
        let path = self.folder(id);
        let gone = || Error::DoesNotExist { id: id.as_str().to_owned() };
        let lock = match lock(&path) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(None),
            Err(Error::System { why, .. }) if why.kind() == ErrorKind::NotFound => {
                return Err(gone());
            }
            Err(error) => return Err(error),
        };
        // Between open and flock the folder may have been removed, and even made anew.
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        match (fs::metadata(&path).map(inode), lock.metadata().map(inode)) {
            (Ok(now), Ok(locked)) if now == locked => Ok(Some(LockedFolder { path, lock })),
            (Err(_), _) => Err(gone()),
            _ => Ok(None),
        }
    }

    /// Removes half-filled folders of creators that died.
    pub(crate) fn remove_abandoned(&self) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.root).tried("read", &self.root)?.flatten() {
            let path = entry.path();
            let is_new = entry.file_name().to_str().is_some_and(|n| n.starts_with(NEW_PREFIX));
            if !is_new {
                continue;
            }
            // A creator takes the lock right after mkdir; a folder older than that without lock is abandoned.
            let old = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > Duration::from_secs(1)));
            // One whose creator is gone need not grow old.
            if (old || creator_is_gone(&path))
                && let Ok(Some(_lock)) = lock(&path)
            {
                remove_folder(&path)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }
}

/// Whether the process that the name of a half-filled folder tells of does not exist.
fn creator_is_gone(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let pid = name.strip_prefix(NEW_PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
    pid.is_some_and(|pid: i32| process_stat(pid).is_none())
}

/// A shared folder (of a network, of a host setting), made if missing, with the lock on it; waits for the lock.
pub(crate) fn lock_shared(path: &Path) -> Result<LockedFolder> {
    loop {
        match fs::DirBuilder::new().recursive(true).mode(0o711).create(path) {
            // Another last user removed the folder above just now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            result => result.tried("create", path)?,
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            result => result.tried("open", path)?,
        };
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .tried("lock", path)?;
        // Its last user removes it under the lock: then the name stands for another folder, or for none.
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let locked = lock.metadata().tried("stat", path)?;
        if fs::metadata(path).is_ok_and(|now| inode(now) == inode(locked)) {
            return Ok(LockedFolder { path: path.to_owned(), lock });
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        // The environment in config.json may hold secrets.
        .mode(0o600)
        .open(path)
        .tried("create", path)?;
    file.write_all(bytes).tried("write", path)
}

/// Locks the folder `path`; none where somebody else has it.
fn lock(path: &Path) -> Result<Option<Flock<File>>> {
    let file = File::open(path).tried("open", path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).tried("lock", path),
    }
}

/// Writes a file of the container's folder that the container's processes may read.
pub(crate) fn write_public(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    write_atomically(&path, text.as_bytes(), 0o644)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("root")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_name_is_taken_once() {
        let (_guard, store) = store();
        let id = ContainerId::new("a").unwrap();
        let journal = Journal { version: 1, cgroups: vec!["/c/a".into()], ..Journal::default() };
        let folder = store.reserve(&id, &journal, &[(CONFIG, b"{}")]).unwrap();
        assert_eq!(Journal::read(folder.path()).unwrap(), journal);
        assert!(matches!(
            store.reserve(&id, &journal, &[]),
            Err(Error::NameInUse { status: "being created", .. })
        ));
        assert!(store.try_lock(&id).unwrap().is_none(), "its creator has the lock");
        assert_eq!(store.ids().unwrap(), std::slice::from_ref(&id));
        folder.remove().unwrap();
        assert!(matches!(store.try_lock(&id), Err(Error::DoesNotExist { .. })));
        assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
    }

    #[test]
    fn of_many_creators_one_wins() {
        let (_guard, store) = store();
        let id = ContainerId::new("a").unwrap();
        let won = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| store.reserve(&id, &Journal::default(), &[]).ok()))
                .collect();
            threads.into_iter().filter_map(|t| t.join().unwrap()).count()
        });
        assert_eq!(won, 1);
        assert_eq!(fs::read_dir(store.root()).unwrap().count(), 1);
    }

    #[test]
    fn folders_of_other_kinds_are_no_containers() {
        let (_guard, store) = store();
        for name in ["networks", ".new-1", "a"] {
            fs::create_dir(store.root().join(name)).unwrap();
        }
        fs::write(store.root().join("file"), "").unwrap();
        assert_eq!(store.ids().unwrap(), [ContainerId::new("a").unwrap()]);
        let (states, errors) = store.containers().unwrap();
        assert!(states.is_empty() && errors.is_empty());
        assert!(store.remove_abandoned().unwrap().is_empty(), "it is too young");
    }
}
