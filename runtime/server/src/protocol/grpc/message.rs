//! Messages on the wire: read within the limits of a body, and written, compressed or not.
//!
//! What comes is copied once, from HTTP/2's frames into the message's own buffer; bytes fields are
//! slices of that. What goes is copied once, into the frame that is sent.

use std::error::Error;
use std::marker::PhantomData;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response as HttpResponse, header};
use axum::response::Response;

use futures::Stream;
use prost::Message;
use tonic::codec::{
    BufferSettings, CompressionEncoding, DecodeBuf, Decoder, EncodeBody, EncodeBuf, Encoder,
    Streaming,
};
use tonic::{Code, Status};

use crate::connections::Stalled;
use crate::problem::Failure;

const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "grpc-accept-encoding";

/// What is set aside for a message before its length is known, and how much of an answer's messages
/// is sent together.
fn buffers() -> BufferSettings {
    BufferSettings::new(1 << 10, 32 << 10)
}

/// How the messages of a call are compressed: as the caller does it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compression {
    of_requests: Option<CompressionEncoding>,
    of_answers: Option<CompressionEncoding>,
}

impl Compression {
    /// What the caller's headers say.
    ///
    /// # Errors
    /// For a compression that isn't spoken here.
    pub fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let used = headers.get(ENCODING).map(HeaderValue::as_bytes);
        let of_requests = match used {
            None | Some(b"identity") => None,
            Some(b"gzip") => Some(CompressionEncoding::Gzip),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                let mut status = Status::unimplemented(format!(
                    "messages compressed by `{other}` can't be read; expected gzip or identity"
                ));
                let known = "identity,gzip".parse().ok();
                if let Some(known) = known {
                    status.metadata_mut().insert(ACCEPTED, known);
                }
                return Err(status);
            }
        };
        let accepted = headers.get(ACCEPTED).and_then(|value| value.to_str().ok());
        let accepted = accepted.unwrap_or_default();
        // Clients say what they could read as a matter of course. One that compresses means it.
        let of_answers =
            of_requests.filter(|_| accepted.split(',').any(|name| name.trim() == "gzip"));
        Ok(Self {
            of_requests,
            of_answers,
        })
    }
}

/// The messages of a request, none larger than `limit`, compressed or not.
pub struct Messages<T> {
    stream: Streaming<T>,
    limit: usize,
}

impl<T: Message + Default + 'static> Messages<T> {
    /// Reads no more at a time than one message takes.
    pub fn new(body: Body, compression: Compression, limit: usize) -> Self {
        let decoder = Form(PhantomData);
        let encoding = compression.of_requests;
        Self {
            stream: Streaming::new_request(decoder, body, encoding, Some(limit)),
            limit,
        }
    }

    /// The next message, if there is one.
    pub async fn next(&mut self) -> Result<Option<T>, Failure> {
        let message = self.stream.message().await;
        message.map_err(|status| unread(&status, self.limit))
    }

    /// The one message of a call that has just one.
    pub async fn only(mut self) -> Result<T, Failure> {
        let missing = || Failure::BadBody("the call ended before its message was whole".into());
        self.next().await?.ok_or_else(missing)
    }
}

/// Why a message can't be read.
fn unread(status: &Status, limit: usize) -> Failure {
    let mut cause: Option<&dyn Error> = Some(status);
    while let Some(error) = cause {
        if let Some(stalled) = error.downcast_ref::<Stalled>() {
            return Failure::Stalled(stalled.to_string());
        }
        cause = error.source();
    }
    match status.code() {
        // Larger than the limit, as it is announced or when it is uncompressed.
        Code::OutOfRange | Code::ResourceExhausted => Failure::TooLarge {
            limit: limit as u64,
        },
        _ => Failure::BadBody(format!("the message can't be read: {}", status.message())),
    }
}

