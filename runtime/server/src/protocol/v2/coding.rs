//! Bodies that are compressed with gzip or deflate, both ways. What HTTP calls `deflate` is zlib's
//! format (RFC 9110, section 8.4.1).

use std::io::{Read, Write};

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::problem::Failure;

/// What is taken, as `Accept-Encoding` says it.
pub const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, deflate");

/// Answers below so many bytes are sent as they are: their heads are as long.
const WORTH_IT: usize = 1 << 10;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, around RFC 1951.
    Deflate,
}

impl Coding {
    /// As headers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name {
            _ if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            _ if is("deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    /// How a request's body is compressed; `None` where it is not.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or("what is no text").trim();
        if text.is_empty() || text.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        match (Self::named(text), values.next()) {
            (Some(coding), None) => Ok(Some(coding)),
            _ => Err(Failure::Coding(format!(
                "header Content-Encoding: expected one of gzip and deflate, found `{text}`{}",
                if values.next().is_some() {
                    " and more"
                } else {
                    ""
                }
            ))),
        }
    }

    /// How an answer of `size` bytes is to be compressed, if it is: of what the caller takes, what it
    /// likes best.
    pub fn wanted(headers: &HeaderMap, size: usize) -> Option<Self> {
        if size < WORTH_IT {
            return None;
        }
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let each = texts.flat_map(|text| text.split(','));
        let mut best: Option<(Self, f32)> = None;
        for item in each {
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            let weight = match weight.trim().strip_prefix("q=") {
                Some(weight) => weight.trim().parse().unwrap_or(0.0),
                None => 1.0,
            };
            let Some(coding) = Self::named(name.trim()) else {
                continue;
            };
            if weight > 0.0 && best.is_none_or(|(_, least)| weight > least) {
                best = Some((coding, weight));
            }
        }
        best.map(|(coding, _)| coding)
    }

    /// A compressed body as it was before; at most `limit` bytes of it. Blocking.
    pub fn inflate(self, body: &[u8], limit: usize) -> Result<Bytes, Failure> {
        let mut whole = Vec::new();
        let most = limit as u64 + 1;
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(body).take(most).read_to_end(&mut whole),
            Self::Deflate => ZlibDecoder::new(body).take(most).read_to_end(&mut whole),
        };
        if let Err(error) = read {
            return Err(Failure::BadBody(format!(
                "the body is not whole {}, as Content-Encoding says it is: {error}",
                self.name()
            )));
        }
        if whole.len() > limit {
            return Err(Failure::TooLarge {
                limit: limit as u64,
            });
        }
        Ok(whole.into())
    }

    /// Parts, compressed as one body. Blocking.
    pub fn compress(self, parts: &[Bytes]) -> std::io::Result<Vec<u8>> {
        let size: usize = parts.iter().map(Bytes::len).sum();
        let out = Vec::with_capacity(size / 2);
        // The answer is waited for: the quickest is best.
        let level = Compression::fast();
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, level);
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(out, level);
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Deflate];

    fn headers(name: header::HeaderName, text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(text))])
    }

    #[test]
    fn what_is_compressed_inflates_to_the_same() {
        let parts = [Bytes::from_static(b"ab"), Bytes::from(vec![7; 5000])];
        for coding in BOTH {
            let packed = coding.compress(&parts).unwrap();
            assert!(packed.len() < 200);
            let whole = coding.inflate(&packed, 5002).unwrap();
            assert_eq!(whole, parts.concat());
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_whole() {
        let zeros = Bytes::from(vec![0; 1 << 20]);
        let bomb = vec![zeros; 64];
        for coding in BOTH {
            let packed = coding.compress(&bomb).unwrap();
            assert!(packed.len() < 1 << 20);
            let error = coding.inflate(&packed, 1 << 20).unwrap_err();
            assert!(matches!(error, Failure::TooLarge { limit: 1_048_576 }));
        }
    }

    #[test]
    fn what_is_torn_or_no_such_thing_is_refused() {
        for coding in BOTH {
            let packed = coding.compress(&[Bytes::from(vec![7; 5000])]).unwrap();
            for body in [&packed[..packed.len() - 3], b"not compressed at all", b""] {
                let said = coding.inflate(body, 9999).unwrap_err().to_string();
                assert!(said.starts_with("the body is not whole"), "{said}");
            }
        }
        let of = |text| Coding::of(&headers(header::CONTENT_ENCODING, text));
        assert_eq!(of("GZIP").unwrap(), Some(Coding::Gzip));
        assert_eq!(of("identity").unwrap(), None);
        assert_eq!(of("br").unwrap_err().status(), 415);
        assert_eq!(of("gzip, deflate").unwrap_err().status(), 415);
    }

    #[test]
    fn an_answer_is_compressed_as_its_caller_likes_best_where_that_is_worth_it() {
        let wanted = |text, size| Coding::wanted(&headers(header::ACCEPT_ENCODING, text), size);
        assert_eq!(wanted("gzip, deflate, br", 5000), Some(Coding::Gzip));
        assert_eq!(wanted("deflate, gzip;q=0.5", 5000), Some(Coding::Deflate));
        assert_eq!(wanted("gzip;q=0, br", 5000), None);
        assert_eq!(wanted("gzip", 100), None);
        assert_eq!(Coding::wanted(&HeaderMap::new(), 5000), None);
    }
}
