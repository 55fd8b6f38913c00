//! Domain `ai.onnx.ml`: what converters of scikit-learn, LightGBM and XGBoost models emit.

use std::sync::Arc;

use bytes::Bytes;

use super::{Context, ParseError, trees};
use crate::device;
use crate::graph::*;
use crate::lower::attributes::Attributes;
use crate::onnx;
use crate::tensor::{DType, Tensor};
use crate::value::Value;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    let node = context.node;
    Ok(Some(Op::Ml(match operator {
        "TreeEnsemble" => Ml::Trees(Arc::new(trees::by_position(a, node)?)),
        "TreeEnsembleRegressor" => {
            let targets = size(a, "n_targets", 1)?;
            Ml::Trees(Arc::new(trees::by_ids(a, node, "target", targets)?))
        }
        "TreeEnsembleClassifier" => {
            let labels = labels(a, "classlabels_int64s")?;
            let forest = trees::by_ids(a, node, "class", labels.len())?;
            Ml::TreeClassifier(Arc::new(forest), labels)
        }
        "LinearRegressor" => {
            let targets = size(a, "targets", 1)?;
            Ml::Linear(linear(a, targets)?)
        }
        "LinearClassifier" => {
            let labels = labels(a, "classlabels_ints")?;
            let bias = a.floats("intercepts")?.unwrap_or_default();
            // Two classes may share one row of weights.
            let targets = match bias.len() {
                0 => labels.len(),
                rows => rows,
            };
            Ml::LinearClassifier(linear(a, targets)?, labels)
        }
        "SVMRegressor" => Ml::Svm(Arc::new(svm(a)?)),
        "SVMClassifier" => {
            let labels = labels(a, "classlabels_ints")?;
            Ml::SvmClassifier(Arc::new(svm(a)?), labels)
        }
        "Scaler" => Ml::Scaler {
            offset: a.floats("offset")?.unwrap_or_else(|| vec![0.0]),
            scale: a.floats("scale")?.unwrap_or_else(|| vec![1.0]),
        },
        "Normalizer" => Ml::Normalizer(match a.text("norm")?.as_deref() {
            None | Some("MAX") => Norm::Max,
            Some("L1") => Norm::L1,
            Some("L2") => Norm::L2,
            Some(other) => return Err(format!("unknown norm `{other}`").into()),
        }),
        "OneHotEncoder" => {
            let keys = match (a.ints("cats_int64s")?, a.texts("cats_strings")?) {
                (Some(ints), None) => int_keys(&ints),
                (None, Some(texts)) => text_keys(texts),
                _ => return Err("expected one of `cats_int64s` and `cats_strings`".into()),
            };
            Ml::OneHot {
                categories: keys.1.len(),
                places: places(keys),
                strict: !a.flag("zeros", true)?,
            }
        }
        "LabelEncoder" => Ml::Encoder(encoders(a, node)?),
        "CategoryMapper" => {
            let names = a.texts("cats_strings")?.unwrap_or_default();
            let numbers = a.ints("cats_int64s")?.unwrap_or_default();
            Ml::Encoder(both_ways(a, names, numbers)?)
        }
        "Imputer" => Ml::Imputer {
            floats: match a.floats("imputed_value_floats")? {
                Some(by) if !by.is_empty() => Some(Imputed {
                    replaced: a.float_or("replaced_value_float", 0.0)?,
                    by,
                }),
                _ => None,
            },
            ints: match a.ints("imputed_value_int64s")? {
                Some(by) if !by.is_empty() => Some(Imputed {
                    replaced: a.int_or("replaced_value_int64", 0)?,
                    by,
                }),
                _ => None,
            },
        },
        "Binarizer" => Ml::Binarizer {
            threshold: a.float_or("threshold", 0.0)?,
        },
        "ArrayFeatureExtractor" => Ml::Extract,
        "FeatureVectorizer" => Ml::Concat,
        // Only tensors leave a model: what would be keyed by the labels stays a row of
        // probabilities in the order of the labels.
        "ZipMap" => return Ok(Some(Op::Identity)),
        _ => return Ok(None),
    })))
}

fn size(a: &mut Attributes, name: &str, default: i64) -> Result<usize, ParseError> {
    let found = a.int_or(name, default)?;
    let size = usize::try_from(found).ok().filter(|&size| size > 0);
    Ok(size.ok_or_else(|| format!("attribute `{name}` is {found}, expected ≥ 1"))?)
}

