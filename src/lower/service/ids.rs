//! Which number is whose: the one that the kernel has, or the lowest that nobody has. Pure.

use std::collections::BTreeSet;

/// Numbers for what is wanted. `wanted` is in order and without repetition, `held` and `used` are in order. A
/// number that is used by what is no longer wanted is not given away before that is gone; the lowest is 1. `None`
/// where none is left.
pub(super) fn assign<K: Ord, N: Copy + Ord + From<u8> + Next>(
    wanted: &[K],
    held: &[(K, N)],
    used: &[N],
    last: N,
) -> Vec<Option<N>> {
    let mut taken: BTreeSet<N> = used.iter().copied().collect();
    let mut given = BTreeSet::new();
    let mut held = held.iter().peekable();
    let keep = |key: &K| {
        while held.next_if(|(other, _)| other < key).is_some() {}
        let (_, number) = held.next_if(|(other, _)| other == key)?;
        // Where two have one number, the first keeps it. Nothing is ever numbered 0.
        (*number > N::from(0) && given.insert(*number)).then_some(*number)
    };
    let mut numbers: Vec<Option<N>> = wanted.iter().map(keep).collect();
    let mut next = Some(N::from(1));
    for number in numbers.iter_mut().filter(|number| number.is_none()) {
        while let Some(candidate) = next {
            next = if candidate < last { Some(candidate.next()) } else { None };
            if taken.insert(candidate) {
                *number = Some(candidate);
                break;
            }
        }
    }
    numbers
}

/// Numbers that can be counted up.
pub(super) trait Next {
    /// The one after; not asked of the last.
    fn next(self) -> Self;
}

impl Next for u16 {
    fn next(self) -> Self {
        self + 1
    }
}

impl Next for u32 {
    fn next(self) -> Self {
        self + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_kept_and_the_rest_gets_the_lowest_that_is_free() {
        let held = [("a", 7u16), ("c", 2), ("gone", 1)];
        assert_eq!(
            assign(&["a", "b", "c", "d"], &held, &[1, 2, 7], u16::MAX),
            [Some(7), Some(3), Some(2), Some(4)]
        );
        assert_eq!(assign(&["x"], &[], &[], u16::MAX), [Some(1)]);
    }

    #[test]
    fn a_number_is_given_once_and_never_zero() {
        let held = [("a", 0u16), ("b", 5), ("b", 6), ("c", 5)];
        let given = assign(&["a", "b", "c"], &held, &[0, 5, 5, 6], u16::MAX);
        assert_eq!(given, [Some(1), Some(5), Some(2)]);
    }

    #[test]
    fn numbers_end() {
        assert_eq!(assign(&["a", "b", "c"], &[], &[2], 3u16), [Some(1), Some(3), None]);
    }
}
