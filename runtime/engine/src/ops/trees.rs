//! Ensembles of decision trees.

use rayon::prelude::*;

use super::Result;
use super::scores::{self, Row};
use crate::error::OpError;
use crate::graph::{Aggregate, Forest, Labels, Test};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// Rows that one thread takes through all trees, tree by tree: a tree stays in the cache.
const ROWS: usize = 64;

/// The sums of votes for rows `[n, features]`, and for each whether anything voted.
fn votes(forest: &Forest, x: &Value) -> Result<(Vec<f64>, Vec<bool>)> {
    let (rows, features) = scores::rows(x)?;
    if features < forest.features {
        return Err(OpError::Shape(format!(
            "{features} features, but the trees read {}",
            forest.features
        )));
    }
    check_size(DType::F64, &[rows, forest.targets])?;
    let values = x.to_floats()?;
    let count = rows * forest.targets;
    let (mut sums, mut seen) = (vec![0.0; count], vec![false; count]);
    if count == 0 || features == 0 {
        return Ok((sums, seen));
    }
    sums.par_chunks_mut(ROWS * forest.targets)
        .zip(seen.par_chunks_mut(ROWS * forest.targets))
        .zip(values.par_chunks(ROWS * features))
        .for_each(|((sums, seen), values)| {
            for &root in &forest.roots {
                let rows = values.chunks_exact(features);
                let made = sums
                    .chunks_exact_mut(forest.targets)
                    .zip(seen.chunks_exact_mut(forest.targets));
                for (row, (sums, seen)) in rows.zip(made) {
                    vote(forest, leaf(forest, root, row), sums, seen);
                }
            }
        });
    if forest.aggregate == Aggregate::Average {
        let trees = forest.roots.len().max(1) as f64;
        sums.iter_mut().for_each(|sum| *sum /= trees);
    }
    for (sums, seen) in sums
        .chunks_exact_mut(forest.targets)
        .zip(seen.chunks_exact_mut(forest.targets))
    {
        for ((sum, seen), base) in sums.iter_mut().zip(seen).zip(&forest.base) {
            *sum += base;
            *seen = true;
        }
    }
    Ok((sums, seen))
}

/// The votes of the leaf that a row comes to.
fn leaf<'a>(forest: &'a Forest, root: usize, row: &[f64]) -> &'a [(usize, f64)] {
    let mut at = root;
    while let Some(node) = forest.nodes.get(at) {
        if node.test == Test::Leaf {
            let votes = forest.votes.get(node.yes as usize..node.no as usize);
            return votes.unwrap_or_default();
        }
        let x = row.get(node.feature as usize).copied().unwrap_or(f64::NAN);
        let passes = match node.test {
            Test::AtMost => x <= node.threshold,
            Test::Below => x < node.threshold,
            Test::AtLeast => x >= node.threshold,
            Test::Above => x > node.threshold,
            Test::Equal => x == node.threshold,
            Test::NotEqual => x != node.threshold,
            Test::Member(set) => {
                let set = forest.sets.get(set as usize);
                set.is_some_and(|set| set.binary_search_by(|y| y.total_cmp(&(x + 0.0))).is_ok())
            }
            Test::Leaf => false,
        };
        let next = if passes || (node.missing && x.is_nan()) {
            node.yes
        } else {
            node.no
        };
        at = next as usize;
    }
    &[]
}

fn vote(forest: &Forest, votes: &[(usize, f64)], sums: &mut [f64], seen: &mut [bool]) {
    for &(target, weight) in votes {
        let (Some(sum), Some(seen)) = (sums.get_mut(target), seen.get_mut(target)) else {
            continue;
        };
        *sum = match forest.aggregate {
            Aggregate::Sum | Aggregate::Average => *sum + weight,
            Aggregate::Min if *seen => sum.min(weight),
            Aggregate::Max if *seen => sum.max(weight),
            Aggregate::Min | Aggregate::Max => weight,
        };
        *seen = true;
    }
}

/// `[n, targets]` for rows `[n, features]`.
pub(super) fn regress(forest: &Forest, x: &Value) -> Result<Value> {
    let (rows, _) = scores::rows(x)?;
    let (mut sums, _) = votes(forest, x)?;
    sums.chunks_exact_mut(forest.targets.max(1))
        .for_each(|row| scores::transform(forest.transform, row));
    let dtype = forest.made.unwrap_or(DType::F32);
    Value::from_floats(sums, &[rows, forest.targets], dtype, &x.device())
}

/// Labels `[n]` and scores `[n, classes]` for rows `[n, features]`.
pub(super) fn classify(forest: &Forest, labels: &Labels, x: &Value) -> Result<Vec<Value>> {
    let (sums, seen) = votes(forest, x)?;
    let voted = forest.votes.first().map(|&(target, _)| target);
    let single = forest
        .votes
        .iter()
        .all(|&(target, _)| Some(target) == voted);
    let positive = forest.votes.iter().all(|&(_, weight)| weight >= 0.0);
    let rows = sums
        .chunks_exact(forest.targets.max(1))
        .zip(seen.chunks_exact(forest.targets.max(1)));
    let rows = rows.map(|(sums, seen)| match (sums, voted) {
        // Trees that vote for one class only say how likely the second is.
        ([_, _], Some(voted)) if single => {
            let score = sums.get(voted).copied().unwrap_or(0.0);
            let bound: f32 = if positive { 0.5 } else { 0.0 };
            let row = match voted {
                0 => scores::both_sides(score, positive, forest.transform),
                _ => {
                    let mut row = sums.to_vec();
                    scores::transform(forest.transform, &mut row);
                    row
                }
            };
            Row {
                // Compared as the f32 that it is given as.
                class: usize::from(score as f32 > bound),
                scores: row,
            }
        }
        ([score], _) => {
            let mut row = vec![*score];
            scores::transform(forest.transform, &mut row);
            Row {
                class: usize::from(*score > 0.0),
                scores: row,
            }
        }
        _ => {
            let class = scores::largest(
                sums.iter().zip(seen).map(
                    |(&sum, &seen)| {
                        if seen { sum } else { f64::NEG_INFINITY }
                    },
                ),
            );
            let mut row = sums.to_vec();
            scores::transform(forest.transform, &mut row);
            Row { class, scores: row }
        }
    });
    scores::classified(rows.collect(), labels, x)
}
