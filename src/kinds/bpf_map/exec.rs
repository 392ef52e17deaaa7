//! Maps in the kernel: listing, making, removing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;

use super::{BpfMap, Layout, MapName};
use crate::apply::{Apply, ExecError};
use crate::kernel::bpf_map::{Map, MapShape};
use crate::kernel::place::{self, Pinned};
use crate::kernel::{Kernel, KernelError, pins};
use crate::kinds::bpf_old_map::{self, is_carried};
use crate::kinds::{Change, Desired};
use crate::observe::{Observe, Round};

impl From<Layout> for MapShape {
    fn from(layout: Layout) -> Self {
        let Layout { map_type, key_size, value_size, max_entries, flags } = layout;
        Self { map_type, key_size, value_size, max_entries, flags }
    }
}

impl From<MapShape> for Layout {
    fn from(shape: MapShape) -> Self {
        let MapShape { map_type, key_size, value_size, max_entries, flags } = shape;
        Self { map_type, key_size, value_size, max_entries, flags }
    }
}

/// A pinned map; `None` where none is, whatever else may be there. [`Round::map`] opens it once in a round.
///
/// # Errors
/// It is pinned there and can't be read.
pub fn open(kernel: &Kernel, name: MapName) -> Result<Option<Map>, KernelError> {
    let root = kernel.bpf_root();
    let pinned = place::open(root, &pins::map(root, name.def().name), Pinned::Map)?;
    let failed =
        |source| KernelError::Bpf { operation: "open", object: format!("map {name}"), source };
    pinned.map(|fd| Map::of(fd).map_err(failed)).transpose()
}

impl Observe for BpfMap {
    fn list(
        round: &mut Round<'_>,
        _desired: &Desired,
    ) -> Result<BTreeMap<MapName, Layout>, KernelError> {
        let mut seen = BTreeMap::new();
        for name in MapName::all() {
            seen.extend(round.map(name)?.map(|map| (name, map.shape().into())));
        }
        Ok(seen)
    }
}

impl Apply for BpfMap {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        changes.iter().map(|change| change_one(kernel, change).map_err(ExecError::from)).collect()
    }
}

fn change_one(kernel: &mut Kernel, change: &Change<BpfMap>) -> Result<(), KernelError> {
    let pin = pins::map(kernel.bpf_root(), change.key.def().name);
    let there = open(kernel, change.key)?;
    let found = there.as_ref().map(|map| Layout::from(map.shape()));
    kernel.writes += 1;
    let Some(layout) = change.spec() else {
        return pins::remove(kernel.bpf_root(), &pin, Pinned::Map);
    };
    if found == Some(*layout) {
        return Ok(());
    }
    if found.as_ref() != change.expects() {
        return Err(KernelError::Refused {
            expected: if change.expects().is_some() { "the map as planned" } else { "no map" }
                .into(),
            found: "another layout".into(),
        });
    }
    pins::make_folder_of(&pin)?;
    let failed = |operation, source| KernelError::Bpf {
        operation,
        object: format!("map {}", change.key),
        source,
    };
    let map = Map::create(change.key.def().name, (*layout).into())
        .map_err(|source| failed("create", source))?;
    if is_carried(change.key) {
        if let Some(old) = &there {
            kernel.writes += bpf_old_map::exec::fill(kernel, change.key, old, &map)?;
        }
        for old in bpf_old_map::exec::old_maps(kernel, change.key)? {
            kernel.writes += bpf_old_map::exec::carry_over(kernel, change.key, &old, &map)?;
        }
    }
    let Some(old) = there else {
        return map.pin(&pin).map_err(|source| failed("pin", source));
    };
    // The new map takes the old one's pin in one step; programs are loaded anew after this. What programs
    // fill is kept until they are swapped.
    let fresh = pin.with_file_name(format!("{}-new", change.key));
    pins::clear(kernel.bpf_root(), &fresh, Pinned::Map)?;
    map.pin(&fresh).map_err(|source| failed("pin", source))?;
    if is_carried(change.key) {
        bpf_old_map::exec::keep(kernel, change.key, &old)?;
    }
    pins::rename(kernel.bpf_root(), &fresh, &pin, Pinned::Map)
}
