//! Statistics of the inputs and outputs of one matrix.

use std::sync::Arc;

/// A symmetric matrix, row-major; clones share its elements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Symmetric {
    /// Rows and columns.
    pub size: usize,
    /// `[size, size]`.
    pub values: Arc<Vec<f64>>,
}

impl Symmetric {
    /// The matrix of these elements `[size, size]`.
    pub fn new(size: usize, values: Vec<f64>) -> Self {
        debug_assert_eq!(values.len(), size * size);
        Self { size, values: Arc::new(values) }
    }

    /// The identity.
    pub fn identity(size: usize) -> Self {
        let mut values = vec![0.0; size * size];
        values.iter_mut().step_by(size + 1).for_each(|value| *value = 1.0);
        Self::new(size, values)
    }

    /// The diagonal.
    pub fn diagonal(&self) -> impl Iterator<Item = f64> {
        self.values.iter().step_by(self.size + 1).copied()
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.size..][..self.size]
    }

    /// Rows and columns `chosen`, in their order.
    pub fn among(&self, chosen: &[usize]) -> Self {
        let values = chosen.iter().flat_map(|&i| chosen.iter().map(move |&j| self.row(i)[j]));
        Self::new(chosen.len(), values.collect())
    }
}

/// G: second moment of the gradients of a matrix's outputs.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputMoments {
    /// Of an embedding, whose A it is, and of a convolution.
    None,
    /// Its diagonal, of outputs that feed a ReLU or a softmax ([`crate::tensors::feeds_a_choice`]).
    /// There the input decides which outputs count, and an average over inputs does not describe
    /// how errors compensate each other; and an output layer has a row for every token.
    Diagonal(Vec<f64>),
    /// All of it.
    Full(Symmetric),
}

impl OutputMoments {
    /// The diagonal; nothing without moments.
    pub fn diagonal(&self) -> Vec<f64> {
        match self {
            Self::None => Vec::new(),
            Self::Diagonal(diagonal) => diagonal.clone(),
            Self::Full(full) => full.diagonal().collect(),
        }
    }

    /// The moments of the outputs `chosen`, in their order.
    pub fn among(&self, chosen: &[usize]) -> Self {
        match self {
            Self::None => Self::None,
            Self::Diagonal(all) => Self::Diagonal(chosen.iter().map(|&i| all[i]).collect()),
            Self::Full(full) => Self::Full(full.among(chosen)),
        }
    }

    fn is_finite(&self) -> bool {
        match self {
            Self::None => true,
            Self::Diagonal(values) => values.iter().all(|value| value.is_finite()),
            Self::Full(full) => full.values.iter().all(|value| value.is_finite()),
        }
    }
}

/// Statistics of one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Number of rows seen; for an expert, tokens routed to it.
    pub rows: usize,
    /// Mean of each input; zero for an embedding.
    pub mean: Vec<f64>,
    /// Mean of the exact inputs minus that of the inputs after quantized layers; zero unless
    /// measured by [`crate::quantize::input_shift`].
    pub shift: Vec<f64>,
    /// A: covariance of the inputs.
    pub inputs: Symmetric,
    /// G: second moment of the outputs' gradients.
    pub outputs: OutputMoments,
}

impl Statistics {
    pub(super) fn is_finite(&self) -> bool {
        let inputs = self.mean.iter().chain(&*self.inputs.values);
        inputs.copied().all(f64::is_finite) && self.outputs.is_finite()
    }

    /// Placeholder for a matrix that no token of the text reached: inputs and outputs are
    /// uncorrelated.
    pub(super) fn unknown(rows: usize, cols: usize) -> Self {
        Self {
            rows: 0,
            mean: vec![0.0; cols],
            shift: vec![0.0; cols],
            inputs: Symmetric::identity(cols),
            outputs: OutputMoments::Diagonal(vec![1.0; rows]),
        }
    }
}
