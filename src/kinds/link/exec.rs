//! Links in the kernel: listing and changing. With what is in `exec/`, the only file of this kind that may
//! import `kernel`.

mod rehearsal;
mod removal;
mod stray;

pub use stray::{halves, may_be_half};

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo as LinkInfoAttribute, LinkMessage, State,
};

use super::{End, Form, Link, LinkInfo, NO_MAC, Peer, Protocol, Seen, Spec, Taken, decode, pair};
use crate::apply::{Apply, ExecError};
use crate::kernel::netlink::Request;
use crate::kernel::{Kernel, KernelError, netns};
use crate::kinds::{Action, Change, Desired, owner};
use crate::net::{IfName, Netns};
use crate::observe::{Observe, Round};

impl Observe for Link {
    fn list(
        round: &mut Round<'_>,
        desired: &Desired,
    ) -> Result<BTreeMap<IfName, Seen>, KernelError> {
        let host = round.links(&Netns::HOST)?;
        let mut seen = BTreeMap::new();
        for link in host.iter() {
            let wanted = desired.links.get(&link.ifname).map(|wanted| &wanted.spec);
            if (!link.owned() && wanted.is_none()) || is_second_end(link, &host, desired) {
                continue;
            }
            let peer = match wanted.and_then(Spec::peer) {
                None => None,
                Some(want) => {
                    let there = round.links(&want.netns)?;
                    pair(link, &there)
                        .map(|peer| peer.as_peer(want.netns.clone(), want.ifindex.is_some()))
                }
            };
            seen.insert(link.ifname, link.as_seen(peer));
        }
        // A device has its alternative names, too, and keeps them from others.
        for link in host.iter() {
            for name in link.altnames.iter().filter(|name| desired.links.contains_key(name)) {
                seen.entry(*name).or_insert_with(|| Seen { owned: false, ..link.as_seen(None) });
            }
        }
        for (key, peer) in halves(round, desired)? {
            seen.entry(key).or_insert_with(|| stray::as_seen(peer));
        }
        Ok(seen)
    }
}

/// What has the name of a wanted other end without being it. A leftover of ours doesn't count: it goes,
/// in the same plan.
///
/// # Errors
/// A dump fails.
pub fn taken(
    round: &mut Round<'_>,
    desired: &Desired,
) -> Result<BTreeMap<IfName, Taken>, KernelError> {
    let host = round.links(&Netns::HOST)?;
    let by_name: BTreeMap<&IfName, &LinkInfo> =
        host.iter().map(|link| (&link.ifname, link)).collect();
    let halves = halves(round, desired)?;
    let mut all = BTreeMap::new();
    for (key, wanted) in desired.links.iter().filter(|(key, _)| !halves.contains_key(key)) {
        let Some(peer) = wanted.spec.peer() else { continue };
        let there = round.links(&peer.netns)?;
        let Some(found) = there.iter().find(|link| link.is_called(&peer.ifname)) else { continue };
        let is_end_of = |link: &LinkInfo| pair(link, std::slice::from_ref(found)).is_some();
        let leftover = |link: &LinkInfo| link.owned() && !desired.links.contains_key(&link.ifname);
        if by_name.get(key).is_some_and(|link| is_end_of(link))
            || (peer.netns == Netns::HOST && leftover(found))
            || host.iter().any(|link| leftover(link) && is_end_of(link))
        {
            continue;
        }
        let owned = found.owned();
        all.insert(*key, Taken { netns: peer.netns.clone(), ifname: peer.ifname, owned });
    }
    Ok(all)
}

/// Whether the link is that end of a pair within this namespace which has no object of its own: the
/// one that isn't desired, or the later name.
fn is_second_end(link: &LinkInfo, host: &[LinkInfo], desired: &Desired) -> bool {
    if link.link_netnsid.is_some() {
        return false;
    }
    let Some(other) = pair(link, host) else { return false };
    let wanted = |ifname: &IfName| desired.links.contains_key(ifname);
    match (wanted(&link.ifname), wanted(&other.ifname)) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => other.owned() && other.ifname < link.ifname,
    }
}

impl Apply for Link {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
        let removals = |change: &Change<Self>| {
            matches!(change.action, Action::Delete { .. } | Action::Replace { .. })
        };
        rehearsal::rehearse(kernel, changes, &mut results);
        stray::remove(kernel, changes, &mut results);
        let removals = |change: &Change<Self>| removals(change) && !stray::is_half(change);
        removal::remove(kernel, changes, removals, &mut results);
        create(kernel, changes, &mut results);
        update(kernel, changes, &mut results);
        settle(kernel, changes, &results);
        results
    }
}

