//! Dead or alive: what follows from the answers of one backend. Pure.
//!
//! A backend changes sides after several answers of one kind in a row. One that dies again soon after it came back
//! stays dead for a while even if it answers, twice as long each time: each change is written to the maps, and moves
//! clients.

use std::time::{Duration, Instant};

use crate::intent::HealthCheck;

/// A backend that dies this soon after its last death does so again.
const MEMORY: Duration = Duration::from_secs(600);
/// The longest that one which answers is kept dead.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// What is thought of a backend. Before it was asked: that it is as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    dead: bool,
    /// Answers in a row that speak against it.
    against: u32,
    /// Deaths of late, and when the last was.
    deaths: u32,
    died: Option<Instant>,
    held_until: Option<Instant>,
}

impl Verdict {
    /// One that a daemon before this one has found dead.
    pub fn inherited() -> Self {
        Self { dead: true, ..Self::default() }
    }

    /// Whether it gets nothing new.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// How long it is kept dead at least.
    pub fn held_for(&self, now: Instant) -> Option<Duration> {
        let left = self.held_until?.saturating_duration_since(now);
        (self.dead && !left.is_zero()).then_some(left)
    }

    /// Takes an answer into account. Says whether the verdict is another one now.
    pub fn take(&mut self, good: bool, check: &HealthCheck, now: Instant) -> bool {
        if good != self.dead {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let enough = if self.dead { check.rise } else { check.fall };
        if self.against < enough || self.held_for(now).is_some() {
            return false;
        }
        self.against = 0;
        self.dead = !self.dead;
        if self.dead {
            let again = self.died.is_some_and(|died| now.duration_since(died) < MEMORY);
            self.deaths = if again { self.deaths.saturating_add(1) } else { 1 };
            self.died = Some(now);
            self.held_until = Some(now + hold(self.deaths, check.interval));
        }
        true
    }
}

/// How long the last of so many deaths lasts at least.
fn hold(deaths: u32, interval: Duration) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        _ => interval.saturating_mul(1 << deaths.min(20)).min(HOLD_MAX.max(interval)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Question;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(rise: u32, fall: u32) -> HealthCheck {
        let (question, timeout) = (Question::Tcp, SECOND);
        HealthCheck { question, port: None, interval: SECOND, timeout, rise, fall }
    }

    /// What a backend is after each answer, one a second: `#` dead, `-` alive.
    fn story(answers: &str, check: &HealthCheck) -> String {
        let (mut verdict, begin) = (Verdict::default(), Instant::now());
        let after = |(second, answer): (u32, char)| {
            let before = verdict.is_dead();
            let changed = verdict.take(answer == '+', check, begin + SECOND * second);
            assert_eq!(changed, before != verdict.is_dead());
            if verdict.is_dead() { '#' } else { '-' }
        };
        (0..).zip(answers.chars()).map(after).collect()
    }

    #[test]
    fn several_answers_in_a_row_decide() {
        for (rise, fall, answers, wanted) in [
            (1, 1, "+.+", "-#-"),
            (2, 3, "..+..+...", "--------#"),
            (2, 3, "...+.++++", "--####---"),
            (3, 1, ".++.+++", "######-"),
        ] {
            assert_eq!(story(answers, &check(rise, fall)), wanted, "{answers}");
        }
    }

    /// Dies every few seconds: dead for 4, 8, 16, 32 seconds at least from the second death on.
    #[test]
    fn who_dies_again_stays_dead_longer() {
        let flapping = ".+".repeat(40);
        let story = story(&flapping, &check(1, 1));
        let deaths: Vec<usize> =
            story.split('-').map(str::len).filter(|length| *length > 0).collect();
        assert_eq!(deaths[..4], [1, 5, 9, 17], "{story}");
        let changes = story.as_bytes().windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes <= 10, "{story}");
    }

    #[test]
    fn holding_has_an_end_and_is_forgotten() {
        assert_eq!(hold(1, SECOND), Duration::ZERO);
        assert_eq!(hold(3, SECOND), SECOND * 8);
        assert_eq!(hold(u32::MAX, SECOND), HOLD_MAX);
        assert_eq!(hold(2, Duration::from_secs(3600)), Duration::from_secs(3600));
        let (mut verdict, check, begin) = (Verdict::default(), check(1, 1), Instant::now());
        assert!(verdict.take(false, &check, begin) && verdict.take(true, &check, begin));
        assert!(verdict.take(false, &check, begin + SECOND));
        assert!(!verdict.take(true, &check, begin + SECOND * 2), "held");
        assert!(verdict.take(true, &check, begin + SECOND * 9), "no longer");
        assert!(verdict.take(false, &check, begin + MEMORY * 2));
        assert!(verdict.take(true, &check, begin + MEMORY * 2), "long ago");
    }

    #[test]
    fn what_was_dead_before_has_to_answer_as_often() {
        let (mut verdict, check, now) = (Verdict::inherited(), check(2, 3), Instant::now());
        assert!(!verdict.take(true, &check, now) && verdict.is_dead());
        assert!(verdict.take(true, &check, now) && !verdict.is_dead());
    }
}
