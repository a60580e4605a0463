//! Networks: what a container asks for, and how it gets a place on a bridge.
//!
//! A network is a folder `networks/<bridge>` below the state root: `network.json`, and a file for each lease. It is
//! worked on under a lock on that folder. The bridge, its nftables table and the forwarding setting are made with the
//! first lease and removed with the last; `network.json` is written before, so that [`gc`] finds what a crash left. That of a
//! network that `terrarium network create` made stays, until `network remove`.

mod bridge;
mod details;
pub(crate) mod devices;
pub(crate) mod files;
mod forwarding;
mod lease;
pub(crate) mod loopback;
mod manage;
mod netlink;
mod nft;
pub(crate) mod publish;
mod subnet;
pub(crate) mod userspace;
pub(crate) mod veth;

use crate::error::{Error, Result, Tried};
use crate::explain;
use crate::id::ContainerId;
use crate::state::write_atomically;
use crate::store::{JournalNetwork, LockedFolder, Store, lock_shared};
pub(crate) use details::Details;
pub use details::NetworkOptions;
use forwarding::Family;
use lease::{Leases, Taken};
pub use manage::{
    Member, NetworkInfo, NewNetwork, create_network, networks, prune_networks, remove_network,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
pub use subnet::Subnet;
pub use userspace::Carrier;
use veth::{Endpoint, Place};

/// The annotation that carries the network of a container.
pub const ANNOTATION: &str = "io.terrarium.network";

/// The annotation that carries the subnet of a bridge that does not exist yet.
pub const ANNOTATION_SUBNET: &str = "io.terrarium.network.subnet";

/// The bridge of `--net bridge`.
pub const DEFAULT_BRIDGE: &str = "terra0";

/// The subnet of a bridge unless it is told otherwise.
pub const DEFAULT_SUBNET: Subnet = Subnet::v4(Ipv4Addr::new(10, 77, 0, 0), 16);

/// How a container is to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkRequest {
    /// A namespace of its own with `lo` and nothing else.
    None,
    /// The host's namespace.
    Host,
    /// An existing namespace.
    Path(PathBuf),
    /// A namespace whose packets a program of the caller's carries.
    Userspace(Carrier),
    /// A bridge on the host.
    Bridge {
        /// The bridge's name.
        name: String,
        /// Its subnet, if it was said.
        subnet: Option<Subnet>,
    },
}

impl NetworkRequest {
    /// Reads `none`, `host`, `bridge`, `bridge:NAME`, `pasta`, `slirp4netns` or `ns:PATH`, and a subnet; nothing means `none`.
    pub fn parse(network: Option<&str>, subnet: Option<&str>) -> Result<Self> {
        let subnet = subnet.map(Subnet::parse).transpose()?;
        if let Some(subnet) = subnet.filter(|subnet| !subnet.is_ipv4()) {
            let reason = "the subnet of a bridge that nobody has created is of IPv4 (`network create --subnet` takes both)";
            return Err(Error::invalid("--subnet", subnet.to_string(), reason));
        }
        let network = network.unwrap_or("none");
        let request = match network.split_once(':') {
            None => match network {
                "none" => Self::None,
                "host" => Self::Host,
                "bridge" => Self::Bridge { name: DEFAULT_BRIDGE.into(), subnet },
                _ => Self::Userspace(Carrier::named(network).ok_or_else(|| unknown(network))?),
            },
            Some(("bridge", name)) => {
                if !is_interface_name(name) {
                    let reason = "a bridge's name has 1 to 15 letters, digits and . _ -";
                    return Err(Error::invalid("--net", network, reason));
                }
                Self::Bridge { name: name.to_owned(), subnet }
            }
            Some(("ns", path)) if path.starts_with('/') => Self::Path(path.into()),
            Some(_) => return Err(unknown(network)),
        };
        match (&request, subnet) {
            (Self::Bridge { .. }, _) | (_, None) => Ok(request),
            (_, Some(subnet)) => {
                Err(Error::invalid("--subnet", subnet.to_string(), "it needs --net bridge"))
            }
        }
    }

