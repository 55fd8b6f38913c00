//! What operators ask of the place where they run, on a GPU or on the host.

use super::{Binary, Contrib, Op, Unary};
use crate::tensor::DType;

impl Op {
    /// Inputs that are read on the host wherever the operator runs: numbers of how rather than
    /// of what.
    pub fn host_inputs(&self) -> &'static [usize] {
        match self {
            Self::Clip | Self::Dropout { .. } => &[1, 2],
            Self::Pad(_) => &[1, 2, 3],
            Self::CumSum { .. }
            | Self::CumProd { .. }
            | Self::Trilu { .. }
            | Self::Compress { .. }
            | Self::ReverseSequence { .. }
            | Self::Gather { .. }
            | Self::GatherElements { .. }
            | Self::GatherNd { .. }
            | Self::ScatterElements { .. }
            | Self::ScatterNd { .. }
            | Self::Contrib(Contrib::RotaryEmbedding { .. }) => &[1],
            Self::TensorScatter { .. } => &[2],
            Self::Rotary(_) | Self::Contrib(Contrib::Attention(_)) => &[3],
            Self::Recurrent(_) | Self::Contrib(Contrib::MultiHeadAttention(_)) => &[4],
            Self::Attention(_) => &[6],
            Self::Contrib(Contrib::EmbedLayerNorm { .. }) => &[0, 1, 7, 8],
            other => other.shaping_inputs().unwrap_or_default(),
        }
    }

    /// Whether input `at`, of so many elements, is read on the host where it lies there.
    pub fn reads_on_host(&self, at: usize, elements: usize) -> bool {
        let number = match self {
            Self::Binary(Binary::Add | Binary::Mul) => elements == 1,
            Self::Binary(_) => at == 1 && elements == 1,
            _ => false,
        };
        number || self.host_inputs().contains(&at)
    }

    /// The element type that an attribute brings in, beside those of the inputs.
    pub fn own_type(&self) -> Option<DType> {
        match self {
            Self::Cast { to, .. } => Some(*to),
            Self::EyeLike { dtype, .. } => *dtype,
            Self::Attention(attention) => attention.precision,
            _ => None,
        }
    }

    /// Whether it works on tensors where each of them lies: it hands them on, or reads no
    /// more than their shapes.
    pub fn hands_on(&self) -> bool {
        matches!(
            self,
            Self::Identity | Self::Sequence(_) | Self::Shape { .. } | Self::Size
        )
    }

    /// Whether the operator is left to the host, for one of these reasons.
    pub fn runs_on_host(&self) -> bool {
        match self {
            // The elements are read on the host.
            Self::BitCast(_)
            | Self::Col2Im { .. }
            | Self::DeformConv { .. }
            | Self::Det
            | Self::Draw(_)
            | Self::Hardmax { .. }
            | Self::Image(_)
            | Self::LocalResponseNorm { .. }
            | Self::Loss(_)
            | Self::LpPool { .. }
            | Self::MaxUnpool(_)
            | Self::Ml(_)
            | Self::NonZero
            | Self::OneHot { .. }
            | Self::Quantized(_)
            | Self::Signal(_)
            | Self::Text(_)
            | Self::TfIdf(_)
            | Self::Unique { .. } => true,
            Self::Contrib(kind) => matches!(
                kind,
                Contrib::DynamicQuantizeLstm(_)
                    | Contrib::DynamicQuantizeMatMul
                    | Contrib::Inverse
                    | Contrib::MatMulIntegerToFloat
                    | Contrib::QAttention(_)
                    | Contrib::QLinear(_)
            ),
            Self::MaxPool {
                window, indices, ..
            } => *indices || window.kernel.len() > 2,
            Self::AveragePool { window, .. } => {
                window.kernel.len() > 2 || window.dilations.iter().any(|&dilation| dilation > 1)
            }
            // burn sorts on the host, and in another order of equals than on the CPU.
            Self::TopK { .. } => true,
            // burn adds all that stands before anew for each element.
            Self::CumSum { .. } | Self::CumProd { .. } => true,
            // burn writes one row after the other in one thread for each column.
            Self::ScatterElements { .. } | Self::ScatterNd { .. } => true,
            // A GPU's logarithm loses the digits of what is next to 1.
            Self::Unary(Unary::Mish) => true,
            // A GPU's quotient may be a little below a whole number.
            Self::Binary(kind) | Self::BinaryAt { kind, .. } => matches!(kind, Binary::Mod { .. }),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Padding, Window};

    #[test]
    fn numbers_of_how_are_read_on_the_host() {
        let gather = Op::Gather { axis: 0 };
        assert!(gather.reads_on_host(1, 5000) && !gather.reads_on_host(0, 5000));
        let minus = Op::Binary(Binary::Sub);
        assert!(minus.reads_on_host(1, 1) && !minus.reads_on_host(0, 1));
        assert!(!minus.reads_on_host(1, 2));
    }

    #[test]
    fn pools_over_three_axes_are_left_to_the_host() {
        let pool = |axes: usize| Op::AveragePool {
            window: Window {
                kernel: vec![2; axes],
                strides: Vec::new(),
                dilations: Vec::new(),
                padding: Padding::Explicit(Vec::new()),
                ceil: false,
            },
            count_padding: false,
        };
        assert!(!pool(2).runs_on_host() && pool(3).runs_on_host());
    }
}
