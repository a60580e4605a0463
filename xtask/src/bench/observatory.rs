//! `cargo xtask bench observatory`: what being observed costs, beside a bpftrace script that counts the same and one that does nothing.
//!
//! Observers take turns, in an order that is reversed every other round; `bench/observatory.c` does what they see.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::running::{End, Running};
use super::scrape::{LISTENING, get};
use super::{Series, as_float, machine};
use crate::progress::Progress;
use crate::workspace::{Workspace, host_triple};
use crate::{build, shell};

/// Counts what the loops do, per cgroup, as terrarium does: clones by process or thread, ends by signal, signals from tasks.
const SCRIPT: &str = "\
tracepoint:task:task_newtask { @clone[cgroup, args->clone_flags & 0x10000] = count(); }
tracepoint:syscalls:sys_exit_clone, tracepoint:syscalls:sys_exit_clone3,
tracepoint:syscalls:sys_exit_fork, tracepoint:syscalls:sys_exit_vfork
/args->ret < 0/ { @clone_failed[cgroup, args->ret] = count(); }
tracepoint:sched:sched_process_exit
{ @exit[cgroup, curtask->signal->group_exit_code & 0x7f] = count(); }
tracepoint:signal:signal_generate /args->code <= 0/ { @signal[cgroup, args->sig] = count(); }
tracepoint:syscalls:sys_enter_unshare { @kinds[tid] = args->unshare_flags; }
tracepoint:syscalls:sys_exit_unshare
{ @unshare[cgroup, @kinds[tid], args->ret] = count(); delete(@kinds[tid]); }
tracepoint:syscalls:sys_enter_mount { @flags[tid] = args->flags; @start[tid] = nsecs; }
tracepoint:syscalls:sys_exit_mount
{
  $took = nsecs - @start[tid];
  @mount[cgroup, @flags[tid], args->ret] = count();
  @mount_time[cgroup] = hist($took);
  @mount_time_sum[cgroup] = sum($took);
  delete(@flags[tid]); delete(@start[tid]);
}
interval:s:1 { printf(\"ready\\n\"); }
";

/// What programs at these tracepoints cost that do nothing: no observer that attaches there costs less.
const IDLE: &str = "\
tracepoint:task:task_newtask, tracepoint:sched:sched_process_exit,
tracepoint:signal:signal_generate,
tracepoint:syscalls:sys_exit_clone, tracepoint:syscalls:sys_exit_clone3,
tracepoint:syscalls:sys_exit_fork, tracepoint:syscalls:sys_exit_vfork,
tracepoint:syscalls:sys_enter_unshare, tracepoint:syscalls:sys_exit_unshare,
tracepoint:syscalls:sys_enter_mount, tracepoint:syscalls:sys_exit_mount { }
interval:s:1 { printf(\"ready\\n\"); }
";

/// What is done under observation.
struct Loop {
    /// As the table names it.
    name: &'static str,
    /// As `bench/observatory.c` does.
    argument: &'static str,
    /// How often in a round: about a quarter of a second's worth.
    count: u32,
    /// Events that are counted for each, none where it is nothing to count.
    events: u32,
}

const LOOPS: [Loop; 6] = [
    Loop { name: "getppid", argument: "getppid", count: 2_000_000, events: 0 },
    Loop { name: UNSHARE, argument: "uts", count: 100_000, events: 1 },
    Loop { name: "unshare, ipc", argument: "ipc", count: 10_000, events: 1 },
    Loop { name: "unshare, mnt", argument: "mnt", count: 3_000, events: 1 },
    Loop { name: "mount", argument: "mount", count: 100_000, events: 1 },
    Loop { name: "fork", argument: "fork", count: 4_000, events: 2 },
];

/// The cheapest namespace to make: what an observer adds shows most there.
const UNSHARE: &str = "unshare, uts";

/// Who observes. The name is also that of its line in the table.
struct Observer {
    name: &'static str,
    /// Options of terrarium, or else whose program it is.
    kind: Kind,
}

enum Kind {
    Nobody,
    /// With this script.
    Bpftrace(&'static str),
    Terrarium(&'static [&'static str]),
}

const OBSERVERS: [Observer; 6] = [
    Observer { name: "nobody", kind: Kind::Nobody },
    Observer { name: "bpftrace, counts", kind: Kind::Bpftrace(SCRIPT) },
    Observer { name: "terrarium, counts", kind: Kind::Terrarium(&["--no-events"]) },
    Observer { name: "terrarium", kind: Kind::Terrarium(&[]) },
    Observer { name: "terrarium, every event", kind: Kind::Terrarium(&["--event-rate", "0"]) },
    Observer { name: "bpftrace, nothing", kind: Kind::Bpftrace(IDLE) },
];

/// Runs the script whose path is `$0`.
const WITH_TRACEFS: &str = "[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; \
                            exec bpftrace -B line \"$0\"";

/// Nanoseconds of kernel programs for each counted event, and of which programs.
type Spent = BTreeMap<(&'static str, &'static str), Series>;

/// Programs and the script.
struct Place {
    program: PathBuf,
    terrarium: PathBuf,
    script: PathBuf,
}

/// Measures, and prints three tables; `write` puts them into docs/PERFORMANCE.md.
pub fn run(rounds: u32, write: bool) -> Result<()> {
    let workspace = Workspace::find()?;
    let terrarium = build::static_programs(&workspace, true)?.whole;
    let cache = workspace.cache("bench")?;
    let place =
        Place { program: cache.join("observatory"), terrarium, script: cache.join("count.bt") };
    super::contender::compile(
        &workspace.root.join("xtask/src/bench/observatory.c"),
        &place.program,
    )?;
    let (times, spent) = measure(&place, rounds)?;
    let mut text = loops(&times);
    let _ = write!(text, "\n{}", programs(&spent));
    let _ = write!(text, "\n{}", reader(&place)?);
    print!("{text}");
    if write {
        let page = workspace.root.join("docs/PERFORMANCE.md");
        super::write_between(
            &page,
            "observatory",
            &format!("{}\n\n{text}", machine(&host_triple())),
        )?;
    }
    Ok(())
}

fn measure(place: &Place, rounds: u32) -> Result<(Spent, Spent)> {
    let (mut times, mut spent) = (Spent::new(), Spent::new());
    let mut order: Vec<&Observer> = OBSERVERS.iter().collect();
    // One that is not counted: files come into memory.
    let progress = Progress::new("rounds", u64::from(rounds) + 1);
    for round in 0..=rounds {
        for observer in &order {
            let observing = place.start(&observer.kind)?;
            for what in &LOOPS {
                let time = place.nanoseconds(what, what.count)?;
                let program = place.program_time(what, what.count / 10)?;
                if round == 0 {
                    continue;
                }
                let key = (what.name, observer.name);
                times.entry(key).or_default().times.push(time);
                if let Some(ns) = program {
                    spent.entry(key).or_default().times.push(ns);
                }
            }
            drop(observing);
        }
        order.reverse();
        progress.step();
    }
    Ok((times, spent))
}

impl Place {
    fn start(&self, kind: &Kind) -> Result<Option<Running>> {
        let (mut command, ready) = match kind {
            Kind::Nobody => return Ok(None),
            Kind::Bpftrace(script) => {
                fs::write(&self.script, script).context("write the script of bpftrace")?;
                // bpftrace finds tracepoints in a mounted tracefs alone; it gets one of its own.
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", WITH_TRACEFS]).arg(&self.script);
                (command, "ready")
            }
            Kind::Terrarium(options) => (self.observe(options), LISTENING),
        };
        Running::start(&mut command, ready, End::Signal).map(Some)
    }

    fn observe(&self, options: &[&str]) -> Command {
        let mut command = Command::new(&self.terrarium);
        command.args(["--root", "/nonexistent", "observe", "--listen", "127.0.0.1:0"]);
        command.arg("--no-history").args(options);
        command
    }

    /// Hundredths of a nanosecond of wall time that each of `count` takes.
    fn nanoseconds(&self, what: &Loop, count: u32) -> Result<u64> {
        let mut command = Command::new(&self.program);
        hundredths(&shell::output(command.args(["loop", what.argument, &count.to_string()]))?)
    }

    /// Hundredths of a nanosecond that kernel programs take for each counted event, where they ran for it.
    fn program_time(&self, what: &Loop, count: u32) -> Result<Option<u64>> {
        if what.events == 0 {
            return Ok(None);
        }
        let mut command = Command::new(&self.program);
        command.arg("stats").arg(&self.program);
        let said = shell::output(command.args(["loop", what.argument, &count.to_string()]))?;
        let mut total = 0;
        for line in said.lines().skip(1) {
            let mut numbers = line.rsplit(' ').map_while(|word| word.parse::<u64>().ok());
            let ns = numbers.next().context("nanoseconds")?;
            // Programs that ran for something else do not count.
            if numbers.next().is_some_and(|runs| runs >= u64::from(count)) {
                total += ns;
            }
        }
        let events = u64::from(count * what.events);
        Ok((total > 0).then(|| total * 100 / events))
    }
}

/// Reads a number with a fraction.
fn hundredths(text: &str) -> Result<u64> {
    let number: f64 = text.trim().parse().with_context(|| format!("read {text:?}"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of 1 s")]
    Ok((number * 100.0) as u64)
}

fn loops(times: &Spent) -> String {
    let mut text = String::from(
        "| loop | observed by | median ns | p95 ns | to nobody |\n|---|---|--:|--:|--:|\n",
    );
    for what in &LOOPS {
        let nobody = times.get(&(what.name, OBSERVERS[0].name)).map(|series| series.percentile(50));
        for observer in &OBSERVERS {
            let Some(series) = times.get(&(what.name, observer.name)) else { continue };
            let median = as_float(series.percentile(50));
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {:.0} | {:.2} |",
                what.name,
                observer.name,
                median / 100.0,
                as_float(series.percentile(95)) / 100.0,
                median / as_float(nobody.unwrap_or_default()),
            );
        }
    }
    text
}

fn programs(spent: &Spent) -> String {
    let mut text = String::from(
        "| loop | observed by | program ns per counted event, median | p95 | to bpftrace |\n|---|---|--:|--:|--:|\n",
    );
    for what in LOOPS.iter().filter(|what| what.events > 0) {
        let peer = spent.get(&(what.name, OBSERVERS[1].name)).map(|series| series.percentile(50));
        for observer in &OBSERVERS {
            let Some(series) = spent.get(&(what.name, observer.name)) else { continue };
            let median = as_float(series.percentile(50));
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {:.0} | {} |",
                what.name,
                observer.name,
                median / 100.0,
                as_float(series.percentile(95)) / 100.0,
                peer.map_or("–".to_owned(), |peer| format!("{:.2}", median / as_float(peer))),
            );
        }
    }
    text
}

/// What the reader of events takes: at rest, at a steady pace, and as fast as a loop can.
fn reader(place: &Place) -> Result<String> {
    const PACES: [(&str, u32, u32); 3] = [
        ("at rest", 0, 0),
        ("10,000 events a second", 50_000, 10_000),
        ("as fast as one loop can", 1_000_000, 0),
    ];
    let mut text = String::from(
        "| events | produced | lost | a second | CPU of the observatory | wake-ups a second | RSS MiB |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, count, pace) in PACES {
        let observing =
            Running::start(&mut place.observe(&["--event-rate", "0"]), LISTENING, End::Signal)?;
        let address = observing.said.strip_prefix(LISTENING).context("an address")?.to_owned();
        // What it does at its start is not what is asked.
        sleep(Duration::from_secs(2));
        let (page, before) = (get(&address)?, Used::of(observing.pid())?);
        let start = Instant::now();
        if count == 0 {
            sleep(Duration::from_secs(10));
        } else {
            let mut command = Command::new(&place.program);
            command.args(["loop", "uts", &count.to_string(), &pace.to_string()]);
            shell::output(&mut command)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let after = Used::of(observing.pid())?;
        // What is in the ring is read within this time.
        sleep(Duration::from_secs(1));
        let later = get(&address)?;
        let more = |family| sum(&later, family) - sum(&page, family);
        let produced = more("terrarium_events_produced_total{");
        let _ = writeln!(
            text,
            "| {name} | {produced:.0} | {:.0} | {:.0} | {:.1} % | {:.0} | {:.0} |",
            more("terrarium_events_dropped_total{"),
            produced / seconds,
            (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0,
            (after.wakeups - before.wakeups) / seconds,
            after.peak_mib,
        );
    }
    Ok(text)
}

/// Sum of the values of a family.
fn sum(page: &str, family: &str) -> f64 {
    page.lines()
        .filter(|line| line.starts_with(family))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// What a process has used since its start.
struct Used {
    cpu_seconds: f64,
    /// How often a thread of it slept and woke.
    wakeups: f64,
    peak_mib: f64,
}

impl Used {
    fn of(pid: u32) -> Result<Self> {
        let mut used = Self { cpu_seconds: 0.0, wakeups: 0.0, peak_mib: 0.0 };
        // Of threads that have ended as well. Fields 14 and 15, after the name: hundredths of a second (proc_pid_stat(5)).
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat")?;
        for ticks in fields.split(' ').skip(11).take(2) {
            used.cpu_seconds += ticks.parse::<f64>()? / 100.0;
        }
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name))?;
                value.trim().trim_end_matches(" kB").parse::<f64>().ok()
            };
            used.wakeups += field("voluntary_ctxt_switches:").context("context switches")?;
            used.peak_mib = field("VmHWM:").context("VmHWM")? / 1024.0;
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_ratios() {
        let of = |time| Series { times: vec![time], peak: 0 };
        let times = Spent::from([
            ((UNSHARE, "nobody"), of(200_000)),
            ((UNSHARE, "terrarium"), of(220_000)),
        ]);
        let text = loops(&times);
        assert!(text.contains("| unshare, uts | terrarium | 2200 | 2200 | 1.10 |"), "{text}");
    }

    #[test]
    fn the_values_of_a_family_are_added_up() {
        let page = "a_total{x=\"1\"} 3\na_total{x=\"2\"} 4\nb_total{} 5\n";
        assert!((sum(page, "a_total{") - 7.0).abs() < 0.1);
    }
}
