//! `cargo xtask bench scrape`: what an answer of `/metrics` costs with many containers.
//!
//! The cgroups are real ones, made by `bench/scrape.c` in the layout of Docker, each with a process in it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::running::{End, Running};
use super::{as_float, machine};
use crate::progress::Progress;
use crate::workspace::{Workspace, host_triple};
use crate::{build, shell};

/// How many containers there are at a time.
const SIZES: [u32; 4] = [100, 1000, 2500, 5000];

/// Answers that are measured; one more comes before, in which files are opened.
const ANSWERS: usize = 9;

/// Answers that are measured with pauses before them.
const ANSWERS_APART: usize = 3;

/// Longer than limits that files tell are believed: a scraper asks more seldom.
const APART: Duration = Duration::from_secs(6);

/// The options of the observatory that answers.
const SHOWN: [&[&str]; 3] = [&["--no-cadvisor-names"], &[], &["--max-series", "0"]];

const HEAD: &str = "| containers | options | told of | series | MiB of text | median ms | p90 ms | µs a container | 6 s apart, ms | RSS MiB |\n\
                    |--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";

/// Measures, and prints one table; `write` puts it into docs/PERFORMANCE.md.
pub fn run(write: bool) -> Result<()> {
    let workspace = Workspace::find()?;
    let terrarium = build::static_programs(&workspace, true)?.whole;
    let load = workspace.cache("bench")?.join("scrape");
    super::contender::compile(&workspace.root.join("xtask/src/bench/scrape.c"), &load)?;
    let mounts = mounts(&std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?);
    let mut table = String::from(HEAD);
    let progress = Progress::new("observatories", (SIZES.len() * SHOWN.len()) as u64);
    for size in SIZES {
        shell::note(&format!("{size} containers"));
        let mut load = Command::new(&load);
        load.arg(size.to_string()).args(&mounts);
        let containers = Running::start(&mut load, "ready", End::Input)?;
        for options in SHOWN {
            let name = match options {
                [] => "as it comes".to_owned(),
                options => format!("`{}`", options.join(" ")),
            };
            let mut command = Command::new(&terrarium);
            command.args([
                "--root", "/nonexistent", "observe", "--listen", "127.0.0.1:0", "--no-history",
            ]);
            let observatory = Running::start(command.args(options), LISTENING, End::Signal)?;
            row(&mut table, size, &name, &observatory)?;
            progress.step();
        }
        drop(containers);
    }
    print!("{table}");
    if write {
        let page = workspace.root.join("docs/PERFORMANCE.md");
        super::write_between(&page, "scrape", &format!("{}\n\n{table}", machine(&host_triple())))?;
    }
    Ok(())
}

fn row(table: &mut String, size: u32, shown: &str, observatory: &Running) -> Result<()> {
    let address = observatory.said.strip_prefix(LISTENING).context("an address")?;
    // What the client does with it is not the answer's time, nor is the room for it.
    let mut bytes = Vec::with_capacity(256 << 20);
    let mut timed = |pause: Duration, answers: usize| -> Result<Vec<u64>> {
        let mut times = Vec::new();
        for _ in 0..answers {
            std::thread::sleep(pause);
            let start = Instant::now();
            fetch(address, &mut bytes)?;
            times.push(u64::try_from(start.elapsed().as_micros())?);
        }
        times.sort_unstable();
        Ok(times)
    };
    timed(Duration::ZERO, 1)?;
    let together = timed(Duration::ZERO, ANSWERS)?;
    let apart = timed(APART, ANSWERS_APART)?;
    let body = checked(&bytes)?;
    let series = body.lines().filter(|line| line.contains("{id=")).count();
    let seen = body.matches("\nterrarium_container_info{").count();
    // A bound on series may leave some out, and the host's own containers are told of as well.
    let seen = seen.min(size as usize);
    ensure!(seen > 0, "none of {size} containers is told of");
    let status = std::fs::read_to_string(format!("/proc/{}/status", observatory.pid()))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 =
        rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse().ok()).context("VmHWM")?;
    let median = as_float(together[together.len() / 2]);
    writeln!(
        table,
        "| {size} | {shown} | {seen} | {series} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} |",
        as_float(body.len() as u64) / f64::from(1 << 20),
        median / 1000.0,
        as_float(together[together.len() * 9 / 10]) / 1000.0,
        median / f64::from(size),
        as_float(apart[apart.len() / 2]) / 1000.0,
        as_float(kib) / 1024.0,
    )?;
    Ok(())
}

/// The mount points of the hierarchies that an observatory reads, cgroup v2 last.
fn mounts(table: &str) -> Vec<String> {
    let mut v1 = Vec::new();
    let mut v2 = Vec::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, point, kind, options, ..] = words[..] else { continue };
        let read = ["cpu", "cpuacct", "memory", "pids", "blkio"];
        if kind == "cgroup2" {
            v2.push(point.to_owned());
        } else if kind == "cgroup" && options.split(',').any(|option| read.contains(&option)) {
            v1.push(point.to_owned());
        }
    }
    v1.extend(v2.into_iter().take(1));
    v1
}

/// What an observatory says once it answers, before its address.
pub const LISTENING: &str = "listening on http://";

/// The answer of an observatory to a scrape, its head included.
pub fn get(address: &str) -> Result<String> {
    let mut bytes = Vec::new();
    fetch(address, &mut bytes)?;
    checked(&bytes).map(str::to_owned)
}

/// Reads an answer into `bytes`, in place of what is there.
fn fetch(address: &str, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.clear();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    stream.read_to_end(bytes)?;
    Ok(())
}

/// The text of an answer.
fn checked(bytes: &[u8]) -> Result<&str> {
    let answer = std::str::from_utf8(bytes)?;
    ensure!(answer.starts_with("HTTP/1.0 200"), "it answered {:?}", answer.lines().next());
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::mounts;

    #[test]
    fn hierarchies_that_are_read_come_with_v2_last() {
        let table = "cgroup2 /unified cgroup2 rw 0 0\ncgroup /mem cgroup rw,memory 0 0\n\
                     cgroup /dev cgroup rw,devices 0 0\ntmpfs / tmpfs rw 0 0\n";
        assert_eq!(mounts(table), ["/mem", "/unified"]);
    }
}