/// Reads the links again and lets through those that are what the op expects: ours, same ifindex.
fn guard(
    kernel: &mut Kernel,
    changes: &[&Change<Link>],
    picked: &[usize],
    results: &mut [Result<(), ExecError>],
) -> Vec<(usize, u32)> {
    let requests = picked.iter().map(|index| get(&changes[*index].key)).collect();
    let answers = kernel.netlink(&Netns::HOST).and_then(|netlink| {
        netlink
            .get_all(requests)
            .map_err(|source| KernelError::Netlink { operation: "read links", source })
    });
    let answers = match answers {
        Ok(answers) => answers,
        Err(error) => {
            let error = ExecError::from(error);
            for index in picked {
                results[*index] = Err(error.clone());
            }
            return Vec::new();
        }
    };
    let mut through = Vec::new();
    for (index, answer) in picked.iter().zip(answers) {
        let expected = changes[*index].expects().map_or(0, |seen| seen.ifindex);
        let found = match &answer {
            Ok(RouteNetlinkMessage::NewLink(message)) => decode(message),
            _ => None,
        };
        results[*index] = match found {
            Some(link) if link.owned() && link.ifindex == expected => {
                through.push((*index, expected));
                continue;
            }
            None if matches!(changes[*index].action, Action::Delete { .. }) => Ok(()),
            None => Err(ExecError::refused(format!("ifindex {expected}"), "no such link")),
            Some(link) => Err(ExecError::refused(
                format!("our link with ifindex {expected}"),
                format!("ifindex {}{}", link.ifindex, if link.owned() { "" } else { ", not ours" }),
            )),
        };
    }
    through
}

fn get(ifname: &IfName) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(ifname.to_string())];
    RouteNetlinkMessage::GetLink(message)
}

