//! What the registry promises of rollouts.

use super::*;
use crate::{NewRollout, RolloutMove, RolloutRecord, RolloutState, RolloutStep};

fn commit_all(registry: &Registry, contents: &[&str]) {
    for content in contents {
        commit(registry, content);
    }
}

fn rollout_to(canary: u32, shares: &[u16]) -> NewRollout {
    let step = |share: &u16| RolloutStep {
        share: (*share).try_into().unwrap(),
        hold_ms: 1000,
    };
    NewRollout {
        canary: number(canary),
        steps: shares.iter().map(step).collect(),
        guards: vec!["error_rate<=1%".to_owned()],
        min_sample: 10,
        window_ms: 1000,
    }
}

fn start(registry: &Registry, canary: u32) -> Result<RolloutRecord> {
    let new = rollout_to(canary, &[500, 5000, 10_000]);
    registry.start_rollout(&name(), new, Change::new("ann", "better"))
}

fn moved(registry: &Registry, to: RolloutMove) -> Result<RolloutRecord> {
    let (change, verdicts) = (Change::new("bob", "why"), serde_json::json!([{"p": 0.5}]));
    registry.move_rollout(&name(), None, to, change, verdicts)
}

#[test]
fn a_rollout_moves_with_its_policy_and_survives_a_restart() {
    let (dir, registry) = opened();
    commit_all(&registry, &["one", "two"]);
    let labelled = Policy {
        labels: BTreeMap::from([("stable".parse().unwrap(), number(1))]),
        ..Policy::all_to(number(1))
    };
    set(&registry, labelled.clone()).unwrap();
    let begun = start(&registry, 2).unwrap();
    assert_eq!((begun.number, begun.stable), (1, number(1)));
    let policy = registry.policy(&name()).unwrap();
    assert_eq!(
        policy.policy.weights,
        weights(&[(1, 9500), (2, 500)]).weights
    );
    assert_eq!(policy.policy.labels, labelled.labels);
    assert_eq!((policy.author.as_str(), policy.rollout), ("ann", Some(1)));

    moved(&registry, RolloutMove::Spend(321)).unwrap();
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    let rollout = registry.rollout(&name()).unwrap().unwrap();
    assert_eq!((rollout.step, rollout.spent_ms), (0, 321));
    moved(&registry, RolloutMove::Step(1)).unwrap();
    let policy = registry.policy(&name()).unwrap().policy;
    assert_eq!(policy.weights, weights(&[(1, 5000), (2, 5000)]).weights);
    let ended = moved(&registry, RolloutMove::Succeed).unwrap();
    assert_eq!(ended.state, RolloutState::Succeeded);
    let policy = registry.policy(&name()).unwrap().policy;
    assert_eq!(policy.weights, Policy::all_to(number(2)).weights);
    let again = moved(&registry, RolloutMove::Abort);
    assert!(matches!(again, Err(RegistryError::NoRollout { .. })));
}

#[test]
fn a_rollout_that_moves_back_restores_the_policy_and_its_callers_and_keeps_the_numbers() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two", "three"]);
    // A split with a past: the same weights could be laid out otherwise.
    set(&registry, weights(&[(1, 4000), (3, 6000)])).unwrap();
    set(&registry, weights(&[(1, 10_000)])).unwrap();
    let before = registry.policy(&name()).unwrap();
    for (end, state) in [
        (RolloutMove::RollBack, RolloutState::RolledBack),
        (RolloutMove::Abort, RolloutState::Aborted),
    ] {
        start(&registry, 2).unwrap();
        moved(&registry, RolloutMove::Step(1)).unwrap();
        let ended = moved(&registry, end).unwrap();
        assert_eq!(ended.state, state);
        let after = registry.policy(&name()).unwrap();
        assert_eq!(
            (&after.policy, &after.split),
            (&before.policy, &before.split)
        );
        let end = ended.end.unwrap();
        assert_eq!((end.author.as_str(), end.reason.as_str()), ("bob", "why"));
        assert_eq!(end.verdicts, serde_json::json!([{"p": 0.5}]));
    }
    assert_eq!(registry.rollouts(&name()).unwrap().len(), 2);
}

#[test]
fn a_rollout_leads_from_one_version_to_another_and_there_is_one_at_a_time() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two", "three"]);
    let unknown = start(&registry, 9).unwrap_err();
    assert!(matches!(unknown, RegistryError::VersionNotFound { .. }));
    let running = start(&registry, 1).unwrap_err();
    assert!(
        running
            .to_string()
            .contains("takes all the traffic already"),
        "{running}"
    );
    set(&registry, weights(&[(1, 5000), (3, 5000)])).unwrap();
    let many = start(&registry, 2).unwrap_err();
    assert!(many.to_string().contains("1 and 3"), "{many}");
    // A canary that was begun by hand can be rolled out.
    set(&registry, weights(&[(1, 9900), (2, 100)])).unwrap();
    start(&registry, 2).unwrap();
    let second = start(&registry, 3).unwrap_err();
    assert!(matches!(
        second,
        RegistryError::RolloutUnderWay { number: 1, .. }
    ));
}

