use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(1000);

fn name(number: usize) -> FunctionName {
    format!("f{number}").parse().unwrap()
}

fn claim(function: usize, tier: Tier, now: Instant) -> Claim {
    Claim {
        function: name(function),
        tier,
        concurrency: None,
        deadline: now + LONG,
    }
}

/// Lets one in and has it ask for an instance.
fn come(floor: &mut Floor<usize>, claim: &Claim, who: usize, now: Instant) -> Option<u64> {
    floor.enter(claim, now).unwrap();
    floor.ask(claim, who, now).unwrap()
}

#[test]
fn realtime_has_reserved_instances_and_goes_first() {
    let now = Instant::now();
    let mut floor = Floor::new(Room::new(4, 100, 50));
    for function in 0..2 {
        assert_eq!(
            come(&mut floor, &claim(function, Tier::OnDemand, now), 0, now),
            None
        );
    }
    let waits = claim(2, Tier::OnDemand, now);
    assert!(
        come(&mut floor, &waits, 10, now).is_some(),
        "two are reserved"
    );
    for function in 3..5 {
        assert_eq!(
            come(&mut floor, &claim(function, Tier::Realtime, now), 0, now),
            None
        );
    }
    assert!(come(&mut floor, &claim(5, Tier::Realtime, now), 20, now).is_some());
    assert!(floor.next(now).is_none());
    floor.done(&name(0), Tier::OnDemand, Duration::ZERO);
    assert_eq!(floor.next(now).unwrap().who, 20, "the most urgent first");
    floor.done(&name(3), Tier::Realtime, Duration::ZERO);
    assert_eq!(floor.next(now).unwrap().who, 10);
}

#[test]
fn batch_gets_what_is_left() {
    let now = Instant::now();
    let mut floor = Floor::new(Room::new(4, 100, 0));
    for function in 0..2 {
        assert_eq!(
            come(&mut floor, &claim(function, Tier::Batch, now), 0, now),
            None
        );
    }
    assert!(
        come(&mut floor, &claim(2, Tier::Batch, now), 1, now).is_some(),
        "half at most"
    );
    for function in 3..5 {
        assert_eq!(
            come(&mut floor, &claim(function, Tier::OnDemand, now), 0, now),
            None
        );
    }
    assert!(come(&mut floor, &claim(5, Tier::OnDemand, now), 2, now).is_some());
    floor.done(&name(0), Tier::Batch, Duration::ZERO);
    assert_eq!(floor.next(now).unwrap().who, 2);
    assert!(floor.next(now).is_none());
    floor.done(&name(5), Tier::OnDemand, Duration::ZERO);
    assert_eq!(floor.next(now).unwrap().who, 1);
}

#[test]
fn when_places_run_out_the_lowest_tier_is_refused_first() {
    let now = Instant::now();
    let mut floor = Floor::<usize>::new(Room::new(10, 90, 20));
    let mut refused = [0, 0, 0];
    // One of each tier in turns, of functions that are all different.
    for round in 0..60 {
        for (at, tier) in TIERS.into_iter().enumerate() {
            let claim = claim(3 * round + at, tier, now);
            match floor.enter(&claim, now) {
                Ok(()) => assert_eq!(refused[..=at].iter().sum::<usize>(), 0, "{tier:?}"),
                Err(refusal) => {
                    assert_eq!(refusal.reason, Reason::Full);
                    refused[at] += 1;
                }
            }
        }
    }
    let [realtime, on_demand, batch] = refused;
    assert!(realtime < on_demand && on_demand < batch, "{refused:?}");
    assert_eq!(floor.inside, 100);
}

#[test]
fn no_function_takes_all_and_functions_take_turns() {
    let now = Instant::now();
    let mut floor = Floor::new(Room::new(64, 512, 0));
    let greedy = claim(0, Tier::OnDemand, now);
    let mut entered = 0;
    while floor.enter(&greedy, now).is_ok() {
        entered += 1;
        let _ = floor.ask(&greedy, 0, now);
    }
    assert_eq!(entered, 504, "7/8 of 576 places");
    assert_eq!(
        *floor.running().get(Tier::OnDemand),
        56,
        "7/8 of 64 instances"
    );
    // Others find room at once, though hundreds wait.
    for who in 1..=7 {
        come(&mut floor, &claim(1, Tier::OnDemand, now), who, now);
        assert_eq!(floor.next(now).unwrap().who, who);
    }
    come(&mut floor, &claim(2, Tier::OnDemand, now), 8, now);
    assert_eq!(
        floor.next(now).unwrap().who,
        8,
        "the last instance is kept for a newcomer"
    );
    // What comes free goes to whoever has least.
    come(&mut floor, &claim(1, Tier::OnDemand, now), 9, now);
    come(&mut floor, &claim(2, Tier::OnDemand, now), 10, now);
    floor.done(&name(0), Tier::OnDemand, Duration::ZERO);
    floor.done(&name(0), Tier::OnDemand, Duration::ZERO);
    assert_eq!(floor.next(now).unwrap().who, 10);
}

