//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: made in its folder, bound into its root.

use crate::error::Result;
use crate::mount::{Kind, Mount};
use crate::store::write_public;
use crate::syscall::MountChange;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
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
        })
        .collect()
}

/// Writes the files of a container into `folder`. Without an address it has the host's network.
pub(crate) fn write(folder: &Path, hostname: &str, address: Option<Ipv4Addr>) -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let resolv_conf = match address {
        None => read("/etc/resolv.conf"),
        Some(_) => resolv_conf(
            &read("/etc/resolv.conf"),
            // Where systemd-resolved listens on loopback, it keeps the real servers here.
            || read("/run/systemd/resolve/resolv.conf"),
        ),
    };
    let hosts = match address {
        None => read("/etc/hosts"),
        Some(address) => hosts(hostname, address),
    };
    write_public(folder, "hosts", &hosts)?;
    write_public(folder, "hostname", &format!("{hostname}\n"))?;
    write_public(folder, "resolv.conf", &resolv_conf)?;
    Ok(())
}

fn hosts(hostname: &str, address: Ipv4Addr) -> String {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let _ = writeln!(text, "{address}\t{hostname}");
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
            .and_then(|server| server.split('%').next()?.parse::<std::net::IpAddr>().ok())
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
        assert!(hosts("web", Ipv4Addr::new(10, 77, 0, 2)).ends_with("10.77.0.2\tweb\n"));
    }
}
