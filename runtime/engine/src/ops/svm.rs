//! Linear models and support vector machines.

use super::Result;
use super::scores::{self, Row};
use crate::error::OpError;
use crate::graph::{Kernel, Labels, Linear, Svm};
use crate::tensor::DType;
use crate::value::Value;

/// The score of each row for each target.
fn weighted(of: &Linear, x: &Value) -> Result<Vec<f64>> {
    let (_, features) = scores::rows(x)?;
    if features == 0 || features.checked_mul(of.targets) != Some(of.weights.len()) {
        return Err(OpError::Shape(format!(
            "{features} features and {} targets with {} weights",
            of.targets,
            of.weights.len()
        )));
    }
    let values = x.to_floats()?;
    let mut made = Vec::with_capacity(values.len() / features * of.targets);
    for row in values.chunks_exact(features) {
        for (target, weights) in of.weights.chunks_exact(features).enumerate() {
            let bias = of.bias.get(target).copied().map_or(0.0, f64::from);
            made.push(bias + dot(row, weights));
        }
    }
    Ok(made)
}

fn dot(row: &[f64], weights: &[f32]) -> f64 {
    let each = row.iter().zip(weights);
    each.map(|(x, &weight)| x * f64::from(weight)).sum()
}

/// `[n, targets]` for rows `[n, features]`.
pub(super) fn regress_linear(of: &Linear, x: &Value) -> Result<Value> {
    let (rows, _) = scores::rows(x)?;
    let mut made = weighted(of, x)?;
    made.chunks_exact_mut(of.targets)
        .for_each(|row| scores::transform(of.transform, row));
    Value::from_floats(made, &[rows, of.targets], DType::F32, &x.device())
}

/// Labels `[n]` and scores `[n, classes]`.
pub(super) fn classify_linear(of: &Linear, labels: &Labels, x: &Value) -> Result<Vec<Value>> {
    let made = weighted(of, x)?;
    let rows = made.chunks_exact(of.targets).map(|row| match row {
        [score] => {
            let scores = match labels.len() {
                2 => scores::both_sides(*score, true, of.transform),
                _ => {
                    let mut row = vec![*score];
                    scores::transform(of.transform, &mut row);
                    row
                }
            };
            let class = usize::from(*score > 0.0);
            Row { class, scores }
        }
        row => {
            let class = scores::largest(row.iter().copied());
            let mut row = row.to_vec();
            scores::transform(of.transform, &mut row);
            Row { class, scores: row }
        }
    });
    scores::classified(rows.collect(), labels, x)
}

impl Svm {
    fn kernel(&self, row: &[f64], vector: &[f32]) -> f64 {
        let [gamma, offset, degree] = [self.gamma, self.offset, self.degree].map(f64::from);
        match self.kernel {
            Kernel::Linear => dot(row, vector),
            Kernel::Poly => (gamma * dot(row, vector) + offset).powf(degree),
            Kernel::Sigmoid => (gamma * dot(row, vector) + offset).tanh(),
            Kernel::Rbf => {
                let each = row.iter().zip(vector);
                let square = |(x, &y): (&f64, &f32)| (x - f64::from(y)).powi(2);
                (-gamma * each.map(square).sum::<f64>()).exp()
            }
        }
    }

    /// The kernel of a row with each vector.
    fn kernels(&self, row: &[f64]) -> Vec<f64> {
        let vectors = self.vectors.chunks_exact(row.len().max(1));
        vectors.map(|vector| self.kernel(row, vector)).collect()
    }

    /// Rows as floats, if they are as wide as the vectors or the weights.
    fn rows(&self, x: &Value, weights: usize) -> Result<(usize, Vec<f64>)> {
        let (_, features) = scores::rows(x)?;
        let numbers = match self.number {
            0 => weights,
            number => self.vectors.len() / number,
        };
        if features == 0 || numbers != features {
            return Err(OpError::Shape(format!(
                "{features} features for {numbers} of the model"
            )));
        }
        Ok((features, x.to_floats()?))
    }

    fn rho(&self, at: usize) -> f64 {
        self.rho.get(at).copied().map_or(0.0, f64::from)
    }
}

/// `[n, 1]` for rows `[n, features]`.
pub(super) fn regress(svm: &Svm, x: &Value) -> Result<Value> {
    let (features, values) = svm.rows(x, svm.coefficients.len())?;
    let made = values.chunks_exact(features).map(|row| {
        let sum = match svm.number {
            0 => dot(row, &svm.coefficients),
            _ => dot(&svm.kernels(row), &svm.coefficients),
        } + svm.rho(0);
        match svm.one_class {
            true if sum > 0.0 => 1.0,
            true => -1.0,
            false => {
                let mut row = [sum];
                scores::transform(svm.transform, &mut row);
                let [sum] = row;
                sum
            }
        }
    });
    let made: Vec<_> = made.collect();
    let shape = [made.len(), 1];
    Value::from_floats(made, &shape, DType::F32, &x.device())
}

