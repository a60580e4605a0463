//! The program that end-to-end tests run inside a container.
//!
//! It does exactly N of one kernel operation and says in one line of JSON what it did, so that a test can
//! compare that number with what the probes counted. Linked statically, it runs in any root filesystem.
//!
//! ```text
//! terrarium-workload fork 1000        one instruction, its answer, exit code 0 when it succeeded
//! terrarium-workload follow           instructions from stdin, one a line, one answer a line, until end of file
//! ```
//!
//! An answer is `{"ok":true,…}` or `{"ok":false,"error":"…"}`. Operations that may fail one by one answer with
//! `{"ok":true,"succeeded":N,"failed":{"EPERM":M}}`.
//!
//! The program stays single-threaded outside of `threads` and `headless`, so that a plain fork may allocate in the child, and
//! every process and thread that it starts is one of those the instruction names.

mod about;
mod guard;
mod ipc;
mod memory;
mod mount;
mod namespace;
mod network;
mod task;

use nix::errno::Errno;
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::io::{BufRead, Write};
use std::process::ExitCode;

/// What an instruction answers; an error is told as text.
type Answer = Result<Value, String>;

/// What does an instruction, given its arguments.
type Instruction = fn(&[&str]) -> Answer;

/// The instructions, as `NAME ARGUMENTS` and what each does.
const INSTRUCTIONS: &[(&str, Instruction)] = &[
    ("about", about::about),
    ("cap-sys-admin", namespace::cap_sys_admin),
    ("connect", network::connect),
    ("crash", task::crash),
    ("crowd", mount::crowd),
    ("exec", task::exec),
    ("exit", task::exit),
    ("fork", task::fork),
    ("guard", guard::guard),
    ("headless", task::headless),
    ("hold", memory::hold),
    ("interfaces", network::interfaces),
    ("ipc-create", ipc::create),
    ("receive", ipc::receive),
    ("notify", ipc::notify),
    ("ipc-list", ipc::list),
    ("keyring", about::keyring),
    ("listen-abstract", network::listen_abstract),
    ("mount", mount::mount),
    ("nap", task::nap),
    ("read", about::read),
    ("run", task::run),
    ("serve", network::serve),
    ("setns", namespace::setns),
    ("sleep", task::sleep),
    ("threads", task::threads),
    ("touch", memory::touch),
    ("touch-in-child", memory::touch_in_child),
    ("true", |_| Ok(json!({}))),
    ("unshare", namespace::unshare),
    ("wake", task::wake),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["follow"] {
        return follow();
    }
    let (answer, code) = obey(&words);
    // The answer of `true` would only be in the way of tests that look at the output.
    if words != ["true"] {
        println!("{answer}");
    }
    code
}

fn follow() -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return ExitCode::FAILURE };
        let words: Vec<&str> = line.split_whitespace().collect();
        let (answer, _) = obey(&words);
        // A reader that has gone away ends the program: nobody is left to give instructions.
        if writeln!(stdout, "{answer}").and_then(|()| stdout.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn obey(words: &[&str]) -> (Value, ExitCode) {
    let answer = match words {
        [name, arguments @ ..] => match INSTRUCTIONS.iter().find(|(known, _)| known == name) {
            Some((_, instruction)) => instruction(arguments),
            None => Err(format!("unknown instruction {name}")),
        },
        [] => Err("no instruction".to_owned()),
    };
    match answer {
        Ok(mut value) => {
            value["ok"] = json!(true);
            (value, ExitCode::SUCCESS)
        }
        Err(error) => (json!({"ok": false, "error": error}), ExitCode::FAILURE),
    }
}

/// Results of an operation that is done several times.
#[derive(Default)]
struct Tally {
    succeeded: u64,
    failed: Map<String, Value>,
}

impl Tally {
    fn add<T>(&mut self, result: &Result<T, Errno>) {
        match result {
            Ok(_) => self.succeeded += 1,
            Err(errno) => {
                let count = self.failed.entry(errno_name(*errno)).or_insert(json!(0));
                *count = json!(count.as_u64().unwrap_or(0) + 1);
            }
        }
    }

    fn answer(self) -> Value {
        json!({"succeeded": self.succeeded, "failed": self.failed})
    }
}

/// The symbolic name of `errno`, such as `EPERM`.
fn errno_name(errno: Errno) -> String {
    format!("{errno:?}")
}

/// The argument at `index`, parsed.
fn argument<T>(arguments: &[&str], index: usize, what: &str) -> Result<T, String>
where
    T: std::str::FromStr,
    T::Err: Display,
{
    let text = arguments.get(index).ok_or_else(|| format!("{what} is missing"))?;
    text.parse().map_err(|error| format!("{what} {text}: {error}"))
}
