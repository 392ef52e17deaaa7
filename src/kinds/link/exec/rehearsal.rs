//! Whether the kernel will give us a tunnel's device, asked before the one that it takes the place of is
//! removed. Two of them can't be there at the same time where they share a name or a port, so a device is
//! made for a moment under a name of its own: the kernel may lack the kind, or a socket may have the port.
//!
//! What a rehearsal that was cut short leaves is in our group, and goes as any leftover does.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::{explained, new_link, removal};
use crate::apply::{ExecError, send};
use crate::kernel::Kernel;
use crate::kinds::link::{Form, Link, LinkInfo, Spec};
use crate::kinds::{Action, Change};
use crate::net::{IfName, Netns};
use crate::observe::Round;

/// The name of a device that is there for a moment.
const REHEARSAL: &str = "cilium_trial";

/// Refuses the changes of tunnels' devices that would remove one of ours for one that can't be had.
pub(super) fn rehearse(
    kernel: &mut Kernel,
    changes: &[&Change<Link>],
    results: &mut [Result<(), ExecError>],
) {
    for (change, result) in changes.iter().zip(results) {
        let (Action::Create { to } | Action::Replace { to, .. }) = &change.action else { continue };
        let Form::Tunnel { port, .. } = to.form else { continue };
        let made_anew = matches!(change.action, Action::Replace { .. });
        let outcome = Round::new(kernel).links(&Netns::HOST).map_err(ExecError::from);
        let outcome = outcome.and_then(|links| {
            let trial = links.iter().find(|link| link.ifname.as_str() == REHEARSAL);
            // Whoever has the name keeps it, and the change goes on untried.
            if trial.is_some_and(|trial| !trial.owned()) {
                return Ok(());
            }
            let goes = |link: &&LinkInfo| {
                removal::is_in_the_way(link, change.key, port)
                    || (made_anew && link.ifname == change.key && link.owned())
            };
            let go: Vec<&LinkInfo> = links.iter().filter(goes).collect();
            match how(&go, to, port) {
                None => Ok(()),
                Some(up) => try_once(kernel, (change.key, to), up, trial.is_some()),
            }
        });
        *result = outcome;
    }
}

/// How to rehearse: with the device up, so that it takes the port, or down. `None`: nothing is lost if the
/// kernel refuses, or what goes shows that it won't.
fn how(go: &[&LinkInfo], to: &Spec, port: u16) -> Option<bool> {
    let has_port = |link: &&&LinkInfo| link.tunnel.is_some_and(|tunnel| tunnel.port == port);
    if go.is_empty() || go.iter().filter(has_port).any(|link| link.kind == to.form.kind()) {
        return None;
    }
    Some(!go.iter().any(|link| has_port(&link)))
}

/// Makes the device under another name, and removes it. `left`: one is there from a rehearsal that was cut
/// short, and goes first.
fn try_once(
    kernel: &mut Kernel,
    (ifname, to): (IfName, &Spec),
    up: bool,
    left: bool,
) -> Result<(), ExecError> {
    let mut spec = to.clone();
    // The kernel chooses the number: that of the device may still be in use.
    (spec.ifindex, spec.end.up) = (0, up);
    let trial: IfName = REHEARSAL.parse().unwrap_or(ifname);
    if left {
        remove(kernel, trial)?;
    }
    let request = (new_link(trial, &spec, None), NLM_F_CREATE | NLM_F_EXCL);
    let made = send(kernel, &Netns::HOST, "create a link", vec![request]);
    let made = made.into_iter().collect::<Result<(), ExecError>>();
    made.map_err(|error| explained(error, ifname, to))?;
    remove(kernel, trial)
}

fn remove(kernel: &mut Kernel, trial: IfName) -> Result<(), ExecError> {
    let removed = send(kernel, &Netns::HOST, "delete a link", vec![removal::delete_named(trial)]);
    removed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::link::{End, Protocol, Tunnel};
    use crate::net::Mac;

    fn end() -> End {
        let (mac, alias) = (Mac([2, 0, 0, 0, 0, 1]), "ciliate tunnel".into());
        End {
            mac,
            mtu_bytes: 1500,
            up: true,
            arp: true,
            alias,
            grouped: true,
            enslaved: false,
            promiscuous: false,
        }
    }

    fn there(kind: &str, port: u16) -> LinkInfo {
        LinkInfo {
            altnames: Vec::new(),
            ifindex: 7,
            ifname: "there".parse().unwrap(),
            kind: kind.into(),
            end: end(),
            group: 0,
            link: None,
            link_netnsid: None,
            xdp: None,
            tunnel: Some(Tunnel { port, flow_based: true }),
        }
    }

    #[test]
    fn the_port_is_tried_unless_it_is_ours() {
        let form = Form::Tunnel { protocol: Protocol::Vxlan, port: 8472 };
        let to = Spec { ifindex: 7, end: end(), form };
        let how = |links: &[LinkInfo]| how(&links.iter().collect::<Vec<_>>(), &to, 8472);
        assert_eq!(how(&[]), None, "nothing to lose");
        assert_eq!(how(&[there("vxlan", 8472)]), None, "as the one that goes");
        assert_eq!(how(&[there("vxlan", 8473)]), Some(true));
        assert_eq!(how(&[there("geneve", 8472)]), Some(false), "its port is not free yet");
        assert_eq!(how(&[there("vxlan", 8473), there("geneve", 8472)]), Some(false));
    }
}
