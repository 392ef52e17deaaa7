//! Links: network devices that ciliate makes. A veth pair is one object, named by its end on the host,
//! so that no plan can hold half of one. A tunnel's device is flow-based: it has neither a virtual
//! network nor a far end of its own; both come with each packet, from the programs. A device of WireGuard is
//! bare here: its keys and peers are objects of other kinds.
//!
//! Ownership: group [`owner::LINK_GROUP`](super::owner::LINK_GROUP), set by the message that makes
//! the link, and an alias that begins with `ciliate` and says what the link is for. On a link of a kind
//! that we make, either proves it; the other is repaired. Plans choose the ifindex themselves
//! (`ifi_index` of `RTM_NEWLINK` is honoured since Linux 3.7), so that everything that refers to it can
//! be planned too.
//!
//! Pure but for `exec.rs`.

pub mod exec;
mod seen;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BlockedReason, Field, Kind, ObjectKey, Observed, bpf_map_entry};
use crate::net::{IfName, Mac, Netns};

pub use seen::{ALIAS_ENCRYPTION, ALIAS_TUNNEL, LinkInfo, XdpInfo, decode, pair};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Link;

/// One end of a link: what the kernel keeps for any device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub mac: Mac,
    pub mtu_bytes: u32,
    pub up: bool,
    /// False sets `IFF_NOARP`.
    pub arp: bool,
    pub alias: String,
    /// Whether the link is in our group.
    pub grouped: bool,
    /// Whether it is a port of another device: a bridge, a bond, a VRF.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enslaved: bool,
    /// Whether it was told to take all packets (`IFF_PROMISC` or `IFF_ALLMULTI`). Who only listens doesn't
    /// set it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promiscuous: bool,
}

/// The other end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub netns: Netns,
    pub ifname: IfName,
    /// Chosen by the plan where something refers to it; else the kernel's choice, and not compared.
    pub ifindex: Option<u32>,
    #[serde(flatten)]
    pub end: End,
}

/// What encapsulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Vxlan,
    Geneve,
}

impl Protocol {
    /// `IFLA_INFO_KIND`.
    pub fn kind(self) -> &'static str {
        match self {
            Protocol::Vxlan => "vxlan",
            Protocol::Geneve => "geneve",
        }
    }
}

/// What sort of link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum Form {
    /// `peer` is `None`: leave the other end alone, its namespace can't be seen now.
    Veth { peer: Option<Peer> },
    /// A tunnel's device, flow-based, on a UDP port.
    Tunnel { protocol: Protocol, port: u16 },
    /// A device of WireGuard. It has no Ethernet address; what it does is said by objects of other kinds.
    Wireguard,
}

/// What a device without Ethernet has.
pub const NO_MAC: Mac = Mac([0; 6]);

/// `IFLA_INFO_KIND` of WireGuard.
pub const KIND_WIREGUARD: &str = "wireguard";

impl Form {
    /// `IFLA_INFO_KIND`.
    fn kind(&self) -> &'static str {
        match self {
            Form::Veth { .. } => "veth",
            Form::Tunnel { protocol, .. } => protocol.kind(),
            Form::Wireguard => KIND_WIREGUARD,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub ifindex: u32,
    #[serde(flatten)]
    pub end: End,
    #[serde(flatten)]
    pub form: Form,
}

impl Spec {
    /// The other end, of a veth pair whose other end is asked for too.
    pub fn peer(&self) -> Option<&Peer> {
        match &self.form {
            Form::Veth { peer } => peer.as_ref(),
            Form::Tunnel { .. } | Form::Wireguard => None,
        }
    }
}

/// What the kernel says of a tunnel's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    pub port: u16,
    /// Whether it is as we make them: what to do comes with each packet, no addresses are learnt from
    /// packets, and IPv6 packets may come without a UDP checksum.
    pub flow_based: bool,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub owned: bool,
    /// `IFLA_INFO_KIND`, empty for a physical device.
    pub kind: String,
    pub ifindex: u32,
    #[serde(flatten)]
    pub end: End,
    /// The end that is paired with this one, if it is where we looked.
    pub peer: Option<Peer>,
    /// Of VXLAN and Geneve.
    pub tunnel: Option<Tunnel>,
}

/// What has the name that the other end of a wanted pair is to have, and isn't that end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    #[serde(default)]
    pub netns: Netns,
    pub ifname: IfName,
    /// It bears our mark: the end of a pair that another ciliate made, or that somebody moved here.
    pub owned: bool,
}

impl Taken {
    /// Why the pair can't be had.
    pub fn reason(&self, link: &IfName) -> BlockedReason {
        let place = match self.netns.path() {
            None => String::new(),
            Some(path) => format!(" in {path}"),
        };
        let object = format!("link {}{place}", self.ifname);
        match self.owned {
            false => BlockedReason::Foreign { object },
            true => BlockedReason::EndOfAnother { object, link: link.to_string() },
        }
    }
}

impl Kind for Link {
    type Key = IfName;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "link";

    fn realise(_key: &IfName, spec: &Spec) -> Seen {
        let tunnel = match spec.form {
            Form::Veth { .. } | Form::Wireguard => None,
            Form::Tunnel { port, .. } => Some(Tunnel { port, flow_based: true }),
        };
        Seen {
            owned: true,
            kind: spec.form.kind().into(),
            ifindex: spec.ifindex,
            end: spec.end.clone(),
            peer: spec.peer().cloned(),
            tunnel,
        }
    }

