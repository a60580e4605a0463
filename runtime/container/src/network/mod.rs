//! Networks: what a container asks for, and how it gets a place on a bridge.
//!
//! A network is a folder `networks/<bridge>` below the state root: `network.json`, and a file for each lease. It is
//! worked on under a lock on that folder. The bridge, its nftables table and the forwarding setting are made with the
//! first lease and removed with the last; `network.json` is written before, so that [`gc`] finds what a crash left. That of a
//! network that `terrarium network create` made stays, until `network remove`.

mod bridge;
mod details;
pub(crate) mod files;
mod forwarding;
mod lease;
pub(crate) mod loopback;
mod manage;
mod netlink;
mod nft;
pub(crate) mod publish;
pub(crate) mod veth;

use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use crate::state::write_atomically;
use crate::store::{JournalNetwork, LockedFolder, Store, lock_shared};
pub(crate) use details::Details;
pub use details::NetworkOptions;
use lease::Leases;
pub use manage::{Member, NetworkInfo, NewNetwork, create_network, networks, remove_network};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use veth::Endpoint;

/// The annotation that carries the network of a container.
pub const ANNOTATION: &str = "io.terrarium.network";

/// The annotation that carries the subnet of a bridge that does not exist yet.
pub const ANNOTATION_SUBNET: &str = "io.terrarium.network.subnet";

/// The bridge of `--net bridge`.
pub const DEFAULT_BRIDGE: &str = "terra0";

/// The subnet of a bridge unless it is told otherwise.
pub const DEFAULT_SUBNET: Subnet = Subnet { address: Ipv4Addr::new(10, 77, 0, 0), prefix: 16 };

/// How a container is to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkRequest {
    /// A namespace of its own with `lo` and nothing else.
    None,
    /// The host's namespace.
    Host,
    /// An existing namespace.
    Path(PathBuf),
    /// A bridge on the host.
    Bridge {
        /// The bridge's name.
        name: String,
        /// Its subnet, if it was said.
        subnet: Option<Subnet>,
    },
}

impl NetworkRequest {
    /// Reads `none`, `host`, `bridge`, `bridge:NAME` or `ns:PATH`, and a subnet; nothing means `none`.
    pub fn parse(network: Option<&str>, subnet: Option<&str>) -> Result<Self> {
        let subnet = subnet.map(Subnet::parse).transpose()?;
        let network = network.unwrap_or("none");
        let request = match network.split_once(':') {
            None => match network {
                "none" => Self::None,
                "host" => Self::Host,
                "bridge" => Self::Bridge { name: DEFAULT_BRIDGE.into(), subnet },
                _ => return Err(unknown(network)),
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
            Self::Bridge { .. } => "bridge",
        }
    }
}

fn unknown(network: &str) -> Error {
    Error::invalid(
        "--net",
        network,
        "unknown network; known are none, host, bridge, bridge:NAME and ns:PATH",
    )
}

/// Whether the kernel and nftables take `name` as an interface's (`dev_valid_name` in net/core/dev.c, and less).
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Reads `10.77.0.0/16`.
    pub fn parse(text: &str) -> Result<Self> {
        const FORM: &str = "the form is ADDRESS/PREFIX, such as 10.77.0.0/16";
        let invalid = |reason: &'static str| Error::invalid("--subnet", text, reason);
        let (address, prefix) = text.split_once('/').ok_or_else(|| invalid(FORM))?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid(FORM))?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid(FORM))?;
        if !(8..=29).contains(&prefix) {
            return Err(invalid("the prefix length must be from 8 to 29"));
        }
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            return Err(invalid(
                "containers need addresses for ordinary use, such as 10.77.0.0/16",
            ));
        }
        let subnet = Self { address, prefix };
        if u32::from(address) & !subnet.mask() != 0 {
            return Err(invalid("the address has bits set behind its prefix"));
        }
        Ok(subnet)
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    /// The network's address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The length of its prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first host's address: the gateway.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) + 1)
    }

    /// Number of addresses for containers: without the network, the gateway and the broadcast address.
    pub(crate) fn capacity(self) -> u32 {
        !self.mask() - 2
    }

    /// The container address number `n`, from 0.
    pub(crate) fn host(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) + 2 + n % self.capacity())
    }

    /// Whether `address` is one that [`Subnet::host`] gives.
    pub(crate) fn has_host(self, address: Ipv4Addr) -> bool {
        let number = u32::from(address).wrapping_sub(u32::from(self.address));
        (2..2 + self.capacity()).contains(&number)
    }

    /// Whether the two have an address in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// `network.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Network {
    /// Version of the format: 1.
    version: u32,
    /// The bridge.
    bridge: String,
    /// Its subnet; the gateway is the first address.
    subnet: Subnet,
    /// Whether bridge, table and setting were made.
    ready: bool,
    /// Whether it stays without containers: somebody has created it.
    #[serde(default)]
    kept: bool,
    /// Whether nothing goes out of it.
    #[serde(default)]
    internal: bool,
    /// The bridge's address, where it is not the first of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<Ipv4Addr>,
}

