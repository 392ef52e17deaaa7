//! Whether what a record is about is as the record says: only then may the record go. Imports `kernel`.

use std::collections::BTreeMap;

use super::super::{Seen, c_text};
use crate::apply::ExecError;
use crate::kernel::{Kernel, sysctl};
use crate::kinds::bpf_link::exec::filter;
use crate::kinds::record;
use crate::net::{IfName, Netns};
use crate::observe::Round;

/// The names that devices have now, by ifindex.
pub type Names = BTreeMap<u32, IfName>;

/// Reads the names.
///
/// # Errors
/// The links can't be listed.
pub fn names(kernel: &mut Kernel) -> Result<Names, ExecError> {
    Ok(Round::new(kernel).names(&Netns::HOST)?)
}

/// Makes sure that nothing is left to undo of the change that a record is about; where the record was lost, nobody
/// can.
///
/// # Errors
/// The setting has another value, or the qdisc is there still: what keeps it so is worth knowing.
pub fn undone(
    kernel: &mut Kernel,
    names: &Names,
    key: &[u8],
    was: Option<&Seen>,
) -> Result<(), ExecError> {
    let what = c_text(key);
    if was.is_some_and(|was| c_text(&was.value) == record::LOST) {
        return Ok(());
    }
    let path = record::setting(&what, |ifindex| names.get(&ifindex).copied());
    if let (Some(path), Some(was)) = (path, was) {
        return setting(&path, &c_text(&was.value));
    }
    match record::clsact(&what) {
        Some(ifindex) => filter::put_back(kernel, ifindex),
        None => Ok(()),
    }
}

fn setting(path: &str, was: &str) -> Result<(), ExecError> {
    let failed = |text: String| ExecError::Failed { error: text, errno: None };
    match sysctl::read(path) {
        Err(error) => Err(failed(format!("read /proc/sys/{path}: {error}"))),
        Ok(Some(value)) if value != was => {
            Err(failed(format!("it stays until {path} is {was} again, which is {value}")))
        }
        // As it was, or gone with its device.
        Ok(_) => Ok(()),
    }
}
