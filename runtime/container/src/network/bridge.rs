//! Bridges: made with the first container of a network, removed with the last.

use super::Subnet;
use super::netlink::{self, Asked, answer};
use super::subnet::octets;
use crate::error::{Error, Result};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, RouteMessageBuilder};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Makes bridge `name` with the gateways' addresses, up. One that exists from an earlier, crashed attempt is
/// completed. The first of `places` (a subnet and its gateway) is of IPv4.
pub(crate) async fn ensure(handle: &Handle, name: &str, places: &[(Subnet, IpAddr)]) -> Result<()> {
    let Some(&(subnet, _)) = places.first() else { return Ok(()) };
    if let Some(link) = find(handle, name).await? {
        if !is_own(&link, subnet) {
            return Err(foreign(name));
        }
    } else {
        for (subnet, _) in places {
            refuse_overlap(handle, *subnet).await?;
        }
        let bridge = LinkBridge::new(name)
            // Else the kernel takes the lowest address of the ports, which changes with every container that
            // comes and goes, and the containers' ARP caches go stale.
            .address(bridge_mac(subnet).to_vec())
            .up()
            .build();
        handle.link().add(bridge).execute().await.asked("create bridge", name, "")?;
    }
    configure_ipv6(name, places.iter().any(|(subnet, _)| !subnet.is_ipv4()));
    let index = index_of(name)?;
    for (subnet, gateway) in places {
        add_address(
            handle,
            index,
            *gateway,
            subnet.prefix(),
            "add gateway address to bridge",
            name,
        )
        .await?;
    }
    Ok(())
}

/// Gives the interface `index`, called `name`, an address; one that it has is as good.
///
/// That nobody else has it is known from the leases: an IPv6 address is used at once, without the second in which the
/// kernel would look for others (`IFA_F_NODAD`, `linux/if_addr.h`).
pub(crate) async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
    tried: &'static str,
    name: &str,
) -> Result<()> {
    let mut request = handle.address().add(index, address, prefix);
    if address.is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    match request.execute().await {
        Err(error) if answer(&error).raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result.asked(tried, name, ""),
    }
}

/// Keeps containers from configuring the host's IPv6 by router advertisements on its bridge (CVE-2020-13401). Where
/// the network has no IPv6 subnet, the bridge takes no IPv6 packet at all.
///
/// The bridge's link-local address is used at once: as long as the kernel looked for others that have it, it could not
/// ask for the container that a forwarded packet is for (`ndisc_solicit` in net/ipv6/ndisc.c).
fn configure_ipv6(name: &str, has_ipv6: bool) {
    let conf = Path::new("/proc/sys/net/ipv6/conf").join(name);
    let settings: &[_] = if has_ipv6 {
        &[("accept_ra", "0"), ("accept_dad", "0")]
    } else {
        &[("disable_ipv6", "1")]
    };
    for (file, value) in settings {
        // A kernel without IPv6 has no such file. Where /proc/sys is read-only, the host forwards IPv6 only if it did
        // before, and what is lost is that containers may then advertise themselves to it.
        let _ = std::fs::write(conf.join(file), value);
    }
}

/// The addresses that the existing bridge `name` has, each with its subnet; an error if it is no bridge, one of
/// terrarium's own, or without an IPv4 address.
pub(crate) fn adopt(name: &str) -> Result<Vec<(Subnet, IpAddr)>> {
    netlink::run(async {
        let handle = netlink::host()?;
        let link = find(&handle, name).await?.ok_or_else(|| foreign(name))?;
        if is_anybodys_of_ours(&link) {
            return Err(foreign(name));
        }
        if !is_bridge(&link) {
            let reason = "an interface of this name exists, and it is no bridge (choose another with --net bridge:NAME)";
            return Err(Error::unsupported(format!("bridge {name}"), reason));
        }
        let mut places: Vec<(Subnet, IpAddr)> = Vec::new();
        let filter = handle.address().get().set_link_index_filter(link.header.index);
        let mut addresses = filter.execute();
        while let Some(message) = addresses.try_next().await.asked("list addresses of", name, "")? {
            // Of a peer-to-peer address the local part; else the two are the same, or only the second is there.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = local.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            let subnet = address.and_then(|a| Subnet::around(a, message.header.prefix_len));
            if let (Some(address), Some(subnet)) = (address, subnet)
                && places.iter().all(|(other, _)| other.is_ipv4() != subnet.is_ipv4())
            {
                places.push((subnet, address));
            }
        }
        places.sort_by_key(|(subnet, _)| !subnet.is_ipv4());
        if places.first().is_none_or(|(subnet, _)| !subnet.is_ipv4()) {
            return Err(Error::unsupported(
                format!("bridge {name}"),
                format!(
                    "it was not made by terrarium, and has no IPv4 address with room for containers \
                     (`ip address add 10.99.0.1/24 dev {name}` gives one)"
                ),
            ));
        }
        Ok(places)
    })
}