    /// Writes the request into a spec's annotations.
    pub(crate) fn annotate(&self, annotations: &mut HashMap<String, String>) {
        let text = match self {
            Self::None => return,
            Self::Host => "host".to_owned(),
            Self::Userspace(carrier) => carrier.name().to_owned(),
            Self::Path(path) => format!("ns:{}", path.display()),
            Self::Bridge { name, subnet } => {
                if let Some(subnet) = subnet {
                    annotations.insert(ANNOTATION_SUBNET.to_owned(), subnet.to_string());
                }
                format!("bridge:{name}")
            }
        };
        annotations.insert(ANNOTATION.to_owned(), text);
    }

    /// Whether the container has the host's network namespace.
    pub(crate) fn shares_host(&self) -> bool {
        matches!(self, Self::Host)
    }

    /// The namespace to join.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            _ => None,
        }
    }

    /// The word in state.json.
    pub(crate) fn mode(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
            Self::Path(_) => "path",
            Self::Userspace(carrier) => carrier.name(),
            Self::Bridge { .. } => "bridge",
        }
    }
}

fn unknown(network: &str) -> Error {
    Error::invalid(
        "--net",
        network,
        "unknown network; known are none, host, bridge, bridge:NAME, container:ID, pasta, slirp4netns and ns:PATH",
    )
}

