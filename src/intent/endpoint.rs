//! `[[endpoint]]`.
//!
//! Pure.

use serde_spanned::Spanned;

use super::address::{self, Use};
use super::draft::{At, DraftEndpoint, Problems};
use super::{EndpointNetns, labels, limits, name, paths, routing};
use crate::config::{self, Diagnostic, Document, Span};
use crate::net::{IfName, Netns};

/// Files that refer to the namespace ciliate itself runs in.
const HOST_NAMESPACES: &[&str] =
    &["/proc/self/ns/net", "/proc/thread-self/ns/net", "/proc/1/ns/net"];

pub(super) fn read(document: &Document, problems: &mut Problems) -> Vec<DraftEndpoint> {
    let endpoints = &document.root().endpoint;
    if let Some(excess) = endpoints.get(limits::ENDPOINTS_MAX) {
        let problem = Diagnostic::new(excess, "this is the first endpoint too many");
        problems
            .push(problem.help(format!("a node has at most {} endpoints", limits::ENDPOINTS_MAX)));
    }
    let lost = document.has_lost("endpoint.netns") || document.has_lost("endpoint.pid");
    let within = endpoints.iter().take(limits::ENDPOINTS_MAX);
    within.filter_map(|endpoint| one(endpoint, lost, problems)).collect()
}

/// See [`super::namespaces_of`].
pub(super) fn namespaces(document: &Document) -> Vec<EndpointNetns> {
    let within = document.root().endpoint.iter().take(limits::ENDPOINTS_MAX);
    let one = |endpoint: &Spanned<config::Endpoint>| {
        // What is wrong with the text has been said by `read`.
        let netns = netns(endpoint, true, &mut Problems::new())?;
        let name = endpoint.get_ref().name.get_ref().as_str().into();
        Some(EndpointNetns { name, netns: netns.value, span: netns.span })
    };
    within.filter_map(one).collect()
}

fn one(
    written: &Spanned<config::Endpoint>,
    lost: bool,
    problems: &mut Problems,
) -> Option<DraftEndpoint> {
    let endpoint = written.get_ref();
    let name = name::name(&endpoint.name, problems);
    let netns = netns(written, lost, problems);
    let ifname = match &endpoint.ifname {
        Some(text) => name::ifname(text, problems),
        None => "eth0".parse::<IfName>().ok(),
    };
    let (addresses, _) =
        address::addresses(endpoint.addresses.as_ref(), "`addresses`", Use::Endpoint, problems);
    let role = labels::role(
        endpoint.labels.as_ref(),
        endpoint.identity.as_ref(),
        written.into(),
        problems,
    );
    Some(DraftEndpoint {
        name: name?,
        netns,
        ifname: ifname?,
        addresses,
        role: role?,
        span: written.into(),
    })
}

/// `netns` or `pid`, exactly one.
fn netns(
    written: &Spanned<config::Endpoint>,
    lost: bool,
    problems: &mut Problems,
) -> Option<At<Netns>> {
    let endpoint = written.get_ref();
    let name = endpoint.name.get_ref();
    match (&endpoint.netns, &endpoint.pid) {
        (Some(netns), None) => {
            if !paths::absolute(netns, "`netns`", limits::PATH_BYTES_MAX, problems) {
                return None;
            }
            if HOST_NAMESPACES.contains(&paths::cleaned(netns.get_ref()).as_str()) {
                problems.push(of_the_host(netns.into()));
                return None;
            }
            Some(At { value: Netns::at(netns.get_ref().as_str()), span: netns.into() })
        }
        (None, Some(pid)) => {
            let number = routing::number(pid, "`pid`", 1, limits::PID_MAX.into(), problems)?;
            if number == 1 {
                problems.push(of_the_host(pid.into()));
                return None;
            }
            Some(At { value: Netns::at(format!("/proc/{number}/ns/net")), span: pid.into() })
        }
        (Some(netns), Some(pid)) => {
            let message = format!("endpoint `{name}` has both `netns` and `pid`");
            let problem =
                Diagnostic::new(pid, message).related(netns, "the namespace is named here too");
            problems.push(problem.help("keep one of the two"));
            None
        }
        (None, None) => {
            if !lost {
                let message = format!("endpoint `{name}` has no network namespace");
                let problem = Diagnostic::new(written, message);
                problems.push(
                    problem.help(format!("add netns = \"/run/netns/{name}\", or pid = 1234")),
                );
            }
            None
        }
    }
}

fn of_the_host(span: Span) -> Diagnostic {
    Diagnostic::new(span, "this is the host's own network namespace")
        .help("an endpoint lives in a namespace of its own: make one with `ip netns add NAME`")
}
