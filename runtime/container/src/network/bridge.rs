//! Bridges: made with the first container of a network, removed with the last.

use super::Subnet;
use super::netlink::{self, Asked, answer};
use crate::error::{Error, Result};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, RouteMessageBuilder};
use std::net::Ipv4Addr;
use std::path::Path;

/// Makes bridge `name` with the address `gateway` in `subnet`, up. One that exists from an earlier, crashed attempt is
/// completed.
pub(crate) async fn ensure(
    handle: &Handle,
    name: &str,
    subnet: Subnet,
    gateway: Ipv4Addr,
) -> Result<()> {
    if let Some(link) = find(handle, name).await? {
        if !is_own(&link, subnet) {
            return Err(foreign(name));
        }
    } else {
        refuse_overlap(handle, subnet).await?;
        let bridge = LinkBridge::new(name)
            // Else the kernel takes the lowest address of the ports, which changes with every container that
            // comes and goes, and the containers' ARP caches go stale.
            .address(bridge_mac(subnet).to_vec())
            .up()
            .build();
        handle.link().add(bridge).execute().await.asked("create bridge", name, "")?;
    }
    let index = index_of(name)?;
    let address = handle.address().add(index, gateway.into(), subnet.prefix());
    match address.execute().await {
        Err(error) if answer(&error).raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result.asked("add gateway address to bridge", name, ""),
    }
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

/// Link address of the bridge of `subnet`: locally administered, and not of the form that engines give.
fn bridge_mac(subnet: Subnet) -> [u8; 6] {
    let [a, b, c, d] = subnet.gateway().octets();
    [0x76, 0x74, a, b, c, d]
}

/// Refuses a subnet that the host has a route to already: containers would take its traffic.
pub(crate) async fn refuse_overlap(handle: &Handle, subnet: Subnet) -> Result<()> {
    let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
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

/// Destination of an IPv4 route; none for the default route.
fn destination(route: &RouteMessage) -> Option<Subnet> {
    if route.header.address_family != AddressFamily::Inet
        || route.header.destination_prefix_length == 0
    {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Some(Subnet { address: *address, prefix: route.header.destination_prefix_length })
        }
        _ => None,
    })
}

fn interface_name(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
}

/// A locally administered address derived from an IPv4 address, which makes it unique in its network.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
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
