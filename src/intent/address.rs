//! Addresses and CIDRs: text → `IpAddr`, `IpNet`, and which of them make no sense where.
//!
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_spanned::Spanned;

use super::draft::{At, Problems};
use crate::config::{Diagnostic, Span};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A node's own address, on the network between nodes.
    Underlay,
    /// An endpoint's, or the router's.
    Endpoint,
    /// A service's, or that of a backend.
    Service,
}

/// `IPv4` or `IPv6`.
pub(super) fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// `IPv4` or `IPv6`.
pub(super) fn family_of_cidr(cidr: &IpNet) -> &'static str {
    family(&cidr.addr())
}

/// Reads a list of addresses, at most one per family. The flag is false if an entry was left out.
pub(super) fn addresses(
    list: Option<&Spanned<Vec<Spanned<String>>>>,
    what: &str,
    wanted: Use,
    problems: &mut Problems,
) -> (Vec<At<IpAddr>>, bool) {
    let written = list.map_or(&[][..], |list| list.get_ref().as_slice());
    let mut read: Vec<At<IpAddr>> = Vec::with_capacity(written.len());
    for text in written {
        match address(text, wanted) {
            Ok(address) => read.push(address),
            Err(problem) => problems.push(*problem),
        }
    }
    let complete = read.len() == written.len();
    one_per_family(&mut read, family, what, problems);
    (read, complete)
}

/// Reads one address.
fn address(text: &Spanned<String>, wanted: Use) -> Result<At<IpAddr>, Box<Diagnostic>> {
    let written = text.get_ref();
    let problem = match written.parse::<IpAddr>() {
        Ok(address) => match nonsense(address, wanted) {
            None => return Ok(At { value: address, span: text.into() }),
            Some(why) => Diagnostic::new(
                text,
                format!("{written} can't be used here: it is {why}"),
            )
            .help(match address.to_canonical() {
                canonical if canonical != address => format!("write it as IPv4: \"{canonical}\""),
                _ if wanted == Use::Underlay => {
                    "give the address that other nodes reach this one by".to_owned()
                }
                _ if wanted == Use::Service => "give an address that can be reached".to_owned(),
                _ => "give an address out of the node's CIDRs".to_owned(),
            }),
        },
        Err(_) => {
            let problem = Diagnostic::new(text, format!("{} is not an IP address", shown(written)));
            match written.split_once('/') {
                Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                    problem.help(format!("an address has no prefix length: write \"{address}\""))
                }
                _ => problem.help(hint(written)),
            }
        }
    };
    Err(Box::new(problem))
}

/// A text in a message.
pub(super) fn shown(text: &str) -> String {
    if text.is_empty() { "an empty text".to_owned() } else { format!("`{}`", text.escape_debug()) }
}

/// What could be meant by a text that is no address.
pub(super) fn hint(text: &str) -> String {
    let parts: Vec<_> = text.split('.').collect();
    let decimal = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if text.contains('%') {
        return "an address with a zone (`%eth0`) can't be used: give one that is valid on every link".into();
    }
    if !text.is_empty() && parts.iter().all(decimal) {
        return match parts.len() {
            4 if parts.iter().any(|part| part.len() > 1 && part.starts_with('0')) => {
                "write the numbers without leading zeros".into()
            }
            4 => "each of the four numbers is at most 255".into(),
            n => format!("an IPv4 address has four numbers, this has {n}"),
        };
    }
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return "write the address without a port".into();
    }
    if !text.contains(':') && text.chars().any(|c| c.is_ascii_alphabetic()) {
        return "names are not resolved: write the address itself, like \"192.0.2.1\"".into();
    }
    "write it like \"192.0.2.1\" or \"2001:db8::1\"".into()
}

/// Why an address makes no sense.
pub(super) fn nonsense(address: IpAddr, wanted: Use) -> Option<&'static str> {
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Some("an IPv4-mapped IPv6 address");
    }
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if address.is_loopback() => Some("a loopback address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => {
            Some("in 0.0.0.0/8, which stands for \"this network\"")
        }
        IpAddr::V4(v4) if v4.is_link_local() && wanted == Use::Endpoint => {
            Some("a link-local address")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        _ => None,
    }
}

/// Networks no endpoint can be in, and what they are.
const FORBIDDEN: &[(IpNet, &str)] = &[
    (net4([127, 0, 0, 0], 8), "loopback"),
    (net4([169, 254, 0, 0], 16), "link-local"),
    (net4([224, 0, 0, 0], 4), "multicast"),
    (net4([255, 255, 255, 255], 32), "broadcast"),
    (net6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (net6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (net6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "IPv4-mapped"),
    (net6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
];

const fn net4(octets: [u8; 4], bits: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
}

const fn net6(words: [u16; 8], bits: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = words;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), bits))
}