/// Whether the kernel and nftables take `name` as an interface's (`dev_valid_name` in net/core/dev.c, and less).
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// `network.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Network {
    /// Version of the format: 1.
    version: u32,
    /// The bridge.
    bridge: String,
    /// Its IPv4 subnet; the gateway is the first address.
    subnet: Subnet,
    /// Its IPv6 subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subnet6: Option<Subnet>,
    /// Whether bridge, table and setting were made.
    ready: bool,
    /// Whether it stays without containers: somebody has created it.
    #[serde(default)]
    kept: bool,
    /// Whether nothing goes out of it.
    #[serde(default)]
    internal: bool,
    /// Whether the bridge is somebody else's: nothing of it is made, changed or removed.
    #[serde(default)]
    adopted: bool,
    /// The bridge's address, where it is not the first of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    /// The bridge's IPv6 address, where it is not the first of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway6: Option<IpAddr>,
    /// Labels that people gave.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl Network {
    const FILE: &'static str = "network.json";

    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                Self::from_json(&bytes).map(Some).map_err(|why| Error::Malformed { path, why })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).tried("read", &path),
        }
    }

    /// Reads the file's text; its subnets are of the family that their field says.
    fn from_json(bytes: &[u8]) -> serde_json::Result<Self> {
        let network: Self = serde_json::from_slice(bytes)?;
        let fits = |address: Option<IpAddr>, ipv4| address.is_none_or(|a| a.is_ipv4() == ipv4);
        if network.subnet.is_ipv4()
            && network.subnet6.is_none_or(|subnet| !subnet.is_ipv4())
            && fits(network.gateway, true)
            && fits(network.gateway6, false)
            && is_interface_name(&network.bridge)
        {
            Ok(network)
        } else {
            Err(serde::de::Error::custom("a subnet, gateway or name is not what its field holds"))
        }
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("a network is plain data");
        write_atomically(&folder.join(Self::FILE), &bytes, 0o644)
    }

    /// The network of `--net bridge:NAME` where nobody has created one.
    fn on_demand(bridge: &str, subnet: Subnet) -> Self {
        Self {
            version: 1,
            bridge: bridge.to_owned(),
            subnet,
            subnet6: None,
            ready: false,
            kept: false,
            internal: false,
            adopted: false,
            gateway: None,
            gateway6: None,
            labels: BTreeMap::new(),
        }
    }

    /// The network of a bridge that somebody else has made: its addresses are those of the bridge's own subnets.
    fn adopted(bridge: &str) -> Result<Self> {
        let places = bridge::adopt(bridge)?;
        let place = |ipv4| places.iter().find(|(subnet, _)| subnet.is_ipv4() == ipv4);
        let (subnet, gateway) = *place(true).ok_or_else(|| bridge::foreign(bridge))?;
        let ipv6 = place(false);
        Ok(Self {
            adopted: true,
            gateway: Some(gateway),
            subnet6: ipv6.map(|(subnet, _)| *subnet),
            gateway6: ipv6.map(|(_, gateway)| *gateway),
            ..Self::on_demand(bridge, subnet)
        })
    }

    /// Its subnets, each with the bridge's address: that of IPv4 first.
    fn places(&self) -> Vec<(Subnet, IpAddr)> {
        let mut places = vec![(self.subnet, self.gateway.unwrap_or_else(|| self.subnet.gateway()))];
        if let Some(subnet) = self.subnet6 {
            places.push((subnet, self.gateway6.unwrap_or_else(|| subnet.gateway())));
        }
        places
    }

    /// Makes what the network consists of.
    fn make(&self, folder: &Path) -> Result<()> {
        if self.adopted {
            // One that has gone meanwhile is not terrarium's to make.
            return bridge::index_of(&self.bridge).map(|_| ());
        }
        let timer = explain::timer();
        netlink::run(async {
            bridge::ensure(&netlink::host()?, &self.bridge, &self.places()).await
        })?;
        let (bridge, gateway, prefix) = (
            &self.bridge,
            self.gateway.unwrap_or_else(|| self.subnet.gateway()),
            self.subnet.prefix(),
        );
        timer.note("bridge", || {
            format!(
                "ip link add {bridge} up type bridge && ip address add {gateway}/{prefix} dev {bridge}"
            )
        });
        let timer = explain::timer();
        self.make_rules(folder)?;
        timer.note("nftables", || {
            let table = nft::table_name(bridge);
            format!(
                "nft add table ip {table} && nft add chain ip {table} postrouting '{{ type nat hook postrouting \
                 priority srcnat; }}' && nft add rule ip {table} postrouting ip saddr {} oifname != {bridge} masquerade",
                self.subnet
            )
        });
        forwarding::acquire(&self.bridge, Family::Ipv4)?;
        if self.subnet6.is_some() {
            forwarding::acquire(&self.bridge, Family::Ipv6)?;
        }
        Ok(())
    }

    /// Makes the rules, in place of those that are there.
    fn make_rules(&self, folder: &Path) -> Result<()> {
        let published = publish::Register::of(folder).all()?;
        if !published.is_empty() {
            bridge::route_loopback(&self.bridge)?;
        }
        let subnets: Vec<_> = self.places().iter().map(|(subnet, _)| *subnet).collect();
        nft::create(&self.bridge, &subnets, self.internal, &published)
    }

    /// What others than terrarium's containers have of its addresses.
    fn taken(&self) -> Result<Taken> {
        if !self.adopted {
            return Ok(Taken::default());
        }
        Ok(Taken { addresses: bridge::neighbours(&self.bridge)?, shared: true })
    }
}

/// Folder of all networks.
fn all_networks(store: &Store) -> PathBuf {
    store.root().join("networks")
}

/// Gives container `id` a place on `bridge`, which is made if this is its first user.
pub(crate) fn acquire(
    store: &Store,
    id: &ContainerId,
    bridge: &str,
    subnet: Option<Subnet>,
    details: &Details,
    veth: &str,
) -> Result<Endpoint> {
    let folder = lock_shared(&all_networks(store).join(bridge))?;
    let mut network = match Network::read(folder.path())? {
        Some(network) => network,
        None if bridge::exists_link(bridge) => match Network::adopted(bridge) {
            Ok(network) => network,
            Err(error) => {
                folder.remove()?;
                return Err(error);
            }
        },
        None => Network::on_demand(bridge, subnet.unwrap_or(DEFAULT_SUBNET)),
    };
    if let Some(subnet) = subnet.filter(|subnet| *subnet != network.subnet) {
        return Err(Error::unsupported(
            format!("subnet {subnet} on bridge {bridge}"),
            format!(
                "the bridge is in use with {} (leave --subnet out, or choose another bridge)",
                network.subnet
            ),
        ));
    }
    let taken = take(store, &folder, &mut network, id, details);
    match taken {
        Ok((places, ports)) => Ok(Endpoint {
            is_internal: network.internal,
            bridge: network.bridge,
            veth: veth.to_owned(),
            mac: details.mac.unwrap_or_else(|| {
                bridge::mac_of(places.first().map_or(network.subnet.address(), |p| p.address))
            }),
            places,
            ports,
        }),
        Err(error) => {
            // The first error is what the user needs; gc tries again what fails here.
            let _ = release_lease(store, folder, bridge, id, &[]);
            Err(error)
        }
    }
}

