use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use firebox_engine::{DType, Dim, OpError, TensorSpec};
use proptest::prelude::*;

use super::batch::unfit;

use super::*;

/// Counts its runs and says of which rows they were. The first input's name tells what else to
/// do; `x` is doubled, and a run with a row that starts with 13 fails.
struct Probe {
    signature: Signature,
    runs: AtomicUsize,
    seen: Mutex<Vec<Vec<usize>>>,
    gate: Mutex<mpsc::Receiver<()>>,
}

fn failure() -> RunError {
    RunError::Operator {
        operator: "Probe".into(),
        node: "probe".into(),
        source: OpError::Shape("thirteen".into()),
    }
}

impl Compute for Probe {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn compute(&self, inputs: Named) -> Result<Named, RunError> {
        self.runs.fetch_add(1, SeqCst);
        let Some((name, tensor)) = inputs.first() else {
            return Ok(inputs);
        };
        self.seen.lock().unwrap().push(tensor.shape().to_vec());
        let values = tensor.to_f32().unwrap();
        match name.as_str() {
            "wait" => self.gate.lock().unwrap().recv().unwrap(),
            "panic" => panic!("no such luck"),
            _ if values.first() == Some(&-1.0) => self.gate.lock().unwrap().recv().unwrap(),
            _ => {}
        }
        if name != "x" {
            return Ok(inputs);
        }
        let width = tensor.shape().iter().skip(1).product::<usize>().max(1);
        if values.chunks(width).any(|row| row.first() == Some(&13.0)) {
            return Err(failure());
        }
        let doubled: Vec<f32> = values.iter().map(|x| 2.0 * x).collect();
        let doubled = Tensor::from_f32(tensor.shape().to_vec(), &doubled).unwrap();
        Ok(vec![("y".into(), doubled)])
    }
}

fn probe() -> (Arc<Probe>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: Some(vec![
            Dim::Named("batch".into()),
            Dim::Named("length".into()),
        ]),
    };
    let probe = Probe {
        signature: Signature {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
        },
        runs: AtomicUsize::new(0),
        seen: Mutex::default(),
        gate: Mutex::new(gate),
    };
    (Arc::new(probe), open)
}

fn input(name: &str) -> Named {
    vec![(name.into(), Tensor::from_f32(vec![1], &[1.0]).unwrap())]
}

fn rows(rows: &[Vec<f32>]) -> Named {
    let shape = vec![rows.len(), rows.first().map_or(0, Vec::len)];
    vec![("x".into(), Tensor::from_f32(shape, &rows.concat()).unwrap())]
}

fn terms(function: &str, tier: &str, batching: &str) -> Arc<Terms> {
    let text = format!("name = '{function}'\ntier = '{tier}'\n[models.m]\npath = 'm'\n{batching}");
    let manifest = Manifest::parse(&text).unwrap();
    Arc::new(Terms::of(&manifest.name, &manifest))
}

fn alone() -> Arc<Terms> {
    terms("alone", "on-demand", "")
}

