//! How the tensors of any architecture are stored: by the product's quantizer, counted as a blob
//! counts them.
//!
//! Matrices take the storage that is asked for. Two kinds of tensors are used element by element,
//! not in products: taps of convolutions and Mamba's A; they are INT8 with a scale per channel, as
//! the taps of a blob are, or FP16 where the matrices are. Vectors are FP16, and biases belong to
//! their matrix. Every quantized matrix gets a bias, which absorbs its mean error.

use std::collections::BTreeMap;
use std::path::Path;

use resnet_bk_core::blob::{TensorId, align_up};
use resnet_bk_schema::{Step, Steps, Storage};
use resnet_bk_tools::checkpoint::{Tensor, safetensors};
use resnet_bk_tools::files;
use resnet_bk_tools::quantize::calibration::{OutputMoments, Statistics, Symmetric};
use resnet_bk_tools::quantize::encode::{Matrix, encode};
use serde_json::Value;

use super::tensors::{Failure, Tensors};
use super::trained::theirs_of;

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// One row per token.
    Embedding,
    /// The output layer.
    Head,
    /// A matrix before a ReLU or a softmax, where cross-row error compensation does not help.
    Choice,
    /// Any other matrix.
    Linear,
    /// Taps of a convolution `[TAPS, C]`, with biases.
    Taps,
    /// Numbers per channel `[N, C]`, without biases.
    PerChannel,
    /// A vector.
    Vector,
}

impl Role {
    /// The role of a tensor by its name; `None` if it is stored with its matrix or folded away.
    fn of(name: &str, tensor: &Tensor) -> Option<Self> {
        let layer = name.strip_suffix(".weight").unwrap_or(name);
        let ends = |suffix: &str| layer.ends_with(suffix);
        if name.ends_with("norm.weight") || name.ends_with("norm_final.weight") {
            return None;
        }
        match tensor.shape.len() {
            2 if layer == "token_embedding" => Some(Self::Embedding),
            2 if layer == "lm_head" => Some(Self::Head),
            2 if ends(".conv") => Some(Self::Taps),
            2 if ends(".A_log") && tensor.shape[0] == 1 => Some(Self::Vector),
            2 if ends(".A_log") => Some(Self::PerChannel),
            2 if ends(".up") || ends(".qkv") || ends(".gating_network") => Some(Self::Choice),
            2 if layer.contains(".experts.") && ends(".0") => Some(Self::Choice),
            2 => Some(Self::Linear),
            _ if name.ends_with(".bias") => None,
            _ => Some(Self::Vector),
        }
    }

    /// A matrix of our blobs that is quantized in the same way.
    fn id(self) -> TensorId {
        match self {
            Self::Embedding | Self::PerChannel | Self::Vector => TensorId::TokenEmbedding(0),
            Self::Head => TensorId::LmHead(0),
            Self::Choice => TensorId::ExpertUp(0, 0),
            Self::Linear | Self::Taps => TensorId::OutputProj(0),
        }
    }

    /// Whether a policy chooses its storage.
    pub(super) fn is_matrix(self) -> bool {
        matches!(self, Self::Embedding | Self::Head | Self::Choice | Self::Linear)
    }

    /// The storage of such a tensor where matrices have this one.
    fn storage(self, matrices: Storage, cols: usize) -> Storage {
        match self {
            Self::Vector => Storage::FP16,
            Self::Taps | Self::PerChannel if matrices != Storage::FP16 => Storage::INT8,
            _ => matrices.for_row(cols),
        }
    }
}

/// Statistics of every matrix, by layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments(BTreeMap<String, Statistics>);

