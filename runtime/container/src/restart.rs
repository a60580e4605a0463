//! Starting a container again: by the process that supervises it, as its policy says, or because somebody asks for it.

use crate::container::{Container, CreateOptions, LOG, stored_spec};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::layers::Layers;
use crate::state::{State, Status};
use crate::store::{Journal, Store};
use crate::supervise::Signals;
use std::fmt;
use std::time::{Duration, Instant};

/// When a container that has ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its exit code is not 0, at most so many times.
    OnFailure(Option<u32>),
    /// Whatever its exit code.
    Always,
}

impl RestartPolicy {
    /// Reads `no`, `on-failure[:N]`, `always`, or `unless-stopped`, which is the same here: nothing starts containers when
    /// the host does.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid =
            || Error::invalid("--restart", text, "the form is no, on-failure[:N] or always");
        match text {
            "" | "no" => Ok(Self::No),
            "always" | "unless-stopped" => Ok(Self::Always),
            "on-failure" => Ok(Self::OnFailure(None)),
            _ => {
                let number = text.strip_prefix("on-failure:").and_then(|n| n.parse().ok());
                number.map(|n| Self::OnFailure(Some(n))).ok_or_else(invalid)
            }
        }
    }

    /// Whether a container that ended with `code` after `restarts` restarts is started once more.
    pub fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => code != 0 && most.is_none_or(|most| restarts < most),
            Self::Always => true,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            Self::Always => f.write_str("always"),
        }
    }
}

/// The first pause before a restart, the longest, and after how long a run the first one comes again: docker's.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
const GOOD_RUN: Duration = Duration::from_secs(10);

/// How often the pause looks whether the container is still to be restarted.
const LOOK: Duration = Duration::from_millis(50);

/// The pause after a run that was `ran` long, when the last one was `before`.
fn pause_after(ran: Duration, before: Option<Duration>) -> Duration {
    match before {
        Some(before) if ran < GOOD_RUN => (before * 2).min(LONGEST_PAUSE),
        _ => FIRST_PAUSE,
    }
}

/// Waits for `container`, starts it again as its policy says, and gives the last exit code.
///
/// [`request_stop`] ends that for good, and so does a signal that asks this process to end, or the removal of the
/// container.
pub fn supervise(store: &Store, signals: &Signals, mut container: Container) -> Result<i32> {
    let policy = RestartPolicy::parse(&container.state().restart)?;
    let id = container.id().clone();
    let (mut restarts, mut pause) = (container.state().restart_count, None);
    loop {
        let begin = Instant::now();
        let code = signals.wait_for(&container)?;
        container.finish(code)?;
        if !policy.wants(code, restarts) || signals.asked_to_end() {
            return Ok(code);
        }
        let next = pause_after(begin.elapsed(), pause);
        pause = Some(next);
        if !rest(store, signals, &id, next)? {
            return Ok(code);
        }
        restarts += 1;
        container = match again(store, &id, restarts, false) {
            Ok(container) => container,
            // Somebody removed it, started it, or asked for its end just now.
            Err(Error::DoesNotExist { .. } | Error::WrongStatus { .. }) => return Ok(code),
            Err(error) => return Err(error),
        };
    }
}

/// Lets `pause` pass; whether the container is to be started then.
fn rest(store: &Store, signals: &Signals, id: &ContainerId, pause: Duration) -> Result<bool> {
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if signals.end_asked_within(left.min(LOOK))? {
            return Ok(false);
        }
        match store.state(id) {
            Ok(state) if state.status == Status::Stopped && !state.stop_requested => {}
            _ => return Ok(false),
        }
        if left.is_zero() {
            return Ok(true);
        }
    }
}

