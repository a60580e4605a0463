//! nftables: one table for each bridge, by netlink (nfnetlink, `linux/netfilter/nf_tables.h`), with no helper program.
//!
//! As `nft list table ip terrarium_terra0` shows it:
//!
//! ```text
//! table ip terrarium_terra0 {
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr 10.77.0.0/16 oifname != "terra0" masquerade
//!         ip saddr 127.0.0.0/8 oifname "terra0" masquerade
//!         ip saddr 10.77.0.0/16 oifname "terra0" masquerade
//!     }
//!     chain forward {
//!         type filter hook forward priority filter; policy accept;
//!         oifname "terra0" ct status & dnat != 0 accept
//!         oifname "terra0" iifname != "terra0" ct state & (established | related) == 0 drop
//!     }
//!     chain raw {
//!         type filter hook prerouting priority raw; policy accept;
//!         iifname "terra0" ip daddr 127.0.0.0/8 drop
//!     }
//!     chain prerouting {
//!         type nat hook prerouting priority dstnat; policy accept;
//!         fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80
//!     }
//!     chain output {
//!         type nat hook output priority dstnat; policy accept;
//!         fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80
//!     }
//! }
//! ```
//!
//! A network with an IPv6 subnet has a second table, `ip6 terrarium_terra0`, with the same rules for it.
//!
//! The first rule lets containers out; an internal network has none, and drops instead what would leave it. The last of
//! `forward` keeps everybody else from reaching in: other networks, other containers' bridges, and the neighbours of the
//! host. All the others are there only while a container of the network has published ports: they lead the port to
//! it from outside (`prerouting`) and from the host itself (`output`), make the answers come back the same way
//! (`masquerade`), and keep containers from the host's loopback, which `route_localnet` would open to them
//! (CVE-2020-8558).

use super::Subnet;
use super::publish::{Entry, Published};
use super::subnet::octets;
use crate::error::{Result, Tried};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// The table of `bridge`.
pub(crate) fn table_name(bridge: &str) -> String {
    format!("terrarium_{bridge}")
}

/// Makes the tables of `bridge`, one for each of its subnets, in place of those that are there, in one transaction.
pub(crate) fn create(
    bridge: &str,
    subnets: &[Subnet],
    internal: bool,
    published: &[(String, Entry)],
) -> Result<()> {
    let hint = "the kernel needs nf_tables with nat, conntrack and, for published ports, fib (modprobe nf_tables nft_masq \
                nft_ct nft_nat nft_fib_ipv4, for IPv6 nft_fib_ipv6); or use --net none";
    tables(bridge, subnets, internal, published).commit().tried_hint(
        "create nftables table",
        table_name(bridge),
        hint,
    )
}

/// The messages of [`create`].
pub(crate) fn tables(
    bridge: &str,
    subnets: &[Subnet],
    internal: bool,
    published: &[(String, Entry)],
) -> Batch {
    let mut batch = Batch::new();
    for subnet in subnets {
        batch.family = Family::of(*subnet);
        rules(&mut batch, bridge, *subnet, internal, published);
    }
    batch
}

