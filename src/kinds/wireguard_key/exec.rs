//! The file of the private key: whether it is there, and making it. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Key, Seen, WireguardKey};
use crate::apply::{Apply, ExecError};
use crate::kernel::{Kernel, KernelError, private_key};
use crate::kinds::{Action, Change, Desired};
use crate::observe::{Observe, Round};

impl Observe for WireguardKey {
    fn list(_round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let there = desired.wireguard_keys.keys().filter(|path| Path::new(&***path).exists());
        Ok(there.map(|path| (path.clone(), Seen)).collect())
    }
}

impl Apply for WireguardKey {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let one = |change: &&Change<Self>| match change.action {
            Action::Delete { .. } => Ok(()),
            _ => {
                kernel.writes += 1;
                private_key::make(Path::new(&*change.key)).map_err(ExecError::from)
            }
        };
        changes.iter().map(one).collect()
    }
}