/// A list of floats, given as such or as a tensor of any number type, under its own name or
/// with `_as_tensor` behind it.
pub(super) fn numbers(a: &mut Attributes, node: &str, name: &str) -> Result<Vec<f64>, ParseError> {
    let as_tensor = format!("{name}_as_tensor");
    for name in [as_tensor.as_str(), name] {
        if !a.has(name) {
            continue;
        }
        let tensor = match a.tensor(name) {
            Ok(Some(proto)) => onnx::tensor(proto, node)?,
            _ => continue,
        };
        let value = Value::upload(tensor, &device::cpu()).and_then(|value| value.to_floats());
        return value.map_err(|error| error.to_string().into());
    }
    let floats = a.floats(name)?.unwrap_or_default();
    Ok(floats.into_iter().map(f64::from).collect())
}

pub(super) fn transform(a: &mut Attributes) -> Result<PostTransform, ParseError> {
    Ok(match a.text("post_transform")?.as_deref() {
        None | Some("NONE") => PostTransform::None,
        Some("SOFTMAX") => PostTransform::Softmax,
        Some("LOGISTIC") => PostTransform::Logistic,
        Some("SOFTMAX_ZERO") => PostTransform::SoftmaxZero,
        Some("PROBIT") => PostTransform::Probit,
        Some(other) => return Err(format!("unknown transform `{other}`").into()),
    })
}

fn labels(a: &mut Attributes, ints: &str) -> Result<Labels, ParseError> {
    let ints = a.ints(ints)?.unwrap_or_default();
    let texts = a.texts("classlabels_strings")?.unwrap_or_default();
    match (ints.is_empty(), texts.is_empty()) {
        (false, true) => Ok(Labels::Ints(ints)),
        (true, false) => Ok(Labels::Texts(texts.into_iter().map(Bytes::from).collect())),
        _ => Err("expected class labels, as integers or as strings".into()),
    }
}

fn linear(a: &mut Attributes, targets: usize) -> Result<Linear, ParseError> {
    let weights = a.floats("coefficients")?.unwrap_or_default();
    let bias = a.floats("intercepts")?.unwrap_or_default();
    let fits = weights.len() % targets == 0 && (bias.is_empty() || bias.len() == targets);
    if !fits || weights.is_empty() {
        return Err(format!(
            "{} weights and {} intercepts for {targets} targets",
            weights.len(),
            bias.len()
        )
        .into());
    }
    Ok(Linear {
        weights,
        targets,
        bias,
        transform: transform(a)?,
    })
}

fn svm(a: &mut Attributes) -> Result<Svm, ParseError> {
    let kernel = match a.text("kernel_type")?.as_deref() {
        None | Some("LINEAR") => Kernel::Linear,
        Some("POLY") => Kernel::Poly,
        Some("RBF") => Kernel::Rbf,
        Some("SIGMOID") => Kernel::Sigmoid,
        Some(other) => return Err(format!("unknown kernel `{other}`").into()),
    };
    let params = a.floats("kernel_params")?.unwrap_or_default();
    let param = |at: usize| params.get(at).copied().unwrap_or(0.0);
    let per_class = a.sizes("vectors_per_class")?;
    let number = match per_class
        .iter()
        .try_fold(0usize, |sum, &n| sum.checked_add(n))
    {
        Some(0) => usize::try_from(a.int_or("n_supports", 0)?).ok(),
        sum => sum,
    };
    let number = number.ok_or("the number of its vectors is out of range")?;
    let vectors = a.floats("support_vectors")?.unwrap_or_default();
    if number > 0 && (vectors.is_empty() || vectors.len() % number != 0) {
        return Err(format!("{} numbers for {number} vectors", vectors.len()).into());
    }
    let svm = Svm {
        kernel,
        gamma: param(0),
        offset: param(1),
        degree: param(2),
        vectors,
        number,
        coefficients: a.floats("coefficients")?.unwrap_or_default(),
        rho: a.floats("rho")?.unwrap_or_default(),
        one_class: a.flag("one_class", false)?,
        per_class,
        prob_a: a.floats("prob_a")?.unwrap_or_default(),
        prob_b: a.floats("prob_b")?.unwrap_or_default(),
        transform: transform(a)?,
    };
    if svm.rho.is_empty() || svm.prob_a.len() != svm.prob_b.len() {
        return Err("expected `rho`, and `prob_a` and `prob_b` of one length".into());
    }
    Ok(svm)
}

type Keys = (KeyKind, Vec<Bytes>);

fn int_keys(ints: &[i64]) -> Keys {
    let bytes = |n: &i64| Bytes::copy_from_slice(&n.to_le_bytes());
    (KeyKind::Int, ints.iter().map(bytes).collect())
}

fn float_keys(floats: &[f64]) -> Keys {
    let bytes = |&n: &f64| Bytes::copy_from_slice(&float_key(n));
    (KeyKind::Float, floats.iter().map(bytes).collect())
}

fn text_keys(texts: Vec<String>) -> Keys {
    (KeyKind::Text, texts.into_iter().map(Bytes::from).collect())
}

/// Of keys that stand twice the last counts.
fn places((kind, keys): Keys) -> Places {
    let of = Arc::new(keys.into_iter().zip(0..).collect());
    Places { kind, of }
}

