//! From a request's body to a file of items: JSON lines, or a form of files.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyExt;

use super::items::{Caps, Head, Writer};
use crate::problem::Failure;
use crate::protocol::body;

/// The longest pause between two pieces of a body.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Writes the items of a body into `folder`; gives their number and the file's size. The body may
/// have `max_bytes`.
pub async fn receive(
    headers: &HeaderMap,
    body: Body,
    folder: &Path,
    caps: Caps,
    max_bytes: u64,
) -> Result<(u64, u64), Failure> {
    if body::announced(headers).is_some_and(|bytes| bytes > max_bytes) {
        return Err(body::refuse(body, max_bytes));
    }
    let mut body = body;
    let mut writer = Writer::create(folder, caps).await?;
    let pieces = Pieces {
        body: &mut body,
        taken: 0,
        limit: max_bytes,
    };
    let received = match boundary(headers) {
        Ok(Some(boundary)) => form(pieces, boundary, &mut writer).await,
        Ok(None) => lines(pieces, &mut writer).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = received {
        body::drain(body);
        return Err(failure);
    }
    match writer.finish().await? {
        (0, _) => Err(Failure::Refused {
            what: "the job".into(),
            reason: "it has no items: expected one JSON body a line, or a form of files".into(),
            hint: Some("Send at least one line, as in printf '{\"x\": [1]}\\n'."),
        }),
        written => Ok(written),
    }
}

/// The boundary of a form; none where the body is lines.
fn boundary(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.map_or("", |value| value.to_str().unwrap_or_default());
    if !kind
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("multipart/")
    {
        return Ok(None);
    }
    multer::parse_boundary(kind).map(Some).map_err(|_| {
        Failure::BadRequest(format!(
            "content type `{}`: expected application/x-ndjson, or multipart/form-data with its \
             boundary",
            kind.chars().take(100).collect::<String>()
        ))
    })
}

/// What is left of a body.
struct Pieces<'a> {
    body: &'a mut Body,
    taken: u64,
    limit: u64,
}

impl<'a> Pieces<'a> {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = tokio::time::timeout(MAX_PAUSE, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| Failure::Deadline { limit: MAX_PAUSE })? else {
                return Ok(None);
            };
            let frame =
                frame.map_err(|error| Failure::BadBody(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.taken += data.len() as u64;
            if self.taken > self.limit {
                return Err(Failure::TooLarge { limit: self.limit });
            }
            return Ok(Some(data));
        }
    }

    /// The same as a stream that gives one piece a poll: who reads it takes all that it gives at
    /// once into memory.
    fn stream(self) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'a {
        futures::stream::unfold(self, |mut pieces| async move {
            tokio::task::yield_now().await;
            let next = pieces.next().await.transpose()?;
            Some((next, pieces))
        })
    }
}

/// One item a line; lines of blanks alone are none.
async fn lines(mut pieces: Pieces<'_>, writer: &mut Writer) -> Result<(), Failure> {
    let mut head = Head {
        line: 1,
        ..Head::default()
    };
    let mut begun = false;
    while let Some(piece) = pieces.next().await? {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let text = match begun {
                true => text,
                false => text.trim_ascii_start(),
            };
            if !begun && !text.is_empty() {
                writer.begin(&head).await?;
                begun = true;
            }
            writer.piece(text).await?;
            if ends {
                if std::mem::take(&mut begun) {
                    writer.end().await?;
                }
                head.line += 1;
            }
        }
    }
    match begun {
        true => writer.end().await,
        false => Ok(()),
    }
}

