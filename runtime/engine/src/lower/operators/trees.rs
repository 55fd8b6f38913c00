//! Decision trees, from either form that ONNX gives them.

use std::collections::HashMap;

use super::ParseError;
use super::ml::{numbers, transform};
use crate::graph::*;
use crate::lower::attributes::Attributes;
use crate::onnx;
use crate::tensor::DType;

/// A node as the model numbers it.
struct Raw {
    test: Test,
    feature: i64,
    threshold: f64,
    missing: bool,
    /// Of a leaf: its votes.
    yes: usize,
    no: usize,
}

/// `TreeEnsembleRegressor` and `TreeEnsembleClassifier`, whose leaves vote under `vote`:
/// `target` or `class`.
pub(super) fn by_ids(
    a: &mut Attributes,
    node: &str,
    vote: &str,
    targets: usize,
) -> Result<Forest, ParseError> {
    let ints = |a: &mut Attributes, name: &str| -> Result<Vec<i64>, ParseError> {
        Ok(a.ints(name)?.unwrap_or_default())
    };
    let (trees, ids) = (ints(a, "nodes_treeids")?, ints(a, "nodes_nodeids")?);
    let (yes, no) = (
        ints(a, "nodes_truenodeids")?,
        ints(a, "nodes_falsenodeids")?,
    );
    let features = ints(a, "nodes_featureids")?;
    let thresholds = numbers(a, node, "nodes_values")?;
    let modes = a.texts("nodes_modes")?.unwrap_or_default();
    let mut missing = ints(a, "nodes_missing_value_tracks_true")?;
    let count = modes.len();
    missing.resize(count, 0);
    let lengths = [
        trees.len(),
        ids.len(),
        yes.len(),
        no.len(),
        features.len(),
        thresholds.len(),
    ];
    equal(lengths, count)?;
    let places: HashMap<(i64, i64), usize> = trees
        .iter()
        .copied()
        .zip(ids.iter().copied())
        .zip(0..)
        .collect();

    let of_trees = ints(a, &format!("{vote}_treeids"))?;
    let (of_nodes, of_targets) = (
        ints(a, &format!("{vote}_nodeids"))?,
        ints(a, &format!("{vote}_ids"))?,
    );
    let weights = numbers(a, node, &format!("{vote}_weights"))?;
    let lengths = [of_nodes.len(), of_targets.len(), weights.len()];
    if lengths != [of_trees.len(); 3] {
        return Err(format!("its lists of votes differ in length: {lengths:?}").into());
    }
    let mut by_leaf: HashMap<(i64, i64), Vec<(usize, f64)>> = HashMap::new();
    let each = of_trees
        .iter()
        .zip(&of_nodes)
        .zip(of_targets.iter().zip(&weights));
    for ((&tree, &id), (&target, &weight)) in each {
        let target = known(target, targets)?;
        by_leaf
            .entry((tree, id))
            .or_default()
            .push((target, weight));
    }

    let mut votes = Vec::new();
    let mut raw = Vec::with_capacity(count);
    let mut led_to = vec![false; count];
    let links = yes.iter().zip(&no).zip(features.iter().zip(&thresholds));
    let nodes = trees
        .iter()
        .zip(&ids)
        .zip(modes.iter().zip(&missing))
        .zip(links);
    for (((&tree, id), (mode, &missing)), ((&yes, &no), (&feature, &threshold))) in nodes {
        let test = match mode.as_str() {
            "LEAF" => Test::Leaf,
            "BRANCH_LEQ" => Test::AtMost,
            "BRANCH_LT" => Test::Below,
            "BRANCH_GTE" => Test::AtLeast,
            "BRANCH_GT" => Test::Above,
            "BRANCH_EQ" => Test::Equal,
            "BRANCH_NEQ" => Test::NotEqual,
            other => return Err(format!("unknown mode `{other}`").into()),
        };
        let (yes, no) = if test == Test::Leaf {
            let start = votes.len();
            votes.extend(by_leaf.remove(&(tree, *id)).unwrap_or_default());
            (start, votes.len())
        } else {
            let mut child = |id: i64| {
                let place = places.get(&(tree, id)).copied();
                let led = place.and_then(|place| led_to.get_mut(place));
                if let Some(led) = led {
                    *led = true;
                }
                place.ok_or_else(|| format!("tree {tree} has no node {id}"))
            };
            (child(yes)?, child(no)?)
        };
        raw.push(Raw {
            test,
            feature,
            threshold,
            missing: missing != 0,
            yes,
            no,
        });
    }
    let roots: Vec<_> = (0..count)
        .filter(|&at| led_to.get(at) == Some(&false))
        .collect();
    let mut base = numbers(a, node, "base_values")?;
    base.truncate(targets);
    let aggregate = match a.text("aggregate_function")?.as_deref() {
        None | Some("SUM") => Aggregate::Sum,
        Some("AVERAGE") => Aggregate::Average,
        Some("MIN") => Aggregate::Min,
        Some("MAX") => Aggregate::Max,
        Some(other) => return Err(format!("unknown aggregate function `{other}`").into()),
    };
    let mut forest = Forest {
        nodes: Vec::with_capacity(count),
        roots: Vec::new(),
        votes,
        sets: Vec::new(),
        features: 0,
        targets,
        aggregate,
        base,
        transform: transform(a)?,
        made: None,
    };
    lay_out(&mut forest, &raw, &roots)?;
    Ok(forest)
}