/// The answer that these messages are, as they come.
pub fn streamed<T: Message + 'static>(
    messages: impl Stream<Item = Result<T, Status>> + Send + 'static,
    compression: Compression,
) -> Response {
    let encoder = Form(PhantomData);
    let encoding = compression.of_answers;
    let body = EncodeBody::new_server(encoder, messages, encoding, Default::default(), None);
    let mut response = HttpResponse::new(Body::new(body));
    let headers = response.headers_mut();
    let content = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, content);
    if encoding.is_some() {
        headers.insert(ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The answer that is this one message.
pub fn single<T: Message + 'static>(message: T, compression: Compression) -> Response {
    streamed(futures::stream::iter([Ok(message)]), compression)
}

/// Protocol Buffers.
struct Form<T>(PhantomData<fn() -> T>);

impl<T: Message + Default> Decoder for Form<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let read = T::decode(message);
        read.map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

impl<T: Message> Encoder for Form<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(message.encoded_len());
        let written = message.encode(out);
        written.map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// A message with the prefix that stands before it on the wire, not compressed.
#[cfg(test)]
pub fn framed(message: &impl Message) -> bytes::Bytes {
    let mut out = vec![0; 5];
    let length = u32::try_from(message.encoded_len()).unwrap();
    out[1..].copy_from_slice(&length.to_be_bytes());
    message.encode(&mut out).unwrap();
    out.into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt;

    use super::super::wire::ModelInferRequest;
    use super::*;

    fn request(bytes: usize) -> ModelInferRequest {
        ModelInferRequest {
            model_name: "adder".into(),
            raw_input_contents: vec![vec![7; bytes].into(), vec![8; bytes].into()],
            ..ModelInferRequest::default()
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
            .collect()
    }

    async fn read(
        body: Body,
        compression: Compression,
        limit: usize,
    ) -> Result<ModelInferRequest, Failure> {
        Messages::new(body, compression, limit).only().await
    }

    /// How many copies lie between the frames of HTTP/2 and a tensor: one.
    #[tokio::test]
    async fn tensors_are_slices_of_the_one_buffer_that_a_message_came_into() {
        let sent = request(100_000);
        let frames = framed(&sent)
            .chunks(16 << 10)
            .map(Bytes::copy_from_slice)
            .collect::<Vec<_>>();
        let frames = frames.into_iter().map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures::stream::iter(frames));
        let came = read(body, Compression::default(), 1 << 20).await.unwrap();
        assert_eq!(came, sent);
        let [first, second] = came.raw_input_contents.as_slice() else {
            panic!("two inputs");
        };
        // Tag and length of the second stand between them, as on the wire.
        let between = second.as_ptr() as usize - first.as_ptr() as usize - first.len();
        assert_eq!(between, 4);
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_before_it_is_there() {
        let body = Body::from(framed(&request(1000)).slice(..20));
        let failure = read(body, Compression::default(), 1000).await.unwrap_err();
        assert!(matches!(failure, Failure::TooLarge { limit: 1000 }));
    }

    #[tokio::test]
    async fn gzip_is_read_within_the_limit_and_answered_by_gzip() {
        let compressing = [(ENCODING, "gzip"), (ACCEPTED, "identity, deflate, gzip")];
        let compression = Compression::of(&headers(&compressing)).unwrap();
        let answer = single(request(50_000), compression);
        assert_eq!(answer.headers()[ENCODING], "gzip");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() < 5_000, "{} bytes", body.len());
        let came = read(body.clone().into(), compression, 200_000).await;
        assert_eq!(came.unwrap(), request(50_000));
        let bomb = read(body.into(), compression, 50_000).await.unwrap_err();
        assert!(matches!(bomb, Failure::TooLarge { limit: 50_000 }));
    }

    #[test]
    fn answers_are_compressed_only_where_requests_are() {
        let accepting = Compression::of(&headers(&[(ACCEPTED, "gzip")])).unwrap();
        assert!(accepting.of_answers.is_none());
        let silent = Compression::of(&headers(&[(ENCODING, "gzip")])).unwrap();
        assert!(silent.of_answers.is_none() && silent.of_requests.is_some());
        let status = Compression::of(&headers(&[(ENCODING, "snappy")])).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.metadata().get(ACCEPTED).is_some());
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        for (bytes, why) in [
            (
                &[0, 0, 0, 0, 2, 0xFF, 0xFF][..],
                "the message can't be read",
            ),
            (&[7, 0, 0, 0, 0], "the message can't be read"),
            (&[1, 0, 0, 0, 0], "the message can't be read"),
            (&[0, 0, 0], "the message can't be read"),
            (&[], "before its message was whole"),
            (&[0, 0, 0, 0, 9], "before its message was whole"),
        ] {
            let body = Body::from(Bytes::from_static(bytes));
            let failure = read(body, Compression::default(), 100).await.unwrap_err();
            assert!(matches!(&failure, Failure::BadBody(_)), "{failure:?}");
            assert!(failure.to_string().contains(why), "{bytes:?}: {failure}");
        }
    }
}
