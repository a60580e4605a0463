//! `terrarium logs`: what a detached container wrote.

use crate::Global;
use anyhow::Context;
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
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
    let tried = || format!("print {}", path.display());
    if let Some(lines) = args.tail {
        let begin = begin_of_last(&file, lines).with_context(tried)?;
        file.seek(SeekFrom::Start(begin)).with_context(tried)?;
    }
    let mut out = io::stdout().lock();
    loop {
        // First the state, then the file: what it wrote before its end is not missed.
        let ended = match store.state(&id) {
            Ok(now) => now.created != state.created || now.observed_status() == Status::Stopped,
            Err(_) => true,
        };
        match io::copy(&mut file, &mut out).and_then(|copied| out.flush().map(|()| copied)) {
            Ok(_) if ended || !args.follow => break,
            Ok(0) => std::thread::sleep(PAUSE),
            Ok(_) => {}
            // Nobody reads on.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error).with_context(tried),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the last `lines` lines of `file` begin, found from its end, for logs grow long.
fn begin_of_last(file: &File, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let (mut position, mut left) = (end, lines);
    let mut buffer = [0; 1 << 14];
    while position > 0 && lines > 0 {
        let length = position.min(buffer.len() as u64);
        position -= length;
        let chunk = &mut buffer[..usize::try_from(length).expect("at most the buffer's length")];
        file.read_exact_at(chunk, position)?;
        for (offset, byte) in chunk.iter().enumerate().rev() {
            let at = position + offset as u64;
            // The last byte ends the last line.
            if *byte == b'\n' && at + 1 != end {
                left -= 1;
                if left == 0 {
                    return Ok(at + 1);
                }
            }
        }
    }
    Ok(if lines == 0 { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::begin_of_last;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let long = format!("{}\n", "x".repeat(1 << 14));
        for (text, lines, expected) in [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            (&format!("a\n{long}{long}"), 2, &format!("{long}{long}")),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let begin = begin_of_last(&file, lines).unwrap();
            assert_eq!(begin, (text.len() - expected.len()) as u64, "{text:?} {lines}");
        }
    }
}
