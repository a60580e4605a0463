//! What this process may do: the capabilities that loading and attaching need, and the kernel's lockdown state.

use std::path::Path;

/// A capability that the observatory needs, with its number (linux/capability.h) and what for.
pub const NEEDED: [(&str, u32, &str); 4] = [
    ("CAP_BPF", 39, "load eBPF programs and make maps"),
    ("CAP_PERFMON", 38, "let programs read kernel memory, and attach them to tracepoints"),
    (
        "CAP_SYS_ADMIN",
        21,
        "attach to system call tracepoints, and read maps in batches on older kernels",
    ),
    ("CAP_DAC_READ_SEARCH", 2, "read the state of containers and tracefs"),
];

/// The needed capabilities that this process lacks. `proc` is `/proc` but for tests.
pub fn missing_capabilities(proc: &Path) -> Vec<(&'static str, &'static str)> {
    let effective = std::fs::read_to_string(proc.join("self/status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    NEEDED
        .iter()
        .filter(|(_, number, _)| effective & (1 << number) == 0)
        .map(|(name, _, why)| (*name, *why))
        .collect()
}

/// The kernel's lockdown state: `none`, `integrity`, `confidentiality`, or `unknown` where securityfs does not
/// show it. `sys` is `/sys` but for tests.
pub fn lockdown(sys: &Path) -> String {
    let Ok(text) = std::fs::read_to_string(sys.join("kernel/security/lockdown")) else {
        return "unknown".to_owned();
    };
    // The state in force stands in brackets: "none [integrity] confidentiality".
    text.split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
        .unwrap_or("unknown")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        let sys = tempfile::tempdir().expect("temporary folder");
        assert_eq!(lockdown(sys.path()), "unknown");
        let folder = sys.path().join("kernel/security");
        std::fs::create_dir_all(&folder).expect("make folder");
        std::fs::write(folder.join("lockdown"), "none [integrity] confidentiality\n")
            .expect("write file");
        assert_eq!(lockdown(sys.path()), "integrity");
    }

    #[test]
    fn capabilities_are_bits_of_the_effective_set() {
        let proc = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(proc.path().join("self")).expect("make folder");
        let status = |bits: u64| format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{bits:016x}\n");
        std::fs::write(proc.path().join("self/status"), status(u64::MAX)).expect("write file");
        assert!(missing_capabilities(proc.path()).is_empty());
        std::fs::write(proc.path().join("self/status"), status(!(1 << 39))).expect("write file");
        let missing: Vec<_> = missing_capabilities(proc.path()).iter().map(|(n, _)| *n).collect();
        assert_eq!(missing, ["CAP_BPF"]);
    }
}
