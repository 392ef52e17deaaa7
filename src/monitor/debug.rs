//! Debug messages in words.
//!
//! Pure. Imports its siblings. Numbers, arguments and the words of the messages that operators of Cilium
//! know are Cilium's; addresses in arguments are in network order.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::record::Debug;

/// What conntrack says of a packet, by number.
const VERDICTS: &[&str] = &["New", "Established", "Reply", "Related", "Reopened"];

fn ipv4(argument: u32) -> Ipv4Addr {
    Ipv4Addr::from(argument.to_ne_bytes())
}

/// The last four bytes are all of an IPv6 address that fits.
fn ipv6_tail(argument: u32) -> String {
    let [a, b, c, d] = argument.to_ne_bytes();
    format!("..:{:x}:{:x}", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Two ports in network order.
fn ports(argument: u32) -> (u16, u16) {
    (u16::from_be(argument as u16), u16::from_be((argument >> 16) as u16))
}

/// The message.
pub fn message(debug: &Debug) -> String {
    let [first, second, third] = debug.arguments;
    match debug.number {
        1 => format!("Generic: {first} ({first:#x}), {second} ({second:#x}), {third} ({third:#x})"),
        2 => format!("Attempting local delivery for container id {first} from seclabel {second}"),
        3 if third == 0 => format!("Encapsulating to {} from seclabel {second}", ipv4(first)),
        // Ours alone: the family.
        3 => format!("Encapsulating to {} from seclabel {second}", ipv6_tail(first)),
        5 => format!("Policy denied from {first} to {second}"),
        8 => format!("CT entry found lifetime={first}, revnat={}", u16::from_be(second as u16)),
        15 => {
            let verdict = VERDICTS.get(first as usize).copied().unwrap_or("unknown");
            format!("CT verdict: {verdict}, revnat={}", u16::from_be(second as u16))
        }
        16 => format!("Decapsulated: id={first}, flowlabel={second:#x}"),
        18 => format!("Step {first} failed with {}", second as i32),
        45 => format!("L4 policy: port {} protocol {second}", u16::from_be(first as u16)),
        46 | 47 => format!("Encapsulating from the network: key {first:#x}, identity {second}"),
        48 => {
            let (source, destination) = ports(third);
            let source = SocketAddrV4::new(ipv4(first), source);
            let destination = SocketAddrV4::new(ipv4(second), destination);
            format!("Conntrack lookup 1/2: src={source} dst={destination}")
        }
        49 | 52 => {
            format!("Conntrack lookup 2/2: nexthdr={} flags={}", first >> 8, first & 0xff)
        }
        51 => {
            let (source, destination) = ports(third);
            format!(
                "Conntrack lookup 1/2: src=[{}]:{source} dst=[{}]:{destination}",
                ipv6_tail(first),
                ipv6_tail(second)
            )
        }
        50 => format!("Conntrack create: {} lb={}", created(first, second), ipv4(third)),
        53 => format!("Conntrack create: {}", created(first, second)),
        54 => "The proxy is left out: this is from it".to_string(),
        55 => format!("L4 policy matched: src={first} dst={second} {third:#x}"),
        56 => format!("No identity known for addr={}", ipv4(first)),
        57 => format!("No identity known for addr=[{}]", ipv6_tail(first)),
        58 => format!("Successfully mapped addr={} to identity={second}", ipv4(first)),
        59 => format!("Successfully mapped addr=[{}] to identity={second}", ipv6_tail(first)),
        60 => format!("Stale conntrack entry of a service: {first}, {second}"),
        61 => format!("Inheriting identity={first} from stack"),
        other => format!("Message {other}: {first}, {second}, {third}"),
    }
}

fn created(ports: u32, identity: u32) -> String {
    let (proxy, revnat) = ((ports >> 16) as u16, ports as u16);
    format!(
        "proxy-port={} revnat={} src-identity={identity}",
        u16::from_be(proxy),
        u16::from_be(revnat)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(number: u8, arguments: [u32; 3]) -> String {
        message(&Debug { number, arguments })
    }

    #[test]
    fn messages_are_those_of_the_walk_through() {
        let source = u32::from_ne_bytes([171, 0, 1, 227]);
        let destination = u32::from_ne_bytes([171, 0, 1, 234]);
        let ports = u32::from(50222_u16.to_be()) | u32::from(22_u16.to_be()) << 16;
        for (number, arguments, text) in [
            (
                48,
                [source, destination, ports],
                "Conntrack lookup 1/2: src=171.0.1.227:50222 dst=171.0.1.234:22",
            ),
            (49, [6 << 8 | 1, 0, 0], "Conntrack lookup 2/2: nexthdr=6 flags=1"),
            (15, [0, 0, 0], "CT verdict: New, revnat=0"),
            (15, [2, 0, 0], "CT verdict: Reply, revnat=0"),
            (58, [destination, 43561, 0], "Successfully mapped addr=171.0.1.234 to identity=43561"),
            (
                50,
                [0, 43561, 0],
                "Conntrack create: proxy-port=0 revnat=0 src-identity=43561 lb=0.0.0.0",
            ),
            (
                2,
                [1777, 43561, 0],
                "Attempting local delivery for container id 1777 from seclabel 43561",
            ),
            (3, [destination, 43561, 0], "Encapsulating to 171.0.1.234 from seclabel 43561"),
            (8, [6_163_982, 0, 0], "CT entry found lifetime=6163982, revnat=0"),
            (61, [1, 0, 0], "Inheriting identity=1 from stack"),
        ] {
            assert_eq!(said(number, arguments), text);
        }
    }

    #[test]
    fn ipv6_addresses_show_what_fits() {
        let tail = u32::from_ne_bytes([0x12, 0x34, 0x56, 0x78]);
        let ports = u32::from(1_u16.to_be()) | u32::from(2_u16.to_be()) << 16;
        assert_eq!(
            said(51, [tail, tail, ports]),
            "Conntrack lookup 1/2: src=[..:1234:5678]:1 dst=[..:1234:5678]:2"
        );
        assert_eq!(said(3, [tail, 7, 1]), "Encapsulating to ..:1234:5678 from seclabel 7");
        assert_eq!(said(59, [tail, 7, 0]), "Successfully mapped addr=[..:1234:5678] to identity=7");
    }

    #[test]
    fn unknown_messages_show_their_numbers() {
        assert_eq!(said(200, [1, 2, 3]), "Message 200: 1, 2, 3");
    }
}
