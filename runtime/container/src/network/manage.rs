//! Networks that somebody creates by name, lists and removes.

use super::lease::Leases;
use super::{
    Network, Subnet, all_networks, bridge, dismantle, is_interface_name, netlink, publish,
};
use crate::error::{Error, Result, Tried};
use crate::store::{Store, lock_shared};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// A network to be created, as `terrarium network create` was told.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    /// Its name, and the bridge's.
    pub name: String,
    /// `--subnet`, one of IPv4 and one of IPv6 at most; a free one of 10.78.0.0/16 to 10.127.0.0/16 if none of IPv4 is given.
    pub subnets: Vec<String>,
    /// `--gateway`, one for each subnet at most; the first address if not given.
    pub gateways: Vec<String>,
    /// `--ipv6`: a random unique local subnet (RFC 4193) if none of IPv6 is given.
    pub ipv6: bool,
    /// `--label KEY=VALUE`
    pub labels: BTreeMap<String, String>,
    /// `--internal`: nothing goes out of it.
    pub internal: bool,
}

/// What there is to say about a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInfo {
    /// Its name, and the bridge's.
    pub name: String,
    /// Its subnet.
    pub subnet: Subnet,
    /// The bridge's address.
    pub gateway: IpAddr,
    /// Its IPv6 subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<Subnet>,
    /// The bridge's IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<IpAddr>,
    /// Whether nothing goes out of it.
    pub internal: bool,
    /// Whether it stays without containers.
    pub kept: bool,
    /// Whether its bridge is somebody else's.
    pub adopted: bool,
    /// Labels that people gave.
    pub labels: BTreeMap<String, String>,
    /// The containers that have an address.
    pub containers: Vec<Member>,
}

/// A container of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The container.
    pub id: String,
    /// Its address.
    pub address: IpAddr,
    /// Its IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address6: Option<IpAddr>,
    /// Its published ports, as `0.0.0.0:8080->80/tcp`.
    pub ports: Vec<String>,
}

/// Creates a network: its description, that is. The bridge comes with its first container and goes with the last.
pub fn create_network(store: &Store, new: &NewNetwork) -> Result<NetworkInfo> {
    let name = new.name.as_str();
    if !is_interface_name(name) {
        let reason = "a bridge's name has 1 to 15 letters, digits and . _ -";
        return Err(Error::invalid("NAME", name, reason));
    }
    if !rustix::process::geteuid().is_root() {
        let reason = "interfaces of the host are root's to make";
        return Err(Error::unsupported("a network without root", reason));
    }
    let others = networks(store)?;
    let (mut ipv4, mut ipv6) = (None, None);
    for text in &new.subnets {
        let subnet = Subnet::parse(text)?;
        let place = if subnet.is_ipv4() { &mut ipv4 } else { &mut ipv6 };
        if place.replace(subnet).is_some() {
            let reason = "a network has one subnet of IPv4 and one of IPv6 at most";
            return Err(Error::invalid("--subnet", text, reason));
        }
        refuse_taken(subnet, &others)?;
    }
    let subnet = ipv4.map_or_else(|| free_subnet(&others), Ok)?;
    if ipv6.is_none() && new.ipv6 {
        ipv6 = Some(unique_local_subnet()?);
    }
    let (mut gateway4, mut gateway6) = (None, None);
    for text in &new.gateways {
        let address: IpAddr = text
            .parse()
            .map_err(|_| Error::invalid("--gateway", text, "it is an IPv4 or IPv6 address"))?;
        let place = if address.is_ipv4() { &mut gateway4 } else { &mut gateway6 };
        let subnet = if address.is_ipv4() { Some(subnet) } else { ipv6 };
        if place.replace(gateway(address, subnet)?).is_some() {
            return Err(Error::invalid("--gateway", text, "a subnet has one gateway"));
        }
    }
    let folder = lock_shared(&all_networks(store).join(name))?;
    if Network::read(folder.path())?.is_some() {
        return Err(Error::unsupported(
            format!("a network {name}"),
            "there is one (`terrarium network list` shows it; `network remove` removes it)",
        ));
    }
    if bridge::exists_link(name) {
        folder.remove()?;
        return Err(bridge::foreign(name));
    }
    let network = Network {
        kept: true,
        internal: new.internal,
        gateway: gateway4.filter(|gateway| *gateway != subnet.gateway()),
        gateway6: gateway6.filter(|gateway| ipv6.is_some_and(|s| s.gateway() != *gateway)),
        subnet6: ipv6,
        labels: new.labels.clone(),
        ..Network::on_demand(name, subnet)
    };
    network.write(folder.path())?;
    Ok(info(&network, Vec::new()))
}

/// All networks, by name.
pub fn networks(store: &Store) -> Result<Vec<NetworkInfo>> {
    let path = all_networks(store);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.tried("read", &path)?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let folder = entry.tried("read", &path)?.path();
        // One that is just being made or removed has none.
        if let Some(network) = Network::read(&folder)? {
            all.push(info(&network, members(&folder)?));
        }
    }
    all.sort_by(|one: &NetworkInfo, two| one.name.cmp(&two.name));
    Ok(all)
}

