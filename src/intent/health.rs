//! `[health]`.
//!
//! Pure.

use std::time::Duration;

use serde_spanned::Spanned;

use super::draft::Problems;
use super::{Health, limits, routing};
use crate::config;

pub(super) fn read(section: Option<&Spanned<config::Health>>, problems: &mut Problems) -> Health {
    let empty = config::Health::default();
    let health = section.map_or(&empty, Spanned::get_ref);
    let (min, max) = (limits::HEALTH_INTERVAL_S_MIN, limits::HEALTH_INTERVAL_S_MAX);
    let read = |number| routing::number(number, "`interval`", min.into(), max.into(), problems);
    let interval = health.interval.as_ref().and_then(read);
    Health {
        enabled: health.enabled.as_ref().is_none_or(|on| *on.get_ref()),
        interval: Duration::from_secs(interval.unwrap_or(limits::HEALTH_INTERVAL_S_DEFAULT).into()),
    }
}
