//! Bundles made and taken apart, whole and hostile.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{Digest, FunctionName, Manifest};

const MANIFEST: &[u8] = b"name = 'net'\n[models.net]\npath = 'models/net.onnx'\n";

fn name() -> FunctionName {
    "from-the-url".parse().unwrap()
}

/// A tar whose names are written as they are: the library refuses to make hostile ones.
fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let entries: Vec<_> = files
        .iter()
        .map(|(path, content)| (*path, tar::EntryType::Regular, *content))
        .collect();
    tar(&entries)
}

fn taken(upload: &[u8], limits: &UnpackLimits) -> Result<Unpacked, BundleError> {
    let dir = tempfile::tempdir().unwrap();
    unpack(upload, limits, dir.path(), &name())
}

fn refused(upload: &[u8]) -> BundleError {
    taken(upload, &UnpackLimits::default()).unwrap_err()
}

fn project(dir: &Path) -> Manifest {
    for (path, content) in [
        ("net.onnx", "graph"),
        ("built.wasm", "\0asm"),
        ("words.txt", "a b c"),
        ("sample.json", "[1]"),
    ] {
        fs::write(dir.join(path), content).unwrap();
    }
    let text = "name = 'net'\n[function]\nbuild = 'make'\n[models.net]\npath = './net.onnx'\n\
                [assets]\n'data/vocab.txt' = 'words.txt'\n[sample]\nbody = 'sample.json'";
    Manifest::parse(text).unwrap()
}

#[test]
fn the_parts_of_a_bundle_make_it_up_and_a_large_file_is_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = project(dir.path());
    // Hardly compressible, so that frames have several blocks.
    let model: Vec<u8> = (0..400_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    fs::write(dir.path().join("net.onnx"), &model).unwrap();
    let built = dir.path().join("built.wasm");
    let pack_with = |component: &[u8]| {
        fs::write(&built, component).unwrap();
        let path = dir.path().join("net.firebox");
        let file = fs::File::create(&path).unwrap();
        pack(dir.path(), &manifest, Some(&built), file).unwrap();
        let found = parts(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut joined = Vec::new();
        for part in &found {
            assert_eq!(part.offset, joined.len() as u64);
            let piece = &bytes[joined.len()..][..usize::try_from(part.bytes).unwrap()];
            assert_eq!(part.digest, Digest::of(piece));
            assert!(
                zstd::decode_all(piece).is_ok(),
                "each part is zstd by itself"
            );
            joined.extend_from_slice(piece);
        }
        assert_eq!(joined, bytes);
        let target = tempfile::tempdir().unwrap();
        let limits = UnpackLimits::default();
        let unpacked = unpack(bytes.as_slice(), &limits, target.path(), &name()).unwrap();
        assert_eq!(fs::read(&unpacked.models["net"]).unwrap(), model);
        found
            .into_iter()
            .map(|part| part.digest)
            .collect::<Vec<_>>()
    };
    let (one, other) = (pack_with(b"\0asm one"), pack_with(b"\0asm another"));
    assert_eq!((one.len(), other.len()), (3, 3));
    assert_ne!(one[0], other[0]);
    assert_eq!(one[1], other[1], "the model's part is the same");
}

#[test]
fn what_has_no_frames_is_one_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("upload");
    let plain = files(&[("firebox.toml", MANIFEST)]);
    let packed = zstd::encode_all(plain.as_slice(), 3).unwrap();
    let cut_off = &packed[..packed.len() - 1];
    let lying = [
        &packed[..],
        &[0x28, 0xB5, 0x2F, 0xFD, 0x20, 1, 0xF9, 0xFF, 0xFF],
    ]
    .concat();
    for upload in [&plain, cut_off, &lying, &b"graph"[..]] {
        fs::write(&path, upload).unwrap();
        let found = parts(&path).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].digest, Digest::of(upload));
    }
}

#[test]
fn a_packed_project_comes_out_with_every_file_it_named() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manifest = project(source.path());
    let built = source.path().join("built.wasm");
    let mut bundle = Vec::new();
    let packed = pack(source.path(), &manifest, Some(&built), &mut bundle).unwrap();
    assert_eq!(packed.digest, Digest::of(&bundle));

    let limits = UnpackLimits::default();
    let unpacked = unpack(bundle.as_slice(), &limits, target.path(), &name()).unwrap();
    assert_eq!(
        (unpacked.digest, unpacked.bytes),
        (packed.digest, bundle.len() as u64)
    );
    assert_eq!(unpacked.manifest.models["net"].path, "models/net.onnx");
    let function = unpacked.manifest.function.unwrap();
    assert_eq!(
        function.build, None,
        "how it was built is the project's own"
    );
    assert_eq!(fs::read(unpacked.component.unwrap()).unwrap(), b"\0asm");
    assert_eq!(fs::read(&unpacked.models["net"]).unwrap(), b"graph");
    assert_eq!(
        fs::read(&unpacked.assets["data/vocab.txt"]).unwrap(),
        b"a b c"
    );
    assert_eq!(fs::read(unpacked.sample.unwrap()).unwrap(), b"[1]");
}

