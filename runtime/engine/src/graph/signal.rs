//! Operators on signals, and those that draw numbers.

use crate::tensor::DType;

/// An operator on signals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Signal {
    /// Inputs: x, length?, axis?.
    Dft { inverse: bool, one_sided: bool },
    /// Inputs: signal, step, window?, length?.
    Stft { one_sided: bool },
    /// Input: size.
    Window {
        kind: Taper,
        periodic: bool,
        dtype: DType,
    },
    /// Inputs: bins, length of the transform, sample rate, lower edge, upper edge.
    MelWeights { dtype: DType },
}

/// The form of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Taper {
    Hann,
    Hamming,
    Blackman,
}

/// An operator that draws numbers: the same ones in each run where it has a seed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draw {
    pub kind: DrawKind,
    /// The result's element type; that of the input where there is none.
    pub dtype: Option<DType>,
    pub seed: Option<f32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DrawKind {
    /// `shape`: that of the input where there is none.
    Normal {
        mean: f32,
        scale: f32,
        shape: Option<Vec<usize>>,
    },
    Uniform {
        low: f32,
        high: f32,
        shape: Option<Vec<usize>>,
    },
    /// Input: probabilities of one.
    Bernoulli,
    /// Input: logarithms of probabilities, one row per distribution.
    Multinomial { samples: usize },
}