    fn fields(_key: &IfName, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let mut fields = Vec::new();
        fields.extend(Field::immutable("kind", &seen.kind.as_str(), &spec.form.kind()));
        fields.extend(Field::immutable("ifindex", &seen.ifindex, &spec.ifindex));
        end_fields("", &spec.end, &seen.end, &mut fields);
        match &spec.form {
            Form::Veth { peer: None } | Form::Wireguard => {}
            Form::Veth { peer: Some(peer) } => peer_fields(peer, seen.peer.as_ref(), &mut fields),
            Form::Tunnel { port, .. } => tunnel_fields(*port, seen.tunnel, &mut fields),
        }
        fields
    }

    fn owned(seen: &Seen) -> bool {
        seen.owned
    }

    fn describe_spec(_key: &IfName, spec: &Spec) -> String {
        let port = match spec.form {
            Form::Veth { .. } | Form::Wireguard => None,
            Form::Tunnel { port, .. } => Some(port),
        };
        describe(spec.form.kind(), spec.ifindex, &spec.end, (spec.peer(), port))
    }

    fn describe_seen(_key: &IfName, seen: &Seen) -> String {
        let port = seen.tunnel.map(|tunnel| tunnel.port);
        describe(&seen.kind, seen.ifindex, &seen.end, (seen.peer.as_ref(), port))
    }

    /// The namespace of the other end, which may be ours to make.
    fn needs(_key: &IfName, spec: &Spec) -> Vec<ObjectKey> {
        let netns = spec.peer().map(|peer| &peer.netns);
        let netns = netns.filter(|netns| **netns != Netns::HOST);
        netns.map(|netns| ObjectKey::Netns(netns.clone())).into_iter().collect()
    }

    /// The programs send packets to a tunnel until the node's entry names another one, or none.
    fn outlives<'a>(
        _key: &IfName,
        seen: &Seen,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        seen.tunnel?;
        failed.get(&ObjectKey::BpfMapEntry(bpf_map_entry::node()))
    }

    fn cascade(key: &IfName, gone: &Seen, observed: &mut Observed) {
        let mut ends = vec![(Netns::HOST, *key)];
        ends.extend(gone.peer.iter().map(|p| (p.netns.clone(), p.ifname)));
        for (netns, ifname) in &ends {
            observed.addresses.retain(|k, _| k.netns != *netns || k.ifname != *ifname);
            observed.routes.retain(|k, route| k.netns != *netns || route.way.dev != Some(*ifname));
            observed.sysctls.retain(|k, _| k.netns != *netns || !k.is_of_device(ifname));
            if *netns == Netns::HOST {
                observed.neighbours.retain(|k, _| k.ifname != *ifname);
                observed.wireguards.remove(ifname);
                observed.wireguard_peers.retain(|k, _| k.ifname != *ifname);
                for (_, link) in observed.bpf_links.iter_mut().filter(|(k, _)| k.ifname == *ifname)
                {
                    link.lose_device();
                }
            }
        }
        observed.bpf_links.retain(|_, link| link.ifindex != 0 || link.pinned());
    }
}

fn peer_fields(want: &Peer, seen: Option<&Peer>, fields: &mut Vec<Field>) {
    let Some(seen) = seen else {
        let want = format!("{} in {}", want.ifname, want.netns);
        fields.extend(Field::immutable("peer", &"missing".to_string(), &want));
        return;
    };
    fields.extend(Field::immutable("peer name", &seen.ifname, &want.ifname));
    if let (Some(seen), Some(want)) = (seen.ifindex, want.ifindex) {
        fields.extend(Field::immutable("peer ifindex", &seen, &want));
    }
    end_fields("peer ", &want.end, &seen.end, fields);
}

/// The kernel changes neither on a living device.
fn tunnel_fields(port: u16, seen: Option<Tunnel>, fields: &mut Vec<Field>) {
    let (seen_port, flow_based) = match seen {
        None => ("none".to_string(), false),
        Some(tunnel) => (tunnel.port.to_string(), tunnel.flow_based),
    };
    fields.extend(Field::immutable("port", &seen_port, &port.to_string()));
    fields.extend(Field::immutable("flow-based", &flow_based, &true));
}

fn end_fields(prefix: &str, want: &End, seen: &End, fields: &mut Vec<Field>) {
    let name = |what: &str| format!("{prefix}{what}");
    fields.extend(Field::differs(&name("mac"), &seen.mac, &want.mac));
    fields.extend(Field::differs(&name("mtu"), &seen.mtu_bytes, &want.mtu_bytes));
    fields.extend(Field::differs(&name("up"), &seen.up, &want.up));
    fields.extend(Field::differs(&name("arp"), &seen.arp, &want.arp));
    fields.extend(Field::differs(&name("alias"), &quoted(&seen.alias), &quoted(&want.alias)));
    fields.extend(Field::differs(&name("group"), &seen.grouped, &want.grouped));
    fields.extend(Field::differs(&name("enslaved"), &seen.enslaved, &want.enslaved));
    fields.extend(Field::differs(&name("promiscuous"), &seen.promiscuous, &want.promiscuous));
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn describe(
    kind: &str,
    ifindex: u32,
    end: &End,
    (peer, port): (Option<&Peer>, Option<u16>),
) -> String {
    let port = port.map_or(String::new(), |port| format!(" port {port}"));
    let noarp = if end.arp { "" } else { " noarp" };
    let mac = if end.mac == NO_MAC { String::new() } else { format!(" mac {}", end.mac) };
    let mut text = format!("{kind}{port} index {ifindex} mtu {}{mac}{noarp}", end.mtu_bytes);
    if let Some(peer) = peer {
        let place = match peer.netns.path() {
            None => String::new(),
            Some(path) => format!(" netns {path}"),
        };
        text += &format!(" peer {}{place} mac {}", peer.ifname, peer.end.mac);
    }
    text
}
