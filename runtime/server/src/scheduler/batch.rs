//! Runs that become one, and outputs that become those of each again.
//!
//! Tensors are row-major, so putting rows together is putting bytes together, and taking them
//! apart costs no copy. Where inputs differ in further dimensions that the manifest lets grow,
//! each row is filled up to the longest, and outputs with a dimension of the same name are cut
//! back.

use std::collections::BTreeMap;

use firebox_engine::{DType, Dim, Signature, Tensor, TensorSpec};
use firebox_registry::Batching;

use super::Named;

/// How large a filled-up run may be beside what it holds: half as much again.
const MAX_FILLED: (usize, usize) = (3, 2);

/// A run as others must be to share one with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows.
    pub rows: usize,
    /// Everything that must be the same: name, dtype, and further dimensions, `None` where they
    /// may be filled up.
    fixed: Vec<(String, DType, Vec<Option<usize>>)>,
    /// Sizes that may be filled up, by the name of the dimension.
    open: BTreeMap<String, usize>,
}

impl Shape {
    /// `None` where such inputs can't share a run.
    pub fn of(inputs: &Named, signature: &Signature, batching: &Batching) -> Option<Self> {
        let mut rows = None;
        let mut open = BTreeMap::new();
        let mut fixed = Vec::with_capacity(inputs.len());
        // In the order of the signature: callers may give theirs in any.
        for spec in &signature.inputs {
            let Some((name, tensor)) = inputs.iter().find(|(name, _)| *name == spec.name) else {
                continue;
            };
            tensor.dtype().size()?;
            let (&first, rest) = tensor.shape().split_first()?;
            if first == 0 || *rows.get_or_insert(first) != first {
                return None;
            }
            let dims = spec.shape.as_deref().unwrap_or_default();
            let mut sizes = Vec::with_capacity(rest.len());
            for (at, &size) in rest.iter().enumerate() {
                match dims.get(at + 1) {
                    Some(Dim::Named(dim)) if batching.pad.contains_key(name) => {
                        if size == 0 || *open.entry(dim.clone()).or_insert(size) != size {
                            return None;
                        }
                        sizes.push(None);
                    }
                    _ => sizes.push(Some(size)),
                }
            }
            fixed.push((name.clone(), tensor.dtype(), sizes));
        }
        Some(Self {
            rows: rows?,
            fixed,
            open,
        })
    }

    /// The shape of an input whose open sizes are one more each.
    pub fn longer(&self, name: &str, given: &[usize]) -> Option<Vec<usize>> {
        let (_, _, sizes) = self.fixed.iter().find(|(its, ..)| its == name)?;
        let further = sizes.iter().zip(given.iter().skip(1));
        let further = further.map(|(size, given)| size.unwrap_or(given + 1));
        Some(std::iter::once(self.rows).chain(further).collect())
    }

    /// Elements in proportion: rows times what may be filled up.
    fn cells(&self) -> usize {
        let sizes = self.open.values();
        sizes.fold(self.rows, |cells, &size| cells.saturating_mul(size))
    }
}

/// Runs that are to share one.
#[derive(Debug)]
pub(super) struct Batch {
    /// What the whole is, with the longest of each size.
    whole: Shape,
    /// The elements of its members, without what was filled up.
    cells: usize,
}

impl Batch {
    pub fn new(first: &Shape) -> Self {
        Self {
            whole: first.clone(),
            cells: first.cells(),
        }
    }

    pub fn rows(&self) -> usize {
        self.whole.rows
    }

    /// Adds one, where it fits and wastes not too much.
    pub fn add(&mut self, other: &Shape, max_rows: usize) -> bool {
        let rows = self.whole.rows.saturating_add(other.rows);
        if rows > max_rows || other.fixed != self.whole.fixed {
            return false;
        }
        let mut open = self.whole.open.clone();
        for (name, size) in &mut open {
            let Some(its) = other.open.get(name) else {
                return false;
            };
            *size = (*size).max(*its);
        }
        let fixed = std::mem::take(&mut self.whole.fixed);
        let whole = Shape { rows, fixed, open };
        let cells = self.cells.saturating_add(other.cells());
        let fits = whole.cells() <= cells.saturating_mul(MAX_FILLED.0) / MAX_FILLED.1;
        if fits {
            (self.whole, self.cells) = (whole, cells);
        } else {
            self.whole.fixed = whole.fixed;
        }
        fits
    }

