//! Running other programs: printed before they run, repeatable when they fail.

use std::env;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::progress;

/// The command as a line for a POSIX shell, with the variables it sets in front.
pub fn line(command: &Command) -> String {
    let mut words: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| {
            Some(format!("{}={}", name.to_string_lossy(), quote(&value?.to_string_lossy())))
        })
        .collect();
    let program = Path::new(command.get_program());
    // Cargo is started by its full path; the reader types its name.
    let name = program.file_name().filter(|name| *name == "cargo").unwrap_or(program.as_os_str());
    words.push(quote(&name.to_string_lossy()));
    words.extend(command.get_args().map(|arg| quote(&arg.to_string_lossy())));
    words.join(" ")
}

/// A word as a POSIX shell reads it back.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Prints the command, runs it, and fails with the line that repeats it.
pub fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| format!("start `{}`", line(command)))?;
    if !status.success() {
        bail!("{status}; to repeat it: {}", line(command));
    }
    Ok(())
}

/// Prints the command without running it.
pub fn announce(command: &Command) {
    note(&format!("$ {}", line(command)));
}

/// A line about progress, on stderr so that stdout stays for results; dim on a terminal.
pub fn note(text: &str) {
    progress::aside(|| {
        if std::io::stderr().is_terminal() {
            eprintln!("\x1b[2m{text}\x1b[0m");
        } else {
            eprintln!("{text}");
        }
    });
}

/// Runs the command unseen and gives what it wrote to stdout; its stderr goes into the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}`", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}`: {}: {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The path of a program: `PATH`, then the administrator's folders, which a user's `PATH` lacks.
pub fn program(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name.as_ref())).find(|file| is_executable(file))
}

/// Whether the path is a file that somebody may execute.
pub fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_pasted() {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("RUSTFLAGS", "-C target-feature=+crt-static").args(["build", "it's", ""]);
        assert_eq!(
            line(&command),
            r"RUSTFLAGS='-C target-feature=+crt-static' cargo build 'it'\''s' ''"
        );
    }

    #[test]
    fn a_failing_program_is_named_with_its_words() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("it exits with 3");
        assert_eq!(error.to_string(), "exit status: 3; to repeat it: sh -c 'exit 3'");
    }
}
