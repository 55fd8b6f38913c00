//! Callers of one answer: who computes it, who waits, and what is kept of it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use firebox_engine::Tensor;
use tokio::sync::Notify;

use super::*;

const LOOK: Directives = Directives {
    no_store: false,
    no_cache: false,
    max_age: None,
};

fn cache() -> ResponseCache {
    ResponseCache::new(1 << 20, Metrics::new())
}

fn version(number: u32) -> VersionCache {
    VersionCache {
        function: "adder".parse().unwrap(),
        number: number.try_into().unwrap(),
        owner: Digest::of(&number.to_le_bytes()),
        ttl: Duration::from_secs(60),
        max_bytes: 64 << 10,
        counters: OnceLock::new(),
    }
}

fn answer(value: f32) -> Answer {
    let y = Tensor::from_f32(vec![1], &[value]).unwrap();
    Answer {
        outputs: vec![("y".into(), y)],
        parameters: vec![],
    }
}

fn value(answer: &Answer) -> f32 {
    answer.outputs[0].1.to_f32().unwrap()[0]
}

/// The answer of `compute` or of the cache.
async fn ask(
    cache: &ResponseCache,
    version: &VersionCache,
    asked: &Directives,
    compute: impl Future<Output = Result<Answer, Failure>>,
) -> Result<(f32, &'static str), Failure> {
    let key = Digest::of(b"question");
    let (answer, served) = cache.answer((key, version), asked, compute).await?;
    Ok((value(&answer), served.name()))
}

fn failed() -> Failure {
    Failure::GuestInternal("fails on purpose".into())
}

#[tokio::test]
async fn an_answer_is_kept_and_refreshed_and_passed_over_as_the_caller_asks() {
    let (cache, version) = (cache(), version(1));
    let get = async |asked: Directives, new: f32| {
        let compute = async { Ok(answer(new)) };
        ask(&cache, &version, &asked, compute).await.unwrap()
    };
    let no_store = Directives {
        no_store: true,
        ..LOOK
    };
    let no_cache = Directives {
        no_cache: true,
        ..LOOK
    };
    let young = Directives {
        max_age: Some(Duration::ZERO),
        ..LOOK
    };
    assert_eq!(get(no_store, 1.0).await, (1.0, "bypass"));
    assert_eq!(get(LOOK, 2.0).await, (2.0, "miss"));
    assert_eq!(get(LOOK, 3.0).await, (2.0, "hit"));
    assert_eq!(get(no_store, 4.0).await, (4.0, "bypass"));
    assert_eq!(get(LOOK, 5.0).await, (2.0, "hit"));
    assert_eq!(get(no_cache, 6.0).await, (6.0, "bypass"));
    assert_eq!(get(LOOK, 7.0).await, (6.0, "hit"));
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(get(young, 8.0).await, (8.0, "miss"));
    assert_eq!(get(LOOK, 9.0).await, (8.0, "hit"));
}

#[tokio::test]
async fn many_who_ask_the_same_at_once_are_answered_by_one_run() {
    let (cache, version) = (cache(), version(1));
    let (runs, go) = (AtomicUsize::new(0), Notify::new());
    let all = (0..64).map(|_| {
        let compute = async {
            runs.fetch_add(1, SeqCst);
            go.notified().await;
            Ok(answer(1.0))
        };
        ask(&cache, &version, &LOOK, compute)
    });
    let let_go = async {
        tokio::task::yield_now().await;
        go.notify_waiters();
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(all), let_go);
    assert_eq!(runs.load(SeqCst), 1);
    let misses = answers.iter().filter(|a| a.as_ref().unwrap().1 == "miss");
    assert_eq!(misses.count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().0 == 1.0)
    );
}

#[tokio::test]
async fn a_failure_is_told_to_its_caller_alone_and_another_takes_over() {
    let (cache, version) = (cache(), version(1));
    let runs = AtomicUsize::new(0);
    let all = (0..4).map(|_| {
        let compute = async {
            let run = runs.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            match run {
                0 => Err(failed()),
                _ => Ok(answer(1.0)),
            }
        };
        ask(&cache, &version, &LOOK, compute)
    });
    let answers = futures::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
    assert_eq!(runs.load(SeqCst), 2);
}

#[tokio::test]
async fn where_all_fail_nobody_waits_for_more_than_two_others() {
    let (cache, version) = (cache(), version(1));
    let now = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let all = (0..8).map(|_| {
        let compute = async {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, SeqCst);
            Err(failed())
        };
        ask(&cache, &version, &LOOK, compute)
    });
    let answers = futures::future::join_all(all).await;
    assert!(answers.iter().all(Result::is_err));
    // Two led, and after them the other six ran side by side.
    assert_eq!(most.load(SeqCst), 6);
    let again = ask(&cache, &version, &LOOK, async { Ok(answer(1.0)) });
    assert_eq!(again.await.unwrap(), (1.0, "miss"));
}

#[tokio::test]
async fn where_the_one_who_computes_goes_away_another_takes_over() {
    let (cache, version) = (cache(), Arc::new(version(1)));
    let begun = Arc::new(Notify::new());
    let leader = tokio::spawn({
        let (cache, version, begun) = (cache.clone(), version.clone(), begun.clone());
        async move {
            let compute = async {
                begun.notify_one();
                std::future::pending().await
            };
            ask(&cache, &version, &LOOK, compute).await
        }
    });
    begun.notified().await;
    let follower = ask(&cache, &version, &LOOK, async { Ok(answer(2.0)) });
    let stop = async {
        tokio::task::yield_now().await;
        leader.abort();
    };
    let (answered, ()) = tokio::join!(follower, stop);
    assert_eq!(answered.unwrap(), (2.0, "miss"));
    assert!(cache.lock().flights.is_empty());
}

#[tokio::test]
async fn what_was_begun_before_a_drop_is_not_kept_after_it() {
    let (cache, version) = (cache(), version(1));
    let begun_before = async {
        cache.drop_owners(&[version.owner]);
        Ok(answer(1.0))
    };
    let first = ask(&cache, &version, &LOOK, begun_before).await.unwrap();
    assert_eq!(first, (1.0, "miss"));
    let second = ask(&cache, &version, &LOOK, async { Ok(answer(2.0)) }).await;
    assert_eq!(second.unwrap(), (2.0, "miss"));
    cache.drop_owners(&[version.owner]);
    let third = ask(&cache, &version, &LOOK, async { Ok(answer(3.0)) }).await;
    assert_eq!(third.unwrap(), (3.0, "miss"));
}

#[tokio::test]
async fn an_answer_too_large_to_keep_still_answers_those_who_wait() {
    let (cache, version) = (cache(), version(1));
    let runs = AtomicUsize::new(0);
    let all = (0..8).map(|_| {
        let compute = async {
            runs.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            let large = Tensor::from_f32(vec![20_000], &[1.0; 20_000]).unwrap();
            Ok(Answer {
                outputs: vec![("y".into(), large)],
                parameters: vec![],
            })
        };
        ask(&cache, &version, &LOOK, compute)
    });
    let answers = futures::future::join_all(all).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((runs.load(SeqCst), cache.lock().store.len()), (1, 0));
}
