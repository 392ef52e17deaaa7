//! The closed types over all kinds, made from the registry. Pure; imports the kinds only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::change::{Action, additions, conflicts, removals};
use super::link::Taken;
use super::occupied::{self, Occupied};
use super::{Change, Kind, SeenMap, WantedMap, tunnel};
use super::{
    address::Address, bpf_link::BpfLink, bpf_map::BpfMap, bpf_map_entry::BpfMapEntry,
    bpf_old_map::BpfOldMap, bpf_program::BpfProgram, cgroup_link::CgroupLink,
    lb_backend::LbBackend, lb_service::LbService, link::Link, maglev_table::MaglevTable,
    neighbour::Neighbour, netns::Netns, nftables::Nftables, route::Route, rule::Rule,
    sysctl::Sysctl, wireguard::Wireguard, wireguard_key::WireguardKey,
    wireguard_peer::WireguardPeer, xdp_link::XdpLink,
};
use crate::for_each_kind;
use crate::net::IfName;

/// Which part of the configuration asks for an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    Node,
    Routing,
    Masquerade,
    Peer(Arc<str>),
    Endpoint(Arc<str>),
    Service(Arc<str>),
    Health,
    Encryption,
    /// Nobody: ours, from an earlier configuration.
    Leftover,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Node => f.write_str("node"),
            Origin::Routing => f.write_str("routing"),
            Origin::Masquerade => f.write_str("masquerade"),
            Origin::Peer(name) => write!(f, "peer {name}"),
            Origin::Endpoint(name) => write!(f, "endpoint {name}"),
            Origin::Service(name) => write!(f, "service {name}"),
            Origin::Health => f.write_str("health"),
            Origin::Encryption => f.write_str("encryption"),
            Origin::Leftover => f.write_str("leftover"),
        }
    }
}

/// An object that is asked for, and by whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted<Spec> {
    pub spec: Spec,
    pub origin: Origin,
}