/// Labels `[n]` and scores: of each class where it is linear or has probabilities, else of
/// each pair of classes.
pub(super) fn classify(svm: &Svm, labels: &Labels, x: &Value) -> Result<Vec<Value>> {
    let classes = labels.len();
    let (features, values) = svm.rows(x, svm.coefficients.len() / classes.max(1))?;
    let pairs = classes * classes.saturating_sub(1) / 2;
    if svm.number > 0 {
        let wanted = classes.saturating_sub(1).saturating_mul(svm.number);
        let probabilities = svm.prob_a.is_empty() || svm.prob_a.len() == pairs;
        if svm.per_class.len() != classes
            || svm.coefficients.len() != wanted
            || svm.rho.len() != pairs
            || !probabilities
        {
            return Err(OpError::Shape(format!(
                "{} coefficients and {} offsets for {} vectors of {classes} classes",
                svm.coefficients.len(),
                svm.rho.len(),
                svm.number
            )));
        }
    }
    let positive = svm.coefficients.iter().all(|&weight| weight >= 0.0);
    let rows = values.chunks_exact(features).map(|row| {
        if svm.number == 0 {
            let scores: Vec<_> = svm
                .coefficients
                .chunks_exact(features)
                .map(|weights| svm.rho(0) + dot(row, weights))
                .collect();
            return finish(svm, labels, scores, None, positive);
        }
        let (votes, scores) = pairwise(svm, classes, &svm.kernels(row));
        let scores = match svm.prob_a.is_empty() {
            true => scores,
            false => probabilities(svm, classes, &scores),
        };
        finish(svm, labels, scores, Some(votes), positive)
    });
    scores::classified(rows.collect(), labels, x)
}

/// One against one: the votes for each class, and the score of each pair.
fn pairwise(svm: &Svm, classes: usize, kernels: &[f64]) -> (Vec<usize>, Vec<f64>) {
    let starts: Vec<_> = svm
        .per_class
        .iter()
        .scan(0, |next, &count| {
            let start = *next;
            *next += count;
            Some((start, start + count))
        })
        .collect();
    let part = |row: usize, of: usize| {
        let (start, end) = starts.get(of).copied().unwrap_or_default();
        let kernels = kernels.get(start..end).unwrap_or_default();
        let from = row * svm.number;
        let weights = svm.coefficients.get(from + start..from + end);
        dot(kernels, weights.unwrap_or_default())
    };
    let (mut votes, mut scores) = (vec![0; classes], Vec::new());
    for i in 0..classes {
        for j in i + 1..classes {
            let score = svm.rho(scores.len()) + part(j - 1, i) + part(i, j);
            let winner = if score > 0.0 { i } else { j };
            votes
                .iter_mut()
                .skip(winner)
                .take(1)
                .for_each(|vote| *vote += 1);
            scores.push(score);
        }
    }
    (votes, scores)
}

/// The probability of each class from those of each pair: Wu, Lin and Weng, "Probability
/// estimates for multi-class classification by pairwise coupling", second method, solved as
/// LIBSVM does.
fn probabilities(svm: &Svm, classes: usize, scores: &[f64]) -> Vec<f64> {
    let mut wins = vec![vec![0.0; classes]; classes];
    let mut set = |i: usize, j: usize, value: f64| {
        if let Some(slot) = wins.get_mut(i).and_then(|row| row.get_mut(j)) {
            *slot = value;
        }
    };
    let mut pairs = scores.iter().zip(svm.prob_a.iter().zip(&svm.prob_b));
    for i in 0..classes {
        for j in i + 1..classes {
            let Some((score, (&a, &b))) = pairs.next() else {
                continue;
            };
            let wins = 1.0 - scores::logistic(score * f64::from(a) + f64::from(b));
            let wins = wins.clamp(1e-7, 1.0 - 1e-7);
            set(i, j, wins);
            set(j, i, 1.0 - wins);
        }
    }
    let win = |i: usize, j: usize| {
        wins.get(i)
            .and_then(|row| row.get(j))
            .copied()
            .unwrap_or(0.0)
    };
    let quadratic: Vec<Vec<f64>> = (0..classes)
        .map(|i| {
            let entry = |j: usize| match i == j {
                true => (0..classes)
                    .filter(|&k| k != i)
                    .map(|k| win(k, i).powi(2))
                    .sum(),
                false => -win(j, i) * win(i, j),
            };
            (0..classes).map(entry).collect()
        })
        .collect();
    let mut chances = vec![1.0 / classes as f64; classes];
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for _ in 0..classes.max(100) {
        let mut products: Vec<f64> = quadratic.iter().map(|row| inner(row, &chances)).collect();
        let mut total = inner(&products, &chances);
        let error = products.iter().map(|product| (product - total).abs());
        if error.fold(0.0, f64::max) < 0.005 / classes as f64 {
            break;
        }
        for (t, row) in quadratic.iter().enumerate() {
            let own = row.get(t).copied().unwrap_or(1.0);
            let product = products.get(t).copied().unwrap_or(0.0);
            let step = (total - product) / own;
            let grown = 1.0 + step;
            total = (total + step * (step * own + 2.0 * product)) / grown / grown;
            for (at, (product, entry)) in products.iter_mut().zip(row).enumerate() {
                *product = (*product + step * entry) / grown;
                if let Some(chance) = chances.get_mut(at) {
                    *chance = (*chance + if at == t { step } else { 0.0 }) / grown;
                }
            }
        }
    }
    chances
}

/// The class of a row, and its scores transformed.
fn finish(
    svm: &Svm,
    labels: &Labels,
    mut scores: Vec<f64>,
    votes: Option<Vec<usize>>,
    positive: bool,
) -> Row {
    let class = match &votes {
        Some(votes) => scores::largest(votes.iter().map(|&vote| vote as f64)),
        None => scores::largest(scores.iter().copied()),
    };
    match (scores.as_slice(), labels.len()) {
        // One pair: its score is for the first of both.
        ([score], 2) => {
            scores = scores::both_sides(*score, false, svm.transform);
            Row { class, scores }
        }
        ([score], _) => {
            let bound = if positive { 0.5 } else { 0.0 };
            let class = usize::from(*score > bound);
            scores::transform(svm.transform, &mut scores);
            Row { class, scores }
        }
        _ => {
            scores::transform(svm.transform, &mut scores);
            Row { class, scores }
        }
    }
}
