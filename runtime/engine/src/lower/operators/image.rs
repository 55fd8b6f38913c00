//! Images.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(Op::Image(match operator {
        "Resize" => {
            if context.opset < 11 {
                scales_third(context);
                Image::Resize(simple(a)?)
            } else {
                Image::Resize(resize(a)?)
            }
        }
        "Upsample" => {
            let scales = a.floats("scales")?;
            context.floats_as_input(1, scales)?;
            scales_third(context);
            Image::Resize(simple(a)?)
        }
        "GridSample" => Image::GridSample(GridSample {
            mode: match a.text("mode")?.as_deref() {
                None | Some("linear" | "bilinear") => SampleMode::Linear,
                Some("nearest") => SampleMode::Nearest,
                Some("cubic" | "bicubic") => SampleMode::Cubic,
                Some(other) => return Err(unknown("mode", other)),
            },
            outside: match a.text("padding_mode")?.as_deref() {
                None | Some("zeros") => Outside::Zeros,
                Some("border") => Outside::Border,
                Some("reflection") => Outside::Reflection,
                Some(other) => return Err(unknown("padding_mode", other)),
            },
            align_corners: a.flag("align_corners", false)?,
        }),
        "AffineGrid" => Image::AffineGrid {
            align_corners: a.flag("align_corners", false)?,
        },
        "RoiAlign" => Image::RoiAlign(roi_align(a, context.opset)?),
        "MaxRoiPool" => Image::MaxRoiPool {
            pooled: match a.positive_sizes("pooled_shape")?.as_slice() {
                [height, width] => [*height, *width],
                other => return Err(format!("`pooled_shape` is {other:?}, expected two").into()),
            },
            scale: a.float_or("spatial_scale", 1.0)?,
        },
        "NonMaxSuppression" => Image::NonMaxSuppression {
            centered: a.flag("center_point_box", false)?,
        },
        "CenterCropPad" => Image::CenterCropPad {
            axes: a.ints("axes")?,
        },
        _ => return Ok(None),
    })))
}

fn unknown(attribute: &str, found: &str) -> ParseError {
    format!("unknown {attribute} `{found}`").into()
}

/// Moves the scales, the second input before opset 11, to where they are since.
fn scales_third(context: &mut Context) {
    if context.inputs.len() == 2 {
        context.inputs.insert(1, None);
    }
}

/// Resizing as it was before opset 11.
fn simple(a: &mut Attributes) -> Result<Resize, ParseError> {
    Ok(Resize {
        mode: match a.text("mode")?.as_deref() {
            None | Some("nearest") => ResizeMode::Nearest(NearestMode::Floor),
            Some("linear" | "bilinear") => ResizeMode::Linear,
            Some(other) => return Err(unknown("mode", other)),
        },
        coordinates: Coordinates::Asymmetric,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
        axes: None,
        aspect: Aspect::Stretch,
    })
}

fn resize(a: &mut Attributes) -> Result<Resize, ParseError> {
    let rounding = match a.text("nearest_mode")?.as_deref() {
        None | Some("round_prefer_floor" | "") => NearestMode::HalfDown,
        Some("round_prefer_ceil") => NearestMode::HalfUp,
        Some("floor") => NearestMode::Floor,
        Some("ceil") => NearestMode::Ceil,
        Some(other) => return Err(unknown("nearest_mode", other)),
    };
    let mode = match a.text("mode")?.as_deref() {
        None | Some("nearest") => ResizeMode::Nearest(rounding),
        Some("linear") => ResizeMode::Linear,
        Some("cubic") => ResizeMode::Cubic {
            a: a.float_or("cubic_coeff_a", -0.75)?,
        },
        Some(other) => return Err(unknown("mode", other)),
    };
    let coordinates = match a.text("coordinate_transformation_mode")?.as_deref() {
        None | Some("half_pixel") => Coordinates::HalfPixel,
        Some("half_pixel_symmetric") => Coordinates::HalfPixelSymmetric,
        Some("pytorch_half_pixel") => Coordinates::PytorchHalfPixel,
        Some("tf_half_pixel_for_nn") => Coordinates::TfHalfPixelForNearest,
        Some("align_corners") => Coordinates::AlignCorners,
        Some("asymmetric") => Coordinates::Asymmetric,
        Some("tf_crop_and_resize") => Coordinates::CropAndResize,
        Some(other) => return Err(unknown("coordinate_transformation_mode", other)),
    };
    let aspect = match a.text("keep_aspect_ratio_policy")?.as_deref() {
        None | Some("stretch") => Aspect::Stretch,
        Some("not_larger") => Aspect::NotLarger,
        Some("not_smaller") => Aspect::NotSmaller,
        Some(other) => return Err(unknown("keep_aspect_ratio_policy", other)),
    };
    let antialias = a.flag("antialias", false)?;
    if antialias && matches!(mode, ResizeMode::Nearest(_)) {
        return Err("antialias with mode `nearest`, expected `linear` or `cubic`".into());
    }
    Ok(Resize {
        mode,
        coordinates,
        antialias,
        exclude_outside: a.flag("exclude_outside", false)?,
        extrapolation: a.float_or("extrapolation_value", 0.0)?,
        axes: a.ints("axes")?,
        aspect,
    })
}

fn roi_align(a: &mut Attributes, opset: i64) -> Result<RoiAlign, ParseError> {
    let mut size = |name: &str, default: i64, least: usize| {
        let value = a.int_or(name, default)?;
        let value = usize::try_from(value).ok().filter(|&value| value >= least);
        value.ok_or_else(|| ParseError::from(format!("attribute `{name}` is below {least}")))
    };
    let pooled = [size("output_height", 1, 1)?, size("output_width", 1, 1)?];
    let samples = size("sampling_ratio", 0, 0)?;
    Ok(RoiAlign {
        pooled,
        samples,
        scale: a.float_or("spatial_scale", 1.0)?,
        half_pixel: match a.text("coordinate_transformation_mode")?.as_deref() {
            None => opset >= 16,
            Some("half_pixel") => true,
            Some("output_half_pixel") => false,
            Some(other) => return Err(unknown("coordinate_transformation_mode", other)),
        },
        max: match a.text("mode")?.as_deref() {
            None | Some("avg") => false,
            Some("max") => true,
            Some(other) => return Err(unknown("mode", other)),
        },
    })
}