/// Makes and starts container `id` anew, which has stopped: the same spec, the same folder, the log goes on.
///
/// `restarts` is kept in its state. With `asked`, somebody wants it now, whatever was asked for before.
pub fn again(store: &Store, id: &ContainerId, restarts: u32, asked: bool) -> Result<Container> {
    let folder = store.lock(id)?;
    let state = State::read(folder.path())?
        .ok_or_else(|| Error::DoesNotExist { id: id.as_str().to_owned() })?;
    let status = state.observed_status();
    if status != Status::Stopped || state.stop_requested && !asked {
        return Err(Error::WrongStatus {
            tried: "start",
            id: state.id,
            status: if status == Status::Stopped { "asked to stop" } else { status.as_str() },
            wanted: "stopped",
        });
    }
    let spec = stored_spec(folder.path())?;
    let journal = Journal::read(folder.path())?;
    let cgroups = journal.cgroup_driver();
    // The folder for what it writes is there already, its owner's note too.
    let layers = journal.writable.map(|place| {
        let owner = Vec::new();
        Layers { lower: journal.layers, place, owner }
    });
    let options = CreateOptions {
        layers,
        name: Some(state.name),
        image: state.image,
        labels: state.labels,
        supervised: true,
        remove: state.remove,
        log_output: asked || folder.path().join(LOG).exists(),
        log_bytes: state.log_bytes,
        cgroups,
        restart: RestartPolicy::parse(&state.restart)?,
        restart_count: restarts,
        ..CreateOptions::default()
    };
    let mut container = Container::create_in(store, id, spec, &options, Some(folder))?;
    container.start()?;
    Ok(container)
}

/// Notes that container `id` is not to be started again by its supervisor.
pub fn request_stop(store: &Store, id: &ContainerId) -> Result<()> {
    change(store, id, |state| state.stop_requested = true, |state| !state.restart.is_empty())
}

/// Gives container `id` another name.
pub fn rename(store: &Store, id: &ContainerId, name: &str) -> Result<()> {
    let name = ContainerId::new(name)?;
    let (states, _) = store.containers()?;
    let taken = |state: &&State| {
        state.id != id.as_str() && (state.name == name.as_str() || state.id == name.as_str())
    };
    if let Some(other) = states.iter().find(taken) {
        return Err(Error::NameInUse {
            id: name.as_str().to_owned(),
            status: other.observed_status().as_str(),
        });
    }
    change(store, id, |state| name.as_str().clone_into(&mut state.name), |_| true)
}

/// Changes the state of container `id`, under its lock, where `wanted`.
fn change(
    store: &Store,
    id: &ContainerId,
    change: impl FnOnce(&mut State),
    wanted: impl FnOnce(&State) -> bool,
) -> Result<()> {
    if !wanted(&store.state(id)?) {
        return Ok(());
    }
    let folder = store.lock(id)?;
    let mut state = State::read(folder.path())?
        .ok_or_else(|| Error::DoesNotExist { id: id.as_str().to_owned() })?;
    change(&mut state);
    state.write(folder.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_decide() {
        for (text, code, restarts, expected) in [
            ("no", 1, 0, false),
            ("on-failure", 0, 0, false),
            ("on-failure", 7, 99, true),
            ("on-failure:2", 7, 1, true),
            ("on-failure:2", 7, 2, false),
            ("always", 0, 99, true),
            ("unless-stopped", 0, 1, true),
        ] {
            let policy = RestartPolicy::parse(text).unwrap();
            assert_eq!(policy.wants(code, restarts), expected, "{text} {code} {restarts}");
            assert_eq!(RestartPolicy::parse(&policy.to_string()).unwrap(), policy);
        }
        for bad in ["sometimes", "on-failure:", "on-failure:-1", "always:1"] {
            assert!(RestartPolicy::parse(bad).unwrap_err().is_usage(), "{bad}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_until_a_run_is_good() {
        let short = Duration::ZERO;
        let mut pause = None;
        let mut seen = Vec::new();
        for _ in 0..12 {
            pause = Some(pause_after(short, pause));
            seen.extend(pause.map(|pause| pause.as_millis()));
        }
        assert_eq!(seen[..4], [100, 200, 400, 800]);
        assert_eq!(seen[11], 60_000);
        assert_eq!(pause_after(GOOD_RUN, pause), FIRST_PAUSE);
    }
}
