//! Frontends in words. Pure; imports `bpf_abi`.

use super::State;
use crate::bpf_abi::{
    LB_ALGORITHM_MAGLEV, LB_ALGORITHM_RANDOM, SERVICE_FLAG_AFFINITY, SERVICE_FLAG_EXT_LOCAL,
    SERVICE_FLAG_EXTERNAL_IP, SERVICE_FLAG_HOST_PORT, SERVICE_FLAG_LOAD_BALANCER,
    SERVICE_FLAG_NODE_PORT, SERVICE_FLAG_ROUTABLE, SERVICE_FLAG_SOURCE_RANGE,
    SERVICE_FLAG2_INT_LOCAL, SERVICE_FLAG2_TWO_SCOPES,
};
use crate::kinds::{Field, counted};

/// Items of a list that are written out.
const ITEMS_MAX: usize = 8;

/// The algorithm's name in the configuration.
pub fn algorithm_name(algorithm: u8) -> &'static str {
    match u32::from(algorithm) {
        LB_ALGORITHM_RANDOM => "random",
        LB_ALGORITHM_MAGLEV => "maglev",
        _ => "undefined",
    }
}

/// What kind of frontend it is, as `cilium service list` names it.
pub fn type_name(flags: u8) -> &'static str {
    let has = |flag| flags & flag != 0;
    match () {
        () if has(SERVICE_FLAG_EXTERNAL_IP) => "ExternalIPs",
        () if has(SERVICE_FLAG_NODE_PORT) => "NodePort",
        () if has(SERVICE_FLAG_HOST_PORT) => "HostPort",
        () if has(SERVICE_FLAG_LOAD_BALANCER) => "LoadBalancer",
        () => "ClusterIP",
    }
}

/// The flags, as `cilium bpf lb list` names them.
pub fn flag_names(flags: u8, flags2: u8) -> Vec<&'static str> {
    let mut names = vec![type_name(flags)];
    for (set, name) in [
        (flags & SERVICE_FLAG_EXT_LOCAL != 0, "Local"),
        (flags2 & SERVICE_FLAG2_INT_LOCAL != 0, "InternalLocal"),
        (flags & SERVICE_FLAG_AFFINITY != 0, "sessionAffinity"),
        (flags & SERVICE_FLAG_ROUTABLE == 0, "non-routable"),
        (flags & SERVICE_FLAG_SOURCE_RANGE != 0, "check source-range"),
        (flags2 & SERVICE_FLAG2_TWO_SCOPES != 0, "two-scopes"),
    ] {
        names.extend(set.then_some(name));
    }
    names
}

/// One line.
pub(super) fn describe(state: &State) -> String {
    let mut parts = Vec::new();
    match state.head {
        Some(head) => {
            parts.push(format!("id {}", head.id));
            parts.push(algorithm_name(head.algorithm).to_owned());
            parts.push(counted(usize::from(head.count), "backend"));
            if head.quarantined > 0 {
                parts.push(format!("{} quarantined", head.quarantined));
            }
            if head.affinity_s > 0 {
                parts.push(format!("affinity {} s", head.affinity_s));
            }
            // Without what goes without saying, or is said elsewhere in the line.
            let said = ["ClusterIP", "non-routable", "sessionAffinity", "check source-range"];
            let names = flag_names(head.flags, head.flags2).into_iter();
            let names: Vec<&str> = names.filter(|name| !said.contains(name)).collect();
            parts.extend((!names.is_empty()).then(|| names.join(",")));
        }
        None if !state.slots.is_empty() => {
            parts.push(format!("{} without slot 0", counted(state.slots.len(), "slot")));
        }
        None => {}
    }
    if !state.source_ranges.is_empty() {
        parts.push(counted(state.source_ranges.len(), "source range"));
    }
    if state.table != 0 {
        parts.push(format!("table {:08x}", state.table));
    }
    parts.join(" ")
}

/// What differs, in an operator's words where there are some.
pub(super) fn fields(spec: &State, seen: &State) -> Vec<Field> {
    let both =
        |name: &str, of: &dyn Fn(&State) -> String| Field::differs(name, &of(seen), &of(spec));
    let heads = seen.head.zip(spec.head);
    let of_head = |name: &str, of: &dyn Fn(&super::Head) -> String| {
        heads.and_then(|(seen, spec)| Field::differs(name, &of(&seen), &of(&spec)))
    };
    let there = |state: &State| if state.head.is_some() { "there" } else { "missing" }.to_owned();
    let fields: Vec<Field> = [
        both("slot 0", &there),
        of_head("id", &|head| head.id.to_string()),
        of_head("algorithm", &|head| algorithm_name(head.algorithm).to_owned()),
        of_head("affinity", &|head| format!("{} s", head.affinity_s)),
        of_head("backends in use", &|head| head.count.to_string()),
        of_head("quarantined", &|head| head.quarantined.to_string()),
        of_head("flags", &|head| flags(head.flags, head.flags2)),
        listed("backends", &spec.slots, &seen.slots, |slot| {
            let strange = if slot.strange { "!" } else { "" };
            format!("{}:{}/{}{strange}", slot.number, slot.backend, slot.id)
        }),
        both("replies from", &|state| {
            state.reverse_nat.map_or_else(|| "none".into(), |address| address.to_string())
        }),
        listed("source ranges", &spec.source_ranges, &seen.source_ranges, ToString::to_string),
        listed("clients kept at", &spec.kept, &seen.kept, ToString::to_string),
        both("table", &|state| format!("{:08x}", state.table)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if fields.is_empty() && spec != seen {
        // Numbers without a name of ours.
        let text = |state: &State| format!("{state:?}");
        return Field::differs("entries", &text(seen), &text(spec)).into_iter().collect();
    }
    fields
}

fn flags(flags: u8, flags2: u8) -> String {
    format!("0x{flags:02x}/0x{flags2:02x}")
}

/// A difference between lists: of long ones how many there are, and what only one of them has.
fn listed<T: PartialEq>(
    name: &str,
    spec: &[T],
    seen: &[T],
    text: impl Fn(&T) -> String,
) -> Option<Field> {
    if spec == seen {
        return None;
    }
    let only = |list: &[T], other: &[T]| {
        let own = list.iter().filter(|item| !other.contains(item));
        let own: Vec<String> = own.take(ITEMS_MAX).map(&text).collect();
        let own = if own.is_empty() { "none".into() } else { own.join(" ") };
        if list.len() > ITEMS_MAX { format!("{own} of {}", list.len()) } else { own }
    };
    let all = |list: &[T]| list.iter().map(&text).collect::<Vec<_>>().join(" ");
    let short = spec.len().max(seen.len()) <= ITEMS_MAX;
    let (from, to) = match short {
        true => (all(seen), all(spec)),
        false => (only(seen, spec), only(spec, seen)),
    };
    let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    Field::differs(name, &none(from), &none(to))
}
