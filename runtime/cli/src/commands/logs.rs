//! `terrarium logs`: what a detached container wrote.

use crate::Global;
use anyhow::Context;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::time::Duration;
use terrarium_container::{LOG, Status, Store};

/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Print what a container wrote that was started by `run --detach`, byte for byte.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on until the container ends
    #[arg(long, short)]
    follow: bool,
    /// Begin with the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<usize>,
    /// The container, by id or the beginning of one
    id: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let id = super::named(&store, &args.id)?;
    let state = store.state(&id)?;
    let path = store.folder(&id).join(LOG);
    let mut file = File::open(&path).with_context(|| {
        format!(
            "open {}: only containers of `run --detach` have a log; others write where their starter's output goes",
            path.display()
        )
    })?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?;
    let begin = args.tail.map_or(0, |lines| begin_of_last(&text, lines));
    let mut goes_on = write(&text[begin..])?;
    while goes_on && args.follow {
        // First the state, then the file: what it wrote before its end is not missed.
        let ended = match store.state(&id) {
            Ok(now) => now.created != state.created || now.observed_status() == Status::Stopped,
            Err(_) => true,
        };
        text.clear();
        file.read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?;
        goes_on = write(&text)? && !ended;
        if goes_on && text.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output; false when nobody reads it any more.
fn write(text: &[u8]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("write to standard output"),
    }
}

/// Where the last `lines` lines of `text` begin.
fn begin_of_last(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match lines {
        0 => text.len(),
        lines => ends.nth(lines - 1).map_or(0, |(end, _)| end + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::begin_of_last;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(
                &text[begin_of_last(text.as_bytes(), lines)..],
                expected,
                "{text:?} {lines}"
            );
        }
    }
}
