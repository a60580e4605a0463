//! `cargo xtask kernels`: the end-to-end tests on Debian's kernels, in a virtual machine.
//!
//! What this machine's kernel does not have (cgroup v2 with every controller, kprobes, fentry, older
//! field layouts) is there. The guest is made of the project's own static binaries, busybox, and
//! `ip`, `nft`, `mountsnoop` and `oomkill` with their libraries; it has no disk and no network card.

pub mod debian;
mod initramfs;
mod machine;
mod matrix;
mod modules;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::dist;
use crate::kernels::debian::Kernel;
use crate::kernels::initramfs::Archive;
use crate::kernels::machine::{Machine, Record};
use crate::qemu;
use crate::setup::{self, Needs, static_busybox};
use crate::shell;
use crate::workspace::Workspace;

/// What the guest runs as its first process.
const INIT: &str = include_str!("kernels/init.sh");
/// Emulation is ten to twenty times slower than the machine.
const DEADLINE: Duration = Duration::from_mins(35);

/// Run the end-to-end tests on Debian's kernels under qemu.
#[derive(clap::Args)]
pub struct Args {
    /// Only this kernel (5.10, 6.1 or 6.12); may be repeated.
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// Keep the initial file system and print the command that boots it.
    #[arg(long)]
    keep: bool,
    /// Write the matrix of probes into docs/KERNELS.md.
    #[arg(long)]
    write: bool,
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
    /// Only tests whose name contains this; `none` only boots and looks at the probes.
    filter: Option<String>,
}

/// How the tests in the guests ended.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: usize,
    /// `6.1 name`, with the reason.
    pub failed: Vec<String>,
    /// `6.1 name`, with the reason.
    pub skipped: Vec<String>,
}

/// Boots each kernel that was asked for.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Needs::Build, Needs::Run, Needs::Peers, Needs::Machine], args.yes)?;
    let workspace = Workspace::find()?;
    let kernels = debian::choose(&args.kernels)?;
    let mut tally = Tally::default();
    let mut columns = Vec::new();
    let guest = Guest::build(&workspace)?;
    for kernel in kernels {
        let records = guest.boot(&workspace, kernel, args.filter.as_deref(), args.keep)?;
        tally.add(kernel.version, &records);
        columns.push(matrix::Column::from_records(kernel.version, &records));
    }
    // Its exit code says whether all is well here; what it says is wanted in any case.
    let doctor = Command::new(&guest.programs.whole).args(["doctor", "--format", "json"]).output();
    let doctor = doctor.context("start terrarium doctor")?.stdout;
    let doctor =
        serde_json::from_slice(&doctor).context("read what doctor says of this machine")?;
    columns.push(matrix::Column::of_host(&doctor));
    let table = matrix::table(&columns);
    println!("\n{table}");
    if args.write {
        matrix::write(&workspace.root.join("docs/KERNELS.md"), &table)?;
    }
    for line in tally.failed.iter().chain(&tally.skipped) {
        println!("{line}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed,
        tally.failed.len(),
        tally.skipped.len()
    );
    if !tally.failed.is_empty() {
        bail!(
            "{} tests failed in the guest; to repeat them: cargo xtask kernels",
            tally.failed.len()
        );
    }
    Ok(())
}

/// Part of `cargo xtask test`: the default kernel, or the reason why not.
pub fn run_default(workspace: &Workspace) -> Result<Tally> {
    let mut tally = Tally::default();
    let unavailable = if qemu::find().is_none() {
        Some(format!("{} is not installed (cargo xtask setup installs it)", qemu::PROGRAM))
    } else {
        None
    };
    let kernel = debian::default();
    if let Some(reason) = unavailable {
        tally.skipped.push(format!("kernel {}: {reason}", kernel.version));
        return Ok(tally);
    }
    let records = Guest::build(workspace)?.boot(workspace, kernel, None, false)?;
    tally.add(kernel.version, &records);
    println!("\n{}", matrix::table(&[matrix::Column::from_records(kernel.version, &records)]));
    Ok(tally)
}

