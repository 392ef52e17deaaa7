//! Link messages → what was seen. Pure: decodes values that `kernel` received.

use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo as LinkInfoAttribute, LinkMessage,
};

use super::{End, Peer, Seen};
use crate::kinds::owner;
use crate::net::{IfName, Mac, Netns};

/// One link of a namespace, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    pub ifindex: u32,
    pub ifname: IfName,
    pub kind: String,
    pub end: End,
    /// `IFLA_GROUP`.
    pub group: u32,
    /// `IFLA_LINK`: of a veth, the ifindex of the other end, in the other end's namespace.
    pub link: Option<u32>,
    /// `IFLA_LINK_NETNSID`: present when the other end is in another namespace.
    pub link_netnsid: Option<i32>,
}

impl LinkInfo {
    /// Whether the link is of a kind that we make and shows one of our marks: the group, or, if somebody
    /// took that away, the alias as we write it.
    pub fn owned(&self) -> bool {
        let alias = self.end.alias.strip_prefix(owner::LINK_ALIAS_PREFIX);
        let as_written = alias.is_some_and(|alias| {
            [" router", " health"].contains(&alias) || alias.starts_with(" endpoint ")
        });
        owner::LINK_KINDS.contains(&self.kind.as_str()) && (self.end.grouped || as_written)
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
        }
    }
}

/// Decodes a link message; `None` when it has no name we could use.
pub fn decode(message: &LinkMessage) -> Option<LinkInfo> {
    let mut info = LinkInfo {
        ifindex: message.header.index,
        ifname: "x".parse().ok()?,
        kind: String::new(),
        end: End {
            mac: Mac([0; 6]),
            mtu_bytes: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            arp: !message.header.flags.contains(LinkFlags::Noarp),
            alias: String::new(),
            grouped: false,
        },
        group: 0,
        link: None,
        link_netnsid: None,
    };
    let mut named = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => {
                info.ifname = name.parse().ok()?;
                named = true;
            }
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
            LinkAttribute::Link(index) => info.link = Some(*index),
            LinkAttribute::LinkNetNsId(id) => info.link_netnsid = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                for attribute in infos {
                    if let LinkInfoAttribute::Kind(kind) = attribute {
                        info.kind = kind_name(kind);
                    }
                }
            }
            _ => {}
        }
    }
    named.then_some(info)
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
