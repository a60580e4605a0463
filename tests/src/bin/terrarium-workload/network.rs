//! Addresses, and who reaches whom.

use crate::task::fork_child;
use crate::{Answer, argument, errno_name};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrIn;
use serde_json::{Map, Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix;
use std::time::Duration;

/// How long a connection may take on networks that lie in this machine's memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// `serve PORT`: a process that accepts connections on every address and greets each with the peer's address.
pub(crate) fn serve(arguments: &[&str]) -> Answer {
    let port: u16 = argument(arguments, 0, "port")?;
    // The unspecified address of IPv6 takes IPv4 as well, where the kernel has both.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .map_err(|error| format!("listen on port {port}: {error}"))?;
    let port = listener.local_addr().map_err(|error| format!("address: {error}"))?.port();
    let child = fork_child(|| {
        for mut stream in listener.incoming().flatten() {
            if let Ok(peer) = stream.peer_addr() {
                // A client that went away early misses its greeting and nothing else.
                let _ = writeln!(stream, "hello {}", peer.ip().to_canonical());
            }
        }
        0
    })
    .map_err(|errno| format!("fork: {errno}"))?;
    Ok(json!({"pid": child.as_raw(), "port": port}))
}

/// `listen-abstract NAME`: a process that listens on an abstract unix socket.
pub(crate) fn listen_abstract(arguments: &[&str]) -> Answer {
    let name: String = argument(arguments, 0, "name")?;
    let address = unix::net::SocketAddr::from_abstract_name(&name)
        .map_err(|error| format!("name {name}: {error}"))?;
    let _listener = unix::net::UnixListener::bind_addr(&address)
        .map_err(|error| format!("listen on @{name}: {error}"))?;
    let child = fork_child(|| {
        loop {
            nix::unistd::pause();
        }
    })
    .map_err(|errno| format!("fork: {errno}"))?;
    Ok(json!({"pid": child.as_raw()}))
}

/// `connect ADDRESS PORT`: what the server says, or the name of the error.
pub(crate) fn connect(arguments: &[&str]) -> Answer {
    let address =
        SocketAddr::new(argument(arguments, 0, "address")?, argument(arguments, 1, "port")?);
    let answer = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    Ok(match answer {
        Ok(text) => json!({"reached": true, "text": text.trim()}),
        Err(error) => json!({
            "reached": false,
            "errno": error.raw_os_error().map_or_else(
                || format!("{:?}", error.kind()),
                |code| errno_name(Errno::from_raw(code)),
            ),
        }),
    })
}

/// `interfaces`: each interface with its state and IPv4 addresses, and the routes of the main table.
pub(crate) fn interfaces(_: &[&str]) -> Answer {
    let mut links: Map<String, Value> = Map::new();
    for address in getifaddrs().map_err(|errno| format!("list addresses: {errno}"))? {
        let up = address.flags.contains(InterfaceFlags::IFF_UP);
        let link = links
            .entry(address.interface_name)
            .or_insert_with(|| json!({"up": up, "addresses": []}));
        let ip = address.address.as_ref().and_then(|a| a.as_sockaddr_in()).map(SockaddrIn::ip);
        let mask = address.netmask.as_ref().and_then(|a| a.as_sockaddr_in()).map(SockaddrIn::ip);
        if let (Some(ip), Some(mask), Some(list)) = (ip, mask, link["addresses"].as_array_mut()) {
            list.push(json!(format!("{ip}/{}", mask.to_bits().count_ones())));
        }
    }
    Ok(json!({"links": links, "routes": routes()?}))
}

/// The IPv4 routes of `/proc/net/route`, whose addresses are hexadecimal numbers in host byte order.
fn routes() -> Result<Vec<Value>, String> {
    let path = "/proc/net/route";
    let table = std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
    let address = |text: &str| {
        u32::from_str_radix(text, 16)
            .map(|bits| Ipv4Addr::from(bits.to_ne_bytes()).to_string())
            .map_err(|error| format!("{path}: {text}: {error}"))
    };
    let mut routes = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [device, destination, gateway, _flags, _, _, _, mask, ..] = fields[..] {
            routes.push(json!({
                "device": device,
                "destination": address(destination)?,
                "gateway": address(gateway)?,
                "mask": address(mask)?,
            }));
        }
    }
    Ok(routes)
}
