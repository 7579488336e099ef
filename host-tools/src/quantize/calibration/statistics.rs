//! Statistics of the inputs and outputs of one matrix.

/// A symmetric matrix, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Symmetric {
    /// Rows and columns.
    pub size: usize,
    /// `[size, size]`.
    pub values: Vec<f64>,
}

impl Symmetric {
    /// The identity.
    pub fn identity(size: usize) -> Self {
        let mut values = vec![0.0; size * size];
        values.iter_mut().step_by(size + 1).for_each(|value| *value = 1.0);
        Self { size, values }
    }

    /// The diagonal.
    pub fn diagonal(&self) -> impl Iterator<Item = f64> {
        self.values.iter().step_by(self.size + 1).copied()
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.size..][..self.size]
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
    /// G: second moment of the outputs' gradients; only its diagonal where a ReLU or softmax
    /// follows ([`crate::tensors::feeds_a_choice`]). Empty for an embedding, whose A is that second
    /// moment, and for a convolution.
    pub outputs: Symmetric,
}

impl Statistics {
    pub(super) fn is_finite(&self) -> bool {
        let all = [&self.mean, &self.inputs.values, &self.outputs.values];
        all.into_iter().flatten().all(|value| value.is_finite())
    }

    /// Placeholder for a matrix that no token of the text reached.
    pub(super) fn unknown(rows: usize, cols: usize) -> Self {
        Self {
            rows: 0,
            mean: vec![0.0; cols],
            shift: vec![0.0; cols],
            inputs: Symmetric::identity(cols),
            outputs: Symmetric::identity(rows),
        }
    }
}
