//! Attachments at drivers in the kernel: listing, making, swapping, removing. The only file of this kind that may
//! import `kernel`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Key, Mode, Seen, Spec, XdpLink};
use crate::apply::{Apply, ExecError};
use crate::kernel::place::{self, Pinned};
use crate::kernel::{Kernel, KernelError, bpf, pins};
use crate::kinds::link::XdpInfo;
use crate::kinds::{Action, Change, Desired, bpf_program};
use crate::net::Netns;
use crate::observe::{Observe, Round};

impl Observe for XdpLink {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let programs = bpf_program::exec::by_id(&round.programs()?);
        let mut seen = BTreeMap::new();
        let devices = round.links(&Netns::HOST)?;
        let on_devices: BTreeMap<u32, XdpInfo> =
            devices.iter().filter_map(|link| Some((link.ifindex, link.xdp?))).collect();
        for (key, info) in links(round.kernel.bpf_root())? {
            let program = programs.get(&info.program_id).cloned();
            // Without a device it is attached nowhere.
            let device = on_devices.get(&info.ifindex);
            let mode = device.map(|xdp| if xdp.generic { Mode::Generic } else { Mode::Native });
            seen.insert(key, Seen { program, mode, foreign: None });
        }
        for link in devices.iter() {
            let (key, Some(xdp)) = (Key { ifindex: link.ifindex }, link.xdp) else { continue };
            let ours = seen.get(&key).is_some_and(|seen| seen.mode.is_some());
            // One of ours without a pin is about to go: the kernel takes a moment for that.
            if ours || programs.contains_key(&xdp.program_id) {
                continue;
            }
            if desired.xdp_links.contains_key(&key) {
                let foreign = Some(link.ifname);
                seen.insert(key, Seen { program: None, mode: None, foreign });
            }
        }
        Ok(seen)
    }
}

/// The links behind our pins.
///
/// # Errors
/// The folder or a pin can't be read.
pub fn links(root: &Path) -> Result<Vec<(Key, bpf::XdpLinkInfo)>, KernelError> {
    let mut links = Vec::new();
    for name in pins::list(&root.join("xdp"))? {
        let Ok(ifindex) = name.parse() else { continue };
        let key = Key { ifindex };
        let pin = pins::xdp_link(root, ifindex);
        let Some(link) = place::open(root, &pin, Pinned::XdpLink)? else { continue };
        let info =
            bpf::xdp_link_info(link).map_err(|source| failed("read", &key.to_string(), source))?;
        links.push((key, info));
    }
    Ok(links)
}

fn failed(operation: &'static str, device: &str, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("XDP link of {device}"), source }
}

impl Apply for XdpLink {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let root = kernel.bpf_root().to_path_buf();
        kernel.writes += 2 * changes.len() as u64;
        changes.iter().map(|change| Ok(change_one(&root, change)?)).collect()
    }
}

fn change_one(root: &Path, change: &Change<XdpLink>) -> Result<(), KernelError> {
    let key = &change.key;
    match &change.action {
        Action::Delete { .. } => remove(root, key),
        Action::Update { to, .. } => {
            let program = bpf_program::exec::find(root, &to.program)?;
            let pin = pins::xdp_link(root, key.ifindex);
            let link = place::find(root, &pin, Pinned::XdpLink)?;
            bpf::link_update(link, program)
                .map_err(|source| failed("update", to.ifname.as_str(), source))
        }
        Action::Create { to } => attach(root, key, to),
        // A device takes one program, and one way to run it. Meanwhile tc's has everything.
        Action::Replace { to, .. } => {
            remove(root, key)?;
            attach(root, key, to)
        }
    }
}

/// Takes the program off its device before the pin goes: without a pin, the kernel does that in its own time.
fn remove(root: &Path, key: &Key) -> Result<(), KernelError> {
    let pin = pins::xdp_link(root, key.ifindex);
    if let Some(link) = place::open(root, &pin, Pinned::XdpLink)? {
        bpf::link_detach(link).map_err(|source| failed("detach", &key.to_string(), source))?;
    }
    pins::remove(root, &pin, Pinned::XdpLink)
}

/// Makes a link and pins it.
fn attach(root: &Path, key: &Key, spec: &Spec) -> Result<(), KernelError> {
    let program = bpf_program::exec::find(root, &spec.program)?;
    let native = bpf::xdp_link_create(&program, key.ifindex, bpf::XDP_NATIVE);
    let link = match native {
        Err(error) if refuses_native(&error) && spec.or_generic => {
            bpf::xdp_link_create(&program, key.ifindex, bpf::XDP_GENERIC)
        }
        Err(source) if refuses_native(&source) => {
            return Err(KernelError::NoNativeXdp { ifname: spec.ifname.to_string(), source });
        }
        other => other,
    };
    let link = link.map_err(|source| failed("attach", spec.ifname.as_str(), source))?;
    let pin = pins::xdp_link(root, key.ifindex);
    pins::make_folder_of(&pin)?;
    bpf::obj_pin(&link, &pin).map_err(|source| failed("pin", spec.ifname.as_str(), source))
}

/// Whether it is the driver that can't: it has no XDP, or none for this MTU, or has too few queues. Not so where
/// another program is attached, the device is gone, or nothing may be attached at all.
fn refuses_native(error: &io::Error) -> bool {
    let other = [libc::EBUSY, libc::EEXIST, libc::ENODEV, libc::EPERM];
    error.raw_os_error().is_none_or(|errno| !other.contains(&errno))
}