    /// The inputs of the run that they share; `None` where a member isn't what its shape says.
    pub fn stack(
        &self,
        members: &[&Named],
        signature: &Signature,
        pad: &Batching,
    ) -> Option<Named> {
        let inputs = self.whole.fixed.iter().map(|(name, dtype, sizes)| {
            let spec = signature.inputs.iter().find(|spec| spec.name == *name)?;
            let dims = spec.shape.as_deref().unwrap_or_default();
            let sizes = sizes
                .iter()
                .zip(dims.iter().skip(1).map(Some).chain(std::iter::repeat(None)));
            let sizes = sizes.map(|(size, dim)| match (size, dim) {
                (Some(size), _) => Some(*size),
                (None, Some(Dim::Named(dim))) => self.whole.open.get(dim).copied(),
                (None, _) => None,
            });
            let sizes = sizes.collect::<Option<Vec<usize>>>()?;
            let width = dtype.size()?;
            let row = sizes
                .iter()
                .try_fold(width, |bytes, &n| bytes.checked_mul(n))?;
            let mut data = Vec::with_capacity(row.checked_mul(self.whole.rows)?);
            for member in members {
                let (_, tensor) = member.iter().find(|(its, _)| its == name)?;
                let (_, its) = tensor.shape().split_first()?;
                if its == sizes {
                    data.extend_from_slice(tensor.data());
                } else {
                    let filling = element(*dtype, *pad.pad.get(name)?)?;
                    fill_up(&mut data, tensor, &sizes, &filling)?;
                }
            }
            let shape = [&[self.whole.rows], &*sizes].concat();
            Some((name.clone(), Tensor::new(*dtype, shape, data).ok()?))
        });
        inputs.collect()
    }

    /// The outputs of each member, in order.
    ///
    /// # Errors
    /// What an output is that can't be taken apart so.
    pub fn split(
        &self,
        outputs: &Named,
        members: &[&Shape],
        signature: &Signature,
    ) -> Result<Vec<Named>, String> {
        let mut each: Vec<Named> = members
            .iter()
            .map(|_| Vec::with_capacity(outputs.len()))
            .collect();
        for (name, tensor) in outputs {
            let spec = signature.outputs.iter().find(|spec| spec.name == *name);
            let wrong = || {
                let (shape, rows) = (tensor.shape(), self.whole.rows);
                format!("output `{name}` of shape {shape:?} has not one row for each of {rows}")
            };
            if tensor.shape().first() != Some(&self.whole.rows) {
                return Err(wrong());
            }
            let mut from = 0;
            for (member, to) in members.iter().zip(&mut each) {
                let part = rows(tensor, from, member.rows).ok_or_else(wrong)?;
                from += member.rows;
                let sizes = self.own_sizes(&part, member, spec).ok_or_else(wrong)?;
                let part = if sizes == part.shape() {
                    part
                } else {
                    cut_back(&part, sizes).ok_or_else(wrong)?
                };
                to.push((name.clone(), part));
            }
        }
        Ok(each)
    }

    /// The shape that a member's output has when it runs alone.
    fn own_sizes(
        &self,
        part: &Tensor,
        member: &Shape,
        spec: Option<&TensorSpec>,
    ) -> Option<Vec<usize>> {
        let dims = spec
            .and_then(|spec| spec.shape.as_deref())
            .unwrap_or_default();
        let mut sizes = part.shape().to_vec();
        for (size, dim) in sizes.iter_mut().zip(dims).skip(1) {
            if let Dim::Named(dim) = dim
                && let Some(own) = member.open.get(dim)
            {
                // Filled up as the inputs were, or something else goes by this name.
                if *size != *self.whole.open.get(dim)? {
                    return None;
                }
                *size = *own;
            }
        }
        Some(sizes)
    }
}

/// Some rows of a tensor, without a copy.
fn rows(tensor: &Tensor, first: usize, count: usize) -> Option<Tensor> {
    let (&all, rest) = tensor.shape().split_first()?;
    let row = tensor.data().len().checked_div(all)?;
    let (from, to) = (
        first.checked_mul(row)?,
        first.checked_add(count)?.checked_mul(row)?,
    );
    let data = (to <= tensor.data().len()).then(|| tensor.data().slice(from..to))?;
    let shape = [&[count], rest].concat();
    Tensor::new(tensor.dtype(), shape, data).ok()
}

/// One element of this value, as a tensor holds it.
pub fn element(dtype: DType, value: i64) -> Option<Vec<u8>> {
    let float = value as f64;
    Some(match dtype {
        DType::F32 => (float as f32).to_le_bytes().to_vec(),
        DType::F64 => float.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(float).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f64(float).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0)],
        _ => {
            let width = dtype.size()?;
            let bytes = value.to_le_bytes();
            bytes.get(..width)?.to_vec()
        }
    })
}

