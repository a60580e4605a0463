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
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The leases of a network; the caller holds the network's lock.
pub(crate) struct Leases {
    folder: PathBuf,
}

/// File that holds the number of the last address given.
const LAST: &str = "last";

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
    pub(crate) fn all(&self) -> Result<Vec<(Ipv4Addr, String)>> {
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

    fn used(&self) -> Result<HashSet<Ipv4Addr>> {
        let entries = fs::read_dir(&self.folder).tried("read", &self.folder)?;
        Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    /// Gives `id` the address `wanted` of `subnet`.
    pub(crate) fn take_this(
        &self,
        subnet: Subnet,
        gateway: Ipv4Addr,
        id: &ContainerId,
        wanted: Ipv4Addr,
    ) -> Result<Ipv4Addr> {
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

    /// Gives `id` an address of `subnet`, but not `gateway`.
    pub(crate) fn take(
        &self,
        subnet: Subnet,
        gateway: Ipv4Addr,
        id: &ContainerId,
    ) -> Result<Ipv4Addr> {
        let mut used = self.used()?;
        used.insert(gateway);
        let last_path = self.folder.join(LAST);
        let next = fs::read_to_string(&last_path)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .map_or(0, |last| last.wrapping_add(1) % subnet.capacity());
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

    /// Releases what `id` has; `hint` is where it most likely is. Returns whether no lease is left.
    pub(crate) fn release(&self, id: &ContainerId, hint: Option<Ipv4Addr>) -> Result<bool> {
        if let Some(address) = hint {
            self.release_if_owned(address, id)?;
        } else {
            for (address, owner) in self.all()? {
                if owner == id.as_str() {
                    self.release_if_owned(address, id)?;
                }
            }
        }
        Ok(self.used()?.is_empty())
    }

    fn release_if_owned(&self, address: Ipv4Addr, id: &ContainerId) -> Result<()> {
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
    ) -> Result<(Vec<Ipv4Addr>, bool)> {
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

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    #[test]
    fn addresses_go_round_and_are_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/29").unwrap();
        let take =
            |name: &str| leases.take(subnet, subnet.gateway(), &id(name)).map(|a| a.octets()[3]);
        assert_eq!((take("a").unwrap(), take("b").unwrap()), (2, 3));
        assert!(!leases.release(&id("a"), None).unwrap());
        assert_eq!(take("c").unwrap(), 4, "the released address waits its turn");
        assert_eq!((take("d").unwrap(), take("e").unwrap(), take("f").unwrap()), (5, 6, 2));
        let full = take("g").unwrap_err();
        assert!(full.to_string().contains("all 5 are in use"), "{full}");
        assert!(!leases.release(&id("b"), Some(Ipv4Addr::new(10, 1, 2, 3))).unwrap());
        assert_eq!(take("g").unwrap(), 3);
    }

    #[test]
    fn an_address_that_was_asked_for_is_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/29").unwrap();
        let take = |name: &str, last| {
            leases.take_this(subnet, subnet.gateway(), &id(name), Ipv4Addr::new(10, 1, 2, last))
        };
        assert_eq!(take("a", 3).unwrap(), Ipv4Addr::new(10, 1, 2, 3));
        assert!(take("b", 3).unwrap_err().to_string().contains("container a has it"));
        for outside in [0, 1, 7, 8] {
            assert!(take("c", outside).unwrap_err().is_usage(), "{outside}");
        }
        assert_eq!(
            leases.take(subnet, subnet.gateway(), &id("d")).unwrap(),
            Ipv4Addr::new(10, 1, 2, 2)
        );
        assert_eq!(
            leases.take(subnet, subnet.gateway(), &id("e")).unwrap(),
            Ipv4Addr::new(10, 1, 2, 4)
        );
    }

    #[test]
    fn only_the_owner_releases() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/24").unwrap();
        let address = leases.take(subnet, subnet.gateway(), &id("a")).unwrap();
        assert!(!leases.release(&id("b"), Some(address)).unwrap());
        assert!(!leases.release(&id("b"), None).unwrap());
        assert!(leases.release(&id("a"), Some(address)).unwrap());
        assert!(leases.release(&id("a"), Some(address)).unwrap(), "twice is harmless");
    }

    #[test]
    fn leases_of_the_gone_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path()).unwrap();
        let subnet = Subnet::parse("10.1.2.0/24").unwrap();
        for name in ["a", "b", "c"] {
            leases.take(subnet, subnet.gateway(), &id(name)).unwrap();
        }
        fs::write(folder.path().join("leases/10.1.2.200"), "").unwrap();
        let (released, empty) = leases.release_where(|owner| owner != "b").unwrap();
        assert_eq!((released.len(), empty), (3, false));
        assert_eq!(leases.all().unwrap().len(), 1);
    }
}
