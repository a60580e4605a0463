//! Names and numbers of capabilities (`capabilities(7)`, linux/capability.h).

/// The names by number, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
];

/// The number of `CAP_NET_ADMIN` or `NET_ADMIN`.
pub fn number(name: &str) -> Option<u32> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok())
}

/// The bit of a capability that is in the table.
pub fn bit(name: &str) -> u64 {
    number(name).map_or(0, |number| 1 << number)
}

/// The names in a set, each as `CAP_NET_ADMIN`.
pub fn names(set: u64) -> Vec<String> {
    let has = |number: &usize| set & (1 << number) != 0;
    (0..NAMES.len()).filter(has).map(|number| format!("CAP_{}", NAMES[number])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (name, expected) in
            [("CAP_CHOWN", 0), ("SYS_ADMIN", 21), ("CAP_MKNOD", 27), ("CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        assert_eq!(number("CAP_FLY"), None);
        assert_eq!(names(1 << 16 | 1), ["CAP_CHOWN", "CAP_SYS_MODULE"]);
    }
}
