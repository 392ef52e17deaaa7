//! Rules in the kernel: listing and changing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Key, Rule, Seen};
use crate::apply::{Apply, ExecError};
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, Change, Desired, owner};
use crate::net::Netns;
use crate::observe::{Observe, Round};

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
    let (mut owned, mut mark, mut mask) = (false, None, u32::MAX);
    let mut key = Key { ipv6, priority: 0, fwmark: None, table: message.header.table.into() };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(protocol) => owned = u8::from(*protocol) == owner::PROTOCOL,
            RuleAttribute::Priority(priority) => key.priority = *priority,
            RuleAttribute::Table(table) => key.table = *table,
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = *value,
            _ => {}
        }
    }
    key.fwmark = mark.map(|mark| (mark, mask));
    owned.then_some(key)
}

impl Apply for Rule {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let requests = changes.iter().map(|change| match change.action {
            Action::Delete { .. } => (RouteNetlinkMessage::DelRule(message(&change.key)), 0),
            // Without EXCL the kernel adds a second, equal rule.
            _ => (RouteNetlinkMessage::NewRule(message(&change.key)), NLM_F_CREATE | NLM_F_EXCL),
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