#[test]
fn the_same_files_make_the_same_bundle_wherever_and_whenever() {
    let bundles = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        let manifest = project(dir.path());
        let mut bundle = Vec::new();
        pack(
            dir.path(),
            &manifest,
            Some(&dir.path().join("built.wasm")),
            &mut bundle,
        )
        .unwrap();
        bundle
    });
    assert_eq!(bundles[0], bundles[1]);
}

#[test]
fn models_of_one_file_name_stay_apart() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["a", "b"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("model.onnx"), folder).unwrap();
    }
    fs::write(dir.path().join("function.wasm"), "\0asm").unwrap();
    let text = "name = 'x'\n[function]\n[models.one]\npath = 'a/model.onnx'\n\
                [models.two]\npath = 'b/model.onnx'";
    let mut bundle = Vec::new();
    pack(
        dir.path(),
        &Manifest::parse(text).unwrap(),
        None,
        &mut bundle,
    )
    .unwrap();
    let target = tempfile::tempdir().unwrap();
    let limits = UnpackLimits::default();
    let unpacked = unpack(bundle.as_slice(), &limits, target.path(), &name()).unwrap();
    assert_eq!(fs::read(&unpacked.models["one"]).unwrap(), b"a");
    assert_eq!(fs::read(&unpacked.models["two"]).unwrap(), b"b");
}

#[test]
fn a_file_that_a_project_lacks_is_named_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = project(dir.path());
    fs::remove_file(dir.path().join("net.onnx")).unwrap();
    let built = dir.path().join("built.wasm");
    let error = pack(dir.path(), &manifest, Some(&built), Vec::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`models.net.path`") && error.contains("net.onnx"),
        "{error}"
    );
    assert!(error.contains("isn't there"), "{error}");
}

#[test]
fn bare_files_are_bundles_named_by_the_url() {
    for compress in [false, true] {
        let upload = |bytes: &[u8]| {
            if compress {
                zstd::encode_all(bytes, 3).unwrap()
            } else {
                bytes.to_vec()
            }
        };
        let limits = UnpackLimits::default();
        let dir = tempfile::tempdir().unwrap();
        let bytes = upload(b"\x08\x08graph");
        let onnx = unpack(bytes.as_slice(), &limits, dir.path(), &name()).unwrap();
        assert_eq!(onnx.manifest.name, name());
        assert_eq!(fs::read(&onnx.models["model"]).unwrap(), b"\x08\x08graph");
        assert_eq!(onnx.digest, Digest::of(&bytes));

        let dir = tempfile::tempdir().unwrap();
        let wasm = unpack(upload(b"\0asm").as_slice(), &limits, dir.path(), &name()).unwrap();
        assert_eq!(fs::read(wasm.component.unwrap()).unwrap(), b"\0asm");
        assert!(wasm.models.is_empty());
    }
}

#[test]
fn what_plain_tar_makes_of_a_folder_is_taken() {
    let bundle = tar(&[
        ("./", tar::EntryType::Directory, b""),
        ("./firebox.toml", tar::EntryType::Regular, MANIFEST),
        ("./models/", tar::EntryType::Directory, b""),
        ("./models/net.onnx", tar::EntryType::Regular, b"graph"),
        (
            "./README.md",
            tar::EntryType::Regular,
            b"not named anywhere",
        ),
    ]);
    let unpacked = taken(&bundle, &UnpackLimits::default()).unwrap();
    assert_eq!(unpacked.models.len(), 1);
}

#[test]
fn paths_that_leave_the_bundle_are_refused() {
    for path in [
        "../x",
        "/etc/x",
        "a/../../x",
        "a//b",
        "./../x",
        "a\\b",
        "a/./b",
    ] {
        let error = refused(&files(&[(path, b"1")]));
        assert!(
            matches!(&error, BundleError::BadPath { path: found } if found == path),
            "{error}"
        );
    }
    let manifest = b"name = 'net'\n[models.net]\npath = '../../secret'\n";
    let error = refused(&files(&[("firebox.toml", manifest)]));
    assert!(matches!(error, BundleError::BadPath { .. }), "{error}");
}

#[test]
fn links_and_devices_are_refused() {
    use tar::EntryType;
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
        EntryType::Char,
    ] {
        let error = refused(&tar(&[("thing", kind, b"")]));
        assert!(matches!(error, BundleError::NotAFile { .. }), "{error}");
    }
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    for (first, second) in [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a")] {
        let error = refused(&files(&[(first, b"1"), (second, b"2")]));
        assert!(
            matches!(error, BundleError::Duplicate { .. }),
            "{first}, {second}: {error}"
        );
    }
}

