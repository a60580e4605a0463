//! `terrarium logs`: what a detached container wrote.

use crate::Global;
use anyhow::Context;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;
use terrarium_container::{LOG, Status, Store};

/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Print what a container wrote that was started by `run --detach`, byte for byte: the end of it, as much as `run --log-opt` keeps.
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
    let file = File::open(&path).with_context(|| {
        format!(
            "open {}: only containers of `run --detach` have a log; others write where their starter's output goes",
            path.display()
        )
    })?;
    let tried = || format!("print {}", path.display());
    let mut position = after_hole(&file, 0).with_context(tried)?;
    if let Some(lines) = args.tail {
        position = begin_of_last(&file, position, lines).with_context(tried)?;
    }
    let mut out = io::stdout().lock();
    loop {
        // First the state, then the file: what it wrote before its end is not missed.
        let ended = match store.state(&id) {
            Ok(now) => now.created != state.created || now.observed_status() == Status::Stopped,
            Err(_) => true,
        };
        match copy(&file, &mut position, &mut out) {
            Ok(()) if ended || !args.follow => break,
            Ok(()) => std::thread::sleep(PAUSE),
            // Nobody reads on.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error).with_context(tried),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes all that there is from `position` on, and moves that on.
fn copy(file: &File, position: &mut u64, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read_at(&mut buffer, *position)?;
        // Its beginning may have been given back meanwhile; what was read before that is whole.
        let begin = after_hole(file, *position)?;
        if begin != *position {
            *position = begin;
        } else if read == 0 {
            return out.flush();
        } else {
            out.write_all(&buffer[..read])?;
            *position += read as u64;
        }
    }
}

/// `position`, or, where the supervisor has given that back as a hole, the beginning of the first line behind it.
fn after_hole(file: &File, position: u64) -> io::Result<u64> {
    let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) {
        Ok(data) if data > position => data,
        // The end (ENXIO), or a filesystem that knows no holes.
        Ok(_) | Err(rustix::io::Errno::NXIO | rustix::io::Errno::INVAL) => return Ok(position),
        Err(error) => return Err(error.into()),
    };
    let mut at = data;
    let mut buffer = [0; 4096];
    loop {
        let read = file.read_at(&mut buffer, at)?;
        match buffer[..read].iter().position(|byte| *byte == b'\n') {
            Some(found) => return Ok(at + found as u64 + 1),
            // It is one line only: better its rest than nothing.
            None if read == 0 => return Ok(data),
            None => at += read as u64,
        }
    }
}

/// Where the last `lines` lines of `file` from `first` on begin, found from its end, for logs grow long.
fn begin_of_last(file: &File, first: u64, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let (mut position, mut left) = (end, lines);
    let mut buffer = [0; 1 << 14];
    while position > first && lines > 0 {
        let length = (position - first).min(buffer.len() as u64);
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
    Ok(if lines == 0 { end } else { first })
}

#[cfg(test)]
mod tests {
    use super::{begin_of_last, copy};
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
            let begin = begin_of_last(&file, 0, lines).unwrap();
            assert_eq!(begin, (text.len() - expected.len()) as u64, "{text:?} {lines}");
        }
    }

    #[test]
    fn what_was_given_back_is_passed_over_to_the_next_line() {
        use rustix::fs::FallocateFlags;
        let mut file = tempfile::tempfile().unwrap();
        let line = format!("{}\n", "y".repeat(999));
        file.write_all(line.repeat(200).as_bytes()).unwrap();
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&file, flags, 0, 128 << 10).is_err() {
            println!("skipped: this filesystem knows no holes");
            return;
        }
        // 131,072 bytes are gone: 131 lines and a part of the next.
        for begin in [0, 1000, 131_000] {
            let (mut position, mut out) = (begin, Vec::new());
            copy(&file, &mut position, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), line.repeat(68), "from {begin}");
            assert_eq!(position, 200_000);
        }
        assert_eq!(begin_of_last(&file, 132_000, 900).unwrap(), 132_000);
        assert_eq!(begin_of_last(&file, 132_000, 2).unwrap(), 198_000);
    }
}
