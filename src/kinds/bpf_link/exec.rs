//! Attachments in the kernel: listing, making, swapping, removing. The only file of this kind that may
//! import `kernel`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::thread;

use super::{BpfLink, Hook, Key, Mode, Seen, Spec, filter};
use crate::apply::{Apply, ExecError};
use crate::kernel::{Kernel, KernelError, bpf, pins, program};
use crate::kinds::{Action, Change, Desired, bpf_program};
use crate::net::Netns;
use crate::observe::{Observe, Round};

/// TCX links that are made at the same time. The kernel waits for a grace period for each, 8–12 ms.
const ATTACH_THREADS_MAX: usize = 64;

impl Observe for BpfLink {
    fn list(
        round: &mut Round<'_>,
        desired: &Desired,
    ) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let programs: BTreeMap<u32, bpf_program::Key> = bpf_program::exec::pinned(round.kernel)?
            .into_iter()
            .map(|(key, info)| (info.id, key))
            .collect();
        let mut seen = filter::list(round, &programs)?;
        for (key, found) in tcx_links(round.kernel.bpf_root(), &programs)? {
            let wanted = desired.bpf_links.get(&key).map(|wanted| wanted.spec.mode);
            match seen.get_mut(&key) {
                // Attached both ways, after a change of mode that was cut short.
                Some(filter) if wanted == Some(Mode::Clsact) => filter.twice = true,
                Some(filter) => *filter = Seen { twice: true, ..found },
                None => drop(seen.insert(key, found)),
            }
        }
        Ok(seen)
    }
}

/// The links behind our pins.
fn tcx_links(
    root: &Path,
    programs: &BTreeMap<u32, bpf_program::Key>,
) -> Result<Vec<(Key, Seen)>, KernelError> {
    let mut links = Vec::new();
    for folder in pins::list(&root.join("links"))? {
        let Ok(ifname) = pins::ifname_of(&folder).parse() else { continue };
        for name in pins::list(&root.join("links").join(&folder))? {
            let failed = |source| failed("read", &format!("{ifname} {name}"), source);
            let pin = root.join("links").join(&folder).join(&name);
            let info = bpf::obj_get(&pin).and_then(bpf::tcx_link_info).map_err(failed)?;
            let hook = if info.attach_type == bpf::TCX_EGRESS { Hook::Egress } else { Hook::Ingress };
            let seen = Seen {
                program: programs.get(&info.program_id).cloned(),
                mode: Mode::Tcx,
                ifindex: info.ifindex,
                twice: false,
                qdisc_ours: false,
            };
            links.push((Key { ifname, hook, program: name.into() }, seen));
        }
    }
    Ok(links)
}

fn failed(operation: &'static str, object: &str, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("link {object}"), source }
}

impl Apply for BpfLink {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let root = kernel.bpf_root().to_path_buf();
        kernel.writes += 2 * changes.len() as u64;
        let mut results: Vec<Option<Result<(), ExecError>>> = vec![None; changes.len()];
        // What takes no grace period, and what goes through netlink, one after the other.
        for (slot, change) in results.iter_mut().zip(changes) {
            let waits = change.spec().is_some_and(|spec| spec.mode == Mode::Tcx)
                && !matches!(change.action, Action::Update { .. });
            if !waits {
                *slot = Some(change_one(kernel, &root, change).map_err(ExecError::from));
            }
        }
        let waiting: Vec<usize> = (0..changes.len()).filter(|i| results[*i].is_none()).collect();
        for chunk in waiting.chunks(ATTACH_THREADS_MAX) {
            let outcomes = thread::scope(|scope| {
                let attach = |index: &usize| {
                    let (root, change) = (&root, changes[*index]);
                    scope.spawn(move || attach_tcx(root, change))
                };
                let threads: Vec<_> = chunk.iter().map(attach).collect();
                threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
            });
            for (index, outcome) in chunk.iter().zip(outcomes) {
                let outcome = outcome.unwrap_or_else(|_| {
                    Err(failed("attach", &changes[*index].key.to_string(), io::ErrorKind::Other.into()))
                });
                results[*index] = Some(outcome.map_err(ExecError::from));
            }
        }
        // A replaced attachment of the other mode goes when the new one is there.
        for (result, change) in results.iter_mut().zip(changes) {
            if let (Some(Ok(())), Action::Replace { from, to, .. }) = (&result, &change.action)
                && (from.mode != to.mode || from.twice)
            {
                let other = if to.mode == Mode::Tcx { Mode::Clsact } else { Mode::Tcx };
                *result = Some(remove(kernel, &root, &change.key, other, from.qdisc_ours).map_err(ExecError::from));
            }
        }
        results.into_iter().flatten().collect()
    }
}

