//! IP address management: one file for each address in use, named after it, holding the container's id.
//!
//! A lease is created with `O_EXCL` under the network's lock, so an address is never given twice; it stays through
//! crashes until its container is gone. Addresses go round: one that was just released is the last to be given
//! again, for its old interface may live a few milliseconds longer than its container.

use super::Subnet;
use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The leases of a network; the caller holds the network's lock.
pub(crate) struct Leases {
    folder: PathBuf,
}

/// File that holds the number of the last address given, of IPv4 and of IPv6.
const LAST: [&str; 2] = ["last", "last6"];

/// What others than terrarium's containers have of a subnet.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Somebody has these.
    pub addresses: HashSet<IpAddr>,
    /// Whether another engine gives addresses of the subnet as well; those begin at its low end.
    pub shared: bool,
}

impl Taken {
    /// The number of the first address to be given.
    fn first(&self, subnet: Subnet) -> u32 {
        if self.shared { subnet.capacity() / 2 } else { 0 }
    }
}

impl Leases {
    /// The leases of the network whose folder is `network`.
    pub(crate) fn open(network: &Path) -> Result<Self> {
        let folder = network.join("leases");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(error).tried("create", &folder)
            }
            _ => Ok(Self { folder }),
        }
    }

    /// Every lease, by address: that and the container id.
    pub(crate) fn all(&self) -> Result<Vec<(IpAddr, String)>> {
        let mut leases = Vec::new();
        for entry in fs::read_dir(&self.folder).tried("read", &self.folder)? {
            let entry = entry.tried("read", &self.folder)?;
            if let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                // A lease whose writer died before it wrote has no owner, and is released with the next gc.
                leases.push((address, fs::read_to_string(entry.path()).unwrap_or_default()));
            }
        }
        leases.sort();
        Ok(leases)
    }

    fn used(&self) -> Result<HashSet<IpAddr>> {
        let entries = fs::read_dir(&self.folder).tried("read", &self.folder)?;
        Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    /// Gives `id` the address `wanted` of `subnet`.
    pub(crate) fn take_this(
        &self,
        subnet: Subnet,
        gateway: IpAddr,
        id: &ContainerId,
        wanted: IpAddr,
    ) -> Result<IpAddr> {
        if !subnet.has_host(wanted) || wanted == gateway {
            let reason = format!("it is not a container's address of {subnet}");
            return Err(Error::invalid("--ip", wanted.to_string(), reason));
        }
        let path = self.folder.join(wanted.to_string());
        match fs::File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let owner = fs::read_to_string(&path).unwrap_or_default();
                return Err(Error::unsupported(
                    format!("address {wanted}"),
                    format!("container {owner} has it (leave --ip out, or choose another)"),
                ));
            }
            created => {
                let mut file = created.tried("create lease", &path)?;
                file.write_all(id.as_str().as_bytes()).tried("write lease", &path)?;
            }
        }
        Ok(wanted)
    }

    /// Gives `id` an address of `subnet`, but not `gateway`, and none that is `taken` by strangers.
    pub(crate) fn take(
        &self,
        subnet: Subnet,
        gateway: IpAddr,
        id: &ContainerId,
        taken: &Taken,
    ) -> Result<IpAddr> {
        let mut used = self.used()?;
        used.insert(gateway);
        used.extend(&taken.addresses);
        let last_path = self.folder.join(LAST[usize::from(!subnet.is_ipv4())]);
        let next = fs::read_to_string(&last_path)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .map_or_else(|| taken.first(subnet), |last| last.wrapping_add(1) % subnet.capacity());
        let number = (0..subnet.capacity())
            .map(|n| (next + n) % subnet.capacity())
            .find(|&n| !used.contains(&subnet.host(n)))
            .ok_or_else(|| {
                Error::unsupported(
                    format!("an address of {subnet}"),
                    format!(
                        "all {} are in use (remove containers, or use another bridge with a larger --subnet)",
                        subnet.capacity()
                    ),
                )
            })?;
        let address = subnet.host(number);
        let path = self.folder.join(address.to_string());
        let mut file = fs::File::create_new(&path).tried("create lease", &path)?;
        file.write_all(id.as_str().as_bytes()).tried("write lease", &path)?;
        // Lost in a crash, it only makes an address be given again sooner.
        fs::write(&last_path, number.to_string()).tried("write", &last_path)?;
        Ok(address)
    }

    /// Releases what `id` has; `hint` is where it most likely is, all of it. Returns whether no lease is left.
    pub(crate) fn release(&self, id: &ContainerId, hint: &[IpAddr]) -> Result<bool> {
        for address in hint {
            self.release_if_owned(*address, id)?;
        }
        if hint.is_empty() {
            for (address, owner) in self.all()? {
                if owner == id.as_str() {
                    self.release_if_owned(address, id)?;
                }
            }
        }
        Ok(self.used()?.is_empty())
    }

    fn release_if_owned(&self, address: IpAddr, id: &ContainerId) -> Result<()> {
        let path = self.folder.join(address.to_string());
        if fs::read_to_string(&path).is_ok_and(|owner| owner == id.as_str()) {
            fs::remove_file(&path).tried("release lease", &path)?;
        }
        Ok(())
    }

    /// Releases the leases whose owner `is_gone`. Returns the released addresses, and whether no lease is left.
    pub(crate) fn release_where(
        &self,
        is_gone: impl Fn(&str) -> bool,
    ) -> Result<(Vec<IpAddr>, bool)> {
        let mut released = Vec::new();
        for (address, owner) in self.all()? {
            if is_gone(&owner) {
                let path = self.folder.join(address.to_string());
                fs::remove_file(&path).tried("release lease", &path)?;
                released.push(address);
            }
        }
        Ok((released, self.used()?.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 1, 2, last])
    }

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    fn take(leases: &Leases, subnet: Subnet, name: &str) -> Result<IpAddr> {
        leases.take(subnet, subnet.gateway(), &id(name), &Taken::default())
    }

    #[test]
    fn addresses_go_round_and_are_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/29").unwrap();
        let take =
            |name: &str| take(&leases, subnet, name).map(|a| super::super::subnet::octets(a)[3]);
        assert_eq!((take("a").unwrap(), take("b").unwrap()), (2, 3));
        assert!(!leases.release(&id("a"), &[]).unwrap());
        assert_eq!(take("c").unwrap(), 4, "the released address waits its turn");
        assert_eq!((take("d").unwrap(), take("e").unwrap(), take("f").unwrap()), (5, 6, 2));
        let full = take("g").unwrap_err();
        assert!(full.to_string().contains("all 5 are in use"), "{full}");
        assert!(!leases.release(&id("b"), &[ip(3)]).unwrap());
        assert_eq!(take("g").unwrap(), 3);
    }

    #[test]
    fn an_address_that_was_asked_for_is_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/29").unwrap();
        let ask =
            |name: &str, last| leases.take_this(subnet, subnet.gateway(), &id(name), ip(last));
        assert_eq!(ask("a", 3).unwrap(), ip(3));
        assert!(ask("b", 3).unwrap_err().to_string().contains("container a has it"));
        for outside in [0, 1, 7, 8] {
            assert!(ask("c", outside).unwrap_err().is_usage(), "{outside}");
        }
        assert_eq!(take(&leases, subnet, "d").unwrap(), ip(2));
        assert_eq!(take(&leases, subnet, "e").unwrap(), ip(4));
    }

    #[test]
    fn only_the_owner_releases() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/24").unwrap();
        let address = take(&leases, subnet, "a").unwrap();
        assert!(!leases.release(&id("b"), &[address]).unwrap());
        assert!(!leases.release(&id("b"), &[]).unwrap());
        assert!(leases.release(&id("a"), &[address]).unwrap());
        assert!(leases.release(&id("a"), &[address]).unwrap(), "twice is harmless");
    }

    #[test]
    fn leases_of_the_gone_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/24").unwrap();
        for name in ["a", "b", "c"] {
            take(&leases, subnet, name).unwrap();
        }
        fs::write(folder.path().join("leases/10.1.2.200"), "").unwrap();
        let (released, empty) = leases.release_where(|owner| owner != "b").unwrap();
        assert_eq!((released.len(), empty), (3, false));
        assert_eq!(leases.all().unwrap().len(), 1);
    }

    #[test]
    fn ipv6_has_turns_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let (four, six) =
            (Subnet::parse("10.1.2.0/29").unwrap(), Subnet::parse("fd00:1::/64").unwrap());
        for (name, last) in [("a", 2), ("b", 3)] {
            assert_eq!(take(&leases, four, name).unwrap(), ip(last));
            let address: IpAddr = format!("fd00:1::{last}").parse().unwrap();
            assert_eq!(take(&leases, six, name).unwrap(), address);
        }
        assert_eq!(leases.all().unwrap().len(), 4);
        assert!(!leases.release(&id("a"), &[]).unwrap());
        assert_eq!(leases.all().unwrap().len(), 2);
    }

    #[test]
    fn where_another_engine_gives_addresses_too_it_begins_in_the_middle() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/28").unwrap();
        let taken = Taken { addresses: [ip(8), ip(10)].into(), shared: true };
        let take = |name| leases.take(subnet, ip(9), &id(name), &taken).unwrap();
        assert_eq!(take("a"), ip(11), "8 and 10 are somebody's, 9 is the gateway");
        assert_eq!(take("b"), ip(12));
    }
}
