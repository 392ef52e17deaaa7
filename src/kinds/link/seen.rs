//! Link messages → what was seen. Pure: decodes values that `kernel` received.

use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo as LinkInfoAttribute, LinkMessage, LinkXdp, Prop,
};

use super::{End, KIND_WIREGUARD, Peer, Seen, Tunnel};
use crate::kinds::owner;
use crate::net::{IfName, Mac, Netns};

/// What the alias of the tunnel's device says after [`owner::LINK_ALIAS_PREFIX`].
pub const ALIAS_TUNNEL: &str = "tunnel";

/// The same of the device that encrypts.
pub const ALIAS_ENCRYPTION: &str = "encryption";

/// One link of a namespace, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    pub ifindex: u32,
    pub ifname: IfName,
    /// `IFLA_ALT_IFNAME`: names that no other device can have; those that we could ask for.
    pub altnames: Vec<IfName>,
    pub kind: String,
    pub end: End,
    /// `IFLA_GROUP`.
    pub group: u32,
    /// `IFLA_LINK`: of a veth, the ifindex of the other end, in the other end's namespace.
    pub link: Option<u32>,
    /// `IFLA_LINK_NETNSID`: present when the other end is in another namespace.
    pub link_netnsid: Option<i32>,
    /// Of VXLAN and Geneve.
    pub tunnel: Option<Tunnel>,
    /// The program at the driver.
    pub xdp: Option<XdpInfo>,
}

/// An XDP program on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpInfo {
    pub program_id: u32,
    /// The kernel runs it, not the driver.
    pub generic: bool,
}

impl LinkInfo {
    /// Whether the link is of a kind that we make and shows one of our marks: the group, or, if somebody
    /// took that away, the alias as we write it.
    pub fn owned(&self) -> bool {
        let alias = self.end.alias.strip_prefix(owner::LINK_ALIAS_PREFIX);
        let alias = alias.and_then(|alias| alias.strip_prefix(' ')).unwrap_or_default();
        let as_written = match self.kind.as_str() {
            "veth" => ["router", "health"].contains(&alias) || alias.starts_with("endpoint "),
            KIND_WIREGUARD => alias == ALIAS_ENCRYPTION,
            _ => alias == ALIAS_TUNNEL,
        };
        owner::LINK_KINDS.contains(&self.kind.as_str()) && (self.end.grouped || as_written)
    }

    /// Whether it is what has that name.
    pub fn is_called(&self, ifname: &IfName) -> bool {
        self.ifname == *ifname || self.altnames.contains(ifname)
    }

    /// The link as the other end of a pair.
    pub fn as_peer(&self, netns: Netns, with_ifindex: bool) -> Peer {
        Peer {
            netns,
            ifname: self.ifname,
            ifindex: with_ifindex.then_some(self.ifindex),
            end: self.end.clone(),
        }
    }

    /// The link as an object, with the end it was found to be paired with.
    pub fn as_seen(&self, peer: Option<Peer>) -> Seen {
        Seen {
            owned: self.owned(),
            kind: self.kind.clone(),
            ifindex: self.ifindex,
            end: self.end.clone(),
            peer,
            tunnel: self.tunnel,
        }
    }
}

/// Decodes a link message; `None` when it has no name we could use.
pub fn decode(message: &LinkMessage) -> Option<LinkInfo> {
    let mut info = LinkInfo {
        ifindex: message.header.index,
        ifname: "x".parse().ok()?,
        altnames: Vec::new(),
        kind: String::new(),
        end: End {
            mac: Mac([0; 6]),
            mtu_bytes: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            arp: !message.header.flags.contains(LinkFlags::Noarp),
            alias: String::new(),
            grouped: false,
            enslaved: false,
            promiscuous: message.header.flags.intersects(LinkFlags::Promisc | LinkFlags::Allmulti),
        },
        group: 0,
        link: None,
        link_netnsid: None,
        tunnel: None,
        xdp: None,
    };
    let mut named = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => {
                info.ifname = name.parse().ok()?;
                named = true;
            }
            LinkAttribute::PropList(names) => info.altnames = altnames(names),
            LinkAttribute::Address(bytes) => {
                if let Ok(bytes) = <[u8; 6]>::try_from(bytes.as_slice()) {
                    info.end.mac = Mac(bytes);
                }
            }
            LinkAttribute::Mtu(mtu) => info.end.mtu_bytes = *mtu,
            LinkAttribute::IfAlias(alias) => info.end.alias.clone_from(alias),
            LinkAttribute::Group(group) => {
                info.end.grouped = *group == owner::LINK_GROUP;
                info.group = *group;
            }
            LinkAttribute::Controller(index) => info.end.enslaved = *index != 0,
            LinkAttribute::Link(index) => info.link = Some(*index),
            LinkAttribute::LinkNetNsId(id) => info.link_netnsid = Some(*id),
            LinkAttribute::Xdp(attributes) => info.xdp = xdp(attributes),
            LinkAttribute::LinkInfo(infos) => {
                for attribute in infos {
                    match attribute {
                        LinkInfoAttribute::Kind(kind) => info.kind = kind_name(kind),
                        LinkInfoAttribute::Data(data) => info.tunnel = tunnel(data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    named.then_some(info)
}

fn altnames(properties: &[Prop]) -> Vec<IfName> {
    let name = |property: &Prop| match property {
        Prop::AltIfName(name) => name.parse().ok(),
        _ => None,
    };
    properties.iter().filter_map(name).collect()
}

/// The program at the driver; the kernel says of every device whether it has any.
fn xdp(attributes: &[LinkXdp]) -> Option<XdpInfo> {
    let (mut program_id, mut generic) = (None, false);
    for attribute in attributes {
        match attribute {
            LinkXdp::SkbProgId(id) => (program_id, generic) = (Some(*id), true),
            LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => {
                (program_id, generic) = (Some(*id), false);
            }
            _ => {}
        }
    }
    program_id.map(|program_id| XdpInfo { program_id, generic })
}

/// What a tunnel's device is made with.
fn tunnel(data: &InfoData) -> Option<Tunnel> {
    let mut port = 0;
    // The kernel leaves out what is off of some of these, and says so of others.
    let (mut external, mut learning, mut zero_checksum) = (false, false, false);
    match data {
        InfoData::Vxlan(attributes) => {
            for attribute in attributes {
                match attribute {
                    InfoVxlan::Port(number) => port = *number,
                    InfoVxlan::CollectMetadata(on) => external = *on,
                    InfoVxlan::Learning(on) => learning = *on,
                    InfoVxlan::UDPZeroCsumRX(on) => zero_checksum = *on,
                    _ => {}
                }
            }
        }
        InfoData::Geneve(attributes) => {
            for attribute in attributes {
                match attribute {
                    InfoGeneve::Port(number) => port = *number,
                    InfoGeneve::CollectMetadata => external = true,
                    InfoGeneve::UdpZeroCsum6Rx(on) => zero_checksum = *on,
                    _ => {}
                }
            }
        }
        _ => return None,
    }
    Some(Tunnel { port, flow_based: external && !learning && zero_checksum })
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

/// The link in `candidates` that is the other end of `link`: each names the other's ifindex.
pub fn pair<'a>(link: &LinkInfo, candidates: &'a [LinkInfo]) -> Option<&'a LinkInfo> {
    let index = link.link?;
    candidates.iter().find(|other| {
        other.ifindex == index && other.link == Some(link.ifindex) && other.kind == "veth"
    })
}
