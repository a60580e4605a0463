//! `linux.netDevices`: interfaces of the host that become the container's (runtime-spec 1.3, "Network Devices").
//!
//! They keep their addresses of global scope, which the kernel takes away when it moves an interface, and are up. When the
//! container's namespace goes, the kernel gives a physical one back to the host under the name that it has then; a virtual one
//! goes with the namespace.

use super::bridge::{add_address, index_of};
use super::netlink::{self, Asked};
use crate::error::{Error, Result};
use crate::explain;
use futures_util::TryStreamExt;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressScope};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// An interface that is to be moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Device {
    /// Its name on the host.
    host: String,
    /// Its name in the container.
    inside: String,
}

/// Those that `spec` asks for.
pub(crate) fn of(spec: &Spec) -> Result<Vec<Device>> {
    let linux = spec.linux().as_ref();
    let mut devices = Vec::new();
    for (host, device) in linux.and_then(|linux| linux.net_devices().as_ref()).into_iter().flatten()
    {
        let inside = device.name().clone().filter(|name| !name.is_empty());
        let inside = inside.unwrap_or_else(|| host.clone());
        for name in [host, &inside] {
            if !is_valid_name(name) {
                let reason =
                    "the name of an interface has 1 to 15 letters, neither / nor : nor blanks";
                return Err(Error::invalid("linux.netDevices", name.as_str(), reason));
            }
        }
        devices.push(Device { host: host.clone(), inside });
    }
    if devices.is_empty() {
        return Ok(devices);
    }
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    if !namespaces.into_iter().flatten().any(|one| one.typ() == LinuxNamespaceType::Network) {
        let reason = "the container has the host's network namespace, and its interfaces with it";
        return Err(Error::unsupported("linux.netDevices", reason));
    }
    if !rustix::process::geteuid().is_root() {
        let reason = "interfaces of the host are root's to move";
        return Err(Error::unsupported("linux.netDevices", reason));
    }
    for device in &devices {
        index_of(&device.host)?;
    }
    // A map has no order.
    devices.sort();
    Ok(devices)
}

/// Whether the kernel takes `name` (`dev_valid_name` in net/core/dev.c).
fn is_valid_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && ![".", ".."].contains(&name)
        && !name.bytes().any(|byte| b"/:".contains(&byte) || byte.is_ascii_whitespace())
}

/// Moves `devices` into the network namespace of `pid`, in which `socket` was made.
pub(crate) fn give(devices: &[Device], pid: i32, socket: OwnedFd) -> Result<()> {
    netlink::run(async {
        let host = netlink::host()?;
        let inside = netlink::through(socket);
        for device in devices {
            move_one(&host, &inside, device, pid).await?;
        }
        Ok(())
    })
}

async fn move_one(host: &Handle, inside: &Handle, device: &Device, pid: i32) -> Result<()> {
    let timer = explain::timer();
    let index = index_of(&device.host)?;
    let addresses = addresses(host, index, &device.host).await?;
    let message = LinkMessageBuilder::<LinkUnspec>::default()
        .index(index)
        .name(&device.inside)
        .append_extra_attribute(LinkAttribute::NetNsPid(pid.cast_unsigned()))
        .build();
    let hint = "some interfaces are bound to their namespace (ethtool -k: netns-local), and the name may be taken inside";
    host.link().set(message).execute().await.asked("move interface", &device.host, hint)?;
    let index = netlink::find(inside, &device.inside).await?;
    for (address, prefix) in addresses {
        add_address(inside, index, address, prefix, "add address to", &device.inside).await?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    inside.link().set(up).execute().await.asked("bring up", &device.inside, "")?;
    timer.note("device", || {
        format!("ip link set {} netns {pid} name {}", device.host, device.inside)
    });
    Ok(())
}

/// Its addresses of global scope, with the lengths of their prefixes.
async fn addresses(host: &Handle, index: u32, name: &str) -> Result<Vec<(IpAddr, u8)>> {
    let mut found = Vec::new();
    let mut all = host.address().get().set_link_index_filter(index).execute();
    while let Some(message) = all.try_next().await.asked("read addresses of", name, "")? {
        let is_ip = matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6);
        if !is_ip || message.header.scope != AddressScope::Universe {
            continue;
        }
        // IPv4 tells the own address apart from the other end's; IPv6 has only this one.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let other = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        found.extend(local.or(other).map(|address| (address, message.header.prefix_len)));
    }
    Ok(found)
}