/// Appends a tensor's rows, each further dimension filled up at its end to what `sizes` says.
pub(super) fn fill_up(
    to: &mut Vec<u8>,
    tensor: &Tensor,
    sizes: &[usize],
    filling: &[u8],
) -> Option<()> {
    let (&rows, its) = tensor.shape().split_first()?;
    if its.len() != sizes.len() || its.iter().zip(sizes).any(|(its, size)| its > size) {
        return None;
    }
    let mut from = tensor.data().as_ref();
    for _ in 0..rows {
        fill_dimension(to, &mut from, its, sizes, filling)?;
    }
    Some(())
}

fn fill_dimension(
    to: &mut Vec<u8>,
    from: &mut &[u8],
    its: &[usize],
    sizes: &[usize],
    filling: &[u8],
) -> Option<()> {
    let (Some((&its, its_inner)), Some((&size, inner))) = (its.split_first(), sizes.split_first())
    else {
        let (element, rest) = from.split_at_checked(filling.len())?;
        to.extend_from_slice(element);
        *from = rest;
        return Some(());
    };
    if inner == its_inner {
        let bytes = inner.iter().product::<usize>() * filling.len();
        let (own, rest) = from.split_at_checked(its.checked_mul(bytes)?)?;
        to.extend_from_slice(own);
        *from = rest;
    } else {
        for _ in 0..its {
            fill_dimension(to, from, its_inner, inner, filling)?;
        }
    }
    let missing = (size - its).checked_mul(inner.iter().product())?;
    (0..missing).for_each(|_| to.extend_from_slice(filling));
    Some(())
}

/// The part of a tensor at its front in every dimension.
fn cut_back(tensor: &Tensor, sizes: Vec<usize>) -> Option<Tensor> {
    let width = tensor.dtype().size()?;
    let bytes = sizes
        .iter()
        .try_fold(width, |bytes, &n| bytes.checked_mul(n))?;
    let mut data = Vec::with_capacity(bytes);
    cut_dimension(&mut data, tensor.data(), tensor.shape(), &sizes, width)?;
    Tensor::new(tensor.dtype(), sizes, data).ok()
}

fn cut_dimension(
    to: &mut Vec<u8>,
    from: &[u8],
    its: &[usize],
    sizes: &[usize],
    width: usize,
) -> Option<()> {
    let (Some((_, its_inner)), Some((&size, inner))) = (its.split_first(), sizes.split_first())
    else {
        to.extend_from_slice(from.get(..width)?);
        return Some(());
    };
    let stride = its_inner.iter().product::<usize>().checked_mul(width)?;
    if its_inner == inner {
        to.extend_from_slice(from.get(..size.checked_mul(stride)?)?);
        return Some(());
    }
    for at in 0..size {
        cut_dimension(to, from.get(at * stride..)?, its_inner, inner, width)?;
    }
    Some(())
}

/// Why a model can't be run as `batching` wants it to, by its signature alone.
pub(super) fn unfit(signature: &Signature, batching: &Batching) -> Option<String> {
    let rowwise = |spec: &&TensorSpec| {
        let first = spec.shape.as_ref().map(|dims| dims.first());
        !matches!(first, Some(Some(Dim::Named(_) | Dim::Any)))
    };
    if let Some(spec) = signature
        .inputs
        .iter()
        .chain(&signature.outputs)
        .find(rowwise)
    {
        return Some(format!(
            "`{}` is {}, and batching needs a first dimension of any size in all inputs and \
             outputs; export the model with a dynamic batch dimension",
            spec.name,
            spec.shape_text()
        ));
    }
    let mut names = Vec::new();
    for name in batching.pad.keys() {
        let Some(spec) = signature.inputs.iter().find(|spec| spec.name == *name) else {
            let known: Vec<&str> = signature.inputs.iter().map(|spec| &*spec.name).collect();
            return Some(format!(
                "batching.pad names `{name}`, which is no input; expected {}",
                known.join(", ")
            ));
        };
        let before = names.len();
        names.extend(open_names(spec));
        if names.len() == before {
            let shape = spec.shape_text();
            return Some(format!(
                "batching.pad names `{name}`, {shape}, which has no named dimension that could be \
                 filled up"
            ));
        }
    }
    let unnamed = |spec: &&TensorSpec| {
        let dims = spec.shape.iter().flatten().skip(1);
        dims.into_iter().any(|dim| *dim == Dim::Any)
    };
    let unclear = signature.outputs.iter().find(unnamed);
    unclear.filter(|_| !names.is_empty()).map(|spec| {
        format!(
            "output `{}` is {}, so that nobody can say what of it was filled up; batching.pad \
             needs outputs whose dimensions have names",
            spec.name,
            spec.shape_text()
        )
    })
}

/// The names of an input's dimensions that may be filled up.
fn open_names(spec: &TensorSpec) -> impl Iterator<Item = &str> {
    let dims = spec.shape.iter().flatten().skip(1);
    dims.filter_map(|dim| match dim {
        Dim::Named(name) => Some(&**name),
        _ => None,
    })
}
