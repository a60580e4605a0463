//! The checks, one file each. To add one: a file here with a `CHECK`, and a line in [`CHECKS`].

use super::{Container, Found, Host};

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its id.
    pub id: &'static str,
    /// How bad it is, in words.
    pub severity: &'static str,
    /// What is seen.
    pub seen: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// Manual pages, CVEs, kernel documents.
    pub sources: &'static [&'static str],
    /// What closes it.
    pub remedy: &'static str,
    /// Whether a runtime's own step may look like it for a moment, so that it is looked at twice.
    pub may_pass: bool,
    /// Judges a container.
    pub judge: fn(&Host, &Container, &mut Found<'_>),
}

macro_rules! checks {
    ($($module:ident: $($name:ident),+;)+) => {
        $(pub(super) mod $module;)+
        /// All of them.
        pub static CHECKS: &[Check] = &[$($($module::$name),+),+];
    };
}

checks! {
    host_namespace: PID, NETWORK, IPC, UTS, MOUNT, CGROUP;
    shared_namespace: CHECK;
    namespace_drift: CHECK;
    user_namespace_created: CHECK;
    task_outside_cgroup: CHECK;
    task_outside_namespaces: CHECK;
    namespace_file_exposed: CHECK;
    root_without_user_namespace: CHECK;
    host_root_mapped: CHECK;
    overlapping_id_map: CHECK;
    root_not_pivoted: CHECK;
    host_filesystem_mounted: CHECK;
    engine_socket_mounted: CHECK;
    kernel_filesystem_exposed: CHECK;
    shared_propagation: CHECK;
    device_exposed: CHECK;
    dangerous_capability: CHECK;
    privileged: CHECK;
    no_seccomp: CHECK;
    new_privileges_allowed: CHECK;
    rights_gained: CAPABILITY, USER;
    no_lsm_confinement: CHECK;
    leaked_descriptor: CHECK;
    runtime_binary_exposed: CHECK;
    host_abstract_socket: CHECK;
    limit_missing: CHECK;
    limit_not_applied: CHECK;
    shared_memory_object: CHECK;
    shared_superblock: CHECK;
}

pub(crate) use limit_not_applied::held as held_limit;

/// The check with this id.
pub fn by_id(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaks::events::{EVENT_CHECKS, EventCheck};
    use std::fmt::Write as _;
    use std::path::Path;

    #[test]
    fn every_check_has_an_id_of_its_own_and_says_what_it_must() {
        for (at, check) in CHECKS.iter().enumerate() {
            let fine = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(check.id.chars().all(fine), "{}", check.id);
            assert!(CHECKS[..at].iter().all(|other| other.id != check.id), "{} twice", check.id);
            for text in [check.severity, check.seen, check.why, check.remedy] {
                assert!(!text.is_empty(), "{}", check.id);
            }
            assert!(!check.sources.is_empty(), "{}", check.id);
        }
    }

    /// The part of docs/LEAKS.md that is made from the checks.
    fn document() -> String {
        let mut text = String::new();
        for check in CHECKS {
            let Check { id, severity, seen, why, sources, remedy, .. } = check;
            let sources = sources.iter().map(|source| match source {
                source if source.starts_with("https://") => format!("<{source}>"),
                source => format!("`{source}`"),
            });
            let sources = sources.collect::<Vec<_>>().join(", ");
            let _ = write!(
                text,
                "### {id}\n\nSeverity: {severity}.\n\n- Seen: {seen}.\n- Why it matters: {why}\n- Remedy: {remedy}.\n- See: {sources}.\n\n"
            );
        }
        text.push_str("## Checks of events\n\n| check | severity | what is seen | remedy |\n|---|---|---|---|\n");
        for EventCheck { id, severity, seen, remedy } in EVENT_CHECKS.iter() {
            let _ = writeln!(text, "| `{id}` | {severity} | {seen} | {remedy} |");
        }
        text
    }

    /// With `TERRARIUM_WRITE_DOCS=1` it writes the page instead.
    #[test]
    fn the_page_of_checks_is_made_from_them() {
        const MARK: &str =
            "<!-- from here on made from runtime/observatory/src/leaks/checks -->\n\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/LEAKS.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (head, tail) = page.split_once(MARK).expect("the page has the mark");
        if std::env::var_os("TERRARIUM_WRITE_DOCS").is_some() {
            std::fs::write(&path, format!("{head}{MARK}{}\n", document().trim_end())).unwrap();
            return;
        }
        assert_eq!(
            tail.trim_end(),
            document().trim_end(),
            "docs/LEAKS.md is old: TERRARIUM_WRITE_DOCS=1 cargo test -p terrarium-observatory made_from_them"
        );
    }
}
