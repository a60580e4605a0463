//! Published ports: what `--publish` says, who has which, and that nobody else of the host has them.
//!
//! Each container's ports are noted in a file below its network's folder before a rule is made of them, so that whoever
//! removes the container after a crash finds them.

use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use crate::state::write_atomically;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// More ports than this in one range are a mistake.
const MAX_RANGE: u16 = 1000;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Its number (linux/in.h).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of the host that leads to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    /// The host's address, unspecified for all of its family; none for all of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The container's port.
    pub container: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = SocketAddr::new(self.any_or_one(), self.host);
        write!(f, "{address}->{}/{}", self.container, self.protocol)
    }
}

impl Published {
    /// Whether nobody can have both: the same port of an address in common.
    fn collides(&self, other: &Self) -> bool {
        let meet = match (self.address, other.address) {
            (Some(one), Some(two)) => {
                one.is_ipv4() == two.is_ipv4()
                    && (one == two || one.is_unspecified() || two.is_unspecified())
            }
            _ => true,
        };
        meet && self.host == other.host && self.protocol == other.protocol
    }

    fn any_or_one(&self) -> IpAddr {
        self.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }

    /// Whether it is a port of the host's addresses of IPv4, else of IPv6.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.any_or_one().is_ipv4()
    }

    /// The one address of the host; none for all of the family.
    pub(crate) fn one_address(&self) -> Option<IpAddr> {
        self.address.filter(|address| !address.is_unspecified())
    }
}

/// `ports` as a network has them that is of IPv4, and of IPv6 if `has_ipv6`: a port of all addresses is one of each family.
pub(crate) fn of_families(ports: &[Published], has_ipv6: bool) -> Result<Vec<Published>> {
    let mut all = Vec::new();
    for port in ports {
        match port.address {
            None => {
                all.push(Published { address: Some(Ipv4Addr::UNSPECIFIED.into()), ..*port });
                if has_ipv6 {
                    all.push(Published { address: Some(Ipv6Addr::UNSPECIFIED.into()), ..*port });
                }
            }
            Some(IpAddr::V6(_)) if !has_ipv6 => {
                return Err(Error::unsupported(
                    format!("publishing {port}"),
                    "the network has no IPv6 (`network create --ipv6` makes one that has)",
                ));
            }
            Some(_) => all.push(*port),
        }
    }
    Ok(all)
}

/// Reads `[IP:]HOST:CONTAINER[/udp]`, where both may be ranges of one length.
pub(crate) fn parse(text: &str) -> Result<Vec<Published>> {
    let invalid = |reason: &'static str| Error::invalid("--publish", text, reason);
    let form =
        || invalid("the form is [IP:]HOST:CONTAINER[/udp], such as 8080:80 or [::1]:8080:80");
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return Err(invalid("the protocols are tcp and udp")),
    };
    let (rest, container) = ports.rsplit_once(':').ok_or_else(form)?;
    let (address, host) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, host)) => {
            let ipv6 = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let address = match ipv6 {
                Some(address) => address.parse().map(IpAddr::V6),
                None => address.parse().map(IpAddr::V4),
            };
            let reason = "the host's address is an IPv4 address, or an IPv6 address in brackets";
            (Some(address.map_err(|_| invalid(reason))?), host)
        }
    };
    let range = |text: &str| -> Option<(u16, u16)> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        (first > 0 && first <= last).then(|| (first, last - first))
    };
    let (host, container) = range(host).zip(range(container)).ok_or_else(form)?;
    if host.1 != container.1 {
        return Err(invalid("the two ranges have the same length"));
    }
    if host.1 >= MAX_RANGE {
        return Err(invalid("a range has at most 1000 ports"));
    }
    Ok((0..=host.1)
        .map(|n| Published { address, host: host.0 + n, container: container.0 + n, protocol })
        .collect())
}

/// The published ports of a network; the caller holds the network's lock.
pub(crate) struct Register {
    folder: PathBuf,
}

impl Register {
    /// That of the network whose folder is `network`.
    pub(crate) fn of(network: &Path) -> Self {
        Self { folder: network.join("published") }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Every container that has published ports.
    pub(crate) fn all(&self) -> Result<Vec<(String, Entry)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.tried("read", &self.folder)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.tried("read", &self.folder)?.path();
            // A file that is being written has another ending.
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(id) = name.and_then(|name| name.strip_suffix(".json")) else { continue };
            let bytes = match fs::read(&path) {
                // Its container has just gone.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                result => result.tried("read", &path)?,
            };
            let entry = serde_json::from_slice(&bytes)
                .map_err(|why| Error::Malformed { path: path.clone(), why })?;
            all.push((id.to_owned(), entry));
        }
        all.sort_by(|(one, _), (two, _)| one.cmp(two));
        Ok(all)
    }

    /// Notes the ports of `id`.
    pub(crate) fn note(&self, id: &ContainerId, entry: &Entry) -> Result<()> {
        fs::create_dir_all(&self.folder).tried("create", &self.folder)?;
        let bytes = serde_json::to_vec(entry).expect("ports are plain data");
        write_atomically(&self.file(id.as_str()), &bytes, 0o644)
    }

    /// Forgets those of `id`; whether there were some.
    pub(crate) fn forget(&self, id: &str) -> Result<bool> {
        let path = self.file(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            result => result.tried("remove", &path).map(|()| true),
        }
    }
}