/// Makes the links, then gives both ends what can't be given when they are made.
fn create(kernel: &mut Kernel, changes: &[&Change<Link>], results: &mut [Result<(), ExecError>]) {
    let (mut requests, mut order, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (index, change) in changes.iter().enumerate() {
        let (Action::Create { to } | Action::Replace { to, .. }) = &change.action else { continue };
        if results[index].is_err() {
            continue;
        }
        if let Form::Tunnel { port, .. } = to.form
            && let Err(error) = removal::make_room(kernel, change.key, port)
        {
            results[index] = Err(error);
            continue;
        }
        // The file stays open until the message that names its descriptor is answered.
        let file = match to.peer().and_then(|peer| peer.netns.path()) {
            None => None,
            Some(path) => match netns::open(path) {
                Ok(file) => Some(file),
                Err(source) => {
                    let netns = Netns::at(path);
                    results[index] = Err(KernelError::Netns { netns, source }.into());
                    continue;
                }
            },
        };
        let fd = file.as_ref().map(AsRawFd::as_raw_fd);
        requests.push((new_link(change.key, to, fd), NLM_F_CREATE | NLM_F_EXCL));
        order.push(index);
        files.extend(file);
        if files.len() == FILES_MAX {
            let batch = std::mem::take(&mut requests);
            send_new(kernel, changes, batch, &order, results);
            finish(kernel, changes, &order, results);
            order.clear();
            files.clear();
        }
    }
    send_new(kernel, changes, requests, &order, results);
    finish(kernel, changes, &order, results);
}

/// Sends the messages that make links, and says of a refusal what it may mean.
fn send_new(
    kernel: &mut Kernel,
    changes: &[&Change<Link>],
    requests: Vec<Request>,
    order: &[usize],
    results: &mut [Result<(), ExecError>],
) {
    send(kernel, &Netns::HOST, "create a link", requests, order, results);
    for index in order {
        let (Err(error), Some(spec)) = (&results[*index], changes[*index].spec()) else { continue };
        results[*index] = Err(explained(error.clone(), changes[*index].key, spec));
    }
}

/// The error, and what it may mean.
fn explained(error: ExecError, ifname: IfName, spec: &Spec) -> ExecError {
    match meaning(error.errno(), ifname, spec) {
        None => error,
        Some(meaning) => {
            ExecError::Failed { error: format!("{error}: {meaning}"), errno: error.errno() }
        }
    }
}

/// What the kernel may mean by an error when a link is made, and what to do.
fn meaning(errno: Option<i32>, ifname: IfName, spec: &Spec) -> Option<String> {
    match (errno?, &spec.form) {
        (libc::EADDRINUSE, Form::Tunnel { port, .. }) => Some(format!(
            "UDP port {port} is in use on this host; end what has it (`ss -lunp`), or set tunnel-port \
             of [routing] on every node"
        )),
        (libc::EOPNOTSUPP, form) => {
            Some(format!("this kernel has no devices of kind {}, nor a module for it", form.kind()))
        }
        (libc::EEXIST | libc::EBUSY, _) => {
            let peer = spec
                .peer()
                .map_or(String::new(), |peer| format!(", or of {} in {}", peer.ifname, peer.netns));
            Some(format!(
                "another device has the name of {ifname}{peer}, or ifindex {}; remove or rename it",
                spec.ifindex
            ))
        }
        _ => None,
    }
}

/// Namespace files that are open at once while links are made.
const FILES_MAX: usize = 128;

/// Aliases of both ends (`RTM_NEWLINK` ignores one for a new link), and the other end up (the kernel
/// can't bring it up before the pair exists).
fn finish(
    kernel: &mut Kernel,
    changes: &[&Change<Link>],
    order: &[usize],
    results: &mut [Result<(), ExecError>],
) {
    let mut by_netns: BTreeMap<Netns, (Vec<Request>, Vec<usize>)> = BTreeMap::new();
    for index in order.iter().copied().filter(|index| results[*index].is_ok()) {
        let Some(spec) = changes[index].spec() else { continue };
        let host = by_netns.entry(Netns::HOST).or_default();
        let mut message = LinkMessage::default();
        message.header.index = spec.ifindex;
        message.attributes = vec![LinkAttribute::IfAlias(spec.end.alias.clone())];
        host.0.push((RouteNetlinkMessage::SetLink(message), 0));
        host.1.push(index);
        if let Some(peer) = spec.peer() {
            let there = by_netns.entry(peer.netns.clone()).or_default();
            there.0.push((set(&peer.ifname, &peer.end), 0));
            there.1.push(index);
        }
    }
    for (netns, (requests, order)) in by_netns {
        send(kernel, &netns, "configure a link", requests, &order, results);
    }
}

/// Changes what differs on living links, each end in its namespace.
fn update(kernel: &mut Kernel, changes: &[&Change<Link>], results: &mut [Result<(), ExecError>]) {
    let updates = |change: &Change<Link>| matches!(change.action, Action::Update { .. });
    let picked: Vec<usize> = (0..changes.len()).filter(|i| updates(changes[*i])).collect();
    if picked.is_empty() {
        return;
    }
    let mut by_netns: BTreeMap<Netns, (Vec<Request>, Vec<usize>)> = BTreeMap::new();
    for (index, _) in guard(kernel, changes, &picked, results) {
        let Action::Update { from, to, .. } = &changes[index].action else { continue };
        if from.end != to.end {
            let host = by_netns.entry(Netns::HOST).or_default();
            host.0.push((set(&changes[index].key, &to.end), 0));
            host.1.push(index);
        }
        match (&from.peer, to.peer()) {
            (Some(seen), Some(want)) if seen.end != want.end => {
                let there = by_netns.entry(want.netns.clone()).or_default();
                there.0.push((set(&want.ifname, &want.end), 0));
                there.1.push(index);
            }
            _ => {}
        }
    }
    for (netns, (requests, order)) in by_netns {
        send(kernel, &netns, "change a link", requests, &order, results);
    }
}

/// How long carriers are waited for, and how long between two questions.
const CARRIER_PATIENCE: Duration = Duration::from_secs(2);
const CARRIER_PAUSE: Duration = Duration::from_millis(2);

/// Waits until both ends of what was made or changed carry packets. Of two ends that are up, the kernel
/// lets the first send only after its work queue has seen the carrier, late on a busy machine; until then
/// what goes there is lost. Since Linux 6.8 to ask for one link is to have that done; before, we ask
/// again. Whatever else comes of it is for the next look to find.
fn settle(kernel: &mut Kernel, changes: &[&Change<Link>], results: &[Result<(), ExecError>]) {
    let mut by_netns: BTreeMap<Netns, Vec<IfName>> = BTreeMap::new();
    for (change, _) in changes.iter().zip(results).filter(|(_, result)| result.is_ok()) {
        let Some(spec) = change.spec() else { continue };
        let Some(peer) = spec.peer().filter(|peer| peer.end.up && spec.end.up) else {
            continue;
        };
        by_netns.entry(Netns::HOST).or_default().push(change.key);
        by_netns.entry(peer.netns.clone()).or_default().push(peer.ifname);
    }
    let begin = Instant::now();
    for (netns, mut waiting) in by_netns {
        while !waiting.is_empty() {
            let requests = waiting.iter().map(get).collect();
            let Ok(netlink) = kernel.netlink(&netns) else { break };
            let Ok(answers) = netlink.get_all(requests) else { break };
            let mut answers = answers.iter();
            waiting
                .retain(|_| matches!(answers.next(), Some(Ok(answer)) if !is_operational(answer)));
            if begin.elapsed() >= CARRIER_PATIENCE {
                return;
            }
            if !waiting.is_empty() {
                std::thread::sleep(CARRIER_PAUSE);
            }
        }
    }
}

fn is_operational(answer: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewLink(link) = answer else { return false };
    link.attributes.contains(&LinkAttribute::OperState(State::Up))
}

/// Sends one request for each index in `order` and keeps the first error of each change.
fn send(
    kernel: &mut Kernel,
    netns: &Netns,
    operation: &'static str,
    requests: Vec<Request>,
    order: &[usize],
    results: &mut [Result<(), ExecError>],
) {
    let outcomes = crate::apply::send(kernel, netns, operation, requests);
    for (index, outcome) in order.iter().zip(outcomes) {
        if results[*index].is_ok() {
            results[*index] = outcome;
        }
    }
}

fn flags(end: &End) -> (LinkFlags, LinkFlags) {
    let mut flags = LinkFlags::empty();
    flags.set(LinkFlags::Up, end.up);
    flags.set(LinkFlags::Noarp, !end.arp);
    let quiet = LinkFlags::Promisc | LinkFlags::Allmulti;
    flags.set(quiet, end.promiscuous);
    (flags, LinkFlags::Up | LinkFlags::Noarp | quiet)
}

fn new_link(ifname: IfName, spec: &Spec, netns_fd: Option<i32>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = spec.ifindex;
    (message.header.flags, message.header.change_mask) = flags(&spec.end);
    let info = match &spec.form {
        Form::Veth { peer } => {
            let peer = peer
                .as_ref()
                .map(|peer| InfoData::Veth(InfoVeth::Peer(peer_message(peer, netns_fd))));
            let kind = LinkInfoAttribute::Kind(InfoKind::Veth);
            [kind].into_iter().chain(peer.map(LinkInfoAttribute::Data)).collect()
        }
        Form::Tunnel { protocol, port } => tunnel_info(*protocol, *port),
        Form::Wireguard => vec![LinkInfoAttribute::Kind(InfoKind::Wireguard)],
    };
    message.attributes = vec![
        LinkAttribute::IfName(ifname.to_string()),
        LinkAttribute::Mtu(spec.end.mtu_bytes),
        LinkAttribute::Group(owner::LINK_GROUP),
        LinkAttribute::LinkInfo(info),
    ];
    message.attributes.extend(ethernet(&spec.end));
    RouteNetlinkMessage::NewLink(message)
}

/// A flow-based device: what [`Tunnel::flow_based`](super::Tunnel) says.
fn tunnel_info(protocol: Protocol, port: u16) -> Vec<LinkInfoAttribute> {
    let (kind, data) = match protocol {
        Protocol::Vxlan => {
            let attributes = vec![
                InfoVxlan::Port(port),
                InfoVxlan::CollectMetadata(true),
                InfoVxlan::Learning(false),
                InfoVxlan::UDPZeroCsumRX(true),
            ];
            (InfoKind::Vxlan, InfoData::Vxlan(attributes))
        }
        Protocol::Geneve => {
            let attributes = vec![
                InfoGeneve::Port(port),
                InfoGeneve::CollectMetadata,
                InfoGeneve::UdpZeroCsum6Rx(true),
            ];
            (InfoKind::Geneve, InfoData::Geneve(attributes))
        }
    };
    vec![LinkInfoAttribute::Kind(kind), LinkInfoAttribute::Data(data)]
}

fn peer_message(peer: &Peer, netns_fd: Option<i32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = peer.ifindex.unwrap_or(0);
    message.attributes = vec![
        LinkAttribute::IfName(peer.ifname.to_string()),
        LinkAttribute::Address(peer.end.mac.0.to_vec()),
        LinkAttribute::Mtu(peer.end.mtu_bytes),
        LinkAttribute::Group(owner::LINK_GROUP),
    ];
    message.attributes.extend(netns_fd.map(LinkAttribute::NetNsFd));
    message
}

/// Everything that can be set on a living link, by name.
fn set(ifname: &IfName, end: &End) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    (message.header.flags, message.header.change_mask) = flags(end);
    message.attributes = vec![
        LinkAttribute::IfName(ifname.to_string()),
        LinkAttribute::Mtu(end.mtu_bytes),
        LinkAttribute::Group(owner::LINK_GROUP),
        LinkAttribute::IfAlias(end.alias.clone()),
        // Out of whatever it is a port of.
        LinkAttribute::Controller(0),
    ];
    message.attributes.extend(ethernet(end));
    RouteNetlinkMessage::SetLink(message)
}

/// The Ethernet address; the kernel refuses one for a device that can have none.
fn ethernet(end: &End) -> Option<LinkAttribute> {
    (end.mac != NO_MAC).then(|| LinkAttribute::Address(end.mac.0.to_vec()))
}
