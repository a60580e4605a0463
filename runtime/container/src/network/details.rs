//! What a container on a network asks for besides: an address, a link address, name servers, names of hosts.

use super::NetworkRequest;
use super::publish::{self, Published};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use oci_spec::runtime::Spec;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ANNOTATION_IP: &str = "io.terrarium.network.ip";
const ANNOTATION_IP6: &str = "io.terrarium.network.ip6";
const ANNOTATION_MAC: &str = "io.terrarium.network.mac";
const ANNOTATION_DNS: &str = "io.terrarium.network.dns";
const ANNOTATION_HOSTS: &str = "io.terrarium.network.hosts";
const ANNOTATION_PUBLISH: &str = "io.terrarium.network.publish";
const ANNOTATION_FILES_OF: &str = "io.terrarium.network.files-of";

/// As the options and the annotations have them: words, a list of them joined by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// `--ip`
    pub ip: Option<String>,
    /// `--ip6`
    pub ip6: Option<String>,
    /// `--mac`
    pub mac: Option<String>,
    /// `--dns`
    pub dns: Vec<String>,
    /// `--add-host NAME:ADDRESS`
    pub hosts: Vec<String>,
    /// `--publish [IP:]HOST:CONTAINER[/udp]`
    pub publish: Vec<String>,
    /// The container whose network it shares, by `--net container:ID`: it shows its `/etc/hosts` and `resolv.conf` as well.
    pub files_of: Option<String>,
}

/// What they mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// The address to be given.
    pub ip: Option<Ipv4Addr>,
    /// The IPv6 address to be given.
    pub ip6: Option<Ipv6Addr>,
    /// The link address of `eth0`.
    pub mac: Option<[u8; 6]>,
    /// Name servers in place of the host's.
    pub dns: Vec<IpAddr>,
    /// More lines of /etc/hosts.
    pub hosts: Vec<(String, IpAddr)>,
    /// Ports of the host that lead to the container's.
    pub publish: Vec<Published>,
    /// The container whose files are shown.
    pub files_of: Option<ContainerId>,
}

impl NetworkOptions {
    /// Checks the words, and refuses what `network` has no place for.
    pub(crate) fn check(&self, network: &NetworkRequest) -> Result<()> {
        self.details()?;
        let bridged = matches!(network, NetworkRequest::Bridge { .. });
        let carried = matches!(network, NetworkRequest::Userspace(_));
        let has_files = bridged || carried || network.shares_host();
        let (bridge, files) = ("it needs --net bridge", "it needs a network: --net none has none");
        let ports = "it needs --net bridge, pasta or slirp4netns";
        for (option, value, fits, reason) in [
            ("--ip", self.ip.as_ref(), bridged, bridge),
            ("--ip6", self.ip6.as_ref(), bridged, bridge),
            ("--mac", self.mac.as_ref(), bridged, bridge),
            ("--publish", self.publish.first(), bridged || carried, ports),
            ("--dns", self.dns.first(), has_files, files),
            ("--add-host", self.hosts.first(), has_files, files),
        ] {
            if let Some(value) = value.filter(|_| !fits) {
                return Err(Error::invalid(option, value, reason));
            }
        }
        Ok(())
    }

    /// Writes the options into a spec's annotations.
    pub(crate) fn annotate(&self, annotations: &mut HashMap<String, String>) {
        let mut note = |key: &str, value: String| {
            if !value.is_empty() {
                annotations.insert(key.to_owned(), value);
            }
        };
        note(ANNOTATION_IP, self.ip.clone().unwrap_or_default());
        note(ANNOTATION_IP6, self.ip6.clone().unwrap_or_default());
        note(ANNOTATION_FILES_OF, self.files_of.clone().unwrap_or_default());
        note(ANNOTATION_MAC, self.mac.clone().unwrap_or_default());
        note(ANNOTATION_DNS, self.dns.join(","));
        note(ANNOTATION_HOSTS, self.hosts.join(","));
        note(ANNOTATION_PUBLISH, self.publish.join(","));
    }

    fn of(spec: &Spec) -> Self {
        let get = |key| spec.annotations().as_ref().and_then(|all| all.get(key)).cloned();
        let list = |key| -> Vec<String> {
            get(key).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
        };
        Self {
            ip: get(ANNOTATION_IP),
            ip6: get(ANNOTATION_IP6),
            files_of: get(ANNOTATION_FILES_OF),
            mac: get(ANNOTATION_MAC),
            dns: list(ANNOTATION_DNS),
            hosts: list(ANNOTATION_HOSTS),
            publish: list(ANNOTATION_PUBLISH),
        }
    }