impl Tally {
    fn add(&mut self, kernel: &str, records: &[Record]) {
        for record in records {
            match record {
                Record::Pass(_) => self.passed += 1,
                Record::Fail(name, why) => {
                    self.failed.push(format!("failed  {kernel} {name}: {why}"));
                }
                Record::Skip(name, why) => {
                    self.skipped.push(format!("skipped {kernel} {name}: {why}"));
                    // The test that skips itself also passes in the eyes of its harness.
                    self.passed = self.passed.saturating_sub(1);
                }
                Record::Probe { .. } => {}
            }
        }
    }
}

/// The programs that go into every guest.
struct Guest {
    programs: build::Programs,
    workload: PathBuf,
    tests: PathBuf,
    busybox: PathBuf,
    /// A Debian that systemd runs, where it can be made.
    disk: Option<PathBuf>,
}

impl Guest {
    fn build(workspace: &Workspace) -> Result<Self> {
        let package = "terrarium-tests";
        Ok(Self {
            programs: build::static_programs(workspace, false)?,
            workload: build::static_binary(workspace, package, "terrarium-workload", false)?,
            tests: build::static_test(workspace, package, "end_to_end")?,
            busybox: static_busybox().context("a static busybox is needed in the guest")?,
            disk: dist::booted_disk(workspace)
                .inspect_err(|error| shell::note(&format!("guests get no Debian: {error:#}")))
                .ok(),
        })
    }

    fn boot(
        &self,
        workspace: &Workspace,
        kernel: &Kernel,
        filter: Option<&str>,
        keep: bool,
    ) -> Result<Vec<Record>> {
        let folder = workspace.cache("kernels")?.join(kernel.version);
        let unpacked = kernel.fetch(&folder)?;
        let initrd = folder.join("initrd.gz");
        self.pack(&unpacked, filter)?.write_gzip(&initrd)?;
        let machine = Machine {
            kernel: unpacked.image,
            initrd,
            disk: self.disk.clone(),
            console: folder.join("console.log"),
        };
        println!("kernel {}: {}", kernel.version, unpacked.release);
        let records = machine.run(DEADLINE)?;
        if keep {
            println!(
                "to boot it again: {}",
                shell::line(&machine.command(machine::Accelerator::Tcg))
            );
        } else {
            // What is left can be made again in a second and is large.
            let _ = std::fs::remove_file(&machine.initrd);
        }
        Ok(records)
    }

    /// The file system that the guest starts from.
    fn pack(&self, kernel: &debian::Unpacked, filter: Option<&str>) -> Result<Archive> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "etc", "modules", "new", "proc", "root", "run", "sys", "tmp"] {
            archive.folder(folder);
        }
        archive.file("init", 0o755, INIT.as_bytes());
        archive.file("filter", 0o644, filter.unwrap_or("").as_bytes());
        archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\n");
        let mut order = String::new();
        for module in modules::in_order(&kernel.modules, modules::WANTED)? {
            archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.image);
            order.push_str(&module.name);
            order.push('\n');
        }
        archive.file("modules/order", 0o644, order.as_bytes());
        for (name, program) in [
            ("bin/busybox", &self.busybox),
            ("bin/terrarium", &self.programs.whole),
            ("bin/terrarium-runtime", &self.programs.runtime),
            ("bin/terrarium-workload", &self.workload),
            ("bin/end-to-end", &self.tests),
        ] {
            archive.program(name, program)?;
        }
        for name in ["ip", "nft", "mountsnoop", "oomkill"] {
            let Some(program) = shell::program(name) else { continue };
            archive.program(&format!("sbin/{name}"), &program)?;
            for library in libraries(&program)? {
                archive.program(library.to_string_lossy().trim_start_matches('/'), &library)?;
            }
        }
        Ok(archive)
    }
}

/// The shared libraries of a program and the loader, by their full paths.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = shell::output(Command::new("ldd").arg(program))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}