/// The table of one subnet of `bridge`.
fn rules(
    batch: &mut Batch,
    bridge: &str,
    subnet: Subnet,
    internal: bool,
    published: &[(String, Entry)],
) {
    let table = table_name(bridge);
    let family = batch.family;
    batch.table(Command::New, &table);
    batch.table(Command::Delete, &table);
    batch.table(Command::New, &table);
    batch.chain(&table, "postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT);
    batch.chain(&table, "forward", "filter", HOOK_FORWARD, PRIORITY_FILTER);
    let own = interface(bridge);
    let (leaves, stays) =
        ([meta(META_OIFNAME), compare(CMP_NEQ, &own)], [meta(META_OIFNAME), compare(CMP_EQ, &own)]);
    let masquerade = || expression("masq", &Attributes::new());
    let from = |subnet: Subnet| {
        [family.source(), bitwise(&subnet.mask()), compare(CMP_EQ, &octets(subnet.address()))]
    };
    if internal {
        let comes = [meta(META_IIFNAME), compare(CMP_EQ, &own)];
        batch.rule(&table, "forward", &[&comes[..], &leaves, &[verdict(VERDICT_DROP)]].concat());
    } else {
        batch.rule(&table, "postrouting", &[&from(subnet)[..], &leaves, &[masquerade()]].concat());
    }
    let ports: Vec<_> = published
        .iter()
        .flat_map(|(_, entry)| entry.ports.iter().map(move |port| (port, entry)))
        .filter(|(port, _)| port.is_ipv4() == subnet.is_ipv4())
        .filter_map(|(port, entry)| Some((port, family.address(entry)?)))
        .collect();
    if !ports.is_empty() {
        for source in [family.loopback(), subnet] {
            batch.rule(
                &table,
                "postrouting",
                &[&from(source)[..], &stays, &[masquerade()]].concat(),
            );
        }
        let translated = [
            connection(CT_STATUS),
            bitwise(&STATUS_DST_NAT.to_ne_bytes()),
            compare(CMP_NEQ, &0_u32.to_ne_bytes()),
            verdict(VERDICT_ACCEPT),
        ];
        batch.rule(&table, "forward", &[&stays[..], &translated].concat());
        publish(batch, &table, &own, &ports);
    }
    batch.rule(
        &table,
        "forward",
        &[
            meta(META_OIFNAME),
            compare(CMP_EQ, &own),
            meta(META_IIFNAME),
            compare(CMP_NEQ, &own),
            connection(CT_STATE),
            bitwise(&(STATE_ESTABLISHED | STATE_RELATED).to_ne_bytes()),
            compare(CMP_EQ, &0_u32.to_ne_bytes()),
            verdict(VERDICT_DROP),
        ],
    );
}

/// The rules that lead published ports to their containers.
fn publish(batch: &mut Batch, table: &str, own: &[u8], ports: &[(&Published, IpAddr)]) {
    let family = batch.family;
    batch.chain(table, "raw", "filter", HOOK_PREROUTING, PRIORITY_RAW);
    batch.rule(
        table,
        "raw",
        &[
            meta(META_IIFNAME),
            compare(CMP_EQ, own),
            family.destination(),
            bitwise(&family.loopback().mask()),
            compare(CMP_EQ, &octets(family.loopback().address())),
            verdict(VERDICT_DROP),
        ],
    );
    for (chain, hook) in [("prerouting", HOOK_PREROUTING), ("output", HOOK_OUTPUT)] {
        batch.chain(table, chain, "nat", hook, PRIORITY_DSTNAT);
        for (port, to) in ports {
            batch.rule(table, chain, &destination_nat(family, port, *to));
        }
    }
}

fn destination_nat(family: Family, port: &Published, to: IpAddr) -> Vec<Attributes> {
    let mut rule = match port.one_address() {
        None => vec![address_type(), compare(CMP_EQ, &RTN_LOCAL.to_ne_bytes())],
        Some(address) => vec![family.destination(), compare(CMP_EQ, &octets(address))],
    };
    rule.extend([
        meta(META_L4PROTO),
        compare(CMP_EQ, &[port.protocol.number()]),
        payload(PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT, 2),
        compare(CMP_EQ, &port.host.to_be_bytes()),
        immediate(REGISTER_1, &octets(to)),
        immediate(REGISTER_2, &port.container.to_be_bytes()),
        translate_destination(family),
    ]);
    rule
}

/// Removes the tables of `bridge`; one that does not exist is removed already.
pub(crate) fn remove(bridge: &str) -> Result<()> {
    remove_table(bridge, Family::Ipv4).and(remove_table(bridge, Family::Ipv6))
}

fn remove_table(bridge: &str, family: Family) -> Result<()> {
    let table = table_name(bridge);
    let mut batch = Batch::new();
    batch.family = family;
    batch.table(Command::Delete, &table);
    match batch.commit() {
        // No such table, or no nf_tables in this kernel, hence no table.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        result => result.tried_hint(
            "remove nftables table",
            format!("{} {table}", family.word()),
            "`terrarium gc` tries again",
        ),
    }
}

