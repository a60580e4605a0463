//! The command lines that engines call for every container, read without clap: describing the options of a command to
//! it takes longer than the rest of `start` does.
//!
//! What is read here is read alike by the whole command line. What is not known here, or is wrong, is left to it.

use super::bundle::BundleArgs;
use super::{create, delete, exec, kill, run, start, state};
use crate::log::Format;
use crate::{CgroupManager, Global};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// A command that was read. Nothing here leads to the whole command line, or the program for engines would hold it.
#[derive(Debug)]
pub enum Engine {
    Create(create::Args),
    /// `run` with `--bundle`.
    Run(run::OfBundle),
    Start(start::Args),
    State(state::Args),
    Kill(kill::Args),
    Delete(delete::Args),
    /// `exec` with `--process`.
    Exec(Box<exec::Args>),
}

impl Engine {
    /// Runs it.
    pub fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Engine::Create(args) => create::run(&args, global),
            Engine::Run(args) => run::of_bundle(&args, global),
            Engine::Start(args) => start::run(&args, global),
            Engine::State(args) => state::run(&args, global),
            Engine::Kill(args) => kill::run(&args, global),
            Engine::Delete(args) => delete::run(&args, global),
            Engine::Exec(args) => exec::run(&args, global),
        }
    }

    /// Whether its children execute what images bring.
    pub fn may_execute_images(&self) -> bool {
        matches!(self, Engine::Create(_) | Engine::Run(_) | Engine::Exec(_))
    }
}

/// Reads the program's arguments, its name first. `None`: clap is to read them.
pub fn parse(args: impl Iterator<Item = OsString>) -> Option<(Global, Engine)> {
    // Text alone: a path that is none is rare.
    let words = args.skip(1).map(|arg| arg.into_string().ok()).collect::<Option<VecDeque<_>>>()?;
    let mut words = Words(words);
    let mut global = Global {
        root: environment_root()?,
        log: None,
        log_format: Format::default(),
        cgroup_manager: CgroupManager::default(),
        systemd_cgroup: false,
        debug: false,
        rootless: None,
    };
    let name = loop {
        let word = words.0.pop_front()?;
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--root" => global.root = words.value(&word)?.into(),
            "--log" => global.log = Some(words.value(&word)?.into()),
            "--log-format" => {
                global.log_format = match words.value(&word)?.as_str() {
                    "text" => Format::Text,
                    "json" => Format::Json,
                    _ => return None,
                }
            }
            "--systemd-cgroup" if word == "--systemd-cgroup" => global.systemd_cgroup = true,
            "--debug" if word == "--debug" => global.debug = true,
            option if option.starts_with('-') => return None,
            _ => break word,
        }
    };
    let engine = match name.as_str() {
        "create" => {
            let of = bundle(&mut words, false)?;
            Engine::Create(create::Args { bundle: of.bundle, id: of.id })
        }
        "run" => Engine::Run(bundle(&mut words, true)?),
        "start" => Engine::Start(start::Args { id: words.only()? }),
        "state" => Engine::State(state::Args { id: words.only()? }),
        "kill" => {
            let all = words.flag("--all", "-a");
            let id = words.plain()?;
            let signal = if words.0.is_empty() { "TERM".to_owned() } else { words.only()? };
            Engine::Kill(kill::Args { all, regex: false, id, signal })
        }
        "delete" => {
            let force = words.flag("--force", "-f");
            Engine::Delete(delete::Args { force, regex: false, id: vec![words.only()?] })
        }
        "exec" => Engine::Exec(Box::new(exec(&mut words)?)),
        _ => return None,
    };
    Some((global, engine))
}

/// What `--root` is if it is not given; none where clap would have something to say of it.
fn environment_root() -> Option<PathBuf> {
    match std::env::var_os("TERRARIUM_ROOT") {
        None => Some(crate::default_root()),
        Some(root) => (!root.as_bytes().is_empty()).then(|| root.into()),
    }
}

/// Options of `create`, and of `run` with a bundle, and the id.
fn bundle(words: &mut Words, runs: bool) -> Option<run::OfBundle> {
    let mut of = run::OfBundle {
        bundle: BundleArgs::default(),
        id: String::new(),
        detach: false,
        keep: false,
        subreaper: false,
    };
    while words.0.front()?.starts_with('-') {
        let word = words.0.pop_front()?;
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--bundle" => of.bundle.bundle = Some(words.value(&word)?.into()),
            "--pid-file" => of.bundle.pid_file = Some(words.value(&word)?.into()),
            "--console-socket" => of.bundle.console_socket = Some(words.value(&word)?.into()),
            "-b" if word == "-b" => of.bundle.bundle = Some(words.value(&word)?.into()),
            "-d" | "--detach" if runs && !word.contains('=') => of.detach = true,
            "--keep" if runs && !word.contains('=') => of.keep = true,
            "--subreaper" if runs && !word.contains('=') => of.subreaper = true,
            _ => return None,
        }
    }
    of.id = words.only()?;
    // Nobody stays to be a parent.
    if of.detach && of.subreaper {
        return None;
    }
    // Without it, `run` means a folder.
    (!runs || of.bundle.bundle.is_some()).then_some(of)
}

