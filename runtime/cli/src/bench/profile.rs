//! Where a run's time goes.

use std::collections::BTreeMap;
use std::time::Duration;

use firebox_engine::StepTime;
use serde_json::json;

use super::Firebox;
use crate::failure::Result;
use crate::output::table;

/// Runs that are timed; each step's least time is taken.
const RUNS: usize = 20;

/// Nodes that are shown.
const SHOWN: usize = 20;

/// A table by operator and one of the slowest nodes, or JSON.
pub fn report(engine: &Firebox, as_json: bool) -> Result<String> {
    let mut steps = engine.profile()?;
    for _ in 1..RUNS {
        for (step, again) in steps.iter_mut().zip(engine.profile()?) {
            step.time = step.time.min(again.time);
        }
    }
    if as_json {
        let steps = steps.iter().map(|step| {
            json!({
                "node": step.node, "operator": step.operator, "made": step.made,
                "place": step.place,
                "ns": u64::try_from(step.time.as_nanos()).unwrap_or(u64::MAX),
            })
        });
        return Ok(format!(
            "{:#}",
            json!({ "steps": steps.collect::<Vec<_>>() })
        ));
    }
    let total: Duration = steps.iter().map(|step| step.time).sum();
    let share = |time: Duration| {
        let part = time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
        format!("{:.1}%", part * 100.0)
    };
    let micros = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
    let mut operators: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
    for step in &steps {
        let entry = operators.entry(&step.operator).or_default();
        *entry = (entry.0 + 1, entry.1 + step.time);
    }
    let mut operators: Vec<_> = operators.into_iter().collect();
    operators.sort_by_key(|(_, (_, time))| std::cmp::Reverse(*time));
    let rows = operators.into_iter().map(|(name, (count, time))| {
        [
            name.to_owned(),
            count.to_string(),
            micros(time),
            share(time),
        ]
    });
    let by_operator = table(["operator", "steps", "µs", "share"], rows.collect());
    let mut slowest: Vec<&StepTime> = steps.iter().collect();
    slowest.sort_by_key(|step| std::cmp::Reverse(step.time));
    let rows = slowest.into_iter().take(SHOWN).map(|step| {
        let made: Vec<_> = step.made.iter().map(|shape| format!("{shape:?}")).collect();
        [
            step.node.clone(),
            step.operator.clone(),
            micros(step.time),
            share(step.time),
            made.join(" "),
        ]
    });
    let by_node = table(["node", "operator", "µs", "share", "makes"], rows.collect());
    Ok(format!("{by_operator}\n\n{by_node}"))
}