/// Why something that the configuration asks for is not in the plan.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
#[serde(rename_all = "kebab-case")]
pub enum BlockedReason {
    /// Auto-direct routes need a common L2 segment: the lookup of the peer's address says gateway.
    #[error(
        "{address} is not on-link: the kernel reaches it through {gateway}; put both nodes on one segment, or route the peer's CIDRs yourself and set auto-direct-node-routes = false"
    )]
    PeerNotOnLink { address: String, gateway: String },
    /// The lookup of the peer's address fails.
    #[error("no route to {address}; give this node an address or a route on the peer's network")]
    PeerUnreachable { address: String },
    /// The peer's address belongs to this host.
    #[error(
        "{address} is an address of this host; the peer's file may have been copied from this node's"
    )]
    PeerIsLocal { address: String },
    /// Something with our mark that nobody asks for is on the way to a peer.
    #[error("{object} is in the way to peers: it goes first, and then the rest is planned anew")]
    Misled { object: String },
    /// The tunnel leads to addresses of a family that the peer has none of.
    #[error(
        "tunnels lead to {family} addresses here, and the peer has none; add one to its `addresses`, or choose the other family with underlay-protocol of [routing], on every node"
    )]
    PeerWithoutUnderlay { family: String },
    /// The tunnel leads to addresses of a family that this node has none of.
    #[error(
        "tunnels lead to {family} addresses, and this node has none; add one, or choose the other family with underlay-protocol of [routing], on every node"
    )]
    NodeWithoutUnderlay { family: String },
    /// A foreign device has the tunnel's UDP port.
    #[error(
        "UDP port {port} belongs to device {ifname}, which is not ciliate's; remove that, or set tunnel-port of [routing] on every node"
    )]
    TunnelPortTaken { port: u16, ifname: String },
    /// The tunnel that is asked for can't be had, and another one is there.
    #[error(
        "until then the tunnel stays as it is: device {ifname} with UDP port {port}; peers that use another protocol or port are not reached"
    )]
    TunnelKept { ifname: String, port: u16 },
    /// The tunnel that is asked for can't be had, and there is none.
    #[error(
        "until then nothing changes in how peers are reached: by native routing if that is in force, else not at all"
    )]
    NoTunnelYet,
    /// What the tunnel leaves of the underlay's MTU is too little for IPv6.
    #[error(
        "the underlay's MTU of {mtu_bytes} leaves {left_bytes} in the tunnel, and IPv6 needs 1280; give the underlay's devices a larger one, or the node no IPv6 CIDR"
    )]
    TunnelMtu { mtu_bytes: u32, left_bytes: u32 },
    /// The endpoint's namespace is not there (any more), or can't be used.
    #[error("network namespace {netns}: {problem}; the endpoint is wired once that is mended")]
    NetnsUnusable { netns: String, problem: String },
    /// No free address is left.
    #[error("{cidr} has no free address left")]
    NoFreeAddress { cidr: String },
    /// A name or place we need is taken by something that isn't ours.
    #[error("{object} exists and does not belong to ciliate; remove or rename it")]
    Foreign { object: String },
    /// Somebody else's route is where ours has to be: the kernel keeps one of a destination and metric.
    #[error(
        "a route to {route} exists that does not belong to ciliate; remove it or give it another metric"
    )]
    RouteTaken { route: String },
    /// Somebody else's filter is where ours has to be: the kernel runs one at a place.
    #[error(
        "a filter that does not belong to ciliate has preference 1 on {ifname} {hook}, where ciliate attaches its program; give it another preference (`tc filter show dev {ifname} {hook}` shows it), or set datapath.attach-mode = \"tcx\" where the kernel has that (6.6)"
    )]
    FilterTaken { ifname: String, hook: String },
    /// A device can have a qdisc `ingress` or `clsact`, and only the latter has an egress.
    #[error(
        "{ifname} has a qdisc `ingress`, which keeps out the clsact qdisc that ciliate needs for egress; remove it (`tc qdisc del dev {ifname} ingress`) or make it a clsact qdisc, or set datapath.attach-mode = \"tcx\" where the kernel has that (6.6)"
    )]
    IngressQdisc { ifname: String },
    /// A device runs one program at its driver, and that is somebody else's.
    #[error(
        "{ifname} runs an XDP program that does not belong to ciliate; remove that (`bpftool net detach xdp dev {ifname}`), or set acceleration = \"disabled\" in [load-balancing]"
    )]
    XdpTaken { ifname: String },
    /// The other end of a pair can't have its name: the end of another pair has it.
    #[error(
        "{object} bears ciliate's mark and is not the other end of {link}: it may belong to another ciliate; remove or rename it"
    )]
    EndOfAnother { object: String, link: String },
    /// Something of others is where a pin of ours has to be.
    #[error(
        "{path} is {what}, which does not belong to ciliate and is in the place of a pin; remove it"
    )]
    PinTaken { path: String, what: String },
    /// Sockets can't be told by a control group.
    #[error(
        "no control group of version 2 at {path}; set paths.cgroup to one, or load-balancing.socket = false"
    )]
    CgroupMissing { path: String },
    /// A device the configuration names is missing.
    #[error("device {ifname} does not exist")]
    DeviceMissing { ifname: String },
    /// No device holds the node's address.
    #[error("no device holds {address}; set node.devices, or add the address")]
    AddressMissing { address: String },
    /// Neither the configuration nor a default route says which devices and addresses are the underlay.
    #[error(
        "no underlay: no device of a default route has an address that others can reach; add an address and a default route, or set node.addresses or node.devices; a node without peers that reaches nothing outside needs none with masquerade.mode = \"off\""
    )]
    UnderlayMissing,
    /// A service's frontends have no numbers left.
    #[error(
        "no free number (1-65535) is left for {frontend}; remove services, or their frontends on addresses that nobody uses"
    )]
    NoFreeServiceId { frontend: String },
    /// Neither the kernel nor a module of it has WireGuard.
    #[error(
        "this kernel has no WireGuard (CONFIG_WIREGUARD), nor a module `wireguard` that can be loaded; install the modules that belong to the running kernel, boot another one, or set encryption.mode = \"off\" on every node"
    )]
    WireguardMissing,
    /// The file of the private key can't serve.
    #[error("private key {problem}")]
    PrivateKeyUnusable { problem: String },
    /// A peer is said to have this node's own key.
    #[error(
        "its public-key is that of this node; put there what `ciliate wireguard pubkey` says on the peer, and if its key file was copied from here, run `ciliate wireguard rotate` there"
    )]
    PeerHasOurKey,
    /// Nothing says how a peer is to be reached by WireGuard.
    #[error(
        "it has a public-key, and no address of a family that this node has; add one, or set wireguard-endpoint"
    )]
    PeerWithoutEndpoint,
    /// What WireGuard leaves of the MTU is too little for IPv6.
    #[error(
        "what WireGuard takes of the MTU of {mtu_bytes} leaves {left_bytes}, and IPv6 needs 1280; give the underlay's devices a larger one, or the node no IPv6 CIDR"
    )]
    EncryptionMtu { mtu_bytes: u32, left_bytes: u32 },
    /// All 4095 endpoint ids are in use.
    #[error("no free endpoint id (1-4095) is left")]
    NoFreeEndpointId,
}

