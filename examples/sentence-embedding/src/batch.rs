//! Sentences of different lengths as one rectangle of tokens.

use firebox_sdk::{Result, Tensor};

/// Token ids of some sentences, padded to the longest.
pub struct Batch {
    /// Tokens of each sentence, without padding.
    pub lengths: Vec<usize>,
    /// Tokens of the longest sentence.
    pub columns: usize,
    /// Row-major [sentences, columns]; padding is 0.
    ids: Vec<i64>,
    /// The same shape; 1 for a token, 0 for padding.
    mask: Vec<i64>,
}

impl Batch {
    /// A batch with one row for each of `sentences`, given as token ids.
    pub fn new(sentences: &[Vec<i64>]) -> Self {
        let lengths: Vec<usize> = sentences.iter().map(Vec::len).collect();
        let columns = lengths.iter().copied().max().unwrap_or(0);
        let padded = |sentence: &[i64]| {
            let mut row = sentence.to_vec();
            row.resize(columns, 0);
            row
        };
        let ids = sentences
            .iter()
            .flat_map(|sentence| padded(sentence))
            .collect();
        let mask = lengths
            .iter()
            .flat_map(|length| padded(&vec![1; *length]))
            .collect();
        Self {
            lengths,
            columns,
            ids,
            mask,
        }
    }

    /// The inputs of a BERT encoder, each int64 [sentences, columns].
    ///
    /// # Errors
    /// None that a batch made by [`Batch::new`] meets.
    pub fn inputs(self) -> Result<[(&'static str, Tensor<i64>); 3]> {
        let shape = [self.lengths.len(), self.columns];
        let segment = vec![0; self.ids.len()];
        Ok([
            ("input_ids", Tensor::new(shape, self.ids)?),
            ("attention_mask", Tensor::new(shape, self.mask)?),
            ("token_type_ids", Tensor::new(shape, segment)?),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_sentences_are_padded_and_masked() {
        let [ids, mask, segment] = Batch::new(&[vec![101, 7, 102], vec![101, 102]])
            .inputs()
            .unwrap();
        assert_eq!(ids.1.shape(), [2, 3]);
        assert_eq!(ids.1.data(), [101, 7, 102, 101, 102, 0]);
        assert_eq!(mask.1.data(), [1, 1, 1, 1, 1, 0]);
        assert_eq!(segment.1.data(), [0; 6]);
    }
}
