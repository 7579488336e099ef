//! A named array.

/// A named array of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Row-major shape; `[]` for a scalar.
    pub shape: Vec<usize>,
    /// As many weights as the shape's product.
    pub data: Vec<f32>,
}
