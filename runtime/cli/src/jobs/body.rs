//! A job's body from files: lines as they are, or a form with a part for each file.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::io::ReaderStream;

use crate::failure::{Context, Failure, Result};
use crate::invoke::content_type;

/// What is sent.
pub struct JobBody {
    /// Its media type.
    pub content_type: String,
    /// How much it is, where that is known.
    pub bytes: Option<u64>,
    /// The bytes.
    pub pieces: BoxStream<'static, std::io::Result<Bytes>>,
}

const LINES: &str = "application/x-ndjson";

/// The body that these files make.
pub fn of(files: &[PathBuf]) -> Result<JobBody> {
    match files {
        [file] if file == Path::new("-") => Ok(JobBody {
            content_type: LINES.into(),
            bytes: None,
            pieces: ReaderStream::new(tokio::io::stdin()).boxed(),
        }),
        [file] if is_lines(file) => {
            let (file, bytes) = open(file)?;
            Ok(JobBody {
                content_type: LINES.into(),
                bytes: Some(bytes),
                pieces: ReaderStream::new(file).boxed(),
            })
        }
        files => form(files),
    }
}

fn is_lines(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    let extension = extension.map(str::to_ascii_lowercase);
    matches!(extension.as_deref(), Some("ndjson" | "jsonl"))
}

fn open(file: &Path) -> Result<(tokio::fs::File, u64)> {
    let what = || format!("{} can't be read", file.display());
    let opened = std::fs::File::open(file).context(what)?;
    let about = opened.metadata().context(what)?;
    if !about.is_file() {
        return Err(Failure::new(format!("{} is no file", file.display()))
            .hint("name its files, as in firebox jobs submit NAME photos/*.jpg"));
    }
    Ok((tokio::fs::File::from_std(opened), about.len()))
}

/// `multipart/form-data` (RFC 7578). Files are opened when their turn comes: there may be more of
/// them than a process may have open.
fn form(files: &[PathBuf]) -> Result<JobBody> {
    let boundary = format!("firebox-{}", uuid::Uuid::now_v7().simple());
    let mut bytes = 0;
    let mut parts = Vec::new();
    for file in files {
        if is_lines(file) || file == Path::new("-") {
            let what = format!(
                "{} is of lines, and can't be sent beside others",
                file.display()
            );
            return Err(Failure::usage(what).hint("submit a job for each file of lines"));
        }
        let (_, size) = open(file)?;
        let head = head(&boundary, file);
        bytes += head.len() as u64 + size + 2;
        parts.push((Bytes::from(head), file.clone()));
    }
    let end = Bytes::from(format!("--{boundary}--\r\n"));
    bytes += end.len() as u64;
    let parts = stream::iter(parts).then(|(head, file)| async move {
        let body = ReaderStream::new(tokio::fs::File::open(file).await?);
        let around = |bytes| stream::once(async move { Ok(bytes) });
        Ok::<_, std::io::Error>(
            around(head)
                .chain(body)
                .chain(around(Bytes::from_static(b"\r\n"))),
        )
    });
    let pieces = parts
        .try_flatten()
        .chain(stream::once(async move { Ok(end) }));
    Ok(JobBody {
        content_type: format!("multipart/form-data; boundary={boundary}"),
        bytes: Some(bytes),
        pieces: pieces.boxed(),
    })
}

fn head(boundary: &str, file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // As browsers write what a quoted name can't hold.
    let name = name
        .replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A");
    format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"item\"; filename=\"{name}\"\r\n\
         content-type: {}\r\n\r\n",
        content_type(file)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(body: JobBody) -> Vec<u8> {
        let pieces: Vec<Bytes> = body.pieces.try_collect().await.unwrap();
        pieces.concat()
    }

    #[tokio::test]
    async fn files_are_parts_of_a_form_as_long_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a\"b.png", "c.txt"].map(|name| folder.path().join(name));
        for (file, content) in files.iter().zip(["pixels", ""]) {
            std::fs::write(file, content).unwrap();
        }
        let body = of(&files).unwrap();
        let (bytes, kind) = (body.bytes.unwrap(), body.content_type.clone());
        let text = String::from_utf8(sent(body).await).unwrap();
        assert_eq!(text.len() as u64, bytes);
        let boundary = kind.split("boundary=").nth(1).unwrap();
        assert_eq!(text.matches(boundary).count(), 3, "{text}");
        assert!(
            text.contains("filename=\"a%22b.png\"\r\ncontent-type: image/png\r\n\r\npixels\r\n")
        );
    }

    #[tokio::test]
    async fn a_file_of_lines_is_sent_as_it_is_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let lines = folder.path().join("in.ndjson");
        std::fs::write(&lines, "[1]\n[2]\n").unwrap();
        let body = of(std::slice::from_ref(&lines)).unwrap();
        assert_eq!(body.content_type, LINES);
        assert_eq!(sent(body).await, b"[1]\n[2]\n");
        assert!(of(&[lines.clone(), lines]).is_err());
        let refusal = of(&[folder.path().to_owned()]).err().unwrap();
        assert!(refusal.what.contains("is no file"), "{}", refusal.what);
    }
}
