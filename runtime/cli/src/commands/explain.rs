//! `run --explain`: the steps by which a container came to be, with what one would type for each, its cost, and the kernel
//! event that a running observatory saw for it.
//!
//! It goes to standard error, for standard output is the program's.

use super::Format;
use super::ask::Endpoint;
use super::events;
use super::terminal::harmless;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use terrarium_container::explain::Step;

/// How long events may take from the kernel to the observatory's history.
const EVENTS_MAY_TAKE: Duration = Duration::from_millis(1500);

/// Prints the steps of one container.
pub struct Explanation {
    format: Format,
    /// Where none listens, no events are told.
    observatory: Endpoint,
    container: String,
    printed: usize,
    total_ns: u64,
}

impl Explanation {
    /// Begins the explanation of the container `container`; steps are recorded from now on.
    pub fn begin(format: Format, observatory: Endpoint, container: &str) -> Self {
        terrarium_container::explain::record();
        Self { format, observatory, container: container.to_owned(), printed: 0, total_ns: 0 }
    }

    /// Prints the steps since the last call.
    pub fn print(&mut self) {
        let steps = terrarium_container::explain::take();
        let events = self.events(&steps);
        let mut out = std::io::stderr().lock();
        // Whoever does not read it has enough.
        let _ = steps.iter().zip(events).try_for_each(|(step, event)| {
            self.printed += 1;
            self.total_ns += step.duration_ns;
            match self.format {
                Format::Json => writeln!(out, "{}", self.object(step, event.as_ref())),
                Format::Table => self.row(&mut out, step, event.as_ref()),
            }
        });
    }

    /// Says what it took together.
    pub fn end(&self) {
        if self.format == Format::Table {
            let (steps, total) = (self.printed, micros(self.total_ns));
            // As above.
            let _ = writeln!(std::io::stderr(), "{steps} steps, {total} µs in them\n");
        }
    }

    fn object(&self, step: &Step, event: Option<&Value>) -> Value {
        json!({
            "step": self.printed,
            "name": step.name,
            "by": by(step),
            "command": step.command,
            "microseconds": Duration::from_nanos(step.duration_ns).as_secs_f64() * 1e6,
            "event": event,
        })
    }

    fn row(&self, out: &mut impl Write, step: &Step, event: Option<&Value>) -> std::io::Result<()> {
        let colours = std::io::stderr().is_terminal();
        let (bold, dim, plain) =
            if colours { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let (number, name, cost) = (self.printed, &step.name, micros(step.duration_ns));
        writeln!(
            out,
            "{number:>3}  {bold}{name:<12}{plain} {cost:>9} µs  {dim}{}{plain}",
            by(step)
        )?;
        writeln!(out, "     $ {}", harmless(&step.command))?;
        match event {
            Some(event) => writeln!(out, "     {dim}seen: {}{plain}", events::row(event)),
            None => Ok(()),
        }
    }

    /// The event that was seen for each of `steps`.
    fn events(&self, steps: &[Step]) -> Vec<Option<Value>> {
        let deadline = Instant::now() + EVENTS_MAY_TAKE;
        let visible = steps.iter().filter(|step| !types(&step.name).is_empty()).count();
        loop {
            let path = events::path_of(&self.container);
            // Where nobody listens there is nothing to say.
            let Ok(seen) = events::all(&self.observatory, &path) else {
                return vec![None; steps.len()];
            };
            let matched = assign(steps, &seen);
            let found = matched.iter().flatten().count();
            if found >= visible || Instant::now() > deadline {
                return matched;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Who does a step.
fn by(step: &Step) -> &'static str {
    if step.inside { "the container's first process" } else { "terrarium" }
}

fn micros(ns: u64) -> String {
    format!("{}.{}", ns / 1000, ns % 1000 / 100)
}

/// The types of events by which the kernel shows a step.
fn types(name: &str) -> &'static [&'static str] {
    match name {
        "clone3" => &["process.clone"],
        "unshare" => &["namespace.create"],
        "setns" => &["namespace.enter"],
        "mount" => &["mount."],
        "pivot_root" => &["mount.pivot_root"],
        "cgroup" => &["cgroup.create"],
        "execve" => &["process.exec"],
        _ => &[],
    }
}

/// The first event of the right type that came while a step was under way; each is taken once.
fn assign(steps: &[Step], events: &[Value]) -> Vec<Option<Value>> {
    /// An event may be stamped a little before the step's clock is read, or after.
    const TOLERANCE_NS: u64 = 300_000;
    let mut free: Vec<&Value> = events.iter().collect();
    steps
        .iter()
        .map(|step| {
            let fits = |event: &&Value| {
                let kind = event["type"].as_str().unwrap_or_default();
                let time = event["mono_ns"].as_u64().unwrap_or(0);
                types(&step.name).iter().any(|prefix| kind.starts_with(prefix))
                    && time + TOLERANCE_NS >= step.start_ns
                    && time <= step.start_ns + step.duration_ns + TOLERANCE_NS
            };
            let found = free.iter().position(fits)?;
            Some(free.remove(found).clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, start_ns: u64, duration_ns: u64) -> Step {
        let (name, command) = (name.to_owned(), String::new());
        Step { name, command, inside: false, start_ns, duration_ns }
    }

    #[test]
    fn events_go_to_the_step_of_their_kind_and_time_once() {
        let steps = [
            step("mount", 1_000_000, 10),
            step("mount", 5_000_000, 10),
            step("execve", 9_000_000, 10),
            step("capset", 9_000_000, 10),
        ];
        let events = [
            json!({"type": "mount.mount", "mono_ns": 5_000_005}),
            json!({"type": "process.exec", "mono_ns": 9_100_000}),
            json!({"type": "process.exec", "mono_ns": 90_100_000}),
        ];
        let matched = assign(&steps, &events);
        let seen: Vec<_> =
            matched.iter().map(|event| event.as_ref().map(|e| &e["mono_ns"])).collect();
        assert_eq!(seen, [None, Some(&json!(5_000_005)), Some(&json!(9_100_000)), None]);
    }
}
