//! What a file is, by how it begins.

/// The form of a file that can be uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Compressed by zstd: a tar is in it, or what else stands here.
    Zstd,
    /// The files of a bundle.
    Tar,
    /// A component or a module alone.
    Wasm,
    /// Anything else: ONNX has no mark of its own.
    Onnx,
}

impl Form {
    /// How many bytes tell a form: a tar's first header.
    pub const BYTES: usize = 512;
    /// What zstd's frames begin with (RFC 8878, section 3.1.1).
    pub(super) const ZSTD: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

    /// The form of a file that begins with these bytes; four of them tell zstd and WebAssembly,
    /// [`BYTES`](Self::BYTES) the others.
    pub fn of(start: &[u8]) -> Form {
        match start {
            _ if start.starts_with(&Self::ZSTD) => Form::Zstd,
            _ if start.starts_with(b"\0asm") => Form::Wasm,
            _ if is_tar_header(start) => Form::Tar,
            _ => Form::Onnx,
        }
    }
}

/// Whether it begins with a tar header: its checksum is right. Holds for every kind of tar there is.
fn is_tar_header(start: &[u8]) -> bool {
    let Some(bytes) = start.first_chunk::<{ Form::BYTES }>() else {
        return false;
    };
    let header = tar::Header::from_byte_slice(bytes);
    let sum = bytes.iter().enumerate().map(|(at, byte)| {
        // The sum counts its own field as spaces.
        if (148..156).contains(&at) {
            u32::from(b' ')
        } else {
            u32::from(*byte)
        }
    });
    header
        .cksum()
        .is_ok_and(|stated| stated == sum.sum::<u32>())
        && bytes.iter().any(|b| *b != 0)
}
