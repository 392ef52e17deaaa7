//! The table in the kernel: listing and replacing. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;

use super::{Key, Nftables, Table, parse, render};
use crate::apply::{Apply, ExecError};
use crate::kernel::{Kernel, KernelError, nft};
use crate::kinds::{Change, Desired, owner};
use crate::observe::{Observe, Round};

impl Observe for Nftables {
    fn list(
        round: &mut Round<'_>,
        _desired: &Desired,
    ) -> Result<BTreeMap<Key, Table>, KernelError> {
        let table = match round.kernel.nft_cache.table(owner::NFTABLES_TABLE) {
            Ok(None) => None,
            Ok(Some(listing)) => {
                let mut table = parse(&listing.json);
                // Of these the JSON says nothing, or what isn't so.
                let said = [(listing.flags != 0, "flags"), (listing.annotated, "comment")];
                let said = said.into_iter().filter(|(is_said, _)| *is_said);
                table.strange.extend(said.map(|(_, what)| format!("{what} of the table")));
                Some(table)
            }
            // There is a table and `nft` can't say what is in it: it is not as asked, whatever is
            // asked, and the op that follows fails with the reason, without stopping the others.
            Err(
                error @ (KernelError::Nft(_)
                | KernelError::NftMissing
                | KernelError::NftHangs { .. }),
            ) => Some(Table { strange: vec![error.to_string()], ..Table::default() }),
            Err(error) => return Err(error),
        };
        Ok(table.map(|table| (Key, table)).into_iter().collect())
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
