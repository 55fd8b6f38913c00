//! Stored tensors whose bytes lie in files beside the model: mapped, and put where those of
//! other tensors are.
//!
//! A model says which files; it gets only regular files in its own folder or below, also
//! where a link leads to them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use super::{EXTERNAL, dtype};
use crate::error::LoadError;
use crate::tensor::DType;

/// Gives every tensor of the model its bytes from the files of `folder`.
pub(crate) fn attach(model: &mut ModelProto, folder: &Path) -> Result<(), LoadError> {
    let mut files = Files {
        folder: folder.to_owned(),
        mapped: HashMap::new(),
    };
    if let Some(graph) = &mut model.graph {
        files.graph(graph)?;
    }
    let mut functions = model.functions.iter_mut();
    functions.try_for_each(|function| files.nodes(&mut function.node))
}

struct Files {
    folder: PathBuf,
    /// By the names that the model gives them.
    mapped: HashMap<String, Bytes>,
}

impl Files {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), LoadError> {
        for tensor in &mut graph.initializer {
            self.tensor(tensor)?;
        }
        for sparse in &mut graph.sparse_initializer {
            let parts = [&mut sparse.values, &mut sparse.indices];
            for tensor in parts.into_iter().flatten() {
                self.tensor(tensor)?;
            }
        }
        self.nodes(&mut graph.node)
    }

    fn nodes(&mut self, nodes: &mut [NodeProto]) -> Result<(), LoadError> {
        for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
            if let Some(tensor) = &mut attribute.t {
                self.tensor(tensor)?;
            }
            if let Some(graph) = &mut attribute.g {
                self.graph(graph)?;
            }
            if let Some(sparse) = &mut attribute.sparse_tensor {
                let parts = [&mut sparse.values, &mut sparse.indices];
                for tensor in parts.into_iter().flatten() {
                    self.tensor(tensor)?;
                }
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &mut TensorProto) -> Result<(), LoadError> {
        if tensor.data_location != EXTERNAL {
            return Ok(());
        }
        let dtype = dtype(tensor.data_type, &tensor.name)?;
        let found = self.bytes(tensor, dtype);
        let bytes = found.map_err(|reason| LoadError::Weights {
            name: tensor.name.clone(),
            reason,
        })?;
        tensor.raw_data = Some(bytes);
        tensor.data_location = 0;
        Ok(())
    }

    fn bytes(&mut self, tensor: &TensorProto, dtype: DType) -> Result<Bytes, String> {
        let entry = |key: &str| {
            let mut entries = tensor.external_data.iter();
            entries
                .find(|entry| entry.key == key)
                .map(|entry| entry.value.as_str())
        };
        let number = |key: &str| {
            let parsed = entry(key).map(|text| {
                let number = text.trim().parse::<usize>();
                number.map_err(|_| format!("its {key} is `{text}`, expected a number"))
            });
            parsed.transpose()
        };
        let location = entry("location").ok_or("it names no file for its data")?;
        let offset = number("offset")?.unwrap_or(0);
        let needed = needed(tensor, dtype)?;
        let length = number("length")?.unwrap_or(needed);
        let file = self.file(location)?;
        let end = offset.checked_add(length).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| {
            let size = file.len();
            format!("{length} bytes from {offset} on reach beyond the {size} of `{location}`")
        })?;
        Ok(file.slice(offset..end))
    }

    fn file(&mut self, location: &str) -> Result<Bytes, String> {
        if let Some(known) = self.mapped.get(location) {
            return Ok(known.clone());
        }
        let relative = Path::new(location);
        let mut parts = relative.components();
        let inside = parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let outside = || format!("its data file `{location}` is not in the model's folder");
        if location.is_empty() || !inside {
            return Err(outside());
        }
        let unread = |error: std::io::Error| format!("its data file `{location}`: {error}");
        let folder = match self.folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => &self.folder,
        };
        let folder = fs::canonicalize(folder).map_err(unread)?;
        let path = fs::canonicalize(folder.join(relative)).map_err(unread)?;
        if !path.starts_with(&folder) {
            return Err(outside());
        }
        // Anything else may wait for a writer for ever.
        if !fs::metadata(&path).map_err(unread)?.is_file() {
            return Err(format!("its data file `{location}` is no regular file"));
        }
        let file = File::open(&path).map_err(unread)?;
        let bytes = if file.metadata().map_err(unread)?.len() == 0 {
            Bytes::new()
        } else {
            #[allow(unsafe_code, reason = "mapping a file")]
            // SAFETY: as for the model's own file: the mapping lives until the model is loaded,
            // and files of models are written once and never changed in place.
            let mapped = unsafe { memmap2::Mmap::map(&file) }.map_err(unread)?;
            Bytes::from_owner(mapped)
        };
        self.mapped.insert(location.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

/// How many bytes a tensor takes in a file.
fn needed(tensor: &TensorProto, dtype: DType) -> Result<usize, String> {
    let bits = match dtype {
        DType::Narrow(narrow) => narrow.bits(),
        other => {
            8 * other
                .size()
                .ok_or("strings can't lie in a file of their own")?
        }
    };
    let mut sizes = tensor.dims.iter().map(|&size| usize::try_from(size).ok());
    let count = sizes.try_fold(bits, |all, size| all.checked_mul(size?));
    let bits = count.ok_or_else(|| format!("its shape is {:?}", tensor.dims))?;
    Ok(bits.div_ceil(8))
}