impl Network {
    const FILE: &'static str = "network.json";

    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|why| Error::Malformed { path, why }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).tried("read", &path),
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
            ready: false,
            kept: false,
            internal: false,
            gateway: None,
        }
    }

    /// The bridge's address.
    fn gateway(&self) -> Ipv4Addr {
        self.gateway.unwrap_or_else(|| self.subnet.gateway())
    }

    /// Makes what the network consists of.
    fn make(&self, folder: &Path) -> Result<()> {
        netlink::run(async {
            bridge::ensure(&netlink::host()?, &self.bridge, self.subnet, self.gateway()).await
        })?;
        self.make_rules(folder)?;
        forwarding::acquire(&self.bridge)
    }

    /// Makes the rules, in place of those that are there.
    fn make_rules(&self, folder: &Path) -> Result<()> {
        let published = publish::Register::of(folder).all()?;
        if !published.is_empty() {
            bridge::route_loopback(&self.bridge)?;
        }
        nft::create(&self.bridge, self.subnet, self.internal, &published)
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
    let known = Network::read(folder.path())?;
    if known.is_none() && bridge::exists_link(bridge) {
        folder.remove()?;
        return Err(bridge::foreign(bridge));
    }
    let mut network =
        known.unwrap_or_else(|| Network::on_demand(bridge, subnet.unwrap_or(DEFAULT_SUBNET)));
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
        Ok(address) => Ok(Endpoint {
            gateway: network.gateway(),
            is_internal: network.internal,
            bridge: network.bridge,
            veth: veth.to_owned(),
            subnet: network.subnet,
            address,
            mac: details.mac.unwrap_or_else(|| bridge::mac_of(address)),
        }),
        Err(error) => {
            // The first error is what the user needs; gc tries again what fails here.
            let _ = release_lease(store, folder, bridge, id, None);
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
) -> Result<Ipv4Addr> {
    if !network.ready {
        network.write(folder.path())?;
    }
    let leases = Leases::open(folder.path())?;
    let address = match details.ip {
        Some(address) => leases.take_this(network.subnet, network.gateway(), id, address)?,
        None => leases.take(network.subnet, network.gateway(), id)?,
    };
    let publishes = !details.publish.is_empty();
    if publishes {
        // Ports are the host's: no network may give one that another is about to give.
        let all = lock_shared(&all_networks(store))?;
        publish::check_free(&details.publish, &published_by_all(all.path())?)?;
        let register = publish::Register::of(folder.path());
        register.note(id, &publish::Entry { address, ports: details.publish.clone() })?;
    }
    if !network.ready || !bridge::exists_link(&network.bridge) {
        network.make(folder.path())?;
        network.ready = true;
        network.write(folder.path())?;
    } else if publishes {
        network.make_rules(folder.path())?;
    }
    Ok(address)
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
    address: Option<Ipv4Addr>,
) -> Result<()> {
    let path = all_networks(store).join(&place.bridge);
    if !path.exists() {
        return Ok(());
    }
    release_lease(store, lock_shared(&path)?, &place.bridge, id, address)
}

fn release_lease(
    store: &Store,
    folder: LockedFolder,
    bridge: &str,
    id: &ContainerId,
    address: Option<Ipv4Addr>,
) -> Result<()> {
    let leases = Leases::open(folder.path())?;
    // The ports first: without them nothing leads to an address that is given again.
    let unpublished = publish::Register::of(folder.path()).forget(id.as_str())?;
    let unused = leases.release(id, address)?;
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
    nft::remove(bridge)?;
    let network = Network::read(folder.path());
    if let Ok(Some(network)) = &network {
        bridge::remove_own(bridge, network.subnet)?;
    }
    forwarding::release(bridge)?;
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
    (removed, errors)
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

    #[test]
    fn subnets_are_checked() {
        let subnet = Subnet::parse("10.77.0.0/16").unwrap();
        assert_eq!(subnet, DEFAULT_SUBNET);
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(subnet.host(0), Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(subnet.capacity(), 65_533);
        assert_eq!(subnet.host(65_532), Ipv4Addr::new(10, 77, 255, 254));
        assert_eq!(subnet.host(65_533), subnet.host(0));
        assert_eq!(Subnet::parse("10.0.0.0/29").unwrap().capacity(), 5);
        for bad in [
            "10.77.0.1/16", "10.0.0.0", "10.0.0.0/7", "10.0.0.0/30", "127.0.0.0/8", "x/8",
            "0.0.0.0/8",
        ] {
            assert!(Subnet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        let parse = |text| Subnet::parse(text).unwrap();
        let (wide, narrow, other) =
            (parse("10.77.0.0/16"), parse("10.77.3.0/24"), parse("10.78.0.0/16"));
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide) && wide.overlaps(wide));
        assert!(!wide.overlaps(other) && !other.overlaps(narrow));
    }
}