#[test]
fn limits_hold_whatever_the_compression() {
    let limits = UnpackLimits {
        entries: 3,
        file_bytes: 1 << 20,
        total_bytes: 2 << 20,
    };
    let many = files(&[("a", b""), ("b", b""), ("c", b""), ("d", b"")]);
    let error = taken(&many, &limits).unwrap_err();
    assert!(
        matches!(error, BundleError::TooManyEntries { limit: 3 }),
        "{error}"
    );

    let zeros = vec![0; (1 << 20) + 1];
    let packed = zstd::encode_all(files(&[("zeros", &zeros)]).as_slice(), 3).unwrap();
    assert!(packed.len() < 4096);
    let error = taken(&packed, &limits).unwrap_err();
    assert!(matches!(error, BundleError::FileTooLarge { .. }), "{error}");
    let error = taken(&zeros, &limits).unwrap_err();
    assert!(matches!(error, BundleError::FileTooLarge { .. }), "{error}");

    let fits = &zeros[..1 << 20];
    let error = taken(&files(&[("a", fits), ("b", fits), ("c", b"1")]), &limits).unwrap_err();
    assert!(matches!(error, BundleError::TooLarge { .. }), "{error}");
}

#[test]
fn a_name_of_megabytes_is_refused_before_it_fills_memory() {
    let long = vec![b'a'; 4 << 20];
    let mut bundle = tar(&[("././@LongLink", tar::EntryType::GNULongName, &long)]);
    bundle.extend(files(&[("a", b"1")]));
    let error = refused(&bundle);
    assert!(error.to_string().contains("larger than 64 KiB"), "{error}");
}

#[test]
fn every_truncation_is_refused() {
    let whole = files(&[("firebox.toml", MANIFEST), ("models/net.onnx", &[7; 3000])]);
    assert!(taken(&whole, &UnpackLimits::default()).is_ok());
    // A cut below one block leaves no tar to be seen; the rest must be noticed.
    let content_ends = 512 + 512 + 512 + 3000;
    for cut in (512..content_ends).step_by(61) {
        let error = refused(&whole[..cut]);
        let named = matches!(
            error,
            BundleError::Truncated { .. }
                | BundleError::Missing { .. }
                | BundleError::NoManifest { .. }
        );
        assert!(named, "cut at {cut}: {error}");
    }
    let packed = zstd::encode_all(whole.as_slice(), 3).unwrap();
    for cut in 4..packed.len() {
        let error = refused(&packed[..cut]);
        assert!(
            matches!(error, BundleError::Truncated { .. }),
            "cut at {cut}: {error}"
        );
    }
    assert!(matches!(refused(b""), BundleError::Empty));
}

#[test]
fn an_upload_that_breaks_off_is_not_blamed_on_the_bundle() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    }
    let whole = files(&[("firebox.toml", MANIFEST), ("models/net.onnx", &[7; 3000])]);
    let upload = std::io::Read::chain(&whole[..1000], Broken);
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(upload, &UnpackLimits::default(), dir.path(), &name()).unwrap_err();
    assert!(matches!(error, BundleError::Read(_)), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let error = refused(&files(&[("readme.md", b"hello")])).to_string();
    assert!(
        error.contains("no firebox.toml") && error.contains("readme.md"),
        "{error}"
    );
    let error = refused(&files(&[("firebox.toml", MANIFEST)])).to_string();
    assert!(
        error.contains("`models.net.path` names models/net.onnx"),
        "{error}"
    );
    let error = refused(&files(&[("firebox.toml", b"\xff\xfe")])).to_string();
    assert!(error.contains("UTF-8"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn flipped_bytes_never_panic_and_never_write_outside(
        at in 0usize..4096, to: u8, compress: bool,
    ) {
        let mut upload = files(&[("firebox.toml", MANIFEST), ("models/net.onnx", &[7; 1000])]);
        if compress {
            upload = zstd::encode_all(upload.as_slice(), 3).unwrap();
        }
        let at = at % upload.len();
        upload[at] = to;
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("inner");
        fs::create_dir(&dir).unwrap();
        let _ = unpack(upload.as_slice(), &UnpackLimits::default(), &dir, &name());
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}

#[test]
fn changed_headers_whose_sums_are_right_never_panic_and_never_write_outside() {
    const BLOCK: usize = 512;
    let whole = files(&[("firebox.toml", MANIFEST), ("models/net.onnx", &[7; 1000])]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let limits = UnpackLimits {
        entries: 16,
        file_bytes: 1 << 16,
        total_bytes: 1 << 16,
    };
    for _ in 0..400 {
        let mut upload = whole.clone();
        let header = [0, 2 * BLOCK][draw(2)];
        for _ in 0..1 + draw(3) {
            // Names, sizes, kinds, links, and what stands in extensions.
            let (from, length) = [(0, 100), (124, 12), (156, 1), (157, 100), (257, 255)][draw(5)];
            upload[header + from + draw(length)] = b"\0./0178xgLKSVa\xff"[draw(15)];
        }
        let block = &mut upload[header..header + BLOCK];
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("inner");
        fs::create_dir(&dir).unwrap();
        let _ = unpack(upload.as_slice(), &limits, &dir, &name());
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
