//! `cargo xtask setup`: what is missing on this machine is found, and installed after one question.
//!
//! Nothing that a package brings is left running or enabled: terrarium's tests start their own
//! Prometheus on a port of their own, and a daemon that appears at the next boot because of a
//! test would be a bad surprise. See `apt.rs` for how that is prevented.

mod apt;
mod needs;

use std::env;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ebpf_toolchain::{self, Route};
use crate::setup::needs::{Group, Need, State};
use crate::shell;

/// The version of bpf-linker that is installed where there is none.
const BPF_LINKER: &str = "0.13.0";

/// Find what is missing and install it after asking once.
#[derive(clap::Args)]
pub struct Args {
    /// Install without asking.
    #[arg(long, short)]
    pub yes: bool,
    /// Only report; exit code 1 when something that is required is missing.
    #[arg(long)]
    pub check: bool,
}

/// Every need of every command, with a summary.
pub fn run(args: &Args) -> Result<()> {
    let needs = needs::all();
    if args.check {
        return report(&needs);
    }
    match install_missing(&needs, args.yes)? {
        0 => println!("setup: nothing is missing ({} things looked at)", needs.len()),
        1 => println!("setup: 1 thing installed, ready"),
        n => println!("setup: {n} things installed, ready"),
    }
    Ok(())
}

/// What one command needs; silent when nothing is missing.
pub fn ensure(groups: &[Group], yes: bool) -> Result<()> {
    let needs: Vec<Need> =
        needs::all().into_iter().filter(|need| groups.contains(&need.group)).collect();
    install_missing(&needs, yes).map(drop)
}

/// The groups that a command asks for.
pub use needs::Group as Needs;
pub use needs::static_busybox;

fn report(needs: &[Need]) -> Result<()> {
    let mut missing = 0;
    for need in needs {
        match need.state() {
            State::Found(what) => println!("ok        {:<18} {what}", need.name),
            State::Missing if need.group.is_required() => {
                missing += 1;
                println!("missing   {:<18} {}: {}", need.name, need.why, need.remedy());
            }
            State::Missing => {
                println!("optional  {:<18} {}: {}", need.name, need.why, need.remedy());
            }
        }
    }
    if missing > 0 {
        bail!("{missing} required things are missing (install them with: cargo xtask setup)");
    }
    Ok(())
}

/// Installs what the list lacks and gives how many things that were.
fn install_missing(needs: &[Need], yes: bool) -> Result<usize> {
    let missing: Vec<&Need> = needs.iter().filter(|need| need.state() == State::Missing).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    let Some(apt) = apt::Apt::find() else {
        return without_apt(&missing);
    };
    for need in &missing {
        println!("missing   {:<18} {}: {}", need.name, need.why, need.remedy());
    }
    if !(yes || env::var_os("CI").is_some_and(|ci| ci == "true") || confirmed(&missing)?) {
        bail!("nothing installed (cargo xtask setup installs, cargo xtask setup --check reports)");
    }

    let mut packages: Vec<&str> = Vec::new();
    let mut linker = false;
    let mut rust_src = false;
    apt.refresh(missing.iter().flat_map(|need| need.packages.iter().copied()))?;
    for need in &missing {
        let lacking = apt.without_candidate(need.packages)?;
        if need.name == needs::EBPF_COMPILER && !lacking.is_empty() {
            // Not Debian 12: the distribution has no ready-made core, rustup builds one.
            rust_src = true;
        } else if lacking.is_empty() {
            packages.extend(need.packages);
        } else if need.group.is_required() {
            bail!(
                "{} is needed ({}), and this machine's package sources lack {}",
                need.name,
                need.why,
                lacking.join(", ")
            );
        } else {
            println!(
                "skipped   {:<18} not in this machine's package sources: {}",
                need.name,
                lacking.join(", ")
            );
        }
        linker |= need.name == needs::BPF_LINKER;
    }
    install(&apt, &missing, packages)?;
    if rust_src {
        add_rust_src()?;
    }
    if linker {
        install_linker()?;
    }

    let mut done = 0;
    for need in missing {
        match need.state() {
            State::Found(what) => {
                done += 1;
                println!("installed {:<18} {what}", need.name);
            }
            State::Missing if need.group.is_required() => {
                bail!("{} was installed and is still not found: {}", need.name, need.remedy());
            }
            State::Missing => {}
        }
    }
    Ok(done)
}

