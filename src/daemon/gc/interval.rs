//! How long to wait between two collections. Pure.

use std::time::Duration;

/// Before the first one, so that a daemon's start is not burdened with it.
pub const FIRST: Duration = Duration::from_secs(5 * 60);
pub const MIN: Duration = Duration::from_secs(10);
pub const MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// Parts of a map that, deleted in one go, are few and many.
const FEW: f64 = 0.05;
const MANY: f64 = 0.25;
/// No wait is shortened by more than this part of it.
const SHORTENED_MAX: f64 = 0.9;
const LENGTHENED: f64 = 1.5;

/// The next wait. `deleted`: the part of its map's size that the last collection deleted, of the map where
/// it was largest.
pub fn next(last: Duration, deleted: f64) -> Duration {
    let factor = if deleted > MANY {
        1.0 - deleted.min(SHORTENED_MAX)
    } else if deleted > 0.0 && deleted < FEW {
        LENGTHENED
    } else {
        1.0
    };
    Duration::from_secs((last.as_secs_f64() * factor).round() as u64).clamp(MIN, MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(last: u64, deleted: f64) -> u64 {
        next(Duration::from_secs(last), deleted).as_secs()
    }

    #[test]
    fn longer_after_little_shorter_after_much() {
        assert_eq!(after(300, 0.01), 450);
        assert_eq!(after(300, 0.05), 300);
        assert_eq!(after(300, 0.25), 300);
        assert_eq!(after(300, 0.3), 210);
        assert_eq!(after(300, 0.5), 150);
        assert_eq!(after(300, 1.0), 30);
    }

    #[test]
    fn nothing_deleted_says_nothing() {
        assert_eq!(after(300, 0.0), 300);
    }

    #[test]
    fn bounds() {
        assert_eq!(after(15, 0.9), 10);
        assert_eq!(after(12 * 3600 - 1, 0.001), 12 * 3600);
    }

    proptest! {
        #[test]
        fn any_row_of_collections_stays_within_bounds(parts in prop::collection::vec(0.0..=1.0f64, 0..200)) {
            let mut wait = FIRST;
            for part in parts {
                let longer = next(wait, part);
                prop_assert!((MIN..=MAX).contains(&longer));
                prop_assert!(longer.as_secs_f64() <= wait.as_secs_f64() * 1.5 + 1.0);
                prop_assert!(part > MANY || longer >= wait);
                prop_assert!(part <= MANY || longer <= wait.max(MIN));
                wait = longer;
            }
        }

        #[test]
        fn more_deleted_never_means_a_longer_wait_but_for_nothing(a in 0.001..=1.0f64, b in 0.001..=1.0f64, last in 10..43_200u64) {
            prop_assert!(after(last, a.max(b)) <= after(last, a.min(b)));
        }
    }
}