/// The keys of a tensor.
fn tensor_keys(tensor: Tensor) -> Result<Keys, ParseError> {
    let value = host(tensor)?;
    let said = |error: crate::error::OpError| error.to_string();
    Ok(match &value {
        Value::Text(..) => (KeyKind::Text, value.strings().map_err(said)?),
        Value::Float(_) => float_keys(&value.to_floats().map_err(said)?),
        _ => int_keys(&value.to_ints().map_err(said)?),
    })
}

fn host(tensor: Tensor) -> Result<Value, ParseError> {
    Value::upload(tensor, &device::cpu()).map_err(|error| error.to_string().into())
}

fn text_values(texts: Vec<String>) -> Value {
    let count = texts.len();
    Value::from_strings(texts.into_iter().map(Bytes::from).collect(), &[count])
}

fn int_values(ints: &[i64]) -> Value {
    Value::from_ints(ints, &[ints.len()], &device::cpu())
}

fn float_values(floats: &[f32]) -> Result<Value, ParseError> {
    let tensor = Tensor::from_f32(vec![floats.len()], floats);
    host(tensor.map_err(|error| error.to_string())?)
}

/// The value of each key, then the one of all others.
fn encoder(keys: Keys, values: Value, default: Value) -> Result<Encoder, ParseError> {
    let (found, expected) = (values.len(), keys.1.len());
    if found != expected {
        return Err(format!("{expected} keys for {found} values").into());
    }
    let default = default.reshape(&[1]);
    let values = match found {
        0 => default,
        _ => Value::concat(vec![values.reshape(&[found]), default], 0)
            .map_err(|error| format!("its default: {error}"))?,
    };
    Ok(Encoder {
        places: places(keys),
        values,
    })
}

/// Strings to integers and integers to strings.
fn both_ways(
    a: &mut Attributes,
    names: Vec<String>,
    numbers: Vec<i64>,
) -> Result<Vec<Encoder>, ParseError> {
    let default_int = a.int_or("default_int64", -1)?;
    let default_text = a.text("default_string")?;
    let default_text = default_text.unwrap_or_else(|| "_Unused".into());
    let to_ints = encoder(
        text_keys(names.clone()),
        int_values(&numbers),
        int_values(&[default_int]),
    )?;
    let to_texts = encoder(
        int_keys(&numbers),
        text_values(names),
        text_values(vec![default_text]),
    )?;
    Ok(vec![to_ints, to_texts])
}

fn encoders(a: &mut Attributes, node: &str) -> Result<Vec<Encoder>, ParseError> {
    // The form before version 2 numbers strings.
    if let Some(names) = a.texts("classes_strings")? {
        let numbers = (0..names.len() as i64).collect();
        return both_ways(a, names, numbers);
    }
    let tensor = |a: &mut Attributes, name: &str| -> Result<Option<Tensor>, ParseError> {
        let proto = a.tensor(name)?;
        Ok(proto.map(|proto| onnx::tensor(proto, node)).transpose()?)
    };
    let keys = if let Some(keys) = tensor(a, "keys_tensor")? {
        tensor_keys(keys)?
    } else if let Some(keys) = a.texts("keys_strings")? {
        text_keys(keys)
    } else if let Some(keys) = a.ints("keys_int64s")? {
        int_keys(&keys)
    } else {
        let keys = a.floats("keys_floats")?.unwrap_or_default();
        float_keys(&keys.into_iter().map(f64::from).collect::<Vec<_>>())
    };
    let (values, default) = if let Some(values) = tensor(a, "values_tensor")? {
        let values = host(values)?;
        let default = match values.dtype() {
            DType::Bytes => text_values(vec!["_Unused".into()]),
            DType::F32 | DType::F64 => Value::full(values.dtype(), &[1], -0.0, &device::cpu())
                .map_err(|error| error.to_string())?,
            _ => int_values(&[-1])
                .cast(values.dtype())
                .map_err(|error| error.to_string())?,
        };
        (values, default)
    } else if let Some(values) = a.texts("values_strings")? {
        let default = a.text("default_string")?;
        let default = default.unwrap_or_else(|| "_Unused".into());
        (text_values(values), text_values(vec![default]))
    } else if let Some(values) = a.ints("values_int64s")? {
        let default = a.int_or("default_int64", -1)?;
        (int_values(&values), int_values(&[default]))
    } else {
        let values = a.floats("values_floats")?.unwrap_or_default();
        let default = a.float_or("default_float", -0.0)?;
        (float_values(&values)?, float_values(&[default])?)
    };
    let default = match tensor(a, "default_tensor")? {
        Some(given) if given.len() == 1 => host(given)?,
        Some(given) => return Err(format!("{} defaults", given.len()).into()),
        None => default,
    };
    Ok(vec![encoder(keys, values, default)?])
}