/// Something the configuration asks for that can't be planned now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocked {
    pub origin: Origin,
    #[serde(flatten)]
    pub reason: BlockedReason,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "! {}: {}", self.origin, self.reason)
    }
}

/// A step of the plan: one kind, adding or removing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Add,
    Remove,
}

/// How often a kind is planned in one plan: a change of one object may put another of the same kind out
/// of shape (a setting that writes through to others).
const PASSES_MAX: usize = 3;

/// Whether the op is about something that can't be had, or stands on it.
fn lacks(op: &Op, unavailable: &BTreeSet<ObjectKey>) -> bool {
    !unavailable.is_empty()
        && (unavailable.contains(&op.object())
            || op.stands_on().iter().any(|object| unavailable.contains(object)))
}

macro_rules! closed_types {
    ($($kind:ident $field:ident $module:ident,)*) => {
        /// How many kinds there are.
        const KINDS: usize = [$(stringify!($kind)),*].len();

        /// What the intent calls for.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Desired {
            $(pub $field: WantedMap<$kind>,)*
            /// What is asked for and can't be planned.
            pub blocked: Vec<Blocked>,
            /// What can't be had, so that what stands on it or waits for it is left as it is.
            pub unavailable: BTreeSet<ObjectKey>,
        }

        /// What the kernel has.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Observed {
            $(pub $field: SeenMap<$kind>,)*
            /// By wanted link: what has the name of its other end.
            pub taken: BTreeMap<IfName, Taken>,
            /// By desired object: what is in the place of its pin.
            pub occupied: BTreeMap<ObjectKey, Occupied>,
        }

        /// One change of one object of any kind.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum Op {
            $($kind(Change<$kind>),)*
        }

        /// Which object, of any kind.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(tag = "kind", content = "key", rename_all = "kebab-case")]
        pub enum ObjectKey {
            $($kind(<$kind as Kind>::Key),)*
        }

        impl fmt::Display for ObjectKey {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(ObjectKey::$kind(key) => write!(f, "{} {key}", $kind::NAME),)*
                }
            }
        }

        impl Op {
            /// The object the op is about.
            pub fn object(&self) -> ObjectKey {
                match self { $(Op::$kind(change) => ObjectKey::$kind(change.key.clone()),)* }
            }

            /// Whether the op comes after all other additions: it takes something out of force. `opens`: a
            /// tunnel is to take the place of native routing.
            pub fn is_late(&self, opens: bool) -> bool {
                match self { $(Op::$kind(change) => change.is_late(opens),)* }
            }

            /// Whether ops of the same kind wait for this one.
            pub fn is_awaited(&self) -> bool {
                match self {
                    $(Op::$kind(change) => change.spec().is_some() && $kind::is_awaited(&change.key),)*
                }
            }

            /// The objects that have to be there for the op to work.
            pub fn needs(&self) -> Vec<ObjectKey> {
                match self {
                    $(Op::$kind(change) => match change.spec() {
                        Some(spec) => change.with_successors($kind::needs(&change.key, spec)),
                        None => Vec::new(),
                    },)*
                }
            }

            /// The objects without which the op makes no sense.
            pub fn stands_on(&self) -> Vec<ObjectKey> {
                match self {
                    $(Op::$kind(change) => match change.spec() {
                        Some(spec) => change.with_successors($kind::stands_on(&change.key, spec)),
                        None => Vec::new(),
                    },)*
                }
            }

            /// Which of the objects whose own ops failed keeps this op from being done.
            pub fn waits_for<'a>(&self, failed: &'a BTreeSet<ObjectKey>) -> Option<&'a ObjectKey> {
                if failed.is_empty() {
                    return None;
                }
                match self {
                    $(Op::$kind(Change { key, action: Action::Delete { from }, .. }) => {
                        $kind::outlives(key, from, failed)
                    })*
                    _ => self.needs().iter().find_map(|need| failed.get(need)),
                }
            }

            /// Makes `observed` what the kernel will be after the op.
            pub fn predict(&self, observed: &mut Observed) {
                match self { $(Op::$kind(change) => change.predict(|o| &mut o.$field, observed),)* }
            }

            /// Whether the kernel, as observed, has what the op expects to find.
            pub fn expected_in(&self, observed: &Observed) -> bool {
                match self {
                    $(Op::$kind(change) => observed.$field.get(&change.key) == change.expects(),)*
                }
            }

            /// The op as one line for people.
            pub fn line(&self) -> String {
                match self { $(Op::$kind(change) => change.line(),)* }
            }

            /// What about the object is not as asked.
            pub fn drift(&self) -> String {
                match self { $(Op::$kind(change) => change.drift(),)* }
            }

            /// `+` makes, `~` changes, `-/+` makes anew, `-` removes.
            pub fn verb(&self) -> &'static str {
                match self { $(Op::$kind(change) => change.verb(),)* }
            }

            /// The name of the op's kind.
            pub fn kind(&self) -> &'static str {
                match self { $(Op::$kind(_) => $kind::NAME,)* }
            }

            /// Which part of the configuration asked for it.
            pub fn origin(&self) -> &Origin {
                match self { $(Op::$kind(change) => &change.origin,)* }
            }

            /// Adding or changing, or removing.
            pub fn phase(&self) -> Phase {
                match self {
                    $(Op::$kind(change) if change.spec().is_some() => Phase::Add,)*
                    _ => Phase::Remove,
                }
            }
        }

        /// Plans every kind in order of creation, then what takes a value out of force, then removals in
        /// the opposite order, those of late kinds last. Each step
        /// sees what the steps before it lead to, so what a replaced link takes with it is made
        /// again in the same plan. What would take the place of something in force and can't be had leaves
        /// that as it is, and what outlives it. `observed` ends as the prediction of the whole plan.
        pub(crate) fn plan_all(desired: &Desired, observed: &mut Observed) -> (Vec<Op>, Vec<Blocked>) {
            let (mut ops, mut blocked) = (Vec::new(), desired.blocked.clone());
            // Keys that something foreign holds, and what can't be had without them: an address is
            // not put on a device of ours that somebody else's has the name of.
            let mut unavailable = desired.unavailable.clone();
            let opens = tunnel::opens(&desired.bpf_map_entries, &observed.bpf_map_entries);
            $(for (key, reason) in conflicts::<$kind>(&desired.$field, &observed.$field) {
                blocked.push(reason);
                unavailable.insert(ObjectKey::$kind(key));
            })*
            for (link, taken) in &observed.taken {
                let Some(wanted) = desired.links.get(link) else { continue };
                let (origin, reason) = (wanted.origin.clone(), taken.reason(link));
                blocked.push(Blocked { origin, reason });
                unavailable.insert(ObjectKey::Link(*link));
            }
            occupied::block(desired, observed, &mut blocked, &mut unavailable);
            let mut late: Vec<Op> = Vec::new();
            $(for _ in 0..if $kind::WRITES_THROUGH { PASSES_MAX } else { 1 } {
                let before = ops.len();
                let changes = additions::<$kind>(&desired.$field, &observed.$field);
                ops.reserve(changes.len());
                for change in changes {
                    let op = Op::$kind(change);
                    if op.is_late(opens) {
                        late.push(op);
                    } else if lacks(&op, &unavailable) {
                        unavailable.insert(op.object());
                    } else if !$kind::WRITES_THROUGH {
                        ops.push(op);
                    } else if op.expected_in(observed) {
                        op.predict(observed);
                        ops.push(op);
                    }
                    // Else an op of this pass changed the object along; the next pass looks at it.
                }
                if ops.len() == before {
                    break;
                }
                if !$kind::WRITES_THROUGH {
                    let made = ops[before..].iter().filter_map(|op| match op {
                        Op::$kind(change) => Some(change),
                        _ => None,
                    });
                    Change::predict_all(made, |o| &mut o.$field, observed);
                }
            })*
            let mut kept = plan_late(&mut late, &unavailable, observed);
            // Behind a pin that is gone, what was there may be in use.
            if !observed.occupied.is_empty() {
                kept.append(&mut unavailable);
            }
            ops.append(&mut late);
            ops.append(&mut plan_removals(desired, observed, kept));
            (ops, blocked)
        }

        /// Of the ops that take something out of force, leaves those that can be done. Returns what the others
        /// are about: there what is in force stays.
        fn plan_late(
            late: &mut Vec<Op>,
            unavailable: &BTreeSet<ObjectKey>,
            observed: &mut Observed,
        ) -> BTreeSet<ObjectKey> {
            let mut kept: BTreeSet<ObjectKey> = BTreeSet::new();
            late.retain(|op| {
                let lacks = lacks(op, unavailable) || lacks(op, &kept);
                if lacks {
                    kept.insert(op.object());
                }
                !lacks
            });
            $(
                let made = late.iter().filter_map(|op| match op {
                    Op::$kind(change) => Some(change),
                    _ => None,
                });
                Change::predict_all(made, |o| &mut o.$field, observed);
            )*
            kept
        }

        /// Removes what nobody asks for, but for what outlives something that is `kept`.
        fn plan_removals(
            desired: &Desired,
            observed: &mut Observed,
            mut kept: BTreeSet<ObjectKey>,
        ) -> Vec<Op> {
            let mut ops = Vec::new();
            let steps: [(bool, fn(&Desired, &Observed) -> Vec<Op>); KINDS] = [$((
                $kind::REMOVED_LATE,
                |desired, observed| {
                    let changes = removals::<$kind>(&desired.$field, &observed.$field);
                    changes.into_iter().map(Op::$kind).collect()
                },
            ),)*];
            for late in [false, true] {
                for (_, step) in steps.iter().rev().filter(|(l, _)| *l == late) {
                    let mut removals = step(desired, observed);
                    removals.retain(|op| {
                        let stays = op.waits_for(&kept).is_some();
                        if stays {
                            kept.insert(op.object());
                        }
                        !stays
                    });
                    removals.iter().for_each(|op| op.predict(observed));
                    ops.extend(removals);
                }
            }
            ops
        }

        impl Observed {
            /// How many objects of ours there are, by kind.
            pub fn owned_counts(&self) -> Vec<(&'static str, usize)> {
                vec![$(($kind::NAME,
                    self.$field.values().filter(|seen| $kind::owned(seen)).count()),)*]
            }
        }

        impl Desired {
            /// How many objects are asked for, by kind.
            pub fn counts(&self) -> Vec<(&'static str, usize)> {
                vec![$(($kind::NAME, self.$field.len()),)*]
            }
        }
    };
}
for_each_kind!(closed_types);

// There may be a hundred thousand of them.
const _: () = assert!(size_of::<Op>() <= 208, "an op got larger");
