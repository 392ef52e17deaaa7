//! Programs in the kernel: listing, loading, removing. The only file of this kind that may import
//! `kernel`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::{BpfProgram, Globals, Key, Seen};
use crate::apply::{Apply, ExecError};
use crate::bpf_objects::OBJECTS;
use crate::kernel::place::{self, Pinned};
use crate::kernel::{Kernel, KernelError, bpf, pins, program};
use crate::kinds::bpf_map::MapName;
use crate::kinds::{Change, Desired};
use crate::observe::{Observe, Round};

impl Observe for BpfProgram {
    fn list(round: &mut Round<'_>, _desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut by_id = BTreeMap::new();
        for map in MapName::all() {
            by_id.extend(round.map(map)?.map(|open| (open.id(), map)));
        }
        let mut seen = BTreeMap::new();
        for (key, info) in round.programs()?.iter() {
            let maps: BTreeSet<_> =
                info.map_ids.iter().filter_map(|id| by_id.get(id).copied()).collect();
            seen.insert(key.clone(), Seen { maps });
        }
        Ok(seen)
    }
}

/// A pinned program, and what the kernel says of it.
pub type Loaded = (Key, bpf::ProgramInfo);

/// Our pinned programs; [`Round::programs`] reads them once in a round.
///
/// # Errors
/// The folder or a pin can't be read.
pub fn pinned(kernel: &Kernel) -> Result<Vec<Loaded>, KernelError> {
    let root = kernel.bpf_root();
    let mut programs = Vec::new();
    for digest in pins::list(&root.join("programs"))? {
        for name in pins::list(&root.join("programs").join(&digest))? {
            let failed = |source: io::Error| KernelError::Bpf {
                operation: "read",
                object: format!("program {digest}/{name}"),
                source,
            };
            let pin = pins::program(root, &digest, &name);
            let Some(program) = place::open(root, &pin, Pinned::Program)? else { continue };
            let info = bpf::program_info(program).map_err(failed)?;
            let key = Key { name: name.as_str().into(), digest: digest.as_str().into() };
            programs.push((key, info));
        }
    }
    Ok(programs)
}

/// Pinned programs by their ids.
pub fn by_id(programs: &[Loaded]) -> BTreeMap<u32, Key> {
    programs.iter().map(|(key, info)| (info.id, key.clone())).collect()
}

/// A pinned program of ours, to attach it.
///
/// # Errors
/// It isn't there, something else is, or it can't be opened.
pub fn find(root: &Path, key: &Key) -> Result<OwnedFd, KernelError> {
    place::find(root, &pins::program(root, &key.digest, &key.name), Pinned::Program)
}

/// The name of a program that uses one of `maps` but isn't pinned: that of a program of ours which was
/// replaced while it is still attached.
///
/// # Errors
/// The program can't be read.
pub fn unpinned(id: u32, maps: &BTreeSet<u32>) -> Result<Option<Arc<str>>, KernelError> {
    let failed = |source| KernelError::Bpf {
        operation: "read",
        object: format!("program with id {id}"),
        source,
    };
    let Some(program) = bpf::program_by_id(id).map_err(failed)? else { return Ok(None) };
    let info = bpf::program_info(program).map_err(failed)?;
    if !info.map_ids.iter().any(|map| maps.contains(map)) {
        return Ok(None);
    }
    // The kernel cuts names off.
    let mut names = OBJECTS.iter().flat_map(|object| object.programs);
    let name = names.find(|name| **name == info.name || cut_off(name) == info.name);
    Ok(name.map(|name| (*name).into()))
}

/// What the kernel keeps of a program's name.
fn cut_off(name: &str) -> &str {
    &name[..name.len().min(bpf::NAME_LEN - 1)]
}

impl Apply for BpfProgram {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
        // One load for all programs of an object: they share its read-only data.
        let mut loads: BTreeMap<(Arc<str>, Arc<str>), Vec<usize>> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            match change.spec() {
                Some(spec) => {
                    let object = (spec.object.clone(), change.key.digest.clone());
                    loads.entry(object).or_default().push(index);
                }
                None => {
                    kernel.writes += 1;
                    let root = kernel.bpf_root();
                    let pin = pins::program(root, &change.key.digest, &change.key.name);
                    results[index] =
                        pins::remove(root, &pin, Pinned::Program).map_err(ExecError::from);
                }
            }
        }
        for ((object, digest), indexes) in loads {
            let names: Vec<&str> = indexes.iter().map(|i| &*changes[*i].key.name).collect();
            let empty = Globals::new();
            // Equal for equal digests.
            let globals = changes[indexes[0]].spec().map_or(&empty, |spec| &spec.globals);
            let found = OBJECTS.iter().find(|o| o.name == &*object);
            kernel.writes += 2 * names.len() as u64;
            let outcome = match found {
                Some(object) => program::load(kernel.bpf_root(), object, &digest, &names, globals)
                    .map_err(ExecError::from),
                None => Err(ExecError::refused(format!("object {object}"), "another build")),
            };
            indexes.into_iter().for_each(|index| results[index].clone_from(&outcome));
        }
        results
    }
}
