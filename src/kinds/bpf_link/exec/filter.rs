//! Our clsact filters, as listed and as removed. A filter is ours if it is at our preference and handle,
//! and its program is pinned by us or uses a map that is. Imports `kernel`.

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::super::{BpfLink, Hook, Key, Mode, Obstacle, Seen};
use crate::apply::{ExecError, send};
use crate::kernel::netlink::Request;
use crate::kernel::program::{FILTER_HANDLE, FILTER_PRIORITY};
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{WantedMap, bpf_map_entry, bpf_old_map, bpf_program, record};
use crate::net::{IfName, Netns};
use crate::observe::Round;

/// `ETH_P_ALL` in network order, as `tcm_info` wants it.
const PROTOCOL_ALL: u32 = (0x0003_u16).to_be() as u32;

/// `TC_H_CLSACT | TC_H_MIN_INGRESS` and `…EGRESS` (linux/pkt_sched.h).
fn parent(hook: Hook) -> TcHandle {
    TcHandle {
        major: 0xffff,
        minor: match hook {
            Hook::Ingress => 0xfff2,
            Hook::Egress => 0xfff3,
        },
    }
}

/// Our filters on all devices that have a qdisc for them, and what keeps ours from their places, with the ids
/// of their programs. `programs`: the pinned ones by their ids.
///
/// # Errors
/// A dump fails.
pub fn list(
    round: &mut Round<'_>,
    programs: &BTreeMap<u32, bpf_program::Key>,
    desired: &WantedMap<BpfLink>,
) -> Result<BTreeMap<Key, (Seen, u32)>, KernelError> {
    let (mut seen, mut maps) = (BTreeMap::new(), None);
    let wanted: BTreeMap<(IfName, Hook), &Key> = desired
        .iter()
        .filter(|(_, wanted)| wanted.spec.mode == Mode::Clsact)
        .map(|(key, _)| ((key.ifname, key.hook), key))
        .collect();
    let records = bpf_map_entry::exec::records(round.kernel)?;
    for (ifindex, (ifname, qdisc)) in qdiscs(round)? {
        let found = |program, foreign| Seen {
            program,
            mode: Mode::Clsact,
            ifindex,
            twice: false,
            qdisc_ours: qdisc == Qdisc::Clsact && records.contains_key(&record::of_clsact(ifindex)),
            foreign,
            pinned_as: None,
        };
        if let (Qdisc::Ingress, Some(key)) = (qdisc, wanted.get(&(ifname, Hook::Egress))) {
            seen.insert((*key).clone(), (found(None, Some(Obstacle::IngressQdisc)), 0));
        }
        for hook in qdisc.hooks().iter().copied() {
            let filters = filters_at(round, ifindex, hook)?;
            let id = our_filter(&filters);
            let pinned = id.and_then(|id| programs.get(&id));
            let ours = match (pinned, id) {
                (Some(program), _) => Some(program.name.clone()),
                // Replaced, and not swapped yet?
                (None, Some(id)) => {
                    let maps = match &maps {
                        Some(maps) => maps,
                        None => maps.insert(bpf_old_map::exec::ids(round.kernel)?),
                    };
                    bpf_program::exec::unpinned(id, maps)?
                }
                (None, None) => None,
            };
            let foreign = ours.is_none().then_some(Obstacle::Filter);
            let key = match (ours, wanted.get(&(ifname, hook))) {
                (Some(program), _) => Key { ifname, hook, program },
                (None, Some(key)) if filters.iter().any(in_our_way) => (*key).clone(),
                _ => continue,
            };
            seen.insert(key, (found(pinned.cloned(), foreign), id.unwrap_or_default()));
        }
    }
    Ok(seen)
}

/// What filters are attached to. A device has at most one of the two, at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qdisc {
    Clsact,
    /// Older, and still what `tc qdisc add … ingress` makes. Never ours.
    Ingress,
}

impl Qdisc {
    fn of(message: &TcMessage) -> Option<Self> {
        message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) if kind == "clsact" => Some(Self::Clsact),
            TcAttribute::Kind(kind) if kind == "ingress" => Some(Self::Ingress),
            _ => None,
        })
    }

    /// The sides that it has. Asked for egress, `ingress` shows what is on ingress
    /// (`ingress_tcf_block`, net/sched/sch_ingress.c).
    fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Clsact => &[Hook::Ingress, Hook::Egress],
            Self::Ingress => &[Hook::Ingress],
        }
    }
}

/// The devices that filters can be attached to, by ifindex.
///
/// # Errors
/// The dump fails.
pub fn qdiscs(round: &mut Round<'_>) -> Result<BTreeMap<u32, (IfName, Qdisc)>, KernelError> {
    let names = round.names(&Netns::HOST)?;
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let messages = round.dump(&Netns::HOST, "list queueing disciplines", &request)?;
    let device = |message: &TcMessage| {
        let ifindex = u32::try_from(message.header.index).ok()?;
        Some((ifindex, (*names.get(&ifindex)?, Qdisc::of(message)?)))
    };
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewQueueDiscipline(message) => device(message),
            _ => None,
        })
        .collect())
}

