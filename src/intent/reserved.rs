//! Addresses of a node's CIDRs that are set aside: the router's and the health endpoint's.
//!
//! Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_spanned::Spanned;

use super::address::{self, Use};
use super::draft::{At, Problems};
use super::limits;
use crate::config::Diagnostic;

/// What an address is set aside for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// `cilium_host`: `routers`.
    Router,
    /// The health endpoint: `health-addresses`.
    Health,
}

/// Where the addresses are set aside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cidrs<'a> {
    pub list: &'a [At<IpNet>],
    /// False if one had to be left out: then nothing follows from its absence.
    pub complete: bool,
    /// Whose they are, as messages say it.
    pub whose: &'a str,
}

impl Reserved {
    /// The key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Router => "routers",
            Self::Health => "health-addresses",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Health => "health address",
        }
    }

    /// The address of a CIDR where none is given: the first usable one for the router, the last for
    /// health, and for health none where no endpoint would have room beside it.
    fn default(self, cidr: IpNet) -> Option<IpAddr> {
        let (address, longest) = match self {
            Self::Router => (first(cidr), cidr.max_prefix_len()),
            Self::Health if cidr.addr().is_ipv4() => {
                (last(cidr), limits::HEALTH_PREFIX_BITS_MAX_IPV4)
            }
            Self::Health => (last(cidr), limits::HEALTH_PREFIX_BITS_MAX_IPV6),
        };
        let usable = cidr.contains(&address) && unusable(cidr, address).is_none();
        (usable && cidr.prefix_len() <= longest).then_some(address)
    }
}

/// The address of each family: as written, or, with `derive`, the default of the first CIDR that has one.
pub(super) fn read(
    what: Reserved,
    written: Option<&Spanned<Vec<Spanned<String>>>>,
    cidrs: Cidrs<'_>,
    derive: bool,
    problems: &mut Problems,
) -> Vec<At<IpAddr>> {
    let key = format!("`{}`", what.key());
    let (mut read, complete) = address::addresses(written, &key, Use::Endpoint, problems);
    read.retain(|address| match misplaced(what, address, cidrs) {
        Ok(fits) => fits,
        Err(problem) => {
            problems.push(*problem);
            false
        }
    });
    for cidr in cidrs.list.iter().filter(|_| complete && derive) {
        let family = address::family_of_cidr(&cidr.value);
        if read.iter().all(|address| address::family(&address.value) != family) {
            let default = what.default(cidr.value);
            read.extend(default.map(|value| At { value, span: cidr.span }));
        }
    }
    // In the order of `cidrs`, whether written or derived.
    let place = |address: &At<IpAddr>| {
        cidrs.list.iter().position(|cidr| cidr.value.contains(&address.value))
    };
    read.sort_by_cached_key(place);
    read
}

/// Whether an address can be the one; false where a CIDR that can't be judged may hold it.
fn misplaced(
    what: Reserved,
    address: &At<IpAddr>,
    Cidrs { list, complete, whose }: Cidrs<'_>,
) -> Result<bool, Box<Diagnostic>> {
    let (value, name, key) = (address.value, what.name(), what.key());
    let family = address::family(&value);
    let of_family = |cidr: &&At<IpNet>| address::family_of_cidr(&cidr.value) == family;
    let holder = list.iter().find(|cidr| cidr.value.contains(&value));
    let problem = match holder.or_else(|| list.iter().find(of_family)) {
        None if complete => Diagnostic::new(address.span, format!("{name} {value} has no CIDR"))
            .label(format!("{whose} has no {family} entry in `cidrs`"))
            .help(format!("add an {family} CIDR to `cidrs`, or remove this {name}")),
        None => return Ok(false),
        Some(own) => {
            let (message, choose) = match unusable(own.value, value) {
                _ if !own.value.contains(&value) => {
                    (format!("{name} {value} is outside {}", own.value), "an address in it")
                }
                Some(why) => {
                    (format!("{name} {value} is the {why} address of {}", own.value), "another")
                }
                None => return Ok(true),
            };
            let or = match what.default(own.value) {
                Some(default) => format!("leave `{key}` out for {default}"),
                None => format!("leave `{key}` out"),
            };
            Diagnostic::new(address.span, message)
                .related(own.span, format!("{whose}'s CIDR"))
                .help(format!("choose {choose}, or {or}"))
        }
    };
    Err(Box::new(problem))
}

/// The first usable address of a CIDR: the one after the network's own.
fn first(cidr: IpNet) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).saturating_add(1).into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).saturating_add(1).into()),
    }
}

/// The last usable address of a CIDR: for IPv4 the one before the broadcast address.
fn last(cidr: IpNet) -> IpAddr {
    match cidr.broadcast() {
        IpAddr::V4(broadcast) => IpAddr::V4(u32::from(broadcast).saturating_sub(1).into()),
        last => last,
    }
}

/// Why an address of a CIDR can't be a host's. With IPv6 the first is the subnet-router anycast address
/// (RFC 4291, section 2.6.1); there is no broadcast.
pub(super) fn unusable(cidr: IpNet, address: IpAddr) -> Option<&'static str> {
    match cidr {
        _ if address == cidr.network() => Some("network"),
        IpNet::V4(v4) if address == IpAddr::V4(v4.broadcast()) => Some("broadcast"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_first_and_the_last_usable_address() {
        let of = |what: Reserved, cidr: &str| {
            what.default(cidr.parse().unwrap()).map(|address| address.to_string())
        };
        for (cidr, router, health) in [
            ("10.244.0.0/24", Some("10.244.0.1"), Some("10.244.0.254")),
            ("10.244.0.8/29", Some("10.244.0.9"), Some("10.244.0.14")),
            ("10.244.0.8/30", Some("10.244.0.9"), None),
            ("10.244.0.8/31", None, None),
            ("10.244.0.8/32", None, None),
            ("fd00::/80", Some("fd00::1"), Some("fd00::ffff:ffff:ffff")),
            ("fd00::/126", Some("fd00::1"), Some("fd00::3")),
            ("fd00::/127", Some("fd00::1"), None),
            ("fd00::/128", None, None),
            ("255.255.255.0/24", Some("255.255.255.1"), Some("255.255.255.254")),
        ] {
            assert_eq!(of(Reserved::Router, cidr).as_deref(), router, "{cidr}");
            assert_eq!(of(Reserved::Health, cidr).as_deref(), health, "{cidr}");
        }
    }
}