    /// Reads the words.
    pub(crate) fn details(&self) -> Result<Details> {
        let ip = self.ip.as_ref().map(|text| {
            text.parse().map_err(|_| Error::invalid("--ip", text, "it is an IPv4 address"))
        });
        let ip6 = self.ip6.as_ref().map(|text| {
            text.parse().map_err(|_| Error::invalid("--ip6", text, "it is an IPv6 address"))
        });
        Ok(Details {
            ip: ip.transpose()?,
            ip6: ip6.transpose()?,
            files_of: self.files_of.as_deref().map(ContainerId::new).transpose()?,
            mac: self.mac.as_deref().map(mac).transpose()?,
            dns: self
                .dns
                .iter()
                .map(|text| {
                    let reason = "a name server is an IPv4 or IPv6 address";
                    text.parse().map_err(|_| Error::invalid("--dns", text, reason))
                })
                .collect::<Result<_>>()?,
            hosts: self.hosts.iter().map(|text| host(text)).collect::<Result<_>>()?,
            publish: self
                .publish
                .iter()
                .map(|text| publish::parse(text))
                .collect::<Result<Vec<_>>>()?
                .concat(),
        })
    }
}

impl Details {
    /// Those of a spec.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        NetworkOptions::of(spec).details()
    }
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let invalid = |reason: &'static str| Error::invalid("--mac", text, reason);
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2))
        .collect::<Option<_>>()
        .ok_or_else(|| invalid("the form is 02:42:0a:4d:00:02"))?;
    let mac: [u8; 6] = bytes.try_into().map_err(|_| invalid("the form is 02:42:0a:4d:00:02"))?;
    // is_valid_ether_addr in linux/etherdevice.h
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(invalid(
            "an interface's own address is neither a group's (odd first byte) nor zero",
        ));
    }
    Ok(mac)
}

fn host(text: &str) -> Result<(String, IpAddr)> {
    let invalid = || Error::invalid("--add-host", text, "the form is NAME:ADDRESS");
    let (name, address) = text.split_once(':').ok_or_else(invalid)?;
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    if name.is_empty() || !name.bytes().all(fine) {
        return Err(invalid());
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((name.to_owned(), address.parse().map_err(|_| invalid())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_carry_the_options() {
        let options = NetworkOptions {
            ip: Some("10.77.0.9".into()),
            ip6: Some("fd00::9".into()),
            files_of: Some("web".into()),
            mac: Some("02:42:00:00:00:09".into()),
            dns: vec!["192.0.2.1".into(), "2001:db8::1".into()],
            hosts: vec!["db:10.77.0.3".into(), "six:2001:db8::2".into()],
            publish: vec!["8080-8081:80-81".into(), "127.0.0.1:53:53/udp".into()],
        };
        let mut annotations = HashMap::new();
        options.annotate(&mut annotations);
        let mut spec = Spec::default();
        spec.set_annotations(Some(annotations));
        let details = Details::of(&spec).unwrap();
        assert_eq!(details, options.details().unwrap());
        assert_eq!(details.publish.len(), 3);
        assert_eq!(details.mac, Some([2, 0x42, 0, 0, 0, 9]));
        assert_eq!(details.hosts[1], ("six".into(), "2001:db8::2".parse().unwrap()));
        assert_eq!(Details::of(&Spec::default()).unwrap(), Details::default());
    }

    #[test]
    fn bad_words_name_their_option() {
        let check = |options: NetworkOptions, option: &str| {
            let error = options.details().unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with(option), "{error}");
        };
        let none = NetworkOptions::default;
        check(NetworkOptions { ip: Some("10.0.0".into()), ..none() }, "--ip");
        check(NetworkOptions { ip6: Some("10.0.0.1".into()), ..none() }, "--ip6");
        for bad in ["", "02:42", "03:00:00:00:00:01", "00:00:00:00:00:00", "2:2:2:2:2:2"] {
            check(NetworkOptions { mac: Some(bad.into()), ..none() }, "--mac");
        }
        check(NetworkOptions { dns: vec!["ns.example".into()], ..none() }, "--dns");
        for bad in ["db", "db:", ":1.2.3.4", "a b:1.2.3.4", "db:1.2.3"] {
            check(NetworkOptions { hosts: vec![bad.into()], ..none() }, "--add-host");
        }
    }
}
