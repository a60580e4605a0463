//! `cargo xtask bench leaks`: what it takes to judge all containers of a host.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::contender::{Place, WHOLE};
use super::{as_float, machine};
use crate::progress::Progress;
use crate::workspace::{Workspace, host_triple};
use crate::{build, shell};

/// How many containers there are at a time, in growing order.
const SIZES: [usize; 4] = [1, 50, 200, 400];

/// Looks that are measured; one more comes before.
const LOOKS: usize = 15;

const HEAD: &str =
    "| containers | findings | median ms | p90 ms | ms a container |\n|--:|--:|--:|--:|--:|\n";

/// Measures, and prints one table; `write` puts it into docs/PERFORMANCE.md.
pub fn run(write: bool) -> Result<()> {
    let workspace = Workspace::find()?;
    let terrarium = build::static_programs(&workspace, true)?;
    let place = Place::make(&workspace, terrarium)?;
    let containers = Containers { place: &place, started: 0 };
    let table = containers.measure()?;
    print!("{table}");
    if write {
        let page = workspace.root.join("docs/PERFORMANCE.md");
        super::write_between(&page, "leaks", &format!("{}\n\n{table}", machine(&host_triple())))?;
    }
    Ok(())
}

/// Containers that do nothing; gone with this.
struct Containers<'a> {
    place: &'a Place,
    started: usize,
}

impl Containers<'_> {
    fn terrarium(&self) -> Command {
        let mut command = Command::new(self.place.program(&WHOLE));
        command.arg("--root").arg(self.place.state(&WHOLE));
        command
    }

    fn name(number: usize) -> String {
        format!("bench-leaks-{number}")
    }

    fn measure(mut self) -> Result<String> {
        let mut table = String::from(HEAD);
        let progress = Progress::new("containers", SIZES[SIZES.len() - 1] as u64);
        for size in SIZES {
            shell::note(&format!("{size} containers"));
            while self.started < size {
                let mut command = self.terrarium();
                command.args(["run", "--detach", "--net", "none", "--name"]);
                command.arg(Self::name(self.started)).arg(self.place.rootfs());
                self.started += 1;
                shell::output(command.arg("/bin/pause"))?;
                progress.step();
            }
            self.row(&mut table)?;
        }
        Ok(table)
    }

    fn row(&self, table: &mut String) -> Result<()> {
        let mut times = Vec::new();
        let mut findings = 0;
        for look in 0..=LOOKS {
            let mut command = self.terrarium();
            command.args(["leaks", "--all", "--format", "json"]);
            let start = Instant::now();
            let output = command.output().context("look for leaks")?;
            if look > 0 {
                times.push(u64::try_from(start.elapsed().as_micros())?);
            }
            // 3: something was found.
            let looked = matches!(output.status.code(), Some(0 | 3));
            ensure!(looked, "it said {}", String::from_utf8_lossy(&output.stderr));
            findings = String::from_utf8_lossy(&output.stdout).lines().count();
        }
        times.sort_unstable();
        let median = as_float(times[times.len() / 2]) / 1000.0;
        writeln!(
            table,
            "| {} | {findings} | {median:.1} | {:.1} | {:.2} |",
            self.started,
            as_float(times[times.len() * 9 / 10]) / 1000.0,
            median / as_float(self.started as u64),
        )?;
        Ok(())
    }
}

impl Drop for Containers<'_> {
    fn drop(&mut self) {
        for number in 0..self.started {
            let mut command = self.terrarium();
            if let Err(error) =
                shell::output(command.args(["delete", "--force", &Self::name(number)]))
            {
                shell::note(&format!("remove a container of the benchmark: {error:#}"));
            }
        }
    }
}
