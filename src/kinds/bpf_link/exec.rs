//! Attachments in the kernel: listing, making, swapping, removing. With `exec/filter.rs`, its half that
//! is about clsact, the only file of this kind that may import `kernel`.

pub mod filter;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{BpfLink, Hook, Key, Mode, Seen, Spec};
use crate::apply::{Apply, ExecError};
use crate::kernel::place::{self, Pinned};
use crate::kernel::{Kernel, KernelError, bpf, pins, program};
use crate::kinds::{Action, Change, Desired, bpf_program, cgroup_link, xdp_link};
use crate::net::{IfName, Netns};
use crate::observe::{Observe, Round};

impl Observe for BpfLink {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let programs = bpf_program::exec::by_id(&round.programs()?);
        let filters = filter::list(round, &programs, &desired.bpf_links)?.into_iter();
        let mut seen: BTreeMap<Key, Seen> =
            filters.map(|(key, (filter, _))| (key, filter)).collect();
        let links = tcx_links(round.kernel.bpf_root())?;
        for (key, info) in &links {
            let pinned = key;
            let key = renamed(key, info, &links, desired).unwrap_or(key).clone();
            let found = Seen {
                program: programs.get(&info.program_id).cloned(),
                mode: Mode::Tcx,
                ifindex: info.ifindex,
                twice: false,
                qdisc_ours: false,
                foreign: None,
                pinned_as: (pinned.ifname != key.ifname).then_some(pinned.ifname),
            };
            let wanted = desired.bpf_links.get(&key).map(|wanted| wanted.spec.mode);
            match seen.get_mut(&key) {
                // The link stays too, until the foreign filter has made room.
                Some(filter) if filter.foreign.is_some() => {}
                // Attached both ways, after a change of mode that was cut short.
                Some(filter) if wanted == Some(Mode::Clsact) => filter.twice = true,
                Some(filter) => *filter = Seen { twice: true, ..found },
                None => drop(seen.insert(key, found)),
            }
        }
        Ok(seen)
    }
}

/// The attachment that a link is, if it is pinned by a name that its device no longer has.
fn renamed<'a>(
    pinned: &Key,
    info: &bpf::TcxLinkInfo,
    links: &[(Key, bpf::TcxLinkInfo)],
    desired: &'a Desired,
) -> Option<&'a Key> {
    if info.ifindex == 0 || desired.bpf_links.contains_key(pinned) {
        return None;
    }
    let mut wanted = desired.bpf_links.iter().filter(|(key, wanted)| {
        (key.hook, &key.program) == (pinned.hook, &pinned.program)
            && (wanted.spec.ifindex, wanted.spec.mode) == (info.ifindex, Mode::Tcx)
    });
    let (key, _) = wanted.next()?;
    links.iter().all(|(other, _)| other != key).then_some(key)
}

/// The links behind our pins.
fn tcx_links(root: &Path) -> Result<Vec<(Key, bpf::TcxLinkInfo)>, KernelError> {
    let mut links = Vec::new();
    for folder in pins::list(&root.join("links"))? {
        let Ok(ifname) = pins::ifname_of(&folder).parse() else { continue };
        for name in pins::list(&root.join("links").join(&folder))? {
            let failed = |source| failed("read", &format!("{ifname} {name}"), source);
            let pin = root.join("links").join(&folder).join(&name);
            let Some(link) = place::open(root, &pin, Pinned::TcxLink)? else { continue };
            let info = bpf::tcx_link_info(link).map_err(failed)?;
            let hook =
                if info.attach_type == bpf::TCX_EGRESS { Hook::Egress } else { Hook::Ingress };
            links.push((Key { ifname, hook, program: name.into() }, info));
        }
    }
    Ok(links)
}