/// Installs `packages`, which some of `needs` want: all at once, or, where apt refuses that, what is required, and then
/// what each optional need wants by itself. One optional package that conflicts with what the machine has keeps
/// nothing else from it.
fn install(apt: &apt::Apt, needs: &[&Need], mut packages: Vec<&str>) -> Result<()> {
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() || apt.install(&packages).is_ok() {
        return Ok(());
    }
    let of = |need: &Need| -> Vec<&str> {
        need.packages.iter().copied().filter(|package| packages.contains(package)).collect()
    };
    let required: Vec<&str> =
        needs.iter().filter(|need| need.group.is_required()).flat_map(|need| of(need)).collect();
    if !required.is_empty() {
        apt.install(&required)?;
    }
    for need in needs.iter().filter(|need| !need.group.is_required()) {
        let wanted = of(need);
        if wanted.is_empty() || apt.install(&wanted).is_ok() {
            continue;
        }
        if need.name == needs::QEMU {
            crate::qemu::unpack(&wanted)?;
        } else {
            println!("skipped   {:<18} apt does not install {}", need.name, wanted.join(", "));
        }
    }
    Ok(())
}

/// Asks the one question. Without a terminal nobody can answer it.
fn confirmed(missing: &[&Need]) -> Result<bool> {
    if !stdin().is_terminal() {
        bail!("no terminal to ask on whether to install this: run cargo xtask setup --yes");
    }
    let things = if missing.len() == 1 { "it".into() } else { format!("these {}", missing.len()) };
    print!("Install {things}? [Y/n] ");
    stdout().flush().context("write the question")?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

/// On another distribution the list is all the help there is. Optional things stop nobody.
fn without_apt(missing: &[&Need]) -> Result<usize> {
    for need in missing {
        let word = if need.group.is_required() { "missing " } else { "optional" };
        println!("{word}  {:<18} {}: {}", need.name, need.why, need.elsewhere);
    }
    let required = missing.iter().filter(|need| need.group.is_required()).count();
    if required == 0 {
        return Ok(0);
    }
    bail!("this machine has no apt-get: install the {required} missing things above by hand")
}

/// The usual aya way: rustup brings the sources of `core`.
fn add_rust_src() -> Result<()> {
    let rustup = shell::program("rustup").context(
        "the eBPF programs need a compiler with core for bpfel-unknown-none: install rustup and \
         run `rustup component add rust-src`, or on Debian 12 rustc-web and \
         libstd-rust-web-dev-bpf",
    )?;
    shell::run(Command::new(rustup).args(["component", "add", "rust-src"]))
}

/// Builds bpf-linker against the LLVM that the machine has.
///
/// With Debian's LLVM 22 its default features link but fail later on `memset`, so the version is
/// always named.
fn install_linker() -> Result<()> {
    if matches!(ebpf_toolchain::find_route(), Some(Route::RustSrc(_)))
        && let Some(binstall) = shell::program("cargo-binstall")
    {
        let wanted = format!("bpf-linker@{BPF_LINKER}");
        return shell::run(Command::new(binstall).args(["--no-confirm", &wanted]));
    }
    let Some(llvm) = needs::llvm() else {
        bail!("bpf-linker needs LLVM 21, 22 or 23 with its headers (Debian: llvm-22-dev)");
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.env("LLVM_PREFIX", &llvm.prefix);
    command.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    command.args(["--no-default-features", "--features", &format!("llvm-{}", llvm.version)]);
    shell::run(&mut command)
}