#[test]
fn a_function_keeps_its_own_limit() {
    let now = Instant::now();
    let mut floor = Floor::new(Room::new(8, 100, 0));
    let limited = Claim {
        concurrency: Some(1),
        ..claim(0, Tier::OnDemand, now)
    };
    assert_eq!(come(&mut floor, &limited, 0, now), None);
    assert!(come(&mut floor, &limited, 1, now).is_some());
    assert!(floor.next(now).is_none());
    // Those behind it in other queues are not held up.
    floor.enter(&claim(1, Tier::OnDemand, now), now).unwrap();
    floor.ask(&claim(1, Tier::OnDemand, now), 2, now).unwrap();
    assert_eq!(floor.next(now).map_or(2, |turn| turn.who), 2);
    floor.done(&name(0), Tier::OnDemand, Duration::ZERO);
    assert_eq!(floor.next(now).unwrap().who, 1);
}

#[test]
fn a_deadline_that_the_queue_would_not_keep_is_refused_at_once() {
    let now = Instant::now();
    let mut floor = Floor::new(Room::new(2, 100, 0));
    let held = Duration::from_millis(100);
    for function in 0..2 {
        assert_eq!(
            come(&mut floor, &claim(function, Tier::OnDemand, now), 0, now),
            None
        );
        floor.done(&name(function), Tier::OnDemand, held);
        floor.start(&name(function), Tier::OnDemand);
    }
    for who in 0..10 {
        come(&mut floor, &claim(2, Tier::OnDemand, now), who, now);
    }
    let hasty = |ms| Claim {
        deadline: now + Duration::from_millis(ms),
        ..claim(2, Tier::OnDemand, now)
    };
    let refusal = floor.enter(&hasty(200), now).unwrap_err();
    assert_eq!(refusal.reason, Reason::Deadline);
    let (least, most) = (Duration::from_millis(400), Duration::from_millis(700));
    assert!((least..most).contains(&refusal.retry_after), "{refusal:?}");
    assert!(floor.enter(&hasty(2000), now).is_ok());

    // One that has waited until it is too late is told so instead of being run.
    floor.done(&name(0), Tier::OnDemand, held);
    let turn = floor.next(now + LONG).unwrap();
    assert_eq!(turn.outcome.unwrap_err().reason, Reason::Deadline);
}

#[test]
fn that_others_are_slow_is_not_held_against_a_function() {
    let now = Instant::now();
    let mut floor = Floor::new(Room::new(8, 100, 0));
    let slow = Claim {
        concurrency: Some(1),
        ..claim(0, Tier::OnDemand, now)
    };
    assert_eq!(come(&mut floor, &slow, 0, now), None);
    floor.done(&name(0), Tier::OnDemand, Duration::from_secs(5));
    floor.start(&name(0), Tier::OnDemand);
    assert!(come(&mut floor, &slow, 1, now).is_some());
    let quick = Claim {
        deadline: now + Duration::from_secs(1),
        ..claim(1, Tier::OnDemand, now)
    };
    assert!(
        come(&mut floor, &quick, 2, now).is_some(),
        "one waits before it"
    );
    let turn = floor.next(now).unwrap();
    assert_eq!((turn.who, turn.outcome.is_ok()), (2, true));
}

proptest! {
    /// Whatever comes and goes: never more run than there are instances, reserved ones are kept,
    /// nobody waits while they could run, and in the end all is free again.
    #[test]
    fn what_is_taken_is_given_back(
        instances in 1usize..6, queue in 0usize..12, share in 0u8..=90,
        steps in prop::collection::vec((0usize..4, 0usize..3, 0u8..4), 1..200),
    ) {
        let now = Instant::now();
        let room = Room::new(instances, queue, share);
        let mut floor = Floor::new(room);
        let (mut running, mut waiting) = (vec![], vec![]);
        for (number, (function, tier, what)) in steps.into_iter().enumerate() {
            let claim = claim(function, TIERS[tier], now);
            match what {
                0 | 1 => if floor.enter(&claim, now).is_ok() {
                    match floor.ask(&claim, number, now) {
                        Ok(None) => running.push((claim.function, claim.tier)),
                        Ok(Some(ticket)) => waiting.push((number, claim.function, claim.tier, ticket)),
                        Err(_) => floor.leave(&claim.function),
                    }
                },
                2 => if let Some((function, tier)) = running.pop() {
                    floor.done(&function, tier, Duration::from_millis(1));
                    floor.leave(&function);
                },
                _ => if let Some((_, function, tier, ticket)) = waiting.pop() {
                    floor.withdraw(&function, tier, ticket);
                    floor.leave(&function);
                },
            }
            while let Some(turn) = floor.next(now) {
                waiting.retain(|(number, ..)| *number != turn.who);
                prop_assert!(turn.outcome.is_ok());
                running.push((turn.function, turn.tier));
            }
            prop_assert_eq!(floor.running().all(), running.len());
            prop_assert_eq!(floor.waiting().all(), waiting.len());
            prop_assert!(running.len() <= room.instances && floor.inside <= room.places);
            let lower = running.iter().filter(|(_, tier)| *tier != Tier::Realtime).count();
            prop_assert!(lower <= room.instances - room.reserved_instances);
            prop_assert!(waiting.is_empty() || !running.is_empty(), "somebody waits for nothing");
        }
        for (_, function, tier, ticket) in waiting {
            floor.withdraw(&function, tier, ticket);
            floor.leave(&function);
        }
        for (function, tier) in running {
            floor.done(&function, tier, Duration::ZERO);
            floor.leave(&function);
        }
        prop_assert_eq!((floor.inside, floor.functions.len()), (0, 0));
    }
}
