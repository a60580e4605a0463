//! Exit codes: 0 success, 1 failure, 2 wrong usage; `run` and `exec` give the code of the program, 125 when
//! terrarium itself failed, 126 when the program cannot be executed, 127 when it was not found, and 128 + n
//! when signal n ended it.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::fmt;
use std::process::ExitCode;

/// An error with the exit code that goes with it.
#[derive(Debug)]
pub struct WithCode {
    code: u8,
    source: anyhow::Error,
}

impl WithCode {
    /// Binds `code` to `source`.
    pub fn error(code: u8, source: impl Into<anyhow::Error>) -> anyhow::Error {
        anyhow::Error::new(Self { code, source: source.into() })
    }

    /// The code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for WithCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:#}` writes the whole chain on one line: what was tried: on what: why.
        write!(f, "{:#}", self.source)
    }
}

impl std::error::Error for WithCode {}

/// Tells `error` on stderr in one line and gives its exit code (1 unless [`WithCode`] says otherwise).
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("terrarium: {error:#}");
    ExitCode::from(error.downcast_ref::<WithCode>().map_or(1, |with| with.code))
}

/// The number in `code`, which else only Rust's own `main` gets out of it.
pub fn number(code: ExitCode) -> i32 {
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).map_or(1, i32::from)
}

/// Prints help, or tells the usage error that clap found: exit code 0 for help and version, 2 for an error.
pub fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let text = cannot(error).unwrap_or_else(|| one_line(&error.render().to_string()));
        eprintln!("terrarium: {text}");
    } else {
        // Only a closed stream can fail here, and then nobody reads the text.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What is said of a command of other runtimes that there is none of here. It is no hidden command: engines take it that
/// `checkpoint --help` succeeds for a sign that there is one.
fn cannot(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    ["checkpoint", "restore"].contains(&name.as_str()).then(|| {
        format!("{name}: terrarium cannot save a container's processes and restore them (runc and crun can, with CRIU)")
    })
}

/// A list of possible values of more bytes than this is not told.
const MOST_VALUES: usize = 240;

/// Clap's error on one line: what is wrong, and its tips. The usage is a `--help` away.
fn one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split("\nUsage: ").next().unwrap_or(text);
    let words = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = text.split("\n\n").map(words).filter(|part| !part.is_empty());
    let mut line = parts.next().unwrap_or_default();
    // A line is to be read.
    if let Some(at) = line.find(" [possible values: ")
        && line.len() - at > MOST_VALUES
    {
        line.truncate(at);
    }
    for hint in parts.map(|part| part.trim_start_matches("tip: ").to_owned()) {
        if !hint.starts_with("For more information") {
            line = format!("{line} ({hint})");
        }
    }
    format!("{line} (see --help)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_has_its_number() {
        assert_eq!(number(ExitCode::SUCCESS), 0);
        assert_eq!(number(ExitCode::from(125)), 125);
        assert_eq!(number(ExitCode::from(255)), 255);
    }

    #[test]
    fn usage_errors_are_told_in_one_line() {
        let check = |text: &str, expected: &str| assert_eq!(one_line(text), expected);
        check(
            "error: unrecognized subcommand 'rum'\n\n  tip: a similar subcommand exists: 'run'\n\nUsage: terrarium\n\nFor more information, try '--help'.\n",
            "unrecognized subcommand 'rum' (a similar subcommand exists: 'run') (see --help)",
        );
        check(
            "error: the following required arguments were not provided:\n  <ROOTFS>\n  <CMD>...\n\nUsage: terrarium run\n",
            "the following required arguments were not provided: <ROOTFS> <CMD>... (see --help)",
        );
        check(
            "error: invalid value 'x' for '--cpus <N>': not a number\n\nFor more information, try '--help'.\n",
            "invalid value 'x' for '--cpus <N>': not a number (see --help)",
        );
        let values = |values: &str| {
            format!(
                "error: invalid value 'x' for '<NAME>'\n  [possible values: {values}]\n\n  tip: a similar value exists: 'y'\n"
            )
        };
        check(
            &values("y, z"),
            "invalid value 'x' for '<NAME>' [possible values: y, z] (a similar value exists: 'y') (see --help)",
        );
        check(
            &values(&"y, z, ".repeat(50)),
            "invalid value 'x' for '<NAME>' (a similar value exists: 'y') (see --help)",
        );
    }
}