/// The family of a table, and where its packets have what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    fn of(subnet: Subnet) -> Self {
        if subnet.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// nft's word.
    fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    /// Its number (linux/netfilter.h, `NFPROTO_…`).
    fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }

    /// A packet's source address into register 1.
    fn source(self) -> Attributes {
        match self {
            Self::Ipv4 => payload(PAYLOAD_NETWORK_HEADER, IPV4_SOURCE, 4),
            Self::Ipv6 => payload(PAYLOAD_NETWORK_HEADER, IPV6_SOURCE, 16),
        }
    }

    /// A packet's destination address into register 1.
    fn destination(self) -> Attributes {
        match self {
            Self::Ipv4 => payload(PAYLOAD_NETWORK_HEADER, IPV4_DESTINATION, 4),
            Self::Ipv6 => payload(PAYLOAD_NETWORK_HEADER, IPV6_DESTINATION, 16),
        }
    }

    fn loopback(self) -> Subnet {
        match self {
            Self::Ipv4 => Subnet::v4(Ipv4Addr::new(127, 0, 0, 0), 8),
            Self::Ipv6 => Subnet::destination(Ipv6Addr::LOCALHOST.into(), 128),
        }
    }

    /// The address of a container that has published ports.
    fn address(self, entry: &Entry) -> Option<IpAddr> {
        match self {
            Self::Ipv4 => Some(entry.address.into()),
            Self::Ipv6 => entry.address6.map(IpAddr::from),
        }
    }
}

/// Interface names are compared in their whole field.
fn interface(name: &str) -> [u8; libc::IFNAMSIZ] {
    let mut field = [0; libc::IFNAMSIZ];
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    field
}

// linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;
// linux/netfilter/nf_tables.h
const MSG_NEWTABLE: u16 = 0;
const MSG_DELTABLE: u16 = 2;
const MSG_NEWCHAIN: u16 = 3;
const MSG_NEWRULE: u16 = 6;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_HOOKNUM: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;
const NAT_DNAT: u32 = 1;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_F_DADDR: u32 = 1 << 1;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
// Offsets in struct iphdr and ipv6hdr, and in struct tcphdr as in udphdr.
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
const DESTINATION_PORT: u32 = 2;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
// linux/netfilter/nf_conntrack_common.h: the bit of state n is 1 << (n + 1)
const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
const STATUS_DST_NAT: u32 = 1 << 5;
// linux/rtnetlink.h
const RTN_LOCAL: u32 = 2;
// linux/netfilter.h, linux/netfilter_ipv4.h
const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;
const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;

