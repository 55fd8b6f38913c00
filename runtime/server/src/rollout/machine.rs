//! What a rollout does next: a pure function of where it is, how long it has been there, and its
//! guards' verdicts. Time is what the caller has measured with a clock that doesn't jump.

use std::time::Duration;

use firebox_registry::{BasisPoints, RolloutMove, RolloutRecord, RolloutState};

use super::guard::Guard;
use super::verdict::{Outcome, Verdict};

/// What a rollout does or waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// It is over.
    Nothing,
    /// It waits, for what is said.
    Wait(String),
    /// It moves, for the reason that is said.
    Move(RolloutMove, String),
}

/// Whether a guard can be judged in the rollout's present step: where the new version has all the
/// traffic, there is nothing to compare with.
pub fn applies(rollout: &RolloutRecord, guard: &Guard) -> bool {
    let share = rollout.present().map(|step| step.share);
    !(guard.compares() && share == Some(BasisPoints::ALL))
}

/// What comes next. `verdicts` are those of all guards that [`apply`](applies).
pub fn next(rollout: &RolloutRecord, spent: Duration, verdicts: &[Verdict]) -> Next {
    if !rollout.state.is_active() {
        return Next::Nothing;
    }
    if let Some(failed) = verdicts.iter().find(|v| v.verdict == Outcome::Fail) {
        let reason = format!("guard {} failed: {}", failed.guard, failed.reason);
        return Next::Move(RolloutMove::RollBack, reason);
    }
    if rollout.state == RolloutState::Paused {
        return Next::Wait("to be resumed".into());
    }
    let hold = Duration::from_millis(rollout.present().map_or(0, |step| step.hold_ms));
    if let Some(left) = hold.checked_sub(spent).filter(|left| !left.is_zero()) {
        let left = Duration::from_secs(left.as_secs_f64().ceil() as u64);
        return Next::Wait(format!(
            "for {} more of its step",
            humantime::format_duration(left)
        ));
    }
    if let Some(open) = verdicts.iter().find(|v| v.verdict != Outcome::Pass) {
        return Next::Wait(format!("for guard {}: {}", open.guard, open.reason));
    }
    let passed = match verdicts.len() {
        0 => "its time is over",
        _ => "its guards pass",
    };
    Next::Move(forward(rollout), passed.into())
}

/// The step after the present one; the last needs no time of its own where it was given none.
pub fn forward(rollout: &RolloutRecord) -> RolloutMove {
    let next = rollout.step + 1;
    match rollout.steps.get(next) {
        Some(step) if next + 1 < rollout.steps.len() || step.hold_ms > 0 => RolloutMove::Step(next),
        _ => RolloutMove::Succeed,
    }
}

#[cfg(test)]
mod tests {
    use firebox_registry::{Policy, PolicyRecord, Revision, Split, VersionNumber};
    use proptest::prelude::*;

    use super::super::plan;
    use super::*;

    fn rollout(steps: &str) -> RolloutRecord {
        let policy = Policy::all_to(VersionNumber::FIRST);
        RolloutRecord {
            function: "net".parse().unwrap(),
            number: 1,
            canary: 2.try_into().unwrap(),
            stable: VersionNumber::FIRST,
            steps: plan::parse(steps).unwrap(),
            guards: vec![],
            min_sample: 1,
            window_ms: 1000,
            author: "somebody".into(),
            started_unix_ms: 0,
            state: RolloutState::Running,
            step: 0,
            spent_ms: 0,
            before: PolicyRecord {
                revision: Revision::FIRST,
                split: Split::of(&policy.weights),
                policy,
                author: String::new(),
                reason: String::new(),
                created_unix_ms: 0,
                restored: None,
                rollout: None,
            },
            end: None,
        }
    }