/// `TreeEnsemble`, whose leaves have lists of their own.
pub(super) fn by_position(a: &mut Attributes, node: &str) -> Result<Forest, ParseError> {
    let list =
        |a: &mut Attributes, name: &str| -> Result<Vec<usize>, ParseError> { Ok(a.sizes(name)?) };
    let roots = list(a, "tree_roots")?;
    let (yes, no) = (
        list(a, "nodes_truenodeids")?,
        list(a, "nodes_falsenodeids")?,
    );
    let (yes_leaf, no_leaf) = (list(a, "nodes_trueleafs")?, list(a, "nodes_falseleafs")?);
    let features = a.ints("nodes_featureids")?.unwrap_or_default();
    let made = a
        .tensor("nodes_splits")?
        .map(|proto| onnx::tensor(proto, node))
        .transpose()?;
    let made = made.map_or(DType::F32, |tensor| tensor.dtype());
    let thresholds = numbers(a, node, "nodes_splits")?;
    let modes = numbers(a, node, "nodes_modes")?;
    let mut missing = list(a, "nodes_missing_value_tracks_true")?;
    let count = modes.len();
    missing.resize(count, 0);
    let lengths = [
        yes.len(),
        no.len(),
        yes_leaf.len(),
        no_leaf.len(),
        features.len(),
        thresholds.len(),
    ];
    equal(lengths, count)?;
    let weights = numbers(a, node, "leaf_weights")?;
    let leaf_targets = a.ints("leaf_targetids")?.unwrap_or_default();
    if weights.len() != leaf_targets.len() {
        return Err(format!(
            "{} leaves with {} weights",
            leaf_targets.len(),
            weights.len()
        )
        .into());
    }
    let targets = a.int_or("n_targets", 1)?;
    let targets = usize::try_from(targets).map_err(|_| format!("{targets} targets"))?;
    let votes = leaf_targets.into_iter().zip(weights);
    let votes = votes
        .map(|(target, weight)| Ok((known(target, targets)?, weight)))
        .collect::<Result<Vec<_>, ParseError>>()?;

    let mut sets = Vec::new();
    let members = numbers(a, node, "membership_values")?;
    for set in members.split(|value| value.is_nan()) {
        let mut set = set.to_vec();
        set.sort_by(f64::total_cmp);
        sets.push(set);
    }
    let mut raw = Vec::with_capacity(count + votes.len());
    let mut set = 0;
    let links = yes.iter().zip(&yes_leaf).zip(no.iter().zip(&no_leaf));
    let tests = modes
        .iter()
        .zip(&missing)
        .zip(features.iter().zip(&thresholds));
    for (((&mode, &missing), (&feature, &threshold)), ((&yes, &yes_leaf), (&no, &no_leaf))) in
        tests.zip(links)
    {
        let test = match mode as i64 {
            0 => Test::AtMost,
            1 => Test::Below,
            2 => Test::AtLeast,
            3 => Test::Above,
            4 => Test::Equal,
            5 => Test::NotEqual,
            6 => {
                set += 1;
                Test::Member(set - 1)
            }
            _ => return Err(format!("unknown mode {mode}").into()),
        };
        // Leaves stand behind the other nodes.
        let place = |at: usize, leaf: usize| {
            if leaf != 0 {
                at.saturating_add(count)
            } else {
                at
            }
        };
        let inside = |at: usize, leaf: usize| at < if leaf != 0 { votes.len() } else { count };
        if !inside(yes, yes_leaf) || !inside(no, no_leaf) {
            return Err(format!("a node leads to {yes} and {no}, which are not there").into());
        }
        let (yes, no) = (place(yes, yes_leaf), place(no, no_leaf));
        raw.push(Raw {
            test,
            feature,
            threshold,
            missing: missing != 0,
            yes,
            no,
        });
    }
    if set as usize > sets.len() {
        return Err(format!("{set} nodes with sets, but {} sets", sets.len()).into());
    }
    raw.extend((0..votes.len()).map(|vote| Raw {
        test: Test::Leaf,
        feature: 0,
        threshold: 0.0,
        missing: false,
        yes: vote,
        no: vote + 1,
    }));
    let mut forest = Forest {
        nodes: Vec::with_capacity(raw.len()),
        roots: Vec::new(),
        votes,
        sets,
        features: 0,
        targets,
        aggregate: match a.int_or("aggregate_function", 1)? {
            0 => Aggregate::Average,
            1 => Aggregate::Sum,
            2 => Aggregate::Min,
            3 => Aggregate::Max,
            other => return Err(format!("unknown aggregate function {other}").into()),
        },
        base: Vec::new(),
        transform: match a.int_or("post_transform", 0)? {
            0 => PostTransform::None,
            1 => PostTransform::Softmax,
            2 => PostTransform::Logistic,
            3 => PostTransform::SoftmaxZero,
            4 => PostTransform::Probit,
            other => return Err(format!("unknown transform {other}").into()),
        },
        made: Some(made),
    };
    lay_out(&mut forest, &raw, &roots)?;
    Ok(forest)
}