fn scheduler(threads: usize, limit: usize) -> Arc<Scheduler> {
    Arc::new(Scheduler::start(threads, limit, Metrics::new()).unwrap())
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

type Running = tokio::task::JoinHandle<Result<Computed, ComputeError>>;

fn start(
    scheduler: &Arc<Scheduler>,
    model: &Arc<Probe>,
    terms: &Arc<Terms>,
    inputs: Named,
) -> Running {
    let (scheduler, model, terms) = (scheduler.clone(), model.clone(), terms.clone());
    tokio::spawn(async move { scheduler.run(&terms, "m", model, inputs).await })
}

/// Keeps the only thread busy until the gate opens.
async fn occupy(scheduler: &Arc<Scheduler>, model: &Arc<Probe>) -> Running {
    let running = start(scheduler, model, &alone(), input("wait"));
    until(|| model.runs.load(SeqCst) == 1).await;
    running
}

#[tokio::test]
async fn a_job_whose_caller_has_gone_is_never_computed() {
    let (scheduler, (model, open)) = (scheduler(1, 8), probe());
    let first = occupy(&scheduler, &model).await;
    let gone = start(&scheduler, &model, &alone(), input("gone"));
    until(|| scheduler.waiting() == 1).await;
    gone.abort();
    let _ = gone.await;
    let last = start(&scheduler, &model, &alone(), input("last"));
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    assert_eq!(model.runs.load(SeqCst), 2);
}

#[tokio::test]
async fn a_full_queue_refuses_but_makes_room_where_callers_have_gone() {
    let (scheduler, (model, open)) = (scheduler(1, 1), probe());
    let first = occupy(&scheduler, &model).await;
    let second = start(&scheduler, &model, &alone(), input("second"));
    until(|| scheduler.waiting() == 1).await;
    let refused = scheduler
        .run(&alone(), "m", model.clone(), input("third"))
        .await;
    assert!(matches!(refused, Err(ComputeError::Full { limit: 1 })));
    second.abort();
    let _ = second.await;
    let fourth = start(&scheduler, &model, &alone(), input("fourth"));
    until(|| scheduler.waiting() == 1).await;
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
    fourth.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panicking_model_fails_its_caller_and_nobody_else() {
    let (scheduler, (model, _open)) = (scheduler(1, 8), probe());
    let failed = scheduler
        .run(&alone(), "m", model.clone(), input("panic"))
        .await;
    assert!(matches!(failed, Err(ComputeError::Panic(text)) if text == "no such luck"));
    let next = scheduler.run(&alone(), "m", model, input("z")).await;
    assert_eq!(next.unwrap().outputs, input("z"));
}

#[tokio::test]
async fn stopping_answers_those_who_wait() {
    let (scheduler, (model, open)) = (scheduler(1, 8), probe());
    let first = occupy(&scheduler, &model).await;
    let second = start(&scheduler, &model, &alone(), input("second"));
    until(|| scheduler.waiting() == 1).await;
    scheduler.shared.lock().stop();
    assert!(matches!(second.await.unwrap(), Err(ComputeError::Stopped)));
    let third = scheduler.run(&alone(), "m", model, input("third")).await;
    assert!(matches!(third, Err(ComputeError::Stopped)));
    open.send(()).unwrap();
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_waits_shares_a_run_up_to_the_largest() {
    let (scheduler, (model, open)) = (scheduler(1, 64), probe());
    let batched = terms("f", "on-demand", "batching = { max_batch_size = 4 }");
    let first = occupy(&scheduler, &model).await;
    let mut calls = vec![];
    for n in 0..6 {
        let inputs = rows(&[vec![n as f32, 0.5]]);
        calls.push(start(&scheduler, &model, &batched, inputs));
        until(|| scheduler.waiting() == calls.len()).await;
    }
    // Another shape, and another function.
    calls.push(start(
        &scheduler,
        &model,
        &batched,
        rows(&[vec![6.0, 0.5, 1.0]]),
    ));
    let other = terms("g", "on-demand", "batching = { max_batch_size = 4 }");
    calls.push(start(&scheduler, &model, &other, rows(&[vec![7.0, 0.5]])));
    until(|| scheduler.waiting() == 8).await;
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
    for (n, call) in calls.into_iter().enumerate() {
        let computed = call.await.unwrap().unwrap();
        let y = computed.outputs[0].1.to_f32().unwrap();
        assert_eq!(y[..2], [2.0 * n as f32, 1.0]);
    }
    let mut seen = model.seen.lock().unwrap().split_off(1);
    seen.sort();
    assert_eq!(seen, [[1, 2], [1, 3], [2, 2], [4, 2]]);
}

#[tokio::test]
async fn a_run_waits_for_others_no_longer_than_it_may() {
    let (scheduler, (model, _open)) = (scheduler(2, 64), probe());
    let delay = "batching = { max_batch_size = 3, max_queue_delay = '300ms' }";
    let batched = terms("f", "on-demand", delay);
    let started = Instant::now();
    let calls = [1.0, 2.0, 3.0].map(|x| start(&scheduler, &model, &batched, rows(&[vec![x]])));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // The third filled it.
    assert!(started.elapsed() < Duration::from_millis(250));
    let alone = start(&scheduler, &model, &batched, rows(&[vec![1.0]]));
    let computed = alone.await.unwrap().unwrap();
    assert!(
        computed.queued >= Duration::from_millis(300),
        "{computed:?}"
    );
    assert_eq!(*model.seen.lock().unwrap(), [[3, 1], [1, 1]]);
}

#[tokio::test]
async fn a_member_that_fails_fails_alone() {
    let (scheduler, (model, open)) = (scheduler(1, 64), probe());
    let batched = terms("f", "on-demand", "batching = { max_batch_size = 8 }");
    let first = occupy(&scheduler, &model).await;
    let calls = [1.0, 13.0, 3.0].map(|x| start(&scheduler, &model, &batched, rows(&[vec![x]])));
    until(|| scheduler.waiting() == 3).await;
    let wrong = vec![("w".into(), Tensor::from_f32(vec![1, 1], &[1.0]).unwrap())];
    let refused = scheduler.run(&batched, "m", model.clone(), wrong).await;
    assert!(matches!(
        refused,
        Err(ComputeError::Run(RunError::Input(_)))
    ));
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
    let [one, thirteen, three] = calls;
    assert_eq!(
        one.await.unwrap().unwrap().outputs[0].1.to_f32().unwrap(),
        [2.0]
    );
    assert!(matches!(thirteen.await.unwrap(), Err(ComputeError::Run(_))));
    assert_eq!(
        three.await.unwrap().unwrap().outputs[0].1.to_f32().unwrap(),
        [6.0]
    );
}

/// The order in which a lone thread serves what waits, by the first number of each.
async fn served(calls: &[(&str, &str, f32)]) -> Vec<f32> {
    let (scheduler, (model, open)) = (scheduler(1, 64), probe());
    let first = occupy(&scheduler, &model).await;
    let order = Arc::new(Mutex::new(vec![]));
    let mut running = vec![];
    for &(function, tier, number) in calls {
        let (scheduler, model, order) = (scheduler.clone(), model.clone(), order.clone());
        let terms = terms(function, tier, "");
        let waiting = scheduler.waiting();
        let inputs = rows(&[vec![number]]);
        let gate = scheduler.clone();
        running.push(tokio::spawn(async move {
            scheduler.run(&terms, "m", model, inputs).await.unwrap();
            order.lock().unwrap().push(number);
        }));
        until(|| gate.waiting() == waiting + 1).await;
    }
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
    for call in running {
        call.await.unwrap();
    }
    order.lock().unwrap().clone()
}

#[tokio::test]
async fn realtime_comes_first() {
    let order = served(&[
        ("slow", "on-demand", 1.0),
        ("slow", "on-demand", 2.0),
        ("fast", "realtime", 3.0),
    ])
    .await;
    assert_eq!(order.first(), Some(&3.0), "{order:?}");
}

#[tokio::test]
async fn the_batch_tier_has_a_thread_of_its_own() {
    let (scheduler, (model, open)) = (scheduler(1, 64), probe());
    let first = occupy(&scheduler, &model).await;
    let batch = terms("f", "batch", "");
    let computed = start(&scheduler, &model, &batch, rows(&[vec![4.0]]));
    assert_eq!(
        computed.await.unwrap().unwrap().outputs[0]
            .1
            .to_f32()
            .unwrap(),
        [8.0]
    );
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
}

/// Jobs of a queue without threads, and who waits for their answers.
struct Waiting {
    queue: Queue,
    model: Arc<Probe>,
    answers: Vec<oneshot::Receiver<Result<Computed, ComputeError>>>,
}

impl Waiting {
    fn new(limit: usize) -> Self {
        Self {
            queue: Queue::new(limit),
            model: probe().0,
            answers: vec![],
        }
    }

    fn push(&mut self, terms: &Arc<Terms>) -> Result<(), ComputeError> {
        let (answer, answered) = oneshot::channel();
        self.answers.push(answered);
        self.queue.push(Job {
            terms: terms.clone(),
            model: self.model.clone(),
            inputs: rows(&[vec![1.0]]),
            stack: None,
            queued_at: Instant::now(),
            answer,
        })
    }

    /// Whose turn it is, when each run takes so long.
    fn serve(&mut self, took: impl Fn(&str) -> Duration) -> Option<String> {
        self.serve_of(&[Tier::Realtime, Tier::OnDemand], took)
    }

    fn serve_of(&mut self, tiers: &[Tier], took: impl Fn(&str) -> Duration) -> Option<String> {
        match self.queue.next(tiers, Instant::now()) {
            Next::Run(run) => {
                let terms = run.jobs.first()?.terms.clone();
                let function = terms.function.to_string();
                self.queue
                    .done(&terms.function, terms.tier, took(&function));
                Some(function)
            }
            _ => None,
        }
    }
}

#[test]
fn functions_share_time_and_not_turns() {
    let mut waiting = Waiting::new(4096);
    let (heavy, light) = (
        terms("heavy", "on-demand", ""),
        terms("light", "on-demand", ""),
    );
    for _ in 0..1000 {
        waiting.push(&heavy).unwrap();
        waiting.push(&light).unwrap();
    }
    let took = |function: &str| match function {
        "heavy" => Duration::from_millis(30),
        _ => Duration::from_millis(3),
    };
    let turns: Vec<String> = (0..330).filter_map(|_| waiting.serve(took)).collect();
    let heavy = turns.iter().filter(|turn| *turn == "heavy").count();
    // A tenth of the turns, which is half of the time.
    assert!((25..=35).contains(&heavy), "{heavy} of {}", turns.len());
}

#[test]
fn what_a_function_uses_in_the_batch_tier_is_not_held_against_its_callers() {
    let mut waiting = Waiting::new(4096);
    let (shared, other) = (
        terms("shared", "on-demand", ""),
        terms("other", "on-demand", ""),
    );
    let jobs = Arc::new(shared.in_batch());
    for _ in 0..100 {
        waiting.push(&jobs).unwrap();
        waiting.push(&shared).unwrap();
        waiting.push(&other).unwrap();
    }
    let long = |_: &str| Duration::from_secs(1);
    (0..100).for_each(|_| drop(waiting.serve_of(&[Tier::Batch], long)));
    let took = |_: &str| Duration::from_millis(10);
    let turns: Vec<String> = (0..40).filter_map(|_| waiting.serve(took)).collect();
    let shared = turns.iter().filter(|turn| *turn == "shared").count();
    assert!((18..=22).contains(&shared), "{turns:?}");
}

#[test]
fn one_that_comes_back_is_not_owed_the_time_that_it_was_away() {
    let mut waiting = Waiting::new(4096);
    let (busy, late) = (
        terms("busy", "on-demand", ""),
        terms("late", "on-demand", ""),
    );
    let took = |_: &str| Duration::from_millis(10);
    for _ in 0..200 {
        waiting.push(&busy).unwrap();
    }
    (0..100).for_each(|_| drop(waiting.serve(took)));
    for _ in 0..50 {
        waiting.push(&late).unwrap();
    }
    let turns: Vec<String> = (0..40).filter_map(|_| waiting.serve(took)).collect();
    let late = turns.iter().filter(|turn| *turn == "late").count();
    assert!((18..=22).contains(&late), "{turns:?}");
}

#[test]
fn on_demand_gets_its_share_beside_realtime_without_end() {
    let mut waiting = Waiting::new(4096);
    let (first, second) = (
        terms("first", "realtime", ""),
        terms("second", "on-demand", ""),
    );
    for _ in 0..1000 {
        waiting.push(&first).unwrap();
        waiting.push(&second).unwrap();
    }
    let took = |_: &str| Duration::from_millis(10);
    let turns: Vec<String> = (0..500).filter_map(|_| waiting.serve(took)).collect();
    let second = turns.iter().filter(|turn| *turn == "second").count();
    assert!((95..=105).contains(&second), "{second} of 500");
}

#[test]
fn one_function_leaves_places_for_others() {
    let mut waiting = Waiting::new(8);
    let (greedy, modest) = (
        terms("greedy", "on-demand", ""),
        terms("modest", "on-demand", ""),
    );
    for _ in 0..7 {
        waiting.push(&greedy).unwrap();
    }
    waiting.push(&modest).unwrap();
    assert!(matches!(
        waiting.push(&modest),
        Err(ComputeError::Full { limit: 8 })
    ));
    assert_eq!(waiting.serve(|_| Duration::ZERO).as_deref(), Some("greedy"));
    // Beside others it has had its share.
    assert!(matches!(
        waiting.push(&greedy),
        Err(ComputeError::Full { limit: 4 })
    ));
    waiting.push(&modest).unwrap();
}

fn stacked(inputs: &[Named], batching: &Batching, signature: &Signature) -> Vec<Vec<usize>> {
    // Greedy, as a lane takes them.
    let shapes: Vec<_> = inputs
        .iter()
        .map(|inputs| Shape::of(inputs, signature, batching).unwrap())
        .collect();
    let mut left: Vec<usize> = (0..inputs.len()).collect();
    let mut groups = vec![];
    while let Some(&first) = left.first() {
        let mut batch = Batch::new(&shapes[first]);
        let most = batching.max_batch_size as usize;
        let mut group = vec![first];
        left.remove(0);
        left.retain(|&at| {
            let fits = batch.add(&shapes[at], most);
            if fits {
                group.push(at);
            }
            !fits
        });
        groups.push(group);
    }
    groups
}

proptest! {
    /// Any mix of callers, lengths and failures: each gets exactly its rows, or its own failure.
    #[test]
    fn each_gets_what_it_would_get_alone(
        calls in prop::collection::vec(
            (1usize..4, 1usize..6).prop_flat_map(|(count, length)| {
                let row = prop::collection::vec(0u8..20, length);
                prop::collection::vec(row, count)
            }),
            1..24,
        ),
        size in 2u32..12,
        pad: bool,
    ) {
        let pad = if pad { ", pad = { x = -7 }" } else { "" };
        let batching = format!("batching = {{ max_batch_size = {size}{pad} }}");
        let batched = terms("f", "on-demand", &batching);
        let (model, open) = probe();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let calls: Vec<Vec<Vec<f32>>> = calls
            .iter()
            .map(|call| call.iter().map(|row| row.iter().map(|&x| f32::from(x)).collect()).collect())
            .collect();
        let answers = runtime.block_on(async {
            let scheduler = scheduler(1, 64);
            let first = occupy(&scheduler, &model).await;
            let running: Vec<_> = calls
                .iter()
                .map(|call| start(&scheduler, &model, &batched, rows(call)))
                .collect();
            until(|| scheduler.waiting() == calls.len()).await;
            open.send(()).unwrap();
            first.await.unwrap().unwrap();
            let mut answers = vec![];
            for call in running {
                answers.push(call.await.unwrap());
            }
            answers
        });
        for (call, answer) in calls.iter().zip(answers) {
            let fails = call.iter().any(|row| row[0] == 13.0);
            prop_assert_eq!(answer.is_err(), fails);
            if let Ok(computed) = answer {
                let doubled: Vec<Vec<f32>> = call
                    .iter()
                    .map(|row| row.iter().map(|x| 2.0 * x).collect())
                    .collect();
                let expected = vec![("y".to_owned(), rows(&doubled)[0].1.clone())];
                prop_assert_eq!(computed.outputs, expected);
            }
        }
        // Padding never makes a run more than half as large again.
        let manifest = Manifest::parse(&format!("name = 'f'\n[models.m]\npath = 'm'\n{batching}"));
        let batching = manifest.unwrap().models["m"].batching.clone().unwrap();
        let inputs: Vec<Named> = calls.iter().map(|call| rows(call)).collect();
        for group in stacked(&inputs, &batching, &model.signature) {
            let longest = group.iter().map(|&at| calls[at][0].len()).max().unwrap();
            let count: usize = group.iter().map(|&at| calls[at].len()).sum();
            let own: usize = group.iter().map(|&at| calls[at].len() * calls[at][0].len()).sum();
            prop_assert!(2 * count * longest <= 3 * own || group.len() == 1);
            prop_assert!(count <= size as usize || group.len() == 1);
        }
    }
}

#[test]
fn what_cannot_be_batched_is_told_by_the_signature() {
    let (model, _open) = probe();
    let batching = |pad: &str| {
        let text =
            format!("name = 'f'\n[models.m]\npath = 'm'\nbatching = {{ max_batch_size = 8{pad} }}");
        let manifest = Manifest::parse(&text).unwrap();
        manifest.models["m"].batching.clone().unwrap()
    };
    assert_eq!(
        unfit(&model.signature, &batching(", pad = { x = 0 }")),
        None
    );
    let no_input = unfit(&model.signature, &batching(", pad = { z = 0 }")).unwrap();
    assert!(
        no_input.contains("`z`, which is no input; expected x"),
        "{no_input}"
    );
    let mut fixed = model.signature.clone();
    fixed.outputs[0].shape = Some(vec![Dim::Fixed(1), Dim::Named("length".into())]);
    let reason = unfit(&fixed, &batching("")).unwrap();
    assert!(reason.contains("`y` is [1, length]"), "{reason}");
    let mut unnamed = model.signature.clone();
    unnamed.outputs[0].shape = Some(vec![Dim::Named("batch".into()), Dim::Any]);
    assert_eq!(unfit(&unnamed, &batching("")), None);
    let reason = unfit(&unnamed, &batching(", pad = { x = 0 }")).unwrap();
    assert!(reason.contains("[batch, ?]"), "{reason}");
}