/// The maps that attached programs of ours use, by id, with one of the attachments.
///
/// # Errors
/// Attachments or programs can't be read.
pub fn maps_in_use(kernel: &mut Kernel) -> Result<BTreeMap<u32, String>, KernelError> {
    let links = tcx_links(kernel.bpf_root())?.into_iter();
    let links = links.filter(|(_, info)| info.ifindex != 0);
    let programs = bpf_program::exec::by_id(&bpf_program::exec::pinned(kernel)?);
    let filters = filter::list(&mut Round::new(kernel), &programs, &BTreeMap::new())?.into_iter();
    let of_sockets = cgroup_link::exec::links(kernel.bpf_root())?.into_iter();
    let of_sockets = of_sockets.filter(|(_, info)| info.cgroup_id != 0);
    let of_drivers = xdp_link::exec::links(kernel.bpf_root())?.into_iter();
    let of_drivers = of_drivers.filter(|(_, info)| info.ifindex != 0);
    let mut maps = BTreeMap::new();
    for (key, id) in links
        .map(|(key, info)| (key.to_string(), info.program_id))
        .chain(filters.map(|(key, (_, program))| (key.to_string(), program)))
        .chain(of_sockets.map(|(key, info)| (key.to_string(), info.program_id)))
        .chain(of_drivers.map(|(key, info)| (key.to_string(), info.program_id)))
    {
        let read = |source| failed("read the program of", &key, source);
        let Some(program) = bpf::program_by_id(id).map_err(read)? else { continue };
        let info = bpf::program_info(program).map_err(read)?;
        maps.extend(info.map_ids.into_iter().map(|map| (map, key.clone())));
    }
    Ok(maps)
}

fn failed(operation: &'static str, object: &str, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("link {object}"), source }
}

impl Apply for BpfLink {
    // One after the other: the kernel makes a TCX link under the lock of all link changes and waits
    // for a grace period before it lets go of it (`tcx_entry_sync`, 8–15 ms), so threads gain nothing.
    // A clsact filter waits for nothing (0.1 ms); so does a swap of programs. What would help,
    // `/sys/kernel/rcu_expedited`, is a setting of the whole machine.
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let root = kernel.bpf_root().to_path_buf();
        changes.iter().map(|change| Ok(change_one(kernel, &root, change)?)).collect()
    }
}

/// Makes a TCX link and pins it. A stale pin (its device is gone) is replaced.
fn attach_tcx(root: &Path, change: &Change<BpfLink>) -> Result<(), KernelError> {
    let Some(spec) = change.spec() else { return Ok(()) };
    let name = change.key.to_string();
    let pin = pins::link(root, change.key.ifname.as_str(), &change.key.program);
    let found = place::open(root, &pin, Pinned::TcxLink)?;
    let found = found.and_then(|link| bpf::tcx_link_info(link).ok());
    let expected = change.expects().filter(|seen| seen.mode == Mode::Tcx).map(|seen| seen.ifindex);
    // Attached nowhere any more: its device went since it was looked at, and what is asked for is new.
    let stale = expected.is_some() && found.is_some_and(|info| info.ifindex == 0);
    if found.map(|info| info.ifindex) != expected && !stale {
        return Err(KernelError::Refused {
            expected: expected
                .map_or("no link".into(), |index| format!("a link on ifindex {index}")),
            found: found.map_or("none".into(), |info| format!("one on ifindex {}", info.ifindex)),
        });
    }
    let program = bpf_program::exec::find(root, &spec.program)?;
    let attach_type = match change.key.hook {
        Hook::Ingress => bpf::TCX_INGRESS,
        Hook::Egress => bpf::TCX_EGRESS,
    };
    let link = bpf::tcx_link_create(&program, spec.ifindex, attach_type)
        .map_err(|source| failed("attach", &name, source))?;
    pins::clear(root, &pin, Pinned::TcxLink)?;
    pins::make_folder_of(&pin)?;
    bpf::obj_pin(&link, &pin).map_err(|source| failed("pin", &name, source))
}

