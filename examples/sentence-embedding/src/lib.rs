//! A sentence in, a unit vector of 384 numbers out: the dot product of two such vectors says how
//! near two sentences are in meaning.
//!
//! The way: [`request`] reads the body, [`tokenizer`] turns words into ids, [`batch`] pads them to
//! one rectangle, the model gives a vector for each token, and [`pooling`] makes one of each sentence's.

pub mod batch;
pub mod pooling;
pub mod request;
pub mod tokenizer;

use batch::Batch;
use firebox_sdk::{Bytes, Error, Json, Parameters, Result, function, model};
use pooling::sentence_vector;
use request::Sentences;
use serde::Serialize;
use tokenizer::Tokenizer;

/// The numbers in a sentence's vector.
pub const WIDTH: usize = 384;

/// The answer: the form follows the question's.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To plain text.
    One {
        /// Its vector.
        embedding: Vec<f32>,
    },
    /// To JSON with several sentences.
    Many {
        /// Their vectors, in the order of the sentences.
        embeddings: Vec<Vec<f32>>,
    },
}

/// Runs once, at upload; the tokenizer that it makes lies in the memory that every request starts from.
fn load() -> Result<Tokenizer> {
    Ok(Tokenizer::new(&std::fs::read_to_string("/vocab.txt")?)?)
}

#[function(init = load)]
fn sentence_embedding(
    tokenizer: &Tokenizer,
    body: Bytes,
    parameters: Parameters,
) -> Result<Json<Answer>> {
    let sentences = Sentences::read(&body, parameters.content_type())?;
    let mut tokens = Vec::new();
    for (sentence, number) in sentences.as_slice().iter().zip(1..) {
        let ids = tokenizer.encode(sentence);
        if let [_start, _end] = ids.as_slice() {
            let why = format!("sentence {number} has no words; expected some text");
            return Err(Error::invalid_input(why));
        }
        tokens.push(ids);
    }

    let batch = Batch::new(&tokens);
    let (lengths, columns) = (batch.lengths.clone(), batch.columns);
    let hidden = model("minilm")?
        .run(batch.inputs()?)?
        .take::<f32>("last_hidden_state")?;
    let rows = hidden.data().chunks_exact(columns * WIDTH).zip(lengths);
    let mut embeddings: Vec<_> = rows
        .map(|(hidden, length)| sentence_vector(hidden, length, WIDTH))
        .collect();
    Ok(Json(match sentences {
        Sentences::One(_) => Answer::One {
            embedding: embeddings.pop().unwrap_or_default(),
        },
        Sentences::Many(_) => Answer::Many { embeddings },
    }))
}
