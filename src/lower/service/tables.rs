//! Maglev tables: one for each set of backends, whatever services have it. Pure.
//!
//! What a table has in it takes a quarter of a millisecond to find out, and is the same whenever it is asked:
//! the digests of the last tables are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::Role;
use crate::kinds::maglev_table::fill::{bytes, digest, fill};
use crate::kinds::maglev_table::{Key, Member, Spec};
use crate::kinds::{Desired, Origin, Wanted};

/// Digests by size and backends.
type Digests = BTreeMap<(u32, Arc<[Member]>), u64>;

static KEPT: Mutex<Digests> = Mutex::new(Digests::new());

/// The tables of one round.
pub(super) struct Tables {
    size: u32,
    /// With its place in the order in which they came, and who asked first.
    sets: BTreeMap<Arc<[Member]>, (usize, Origin)>,
}

impl Tables {
    pub fn new(size: u32) -> Self {
        Self { size, sets: BTreeMap::new() }
    }

    /// Asks for the table of some backends; returns its place.
    pub fn set(&mut self, members: Vec<Member>, role: &Role<'_>) -> usize {
        let next = self.sets.len();
        match self.sets.get(members.as_slice()) {
            Some((place, _)) => *place,
            None => {
                let origin = Origin::Service(role.service.name.clone());
                self.sets.insert(members.into(), (next, origin));
                next
            }
        }
    }

    /// Adds the tables. Returns their numbers, by place.
    pub fn lower(self, desired: &mut Desired) -> Vec<u32> {
        let mut numbers = vec![0; self.sets.len()];
        let mut taken = BTreeSet::from([0]);
        // What panicked meanwhile has left whole digests.
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = Digests::new();
        for (members, (place, origin)) in self.sets {
            let mut number = number(&members);
            while !taken.insert(number) {
                number = number.wrapping_add(1);
            }
            numbers[place] = number;
            let key = (self.size, members.clone());
            let known = kept.get(&key).copied();
            let digest = known.unwrap_or_else(|| digest(&bytes(&fill(&members, self.size))));
            current.insert(key, digest);
            let spec = Spec { size: self.size, members, digest };
            desired.maglev_tables.insert(Key(number), Wanted { spec, origin });
        }
        *kept = current;
        numbers
    }
}

/// The number of the table for some backends, unless another has it. The size is not part of it: with another,
/// services go on with the table of the old map until programs have the new one.
fn number(members: &[Member]) -> u32 {
    let mut hash = Sha256::new();
    for member in members {
        hash.update(member.id.to_le_bytes());
        hash.update(member.weight.to_le_bytes());
        hash.update(format!("{}/{}", member.address, member.protocol));
    }
    let hash = hash.finalize();
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}
