//! `[[endpoint]]`.
//!
//! Pure.

use std::collections::BTreeMap;

use serde_spanned::Spanned;

use super::address::{self, Use};
use super::draft::{At, DraftEndpoint, Problems};
use super::{EndpointNetns, Identity, identity_of_labels, limits, name, paths, routing};
use crate::config::{self, Diagnostic, Document, Span};
use crate::net::{IfName, Netns};

type Labels = BTreeMap<Spanned<String>, Spanned<String>>;

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
    let labels =
        endpoint.labels.as_ref().map(|labels| read_labels(labels, problems)).unwrap_or_default();
    let (identity, identity_is_derived) = match &endpoint.identity {
        Some(number) => (explicit_identity(number, problems), false),
        None => {
            let span = endpoint.labels.as_ref().map_or_else(|| Span::from(written), Span::from);
            (Some(At { value: identity_of_labels(&labels), span }), true)
        }
    };
    Some(DraftEndpoint {
        name: name?,
        netns,
        ifname: ifname?,
        addresses,
        labels,
        identity: identity?,
        identity_is_derived,
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

fn read_labels(written: &Spanned<Labels>, problems: &mut Problems) -> BTreeMap<String, String> {
    let labels = written.get_ref();
    if labels.len() > limits::LABELS_MAX {
        let problem = Diagnostic::new(written, format!("too many labels: {}", labels.len()));
        problems
            .push(problem.help(format!("an endpoint has at most {} labels", limits::LABELS_MAX)));
    }
    for (key, value) in labels {
        problems.extend(label_key(key));
        problems.extend(label_value(key.get_ref(), value));
    }
    labels.iter().map(|(key, value)| (key.get_ref().clone(), value.get_ref().clone())).collect()
}

fn label_key(key: &Spanned<String>) -> Option<Diagnostic> {
    let text = key.get_ref();
    // `=` and `;` separate labels in the text that identities are derived from, `,` on command lines.
    let bad = |c: &char| !c.is_ascii_graphic() || "=;,".contains(*c);
    if text.is_empty() {
        return Some(
            Diagnostic::new(key, "a label's key can't be empty")
                .help("write labels = { key = \"value\" }"),
        );
    }
    if text.len() > limits::LABEL_KEY_BYTES_MAX {
        let problem =
            Diagnostic::new(key, format!("this label's key is too long: {} bytes", text.len()));
        return Some(problem.help(format!("it has at most {} bytes", limits::LABEL_KEY_BYTES_MAX)));
    }
    if let Some(c) = text.chars().find(bad) {
        let problem = Diagnostic::new(key, format!("a label's key can't have {c:?} in it"));
        return Some(
            problem.help("keys are made of ASCII letters, digits and punctuation except = ; ,"),
        );
    }
    let reserved = text.starts_with("reserved:");
    reserved.then(|| {
        Diagnostic::new(key, format!("label `{text}` is reserved")).help(
            "ciliate itself gives labels that begin with `reserved:`; use another source, or none",
        )
    })
}

fn label_value(key: &str, value: &Spanned<String>) -> Option<Diagnostic> {
    let text = value.get_ref();
    if text.len() > limits::LABEL_VALUE_BYTES_MAX {
        let problem = Diagnostic::new(
            value,
            format!("the value of label `{key}` is too long: {} bytes", text.len()),
        );
        return Some(
            problem.help(format!("it has at most {} bytes", limits::LABEL_VALUE_BYTES_MAX)),
        );
    }
    let bad = text.chars().find(|c| !c.is_ascii_graphic() || ";,".contains(*c))?;
    let problem =
        Diagnostic::new(value, format!("the value of label `{key}` can't have {bad:?} in it"));
    Some(problem.help("values are made of ASCII letters, digits and punctuation except ; ,"))
}

/// An identity the operator chose.
fn explicit_identity(written: &Spanned<i64>, problems: &mut Problems) -> Option<At<Identity>> {
    let value = *written.get_ref();
    let range = i64::from(Identity::USER_MIN)..=i64::from(Identity::LABELS_MAX);
    let identity = u32::try_from(value).ok().and_then(Identity::new);
    if let Some(identity) = identity.filter(|_| range.contains(&value)) {
        return Some(At { value: identity, span: written.into() });
    }
    let problem = Diagnostic::new(written, format!("`identity` can't be {value}"));
    let label = match identity {
        Some(identity) if value < i64::from(Identity::USER_MIN) => match identity.name() {
            Some(name) => format!("{value} is reserved for `{name}`"),
            None => format!("numbers below {} are reserved", Identity::USER_MIN),
        },
        _ => String::new(),
    };
    problems.push(problem.label(label).help(
        "choose a number from 256 to 65535, or from 128 to 255, or leave it out to have it derived from \
         the labels",
    ));
    None
}