fn take(
    store: &Store,
    folder: &LockedFolder,
    network: &mut Network,
    id: &ContainerId,
    details: &Details,
) -> Result<(Vec<Place>, Vec<publish::Published>)> {
    let refuse = |what: String, why: &'static str| Err(Error::unsupported(what, why));
    if let (Some(address), None) = (details.ip6, network.subnet6) {
        let why = "the network has no IPv6 (`network create --ipv6` makes one that has)";
        return refuse(format!("address {address}"), why);
    }
    if network.adopted
        && let Some(port) = details.publish.first()
    {
        let why = "the firewall of a bridge that terrarium has not made is its maker's (use a network of terrarium's, or \
                   the container's address)";
        return refuse(format!("publishing {port} on bridge {}", network.bridge), why);
    }
    let ports = publish::of_families(&details.publish, network.subnet6.is_some())?;
    if !network.ready {
        network.write(folder.path())?;
    }
    let leases = Leases::open(folder.path())?;
    let taken = network.taken()?;
    let mut places = Vec::new();
    for (subnet, gateway) in network.places() {
        let wanted = if subnet.is_ipv4() {
            details.ip.map(IpAddr::from)
        } else {
            details.ip6.map(IpAddr::from)
        };
        let address = match wanted {
            Some(address) => leases.take_this(subnet, gateway, id, address)?,
            None => leases.take(subnet, gateway, id, &taken)?,
        };
        places.push(Place { subnet, address, gateway });
    }
    let publishes = !ports.is_empty();
    if publishes {
        // Ports are the host's: no network may give one that another is about to give.
        let all = lock_shared(&all_networks(store))?;
        publish::check_free(&ports, &published_by_all(all.path())?)?;
        let register = publish::Register::of(folder.path());
        register.note(id, &publish::Entry::of(&places, ports.clone()))?;
    }
    if !network.ready || !bridge::exists_link(&network.bridge) {
        network.make(folder.path())?;
        network.ready = true;
        network.write(folder.path())?;
    } else if publishes {
        network.make_rules(folder.path())?;
    }
    Ok((places, ports))
}

/// The published ports of every network in `folder`.
fn published_by_all(folder: &Path) -> Result<Vec<(String, publish::Entry)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).tried("read", folder)? {
        all.extend(publish::Register::of(&entry.tried("read", folder)?.path()).all()?);
    }
    Ok(all)
}

/// Releases the place of container `id`. The veth pair goes with the container's network namespace.
pub(crate) fn release(
    store: &Store,
    id: &ContainerId,
    place: &JournalNetwork,
    addresses: &[IpAddr],
) -> Result<()> {
    let path = all_networks(store).join(&place.bridge);
    if !path.exists() {
        return Ok(());
    }
    release_lease(store, lock_shared(&path)?, &place.bridge, id, addresses)
}

fn release_lease(
    store: &Store,
    folder: LockedFolder,
    bridge: &str,
    id: &ContainerId,
    addresses: &[IpAddr],
) -> Result<()> {
    let leases = Leases::open(folder.path())?;
    // The ports first: without them nothing leads to an address that is given again.
    let unpublished = publish::Register::of(folder.path()).forget(id.as_str())?;
    let unused = leases.release(id, addresses)?;
    if unused {
        return dismantle(store, folder, bridge);
    }
    if unpublished && let Some(network) = Network::read(folder.path())? {
        network.make_rules(folder.path())?;
    }
    tell_names(store, &leases)
}

