//! From a JPEG or PNG file to the numbers that the model takes.

use std::io::Cursor;

use image::imageops::{FilterType, resize};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};

/// The most pixels of a picture: an A4 page at 600 dots an inch has 35 million.
const MOST_PIXELS: u64 = 40_000_000;
/// The most bytes that a decoder may take for pixels.
const MOST_BYTES: u64 = 4 * MOST_PIXELS;
/// The longer side is at most so many times the shorter.
const MOST_STRETCH: u32 = 10;

/// The shorter side of a page that the model looks at, before the middle is cut out.
const SHORT_SIDE: u32 = 256;
/// The sides of the square in the middle.
pub const SIDE: u32 = 224;

/// Mean and standard deviation of red, green and blue in ImageNet.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Reads a picture; what is transparent shows white paper.
///
/// A turn noted in EXIF data is carried out, as a viewer does.
///
/// # Errors
/// What was expected and what was found, for the caller. A picture's size is known before any
/// memory is taken for its pixels.
pub fn decode(file: &[u8]) -> Result<RgbImage, String> {
    let unreadable = |why| format!("the picture can't be read: {why}");
    let mut reader = ImageReader::new(Cursor::new(file));
    match image::guess_format(file) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => reader.set_format(format),
        Ok(other) => return Err(format!("expected a JPEG or PNG picture, found {other:?}")),
        Err(_) => return Err("expected a JPEG or PNG picture, found something else".into()),
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;

    let (width, height) = decoder.dimensions();
    let (long, short) = (width.max(height), width.min(height));
    if u64::from(width) * u64::from(height) > MOST_PIXELS || decoder.total_bytes() > MOST_BYTES {
        return Err(format!(
            "expected at most {MOST_PIXELS} pixels of 4 bytes, found {width} x {height}"
        ));
    }
    if short == 0 || long > MOST_STRETCH * short {
        return Err(format!(
            "expected a page no more than {MOST_STRETCH} times as long as wide, found {width} x {height}"
        ));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    picture.apply_orientation(orientation);
    Ok(on_white(picture))
}

fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [red, green, blue, alpha] = picture.get_pixel(x, y).0.map(u16::from);
        let blend = |colour: u16| ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        Rgb([blend(red), blend(green), blend(blue)])
    })
}

/// The middle of a page as the model takes it: float [3, [`SIDE`], [`SIDE`]], red, green and blue
/// planes, normalised.
///
/// The page is first scaled, by a triangle filter as wide as the reduction (so that thin strokes
/// fade instead of vanishing), until its shorter side has [`SHORT_SIDE`] pixels.
pub fn middle(page: &RgbImage) -> Vec<f32> {
    let short = f64::from(page.width().min(page.height()).max(1));
    let scaled = |side: u32| {
        let side = f64::from(side) * (f64::from(SHORT_SIDE) / short);
        side.round_ties_even() as u32
    };
    let (width, height) = (scaled(page.width()), scaled(page.height()));
    let page = resize(page, width, height, FilterType::Triangle);

    let (left, top) = (
        width.saturating_sub(SIDE) / 2,
        height.saturating_sub(SIDE) / 2,
    );
    let mut planes = Vec::with_capacity(3 * (SIDE * SIDE) as usize);
    for (channel, (mean, deviation)) in MEAN.into_iter().zip(DEVIATION).enumerate() {
        for row in page.rows().skip(top as usize).take(SIDE as usize) {
            let square = row.skip(left as usize).take(SIDE as usize);
            planes.extend(square.filter_map(|pixel| {
                let value = f32::from(*pixel.0.get(channel)?) / 255.0;
                Some((value - mean) / deviation)
            }));
        }
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, RgbaImage};

    fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture
            .into()
            .write_to(&mut file, ImageFormat::Png)
            .unwrap();
        file.into_inner()
    }

    #[test]
    fn what_is_transparent_shows_white_paper() {
        let picture = RgbaImage::from_raw(2, 1, vec![10, 20, 30, 0, 10, 20, 30, 255]).unwrap();
        assert_eq!(
            decode(&png(picture)).unwrap().as_raw(),
            &[255, 255, 255, 10, 20, 30]
        );
    }

    #[test]
    fn a_grey_picture_has_three_equal_channels() {
        let picture = GrayImage::from_pixel(1, 1, Luma([77]));
        assert_eq!(decode(&png(picture)).unwrap().as_raw(), &[77, 77, 77]);
    }

    #[test]
    fn a_turn_noted_in_exif_is_carried_out() {
        let mut jpeg = Cursor::new(Vec::new());
        RgbImage::new(16, 8)
            .write_to(&mut jpeg, ImageFormat::Jpeg)
            .unwrap();
        let jpeg = jpeg.into_inner();
        // One directory with one entry: orientation (0x112) 6, a quarter turn.
        let exif = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let turned = [&jpeg[..2], exif, &jpeg[2..]].concat();
        assert_eq!(decode(&jpeg).unwrap().dimensions(), (16, 8));
        assert_eq!(decode(&turned).unwrap().dimensions(), (8, 16));
    }

    #[test]
    fn the_square_is_the_normalised_middle() {
        // A third of 768 rows each: black, white, black. The middle of the page is white.
        let page = RgbImage::from_fn(256, 768, |_, y| Rgb([255 * u8::from(y / 256 == 1); 3]));
        let planes = middle(&page);
        assert_eq!(planes.len(), 3 * 224 * 224);
        let red_and_blue = (planes[0], planes[planes.len() - 1]);
        assert_eq!(red_and_blue, ((1.0 - 0.485) / 0.229, (1.0 - 0.406) / 0.225));
    }

    #[test]
    fn any_page_gives_a_full_square() {
        for (width, height) in [(1, 1), (1, 10), (257, 256), (300, 2999), (1000, 511)] {
            assert_eq!(middle(&RgbImage::new(width, height)).len(), 3 * 224 * 224);
        }
    }

    #[test]
    fn other_files_are_refused_with_what_was_found() {
        assert_eq!(
            decode(b"GIF89a..").unwrap_err(),
            "expected a JPEG or PNG picture, found Gif"
        );
        let refused = decode(b"hello").unwrap_err();
        assert_eq!(
            refused,
            "expected a JPEG or PNG picture, found something else"
        );
        let refused = decode(&png(GrayImage::new(5, 51))).unwrap_err();
        assert!(refused.ends_with("found 5 x 51"), "{refused}");
    }

    #[test]
    fn a_tiny_file_that_claims_a_huge_picture_is_refused_by_its_size() {
        // The width and height of a PNG stand at bytes 16 to 24, followed by their checksum.
        let mut bomb = png(GrayImage::new(1, 1));
        bomb[16..24].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]);
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        let refused = decode(&bomb).unwrap_err();
        assert!(refused.ends_with("found 20000 x 20000"), "{refused}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 {
                    crc >> 1 ^ 0xedb8_8320
                } else {
                    crc >> 1
                }
            })
        })
    }

    #[test]
    fn no_cut_in_a_file_makes_the_reader_panic() {
        let mut jpeg = Cursor::new(Vec::new());
        RgbImage::new(8, 8)
            .write_to(&mut jpeg, ImageFormat::Jpeg)
            .unwrap();
        for file in [jpeg.into_inner(), png(RgbImage::new(8, 8))] {
            assert!(decode(&file).is_ok());
            for length in 0..file.len() {
                let _ = decode(&file[..length]);
            }
        }
    }
}
