//! The key of a caller: where a request carries it, and the point that it stands for.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use firebox_registry::{Digest, StickyKey};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Caller;

/// The bytes of a key that count; more would cost more than the resolve is allowed to.
const LONGEST: usize = 256;

/// The key of a request, if it carries one; an empty one is none.
pub fn find<'a>(sticky: &StickyKey, caller: &Caller<'a>) -> Option<Cow<'a, [u8]>> {
    let key = match sticky {
        StickyKey::Header(name) => Cow::Borrowed(caller.headers.get(name)?.as_bytes()),
        StickyKey::Cookie(name) => Cow::Borrowed(cookie(caller.headers, name)?.as_bytes()),
        StickyKey::Body(pointer) => in_json(caller.body?, pointer)?,
    };
    (!key.is_empty()).then_some(key)
}

/// The point in 0..10,000 of a key: the first eight bytes of SHA-256 over the function's name, a
/// zero byte and the key, as a fraction of all that eight bytes can say. The name is in it so that
/// a caller who has the new version of one function has not those of all others.
pub fn point(function: &str, key: &[u8]) -> u16 {
    let key = key.get(..LONGEST).unwrap_or(key);
    let mut salted = Vec::with_capacity(function.len() + 1 + key.len());
    salted.extend_from_slice(function.as_bytes());
    salted.push(0);
    salted.extend_from_slice(key);
    let hash = Digest::of(&salted).leading();
    ((u128::from(hash) * 10_000) >> 64) as u16
}

/// A cookie's value (RFC 6265): the first of that name.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(found, _)| *found == name)?.1;
    Some(value.trim_matches('"'))
}

/// The string, number or boolean at a JSON pointer; `None` where there is none, or the body isn't
/// JSON. Only what the pointer leads to is kept, so that a body of many arrays costs one pass.
fn in_json<'a>(body: &'a [u8], pointer: &str) -> Option<Cow<'a, [u8]>> {
    let text = std::str::from_utf8(body).ok()?;
    let path: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = At(&path).deserialize(&mut reader).ok().flatten()?.get();
    match found.as_bytes().first()? {
        b'"' => {
            let text: Cow<'a, str> = serde_json::from_str::<Text<'a>>(found).ok()?.0;
            Some(match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            })
        }
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(found.as_bytes())),
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads what a path leads to, and skips all else.
struct At<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => <&RawValue as serde::Deserialize>::deserialize(reader).map(Some),
            _ => reader.deserialize_any(self),
        }
    }
}

/// A position in a list: digits without a leading zero.
fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || (!step.starts_with('0') && step.bytes().all(|b| b.is_ascii_digit()));
    plain.then(|| step.parse().ok()).flatten()
}

/// A scalar on the way leads nowhere.
macro_rules! nowhere {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok(None)
        })*
    };
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    nowhere!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Text<'de>>()? {
            match self.0.split_first() {
                Some((step, rest)) if found.is_none() && name.0 == *step => {
                    found = map.next_value_seed(At(rest))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let step = self.0.split_first();
        let wanted = step.and_then(|(step, rest)| Some((index(step)?, rest)));
        let mut found = None;
        for at in 0usize.. {
            match wanted {
                Some((index, rest)) if index == at => match list.next_element_seed(At(rest))? {
                    Some(element) => found = element,
                    None => break,
                },
                _ if list.next_element::<IgnoredAny>()?.is_none() => break,
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    fn key(sticky: StickyKey, headers: &[(&'static str, &str)], body: &str) -> Option<String> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .collect();
        let caller = Caller {
            id: Uuid::nil(),
            headers: &headers,
            body: Some(body.as_bytes()),
        };
        find(&sticky, &caller).map(|key| String::from_utf8(key.into_owned()).unwrap())
    }

    #[test]
    fn a_key_is_found_in_a_header_or_a_cookie() {
        let header = || StickyKey::Header("x-user".into());
        assert_eq!(key(header(), &[("x-user", "ann")], ""), Some("ann".into()));
        assert_eq!(key(header(), &[("x-other", "ann")], ""), None);
        assert_eq!(key(header(), &[("x-user", "")], ""), None);
        let cookie = || StickyKey::Cookie("sid".into());
        let sent = [("cookie", "a=1; sid=\"x=y\"; sid=2")];
        assert_eq!(key(cookie(), &sent, ""), Some("x=y".into()));
        assert_eq!(key(cookie(), &[("cookie", "sidx=1; ;=; sid")], ""), None);
    }

    #[test]
    fn a_key_is_found_in_a_body_by_its_pointer() {
        let body = r#"{"x": [[1, 2], {"id": 7}], "a/b": {"~": "t\u0061b"}, "n": null, "t": true, "user": {"id": "ann"}}"#;
        for (pointer, found) in [
            ("/user/id", Some("ann")),
            ("/x/1/id", Some("7")),
            ("/x/0/1", Some("2")),
            ("/a~1b/~0", Some("tab")),
            ("/t", Some("true")),
            ("/n", None),
            ("/user", None),
            ("/x", None),
            ("/x/9", None),
            ("/x/id", None),
            ("/t/id", None),
            ("/user/id/more", None),
            ("/nobody", None),
        ] {
            let at = StickyKey::Body(pointer.into());
            assert_eq!(key(at, &[], body).as_deref(), found, "{pointer}");
        }
        for body in ["", "{", "[1", "{\"user\": {\"id\": \"ann\"", "\u{0}"] {
            assert_eq!(
                key(StickyKey::Body("/user/id".into()), &[], body),
                None,
                "{body}"
            );
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c\"\\\\é]{1,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let map = prop::collection::btree_map("[a-c0-2~/]{1,2}", inner, 0..4);
            prop_oneof![
                list,
                map.prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn a_pointer_finds_what_it_finds_in_the_whole_value(
            body in any_json(), pointer in "(/([a-c0-2]|~0|~1){1,2}){1,3}",
        ) {
            let expected = match body.pointer(&pointer) {
                Some(Value::String(text)) => Some(text.clone()),
                Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => None,
                Some(scalar) => Some(scalar.to_string()),
            };
            prop_assert_eq!(key(StickyKey::Body(pointer), &[], &body.to_string()), expected);
        }
    }

    #[test]
    fn points_are_those_of_the_documentation() {
        // printf 'file-type\0ann' | sha256sum, its first 16 digits times 10000 / 2^64.
        assert_eq!(point("file-type", b"ann"), 7665);
        assert_eq!(point("f", &[b'x'; 300]), point("f", &[b'x'; 256]));
    }
}