/// Netlink attributes, each padded to four bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn new() -> Self {
        Self::default()
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("attributes here are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// `nf_tables` wants integers in network order.
    fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn nested(self, kind: u16, inner: &Self) -> Self {
        const NLA_F_NESTED: u16 = 1 << 15;
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::new().text(EXPR_NAME, name).nested(EXPR_DATA, data)
}

/// `length` bytes of a header, from `offset` on, into register 1.
fn payload(header: u32, offset: u32, length: u32) -> Attributes {
    let data = Attributes::new()
        .number(1, REGISTER_1)
        .number(2, header)
        .number(3, offset)
        .number(4, length);
    expression("payload", &data)
}

fn meta(key: u32) -> Attributes {
    expression("meta", &Attributes::new().number(1, REGISTER_1).number(2, key))
}

/// What the connection tracker knows, into register 1.
fn connection(key: u32) -> Attributes {
    expression("ct", &Attributes::new().number(1, REGISTER_1).number(2, key))
}

/// The kind of the destination address (`RTN_…`) into register 1.
fn address_type() -> Attributes {
    let data = Attributes::new()
        .number(1, REGISTER_1)
        .number(2, FIB_RESULT_ADDRTYPE)
        .number(3, FIB_F_DADDR);
    expression("fib", &data)
}

/// `value` into a register.
fn immediate(register: u32, value: &[u8]) -> Attributes {
    let data = Attributes::new()
        .number(1, register)
        .nested(2, &Attributes::new().bytes(DATA_VALUE, value));
    expression("immediate", &data)
}

/// The destination becomes the address in register 1 and the port in register 2.
fn translate_destination(family: Family) -> Attributes {
    let data = Attributes::new()
        .number(1, NAT_DNAT)
        .number(2, u32::from(family.number()))
        .number(3, REGISTER_1)
        .number(5, REGISTER_2);
    expression("nat", &data)
}

/// Register 1 and `mask`, which has the length of what is in it.
fn bitwise(mask: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).expect("masks have at most 16 bytes");
    let data = Attributes::new()
        .number(1, REGISTER_1)
        .number(2, REGISTER_1)
        .number(3, length)
        .nested(4, &Attributes::new().bytes(DATA_VALUE, mask))
        .nested(5, &Attributes::new().bytes(DATA_VALUE, &vec![0; mask.len()]));
    expression("bitwise", &data)
}

/// Go on with the rule if register 1 compares so with `value`.
fn compare(operator: u32, value: &[u8]) -> Attributes {
    let data = Attributes::new()
        .number(1, REGISTER_1)
        .number(2, operator)
        .nested(3, &Attributes::new().bytes(DATA_VALUE, value));
    expression("cmp", &data)
}

fn verdict(code: u32) -> Attributes {
    let verdict = Attributes::new().number(VERDICT_CODE, code);
    let data = Attributes::new()
        .number(1, REGISTER_VERDICT)
        .nested(2, &Attributes::new().nested(DATA_VERDICT, &verdict));
    expression("immediate", &data)
}

#[derive(Clone, Copy)]
enum Command {
    New,
    Delete,
}

/// A transaction: all of it happens, or nothing.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    /// The family of what is added.
    family: Family,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), sequence: 0, family: Family::Ipv4 };
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM_NFTABLES, &Attributes::new());
        batch
    }

    fn message(&mut self, kind: u16, flags: i32, family: u8, resource: u16, data: &Attributes) {
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).expect("netlink flags are 16 bits");
        let length = u32::try_from(16 + 4 + data.0.len()).expect("messages here are short");
        // struct nlmsghdr
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        // struct nfgenmsg: family, version 0, resource id
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(&data.0);
        self.sequence += 1;
    }

    fn nftables(&mut self, kind: u16, flags: i32, data: &Attributes) {
        let kind = SUBSYSTEM_NFTABLES << 8 | kind;
        self.message(kind, libc::NLM_F_ACK | flags, self.family.number(), 0, data);
    }

    fn table(&mut self, command: Command, name: &str) {
        let data = Attributes::new().text(TABLE_NAME, name);
        match command {
            Command::New => self.nftables(MSG_NEWTABLE, libc::NLM_F_CREATE, &data),
            Command::Delete => self.nftables(MSG_DELTABLE, 0, &data),
        }
    }

    fn chain(&mut self, table: &str, name: &str, kind: &str, hook: u32, priority: i32) {
        let hook = Attributes::new()
            .number(HOOK_HOOKNUM, hook)
            .number(HOOK_PRIORITY, priority.cast_unsigned());
        let data = Attributes::new()
            .text(CHAIN_TABLE, table)
            .text(CHAIN_NAME, name)
            .nested(CHAIN_HOOK, &hook)
            .number(CHAIN_POLICY, VERDICT_ACCEPT)
            .text(CHAIN_TYPE, kind);
        self.nftables(MSG_NEWCHAIN, libc::NLM_F_CREATE, &data);
    }

    fn rule(&mut self, table: &str, chain: &str, expressions: &[Attributes]) {
        let list = expressions
            .iter()
            .fold(Attributes::new(), |list, expression| list.nested(LIST_ELEM, expression));
        let data = Attributes::new()
            .text(RULE_TABLE, table)
            .text(RULE_CHAIN, chain)
            .nested(RULE_EXPRESSIONS, &list);
        self.nftables(MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, &data);
    }

    /// Sends the batch. The first error that the kernel answers is the result.
    fn commit(mut self) -> io::Result<()> {
        self.message(BATCH_END, 0, 0, SUBSYSTEM_NFTABLES, &Attributes::new());
        let socket = open()?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &self.bytes, &kernel, MsgFlags::empty())?;
        // The kernel has worked through the batch when sendto returns: all answers are in the queue.
        let mut buffer = vec![0_u8; 32 << 10];
        loop {
            let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if let Some(error) = first_error(&buffer[..length]) {
                return Err(error);
            }
        }
    }
}

