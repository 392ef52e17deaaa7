//! Rules in the kernel: listing and changing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;

use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, Nla};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Key, Other, Rule, Seen};
use crate::apply::{Apply, ExecError};
use crate::kernel::netlink::Outgoing;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, Change, Desired, owner};
use crate::net::Netns;
use crate::observe::{Observe, Round};

/// Nothing is suppressed (-1): what the kernel says of every rule that doesn't ask for it.
const NOT_SUPPRESSED: u32 = u32::MAX;
/// `FRA_MAX` of Linux 6.18.
const KNOWN_MAX: u16 = 28;
/// `RT_TABLE_UNSPEC`: the table is in the attribute, not in the 8-bit header field.
const TABLE_IN_ATTRIBUTE: u8 = 0;

impl Observe for Rule {
    fn list(round: &mut Round<'_>, _desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        for (family, ipv6) in [(AddressFamily::Inet, false), (AddressFamily::Inet6, true)] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetRule(request);
            for message in round.dump(&Netns::HOST, "list rules", &request)? {
                let RouteNetlinkMessage::NewRule(message) = message else { continue };
                seen.extend(decode(&message, ipv6).map(|key| (key, Seen)));
            }
        }
        Ok(seen)
    }
}

/// The key of a rule of ours, `None` for any other.
fn decode(message: &RuleMessage, ipv6: bool) -> Option<Key> {
    let (mut owned, mut mark, mut mask, mut other) = (false, None, None, Vec::new());
    let RuleHeader { src_len, dst_len, tos, action, flags, .. } = message.header;
    let table = message.header.table.into();
    let mut key = Key { ipv6, priority: 0, fwmark: None, table, other: None };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(protocol) => owned = u8::from(*protocol) == owner::PROTOCOL,
            RuleAttribute::Priority(priority) => key.priority = *priority,
            RuleAttribute::Table(table) => key.table = *table,
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = Some(*value),
            RuleAttribute::Source(from) => other.push(format!("from {from}/{src_len}")),
            RuleAttribute::Destination(to) => other.push(format!("to {to}/{dst_len}")),
            RuleAttribute::SuppressPrefixLen(NOT_SUPPRESSED)
            | RuleAttribute::SuppressIfGroup(NOT_SUPPRESSED) => {}
            // A later kernel may add it to every rule.
            RuleAttribute::Other(attribute) if attribute.kind() > KNOWN_MAX => {}
            attribute => other.push(format!("{attribute:?}").to_lowercase()),
        }
    }
    if mark.is_some() || mask.is_some() {
        key.fwmark = Some((mark.unwrap_or(0), mask.unwrap_or(u32::MAX)));
    }
    if tos != 0 {
        other.push(format!("tos {tos:#x}"));
    }
    if action != RuleAction::ToTable {
        other.push(format!("action {action:?}").to_lowercase());
    }
    if flags.contains(RuleFlags::Invert) {
        other.push("not".into());
    }
    if !other.is_empty() {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        key.other = Some(Box::new(Other { text: other.join(" "), message: bytes }));
    }
    owned.then_some(key)
}

impl Apply for Rule {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let requests = changes.iter().map(|change| Asked {
            key: &change.key,
            removal: matches!(change.action, Action::Delete { .. }),
        });
        let outcomes =
            crate::apply::send(kernel, &Netns::HOST, "change a rule", requests.collect());
        changes
            .iter()
            .zip(outcomes)
            .map(|(change, outcome)| match (&change.action, outcome) {
                (Action::Delete { .. }, Err(e)) if e.errno() == Some(libc::ENOENT) => Ok(()),
                (_, outcome) => outcome,
            })
            .collect()
    }
}

/// What is asked of the kernel for one change.
struct Asked<'a> {
    key: &'a Key,
    removal: bool,
}

impl Outgoing for Asked<'_> {
    fn header(&self) -> (u16, u16) {
        if self.removal {
            return (libc::RTM_DELRULE, 0);
        }
        // Without EXCL the kernel adds a second, equal rule.
        (libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        if let Some(other) = &self.key.other {
            bytes.extend_from_slice(&other.message);
            return;
        }
        let (message, start) = (message(self.key), bytes.len());
        bytes.resize(start + message.buffer_len(), 0);
        message.emit(&mut bytes[start..]);
    }
}

/// The rule; with its protocol, so that a removal matches ours only (`fib_nl_delrule`).
fn message(key: &Key) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if key.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.table = TABLE_IN_ATTRIBUTE;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Protocol(RouteProtocol::from(owner::PROTOCOL)),
        RuleAttribute::Priority(key.priority),
        RuleAttribute::Table(key.table),
    ];
    if let Some((mark, mask)) = key.fwmark {
        message.attributes.push(RuleAttribute::FwMark(mark));
        message.attributes.push(RuleAttribute::FwMask(mask));
    }
    message
}