fn change_one(
    kernel: &mut Kernel,
    root: &Path,
    change: &Change<BpfLink>,
) -> Result<(), KernelError> {
    let key = &change.key;
    kernel.writes += 2;
    if let Some(old) = change.expects().and_then(|seen| seen.pinned_as) {
        // The device was renamed: what is attached stays, and the pin follows.
        let pin = |ifname: IfName| pins::link(root, ifname.as_str(), &key.program);
        pins::make_folder_of(&pin(key.ifname))?;
        pins::rename(root, &pin(old), &pin(key.ifname), Pinned::TcxLink)?;
        pins::remove(root, &pin(old), Pinned::TcxLink)?;
    }
    match &change.action {
        Action::Delete { from } => {
            if from.twice {
                remove(kernel, root, key, other(from.mode), from.qdisc_ours)?;
            }
            remove(kernel, root, key, from.mode, from.qdisc_ours)
        }
        Action::Update { to, .. } if to.mode == Mode::Tcx => {
            let program = bpf_program::exec::find(root, &to.program)?;
            let pin = pins::link(root, key.ifname.as_str(), &key.program);
            let link = place::find(root, &pin, Pinned::TcxLink)?;
            bpf::link_update(link, program)
                .map_err(|source| failed("update", &key.to_string(), source))
        }
        Action::Update { to, .. } => attach_filter(kernel, root, key, to, true),
        Action::Create { to } => attach(kernel, root, change, to),
        Action::Replace { from, to, .. } => {
            attach(kernel, root, change, to)?;
            // What is attached the other way goes when the new one is there.
            if from.mode != to.mode || from.twice {
                remove(kernel, root, key, other(to.mode), from.qdisc_ours)?;
            }
            Ok(())
        }
    }
}

fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Tcx => Mode::Clsact,
        Mode::Clsact => Mode::Tcx,
    }
}

fn attach(
    kernel: &mut Kernel,
    root: &Path,
    change: &Change<BpfLink>,
    to: &Spec,
) -> Result<(), KernelError> {
    if to.mode == Mode::Tcx {
        return attach_tcx(root, change);
    }
    let there = |seen: &Seen| seen.mode == Mode::Clsact && seen.ifindex != 0;
    attach_filter(kernel, root, &change.key, to, change.expects().is_some_and(there))
}

fn attach_filter(
    kernel: &mut Kernel,
    root: &Path,
    key: &Key,
    spec: &Spec,
    swap: bool,
) -> Result<(), KernelError> {
    let pin = pins::program(root, &spec.program.digest, &spec.program.name);
    // The kernel stops a device for a few milliseconds while it gives it a qdisc or takes it away
    // (`qdisc_graft`): measured at 350 packets a second, one or two are lost each time.
    let request = vec![filter::new_clsact(spec.ifindex)];
    let added = crate::apply::send(kernel, &Netns::HOST, "add a clsact qdisc", request).pop();
    match added {
        Some(Err(error)) if error.errno() != Some(libc::EEXIST) => return Err(refusal(key, error)),
        Some(Err(_)) if key.hook == Hook::Egress => filter::has_egress(kernel, spec.ifindex)?,
        _ => {}
    }
    program::clsact_attach(&pin, key.ifname.as_str(), key.hook == Hook::Egress, swap)
}

fn remove(
    kernel: &mut Kernel,
    root: &Path,
    key: &Key,
    mode: Mode,
    qdisc_ours: bool,
) -> Result<(), KernelError> {
    match mode {
        Mode::Tcx => {
            let pin = pins::link(root, key.ifname.as_str(), &key.program);
            pins::remove(root, &pin, Pinned::TcxLink)
        }
        Mode::Clsact => {
            let requests = filter::removal(&mut Round::new(kernel), key, qdisc_ours)?;
            let outcome = crate::apply::send(kernel, &Netns::HOST, "delete a filter", requests);
            let first_error = outcome.into_iter().find(Result::is_err);
            first_error.unwrap_or(Ok(())).map_err(|error| refusal(key, error))
        }
    }
}

/// An error of a netlink request as one of this kind.
fn refusal(key: &Key, error: ExecError) -> KernelError {
    match error {
        ExecError::Refused { expected, found } => KernelError::Refused { expected, found },
        ExecError::Failed { error, errno } => failed(
            "change",
            &format!("{key}: {error}"),
            errno.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error),
        ),
    }
}