/// Tells container `id` the names of the others on `bridge`, and them its own.
pub(crate) fn introduce(store: &Store, bridge: &str, id: &ContainerId) -> Result<()> {
    let folder = lock_shared(&all_networks(store).join(bridge))?;
    let leases = Leases::open(folder.path())?;
    // Its own first, for here a failure counts.
    files::set_neighbours(&store.folder(id), id.as_str(), &leases.all()?)?;
    tell_names(store, &leases)
}

/// Writes the names of all containers of a network into the `/etc/hosts` of each; the caller holds the network's lock.
///
/// A file that cannot be written is its container's affair, and must not keep another from its start or its end.
fn tell_names(store: &Store, leases: &Leases) -> Result<()> {
    let all = leases.all()?;
    for id in all.iter().filter_map(|(_, owner)| ContainerId::new(owner.as_str()).ok()) {
        let _ = files::set_neighbours(&store.folder(&id), id.as_str(), &all);
    }
    Ok(())
}

/// Removes a network that nobody uses; of one that is kept, all but its description.
fn dismantle(store: &Store, folder: LockedFolder, bridge: &str) -> Result<()> {
    let network = Network::read(folder.path());
    if !matches!(&network, Ok(Some(Network { adopted: true, .. }))) {
        nft::remove(bridge)?;
        if let Ok(Some(network)) = &network {
            bridge::remove_own(bridge, network.subnet)?;
        }
        forwarding::release(bridge)?;
    }
    if let Ok(Some(network)) = network
        && network.kept
    {
        return Network { ready: false, ..network }.write(folder.path());
    }
    folder.remove()?;
    // Other networks keep it.
    let _ = fs::remove_dir(all_networks(store));
    Ok(())
}

