//! The names in a saved plan: a file that anybody may have edited, and some names become paths. Pure.

use super::check::Broken;
use crate::kinds::Op;
use crate::net::IfName;

/// The settings that plans change.
const SETTINGS: &[&str] = &[
    "accept_local",
    "accept_ra",
    "accept_redirects",
    "disable_ipv6",
    "forwarding",
    "rp_filter",
    "send_redirects",
];

/// Makes sure that each op is about something that a planner can have named.
///
/// # Errors
/// The first op that isn't.
pub fn check(ops: &[Op]) -> Result<(), Broken> {
    match ops.iter().find(|op| !is_well_formed(op)) {
        None => Ok(()),
        Some(op) => Err(Broken::Strange(op.object().to_string())),
    }
}

fn is_well_formed(op: &Op) -> bool {
    match op {
        Op::Sysctl(change) => {
            let parts: Vec<&str> = change.key.path.split('/').collect();
            matches!(parts.as_slice(), ["net", "ipv4" | "ipv6", "conf", device, setting]
                if device.parse::<IfName>().is_ok() && SETTINGS.contains(setting))
        }
        Op::BpfProgram(change) => is_name(&change.key.name) && is_name(&change.key.digest),
        Op::BpfLink(change) => {
            let program = change.spec().map(|spec| &spec.program);
            is_name(&change.key.program)
                && program.is_none_or(|key| is_name(&key.name) && is_name(&key.digest))
        }
        _ => true,
    }
}

/// A name of a program or a build: nothing that could lead out of a folder.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{Action, Change, Origin, bpf_link, bpf_program, sysctl};

    fn setting(path: &str) -> Op {
        let spec = sysctl::Spec { value: "1".into(), needs: Vec::new() };
        let key = sysctl::Key::host(path);
        Op::Sysctl(Change { key, action: Action::Create { to: spec }, origin: Origin::Node })
    }

    #[test]
    fn only_settings_that_plans_change_pass() {
        assert!(check(&[setting("net/ipv4/conf/eth0.100/forwarding")]).is_ok());
        for path in [
            "kernel/core_pattern",
            "net/ipv4/conf/../../kernel/core_pattern",
            "net/ipv4/conf/eth0/../forwarding",
            "/etc/passwd",
            "net/ipv4/conf/eth0/log_martians",
        ] {
            assert!(check(&[setting(path)]).is_err(), "{path}");
        }
    }

    #[test]
    fn no_pin_outside_our_folder_passes() {
        let from = bpf_link::Seen {
            program: None,
            mode: bpf_link::Mode::Tcx,
            ifindex: 3,
            twice: false,
            qdisc_ours: false,
        };
        let key = |program: &str| bpf_link::Key {
            ifname: "eth0".parse().unwrap(),
            hook: bpf_link::Hook::Ingress,
            program: program.into(),
        };
        let op = |program: &str| {
            let action = Action::Delete { from: from.clone() };
            Op::BpfLink(Change { key: key(program), action, origin: Origin::Leftover })
        };
        assert!(check(&[op("cil_from_netdev")]).is_ok());
        assert!(check(&[op("../../../etc/passwd")]).is_err());
        let key = bpf_program::Key { name: "x".into(), digest: "..".into() };
        let from = bpf_program::Seen { maps: Default::default() };
        let action = Action::Delete { from };
        let op = Op::BpfProgram(Change { key, action, origin: Origin::Leftover });
        assert!(check(&[op]).is_err());
    }
}
