//! The addresses of a network: an IPv4 or IPv6 subnet, its gateway, its containers.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// So many addresses of an IPv6 subnet are given by turns; each that is asked for can be had.
const MAX_TURN: u128 = 1 << 16;

/// An IPv4 or IPv6 subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// `address` has no bits set behind `prefix`.
    pub(crate) const fn v4(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address: IpAddr::V4(address), prefix }
    }

    /// Reads `10.77.0.0/16` or `fd00:77::/64`.
    pub fn parse(text: &str) -> Result<Self> {
        const FORM: &str = "the form is ADDRESS/PREFIX, such as 10.77.0.0/16 or fd00:77::/64";
        let invalid = |reason: &'static str| Error::invalid("--subnet", text, reason);
        let (address, prefix) = text.split_once('/').ok_or_else(|| invalid(FORM))?;
        let address: IpAddr = address.parse().map_err(|_| invalid(FORM))?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid(FORM))?;
        match address {
            IpAddr::V4(_) if !(8..=29).contains(&prefix) => {
                return Err(invalid("the prefix length must be from 8 to 29"));
            }
            IpAddr::V6(_) if !(16..=125).contains(&prefix) => {
                return Err(invalid("the prefix length of IPv6 must be from 16 to 125"));
            }
            _ => {}
        }
        let subnet = Self { address, prefix };
        if !subnet.is_ordinary() {
            return Err(invalid(
                "containers need addresses for ordinary use, such as 10.77.0.0/16 or fd00:77::/64",
            ));
        }
        if subnet.bits() & subnet.host_mask() != 0 {
            return Err(invalid("the address has bits set behind its prefix"));
        }
        Ok(subnet)
    }

    /// The subnet in which an interface has `address`; none where no container has room in it.
    pub(crate) fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix > width {
            return None;
        }
        let whole = Self { address, prefix };
        let start = whole.at(whole.bits() & !whole.host_mask());
        Self::parse(&format!("{start}/{prefix}")).ok()
    }

    /// A destination of a route, which may be any.
    pub(crate) fn destination(address: IpAddr, prefix: u8) -> Self {
        let width = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix: prefix.min(width) }
    }

    fn is_ordinary(self) -> bool {
        let special = self.address.is_loopback()
            || self.address.is_multicast()
            || self.address.is_unspecified();
        let bound_to_a_link = match self.address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => {
                address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
            }
        };
        !special && !bound_to_a_link
    }

    fn bits(self) -> u128 {
        number(self.address)
    }

    /// The bits behind the prefix.
    fn host_mask(self) -> u128 {
        let length = self.width() - u32::from(self.prefix);
        u128::MAX.checked_shr(128 - length).unwrap_or(0)
    }

    fn width(self) -> u32 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    /// The address of this family whose number is `bits`.
    fn at(self, bits: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => {
                let low = u32::try_from(bits & u128::from(u32::MAX));
                Ipv4Addr::from(low.expect("it was cut to 32 bits")).into()
            }
            IpAddr::V6(_) => Ipv6Addr::from(bits).into(),
        }
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// The network's address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of its prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The bytes of its mask, 4 or 16.
    pub(crate) fn mask(self) -> Vec<u8> {
        octets(self.at(!self.host_mask()))
    }

    /// The first host's address: the gateway.
    pub fn gateway(self) -> IpAddr {
        self.at(self.bits() + 1)
    }

    /// Number of addresses for containers: all but the network's, the gateway and, in IPv4, the broadcast address.
    fn hosts(self) -> u128 {
        let broadcast = u128::from(self.is_ipv4());
        self.host_mask().saturating_sub(1 + broadcast)
    }

    /// Number of addresses that are given by turns.
    pub(crate) fn capacity(self) -> u32 {
        let limit = if self.is_ipv4() { u128::from(u32::MAX) } else { MAX_TURN };
        u32::try_from(self.hosts().min(limit)).expect("it is at most 2^32 - 1").max(1)
    }

    /// The container address number `n`, from 0.
    pub(crate) fn host(self, n: u32) -> IpAddr {
        self.at(self.bits() + 2 + u128::from(n % self.capacity()))
    }

    /// Whether `address` is one that a container may have, the gateway's place apart.
    pub(crate) fn has_host(self, address: IpAddr) -> bool {
        let place = number(address).wrapping_sub(self.bits());
        address.is_ipv4() == self.is_ipv4() && (2..2 + self.hosts()).contains(&place)
    }

    /// Whether the two have an address in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let mask = !self.host_mask() & !other.host_mask();
        self.is_ipv4() == other.is_ipv4() && self.bits() & mask == other.bits() & mask
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The bytes of an address in network order, 4 or 16.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_checked() {
        let subnet = parse("10.77.0.0/16");
        assert_eq!(subnet, super::super::DEFAULT_SUBNET);
        assert_eq!(subnet.gateway(), ip("10.77.0.1"));
        assert_eq!(subnet.host(0), ip("10.77.0.2"));
        assert_eq!(subnet.capacity(), 65_533);
        assert_eq!(subnet.host(65_532), ip("10.77.255.254"));
        assert_eq!(subnet.host(65_533), subnet.host(0));
        assert_eq!(parse("10.0.0.0/29").capacity(), 5);
        for bad in [
            "10.77.0.1/16", "10.0.0.0", "10.0.0.0/7", "10.0.0.0/30", "127.0.0.0/8", "x/8",
            "0.0.0.0/8", "fe80::/64", "::1/64", "ff02::/16", "::ffff:10.0.0.0/120", "fd00::/126",
            "fd00::1/64", "fd00::/8", "fd00::/256",
        ] {
            assert!(Subnet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ipv6_gives_the_low_addresses_by_turns_and_any_that_is_asked_for() {
        let subnet = parse("fd00:77::/64");
        assert_eq!(subnet.gateway(), ip("fd00:77::1"));
        assert_eq!(subnet.host(0), ip("fd00:77::2"));
        assert_eq!(subnet.capacity(), 65_536);
        assert_eq!(subnet.host(65_536), subnet.host(0));
        assert_eq!(parse("fd00::/125").capacity(), 6);
        for (address, fits) in [
            ("fd00:77::2", true),
            ("fd00:77::ffff:ffff:ffff:ffff", true),
            ("fd00:77::", false),
            ("fd00:77::1", false),
            ("fd00:77:0:1::2", false),
            ("10.77.0.2", false),
        ] {
            assert_eq!(subnet.has_host(ip(address)), fits, "{address}");
        }
        assert!(!parse("10.77.0.0/16").has_host(ip("fd00:77::2")));
        assert!(!parse("10.77.0.0/16").has_host(ip("10.77.255.255")), "broadcast");
        assert_eq!(subnet.mask(), [vec![0xff; 8], vec![0; 8]].concat());
        assert_eq!(parse("10.77.0.0/16").mask(), [255, 255, 0, 0]);
    }

    #[test]
    fn an_interfaces_subnet_is_found() {
        let around = |address: &str, prefix| Subnet::around(ip(address), prefix);
        assert_eq!(around("172.17.0.1", 16), Some(parse("172.17.0.0/16")));
        assert_eq!(around("fd00::9", 64), Some(parse("fd00::/64")));
        for (address, prefix) in [
            ("172.17.0.1", 32),
            ("172.17.0.1", 33),
            ("fe80::1", 64),
            ("fd00::1", 128),
            ("fd00::1", 0),
        ] {
            assert_eq!(around(address, prefix), None, "{address}/{prefix}");
        }
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        let (wide, narrow, other) =
            (parse("10.77.0.0/16"), parse("10.77.3.0/24"), parse("10.78.0.0/16"));
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide) && wide.overlaps(wide));
        assert!(!wide.overlaps(other) && !other.overlaps(narrow));
        let (six, inner) = (parse("fd00::/48"), parse("fd00:0:0:5::/64"));
        assert!(six.overlaps(inner) && inner.overlaps(six) && !six.overlaps(wide));
        let all = Subnet::destination(ip("::"), 0);
        assert!(all.overlaps(six) && !all.overlaps(wide));
    }
}
