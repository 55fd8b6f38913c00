//! What stands on the wire, one file per protocol: each decodes requests into
//! questions for the gateway and encodes its answers.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use firebox_registry::{Change, Label, VersionNumber};
use serde::de::DeserializeOwned;

use crate::gateway::{Asker, Call, Opened};
use crate::problem::Failure;
use crate::routing::Selector;
use crate::server::App;

pub mod arrays;
pub mod body;
pub mod control;
pub mod cost;
pub mod grpc;
pub mod handler;
pub mod info;
pub mod invoke;
pub mod jobs;
mod path;
pub mod raw;
pub mod residency;
pub mod rollout;
pub mod traffic;
pub mod v2;
pub mod versions;

use path::Path;

/// Begins the call that a request makes. Its body is read after that, but for functions whose
/// callers are told apart by it; it is given back whole either way.
async fn open(
    app: &App,
    function: &str,
    path: Result<Selector, Failure>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Call, Body), Failure> {
    let (selector, timeout) = (selector(path?, headers)?, timeout(headers)?);
    let open =
        |asker: &Asker<'_>, early| app.gateway.open(function, &selector, asker, timeout, early);
    let asker = Asker {
        headers,
        body: None,
    };
    let early = match open(&asker, None)? {
        Opened::Call(call) => return Ok((call, body)),
        Opened::Early(early) => early,
    };
    let read = early.within(body::read(headers, body, app.config.max_body));
    let bytes = read.await?;
    let asker = Asker {
        headers,
        body: Some(&bytes),
    };
    match open(&asker, Some(early))? {
        Opened::Call(call) => Ok((call, Body::from(bytes))),
        Opened::Early(_) => Err(Failure::Internal("the body was read already".into())),
    }
}

/// The version that a request asks for: what its path says, else its headers.
pub fn selector(path: Selector, headers: &HeaderMap) -> Result<Selector, Failure> {
    if path != Selector::Split {
        return Ok(path);
    }
    if let Some(text) = header(headers, "x-firebox-version")? {
        return pin(text);
    }
    match header(headers, "x-firebox-label")? {
        Some(text) => label(text),
        None => Ok(Selector::Split),
    }
}

/// A version's number in a path or header.
pub fn pin(text: &str) -> Result<Selector, Failure> {
    version_number(text).map(Selector::Pin)
}

/// A version's number in a path or header.
pub fn version_number(text: &str) -> Result<VersionNumber, Failure> {
    text.parse().map_err(bad_request)
}

/// A label in a path or header.
pub fn label(text: &str) -> Result<Selector, Failure> {
    text.parse::<Label>()
        .map(Selector::Label)
        .map_err(bad_request)
}

/// The caller's own bound on the time, in `X-Firebox-Timeout-Ms`.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(text) = header(headers, "x-firebox-timeout-ms")? else {
        return Ok(None);
    };
    let ms = text.parse().ok().filter(|ms| *ms > 0);
    let ms = ms.ok_or_else(|| {
        Failure::BadRequest(format!(
            "header X-Firebox-Timeout-Ms: expected whole milliseconds, 1 or more, found `{text}`"
        ))
    })?;
    Ok(Some(Duration::from_millis(ms)))
}

/// A header's text, if it is there.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Failure> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().map(str::trim);
    text.map(Some)
        .map_err(|_| Failure::BadRequest(format!("header {name} is not ASCII text")))
}

/// Who makes a change, in `X-Firebox-Author`; empty where nobody is named.
pub fn author(headers: &HeaderMap) -> Result<String, Failure> {
    prose(headers, "x-firebox-author")
}

/// Who makes a change and why: `X-Firebox-Author` and `X-Firebox-Reason`.
pub fn change(headers: &HeaderMap) -> Result<Change, Failure> {
    let reason = prose(headers, "x-firebox-reason")?;
    Ok(Change::new(author(headers)?, reason))
}

/// A header that people wrote: UTF-8, where others are ASCII.
fn prose(headers: &HeaderMap, name: &str) -> Result<String, Failure> {
    let value = headers.get(name).map_or(&[][..], |value| value.as_bytes());
    let text = std::str::from_utf8(value);
    text.map(str::to_owned)
        .map_err(|_| Failure::BadRequest(format!("header {name} is not UTF-8 text")))
}

fn bad_request(error: impl std::fmt::Display) -> Failure {
    Failure::BadRequest(error.to_string())
}

/// A body's text.
pub fn utf8(body: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(body).map_err(|error| {
        Failure::BadBody(format!(
            "the body is not UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })
}

/// Reads a JSON object; `form` shows what one looks like. serde would read a list as an object
/// too, member by member, which is no way to say where traffic goes.
pub fn object<T: DeserializeOwned>(body: &[u8], form: &str) -> Result<T, Failure> {
    let text = utf8(body)?;
    let wrong = |why: &dyn std::fmt::Display| Failure::BadBody(format!("expected {form}: {why}"));
    if !text.trim_start().starts_with('{') {
        return Err(wrong(&"this is no JSON object"));
    }
    serde_json::from_str(text).map_err(|error| wrong(&error))
}

/// The same where there may be no body at all.
pub fn object_or_default<T: DeserializeOwned + Default>(
    body: &[u8],
    form: &str,
) -> Result<T, Failure> {
    match body.trim_ascii() {
        b"" => Ok(T::default()),
        body => object(body, form),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn the_path_goes_before_the_pin_and_the_pin_before_the_label() {
        let both = headers(&[("x-firebox-version", "2"), ("x-firebox-label", "stable")]);
        assert_eq!(
            selector(pin("1").unwrap(), &both).unwrap(),
            pin("1").unwrap()
        );
        assert_eq!(selector(Selector::Split, &both).unwrap(), pin("2").unwrap());
        let one = headers(&[("x-firebox-label", "stable")]);
        assert_eq!(
            selector(Selector::Split, &one).unwrap(),
            label("stable").unwrap()
        );
        assert_eq!(
            selector(Selector::Split, &headers(&[])).unwrap(),
            Selector::Split
        );
    }

    #[test]
    fn a_header_that_cannot_be_read_is_refused() {
        let bad = headers(&[("x-firebox-version", "two"), ("x-firebox-timeout-ms", "1s")]);
        assert!(matches!(
            selector(Selector::Split, &bad),
            Err(Failure::BadRequest(_))
        ));
        assert!(matches!(timeout(&bad), Err(Failure::BadRequest(_))));
        let none = headers(&[("x-firebox-timeout-ms", "0")]);
        assert!(matches!(timeout(&none), Err(Failure::BadRequest(_))));
    }
}
