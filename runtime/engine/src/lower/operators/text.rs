//! Strings.

use std::sync::Arc;

use bytes::Bytes;
use regex::Regex;

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    _: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(Op::Text(match operator {
        "StringConcat" => Text::Concat,
        "StringSplit" => Text::Split {
            delimiter: a.text("delimiter")?.filter(|text| !text.is_empty()),
            // Below zero there is no limit.
            limit: a.int("maxsplit")?.and_then(|n| usize::try_from(n).ok()),
        },
        "StringNormalizer" => Text::Normalize {
            case: match a.text("case_change_action")?.as_deref() {
                None | Some("NONE") => None,
                Some("LOWER") => Some(Case::Lower),
                Some("UPPER") => Some(Case::Upper),
                Some(other) => return Err(format!("unknown change of case `{other}`").into()),
            },
            case_sensitive: a.flag("is_case_sensitive", false)?,
            stop_words: a.texts("stopwords")?.unwrap_or_default(),
        },
        "RegexFullMatch" => {
            let pattern = a.text("pattern")?.unwrap_or_default();
            let anchored = Regex::new(&format!(r"\A(?:{pattern})\z"));
            Text::FullMatch(anchored.map_err(|error| format!("its pattern: {error}"))?)
        }
        "TfIdfVectorizer" => return Ok(Some(Op::TfIdf(tf_idf(a)?))),
        _ => return Ok(None),
    })))
}

fn tf_idf(a: &mut Attributes) -> Result<TfIdf, ParseError> {
    let size = |a: &mut Attributes, name: &str| -> Result<usize, ParseError> {
        let found = a.int(name)?.map(usize::try_from);
        match found {
            Some(Ok(size)) => Ok(size),
            _ => Err(format!("attribute `{name}` is missing or below 0").into()),
        }
    };
    let (shortest, longest) = (size(a, "min_gram_length")?, size(a, "max_gram_length")?);
    if shortest == 0 || longest < shortest {
        return Err(format!("n-grams of {shortest} to {longest} tokens").into());
    }
    let counts = match a.text("mode")?.as_deref() {
        Some("TF") => Counts::Plain,
        Some("IDF") => Counts::Presence,
        Some("TFIDF") => Counts::Weighted,
        _ => return Err("attribute `mode` is none of TF, IDF and TFIDF".into()),
    };
    let indexes = a.sizes("ngram_indexes")?;
    let columns = indexes
        .iter()
        .max()
        .map_or(0, |last| last.saturating_add(1));
    let weights = a.floats("weights")?.unwrap_or_default();
    if !weights.is_empty() && weights.len() < columns {
        return Err(format!("{} weights for {columns} columns", weights.len()).into());
    }
    let starts = a.sizes("ngram_counts")?;
    let (pool, strings): (Vec<Bytes>, bool) =
        match (a.texts("pool_strings")?, a.ints("pool_int64s")?) {
            (Some(texts), None) => (texts.into_iter().map(Bytes::from).collect(), true),
            (None, Some(numbers)) => {
                let bytes = |n: &i64| Bytes::copy_from_slice(&n.to_le_bytes());
                (numbers.iter().map(bytes).collect(), false)
            }
            _ => return Err("expected one of `pool_strings` and `pool_int64s`".into()),
        };
    Ok(TfIdf {
        shortest,
        longest,
        skips: size(a, "max_skip_count")?,
        counts,
        weights,
        columns,
        grams: Arc::new(grams(
            &pool,
            strings,
            &starts,
            &indexes,
            shortest..=longest,
        )?),
    })
}

/// The tree of the n-grams in a pool, which holds those of one token, then those of two, …,
/// each size from its start on.
fn grams(
    pool: &[Bytes],
    strings: bool,
    starts: &[usize],
    indexes: &[usize],
    wanted: std::ops::RangeInclusive<usize>,
) -> Result<Grams, String> {
    let mut grams = Grams {
        columns: vec![None],
        strings,
        ..Grams::default()
    };
    let mut columns = indexes.iter();
    let ends = starts.iter().skip(1).copied().chain([pool.len()]);
    for (size, (&start, end)) in (1..).zip(starts.iter().zip(ends)) {
        let part = pool.get(start..end);
        let part = part.filter(|part| part.len() % size == 0).ok_or_else(|| {
            format!(
                "{size}-grams from {start} to {end} in a pool of {}",
                pool.len()
            )
        })?;
        for gram in part.chunks_exact(size) {
            let column = columns.next();
            let column = *column.ok_or("more n-grams than `ngram_indexes`")?;
            if !wanted.contains(&size) {
                continue;
            }
            let mut node = 0;
            for token in gram {
                let number = grams.tokens.len();
                let token = *grams.tokens.entry(token.clone()).or_insert(number);
                let fresh = grams.columns.len();
                node = *grams.next.entry((node, token)).or_insert(fresh);
                if node == fresh {
                    grams.columns.push(None);
                }
            }
            if let Some(slot) = grams.columns.get_mut(node) {
                *slot = Some(column);
            }
        }
    }
    Ok(grams)
}