/// The addresses that the host's neighbour table knows on bridge `name`: somebody has them.
pub(crate) fn neighbours(name: &str) -> Result<HashSet<IpAddr>> {
    netlink::run(async {
        let handle = netlink::host()?;
        let index = index_of(name)?;
        let mut known = HashSet::new();
        let mut entries = handle.neighbours().get().execute();
        while let Some(entry) = entries.try_next().await.asked("list neighbours on", name, "")? {
            if entry.header.ifindex != index {
                continue;
            }
            known.extend(entry.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                    Some(IpAddr::V4(*address))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                    Some(IpAddr::V6(*address))
                }
                _ => None,
            }));
        }
        Ok(known)
    })
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)))
        }
        _ => false,
    })
}

/// Whether some state root of terrarium's has made `link`: leases are known to that one alone.
fn is_anybodys_of_ours(link: &LinkMessage) -> bool {
    link.attributes
        .iter()
        .any(|a| matches!(a, LinkAttribute::Address(mac) if mac.starts_with(&BRIDGE_MAC)))
}

/// Lets packets from the host's loopback addresses out by the bridge `name`, so that a published port is reached there; what
/// comes in by it for such an address is dropped by a rule.
pub(crate) fn route_loopback(name: &str) -> Result<()> {
    use crate::error::Tried;
    let path = Path::new("/proc/sys/net/ipv4/conf").join(name).join("route_localnet");
    std::fs::write(&path, "1").tried("write", &path)
}

/// Whether an interface `name` exists.
pub(crate) fn exists_link(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

/// Index of the interface `name`.
pub(crate) fn index_of(name: &str) -> Result<u32> {
    use crate::error::Tried;
    nix::net::if_::if_nametoindex(name).tried("find interface", name)
}

/// The error for an interface that is not ours.
pub(crate) fn foreign(name: &str) -> Error {
    Error::unsupported(
        format!("bridge {name}"),
        "an interface of this name exists and was not made by this state root \
         (choose another with --net bridge:NAME)",
    )
}

/// Removes the interface `name`; one that does not exist is removed already.
pub(crate) async fn remove(handle: &Handle, name: &str) -> Result<()> {
    let Ok(index) = nix::net::if_::if_nametoindex(name) else { return Ok(()) };
    match handle.link().del(index).execute().await {
        Err(error) if answer(&error).raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result.asked("remove interface", name, "`terrarium gc` tries again"),
    }
}

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Err(error) if answer(&error).raw_os_error() == Some(libc::ENODEV) => Ok(None),
        result => result.asked("find interface", name, ""),
    }
}

/// Whether `link` is the bridge that terrarium makes for `subnet`; its link address says so.
fn is_own(link: &LinkMessage, subnet: Subnet) -> bool {
    let own = bridge_mac(subnet);
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::Address(mac) if *mac == own))
}

/// How the link address of a bridge of terrarium's begins.
const BRIDGE_MAC: [u8; 2] = [0x76, 0x74];

/// Link address of the bridge of `subnet`: locally administered, and not of the form that engines give.
fn bridge_mac(subnet: Subnet) -> [u8; 6] {
    mac(BRIDGE_MAC, subnet.gateway())
}

/// `first`, and the last four bytes of `address`.
fn mac(first: [u8; 2], address: IpAddr) -> [u8; 6] {
    let mut mac = [first[0], first[1], 0, 0, 0, 0];
    for (to, from) in mac.iter_mut().rev().zip(octets(address).iter().rev()).take(4) {
        *to = *from;
    }
    mac
}

/// Refuses a subnet that the host has a route to already: containers would take its traffic.
pub(crate) async fn refuse_overlap(handle: &Handle, subnet: Subnet) -> Result<()> {
    let filter = if subnet.is_ipv4() {
        RouteMessageBuilder::<Ipv4Addr>::new().build()
    } else {
        RouteMessageBuilder::<Ipv6Addr>::new().build()
    };
    let mut routes = handle.route().get(filter).execute();
    while let Some(route) = routes.try_next().await.asked("list", "routes", "")? {
        let Some(destination) = destination(&route) else { continue };
        if !destination.overlaps(subnet) {
            continue;
        }
        let device = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => interface_name(*index),
            _ => None,
        });
        return Err(Error::unsupported(
            format!("subnet {subnet}"),
            format!(
                "the host has a route to {destination} by {} (choose another with --subnet)",
                device.as_deref().unwrap_or("another interface")
            ),
        ));
    }
    Ok(())
}

/// Destination of an IPv4 or IPv6 route; none for the default route.
fn destination(route: &RouteMessage) -> Option<Subnet> {
    let prefix = route.header.destination_prefix_length;
    if prefix == 0 {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Some(Subnet::destination(IpAddr::V4(*address), prefix))
        }
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
            Some(Subnet::destination(IpAddr::V6(*address), prefix))
        }
        _ => None,
    })
}

fn interface_name(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
}

/// A locally administered address derived from an IPv4 address, which makes it unique in its network.
pub(crate) fn mac_of(address: IpAddr) -> [u8; 6] {
    mac([0x02, 0x42], address)
}

/// Removes the bridge `name` if terrarium made it.
pub(crate) fn remove_own(name: &str, subnet: Subnet) -> Result<()> {
    if !exists_link(name) {
        return Ok(());
    }
    netlink::run(async {
        let handle = netlink::host()?;
        match find(&handle, name).await? {
            Some(link) if is_own(&link, subnet) => remove(&handle, name).await,
            _ => Ok(()),
        }
    })
}
