//! From a request's body to a file of items: JSON lines, or a form of files.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Poll, ready};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyExt;

use super::items::{Caps, Head, Writer};
use crate::problem::Failure;
use crate::protocol::body;

/// The most bytes of what precedes a part's body in a form, with what came along with it.
const MAX_HEAD: usize = 1 << 20;

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
        // One that stalled has nothing more to say.
        if !matches!(failure, Failure::Stalled(_)) {
            body::drain(body);
        }
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
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| body::broke_off("the body", &error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.taken += data.len() as u64;
            if self.taken > self.limit {
                return Err(Failure::TooLarge { limit: self.limit });
            }
            return Ok(Some(data));
        }
        Ok(None)
    }
}

/// Lets a form have one piece of a body when it can't go on without: it keeps all that it is given.
#[derive(Default)]
struct Tap {
    open: AtomicBool,
    /// Bytes that were given for the present step.
    given: AtomicUsize,
}

impl Tap {
    fn stream<'a>(
        self: Arc<Self>,
        pieces: Pieces<'a>,
    ) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'a {
        let next = |mut pieces: Pieces<'a>| async move {
            let next = pieces.next().await.transpose()?;
            Some((next, pieces))
        };
        let mut pieces = Box::pin(futures::stream::unfold(pieces, next));
        futures::stream::poll_fn(move |cx| {
            if !self.open.load(Relaxed) {
                return Poll::Pending;
            }
            let next = ready!(pieces.as_mut().poll_next(cx));
            self.open.store(false, Relaxed);
            if let Some(Ok(piece)) = &next {
                self.given.fetch_add(piece.len(), Relaxed);
            }
            Poll::Ready(next)
        })
    }

    /// Takes a step of a form.
    async fn step<T>(
        &self,
        step: impl Future<Output = Result<T, multer::Error>>,
    ) -> Result<T, Failure> {
        self.open.store(false, Relaxed);
        self.given.store(0, Relaxed);
        let mut step = pin!(step);
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(done) = step.as_mut().poll(cx) {
                    return Poll::Ready(done.map_err(broken));
                }
                if self.given.load(Relaxed) > MAX_HEAD {
                    let what = format!("a part's head is larger than {MAX_HEAD} bytes");
                    return Poll::Ready(Err(Failure::BadBody(what)));
                }
                // Where it was open already, it is the body that is waited for.
                if self.open.swap(true, Relaxed) {
                    return Poll::Pending;
                }
            }
        })
        .await
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
    let tap = Arc::new(Tap::default());
    let mut form = multer::Multipart::new(tap.clone().stream(pieces), boundary);
    while let Some(mut part) = tap.step(form.next_field()).await? {
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
        while let Some(piece) = tap.step(part.chunk()).await? {
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
    use futures::StreamExt;

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
        let endless = kept(kind, vec![format!("--b\r\nx: {}", "y".repeat(600))]).await;
        assert!(matches!(endless, Err(Failure::BadBody(_))), "{endless:?}");
        let large = kept(kind, bytewise(&text.replace("one", &"1".repeat(2000)))).await;
        assert!(large.is_err());
    }

    #[tokio::test]
    async fn a_form_keeps_no_more_of_a_body_than_it_needs() {
        let head = "--b\r\ncontent-disposition: form-data; name=\"f\"\r\n\r\n";
        let part = format!("{head}1\r\n");
        let mut text = part.repeat(10_000);
        text.push_str("--b--\r\n");
        let folder = tempfile::tempdir().unwrap();
        let caps = Caps {
            items: 10_000,
            body: 1,
        };
        let mut writer = Writer::create(folder.path(), caps).await.unwrap();
        let given = Arc::new(AtomicUsize::new(0));
        let pieces: Vec<_> = text.into_bytes().chunks(8192).map(<[u8]>::to_vec).collect();
        let all = pieces.len();
        let counted = given.clone();
        let pieces = futures::stream::iter(pieces).map(move |piece| {
            counted.fetch_add(1, Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        let mut body = Body::from_stream(pieces);
        let pieces = Pieces {
            body: &mut body,
            taken: 0,
            limit: u64::MAX,
        };
        let tap = Arc::new(Tap::default());
        let mut parts = multer::Multipart::new(tap.clone().stream(pieces), "b");
        for item in 1..=5000 {
            let mut part = tap.step(parts.next_field()).await.unwrap().unwrap();
            writer.begin(&Head::default()).await.unwrap();
            while tap.step(part.chunk()).await.unwrap().is_some() {}
            let needed = item * all / 10_000 + 2;
            let given = given.load(Relaxed);
            assert!(given <= needed, "{given} of {all} pieces for {item} items");
        }
        drop(parts);
        let large = format!("--b\r\nx: {}", "y".repeat(MAX_HEAD + 9));
        let mut body = Body::from(large);
        let pieces = Pieces {
            body: &mut body,
            taken: 0,
            limit: u64::MAX,
        };
        let refusal = form(pieces, "b".to_owned(), &mut writer).await.unwrap_err();
        assert!(refusal.to_string().contains("head is larger"), "{refusal}");
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