    fn verdict(verdict: Outcome) -> Verdict {
        let guard = "p95<=1ms".parse::<Guard>().unwrap();
        Verdict {
            verdict,
            ..Verdict::undecided(&guard, "said so".into())
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_step_is_left_when_its_time_is_over_and_its_guards_pass() {
        let rollout = rollout("5%:1m,50%:1m,100%");
        let pass = [verdict(Outcome::Pass)];
        assert!(matches!(next(&rollout, MINUTE / 2, &pass), Next::Wait(_)));
        let moved = next(&rollout, MINUTE, &pass);
        assert!(matches!(moved, Next::Move(RolloutMove::Step(1), _)));
        let open = [verdict(Outcome::Pass), verdict(Outcome::NotEnoughData)];
        let Next::Wait(why) = next(&rollout, MINUTE * 1000, &open) else {
            panic!("it moved on a guess");
        };
        assert!(why.contains("p95<=1ms"), "{why}");
    }

    #[test]
    fn a_failed_guard_takes_back_at_once_also_when_paused() {
        let mut rollout = rollout("5%:1m,100%");
        let fail = [verdict(Outcome::Pass), verdict(Outcome::Fail)];
        for state in [RolloutState::Running, RolloutState::Paused] {
            rollout.state = state;
            let next = next(&rollout, Duration::ZERO, &fail);
            let Next::Move(RolloutMove::RollBack, why) = next else {
                panic!("{next:?}");
            };
            assert!(why.contains("said so"), "{why}");
        }
    }

    #[test]
    fn a_paused_rollout_waits_and_one_that_ended_does_nothing() {
        let mut rollout = rollout("5%:1m,100%");
        rollout.state = RolloutState::Paused;
        assert!(matches!(next(&rollout, MINUTE * 9, &[]), Next::Wait(_)));
        rollout.state = RolloutState::Aborted;
        let fail = [verdict(Outcome::Fail)];
        assert_eq!(next(&rollout, MINUTE * 9, &fail), Next::Nothing);
    }

    #[test]
    fn with_all_the_traffic_there_is_nothing_to_compare_with() {
        let mut rollout = rollout("5%,100%:1m");
        let compared = "p95<=1.2*stable".parse().unwrap();
        let fixed = "p95<=300ms".parse().unwrap();
        assert!(applies(&rollout, &compared) && applies(&rollout, &fixed));
        rollout.step = 1;
        assert!(!applies(&rollout, &compared) && applies(&rollout, &fixed));
    }

    proptest! {
        /// However time passes and verdicts come, steps are taken one by one and each for its time;
        /// a failure ends it; nothing else does.
        #[test]
        fn no_step_is_skipped_or_cut_short(
            holds in prop::collection::vec(0u64..5000, 1..6),
            ticks in prop::collection::vec((0u64..3000, 0u8..20), 1..60),
        ) {
            let shares = (1..holds.len()).map(|n| n as u16 * 100).chain([10_000]);
            let mut rollout = rollout("100%");
            rollout.steps = holds.iter().zip(shares).map(|(hold_ms, share)| {
                let share = BasisPoints::try_from(share).unwrap();
                firebox_registry::RolloutStep { share, hold_ms: *hold_ms }
            }).collect();
            let mut spent = 0;
            for (elapsed, roll) in ticks {
                spent += elapsed;
                let outcome = match roll {
                    0 => Outcome::Fail,
                    1..=5 => Outcome::NotEnoughData,
                    _ => Outcome::Pass,
                };
                let hold = rollout.steps[rollout.step].hold_ms;
                match next(&rollout, Duration::from_millis(spent), &[verdict(outcome)]) {
                    Next::Nothing => prop_assert!(false, "it is not over"),
                    Next::Wait(_) => prop_assert!(outcome != Outcome::Fail
                        && (spent < hold || outcome != Outcome::Pass)),
                    Next::Move(RolloutMove::RollBack, _) => {
                        prop_assert_eq!(outcome, Outcome::Fail);
                        break;
                    }
                    Next::Move(to, _) => {
                        prop_assert!(outcome == Outcome::Pass && spent >= hold);
                        spent = 0;
                        match to {
                            RolloutMove::Step(step) => {
                                prop_assert_eq!(step, rollout.step + 1);
                                rollout.step = step;
                            }
                            RolloutMove::Succeed => {
                                let after = &rollout.steps[rollout.step + 1..];
                                prop_assert!(after.iter().all(|step| step.hold_ms == 0));
                                prop_assert!(after.len() <= 1);
                                break;
                            }
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                }
            }
        }
    }
}