/// Waits until the host's end `veth` has gone with its container's namespace, and removes it if something else holds
/// that namespace.
pub(crate) fn wait_for_end(veth: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    while bridge::exists_link(veth) {
        if Instant::now() > deadline {
            return netlink::run(async { bridge::remove(&netlink::host()?, veth).await });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Releases leases of containers that do not exist, and removes networks without leases. Says what it did.
pub(crate) fn gc(store: &Store) -> (Vec<String>, Vec<Error>) {
    let (mut removed, mut errors) = (Vec::new(), Vec::new());
    let Ok(entries) = fs::read_dir(all_networks(store)) else { return (removed, errors) };
    for entry in entries.flatten() {
        let Some(bridge) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let result = lock_shared(&entry.path()).and_then(|folder| {
            let is_gone = |owner: &str| {
                ContainerId::new(owner).map_or(true, |id| !store.folder(&id).exists())
            };
            let register = publish::Register::of(folder.path());
            let mut unpublished = false;
            for (owner, _) in register.all()?.iter().filter(|(owner, _)| is_gone(owner)) {
                unpublished |= register.forget(owner)?;
                removed.push(format!("published ports of {owner}"));
            }
            let (addresses, unused) = Leases::open(folder.path())?.release_where(is_gone)?;
            removed.extend(addresses.iter().map(|a| format!("lease {a} of network {bridge}")));
            let network = Network::read(folder.path())?;
            if unused {
                if network.as_ref().is_none_or(|network| network.ready || !network.kept) {
                    dismantle(store, folder, &bridge)?;
                    removed.push(format!("network {bridge}"));
                }
                return Ok(());
            }
            if let (true, Some(network)) = (unpublished, network) {
                network.make_rules(folder.path())?;
            }
            if !addresses.is_empty() {
                tell_names(store, &Leases::open(folder.path())?)?;
            }
            Ok(())
        });
        errors.extend(result.err());
    }
    // Who took the last network away may have been killed before this step of his.
    let _ = fs::remove_dir(all_networks(store));
    (removed, errors)
}

/// `network.json` and published ports, as far as nothing is made: the rules are put into words.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_network(bytes: &[u8]) {
    let entry: Option<publish::Entry> = serde_json::from_slice(bytes).ok();
    let published: Vec<_> = entry.into_iter().map(|entry| ("fuzz".to_owned(), entry)).collect();
    let network = Network::from_json(bytes).unwrap_or_else(|_| {
        let subnet6 = Subnet::parse("fd00::/64").ok();
        Network { subnet6, ..Network::on_demand("fuzz0", DEFAULT_SUBNET) }
    });
    let subnets: Vec<_> = network.places().iter().map(|(subnet, _)| *subnet).collect();
    let _ = nft::tables(&network.bridge, &subnets, network.internal, &published);
    for (_, entry) in &published {
        let _ = publish::of_families(&entry.ports, true);
        let _ = entry.ports.iter().map(ToString::to_string).count();
    }
    let written = serde_json::to_vec(&network).expect("a network is plain data");
    let again = Network::from_json(&written).expect("its own text is read again");
    assert!(again == network, "network.json means something else when it is read again");
}

/// Lines of text of networks.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_text(text: &str) {
    if let Ok(ports) = publish::parse(text) {
        assert!(!ports.is_empty() && ports.len() <= 1000, "{text:?} is a range");
        let _ = publish::of_families(&ports, true);
    }
    let neighbours = [(IpAddr::from([10, 0, 0, 3]), "b".to_owned())];
    let with = files::with_neighbours(text, "a", &neighbours);
    assert!(files::with_neighbours(&with, "a", &neighbours) == with, "twice is harmless");
}

/// Lease files: the bytes are a name, and after a NUL what the file holds, and so on; the counter holds the last of it.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_leases(bytes: &[u8], folder: &Path) {
    let network = folder.join("network");
    if fs::create_dir(&network).is_err() {
        return;
    }
    let subnet = Subnet::parse("10.1.2.0/29").expect("it is a subnet");
    let id = ContainerId::new("fuzz").expect("it is a name");
    if let Ok(leases) = Leases::open(&network) {
        let parts: Vec<_> = bytes.split(|byte| *byte == 0).collect();
        for pair in parts.chunks(2) {
            let name = String::from_utf8_lossy(pair[0]);
            if !name.contains('/') && !matches!(&*name, "" | "." | "..") {
                let _ =
                    fs::write(network.join("leases").join(&*name), pair.last().unwrap_or(&pair[0]));
            }
        }
        let before = leases.all().unwrap_or_default();
        if let Ok(address) = leases.take(subnet, subnet.gateway(), &id, &Taken::default()) {
            assert!(subnet.has_host(address), "{address} is outside");
            assert!(before.iter().all(|(had, _)| *had != address), "{address} is given twice");
            let _ = leases.release(&id, &[address]);
        }
        let _ = leases.release(&id, &[]);
        let _ = leases.release_where(|owner| ContainerId::new(owner).is_err());
    }
    fs::remove_dir_all(&network).expect("the folder is the caller's");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written_back() {
        for text in ["host", "bridge:t0", "ns:/run/netns/a"] {
            let request = NetworkRequest::parse(Some(text), None).unwrap();
            let mut annotations = HashMap::new();
            request.annotate(&mut annotations);
            assert_eq!(annotations[ANNOTATION], text);
        }
        let bridge = NetworkRequest::parse(Some("bridge"), Some("10.1.0.0/24")).unwrap();
        let mut annotations = HashMap::new();
        bridge.annotate(&mut annotations);
        let back = NetworkRequest::parse(
            annotations.get(ANNOTATION).map(String::as_str),
            annotations.get(ANNOTATION_SUBNET).map(String::as_str),
        );
        assert_eq!(back.unwrap(), bridge);
        assert_eq!(NetworkRequest::parse(None, None).unwrap(), NetworkRequest::None);
        for bad in
            ["", "foo", "bridge:", "bridge:a/b", "bridge:waytoolongforaninterface", "ns:a", "x:y"]
        {
            assert!(NetworkRequest::parse(Some(bad), None).is_err(), "{bad}");
        }
        assert!(NetworkRequest::parse(Some("none"), Some("10.1.0.0/24")).is_err());
    }
}
