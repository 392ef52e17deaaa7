//! Objects that don't stay as they were repaired, because something else keeps changing them. They are
//! repaired ever more rarely, so that a fight costs neither side much. Imports `kinds`; the caller has the
//! clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kinds::ObjectKey;

/// After so many repairs in a row it is a fight. An operator who tries something out ends sooner.
const REPAIRS_MIN: u32 = 30;
/// Repairs are in a row when no more than this lies between them, and twice the pause.
const ROW: Duration = Duration::from_secs(1);
/// The first pause, doubled with each repair up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is said of such an object. It is the same as long as the fight lasts.
pub const EXPLANATION: &str = "something else changes this each time that it is repaired: from now on it is \
     repaired more rarely, every 30 s in the end; find what else manages it and tell that to leave it alone";

/// What was repaired of late.
#[derive(Debug, Default)]
pub struct Fights {
    fights: BTreeMap<ObjectKey, Fight>,
}

#[derive(Debug)]
struct Fight {
    repairs: u32,
    last: Instant,
}

impl Fight {
    fn pause(&self) -> Duration {
        let Some(doublings) = self.repairs.checked_sub(REPAIRS_MIN) else { return Duration::ZERO };
        (PAUSE_MIN * (1 << doublings.min(16))).min(PAUSE_MAX)
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.last) > ROW + self.pause() * 2
    }
}

impl Fights {
    /// Objects were repaired now.
    pub fn repaired(&mut self, objects: impl Iterator<Item = ObjectKey>, now: Instant) {
        self.fights.retain(|_, fight| !fight.is_over(now));
        for object in objects {
            let fight = self.fights.entry(object).or_insert(Fight { repairs: 0, last: now });
            (fight.repairs, fight.last) = (fight.repairs + 1, now);
        }
    }

    /// How long to leave a plan alone: until the first of its objects is due.
    pub fn pause(&self, objects: impl Iterator<Item = ObjectKey>, now: Instant) -> Duration {
        let left = |object| {
            let Some(fight) = self.fights.get(&object) else { return Duration::ZERO };
            fight.pause().saturating_sub(now.duration_since(fight.last))
        };
        objects.map(left).min().unwrap_or_default()
    }

    /// The objects that are fought about.
    pub fn contested(&self, now: Instant) -> impl Iterator<Item = &ObjectKey> {
        let fights = self.fights.iter();
        let fights =
            fights.filter(move |(_, fight)| !fight.pause().is_zero() && !fight.is_over(now));
        fights.map(|(object, _)| object)
    }

    /// Whether one is.
    pub fn is_contested(&self, object: &ObjectKey, now: Instant) -> bool {
        let fight = self.fights.get(object);
        fight.is_some_and(|fight| !fight.pause().is_zero() && !fight.is_over(now))
    }

    /// Another configuration is another start.
    pub fn clear(&mut self) {
        self.fights.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> ObjectKey {
        ObjectKey::Link(name.parse().unwrap())
    }

    /// How often an object that is damaged at once is repaired in some time.
    fn repairs_within(seconds: u64) -> usize {
        let (mut fights, begin) = (Fights::default(), Instant::now());
        let (mut now, mut repairs) = (begin, 0);
        while now < begin + Duration::from_secs(seconds) {
            let pause = fights.pause([object("a")].into_iter(), now);
            if pause.is_zero() {
                fights.repaired([object("a")].into_iter(), now);
                repairs += 1;
            }
            now += pause.max(Duration::from_millis(10));
        }
        repairs
    }

    #[test]
    fn a_fight_becomes_rare() {
        assert_eq!(repairs_within(60), 38);
        // At last every half minute.
        assert_eq!(repairs_within(660) - repairs_within(60), 20);
    }

    #[test]
    fn what_is_not_fought_about_does_not_wait() {
        let (mut fights, begin) = (Fights::default(), Instant::now());
        let both = || ["a", "b"].map(object).into_iter();
        for _ in 0..REPAIRS_MIN {
            assert!(!fights.is_contested(&object("a"), begin));
            assert!(fights.pause([object("a")].into_iter(), begin).is_zero());
            fights.repaired([object("a")].into_iter(), begin);
        }
        assert_eq!(fights.contested(begin).collect::<Vec<_>>(), [&object("a")]);
        assert_eq!(fights.pause([object("a")].into_iter(), begin), PAUSE_MIN);
        assert!(fights.pause(both(), begin).is_zero());
        let later = begin + ROW + PAUSE_MIN * 2 + Duration::from_millis(1);
        assert!(!fights.is_contested(&object("a"), later));
        assert_eq!(fights.contested(later).count(), 0);
        fights.repaired([object("a")].into_iter(), later);
        assert_eq!(fights.fights[&object("a")].repairs, 1, "another row");
    }

    #[test]
    fn repairs_with_time_between_them_are_no_fight() {
        let (mut fights, mut now) = (Fights::default(), Instant::now());
        for _ in 0..100 {
            now += ROW * 2;
            assert!(fights.pause([object("a")].into_iter(), now).is_zero());
            fights.repaired([object("a")].into_iter(), now);
        }
    }
}