/// Reads a list of CIDRs. The flag is false if an entry was left out.
pub(super) fn cidrs(
    list: Option<&Spanned<Vec<Spanned<String>>>>,
    problems: &mut Problems,
) -> (Vec<At<IpNet>>, bool) {
    let written = list.map_or(&[][..], |list| list.get_ref().as_slice());
    let mut read = Vec::with_capacity(written.len());
    for text in written {
        match cidr(text) {
            Ok(cidr) => read.push(cidr),
            Err(problem) => problems.push(*problem),
        }
    }
    let complete = read.len() == written.len();
    (read, complete)
}

const EXAMPLE: &str = "write a network and a prefix length, like \"10.244.0.0/24\"";

/// The prefix length somebody probably meant who gave none: that of a network if the address ends in
/// zeros, else of the one address.
fn usual_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if v4.octets()[3] == 0 => 24,
        IpAddr::V4(_) => 32,
        IpAddr::V6(v6) if v6.segments()[4..] == [0; 4] => 64,
        IpAddr::V6(_) => 128,
    }
}

/// Reads one CIDR.
fn cidr(text: &Spanned<String>) -> Result<At<IpNet>, Box<Diagnostic>> {
    let written = text.get_ref();
    let bad = |help: String| {
        Box::new(Diagnostic::new(text, format!("{} is not a CIDR", shown(written))).help(help))
    };
    let Some((address, bits)) = written.split_once('/') else {
        return Err(bad(match written.parse::<IpAddr>() {
            Ok(host) => format!("add a prefix length, like \"{host}/{}\"", usual_bits(host)),
            Err(_) => EXAMPLE.to_owned(),
        }));
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let is_name = !address.contains(':') && address.contains(|c: char| c.is_ascii_alphabetic());
        return Err(bad(if is_name { EXAMPLE.to_owned() } else { hint(address) }));
    };
    let longest = IpNet::from(address).max_prefix_len();
    let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    let Some(cidr) =
        bits.parse().ok().filter(|_| digits).and_then(|bits| IpNet::new(address, bits).ok())
    else {
        let family = family(&address);
        return Err(bad(format!("the prefix length of {family} is a number from 0 to {longest}")));
    };
    if cidr.addr() != cidr.network() {
        let problem = Diagnostic::new(
            text,
            format!("`{written}` is not a network: it has bits set after the first {bits}"),
        );
        return Err(Box::new(
            problem.help(format!(
                "write \"{}\" for the network that holds this address",
                cidr.trunc()
            )),
        ));
    }
    Ok(At { value: cidr, span: text.into() })
}

/// True if endpoints can be numbered from a CIDR; if not, says why.
pub(super) fn holds_endpoints(cidr: &At<IpNet>, problems: &mut Problems) -> bool {
    let (net, span) = (cidr.value, cidr.span);
    if net.prefix_len() == 0 {
        let problem = Diagnostic::new(
            span,
            format!("{net} is every {} address there is", family_of_cidr(&net)),
        );
        problems.push(problem.help("give the network that the node's endpoints are numbered from"));
        return false;
    }
    let overlaps = |forbidden: &IpNet| forbidden.contains(&net) || net.contains(forbidden);
    if let Some((forbidden, what)) = FORBIDDEN.iter().find(|(forbidden, _)| overlaps(forbidden)) {
        let message = format!("endpoints can't have addresses out of {net}");
        let problem = Diagnostic::new(span, message).label(format!("{forbidden} is {what}"));
        problems
            .push(problem.help("use a private network, like 10.244.0.0/24 or fd00:10:244::/64"));
        return false;
    }
    true
}

/// Leaves one entry per family, and complains about the others.
pub(super) fn one_per_family<T>(
    list: &mut Vec<At<T>>,
    family: impl Fn(&T) -> &'static str,
    what: &str,
    problems: &mut Problems,
) {
    let mut first: Vec<(&'static str, Span)> = Vec::with_capacity(2);
    list.retain(|entry| {
        let family = family(&entry.value);
        let Some((_, earlier)) = first.iter().find(|(seen, _)| *seen == family) else {
            first.push((family, entry.span));
            return true;
        };
        let problem =
            Diagnostic::new(entry.span, format!("{what} has more than one {family} entry"));
        problems.push(
            problem
                .label("the second one")
                .related(*earlier, "the first one")
                .help("keep one of them: there may be one for IPv4 and one for IPv6"),
        );
        false
    });
}