/// Makes a TCX link and pins it. A stale pin (its device is gone) is replaced.
fn attach_tcx(root: &Path, change: &Change<BpfLink>) -> Result<(), KernelError> {
    let Some(spec) = change.spec() else { return Ok(()) };
    let name = change.key.to_string();
    let pin = pins::link(root, change.key.ifname.as_str(), &change.key.program);
    let found = bpf::obj_get(&pin).and_then(bpf::tcx_link_info).ok();
    let expected = change.expects().filter(|seen| seen.mode == Mode::Tcx).map(|seen| seen.ifindex);
    if found.map(|info| info.ifindex) != expected {
        return Err(KernelError::Refused {
            expected: expected.map_or("no link".into(), |index| format!("a link on ifindex {index}")),
            found: found.map_or("none".into(), |info| format!("one on ifindex {}", info.ifindex)),
        });
    }
    let program = open_program(root, &spec.program, &name)?;
    let attach_type = match change.key.hook {
        Hook::Ingress => bpf::TCX_INGRESS,
        Hook::Egress => bpf::TCX_EGRESS,
    };
    let link = bpf::tcx_link_create(&program, spec.ifindex, attach_type)
        .map_err(|source| failed("attach", &name, source))?;
    if found.is_some() {
        pins::remove(&pin, &pin)?;
    }
    pins::make_folder_of(&pin)?;
    bpf::obj_pin(&link, &pin).map_err(|source| failed("pin", &name, source))
}

fn open_program(
    root: &Path,
    program: &bpf_program::Key,
    name: &str,
) -> Result<std::os::fd::OwnedFd, KernelError> {
    bpf::obj_get(&pins::program(root, &program.digest, &program.name))
        .map_err(|source| failed("find the program of", name, source))
}

/// Every change that doesn't make a TCX link.
fn change_one(
    kernel: &mut Kernel,
    root: &Path,
    change: &Change<BpfLink>,
) -> Result<(), KernelError> {
    let key = &change.key;
    match &change.action {
        Action::Delete { from } => {
            if from.twice {
                let other = if from.mode == Mode::Tcx { Mode::Clsact } else { Mode::Tcx };
                remove(kernel, root, key, other, from.qdisc_ours)?;
            }
            remove(kernel, root, key, from.mode, from.qdisc_ours)
        }
        Action::Update { to, .. } if to.mode == Mode::Tcx => {
            let name = key.to_string();
            let program = open_program(root, &to.program, &name)?;
            let pin = pins::link(root, key.ifname.as_str(), &key.program);
            bpf::obj_get(&pin)
                .and_then(|link| bpf::link_update(link, program))
                .map_err(|source| failed("update", &name, source))
        }
        Action::Update { to, .. } => attach_filter(kernel, root, key, to, true),
        Action::Create { to } | Action::Replace { to, .. } => {
            let swap = change.expects().is_some_and(|seen| seen.mode == Mode::Clsact && seen.ifindex != 0);
            attach_filter(kernel, root, key, to, swap)
        }
    }
}

fn attach_filter(
    kernel: &mut Kernel,
    root: &Path,
    key: &Key,
    spec: &Spec,
    swap: bool,
) -> Result<(), KernelError> {
    let pin = pins::program(root, &spec.program.digest, &spec.program.name);
    kernel.writes += 1;
    program::add_clsact(key.ifname.as_str())?;
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
        Mode::Tcx => pins::remove(root, &pins::link(root, key.ifname.as_str(), &key.program)),
        Mode::Clsact => {
            let requests = filter::removal(&mut Round::new(kernel), key, qdisc_ours)?;
            let outcome = crate::apply::send(kernel, &Netns::HOST, "delete a filter", requests);
            let first_error = outcome.into_iter().find(Result::is_err);
            first_error.unwrap_or(Ok(())).map_err(|error| match error {
                ExecError::Refused { expected, found } => KernelError::Refused { expected, found },
                ExecError::Failed { error, errno } => failed(
                    "detach",
                    &format!("{key}: {error}"),
                    errno.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error),
                ),
            })
        }
    }
}
