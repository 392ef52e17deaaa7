//! `[load-balancing]`: text → [`LoadBalancing`].
//!
//! Pure.

use std::ops::RangeInclusive;

use serde_spanned::Spanned;

use super::{Acceleration, Algorithm, LoadBalancing, MAGLEV_TABLE_SIZES, NoBackend};
use crate::config::{self, Diagnostic, Document};
use crate::intent::draft::Problems;
use crate::intent::routing::number;

/// Reads the section.
pub(in crate::intent) fn read(document: &Document, problems: &mut Problems) -> LoadBalancing {
    let default = LoadBalancing::default();
    let section = document.root().load_balancing.as_ref();
    let Some(written) = section.map(Spanned::get_ref) else { return default };
    let choice =
        |on: &Option<Spanned<bool>>, default: bool| on.as_ref().map_or(default, |on| *on.get_ref());
    let mode = written.mode.as_ref();
    let size = written.maglev_table_size.as_ref();
    // A list of which something is missing has been complained about.
    let whole = !document.has_lost("load-balancing.node-port-range");
    let range = written.node_port_range.as_ref().filter(|_| whole);
    let direct_return = mode.is_some_and(|mode| returns_directly(mode, document, problems));
    let acceleration = written.acceleration.as_ref();
    LoadBalancing {
        acceleration: acceleration
            .map_or(default.acceleration, |asked| accelerates(asked, mode, document, problems)),
        algorithm: match written.algorithm.as_ref().map(Spanned::get_ref) {
            Some(config::Algorithm::Maglev) => Algorithm::Maglev,
            Some(config::Algorithm::Random) | None => Algorithm::Random,
        },
        no_backend: match written.no_backend.as_ref().map(Spanned::get_ref) {
            Some(config::NoBackend::Drop) => NoBackend::Drop,
            Some(config::NoBackend::Reject) | None => NoBackend::Reject,
        },
        direct_return,
        socket: choice(&written.socket, default.socket),
        replace_kube_proxy: choice(&written.replace_kube_proxy, default.replace_kube_proxy),
        node_ports: range
            .and_then(|range| node_ports(range, problems))
            .unwrap_or(default.node_ports),
        maglev_table_size: size
            .and_then(|size| table_size(size, problems))
            .unwrap_or(default.maglev_table_size),
    }
}

/// Whether backends answer clients themselves. What that takes has no place in a tunnel.
fn returns_directly(
    mode: &Spanned<config::LoadBalancingMode>,
    document: &Document,
    problems: &mut Problems,
) -> bool {
    if *mode.get_ref() != config::LoadBalancingMode::Dsr {
        return false;
    }
    let routing = document.root().routing.as_ref().map(Spanned::get_ref);
    let written = routing.and_then(|routing| routing.mode.as_ref());
    let native = written.is_some_and(|mode| *mode.get_ref() == config::RoutingMode::Native);
    if !native && !document.has_lost("routing.mode") {
        let message = "direct return needs native routing, and this node has tunnels";
        let mut problem = Diagnostic::new(mode, message)
            .help("set `mode = \"snat\"` here, or `mode = \"native\"` in [routing] of all nodes");
        if let Some(written) = written {
            problem = problem.related(written, "tunnels are asked for here");
        }
        problems.push(problem);
    }
    let encryption = document.root().encryption.as_ref().map(Spanned::get_ref);
    let encrypted = encryption.and_then(|encryption| encryption.mode.as_ref());
    if let Some(encrypted) =
        encrypted.filter(|mode| *mode.get_ref() == config::EncryptionMode::Wireguard)
    {
        let message = "direct return and encryption can't both be had: to WireGuard, packets from clients are nobody's";
        let problem = Diagnostic::new(mode, message)
            .help("set `mode = \"snat\"` here, or `mode = \"off\"` in [encryption]");
        problems.push(problem.related(encrypted, "encryption is asked for here"));
    }
    true
}

/// Whether drivers send packets on. They can't add to them, nor encrypt.
fn accelerates(
    asked: &Spanned<config::Acceleration>,
    mode: Option<&Spanned<config::LoadBalancingMode>>,
    document: &Document,
    problems: &mut Problems,
) -> Acceleration {
    let acceleration = match asked.get_ref() {
        config::Acceleration::Disabled => return Acceleration::Disabled,
        config::Acceleration::Native => Acceleration::Native,
        config::Acceleration::BestEffort => Acceleration::BestEffort,
    };
    if let Some(mode) = mode.filter(|mode| *mode.get_ref() == config::LoadBalancingMode::Dsr) {
        let message = "direct return is not accelerated: drivers don't add its option to packets";
        let problem = Diagnostic::new(asked, message)
            .help("set `acceleration = \"disabled\"`, or `mode = \"snat\"`");
        problems.push(problem.related(mode, "direct return is asked for here"));
    }
    let encryption = document.root().encryption.as_ref().map(Spanned::get_ref);
    let encrypted = encryption.and_then(|encryption| encryption.mode.as_ref());
    if let Some(encrypted) =
        encrypted.filter(|mode| *mode.get_ref() == config::EncryptionMode::Wireguard)
    {
        let message = "what is encrypted is not accelerated: drivers don't encrypt";
        let problem = Diagnostic::new(asked, message)
            .help("set `acceleration = \"disabled\"` here, or `mode = \"off\"` in [encryption]");
        problems.push(problem.related(encrypted, "encryption is asked for here"));
    }
    acceleration
}

fn node_ports(
    written: &Spanned<Vec<Spanned<i64>>>,
    problems: &mut Problems,
) -> Option<RangeInclusive<u16>> {
    const HELP: &str = "write the first and the last port, like [30000, 32767]";
    let [first, last] = written.get_ref().as_slice() else {
        let found = written.get_ref().len();
        let message = format!("`node-port-range` has two numbers, and this has {found}");
        problems.push(Diagnostic::new(written, message).help(HELP));
        return None;
    };
    let mut read = |port| number(port, "a port of `node-port-range`", 1, 65_535, problems);
    let (first, last) = (read(first), read(last));
    let (first, last) = (u16::try_from(first?).ok()?, u16::try_from(last?).ok()?);
    if first > last {
        let message = format!("this range ends before it begins: {first} is after {last}");
        problems.push(Diagnostic::new(written, message).help(HELP));
        return None;
    }
    Some(first..=last)
}

fn table_size(written: &Spanned<i64>, problems: &mut Problems) -> Option<u32> {
    let size = u32::try_from(*written.get_ref()).ok();
    let known = size.filter(|size| MAGLEV_TABLE_SIZES.contains(size));
    if known.is_none() {
        let sizes: Vec<String> = MAGLEV_TABLE_SIZES.iter().map(ToString::to_string).collect();
        let message = format!("`maglev-table-size` can't be {}", written.get_ref());
        let help = format!("it is one of the primes {}", sizes.join(", "));
        problems.push(Diagnostic::new(written, message).help(help));
    }
    known
}
