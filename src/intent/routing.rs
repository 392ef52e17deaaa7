//! `[routing]`, `[masquerade]` and `[datapath]`.
//!
//! Pure.

use serde_spanned::Spanned;

use super::draft::{At, DraftRouting, Problems};
use super::{AttachMode, Datapath, Masquerade, Routing, RoutingMode, address, limits};
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
    if routing.mode.is_none() && !document.has_lost("routing") && !document.has_lost("routing.mode")
    {
        let at = section.map_or_else(|| document.beginning(), Span::from);
        let message = "`mode` of [routing] is not set, and its default, \"tunnel\", is not supported by \
                       this version of ciliate";
        problems.push(Diagnostic::new(at, message).help("write mode = \"native\" below [routing]"));
    }
    let port = |port: &Spanned<i64>| number(port, "`tunnel-port`", 1, 65_535, problems);
    routing.tunnel_port.as_ref().and_then(port);
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
    let value = Routing {
        mode: RoutingMode::Native,
        auto_direct_node_routes: routing
            .auto_direct_node_routes
            .as_ref()
            .is_some_and(|on| *on.get_ref()),
        native_cidrs: Vec::new(),
        mtu_bytes: None,
        table,
        rule_priority: rule_priority.unwrap_or(limits::RULE_PRIORITY_DEFAULT),
    };
    DraftRouting { value, native_cidrs, mtu_bytes }
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

pub(super) fn datapath(section: Option<&Spanned<config::Datapath>>) -> Datapath {
    let mode = section.and_then(|section| section.get_ref().attach_mode.as_ref());
    let attach_mode = match mode.map(|mode| *mode.get_ref()) {
        Some(config::AttachMode::Tcx) => AttachMode::Tcx,
        Some(config::AttachMode::Clsact) => AttachMode::Clsact,
        Some(config::AttachMode::Auto) | None => AttachMode::Auto,
    };
    Datapath { attach_mode }
}
