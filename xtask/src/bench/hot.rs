//! Which functions a container's start executes, for the linker to lay side by side (`runtime/cli/hot.ld`).
//!
//! A page of code that is touched costs a page fault, in each process anew, and a runtime is three of them for a container:
//! before and after its second execution, and the container's first process. So the scenarios are run step by step under ptrace(2),
//! and the functions that any instruction was in are named, without what depends on the compiler's hashes. What is
//! not found any more when the program has changed does no harm: it is laid where it was.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::contender::{Place, RUNTIME};
use super::scenario::SCENARIOS;
use crate::build::{self, Programs};
use crate::shell;
use crate::workspace::Workspace;

/// The file, below the workspace.
const FILE: &str = "runtime/cli/hot.ld";

/// The crates whose code a start executes.
const HOT_CRATES: [&str; 9] = [
    "terrarium_cli", "terrarium_container", "serde_json", "oci_spec", "core", "alloc", "std",
    "nix", "rustix",
];

/// A function of the program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Symbol {
    start: u64,
    size: u64,
    name: String,
}

/// Writes the file, or says what would be in it.
pub fn run(write: bool) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the program is laid out so on x86-64 alone");
    }
    let workspace = Workspace::find()?;
    let terrarium = build::static_programs(&workspace, true)?;
    let runtime = terrarium.runtime.clone();
    let symbols = symbols(&runtime)?;
    let place = Place::make(&workspace, Programs { ..terrarium })?;
    let mut executed = Executed::default();
    for scenario in SCENARIOS.iter().filter(|one| one.containers == 1 && one.takes(&RUNTIME)) {
        shell::note(&format!("{}, step by step", scenario.name));
        let words = scenario.commands(&place, &RUNTIME, 0);
        for words in words.split(|word| word == "++") {
            let mut command = Command::new(&words[0]);
            step(command.args(&words[1..]), &mut executed)?;
        }
    }
    let hot: Vec<&Symbol> = executed.order.iter().flat_map(|at| find(&symbols, *at)).collect();
    let script = script(&hot, &members()?);
    let count = hot.iter().map(|symbol| symbol.start).collect::<BTreeSet<_>>().len();
    println!("{count} functions of {} are executed", symbols.len());
    if write {
        let path = workspace.root.join(FILE);
        fs::write(&path, script).with_context(|| format!("write {}", path.display()))?;
    } else {
        print!("{script}");
    }
    Ok(())
}

/// The functions of an executable, by their addresses.
fn symbols(program: &Path) -> Result<Vec<Symbol>> {
    let text =
        shell::output(Command::new("nm").args(["--print-size", "--defined-only"]).arg(program))?;
    let mut symbols: Vec<Symbol> = text.lines().filter_map(symbol).collect();
    symbols.sort();
    symbols.dedup();
    Ok(symbols)
}

/// A line of nm(1): address, size, type, name.
fn symbol(line: &str) -> Option<Symbol> {
    let words: Vec<&str> = line.split(' ').collect();
    let &[start, size, kind, name] = words.as_slice() else { return None };
    let number = |text| u64::from_str_radix(text, 16).ok();
    let is_code = ["t", "T", "w", "W", "i"].contains(&kind);
    is_code.then_some(Symbol { start: number(start)?, size: number(size)?, name: name.to_owned() })
}

/// The function that `at` lies in, by all its names: LLVM merges equal functions into one, whose section has the name of one of
/// them.
fn find(symbols: &[Symbol], at: u64) -> &[Symbol] {
    let after = symbols.partition_point(|symbol| symbol.start <= at);
    let Some(last) = symbols[..after].last() else { return &[] };
    let first = symbols.partition_point(|symbol| symbol.start < last.start);
    if at < last.start + last.size { &symbols[first..after] } else { &[] }
}

/// Addresses of instructions, in the order in which they were executed first.
#[derive(Default)]
struct Executed {
    order: Vec<u64>,
    known: HashSet<u64>,
}

