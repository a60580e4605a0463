//! Sizes and counts as people write them: `32m`, `1.5`, `100`.

use crate::error::{Error, Result};
use std::borrow::Cow;

/// Smallest memory limit: below it the set-up itself would hit the limit. Docker's value.
const MIN_MEMORY: i64 = 6 << 20;

/// Longest accounting period that makes sense for `--cpus`, in microseconds; the kernel's default.
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// Reads a size in bytes, `k`, `m`, `g`, `t` (powers of 1024), as Docker does: `32m`, `32MB`, `32MiB`, `1.5g`.
pub fn parse_bytes(option: &'static str, text: &str) -> Result<i64> {
    const FORM: &str = "a size is a number with b, k, m, g or t behind it, such as 32m";
    let invalid = |reason: &'static str| Error::invalid(option, text, reason);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(invalid(FORM)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) {
        return Err(invalid(FORM));
    }
    let whole: i64 = whole.parse().map_err(|_| invalid(FORM))?;
    let mut bytes = whole.checked_mul(1 << shift).ok_or_else(|| invalid("this is too much"))?;
    if !fraction.is_empty() {
        if fraction.len() > 9 || fraction.contains('.') {
            return Err(invalid(FORM));
        }
        let part: i64 = fraction.parse().map_err(|_| invalid(FORM))?;
        let unit = 10_i64.pow(u32::try_from(fraction.len()).expect("at most 9"));
        let part = i128::from(part) * (1_i128 << shift) / i128::from(unit);
        bytes += i64::try_from(part).map_err(|_| invalid("this is too much"))?;
    }
    Ok(bytes)
}

/// Reads a list of numbers as the kernel writes them: `0-3,7`.
pub(crate) fn number_list(option: &'static str, text: &str) -> Result<Vec<usize>> {
    let invalid = || Error::invalid(option, text, "the form is 0-3,7, with numbers below 1024");
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().ok().filter(|&number| number < 1024);
        let (first, last) = (number(first).ok_or_else(invalid)?, number(last).ok_or_else(invalid)?);
        if first > last {
            return Err(invalid());
        }
        numbers.extend(first..=last);
    }
    if numbers.is_empty() { Err(invalid()) } else { Ok(numbers) }
}

/// Reads `--memory`: at least 6 MiB.
pub(crate) fn parse_memory(option: &'static str, text: &str) -> Result<i64> {
    let bytes = parse_bytes(option, text)?;
    if bytes < MIN_MEMORY {
        return Err(Error::invalid(option, text, "the smallest memory limit is 6m"));
    }
    Ok(bytes)
}

/// Reads `--cpus`: CPU time per [`CPU_PERIOD_US`], in microseconds.
pub(crate) fn parse_cpus(text: &str) -> Result<i64> {
    const FORM: &str = "the number of CPUs is a decimal number from 0.01 to 100000, such as 1.5";
    let invalid = || Error::invalid("--cpus", text, FORM);
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(invalid());
    }
    let cpus: f64 = text.parse().map_err(|_| invalid())?;
    if !(0.01..=100_000.0).contains(&cpus) {
        return Err(invalid());
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 10^10, checked above")]
    let quota = (cpus * 100_000.0).round() as i64;
    Ok(quota)
}

/// Reads `--pids`: a count, or -1 for no limit.
pub(crate) fn parse_pids(text: &str) -> Result<i64> {
    text.parse().ok().filter(|&pids| pids == -1 || pids > 0).ok_or_else(|| {
        Error::invalid("--pids", text, "a pids limit is a number from 1, or -1 for no limit")
    })
}

/// Splits `KEY=VALUE`.
pub(crate) fn key_value(
    option: impl Into<Cow<'static, str>>,
    text: &str,
) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::invalid(option, text, "the form is KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1024b", 1024),
            ("32m", 32 << 20),
            ("32M", 32 << 20),
            ("32MB", 32 << 20),
            ("32MiB", 32 << 20),
            ("32 m", 32 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("0.5k", 512),
            ("2t", 2 << 40),
        ] {
            assert_eq!(parse_bytes("--memory", text).unwrap(), bytes, "{text}");
        }
        for text in
            ["", "m", "-1", "1x", "1..5g", "1.", ".5g", "1e9", "99999999999t", "1.1.1", "0x10"]
        {
            assert!(parse_bytes("--memory", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_memory_limit_has_a_floor() {
        assert!(parse_memory("--memory", "6m").is_ok());
        assert!(parse_memory("--memory", "5m").is_err());
    }

    #[test]
    fn cpus_become_a_quota() {
        for (text, quota) in [("1", 100_000), ("0.5", 50_000), ("1.25", 125_000), ("0.01", 1_000)] {
            assert_eq!(parse_cpus(text).unwrap(), quota, "{text}");
        }
        for text in ["0", "-1", "nan", "inf", "1e3", "", "x", "0.001", "1000000"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pids_are_positive_or_unlimited() {
        assert_eq!(parse_pids("-1").unwrap(), -1);
        assert_eq!(parse_pids("64").unwrap(), 64);
        for text in ["0", "-2", "1.5", "", "many"] {
            assert!(parse_pids(text).is_err(), "{text}");
        }
    }
}