/// Removes a network that no container uses.
pub fn remove_network(store: &Store, name: &str) -> Result<()> {
    let path = all_networks(store).join(name);
    let none = || Error::unsupported(format!("network {name}"), "there is none of this name");
    if !is_interface_name(name) || !path.exists() {
        return Err(none());
    }
    let folder = lock_shared(&path)?;
    let network = Network::read(folder.path())?.ok_or_else(none)?;
    if let Some(member) = members(folder.path())?.first() {
        let reason = format!("container {} uses it (remove its containers first)", member.id);
        return Err(Error::unsupported(format!("removing network {name}"), reason));
    }
    let network = Network { kept: false, ..network };
    network.write(folder.path())?;
    dismantle(store, folder, name)
}

/// Removes the networks that somebody has created and no container uses, of those that have all of `labels` (`KEY` or
/// `KEY=VALUE`). Returns their names.
pub fn prune_networks(store: &Store, labels: &[String]) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for network in networks(store)? {
        let fits = labels.iter().all(|label| match label.split_once('=') {
            Some((key, value)) => network.labels.get(key).is_some_and(|found| found == value),
            None => network.labels.contains_key(label),
        });
        if !network.kept || !network.containers.is_empty() || !fits {
            continue;
        }
        match remove_network(store, &network.name) {
            Ok(()) => removed.push(network.name),
            // A container or somebody else who removes came first.
            Err(Error::Unsupported { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn info(network: &Network, containers: Vec<Member>) -> NetworkInfo {
    let places = network.places();
    let place = |ipv4| places.iter().find(|(subnet, _)| subnet.is_ipv4() == ipv4);
    NetworkInfo {
        name: network.bridge.clone(),
        subnet: network.subnet,
        gateway: place(true).map_or_else(|| network.subnet.gateway(), |(_, gateway)| *gateway),
        subnet6: network.subnet6,
        gateway6: place(false).map(|(_, gateway)| *gateway),
        internal: network.internal,
        kept: network.kept,
        adopted: network.adopted,
        labels: network.labels.clone(),
        containers,
    }
}

fn members(folder: &Path) -> Result<Vec<Member>> {
    // A network that nobody has used yet has no leases.
    if !folder.join("leases").exists() {
        return Ok(Vec::new());
    }
    let published = publish::Register::of(folder).all()?;
    let ports = |id: &str| {
        let entries = published.iter().filter(|(owner, _)| owner == id);
        entries.flat_map(|(_, entry)| entry.ports.iter().map(ToString::to_string)).collect()
    };
    let mut members: Vec<Member> = Vec::new();
    // Those of IPv4 come first, one for each container.
    for (address, id) in Leases::open(folder)?.all()? {
        match members.iter_mut().find(|member| address.is_ipv6() && member.id == id) {
            Some(member) => member.address6 = Some(address),
            None => members.push(Member { ports: ports(&id), id, address, address6: None }),
        }
    }
    Ok(members)
}

fn gateway(address: IpAddr, subnet: Option<Subnet>) -> Result<IpAddr> {
    let text = address.to_string();
    let Some(subnet) = subnet else {
        let reason = "the network has no IPv6 subnet (--ipv6 or --subnet gives it one)";
        return Err(Error::invalid("--gateway", text, reason));
    };
    if address != subnet.gateway() && !subnet.has_host(address) {
        let reason = format!("it is not a host's address of {subnet}");
        return Err(Error::invalid("--gateway", text, reason));
    }
    Ok(address)
}

fn refuse_taken(subnet: Subnet, others: &[NetworkInfo]) -> Result<()> {
    if let Some(other) = others.iter().find(|other| other.subnet.overlaps(subnet)) {
        return Err(Error::unsupported(
            format!("subnet {subnet}"),
            format!("network {} has {} (choose another with --subnet)", other.name, other.subnet),
        ));
    }
    netlink::run(async { bridge::refuse_overlap(&netlink::host()?, subnet).await })
}

/// The first of 10.78.0.0/16 to 10.127.0.0/16 that neither a network nor a route of the host has.
fn free_subnet(others: &[NetworkInfo]) -> Result<Subnet> {
    let mut last = None;
    for number in 78..128 {
        let subnet = Subnet::v4(Ipv4Addr::new(10, number, 0, 0), 16);
        match refuse_taken(subnet, others) {
            Ok(()) => return Ok(subnet),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("fifty were tried"))
}

/// A random /64 of `fd00::/8`: RFC 4193, section 3.2, with subnet 0.
fn unique_local_subnet() -> Result<Subnet> {
    let id = crate::id::random_hex(10);
    Subnet::parse(&format!("fd{}:{}:{}::/64", &id[..2], &id[2..6], &id[6..]))
}
