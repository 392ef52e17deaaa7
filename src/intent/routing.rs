//! `[routing]` and `[masquerade]`.
//!
//! Pure.

use serde_spanned::Spanned;

use super::draft::{At, DraftRouting, Problems};
use super::{Masquerade, Routing, RoutingMode, Tunnel, TunnelProtocol, Underlay, address, limits};
use crate::config::{self, Diagnostic, Document, MasqueradeMode, Span};

/// Tables that belong to the kernel (`/etc/iproute2/rt_tables`), and what to do instead.
const KERNEL_TABLES: &[(i64, &str, &str)] = &[
    (0, "`unspec`, no table at all", "leave `table` out for the main table"),
    (253, "the kernel's `default` table", "choose a number that nobody uses"),
    (254, "the main table, which is the default", "leave `table` out for the main table"),
    (255, "the kernel's `local` table", "choose a number that nobody uses"),
];

pub(super) fn read(document: &Document, problems: &mut Problems) -> DraftRouting {
    let section = document.root().routing.as_ref();
    let empty = config::Routing::default();
    let routing = section.map_or(&empty, Spanned::get_ref);
    let tunnel = tunnel(routing, problems);
    let (native_cidrs, _) = address::cidrs(routing.native_cidrs.as_ref(), problems);
    let mtu = |mtu: &Spanned<i64>| {
        let value = number(
            mtu,
            "`mtu`",
            limits::MTU_BYTES_MIN.into(),
            limits::MTU_BYTES_MAX.into(),
            problems,
        )?;
        Some(At { value, span: mtu.into() })
    };
    let mtu_bytes = routing.mtu.as_ref().and_then(mtu);
    let table = routing.table.as_ref().and_then(|number| table(number, problems));
    let rule_priority = routing.rule_priority.as_ref().and_then(|priority| {
        let (min, max) = (limits::RULE_PRIORITY_MIN, limits::RULE_PRIORITY_MAX);
        rule_priority(priority, min.into(), max.into(), problems)
    });
    let mode = match routing.mode.as_ref().map(Spanned::get_ref) {
        Some(config::RoutingMode::Native) => RoutingMode::Native,
        Some(config::RoutingMode::Tunnel) | None => RoutingMode::Tunnel(tunnel),
    };
    let auto_direct = routing.auto_direct_node_routes.as_ref().filter(|on| *on.get_ref());
    let past_host = routing.host_routing.as_ref().map(Spanned::get_ref);
    let value = Routing {
        mode,
        auto_direct_node_routes: auto_direct.is_some(),
        past_host: past_host == Some(&config::HostRouting::Bpf),
        native_cidrs: Vec::new(),
        mtu_bytes: None,
        table,
        rule_priority: rule_priority.unwrap_or(limits::RULE_PRIORITY_DEFAULT),
    };
    let underlay = routing.underlay_protocol.as_ref().map(|protocol| {
        let value = match protocol.get_ref() {
            config::UnderlayProtocol::Ipv4 => Underlay::Ipv4,
            config::UnderlayProtocol::Ipv6 => Underlay::Ipv6,
        };
        At { value, span: protocol.into() }
    });
    // What was written of them, or meant, is refused elsewhere.
    let lost =
        |key: &str| document.has_lost("routing") || document.has_lost(&format!("routing.{key}"));
    let mode_known = routing.mode.is_some() || !lost("mode");
    let in_tunnel = mode != RoutingMode::Native;
    let way_known = mode_known && !(in_tunnel && underlay.is_none() && lost("underlay-protocol"));
    DraftRouting {
        way_known,
        value,
        native_cidrs,
        mtu_bytes,
        underlay,
        table_span: routing.table.as_ref().map(Span::from),
        auto_direct: auto_direct.map(Span::from),
    }
}

/// The tunnel, also where native mode leaves it without effect: a mistake in it is one all the same.
fn tunnel(routing: &config::Routing, problems: &mut Problems) -> Tunnel {
    let protocol = match routing.tunnel_protocol.as_ref().map(Spanned::get_ref) {
        Some(config::TunnelProtocol::Geneve) => TunnelProtocol::Geneve,
        Some(config::TunnelProtocol::Vxlan) | None => TunnelProtocol::Vxlan,
    };
    let written = routing.tunnel_port.as_ref();
    let port = written.and_then(|port| number(port, "`tunnel-port`", 1, 65_535, problems));
    let default = match protocol {
        TunnelProtocol::Vxlan => limits::VXLAN_PORT_DEFAULT,
        TunnelProtocol::Geneve => limits::GENEVE_PORT_DEFAULT,
    };
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(default);
    let notrack = routing.tunnel_notrack.as_ref().is_none_or(|on| *on.get_ref());
    Tunnel { protocol, port, notrack, underlay: None }
}

/// Reads a number within bounds.
pub(super) fn number(
    written: &Spanned<i64>,
    what: &str,
    min: i64,
    max: i64,
    problems: &mut Problems,
) -> Option<u32> {
    let value = *written.get_ref();
    let read = u32::try_from(value).ok().filter(|_| (min..=max).contains(&value));
    if read.is_none() {
        let problem = Diagnostic::new(written, format!("{what} can't be {value}"));
        problems.push(problem.help(format!("it is a number from {min} to {max}")));
    }
    read
}

fn table(written: &Spanned<i64>, problems: &mut Problems) -> Option<u32> {
    let value = *written.get_ref();
    if let Some((_, what, help)) = KERNEL_TABLES.iter().find(|(kernel, ..)| *kernel == value) {
        let problem = Diagnostic::new(written, format!("`table` can't be {value}"));
        problems.push(problem.label(format!("this is {what}")).help(*help));
        return None;
    }
    number(written, "`table`", 1, u32::MAX.into(), problems)
}

fn rule_priority(
    written: &Spanned<i64>,
    min: i64,
    max: i64,
    problems: &mut Problems,
) -> Option<u32> {
    let label = match *written.get_ref() {
        0 => "at 0 the kernel looks up its own addresses; that rule stays first",
        32_766 => "at 32766 the kernel looks up the main table; a later rule would not be reached",
        32_767 => "at 32767 the kernel looks up the default table; the main table comes before it",
        _ => return number(written, "`rule-priority`", min, max, problems),
    };
    let problem =
        Diagnostic::new(written, format!("`rule-priority` can't be {}", written.get_ref()));
    problems.push(problem.label(label).help(format!("it is a number from {min} to {max}")));
    None
}

pub(super) fn masquerade(section: Option<&Spanned<config::Masquerade>>) -> Masquerade {
    let mode = section.and_then(|section| section.get_ref().mode.as_ref());
    match mode.map(|mode| *mode.get_ref()) {
        Some(MasqueradeMode::Off) => Masquerade::Off,
        Some(MasqueradeMode::Nftables) | None => Masquerade::Nftables,
    }
}
