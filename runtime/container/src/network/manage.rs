//! Networks that somebody creates by name, lists and removes.

use super::lease::Leases;
use super::{
    Network, Subnet, all_networks, bridge, dismantle, is_interface_name, netlink, publish,
};
use crate::error::{Error, Result, Tried};
use crate::store::{Store, lock_shared};
use serde::Serialize;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::Path;

/// A network to be created, as `terrarium network create` was told.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    /// Its name, and the bridge's.
    pub name: String,
    /// `--subnet`; a free one of 10.78.0.0/16 to 10.127.0.0/16 if not given.
    pub subnet: Option<String>,
    /// `--gateway`; the first address if not given.
    pub gateway: Option<String>,
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
    pub gateway: Ipv4Addr,
    /// Whether nothing goes out of it.
    pub internal: bool,
    /// Whether it stays without containers.
    pub kept: bool,
    /// The containers that have an address.
    pub containers: Vec<Member>,
}

/// A container of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The container.
    pub id: String,
    /// Its address.
    pub address: Ipv4Addr,
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
    let subnet = match &new.subnet {
        Some(text) => {
            let subnet = Subnet::parse(text)?;
            refuse_taken(subnet, &others)?;
            subnet
        }
        None => free_subnet(&others)?,
    };
    let gateway = new.gateway.as_deref().map(|text| gateway(text, subnet)).transpose()?;
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
        gateway: gateway.filter(|gateway| *gateway != subnet.gateway()),
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

fn info(network: &Network, containers: Vec<Member>) -> NetworkInfo {
    NetworkInfo {
        name: network.bridge.clone(),
        subnet: network.subnet,
        gateway: network.gateway(),
        internal: network.internal,
        kept: network.kept,
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
    let leases = Leases::open(folder)?.all()?;
    Ok(leases.into_iter().map(|(address, id)| Member { ports: ports(&id), id, address }).collect())
}

fn gateway(text: &str, subnet: Subnet) -> Result<Ipv4Addr> {
    let address: Ipv4Addr =
        text.parse().map_err(|_| Error::invalid("--gateway", text, "it is an IPv4 address"))?;
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
        let subnet = Subnet { address: Ipv4Addr::new(10, number, 0, 0), prefix: 16 };
        match refuse_taken(subnet, others) {
            Ok(()) => return Ok(subnet),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("fifty were tried"))
}