impl Executed {
    fn add(&mut self, at: u64) {
        if self.known.insert(at) {
            self.order.push(at);
        }
    }
}

/// Runs `command` to its end, and adds the addresses of all instructions that it and its children executed, but for what
/// children executed in their turn.
fn step(command: &mut Command, executed: &mut Executed) -> Result<()> {
    use std::os::unix::process::CommandExt;
    // SAFETY: one system call.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let child = command.spawn().with_context(|| format!("start {}", shell::line(command)))?;
    let first = Pid::from_raw(child.id().cast_signed());
    // It stops at its execve(2).
    waitpid(first, None)?;
    let follow = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(first, follow)?;
    ptrace::step(first, None)?;
    loop {
        let stopped = waitpid(None, Some(WaitPidFlag::__WALL))?;
        let (pid, signal) = match stopped {
            WaitStatus::Exited(pid, code) if pid == first => {
                if code != 0 {
                    bail!("{} ended with {code}", shell::line(command));
                }
                return Ok(());
            }
            WaitStatus::Signaled(pid, signal, _) if pid == first => {
                bail!("{} was ended by {signal}", shell::line(command));
            }
            WaitStatus::PtraceEvent(pid, _, libc_event)
                if pid != first && libc_event == nix::libc::PTRACE_EVENT_EXEC =>
            {
                // The container's own program.
                ptrace::detach(pid, None)?;
                continue;
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                #[cfg(target_arch = "x86_64")]
                executed.add(ptrace::getregs(pid)?.rip);
                (pid, None)
            }
            // The second is how a new child begins.
            WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, Signal::SIGSTOP) => {
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => continue,
        };
        match ptrace::step(pid, signal) {
            // It was killed meanwhile.
            Err(nix::errno::Errno::ESRCH) | Ok(()) => {}
            Err(error) => return Err(error).context("step"),
        }
    }
}

/// Which object of the C library defines a function: the object, and the pattern for the archive that has it. Of the mathematical
/// one it is what chooses between variants that is executed.
fn members() -> Result<BTreeMap<String, String>> {
    let archive = shell::output(Command::new("gcc").arg("--print-file-name=libc.a"))
        .context("find libc.a")?;
    let libc = Path::new(archive.trim());
    let folder = libc.parent().context("libc.a lies in no folder")?;
    let mut archives = vec![(libc.to_owned(), "libc.a")];
    // On Debian libm.a names it, with the version of the C library.
    for entry in fs::read_dir(folder).context("list the C library's folder")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.strip_prefix("libm-").and_then(|rest| rest.strip_suffix(".a")).is_some() {
            archives.push((path, "libm-*.a"));
        }
    }
    let mut members = BTreeMap::new();
    for (path, pattern) in archives {
        let text = shell::output(
            Command::new("nm").args(["--print-file-name", "--defined-only"]).arg(&path),
        )?;
        members.extend(text.lines().filter_map(|line| {
            let (_, rest) = line.split_once(".a:")?;
            let (member, rest) = rest.split_once(':')?;
            Some((rest.rsplit(' ').next()?.to_owned(), format!("{pattern}:{member}")))
        }));
    }
    Ok(members)
}

