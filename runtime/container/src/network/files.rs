//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: made in its folder, bound into its root.

use super::Details;
use crate::error::{Result, Tried};
use crate::id::ContainerId;
use crate::mount::{Kind, Mount};
use crate::store::write_public;
use crate::syscall::MountChange;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Files in the container's folder and where they show inside.
const FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// The binds of the files in `folder`.
pub(crate) fn mounts(folder: &Path) -> Vec<Mount> {
    FILES
        .iter()
        .map(|(name, destination)| Mount {
            destination: destination.into(),
            kind: Kind::Bind { source: folder.join(name), recursive: false },
            change: MountChange::default(),
            tree_change: MountChange { recursive: true, ..MountChange::default() },
            optional: true,
            idmap: None,
        })
        .collect()
}

/// Those of the files of another container, whose folder this is, that tell of its network.
pub(crate) fn shared_mounts(folder: &Path) -> Vec<Mount> {
    let mut mounts = mounts(folder);
    // The host name belongs to the uts namespace, which it does not share.
    mounts.retain(|mount| mount.destination != Path::new("/etc/hostname"));
    // It has none of them where it has no network of its own.
    mounts.retain(|mount| match &mount.kind {
        Kind::Bind { source, .. } => source.exists(),
        _ => true,
    });
    mounts
}

/// Writes the files of a container into `folder`. Without addresses it has the host's network.
pub(crate) fn write(
    folder: &Path,
    names: &[&str],
    addresses: &[IpAddr],
    details: &Details,
) -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let resolv_conf = if addresses.is_empty() {
        read("/etc/resolv.conf")
    } else {
        resolv_conf(
            &read("/etc/resolv.conf"),
            // Where systemd-resolved listens on loopback, it keeps the real servers here.
            || read("/run/systemd/resolve/resolv.conf"),
        )
    };
    let resolv_conf =
        if details.dns.is_empty() { resolv_conf } else { with_servers(&resolv_conf, details) };
    let mut hosts = if addresses.is_empty() { read("/etc/hosts") } else { hosts(names, addresses) };
    for (name, address) in &details.hosts {
        let _ = writeln!(hosts, "{address}\t{name}");
    }
    write_public(folder, "hosts", &hosts)?;
    write_public(folder, "hostname", &format!("{}\n", names.first().unwrap_or(&"")))?;
    write_public(folder, "resolv.conf", &resolv_conf)?;
    Ok(())
}

/// Around the lines of [`set_neighbours`]; the container's own may stand before and behind.
const NEIGHBOURS: &str = "# containers of the same network\n";
const NEIGHBOURS_END: &str = "# end of containers\n";

/// The longest hosts file that is written to: the container may have made it any length.
const HOSTS_LIMIT: u64 = 1 << 20;

/// Names the other containers of its network in the hosts file of the container whose folder this is. A file that its
/// container has made longer than 1 MiB, or that is not UTF-8, stays as it is.
///
/// The file is bound into the container, hence written in place: first over, then cut, so that no reader sees it empty.
pub(crate) fn set_neighbours(folder: &Path, own: &str, all: &[(IpAddr, String)]) -> Result<()> {
    let path = folder.join("hosts");
    let opened =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let mut file = match opened {
        // It has no hosts file yet, or is on its way out.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.tried("open", &path)?,
    };
    let mut before = Vec::new();
    Read::by_ref(&mut file).take(HOSTS_LIMIT + 1).read_to_end(&mut before).tried("read", &path)?;
    let Ok(before) = String::from_utf8(before) else { return Ok(()) };
    let text = with_neighbours(&before, own, all);
    if text == before || before.len() as u64 > HOSTS_LIMIT {
        return Ok(());
    }
    file.rewind().tried("write", &path)?;
    file.write_all(text.as_bytes()).tried("write", &path)?;
    file.set_len(text.len() as u64).tried("write", &path)
}

pub(super) fn with_neighbours(text: &str, own: &str, all: &[(IpAddr, String)]) -> String {
    let (before, rest) = text.split_once(NEIGHBOURS).unwrap_or((text, NEIGHBOURS_END));
    // Where the container has taken the end away, what follows is its own as well.
    let behind = rest.split_once(NEIGHBOURS_END).map_or(rest, |(_, behind)| behind);
    let mut text = before.to_owned();
    // A lease whose writer died has no name.
    let others: Vec<_> = all
        .iter()
        .filter(|(_, name)| name != own && ContainerId::new(name.as_str()).is_ok())
        .collect();
    if !others.is_empty() {
        text.push_str(NEIGHBOURS);
        for (address, name) in others {
            let _ = writeln!(text, "{address}\t{name}");
        }
        text.push_str(NEIGHBOURS_END);
    }
    text + behind
}

