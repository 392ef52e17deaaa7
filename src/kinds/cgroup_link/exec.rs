//! Attachments to control groups in the kernel: listing, making, swapping, removing. The only file of this
//! kind that may import `kernel`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::{CgroupLink, Key, Seen, Spec};
use crate::apply::{Apply, ExecError};
use crate::kernel::place::{self, Pinned};
use crate::kernel::{Kernel, KernelError, bpf, pins};
use crate::kinds::{Action, Change, Desired, bpf_program};
use crate::observe::{Observe, Round};

impl Observe for CgroupLink {
    fn list(round: &mut Round<'_>, _desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let programs = bpf_program::exec::by_id(&round.programs()?);
        let seen = links(round.kernel.bpf_root())?.into_iter().map(|(key, info)| {
            let program = programs.get(&info.program_id).cloned();
            (key, Seen { program, cgroup_id: info.cgroup_id })
        });
        Ok(seen.collect())
    }
}

/// The links behind our pins.
///
/// # Errors
/// The folder or a pin can't be read.
pub fn links(root: &Path) -> Result<Vec<(Key, bpf::CgroupLinkInfo)>, KernelError> {
    let mut links = Vec::new();
    for name in pins::list(&root.join("cgroup"))? {
        let pin = pins::cgroup_link(root, &name);
        let Some(link) = place::open(root, &pin, Pinned::CgroupLink)? else { continue };
        let info = bpf::cgroup_link_info(link).map_err(|source| failed("read", &name, source))?;
        links.push((Key { program: name.into() }, info));
    }
    Ok(links)
}

fn failed(operation: &'static str, program: &str, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("cgroup link {program}"), source }
}

impl Apply for CgroupLink {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let root = kernel.bpf_root().to_path_buf();
        kernel.writes += 2 * changes.len() as u64;
        changes.iter().map(|change| Ok(change_one(&root, change)?)).collect()
    }
}

fn change_one(root: &Path, change: &Change<CgroupLink>) -> Result<(), KernelError> {
    let name = &*change.key.program;
    let pin = pins::cgroup_link(root, name);
    match &change.action {
        Action::Delete { .. } => pins::remove(root, &pin, Pinned::CgroupLink),
        Action::Update { to, .. } => {
            let program = bpf_program::exec::find(root, &to.program)?;
            let link = place::find(root, &pin, Pinned::CgroupLink)?;
            bpf::link_update(link, program).map_err(|source| failed("update", name, source))
        }
        // What is attached to another group goes when the new one is there.
        Action::Create { to } | Action::Replace { to, .. } => attach(root, to, name),
    }
}

/// Makes a link and pins it, in the place of the old pin if there is one.
fn attach(root: &Path, spec: &Spec, name: &str) -> Result<(), KernelError> {
    let program = bpf_program::exec::find(root, &spec.program)?;
    let group = File::open(&*spec.cgroup).map_err(|source| KernelError::File {
        operation: "open",
        path: Path::new(&*spec.cgroup).into(),
        source,
    })?;
    let link = bpf::cgroup_link_create(program, group, spec.attach as u32)
        .map_err(|source| failed("attach", name, source))?;
    let pin = pins::cgroup_link(root, name);
    let fresh = pin.with_file_name(format!("{name}-new"));
    pins::make_folder_of(&pin)?;
    pins::clear(root, &fresh, Pinned::CgroupLink)?;
    bpf::obj_pin(&link, &fresh).map_err(|source| failed("pin", name, source))?;
    pins::rename(root, &fresh, &pin, Pinned::CgroupLink)
}