/// Makes sure that a device which has a qdisc already has one with an egress.
///
/// # Errors
/// It has not: a filter for egress would run on ingress.
pub fn has_egress(kernel: &mut Kernel, ifindex: u32) -> Result<(), KernelError> {
    match qdiscs(&mut Round::new(kernel))?.get(&ifindex) {
        Some((_, Qdisc::Ingress)) => Err(KernelError::Refused {
            expected: "a clsact qdisc, or none".into(),
            found: "a qdisc `ingress`".into(),
        }),
        _ => Ok(()),
    }
}

/// All filters on one side of a device.
fn filters_at(
    round: &mut Round<'_>,
    ifindex: u32,
    hook: Hook,
) -> Result<Vec<TcMessage>, KernelError> {
    let mut request = TcMessage::default();
    request.header.index = ifindex as i32;
    request.header.parent = parent(hook);
    let request = RouteNetlinkMessage::GetTrafficFilter(request);
    let messages = round.dump(&Netns::HOST, "list filters", &request)?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => Some(message),
            _ => None,
        })
        .collect())
}

fn at_our_place(message: &TcMessage) -> bool {
    message.header.info >> 16 == u32::from(FILTER_PRIORITY)
        && u32::from(message.header.handle) == FILTER_HANDLE
}

/// Whether the kernel refuses to put ours beside it: at one preference are filters of one type and one
/// protocol, with a handle each.
fn in_our_way(message: &TcMessage) -> bool {
    let bpf = |a: &TcAttribute| matches!(a, TcAttribute::Kind(kind) if kind == "bpf");
    message.header.info >> 16 == u32::from(FILTER_PRIORITY)
        && (at_our_place(message)
            || message.header.info & 0xffff != PROTOCOL_ALL
            || !message.attributes.iter().any(bpf))
}

/// The id of the program that the filter at our place runs.
fn our_filter(filters: &[TcMessage]) -> Option<u32> {
    let program_id = |message: &TcMessage| {
        message.attributes.iter().find_map(|attribute| {
            let TcAttribute::Options(options) = attribute else { return None };
            options.iter().find_map(|option| match option {
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
                _ => None,
            })
        })
    };
    filters.iter().filter(|message| at_our_place(message)).find_map(program_id)
}

/// The messages that remove our filter, and with it the qdisc if that is ours and no filter is left;
/// none where the device is gone.
///
/// # Errors
/// The links or the filters can't be listed.
pub fn removal(
    round: &mut Round<'_>,
    key: &Key,
    qdisc_ours: bool,
) -> Result<Vec<Request>, KernelError> {
    let links = round.links(&Netns::HOST)?;
    let Some(link) = links.iter().find(|link| link.ifname == key.ifname) else {
        return Ok(Vec::new());
    };
    let mut message = TcMessage::default();
    message.header.index = link.ifindex as i32;
    message.header.parent = parent(key.hook);
    message.header.handle = TcHandle::from(FILTER_HANDLE);
    message.header.info = u32::from(FILTER_PRIORITY) << 16 | PROTOCOL_ALL;
    message.attributes = vec![TcAttribute::Kind("bpf".into())];
    let mut requests = vec![(RouteNetlinkMessage::DelTrafficFilter(message), 0)];
    let mut filters = 0;
    for hook in [Hook::Ingress, Hook::Egress] {
        filters += filters_at(round, link.ifindex, hook)?.len();
    }
    // A bpf filter is listed twice: its preference, and itself.
    if qdisc_ours && filters <= 2 {
        requests.push((RouteNetlinkMessage::DelQueueDiscipline(clsact(link.ifindex)), 0));
    }
    Ok(requests)
}

/// Removes the clsact qdisc that we added to a device, unless somebody uses it: whoever was stopped between
/// two steps left one without a filter.
///
/// # Errors
/// A filter of ours is on the device, or the kernel refuses.
pub fn put_back(kernel: &mut Kernel, ifindex: u32) -> Result<(), ExecError> {
    let programs = bpf_program::exec::pinned(kernel)?;
    let mut round = Round::new(kernel);
    let devices = qdiscs(&mut round)?;
    let Some((device, Qdisc::Clsact)) = devices.get(&ifindex) else { return Ok(()) };
    let mut filters = 0;
    for hook in [Hook::Ingress, Hook::Egress] {
        let found = filters_at(&mut round, ifindex, hook)?;
        let ours = our_filter(&found);
        if ours.is_some_and(|id| programs.iter().any(|(_, info)| info.id == id)) {
            let error = format!("it stays until ciliate's filter on {device} is gone");
            return Err(ExecError::Failed { error, errno: None });
        }
        filters += found.len();
    }
    if filters > 0 {
        return Ok(());
    }
    let request = vec![(RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex)), 0)];
    send(kernel, &Netns::HOST, "delete a clsact qdisc", request).pop().unwrap_or(Ok(()))
}

/// The message that adds a clsact qdisc; it fails with `EEXIST` where there is one.
pub fn new_clsact(ifindex: u32) -> Request {
    let message = RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex));
    (message, NLM_F_CREATE | NLM_F_EXCL)
}

/// `TC_H_CLSACT` as its own parent, handle `ffff:` (linux/pkt_sched.h).
fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = ifindex as i32;
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    message.header.parent = TcHandle { major: 0xffff, minor: 0xfff1 };
    message.attributes = vec![TcAttribute::Kind("clsact".into())];
    message
}