fn open() -> nix::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // Each answer repeats its request unless capped; a long batch could overflow the queue.
    setsockopt(&socket, sockopt::RcvBuf, &(256 << 10))?;
    Ok(socket)
}

/// The first error among the answers in `datagram`.
fn first_error(mut datagram: &[u8]) -> Option<io::Error> {
    let error_kind = u16::try_from(libc::NLMSG_ERROR).expect("it is 2");
    while let Some(header) = datagram.get(..16) {
        let word = |at: usize| {
            u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes were taken"))
        };
        let length = usize::try_from(word(0)).ok()?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind == error_kind
            && let Some(code) = datagram.get(16..20)
        {
            let code = i32::from_ne_bytes(code.try_into().expect("four bytes were taken"));
            if code != 0 {
                return Some(io::Error::from_raw_os_error(-code));
            }
        }
        datagram = datagram.get(length.next_multiple_of(4).max(16)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let attributes = Attributes::new().text(1, "ab").number(2, 3);
        let mut expected = vec![7, 0, 1, 0, b'a', b'b', 0, 0];
        expected.extend([8, 0, 2, 0, 0, 0, 0, 3]);
        assert_eq!(attributes.0, expected);
        let nested = Attributes::new().nested(4, &attributes);
        assert_eq!(nested.0[..4], [20, 0, 4, 0x80]);
        assert_eq!(nested.0[4..], expected);
    }

    #[test]
    fn every_message_of_a_batch_states_its_length() {
        let mut batch = Batch::new();
        batch.table(Command::New, "terrarium_x");
        batch.chain("terrarium_x", "forward", "filter", HOOK_FORWARD, -1);
        batch.rule("terrarium_x", "forward", &[meta(META_OIFNAME), verdict(VERDICT_DROP)]);
        let mut rest = &batch.bytes[..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            kinds.push(u16::from_ne_bytes([rest[4], rest[5]]));
            assert_eq!(length % 4, 0);
            rest = &rest[length..];
        }
        assert_eq!(kinds, [0x10, 0xa00, 0xa03, 0xa06]);
    }

    #[test]
    fn errors_are_found_among_answers() {
        let answer = |code: i32| {
            let mut bytes = Vec::new();
            bytes.extend(20_u32.to_ne_bytes());
            bytes.extend(2_u16.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(first_error(&answer(0)).is_none());
        let both = [answer(0), answer(-libc::ENOENT)].concat();
        assert_eq!(first_error(&both).unwrap().raw_os_error(), Some(libc::ENOENT));
        assert!(first_error(&[]).is_none());
        assert!(first_error(&[0; 16]).is_none());
    }

    #[test]
    fn interface_names_fill_their_field() {
        assert_eq!(interface("terra0")[..7], *b"terra0\0");
    }
}
