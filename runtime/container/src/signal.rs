//! Signals by name and number, and what they would do to the container's first process.

use crate::error::{Error, Result};
use nix::sys::signal::Signal;
use std::str::FromStr;

/// A signal number, realtime signals included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalNumber(i32);

impl SignalNumber {
    /// SIGKILL
    pub const KILL: Self = Self(libc::SIGKILL);
    /// None: nothing is sent, and whether it could be is told (kill(2)).
    pub const NONE: Self = Self(0);
    /// SIGTERM
    pub const TERM: Self = Self(libc::SIGTERM);

    /// Reads `9`, `KILL`, `SIGKILL`, `RTMIN+3`, `RTMAX-1`, in any case.
    pub fn parse(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        let number = if let Ok(number) = text.parse::<i32>() {
            (1..=last).contains(&number).then_some(number)
        } else if let Ok(signal) = Signal::from_str(&format!("SIG{name}")) {
            Some(signal as i32)
        } else if let Some(offset) = name.strip_prefix("RTMIN") {
            realtime_offset(offset, '+').map(|n| first + n)
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            realtime_offset(offset, '-').map(|n| last - n)
        } else {
            None
        };
        number.filter(|n| (1..=last).contains(n)).map(Self).ok_or_else(|| {
            Error::invalid("signal", text, "a signal is a number or a name such as TERM or RTMIN+1")
        })
    }

    /// The number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl From<Signal> for SignalNumber {
    fn from(signal: Signal) -> Self {
        Self(signal as i32)
    }
}

fn realtime_offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    text.strip_prefix(sign)?.parse().ok().filter(|n| (0..=30).contains(n))
}

/// What a process does with a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// It catches, blocks or ignores it: its own affair.
    Own,
    /// The default action.
    Default,
}

/// What process `pid` does with `signal`; `Own` where it cannot be told.
pub(crate) fn disposition(pid: i32, signal: SignalNumber) -> Disposition {
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        // A process in sigwait(3), as an init is, has blocked what it waits for, but while it waits the kernel shows it as
        // not blocked (do_sigtimedwait in kernel/signal.c).
        Ok(_) if waits_for_signals(pid) => Disposition::Own,
        Ok(status) => parse_disposition(&status, signal),
        Err(_) => Disposition::Own,
    }
}

/// Whether the process is in `rt_sigtimedwait(2)`.
fn waits_for_signals(pid: i32) -> bool {
    // The number of the system call comes first; `running` where there is none.
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().and_then(|number| number.parse().ok()) == Some(libc::SYS_rt_sigtimedwait)
}

fn parse_disposition(status: &str, signal: SignalNumber) -> Disposition {
    let bit = 1_u64 << (signal.number() - 1);
    let mut seen = 0;
    for line in status.lines() {
        let Some((name, mask)) = line.split_once(':') else { continue };
        if !matches!(name, "SigBlk" | "SigIgn" | "SigCgt") {
            continue;
        }
        match u64::from_str_radix(mask.trim(), 16) {
            Ok(mask) if mask & bit == 0 => seen += 1,
            _ => return Disposition::Own,
        }
    }
    if seen == 3 { Disposition::Default } else { Disposition::Own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_spelling() {
        let min = libc::SIGRTMIN();
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("kill", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("WINCH", 28),
            ("RTMIN", min),
            ("SIGRTMIN+3", min + 3),
            ("rtmax-1", libc::SIGRTMAX() - 1),
            ("64", 64),
        ] {
            assert_eq!(SignalNumber::parse(text).unwrap().number(), number, "{text}");
        }
        for text in ["", "0", "-9", "65", "FOO", "RTMIN-1", "RTMIN+99", "SIG", "RTMAX+1"] {
            assert!(SignalNumber::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dispositions_are_read_from_the_masks() {
        let status = |blocked: &str, ignored: &str, caught: &str| {
            format!("Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n")
        };
        let int = SignalNumber::parse("INT").unwrap();
        let none = "0000000000000000";
        let bit = "0000000000000002";
        assert_eq!(parse_disposition(&status(none, none, none), int), Disposition::Default);
        assert_eq!(parse_disposition(&status(bit, none, none), int), Disposition::Own);
        assert_eq!(parse_disposition(&status(none, bit, none), int), Disposition::Own);
        assert_eq!(parse_disposition(&status(none, none, bit), int), Disposition::Own);
        assert_eq!(parse_disposition("", int), Disposition::Own);
    }
}
