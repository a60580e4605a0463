//! The veth pair of a container: `veth<hash>` on the bridge, `eth0` inside.

use super::Subnet;
use super::bridge::{add_address, index_of};
use super::netlink::{self, Asked};
use crate::error::Result;
use crate::explain;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

/// Name of the interface inside.
const INSIDE: &str = "eth0";

/// A container's place on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The bridge.
    pub bridge: String,
    /// The host's end.
    pub veth: String,
    /// Its addresses: one of IPv4, and one of IPv6 where the network has such a subnet.
    pub places: Vec<Place>,
    /// Whether the network leads nowhere: then there is no default route.
    pub is_internal: bool,
    /// The link address of the container's end.
    pub mac: [u8; 6],
    /// The ports that it has published, of each family.
    pub ports: Vec<super::publish::Published>,
}

/// An address and the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The network.
    pub subnet: Subnet,
    /// The container's address.
    pub address: IpAddr,
    /// The bridge's address.
    pub gateway: IpAddr,
}

impl Place {
    /// The address with the length of its prefix.
    pub(crate) fn interface(&self) -> String {
        format!("{}/{}", self.address, self.subnet.prefix())
    }
}

impl Endpoint {
    /// The place of the family that is asked for.
    pub(crate) fn place(&self, ipv4: bool) -> Option<&Place> {
        self.places.iter().find(|place| place.subnet.is_ipv4() == ipv4)
    }
}

/// A name for the host's end: eight digits that no earlier container of the same name has had, for that one's may
/// still be on its way out.
pub(crate) fn name() -> String {
    format!("veth{}", crate::id::random_hex(8))
}

/// Connects the network namespace of `pid`, in which `socket` was made, to the bridge.
pub(crate) fn connect(endpoint: &Endpoint, pid: i32, socket: OwnedFd) -> Result<()> {
    netlink::run(async {
        let host = netlink::host()?;
        // One message makes the pair, with the peer in the container's namespace and the host's end up and on the
        // bridge. The peer cannot be up yet: veth_open in drivers/net/veth.c refuses before the two are tied.
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(INSIDE)
            .address(endpoint.mac.to_vec())
            .append_extra_attribute(LinkAttribute::NetNsPid(pid.cast_unsigned()))
            .build();
        let pair = LinkVeth::new(&endpoint.veth, INSIDE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(index_of(&endpoint.bridge)?)
            .up()
            .build();
        let timer = explain::timer();
        host.link().add(pair).execute().await.asked("create veth pair", &endpoint.veth, "")?;
        let Endpoint { bridge, veth, .. } = endpoint;
        timer.note("veth", || {
            format!(
                "ip link add {veth} master {bridge} up type veth peer name {INSIDE} netns {pid}"
            )
        });

        let inside = netlink::through(socket);
        let index = netlink::find(&inside, INSIDE).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        let timer = explain::timer();
        inside.link().set(up).execute().await.asked("bring up", INSIDE, "")?;
        timer.note("link", || format!("nsenter -t {pid} -n ip link set {INSIDE} up"));
        for Place { subnet, address, .. } in &endpoint.places {
            let timer = explain::timer();
            add_address(&inside, index, *address, subnet.prefix(), "add address to", INSIDE)
                .await?;
            timer.note("address", || {
                let prefix = subnet.prefix();
                format!("nsenter -t {pid} -n ip address add {address}/{prefix} dev {INSIDE}")
            });
        }
        if endpoint.is_internal {
            return Ok(());
        }
        for Place { gateway, .. } in &endpoint.places {
            let route = match *gateway {
                IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                    .gateway(gateway)
                    .output_interface(index)
                    .build(),
                IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                    .gateway(gateway)
                    .output_interface(index)
                    .build(),
            };
            let timer = explain::timer();
            let added = inside.route().add(route).execute().await;
            added.asked("add default route by", INSIDE, "")?;
            timer.note("route", || {
                format!("nsenter -t {pid} -n ip route add default via {gateway}")
            });
        }
        Ok(())
    })
}