#[test]
fn a_policy_set_by_hand_ends_the_rollout() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two"]);
    start(&registry, 2).unwrap();
    set(&registry, weights(&[(1, 7000), (2, 3000)])).unwrap();
    let rollout = registry.rollout(&name()).unwrap().unwrap();
    assert_eq!(rollout.state, RolloutState::Aborted);
    let end = rollout.end.unwrap();
    assert_eq!(end.author, "ann");
    assert!(
        end.reason.contains("moved by hand: a test"),
        "{}",
        end.reason
    );
    let policy = registry.policy(&name()).unwrap().policy;
    assert_eq!(policy, weights(&[(1, 7000), (2, 3000)]));
}

#[test]
fn a_label_set_by_hand_leaves_the_rollout_alone_and_stays() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two"]);
    start(&registry, 2).unwrap();
    let labels = BTreeMap::from([("gold".parse::<Label>().unwrap(), number(1))]);
    let labelled = Policy {
        labels: labels.clone(),
        ..weights(&[(1, 9500), (2, 500)])
    };
    set(&registry, labelled).unwrap();
    let rollout = registry.rollout(&name()).unwrap().unwrap();
    assert_eq!(rollout.state, RolloutState::Running);
    moved(&registry, RolloutMove::Step(1)).unwrap();
    let policy = registry.policy(&name()).unwrap().policy;
    assert_eq!(
        (policy.share(number(2)).get(), &policy.labels),
        (5000, &labels)
    );
    moved(&registry, RolloutMove::RollBack).unwrap();
    let after = registry.policy(&name()).unwrap();
    assert_eq!(after.policy.weights, Policy::all_to(number(1)).weights);
    assert_eq!((after.policy.labels, after.restored), (labels, None));
}

#[test]
fn a_decision_that_comes_late_moves_nothing() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two"]);
    let begun = start(&registry, 2).unwrap();
    moved(&registry, RolloutMove::Step(1)).unwrap();
    let (seen, change) = (Some((begun.number, 0)), Change::default());
    let late = registry.move_rollout(
        &name(),
        seen,
        RolloutMove::RollBack,
        change,
        serde_json::Value::Null,
    );
    assert!(matches!(late, Err(RegistryError::NoRollout { .. })));
    assert_eq!(registry.rollout(&name()).unwrap().unwrap().step, 1);
}

#[test]
fn what_a_rollout_needs_is_not_deleted() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two", "three", "four"]);
    let labelled = Policy {
        labels: BTreeMap::from([("old".parse().unwrap(), number(3))]),
        ..Policy::all_to(number(1))
    };
    set(&registry, labelled).unwrap();
    start(&registry, 2).unwrap();
    // All traffic is with the new version, but the rollout could still go back.
    moved(&registry, RolloutMove::Step(2)).unwrap();
    let refused = registry.delete_version(&name(), number(1)).unwrap_err();
    assert!(refused.to_string().contains("by rollout 1"), "{refused}");
    let retired = registry.set_retention(&name(), NonZeroU32::new(1)).unwrap();
    assert_eq!(retired, []);
    moved(&registry, RolloutMove::Succeed).unwrap();
    registry.delete_version(&name(), number(1)).unwrap();
    registry.delete_function(&name()).unwrap();
    commit(&registry, "five");
    assert_eq!(registry.rollout(&name()).unwrap(), None);
}

#[test]
fn a_rollback_by_hand_goes_behind_the_steps_of_a_rollout() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two"]);
    let back = |registry: &Registry| {
        let change = Change::new("ann", "");
        registry.restore_policy(&name(), None, change, None)
    };
    start(&registry, 2).unwrap();
    moved(&registry, RolloutMove::Step(1)).unwrap();
    let restored = back(&registry).unwrap();
    assert_eq!(restored.policy, Policy::all_to(number(1)));
    let rollout = registry.rollout(&name()).unwrap().unwrap();
    assert_eq!(rollout.state, RolloutState::Aborted);
    start(&registry, 2).unwrap();
    moved(&registry, RolloutMove::Step(1)).unwrap();
    moved(&registry, RolloutMove::Succeed).unwrap();
    assert_eq!(back(&registry).unwrap().policy, Policy::all_to(number(1)));
}

#[test]
fn only_the_latest_rollouts_are_kept() {
    let (_dir, registry) = opened();
    commit_all(&registry, &["one", "two"]);
    for _ in 0..ROLLOUTS_KEPT + 3 {
        start(&registry, 2).unwrap();
        moved(&registry, RolloutMove::Abort).unwrap();
    }
    let kept = registry.rollouts(&name()).unwrap();
    assert_eq!(kept.len() as u64, ROLLOUTS_KEPT);
    assert_eq!(kept[0].number, ROLLOUTS_KEPT + 3);
}
