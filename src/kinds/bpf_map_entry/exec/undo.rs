//! Whether what a record is about is as the record says: only then may the record go. Imports `kernel`.

use super::super::{Seen, c_text};
use crate::apply::ExecError;
use crate::kernel::{Kernel, sysctl};
use crate::kinds::bpf_link::exec::filter;
use crate::kinds::owner;

/// Makes sure that nothing is left to undo of the change that a record is about.
///
/// # Errors
/// The setting has another value, or the qdisc is there still: what keeps it so is worth knowing.
pub fn undone(kernel: &mut Kernel, key: &[u8], was: Option<&Seen>) -> Result<(), ExecError> {
    let what = c_text(key);
    if let (Some(path), Some(was)) = (what.strip_prefix(owner::RECORD_OF_SYSCTL), was) {
        return setting(path, &c_text(&was.value));
    }
    if let Some(device) = what.strip_prefix(owner::RECORD_OF_CLSACT) {
        return filter::put_back(kernel, device);
    }
    Ok(())
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