/// What a container has published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// Its ports.
    pub ports: Vec<Published>,
}

impl Entry {
    /// The ports of a container with these addresses.
    pub(crate) fn of(places: &[super::Place], ports: Vec<Published>) -> Self {
        let mut entry = Self { address: Ipv4Addr::UNSPECIFIED, address6: None, ports };
        for place in places {
            match place.address {
                IpAddr::V4(address) => entry.address = address,
                IpAddr::V6(address) => entry.address6 = Some(address),
            }
        }
        entry
    }
}

/// Refuses ports that others have: containers among `taken`, or programs of the host.
pub(crate) fn check_free(wanted: &[Published], taken: &[(String, Entry)]) -> Result<()> {
    for (number, port) in wanted.iter().enumerate() {
        let refuse = |why: String| Err(Error::unsupported(format!("publishing {port}"), why));
        if wanted[..number].iter().any(|other| other.collides(port)) {
            return refuse("it is given twice".to_owned());
        }
        let owner = taken.iter().find(|(_, entry)| entry.ports.iter().any(|p| p.collides(port)));
        if let Some((owner, _)) = owner {
            return refuse(format!("container {owner} has published it (choose another port)"));
        }
        let address = SocketAddr::new(port.any_or_one(), port.host);
        // Nothing keeps a program from listening there later; then the container has the port all the same.
        match try_listening(address, port.protocol) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return refuse(
                    "a program of the host listens there (choose another port)".to_owned(),
                );
            }
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                return refuse("the host has no such address".to_owned());
            }
            result => result.tried("try port", address.to_string())?,
        }
    }
    Ok(())
}

/// Listens on `address` for a moment, of IPv6 alone where it is one: [`std::net`] would take IPv4 with it.
fn try_listening(address: SocketAddr, protocol: Protocol) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if protocol == Protocol::Tcp {
        // What remains of connections that have ended is nobody's.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if protocol == Protocol::Tcp {
        listen(&socket, Backlog::new(1)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        let texts = |text| parse(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts("8080:80"), ["0.0.0.0:8080->80/tcp"]);
        assert_eq!(texts("127.0.0.1:53:5353/udp"), ["127.0.0.1:53->5353/udp"]);
        assert_eq!(texts("0.0.0.0:1:2/tcp"), ["0.0.0.0:1->2/tcp"]);
        assert_eq!(texts("[::]:1:2"), ["[::]:1->2/tcp"]);
        assert_eq!(texts("[fd00::9]:1:2/udp"), ["[fd00::9]:1->2/udp"]);
        assert_eq!(texts("90-91:80-81"), ["0.0.0.0:90->80/tcp", "0.0.0.0:91->81/tcp"]);
        for bad in [
            "", "80", "80:", ":80", "0:80", "80:0", "a:80", "80:65536", "1-2:3", "2-1:2-1",
            "1-1001:1-1001", "80:80/sctp", "::1:80:80", "x:80:80", "1:2:3:4", "[10.0.0.1]:80:80",
            "[::1:80:80", "[]:80:80",
        ] {
            assert!(parse(bad).unwrap_err().is_usage(), "{bad}");
        }
    }

    #[test]
    fn ports_are_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::of(folder.path());
        assert_eq!(register.all().unwrap(), []);
        let id = ContainerId::new("a").unwrap();
        let ports = parse("127.0.0.1:40123:80").unwrap();
        let entry = Entry { address: Ipv4Addr::new(10, 0, 0, 2), address6: None, ports };
        register.note(&id, &entry).unwrap();
        let taken = register.all().unwrap();
        assert_eq!(taken, [("a".to_owned(), entry)]);
        for wanted in ["40123:1", "127.0.0.1:40123:9"] {
            let error = check_free(&parse(wanted).unwrap(), &taken).unwrap_err().to_string();
            assert!(error.contains("container a has published it"), "{error}");
        }
        check_free(&parse("40123:1/udp").unwrap(), &taken).unwrap();
        assert!(register.forget("a").unwrap() && !register.forget("a").unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check_free(&parse(&format!("{port}:80")).unwrap(), &[]).unwrap_err();
        assert!(error.to_string().contains("a program of the host"), "{error}");
        assert!(check_free(&parse("203.0.113.9:1:1").unwrap(), &[]).is_err());
    }

    #[test]
    fn a_port_of_all_addresses_is_one_of_each_family() {
        let texts = |text, has_ipv6| -> Option<Vec<_>> {
            let all = of_families(&parse(text).unwrap(), has_ipv6).ok()?;
            Some(all.iter().map(ToString::to_string).collect())
        };
        let both = ["0.0.0.0:1->2/tcp".to_owned(), "[::]:1->2/tcp".to_owned()];
        assert_eq!(texts("1:2", true).unwrap(), both);
        assert_eq!(texts("1:2", false).unwrap(), both[..1]);
        assert_eq!(texts("0.0.0.0:1:2", true).unwrap(), both[..1]);
        assert_eq!(texts("[::]:1:2", true).unwrap(), both[1..]);
        assert_eq!(texts("[::]:1:2", false), None);
        let (four, six) = (parse("0.0.0.0:1:2").unwrap(), parse("[::]:1:2").unwrap());
        assert!(!four[0].collides(&six[0]));
        assert!(six[0].collides(&parse("[fd00::1]:1:9").unwrap()[0]));
    }
}
