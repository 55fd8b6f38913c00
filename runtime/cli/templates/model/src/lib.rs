//! Names a colour: the body of a request is a colour as `#rrggbb`, the answer
//! the name that a model finds for it.

use firebox_sdk::{Error, Json, Result, Tensor, argmax, function, model};
use serde::Serialize;

/// One name for each of the model's outputs.
struct Names(Vec<String>);

impl Names {
    /// Runs once, at upload; every request starts from the memory that it leaves behind.
    fn load() -> Result<Self> {
        let text = std::fs::read_to_string("/names.txt")
            .map_err(|error| Error::internal(format!("can't read /names.txt: {error}")))?;
        Ok(Self(text.lines().map(String::from).collect()))
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Colour {
    name: String,
    /// From 0 to 1.
    confidence: f32,
}

/// What Firebox calls for each request.
#[function(init = Names::load)]
fn colour(names: &Names, text: String) -> Result<Json<Colour>> {
    let input = Tensor::new([1, 3], rgb(&text)?)?;
    let probabilities = model("colours")?
        .run([("rgb", input)])?
        .take::<f32>("probabilities")?;
    Ok(Json(best(&names.0, probabilities.data())?))
}

/// `#f08c14` as three numbers from 0 to 1.
fn rgb(text: &str) -> Result<[f32; 3]> {
    let text = text.trim();
    let refused = || Error::invalid_input(format!("expected a colour as #rrggbb, found `{text}`"));
    let digits = text.strip_prefix('#').ok_or_else(refused)?;
    if digits.len() != 6 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(refused());
    }
    let number = u32::from_str_radix(digits, 16)?;
    let [_, red, green, blue] = number.to_be_bytes();
    Ok([red, green, blue].map(|byte| f32::from(byte) / 255.0))
}

fn best(names: &[String], probabilities: &[f32]) -> Result<Colour> {
    let best = argmax(probabilities).and_then(|at| Some((names.get(at)?, probabilities.get(at)?)));
    let (name, &confidence) =
        best.ok_or_else(|| Error::internal("names.txt doesn't fit the model's outputs"))?;
    Ok(Colour {
        name: name.clone(),
        confidence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_is_three_numbers() {
        assert_eq!(rgb(" #ff0033\n"), Ok([1.0, 0.0, 0.2]));
    }

    #[test]
    fn anything_else_is_refused_with_what_was_found() {
        for text in ["", "#fff", "ff0033", "#ff00zz", "#+f0033", "#é0033"] {
            let error = rgb(text).unwrap_err();
            assert_eq!(
                error.message(),
                format!("expected a colour as #rrggbb, found `{text}`")
            );
        }
    }

    #[test]
    fn the_most_probable_name_is_the_answer() {
        let names = ["red".to_string(), "blue".to_string()];
        let found = best(&names, &[0.25, 0.75]).unwrap();
        assert_eq!((found.name.as_str(), found.confidence), ("blue", 0.75));
        assert!(best(&names, &[0.0, 0.0, 1.0]).is_err());
    }
}
