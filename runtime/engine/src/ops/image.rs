//! Operators on images.

use super::{Args, Result, axis, grid, region, resize, shape};
use crate::error::OpError;
use crate::graph::{Image, PadMode};
use crate::value::Value;

pub(super) fn run(kind: &Image, args: &mut Args) -> Result<Value> {
    match kind {
        Image::Resize(how) => {
            let (roi, scales, sizes) = (args.optional(1)?, args.optional(2)?, args.optional(3)?);
            resize::resize(how, args.take(0)?, roi, scales, sizes)
        }
        Image::GridSample(how) => grid::sample(*how, args.take(0)?, &args.take(1)?),
        Image::AffineGrid { align_corners } => {
            let size = args.ints(1)?;
            grid::affine(args.take(0)?, &size, *align_corners)
        }
        Image::RoiAlign(how) => {
            let batches = args.ints(2)?;
            region::align(how, args.take(0)?, &args.take(1)?, &batches)
        }
        Image::MaxRoiPool { pooled, scale } => {
            region::max_pool(*pooled, *scale, args.take(0)?, &args.take(1)?)
        }
        Image::NonMaxSuppression { centered } => region::suppress(*centered, args),
        Image::CenterCropPad { axes } => {
            let wanted = args.ints(1)?;
            center_crop_pad(args.take(0)?, &wanted, axes.as_deref())
        }
    }
}

/// The middle of a tensor, with zeros around it where it is too small.
fn center_crop_pad(x: Value, wanted: &[i64], axes: Option<&[i64]>) -> Result<Value> {
    let sizes = x.shape();
    let axes: Vec<_> = match axes {
        Some(axes) => axes.to_vec(),
        None => (0..sizes.len() as i64).collect(),
    };
    if axes.len() != wanted.len() {
        let (wanted, axes) = (wanted.len(), axes.len());
        return Err(OpError::Shape(format!("{wanted} sizes for {axes} axes")));
    }
    let mut begin = Vec::new();
    let mut end = Vec::new();
    for (&at, &wanted) in axes.iter().zip(wanted) {
        let size = sizes.get(axis(at, sizes.len())?).copied().unwrap_or(0) as i64;
        if wanted < 0 {
            return Err(OpError::Shape(format!("a size of {wanted}, expected ≥ 0")));
        }
        // Of an odd number, the smaller half comes first, cut off or added.
        let change = wanted.saturating_sub(size);
        begin.push(change / 2);
        end.push(change - change / 2);
    }
    begin.extend(end);
    shape::pad(x, PadMode::Constant, &begin, Some(axes), None)
}
