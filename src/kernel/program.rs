//! Loading and attaching programs through `aya`. What it leaves out (pins of maps and links, TCX links
//! by ifindex, batches) is in [`super::bpf`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aya::EbpfLoader;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{Program, ProgramError, SchedClassifier, TcAttachType};

use super::place::Pinned;
use super::{KernelError, pins};
use crate::bpf_objects::Object;

/// Preference of our clsact filter; Cilium's default too.
pub const FILTER_PRIORITY: u16 = 1;
/// Handle of our clsact filter.
pub const FILTER_HANDLE: u32 = 1;
/// Lines of the verifier's log that are shown: the last ones say what is wrong.
const VERIFIER_LINES: usize = 12;

/// Loads programs of an object, with maps taken from their pins and numbers as given, and pins them. A pin that is there is
/// replaced in one step.
///
/// # Errors
/// The object can't be read, or the kernel's verifier refuses a program.
pub fn load(
    root: &Path,
    object: &Object,
    digest: &str,
    programs: &[&str],
    globals: &BTreeMap<Arc<str>, u64>,
) -> Result<(), KernelError> {
    let refused =
        |program: &str, reason: String| KernelError::Verifier { program: program.into(), reason };
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(root.join("maps"));
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    let mut ebpf = loader
        .load(object.bytes)
        .map_err(|error| refused(object.name, crate::kernel::chain(&error)))?;
    for name in programs {
        let Some(program) = ebpf.program_mut(name) else {
            return Err(refused(name, format!("object {} has no such program", object.name)));
        };
        let loaded = match program {
            Program::SchedClassifier(classifier) => classifier.load(),
            Program::CgroupSockAddr(of_addresses) => of_addresses.load(),
            Program::CgroupSock(of_sockets) => of_sockets.load(),
            Program::Xdp(of_drivers) => of_drivers.load(),
            other => {
                let kind = other.prog_type();
                return Err(refused(name, format!("{kind:?} is no type of ours")));
            }
        };
        loaded.map_err(|error| refused(name, verifier_text(&error)))?;
        let pin = pins::program(root, digest, name);
        let fresh = pin.with_file_name(format!("{name}-new"));
        pins::make_folder_of(&pin)?;
        pins::clear(root, &fresh, Pinned::Program)?;
        let fd = program.fd().map_err(|error| refused(name, error.to_string()))?;
        super::bpf::obj_pin(fd, &fresh).map_err(|source| KernelError::Bpf {
            operation: "pin",
            object: fresh.display().to_string(),
            source,
        })?;
        pins::rename(root, &fresh, &pin, Pinned::Program)?;
    }
    Ok(())
}

fn verifier_text(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return crate::kernel::chain(error);
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().collect();
    let shown = lines.len().saturating_sub(VERIFIER_LINES);
    format!(
        "{io_error}\n{} lines of the verifier's log left out\n{}",
        shown,
        lines[shown..].join("\n")
    )
}

fn hook(egress: bool) -> TcAttachType {
    if egress { TcAttachType::Egress } else { TcAttachType::Ingress }
}

fn failed(operation: &'static str, ifname: &str, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("clsact filter on {ifname}"), source }
}

/// The kernel's answer inside aya's error.
fn io_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::TcError(TcError::NetlinkError(error)) => io::Error::other(error.to_string()),
        other => io::Error::other(crate::kernel::chain(&other)),
    }
}

/// Attaches a pinned program as a clsact filter, or swaps the program of our filter in place.
///
/// # Errors
/// With `swap` false, a filter at our place is an error: it isn't ours.
pub fn clsact_attach(
    pin: &Path,
    ifname: &str,
    egress: bool,
    swap: bool,
) -> Result<(), KernelError> {
    let mut program =
        SchedClassifier::from_pin(pin).map_err(|e| failed("open", ifname, io_error(e)))?;
    let handle = TcHandle::new(0, FILTER_HANDLE as u16);
    let link = if swap {
        let link =
            SchedClassifierLink::attached(ifname, hook(egress), FILTER_PRIORITY, handle, None)
                .map_err(|source| failed("find", ifname, source))?;
        program.attach_to_link(link)
    } else {
        let options = NlOptions { priority: FILTER_PRIORITY, handle, ..NlOptions::default() };
        program.attach_with_options(ifname, hook(egress), TcAttachOptions::Netlink(options))
    };
    let link = link.map_err(|error| failed("attach", ifname, io_error(error)))?;
    let link = program.take_link(link).map_err(|error| failed("keep", ifname, io_error(error)))?;
    // Dropped, the link would take the filter with it.
    #[expect(clippy::mem_forget, reason = "dropping it would take the filter off again")]
    std::mem::forget(link);
    Ok(())
}
