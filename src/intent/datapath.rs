//! `[datapath]` and `[conntrack]`.
//!
//! Pure.

use serde_spanned::Spanned;

use super::draft::Problems;
use super::{AttachMode, Conntrack, Datapath, limits, routing};
use crate::config;

pub(super) fn read(section: Option<&Spanned<config::Datapath>>) -> Datapath {
    let mode = section.and_then(|section| section.get_ref().attach_mode.as_ref());
    let attach_mode = match mode.map(|mode| *mode.get_ref()) {
        Some(config::AttachMode::Tcx) => AttachMode::Tcx,
        Some(config::AttachMode::Clsact) => AttachMode::Clsact,
        Some(config::AttachMode::Auto) | None => AttachMode::Auto,
    };
    Datapath { attach_mode }
}

pub(super) fn conntrack(
    section: Option<&Spanned<config::Conntrack>>,
    problems: &mut Problems,
) -> Conntrack {
    let empty = config::Conntrack::default();
    let conntrack = section.map_or(&empty, Spanned::get_ref);
    let (min, max) = (limits::CONNTRACK_ENTRIES_MIN, limits::CONNTRACK_ENTRIES_MAX);
    let mut entries = |written: &Option<Spanned<i64>>, what: &str, default: u32| {
        let read = written.as_ref();
        read.and_then(|n| routing::number(n, what, min.into(), max.into(), problems))
            .unwrap_or(default)
    };
    Conntrack {
        tcp_max_entries: entries(
            &conntrack.tcp_max_entries,
            "`tcp-max-entries`",
            limits::CONNTRACK_TCP_DEFAULT,
        ),
        any_max_entries: entries(
            &conntrack.any_max_entries,
            "`any-max-entries`",
            limits::CONNTRACK_ANY_DEFAULT,
        ),
        nat_max_entries: entries(
            &conntrack.nat_max_entries,
            "`nat-max-entries`",
            limits::NAT_DEFAULT,
        ),
    }
}