impl Moments {
    /// Reads what `moments.py` wrote.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let container = safetensors::from_bytes(&files::read(path)?, path)?;
        let rows = container.metadata.get("rows").ok_or("statistics without their rows")?;
        let rows: Value = serde_json::from_str(rows)?;
        let mut layers = BTreeMap::new();
        for (name, mean) in &container.tensors {
            let Some(layer) = name.strip_suffix(".mean") else { continue };
            let symmetric = |part: &str| -> Result<Option<Symmetric>, Failure> {
                let name = format!("{layer}.{part}");
                let Some(tensor) = container.tensors.get(&name) else { return Ok(None) };
                let size = tensor.data.len().isqrt();
                if tensor.shape != [size, size] {
                    return Err(format!("{name} in {} is not square", path.display()).into());
                }
                let values = tensor.data.iter().map(|&x| f64::from(x)).collect();
                Ok(Some(Symmetric::new(size, values)))
            };
            let inputs = symmetric("inputs")?.filter(|inputs| inputs.size == mean.data.len());
            let missing = || format!("{layer}.inputs in {} does not fit", path.display());
            let statistics = Statistics {
                rows: rows[layer].as_u64().unwrap_or(0) as usize,
                mean: mean.data.iter().map(|&x| f64::from(x)).collect(),
                shift: vec![0.0; mean.data.len()],
                inputs: inputs.ok_or_else(missing)?,
                // Of outputs that feed a choice there are none.
                outputs: symmetric("outputs")?.map_or(OutputMoments::None, OutputMoments::Full),
            };
            layers.insert(layer.to_owned(), statistics);
        }
        Ok(Self(layers))
    }

    fn of(&self, layer: &str, cols: usize) -> Result<Statistics, Failure> {
        let found = self.0.get(layer).or_else(|| self.0.get(&theirs_of(layer)));
        match found.filter(|statistics| statistics.inputs.size == cols) {
            Some(statistics) => Ok(statistics.clone()),
            None => Err(format!("there are no statistics of {layer}").into()),
        }
    }
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Values by name: the tensor's own and those of its bias, if it has one.
    pub(super) values: Vec<(String, Tensor)>,
    /// Bytes, aligned as in a blob.
    pub(super) bytes: usize,
}

/// Every tensor of a model that is stored, in order of names.
pub(super) fn roles(tensors: &Tensors) -> Vec<(String, Role)> {
    let role = |(name, tensor): (&String, &Tensor)| Some((name.clone(), Role::of(name, tensor)?));
    tensors.0.iter().filter_map(role).collect()
}

/// Columns of a tensor as it is stored.
pub(super) fn columns(tensor: &Tensor, role: Role) -> usize {
    match role {
        Role::Vector => tensor.data.len(),
        Role::Taps | Role::PerChannel => tensor.shape[0],
        _ => tensor.shape[1],
    }
}

/// Bytes of a tensor where matrices have this storage, without quantizing it.
pub(super) fn bytes(tensor: &Tensor, role: Role, matrices: Storage) -> usize {
    let cols = columns(tensor, role).max(1);
    let rows = tensor.data.len() / cols;
    align_up(role.storage(matrices, cols).layout(role.id(), rows, cols).len())
}

/// Quantizes one tensor, in the storage that belongs to it where matrices have this one.
pub(super) fn store(
    tensors: &Tensors,
    name: &str,
    role: Role,
    matrices: Storage,
    moments: &Moments,
) -> Result<Stored, Failure> {
    let tensor = tensors.get(name)?;
    let cols = columns(tensor, role).max(1);
    let rows = tensor.data.len() / cols;
    let transposes = matches!(role, Role::Taps | Role::PerChannel);
    let weights = if transposes { transposed(&tensor.data, rows) } else { tensor.data.clone() };
    let layer = name.strip_suffix(".weight").unwrap_or(name);
    let statistics = match role.is_matrix() {
        true => moments.of(layer, cols)?,
        false => plain(if role == Role::Vector { 0 } else { cols }),
    };
    let bias_name = format!("{layer}.bias");
    let biases = match tensors.find(&bias_name) {
        _ if role.id().is_embedding() => Vec::new(),
        Some(bias) => bias.data.clone(),
        None => vec![0.0; rows],
    };
    let steps = if role.is_matrix() { Steps::ALL } else { Steps::ALL.without(Step::Outputs) };
    let matrix = Matrix {
        id: role.id(),
        name,
        weights: &weights,
        cols,
        biases: &biases,
        statistics: std::slice::from_ref(&statistics),
        steps,
    };
    let (encoded, decoded) = encode(matrix, role.storage(matrices, cols))?;
    let data = if transposes { transposed(&decoded.weights, cols) } else { decoded.weights };
    let mut values = vec![(name.to_owned(), Tensor { shape: tensor.shape.clone(), data })];
    if !decoded.biases.is_empty() {
        values.push((bias_name, Tensor { shape: vec![rows], data: decoded.biases }));
    }
    Ok(Stored { values, bytes: align_up(encoded.section.len()) })
}