/// One item a part.
async fn form(pieces: Pieces<'_>, boundary: String, writer: &mut Writer) -> Result<(), Failure> {
    let mut form = multer::Multipart::new(pieces.stream(), boundary);
    while let Some(mut part) = form.next_field().await.map_err(broken)? {
        let name = part
            .file_name()
            .or(part.name())
            .unwrap_or("a part without a name");
        let head = Head {
            line: 0,
            name: name.to_owned(),
            media_type: part
                .content_type()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
        writer.begin(&head).await?;
        while let Some(piece) = part.chunk().await.map_err(broken)? {
            writer.piece(&piece).await?;
        }
        writer.end().await?;
    }
    Ok(())
}

/// What is wrong with a form: its form, or what carried it.
fn broken(error: multer::Error) -> Failure {
    if let multer::Error::StreamReadFailed(carried) = &error
        && let Some(failure) = carried.downcast_ref::<Failure>()
    {
        return failure.clone();
    }
    Failure::BadBody(format!("the form can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::items::Reader;
    use super::*;

    const CAPS: Caps = Caps {
        items: 100,
        body: 64,
    };

    /// What is kept of a body that comes in these pieces.
    async fn kept(kind: &str, pieces: Vec<String>) -> Result<Vec<(u64, String, String)>, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures::stream::iter(pieces));
        let (items, _) = receive(&headers, body, folder.path(), CAPS, 1000).await?;
        let mut reader = Reader::open(folder.path(), items).unwrap();
        let next = std::iter::from_fn(|| reader.next(|_| false).unwrap());
        let kept = next.map(|item| {
            let body = String::from_utf8(item.body).unwrap();
            (item.head.line, item.head.name, body)
        });
        Ok(kept.collect())
    }

    /// A text cut everywhere.
    fn bytewise(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[tokio::test]
    async fn lines_are_items_however_they_arrive() {
        let text = "{\"x\": 1}\n\n  {\"x\": 2}\r\n \n[3]";
        let expected = [
            (1, String::new(), "{\"x\": 1}".to_owned()),
            (3, String::new(), "{\"x\": 2}\r".to_owned()),
            (5, String::new(), "[3]".to_owned()),
        ];
        for pieces in [vec![text.to_owned()], bytewise(text)] {
            assert_eq!(
                kept("application/x-ndjson", pieces).await.unwrap(),
                expected
            );
        }
        let none = kept("application/x-ndjson", bytewise("\n \n")).await;
        assert!(matches!(none, Err(Failure::Refused { .. })));
    }

    #[tokio::test]
    async fn parts_of_a_form_are_items_however_they_arrive() {
        let text = "--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\
                    content-type: text/plain\r\n\r\none\r\ntwo\r\n--b\r\n\
                    content-disposition: form-data; name=\"g\"\r\n\r\n\r\n--b--\r\n";
        let expected = [
            (0, "a.txt".to_owned(), "one\r\ntwo".to_owned()),
            (0, "g".to_owned(), String::new()),
        ];
        let kind = "multipart/form-data; boundary=b";
        for pieces in [vec![text.to_owned()], bytewise(text)] {
            assert_eq!(kept(kind, pieces).await.unwrap(), expected);
        }
        let cut = kept(kind, vec![text[..text.len() - 20].to_owned()]).await;
        assert!(matches!(cut, Err(Failure::BadBody(_))), "{cut:?}");
        let other = kept("multipart/mixed; boundary=b", vec![]).await;
        assert!(matches!(other, Err(Failure::BadRequest(_))), "{other:?}");
        let large = kept(kind, bytewise(&text.replace("one", &"1".repeat(2000)))).await;
        assert!(large.is_err());
    }

    #[tokio::test]
    async fn what_is_over_a_cap_is_refused() {
        let long = kept("application/x-ndjson", vec!["1\n".into(), "x".repeat(65)]).await;
        let refusal = long.unwrap_err().to_string();
        assert!(
            refusal.starts_with("line 2: it is larger than 64"),
            "{refusal}"
        );
        let many = kept("application/x-ndjson", vec!["1\n".repeat(101)]).await;
        assert!(
            many.unwrap_err()
                .to_string()
                .contains("more than 100 items")
        );
        let large = kept(
            "application/x-ndjson",
            vec![" ".repeat(600), " ".repeat(600)],
        )
        .await;
        assert!(matches!(large, Err(Failure::TooLarge { limit: 1000 })));
    }
}
