//! Settings in the kernel: reading and writing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Key, Seen, Sysctl};
use crate::apply::{Apply, ExecError};
use crate::kernel::netns::NetnsError;
use crate::kernel::{Kernel, KernelError, sysctl};
use crate::kinds::{Change, Desired};
use crate::net::Netns;
use crate::observe::{Observe, Round};

impl Observe for Sysctl {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut by_netns: BTreeMap<&Netns, Vec<Arc<str>>> = BTreeMap::new();
        for key in desired.sysctls.keys() {
            by_netns.entry(&key.netns).or_default().push(key.path.clone());
        }
        let mut seen = BTreeMap::new();
        for (netns, paths) in by_netns {
            let values = read(round.kernel, netns, paths)?;
            seen.extend(values.into_iter().map(|(path, value)| {
                (Key { netns: netns.clone(), path }, Seen { value: value.into() })
            }));
        }
        Ok(seen)
    }
}

/// The values of the settings that exist; none in a namespace that is gone.
///
/// # Errors
/// A setting exists and can't be read.
pub fn read(
    kernel: &mut Kernel,
    netns: &Netns,
    paths: Vec<Arc<str>>,
) -> Result<Vec<(Arc<str>, String)>, KernelError> {
    let job = move || {
        let mut values = Vec::with_capacity(paths.len());
        for path in paths {
            match sysctl::read(&path) {
                Ok(value) => values.extend(value.map(|value| (path, value))),
                Err(source) => return Err((path, source)),
            }
        }
        Ok(values)
    };
    match kernel.within(netns, job) {
        Ok(values) => values.map_err(|(path, source)| failed("read", &path, source)),
        Err(KernelError::Netns {
            source: NetnsError::Missing | NetnsError::NotANamespace, ..
        }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn failed(operation: &'static str, path: &str, source: io::Error) -> KernelError {
    KernelError::File { operation, path: PathBuf::from("/proc/sys").join(path), source }
}

impl Apply for Sysctl {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        changes.iter().map(|change| write(kernel, change)).collect()
    }
}

fn write(kernel: &mut Kernel, change: &Change<Sysctl>) -> Result<(), ExecError> {
    let Some(spec) = change.spec() else { return Ok(()) };
    let expected = change.expects().map(|seen| seen.value.clone());
    let (path, value) = (change.key.path.clone(), spec.value.clone());
    kernel.writes += 1;
    let outcome = kernel.within(&change.key.netns, move || {
        let found = sysctl::read(&path).map_err(|e| failed("read", &path, e))?;
        if found.as_deref() == Some(&*value) {
            return Ok(());
        }
        if let (Some(expected), Some(found)) = (expected, found)
            && *expected != found
        {
            return Err(KernelError::Refused { expected: expected.to_string(), found });
        }
        sysctl::write(&path, &value).map_err(|e| failed("write", &path, e))
    });
    Ok(outcome.map_err(ExecError::from)??)
}