/// `exec` of a process that a file describes: its options, and the container's id.
fn exec(words: &mut Words) -> Option<exec::Args> {
    let mut args = exec::Args::default();
    while words.0.front()?.starts_with('-') {
        let word = words.0.pop_front()?;
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--process" => args.process = Some(words.value(&word)?.into()),
            "-p" if word == "-p" => args.process = Some(words.value(&word)?.into()),
            "--pid-file" => args.pid_file = Some(words.value(&word)?.into()),
            "--console-socket" => args.console_socket = Some(words.value(&word)?.into()),
            "-d" | "--detach" if !word.contains('=') => args.detach = true,
            "-t" | "--tty" if !word.contains('=') => args.tty = true,
            _ => return None,
        }
    }
    args.id = words.only()?;
    args.process.is_some().then_some(args)
}

/// The arguments that have not been read.
struct Words(VecDeque<String>);

impl Words {
    /// The value of the option `word`, which is behind its `=`, or the next argument.
    fn value(&mut self, word: &str) -> Option<String> {
        let value = match word.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None => self.0.pop_front().filter(|value| !value.starts_with('-'))?,
        };
        (!value.is_empty()).then_some(value)
    }

    /// Whether the switch comes next.
    fn flag(&mut self, long: &str, short: &str) -> bool {
        let is_next = self.0.front().is_some_and(|word| word == long || word == short);
        if is_next {
            self.0.pop_front();
        }
        is_next
    }

    /// The next argument, which is no option.
    fn plain(&mut self) -> Option<String> {
        self.0.pop_front().filter(|word| !word.starts_with('-') && !word.is_empty())
    }

    /// The next argument, which is no option, and the last one.
    fn only(&mut self) -> Option<String> {
        let word = self.plain()?;
        self.0.is_empty().then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;
    use crate::Cli;
    use clap::Parser;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split(' ').map(OsString::from)
    }

    #[test]
    fn what_is_read_is_what_the_whole_command_line_makes_of_it() {
        for line in [
            "terrarium --root /r --systemd-cgroup --log=/l --log-format json --debug create -b b --pid-file p x",
            "terrarium create --bundle=b --console-socket s x",
            "terrarium --root=/r start x",
            "terrarium state run",
            "terrarium kill x",
            "terrarium kill --all x KILL",
            "terrarium kill -a x 9",
            "terrarium delete x",
            "terrarium delete --force x",
            "terrarium --log-format=json delete -f x",
            "terrarium --root /r run --bundle b x",
            "terrarium run -d -b b --keep --pid-file p x",
            "terrarium run --subreaper --bundle b x",
            "terrarium --root /r exec --process=p --detach --pid-file f --console-socket s -t x",
            "terrarium exec -d -p p x",
        ] {
            let (global, engine) = parse(words(line)).unwrap_or_else(|| panic!("{line}"));
            let whole = Cli::try_parse_from(words(line)).unwrap();
            assert_eq!(format!("{global:?}"), format!("{:?}", whole.global), "{line}");
            let of_whole = match whole.command {
                Command::Run(args) => format!("{:?}", args.of_bundle().unwrap()),
                other => format!("{other:?}"),
            };
            let of_engine = match engine {
                Engine::Run(args) => format!("{args:?}"),
                other => format!("{other:?}"),
            };
            assert_eq!(of_engine, of_whole, "{line}");
        }
    }

    #[test]
    fn what_is_not_known_or_wrong_is_left_to_the_whole_command_line() {
        for line in [
            "terrarium",
            "terrarium ps",
            "terrarium --help",
            "terrarium start",
            "terrarium start --help",
            "terrarium start a b",
            "terrarium run rootfs sh",
            "terrarium run -m 64m -b b x",
            "terrarium run --bundle b x y",
            "terrarium run --subreaper -d -b b x",
            "terrarium --cgroup-manager systemd create x",
            "terrarium --root",
            "terrarium create --preserve-fds 2 x",
            "terrarium delete --force",
            "terrarium kill",
            "terrarium exec x sh",
            "terrarium exec -t x",
            "terrarium exec --process p x sh",
            "terrarium exec --process p --cap CAP_CHOWN x",
            "terrarium --log-format xml state x",
            "terrarium --root= state x",
            "terrarium state -- x",
        ] {
            assert!(parse(words(line)).is_none(), "{line}");
        }
    }
}
