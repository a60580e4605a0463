//! `/proc/PID/mountinfo`, as `proc_pid_mountinfo(5)` describes it. Paths are the container's own words: any bytes.

use super::provenance::Place;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// Unique over all mount namespaces while the mount exists.
    pub id: u64,
    /// The mount that it lies on.
    pub parent: u64,
    /// `major:minor` of its filesystem.
    pub device: String,
    /// Which part of the filesystem is shown.
    pub root: String,
    /// Where, seen from the reader's or the process's root.
    pub point: String,
    /// Options of this mount, with commas between them.
    options: String,
    /// The peer group that it sends mounts to and gets them from.
    pub shared: Option<u64>,
    /// The kind of filesystem.
    pub kind: String,
    /// What was mounted.
    pub source: String,
    /// Options of the filesystem, with commas between them.
    super_options: String,
}

impl Mount {
    /// Options of this mount.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        self.options.split(',')
    }

    /// Options of the filesystem.
    pub fn super_options(&self) -> impl Iterator<Item = &str> {
        self.super_options.split(',')
    }

    /// Whether nothing can be written through it.
    pub fn is_read_only(&self) -> bool {
        self.options().chain(self.super_options()).any(|option| option == "ro")
    }

    /// The mount, to be told who made it; `path` is that of what it shows, where the host has one.
    pub fn place(&self, path: &str) -> Place {
        Place { point: self.point.clone(), path: path.to_owned(), kind: self.kind.clone() }
    }

    /// `read-only` or `writable`.
    pub fn access(&self) -> &'static str {
        if self.is_read_only() { "read-only" } else { "writable" }
    }

    /// Whether its filesystem is of the kernel's making, without files of anybody's.
    pub fn is_kernel_filesystem(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "proc"
                | "sysfs"
                | "cgroup"
                | "cgroup2"
                | "devpts"
                | "devtmpfs"
                | "mqueue"
                | "debugfs"
                | "tracefs"
                | "securityfs"
                | "bpf"
                | "efivarfs"
                | "pstore"
                | "configfs"
                | "fusectl"
                | "hugetlbfs"
                | "binfmt_misc"
                | "selinuxfs"
                | "nsfs"
                | "autofs"
                | "rpc_pipefs"
        )
    }
}

/// The mounts of many processes: those that see the same share one table.
#[derive(Debug, Default)]
pub struct Tables {
    /// By a hash of the text, whose key nobody can know.
    seen: HashMap<u64, Arc<[Mount]>>,
    hash: RandomState,
}

impl Tables {
    /// The mounts of a mountinfo file with this text.
    pub fn of(&mut self, text: &[u8]) -> Arc<[Mount]> {
        let table = self.seen.entry(self.hash.hash_one(text));
        Arc::clone(table.or_insert_with(|| parse(text).into()))
    }
}

/// Reads the text of a mountinfo file; lines that are not understood are left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
    let mut mount = Mount {
        id: number(fields.next()?)?,
        parent: number(fields.next()?)?,
        device: text(fields.next()?),
        root: text(fields.next()?),
        point: text(fields.next()?),
        options: text(fields.next()?),
        ..Mount::default()
    };
    // Optional fields end with a lonely `-`.
    loop {
        match fields.next()? {
            b"-" => break,
            field => {
                if let Some(group) = field.strip_prefix(b"shared:") {
                    mount.shared = number(group);
                }
            }
        }
    }
    mount.kind = text(fields.next()?);
    mount.source = text(fields.next()?);
    mount.super_options = text(fields.next().unwrap_or_default());
    Some(mount)
}

/// Undoes the kernel's octal escapes; what is no UTF-8 is replaced.
fn text(field: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(code) = code {
            bytes.push(code);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether `path` is `folder` or lies below it.
pub fn is_within(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read_and_hostile_lines_do_no_harm() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402\\134 rw,noatime master:1 shared:7 - ext3 /dev/ro\xffot rw,errors=continue\n\
            garbage\n1 2 3\n99999999999999999999 1 0:1 / / rw - a b c\n\n\
            40 36 0:22 / /p\\99 ro - proc proc rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        let first = &mounts[0];
        assert_eq!((first.id, first.parent, first.shared), (36, 35, Some(7)));
        assert_eq!((first.root.as_str(), first.point.as_str()), ("/mnt1", "/mnt 2\\"));
        assert_eq!((first.kind.as_str(), first.is_read_only()), ("ext3", false));
        assert_eq!(mounts[1].point, "/p\\99");
        assert!(mounts[1].is_read_only());
        assert_eq!(first.options().collect::<Vec<_>>(), ["rw", "noatime"]);
        let mut tables = Tables::default();
        let (one, same, other) = (tables.of(text), tables.of(text), tables.of(b"1 2 3"));
        assert!(Arc::ptr_eq(&one, &same) && *one == *mounts && other.is_empty());
    }

    #[test]
    fn a_path_is_within_a_folder_by_whole_names() {
        for (path, folder, expected) in [
            ("/etc", "/etc", true),
            ("/etc/x", "/etc", true),
            ("/etcetera", "/etc", false),
            ("/etc", "/", true),
            ("/", "/etc", false),
        ] {
            assert_eq!(is_within(path, folder), expected, "{path} {folder}");
        }
    }
}
