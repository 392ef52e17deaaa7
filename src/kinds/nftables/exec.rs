//! The table in the kernel: listing and replacing. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;

use super::{Key, Nftables, Table, parse, render};
use crate::apply::{Apply, ExecError};
use crate::kernel::{Kernel, KernelError, nft};
use crate::kinds::{Change, Desired, owner};
use crate::observe::{Observe, Round};

impl Observe for Nftables {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Table>, KernelError> {
        let listing = match round.kernel.nft_cache.table(owner::NFTABLES_TABLE) {
            // Without nft there can be no table that ciliate made; that it can't make one is an
            // error of the op, if there is one.
            Err(KernelError::NftMissing) if desired.nftables.is_empty() => None,
            other => other?,
        };
        Ok(listing.map(|listing| (Key, parse(&listing))).into_iter().collect())
    }
}

impl Apply for Nftables {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let replace = |change: &&Change<Self>| {
            kernel.writes += 1;
            nft::apply(&render(change.spec())).map_err(ExecError::from)
        };
        changes.iter().map(replace).collect()
    }
}
