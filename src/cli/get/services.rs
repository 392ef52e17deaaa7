//! `ciliate get services`: every frontend with its backends, laid out as `cilium service list`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::cell;
use crate::bpf_abi::{BACKEND_QUARANTINED, protocol_name};
use crate::daemon::checks::Found;
use crate::engine::View;
use crate::kinds::Origin;
use crate::kinds::lb_backend::{self, Spec, state_name};
use crate::kinds::lb_service::{Key, State, type_name};

pub(super) const HEADINGS: &[&str] =
    &["ID", "FRONTEND", "SERVICE TYPE", "BACKEND", "NAME", "STATE"];

/// Which of the headings has the backends.
const BACKEND: usize = 3;

/// By number, as the configuration asks for them.
pub(super) fn rows(view: &View, found: &Found) -> Vec<Vec<Value>> {
    let backends: BTreeMap<lb_backend::Key, &Spec> =
        view.desired.lb_backends.iter().map(|(key, wanted)| (*key, &wanted.spec)).collect();
    let dead: BTreeMap<(&str, SocketAddr), &str> =
        found.dead.iter().map(|d| ((&*d.service, d.address), d.problem.as_str())).collect();
    let mut rows = Vec::new();
    for (key, wanted) in &view.desired.lb_services {
        let state = match view.observed.lb_services.get(key) {
            None => "missing",
            Some(seen) if *seen == wanted.spec => "ready",
            Some(_) => "differs",
        };
        let name = match &wanted.origin {
            Origin::Service(name) => name.to_string(),
            other => other.to_string(),
        };
        let kind = wanted.spec.head.map_or("", |head| type_name(head.flags));
        let row = vec![
            json!(wanted.spec.id()),
            json!(key.to_string()),
            json!(kind),
            json!(of_frontend(*key, &wanted.spec, &backends, |a| dead.get(&(&*name, a)).copied())),
            json!(name),
            json!(state),
        ];
        rows.push((wanted.spec.id(), row));
    }
    rows.sort_by_key(|(id, _)| *id);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The backends of a frontend, those in use first, and the problem of each that was found dead.
fn of_frontend<'a>(
    key: Key,
    state: &State,
    backends: &BTreeMap<lb_backend::Key, &Spec>,
    problem: impl Fn(SocketAddr) -> Option<&'a str>,
) -> Vec<Value> {
    let ipv6 = key.is_ipv6();
    let in_use = state.head.map_or(0, |head| head.count);
    let backend = |id: u32| backends.get(&lb_backend::Key { id, ipv6 });
    let listed = state.slots.iter().filter_map(|slot| Some((slot.number, backend(slot.backend)?)));
    listed
        .map(|(number, backend)| {
            // Another service may have it in use.
            let state = if number > in_use { BACKEND_QUARANTINED } else { backend.state };
            json!({
                "address": backend.address,
                "protocol": protocol_name(backend.protocol),
                "state": state_name(state),
                "problem": problem(backend.address),
            })
        })
        .collect()
}

/// A row as lines: each backend has one.
pub(super) fn lines(row: &[Value]) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = row[BACKEND].as_array().into_iter().flatten();
    let mut backends = listed.enumerate().map(|(at, backend)| {
        let [address, protocol, state, problem] =
            ["address", "protocol", "state", "problem"].map(|k| text(&backend[k]));
        let why = if problem.is_empty() { problem } else { format!(": {problem}") };
        format!("{} => {address}/{protocol} ({state}{why})", at + 1)
    });
    let mut first: Vec<String> = row.iter().map(cell).collect();
    first[BACKEND] = backends.next().unwrap_or_default();
    let further = backends.map(|backend| {
        let mut line = vec![String::new(); row.len()];
        line[BACKEND] = backend;
        line
    });
    std::iter::once(first).chain(further).collect()
}