/// Statistics of inputs that are independent of each other and of equal weight.
fn plain(cols: usize) -> Statistics {
    Statistics {
        // Many: damping is for few samples.
        rows: 1 << 20,
        mean: vec![0.0; cols],
        shift: vec![0.0; cols],
        inputs: Symmetric::identity(cols),
        outputs: OutputMoments::None,
    }
}

/// The transpose of `[data.len() / columns, columns]`.
fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    let rows = data.len() / columns.max(1);
    (0..data.len()).map(|i| data[i % rows * columns + i / rows]).collect()
}

#[cfg(test)]
mod tests {
    use resnet_bk_core::blob::Precision;

    use super::super::network::build;
    use super::super::network::tests::{FIXTURES, fixture};
    use super::super::trained::Trained;
    use super::*;

    /// Statistics that say nothing, of every matrix.
    fn moments(tensors: &Tensors) -> Moments {
        let matrices = roles(tensors).into_iter().filter(|(_, role)| role.is_matrix());
        let layer = |(name, role): (String, Role)| {
            let layer = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
            (layer, plain(columns(&tensors.0[&name], role)))
        };
        Moments(matrices.map(layer).collect())
    }

    #[test]
    fn every_tensor_is_stored_in_the_bytes_that_are_counted() {
        for name in FIXTURES {
            let (container, tokens, window, expected) = fixture(name);
            let Trained { tensors, dims, .. } = Trained::of(container).unwrap();
            let moments = moments(&tensors);
            let int3 = Storage::grouped(Precision::Int3, 32);
            let mut errors = Vec::new();
            for storage in [Storage::FP16, Storage::INT8, Storage::INT4, int3] {
                let mut decoded = tensors.clone();
                for (name, role) in roles(&tensors) {
                    let stored = store(&tensors, &name, role, storage, &moments).unwrap();
                    let tensor = &tensors.0[&name];
                    assert_eq!(stored.bytes, bytes(tensor, role, storage), "{name} {storage}");
                    let own = &stored.values[0].1;
                    assert_eq!(own.shape, tensor.shape, "{name} {storage}");
                    decoded.0.extend(stored.values);
                }
                let network = build(&dims, &decoded).unwrap();
                let logits = network.logits(&tokens, window).unwrap();
                let squares = logits.iter().zip(&expected).map(|(a, b)| (a - b).powi(2));
                let size = expected.iter().map(|x| x * x).sum::<f32>();
                errors.push((squares.sum::<f32>() / size).sqrt());
            }
            assert!(errors[0] < 2e-3 && errors[1] < 0.05, "{name}: {errors:?}");
            assert!(errors.is_sorted(), "{name}: {errors:?}");
        }
    }

    #[test]
    fn missing_statistics_are_named() {
        let (container, ..) = fixture("gru");
        let Trained { tensors, .. } = Trained::of(container).unwrap();
        let name = "blocks.0.mixer.recurrent.weight";
        let found = store(&tensors, name, Role::Linear, Storage::INT4, &Moments::default());
        assert!(found.unwrap_err().to_string().contains("mixer.recurrent"));
    }
}
