//! Taking a container away: after its end, after a failed creation, after a crash. Every step may have been
//! done already; a thing that is missing is a thing removed.

use crate::cgroup;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::layers;
use crate::network;
use crate::signal::SignalNumber;
use crate::state::{State, Status};
use crate::store::{Journal, JournalNetwork, LockedFolder, Store};
use crate::syscall::pidfd_send_signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd;
use std::path::Path;

/// Collects what fails, so that one failure does not keep the other steps from being tried.
#[derive(Default)]
struct Failures(Vec<Error>);

impl Failures {
    fn note(&mut self, result: Result<()>) {
        self.0.extend(result.err());
    }

    fn into_result(self, id: &ContainerId) -> Result<()> {
        let more = self.0.len().saturating_sub(1);
        match self.0.into_iter().next() {
            None => Ok(()),
            Some(first) if more == 0 => Err(first),
            Some(first) => {
                Err(Error::Cleanup { id: id.as_str().to_owned(), first: Box::new(first), more })
            }
        }
    }
}

/// What is known of a container's first process when the container goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Its end was waited for.
    Reaped,
    /// It may live: its state says who it is.
    Unknown,
}

/// Releases what a container uses besides its folder: processes, network, cgroups. Gives the journal that said so.
pub(crate) fn release(
    store: &Store,
    id: &ContainerId,
    folder: &Path,
    first: First,
) -> Result<Journal> {
    let mut failures = Failures::default();
    let journal = Journal::read(folder).unwrap_or_else(|error| {
        failures.note(Err(error));
        Journal::default()
    });
    if first == First::Unknown {
        kill_first_process(folder);
    }
    // Empty ones, the usual case, can be removed at once; the kernel keeps those that hold processes.
    let are_gone = cgroup::remove_empty(&journal.cgroups);
    if !are_gone {
        failures.note(cgroup::kill_all(&journal.cgroups));
    }
    network::userspace::end(folder);
    if let Some(scope) = &journal.scope {
        failures.note(scope.stop());
    }
    if let Some(place) = &journal.network {
        failures.note(release_network(store, id, folder, place));
    }
    if !are_gone {
        failures.note(cgroup::remove(&journal.cgroups));
    }
    cgroup::remove_parents(&journal.cgroup_parents);
    failures.into_result(id)?;
    Ok(journal)
}

/// Releases everything and removes the folder; where something could not be released, the folder stays, for
/// [`gc`] to try again.
pub(crate) fn remove(
    store: &Store,
    id: &ContainerId,
    folder: LockedFolder,
    first: First,
) -> Result<()> {
    remove_writable(&release(store, id, folder.path(), first)?)?;
    folder.remove()
}

/// What the container wrote stays until the container goes: it can be looked at after its end.
fn remove_writable(journal: &Journal) -> Result<()> {
    journal.writable.as_deref().map_or(Ok(()), layers::remove)
}

/// [`remove`] for a container whose end nobody watched: also waits until its network interface is gone.
pub(crate) fn remove_thoroughly(
    store: &Store,
    id: &ContainerId,
    folder: LockedFolder,
) -> Result<()> {
    let journal = release(store, id, folder.path(), First::Unknown)?;
    if let Some(place) = &journal.network {
        network::wait_for_end(&place.veth)?;
    }
    remove_writable(&journal)?;
    folder.remove()
}

/// Gives back its place in a network, and its addresses. Not inlined, like all here that few containers have: what is on the stack of
/// the others' last steps would lie pages deeper.
#[inline(never)]
fn release_network(
    store: &Store,
    id: &ContainerId,
    folder: &Path,
    place: &JournalNetwork,
) -> Result<()> {
    let network = State::read(folder).ok().flatten().and_then(|state| state.network);
    let written = network.iter().flat_map(|network| [&network.address, &network.address6]);
    let addresses: Vec<_> =
        written.flatten().filter_map(|text| text.split('/').next()?.parse().ok()).collect();
    network::release(store, id, place, &addresses)
}

/// Kills the first process, and with it every process of its pid namespace.
#[inline(never)]
fn kill_first_process(folder: &Path) {
    let Ok(Some(state)) = State::read(folder) else { return };
    let Some(pid) = Pid::from_raw(state.pid) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // Only if the pid is still the container's; the descriptor keeps it from being reused now.
    if state.is_alive() {
        // ESRCH: it went by itself.
        let _ = pidfd_send_signal(pidfd.as_fd(), SignalNumber::KILL.number());
    }
}

/// What [`gc`] did.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Containers that were removed.
    pub removed: Vec<String>,
    /// Other things that were removed, in words.
    pub other: Vec<String>,
    /// What could not be removed.
    pub errors: Vec<Error>,
}

/// Removes what crashed runtimes left: containers whose creator or supervisor is gone.
///
/// Containers that have stopped in an orderly way, that run, or that somebody is working on are left alone.
pub fn gc(store: &Store) -> Result<GcReport> {
    let mut report = GcReport::default();
    for id in store.ids()? {
        let folder = match store.try_lock(&id) {
            Ok(Some(folder)) => folder,
            Ok(None) | Err(Error::DoesNotExist { .. }) => continue,
            Err(error) => {
                report.errors.push(error);
                continue;
            }
        };
        let crashed = match State::read(folder.path()) {
            // Creators hold the lock until there is a running container.
            Ok(None) | Err(_) => true,
            Ok(Some(state)) => match state.status {
                Status::Creating => true,
                Status::Stopped => state.remove,
                Status::Created | Status::Running | Status::Paused => {
                    state.supervisor_pid > 0 && !state.is_supervised()
                }
            },
        };
        if !crashed {
            continue;
        }
        match remove_thoroughly(store, &id, folder) {
            Ok(()) => report.removed.push(id.as_str().to_owned()),
            Err(error) => report.errors.push(error),
        }
    }
    let (removed, errors) = network::gc(store);
    report.other.extend(removed);
    report.errors.extend(errors);
    match store.remove_abandoned() {
        Ok(folders) => {
            report.other.extend(folders.iter().map(|path| path.display().to_string()));
        }
        Err(error) => report.errors.push(error),
    }
    Ok(report)
}