fn known(target: i64, targets: usize) -> Result<usize, ParseError> {
    let found = usize::try_from(target).ok().filter(|&at| at < targets);
    Ok(found.ok_or_else(|| format!("a vote for {target} of {targets}"))?)
}

/// Copies trees in the order in which a row that passes every test reads them. A branch that
/// is reached twice is refused, so that no walk is without end.
fn lay_out(forest: &mut Forest, raw: &[Raw], roots: &[usize]) -> Result<(), ParseError> {
    let number = |at: usize| u32::try_from(at).map_err(|_| format!("more than {} nodes", u32::MAX));
    let mut seen = vec![false; raw.len()];
    for &root in roots {
        forest.roots.push(forest.nodes.len());
        // Where to go on, and the node whose false branch that is.
        let mut open = vec![(root, None)];
        while let Some((at, parent)) = open.pop() {
            let place = forest.nodes.len();
            let node = raw
                .get(at)
                .ok_or_else(|| format!("a tree begins at {at}"))?;
            let parent: Option<usize> = parent;
            if let Some(parent) = parent.and_then(|parent| forest.nodes.get_mut(parent)) {
                parent.no = number(place)?;
            }
            let (yes, no) = match node.test {
                Test::Leaf => (number(node.yes)?, number(node.no)?),
                _ => (number(place + 1)?, 0),
            };
            if node.test != Test::Leaf {
                let seen = seen.get_mut(at).filter(|seen| !**seen);
                *seen.ok_or_else(|| format!("node {at} is reached twice: no tree"))? = true;
                open.extend([(node.no, Some(place)), (node.yes, None)]);
                let feature = usize::try_from(node.feature);
                let feature = feature.map_err(|_| format!("feature {}", node.feature))?;
                forest.features = forest.features.max(feature.saturating_add(1));
            }
            forest.nodes.push(TreeNode {
                test: node.test,
                feature: u32::try_from(node.feature).unwrap_or(0),
                threshold: node.threshold,
                missing: node.missing,
                yes,
                no,
            });
        }
    }
    number(forest.features)?;
    Ok(())
}

/// Refuses lists of nodes that differ in length.
fn equal(lengths: [usize; 6], count: usize) -> Result<(), ParseError> {
    if lengths == [count; 6] {
        return Ok(());
    }
    Err(format!("its lists of nodes differ in length: {lengths:?} and {count}").into())
}