/// The linker script: a section of its own before the others', for what `hot` names, in that order: what one process executes lies
/// together, whatever the next one does. Before it what leads to the C library's variants for this processor.
fn script(hot: &[&Symbol], members: &BTreeMap<String, String>) -> String {
    let mut laid = BTreeSet::new();
    let mut text = String::from(
        "/* The functions that a container's start executes, side by side: fewer pages are touched.\n   \
         Made by `cargo xtask bench hot --write`. */\nSECTIONS\n{\n  .text.hot_first :\n  {\n    *(.iplt)\n",
    );
    for symbol in hot {
        let sections = match members.get(&symbol.name) {
            Some(object) => format!("*{object}(.text .text.*)"),
            None if symbol.name.starts_with("_R") => {
                let pattern = pattern(&symbol.name);
                format!("*(.text.{pattern} .text.unlikely.{pattern})")
            }
            None if symbol.name == "_start" => "*crt1.o(.text)".to_owned(),
            None => format!("*(.text.{})", symbol.name),
        };
        if !laid.contains(&sections) {
            let _ = writeln!(text, "    {sections}");
            laid.insert(sections);
        }
    }
    text.push_str("  }\n}\nINSERT BEFORE .text;\n");
    // What code reads has no names that stay: it lies together by who wrote it, and what is for netlink, D-Bus or regular expressions apart.
    text.push_str("SECTIONS\n{\n  .rodata.hot_first :\n  {\n    *libc.a:*(.rodata .rodata.*)\n");
    for name in HOT_CRATES {
        let _ = writeln!(text, "    *.{name}.*(.rodata .rodata.*)");
    }
    text.push_str("  }\n}\nINSERT BEFORE .rodata;\n");
    text
}

/// What names the same function in the next build as well: a Rust symbol of version 0 without its crates' hashes.
fn pattern(name: &str) -> String {
    // What is promoted across modules has its number behind this.
    if let Some((name, _)) = name.split_once(".llvm.") {
        return pattern(name) + "*";
    }
    // A crate's disambiguator: `Cs`, letters and digits, `_` (Rust's RFC 2603).
    let mut result = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("Cs") {
        let (before, after) = rest.split_at(at + 2);
        result.push_str(before);
        let length = after.bytes().take_while(u8::is_ascii_alphanumeric).count();
        if (8..=13).contains(&length) && after[length..].starts_with('_') {
            result.push('*');
            rest = &after[length..];
        } else {
            rest = after;
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_what_does_not_change() {
        assert_eq!(
            pattern("_RNvMNtCslNYArtu3iFV_5alloc6stringNtB2_6String15from_utf8_lossy"),
            "_RNvMNtCs*_5alloc6stringNtB2_6String15from_utf8_lossy"
        );
        assert_eq!(pattern("_RNvCsAb_3Cs1"), "_RNvCsAb_3Cs1");
        assert_eq!(pattern("_RNvCsAb_3a.llvm.123"), "_RNvCsAb_3a*");
    }

    #[test]
    fn what_is_executed_is_laid_in_that_order() {
        let line = |text| symbol(text).unwrap();
        let symbols = vec![
            line("0000000000001000 0000000000000010 t _RNvCslNYArtu3iFV_1a"),
            line("0000000000001000 0000000000000010 t _RNvCslNYArtu3iFV_1b"),
            line("0000000000002000 0000000000000010 t _RNvCsgEmfK2I1SDS_1a"),
            line("0000000000003000 0000000000000010 t terrarium_entry"),
            line("0000000000004000 0000000000000010 T malloc"),
        ];
        assert_eq!(symbol("0000000000001000 t no_size"), None);
        assert_eq!(find(&symbols, 0x100f), &symbols[..2]);
        assert_eq!(find(&symbols, 0x1010), []);
        let hot = [&symbols[3], &symbols[4], &symbols[0], &symbols[1], &symbols[2], &symbols[4]];
        let members = [("malloc".to_owned(), "libc.a:malloc.o".to_owned())].into();
        let script = script(&hot, &members);
        let lines: Vec<&str> = script.lines().filter(|line| line.contains("(.text")).collect();
        let expected = [
            "    *(.text.terrarium_entry)",
            "    *libc.a:malloc.o(.text .text.*)",
            "    *(.text._RNvCs*_1a .text.unlikely._RNvCs*_1a)",
            "    *(.text._RNvCs*_1b .text.unlikely._RNvCs*_1b)",
        ];
        assert_eq!(lines, expected, "{script}");
    }
}
