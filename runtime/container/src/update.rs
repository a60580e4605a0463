//! `update`: new limits for a container that exists.

use crate::cgroup::{self, CgroupDriver, Cgroups};
use crate::container::{plan_cgroups, stored_spec};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::state::{State, Status, write_atomically};
use crate::store::{CONFIG, Journal, Store};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use serde_json::Value;

/// Gives container `id` the limits of `new`; what `new` does not name stays as it is.
///
/// All of them are set, or none.
pub fn update(store: &Store, id: &ContainerId, new: &LinuxResources) -> Result<()> {
    let folder = store.lock(id)?;
    let does_not_exist = || Error::DoesNotExist { id: id.as_str().to_owned() };
    let mut state = State::read(folder.path())?.ok_or_else(does_not_exist)?;
    let status = state.observed_status();
    if matches!(status, Status::Creating | Status::Stopped) {
        return Err(Error::WrongStatus {
            tried: "update",
            id: state.id,
            status: status.as_str(),
            wanted: "running",
        });
    }
    let mut new = new.clone();
    // Device rules are a matter of creation: engines send them along, and runc ignores them here as well.
    new.set_devices(None);
    let mut spec = stored_spec(folder.path())?;
    let linux = spec.linux().clone().unwrap_or_default();
    let old = linux.resources().clone().unwrap_or_default();
    let mut journal = Journal::read(folder.path())?;
    let driver = journal.cgroup_driver();
    let cgroups = plan_cgroups(driver, &spec, id, Some(&new))?;
    if driver == CgroupDriver::Disabled {
        return Err(Error::unsupported(
            "updating a container without cgroups",
            "create it without --cgroup-manager disabled",
        ));
    }

    // Hierarchies that the container had no need of until now.
    let added = cgroups.missing(&journal.cgroups);
    if !added.is_empty() {
        journal.cgroup_parents.extend(added.parents());
        journal.cgroups.extend(added.folders());
        journal.write(folder.path())?;
        let pids = cgroup::processes(&journal.cgroups[0]);
        state.cgroups.extend(added.make(None)?);
        if let Err(error) = cgroups.apply(&new) {
            let _ = cgroup::remove(&added.folders());
            return Err(restored(&cgroups, &old, &new, error));
        }
        added.adopt(&pids)?;
        state.write(folder.path())?;
    } else if let Err(error) = cgroups.apply(&new) {
        return Err(restored(&cgroups, &old, &new, error));
    }

    let merged = merge(&old, &new)?;
    let mut linux = linux;
    linux.set_resources(Some(merged));
    spec.set_linux(Some(linux));
    let config = serde_json::to_vec(&spec).expect("a spec has no map with non-string keys");
    write_atomically(&folder.path().join(CONFIG), &config, 0o600)
}

/// Sets what was set before, and gives back why that is.
fn restored(cgroups: &Cgroups, old: &LinuxResources, new: &LinuxResources, error: Error) -> Error {
    // What had no limit and has none now is as it was.
    let _ = cgroups.apply(&before(old, new));
    error
}

/// For each limit of `new` the value that `old` has, or none.
fn before(old: &LinuxResources, new: &LinuxResources) -> LinuxResources {
    let mut before = LinuxResources::default();
    if let Some(memory) = new.memory() {
        let had = old.memory().unwrap_or_default();
        let mut values = LinuxMemory::default();
        values
            .set_limit(memory.limit().map(|_| had.limit().unwrap_or(-1)))
            .set_swap(memory.swap().map(|_| had.swap().unwrap_or(-1)))
            .set_reservation(memory.reservation().map(|_| had.reservation().unwrap_or(-1)));
        before.set_memory(Some(values));
    }
    if let Some(cpu) = new.cpu() {
        let had = old.cpu().clone().unwrap_or_default();
        let mut values = LinuxCpu::default();
        values
            .set_shares(cpu.shares().map(|_| had.shares().unwrap_or(1024)))
            .set_quota(cpu.quota().map(|_| had.quota().unwrap_or(-1)))
            .set_period(cpu.period().map(|_| had.period().unwrap_or(100_000)))
            .set_cpus(had.cpus().clone())
            .set_mems(had.mems().clone());
        before.set_cpu(Some(values));
    }
    if new.pids().is_some() {
        let mut values = LinuxPids::default();
        values.set_limit(old.pids().map_or(-1, |pids| pids.limit()));
        before.set_pids(Some(values));
    }
    before
}

/// `old` with what `new` names.
fn merge(old: &LinuxResources, new: &LinuxResources) -> Result<LinuxResources> {
    let value = |resources: &LinuxResources| {
        serde_json::to_value(resources).expect("resources have no map with non-string keys")
    };
    let mut merged = value(old);
    lay_over(&mut merged, value(new));
    serde_json::from_value(merged)
        .map_err(|error| Error::invalid("resources", "", error.to_string()))
}

/// Objects are merged, everything else is replaced.
fn lay_over(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                lay_over(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}
