//! Operators on images: resizing, sampling, boxes.

/// An operator on images.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Image {
    /// Inputs: x, roi?, scales?, sizes?.
    Resize(Resize),
    /// Inputs: x, grid.
    GridSample(GridSample),
    /// Inputs: theta, size.
    AffineGrid { align_corners: bool },
    /// Inputs: x, rois, batch indices.
    RoiAlign(RoiAlign),
    /// Inputs: x, rois.
    MaxRoiPool { pooled: [usize; 2], scale: f32 },
    /// Inputs: boxes, scores, largest number per class?, threshold of overlap?, of score?.
    /// `centered`: boxes are given by their centers and sizes.
    NonMaxSuppression { centered: bool },
    /// Inputs: x, shape.
    CenterCropPad { axes: Option<Vec<i64>> },
}

/// How an image is resized.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resize {
    pub mode: ResizeMode,
    pub coordinates: Coordinates,
    pub antialias: bool,
    pub exclude_outside: bool,
    /// What stands for elements outside of the input, where it is cropped.
    pub extrapolation: f32,
    /// The axes that roi, scales and sizes speak of; all where there are none.
    pub axes: Option<Vec<i64>>,
    pub aspect: Aspect,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ResizeMode {
    Nearest(NearestMode),
    Linear,
    Cubic { a: f32 },
}

/// The element that is taken for a place between two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NearestMode {
    Floor,
    Ceil,
    /// The nearer one, the lower one of two that are as near.
    HalfDown,
    /// The nearer one, the upper one of two that are as near.
    HalfUp,
}

/// How a place in the result maps to one in the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    /// Of opset 11 alone.
    TfHalfPixelForNearest,
    AlignCorners,
    Asymmetric,
    CropAndResize,
}

/// What `sizes` mean for an image's proportions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GridSample {
    pub mode: SampleMode,
    pub outside: Outside,
    pub align_corners: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SampleMode {
    Nearest,
    Linear,
    Cubic,
}

/// What is read outside of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outside {
    Zeros,
    Border,
    Reflection,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RoiAlign {
    /// Height and width of each result.
    pub pooled: [usize; 2],
    /// Samples per axis of a bin; 0 for as many as the bin has elements.
    pub samples: usize,
    pub scale: f32,
    /// Whether coordinates are those of centers of pixels.
    pub half_pixel: bool,
    pub max: bool,
}
