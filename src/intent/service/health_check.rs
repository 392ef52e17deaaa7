//! `[service.health-check]`: text → [`HealthCheck`].
//!
//! `humantime` reads times, as elsewhere in services. Pure.

use std::sync::Arc;
use std::time::Duration;

use serde_spanned::Spanned;

use super::Protocol;
use crate::config::{self, Diagnostic, HealthCheckType};
use crate::intent::address::shown;
use crate::intent::draft::Problems;
use crate::intent::limits;
use crate::intent::routing::number;

/// How a service's backends are asked whether they are alive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HealthCheck {
    pub question: Question,
    /// TCP port that is asked, where it isn't the backend's own.
    pub port: Option<u16>,
    pub interval: Duration,
    /// At most the interval.
    pub timeout: Duration,
    /// Good answers in a row that bring a dead backend back; at least 1.
    pub rise: u32,
    /// Questions in a row without a good answer that make a backend a dead one; at least 1.
    pub fall: u32,
}

/// What a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Whether it takes a connection.
    Tcp,
    /// `GET` of a path, with the first and the last status that is a good answer.
    Http { path: Arc<str>, status: (u16, u16) },
}

/// Reads the table of a service of `protocol`.
pub(super) fn read(
    table: &Spanned<config::HealthCheck>,
    protocol: Protocol,
    problems: &mut Problems,
) -> Option<HealthCheck> {
    let before = problems.len();
    let written = table.get_ref();
    let kind = written.kind.as_ref().map_or(HealthCheckType::Tcp, |kind| *kind.get_ref());
    let port = written.port.as_ref();
    if port.is_none() && protocol != Protocol::Tcp {
        let message = format!("health checks use TCP, and this service is of {}", protocol.name());
        problems.push(
            Diagnostic::new(table, message)
                .help("name the TCP port that answers for a backend, like `port = 8080`"),
        );
    }
    let port = port.and_then(|port| number(port, "`port`", 1, 65_535, problems));
    let bound = |most| (limits::CHECK_INTERVAL_MIN, most);
    let read = |text: &Option<Spanned<String>>, what, bounds, problems: &mut Problems| {
        text.as_ref().map(|text| time(text, what, bounds, problems))
    };
    let interval = read(&written.interval, "interval", bound(limits::CHECK_INTERVAL_MAX), problems);
    let interval = interval.unwrap_or(Some(limits::CHECK_INTERVAL_DEFAULT));
    // Against an interval that is wrong nothing can be judged.
    let most = interval.unwrap_or(limits::CHECK_INTERVAL_MAX);
    let timeout = read(&written.timeout, "timeout", bound(most), problems);
    let timeout = timeout.unwrap_or(Some(limits::CHECK_TIMEOUT_DEFAULT.min(most)));
    let times = |times: &Option<Spanned<i64>>, what, default, problems: &mut Problems| {
        let most = limits::CHECK_THRESHOLD_MAX.into();
        times.as_ref().map_or(Some(default), |times| number(times, what, 1, most, problems))
    };
    let rise = times(&written.rise, "`rise`", limits::CHECK_RISE_DEFAULT, problems);
    let fall = times(&written.fall, "`fall`", limits::CHECK_FALL_DEFAULT, problems);
    let question = question(written, kind, problems);
    let check = HealthCheck {
        question,
        port: port.and_then(|port| u16::try_from(port).ok()),
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
    };
    (problems.len() == before).then_some(check)
}

fn time(
    text: &Spanned<String>,
    what: &str,
    (least, most): (Duration, Duration),
    problems: &mut Problems,
) -> Option<Duration> {
    let written = text.get_ref();
    let format = humantime::format_duration;
    let (message, help) = match humantime::parse_duration(written) {
        Ok(time) if (least..=most).contains(&time) => return Some(time),
        Ok(time) => {
            let message = format!("`{what}` can't be {}", format(time));
            let of = if what == "timeout" { ", the interval" } else { "" };
            (message, format!("it is a time from {} to {}{of}", format(least), format(most)))
        }
        Err(_) => {
            let message = format!("{} is not a time", shown(written));
            (message, "write it like \"10s\" or \"500ms\"".to_owned())
        }
    };
    problems.push(Diagnostic::new(text, message).help(help));
    None
}

fn question(
    written: &config::HealthCheck,
    kind: HealthCheckType,
    problems: &mut Problems,
) -> Question {
    let (path, status) = (written.path.as_ref(), written.status.as_ref());
    if kind == HealthCheckType::Tcp {
        let of_http = path.map(|path| ("path", path.into()));
        for (key, span) in of_http.into_iter().chain(status.map(|s| ("status", s.into()))) {
            let span: config::Span = span;
            let message = format!("`{key}` is for health checks by HTTP, and this one is by TCP");
            let help = format!("write `type = \"http\"`, or remove `{key}`");
            problems.push(Diagnostic::new(span, message).help(help));
        }
        return Question::Tcp;
    }
    if let Some(path) = path.filter(|path| !is_path(path.get_ref())) {
        let message = format!("{} is not a path of HTTP", shown(path.get_ref()));
        let most = limits::CHECK_PATH_BYTES_MAX;
        problems.push(Diagnostic::new(path, message).help(format!(
            "it begins with `/` and has no spaces, like \"/healthz\"; it is at most {most} bytes long"
        )));
    }
    let path = path.map_or("/", |path| path.get_ref());
    let status = status.and_then(|status| codes(status, problems));
    Question::Http { path: path.into(), status: status.unwrap_or(limits::CHECK_STATUS_DEFAULT) }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= limits::CHECK_PATH_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn codes(written: &Spanned<Vec<Spanned<i64>>>, problems: &mut Problems) -> Option<(u16, u16)> {
    const HELP: &str = "write the first and the last status that is good, like [200, 399]";
    let [first, last] = written.get_ref().as_slice() else {
        let found = written.get_ref().len();
        let message = format!("`status` has two numbers, and this has {found}");
        problems.push(Diagnostic::new(written, message).help(HELP));
        return None;
    };
    let mut read = |code| number(code, "a status of HTTP", 100, 599, problems);
    let (first, last) = (read(first), read(last));
    let (first, last) = (u16::try_from(first?).ok()?, u16::try_from(last?).ok()?);
    if first > last {
        let message = format!("this range ends before it begins: {first} is after {last}");
        problems.push(Diagnostic::new(written, message).help(HELP));
        return None;
    }
    Some((first, last))
}