/// The servers of `--dns` with whatever else the host's file says.
fn with_servers(text: &str, details: &Details) -> String {
    let mut all = String::new();
    for server in &details.dns {
        let _ = writeln!(all, "nameserver {server}");
    }
    for line in text.lines().filter(|line| server(line).is_none()) {
        let _ = writeln!(all, "{line}");
    }
    all
}

fn hosts(names: &[&str], addresses: &[IpAddr]) -> String {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for address in addresses {
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

/// The host's resolv.conf without servers on loopback, which a container cannot reach.
fn resolv_conf(text: &str, fallback: impl FnOnce() -> String) -> String {
    let filtered = without_loopback(text);
    if has_server(&filtered) || !has_server(text) {
        return filtered;
    }
    let fallback = without_loopback(&fallback());
    if has_server(&fallback) { fallback } else { filtered }
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|&word| word == "nameserver").and(words.next())
}

fn has_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

fn without_loopback(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let loopback = server(line)
            .and_then(|server| server.split('%').next()?.parse::<IpAddr>().ok())
            .is_some_and(|address| address.is_loopback());
        if !loopback {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_loopback_are_left_out() {
        let none = || panic!("not asked for");
        assert_eq!(
            resolv_conf("search a\nnameserver 127.0.0.53\nnameserver 9.9.9.9\n", none),
            "search a\nnameserver 9.9.9.9\n"
        );
        assert_eq!(resolv_conf("options x\n", none), "options x\n");
        let real = || "nameserver 192.0.2.1\n".to_owned();
        assert_eq!(resolv_conf("nameserver 127.0.0.53\n", real), "nameserver 192.0.2.1\n");
        assert_eq!(resolv_conf("nameserver ::1\nsearch b\n", String::new), "search b\n");
    }

    #[test]
    fn a_container_knows_its_own_name() {
        let both = ["10.77.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert!(hosts(&["web"], &both).ends_with("10.77.0.2\tweb\nfd00::2\tweb\n"));
    }

    #[test]
    fn neighbours_come_and_go_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, "127.0.0.1\tlocalhost\n").unwrap();
        let at = |n, name: &str| (IpAddr::from([10, 0, 0, n]), name.to_owned());
        let set = |all: &[_]| {
            set_neighbours(folder.path(), "a", all).unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        let neighbours = |lines: &str| format!("{NEIGHBOURS}{lines}{NEIGHBOURS_END}");
        let text = set(&[at(2, "a"), at(3, "b"), at(4, "c")]);
        let two = neighbours("10.0.0.3\tb\n10.0.0.4\tc\n");
        assert_eq!(text, format!("127.0.0.1\tlocalhost\n{two}"));
        // What the container itself adds stays.
        std::fs::write(&path, text + "192.0.2.1\tmine\n").unwrap();
        let text = set(&[at(2, "a"), at(4, "c")]);
        let one = neighbours("10.0.0.4\tc\n");
        assert_eq!(text, format!("127.0.0.1\tlocalhost\n{one}192.0.2.1\tmine\n"));
        assert_eq!(set(&[at(2, "a"), at(5, "")]), "127.0.0.1\tlocalhost\n192.0.2.1\tmine\n");
    }

    #[test]
    fn what_a_container_made_of_its_hosts_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let all = [(IpAddr::from([10, 0, 0, 3]), "b".to_owned())];
        for text in [vec![b'x'; (1 << 20) + 1], vec![0xff, 0xfe]] {
            std::fs::write(&path, &text).unwrap();
            set_neighbours(folder.path(), "a", &all).unwrap();
            assert!(std::fs::read(&path).unwrap() == text);
        }
    }

    #[test]
    fn servers_that_were_asked_for_take_the_place_of_the_hosts() {
        let details = Details { dns: vec!["192.0.2.7".parse().unwrap()], ..Details::default() };
        let text = with_servers("search a\nnameserver 192.0.2.1\n", &details);
        assert_eq!(text, "nameserver 192.0.2.7\nsearch a\n");
    }
}
