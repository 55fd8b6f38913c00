//! What a request's `Cache-Control` asks (RFC 9111, section 5.2.1).

use std::time::Duration;

use axum::http::{HeaderMap, header};

/// The directives that the cache follows; others are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Neither answer from the cache nor keep the answer.
    pub no_store: bool,
    /// Compute the answer, and keep it in the place of what is kept.
    pub no_cache: bool,
    /// The oldest answer that will do.
    pub max_age: Option<Duration>,
}

impl Directives {
    /// Of a request. What can't be read as an age is no age, so that nothing kept will do.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        let values = headers.get_all(header::CACHE_CONTROL).iter();
        let texts = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        for text in texts {
            for directive in text.split(',') {
                let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
                match name.trim().to_ascii_lowercase().as_str() {
                    "no-store" => asked.no_store = true,
                    "no-cache" => asked.no_cache = true,
                    "max-age" => {
                        let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
                        asked.max_age = Some(Duration::from_secs(seconds));
                    }
                    _ => {}
                }
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Directives {
        let values = values.iter().map(|value| (header::CACHE_CONTROL, *value));
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value.parse().unwrap());
        }
        Directives::of(&headers)
    }

    #[test]
    fn directives_are_read_in_any_case_from_any_number_of_headers() {
        assert_eq!(of(&[]), Directives::default());
        assert!(of(&["No-Store"]).no_store);
        assert!(of(&["max-stale=3, no-cache"]).no_cache);
        let asked = of(&["no-transform", "MAX-AGE=30 , no-cache"]);
        assert_eq!(asked.max_age, Some(Duration::from_secs(30)));
        assert!(asked.no_cache && !asked.no_store);
        assert_eq!(of(&["max-age=\"5\""]).max_age, Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_age_that_cannot_be_read_is_none() {
        for text in ["max-age", "max-age=", "max-age=-1", "max-age=soon"] {
            assert_eq!(of(&[text]).max_age, Some(Duration::ZERO), "{text}");
        }
    }
}
