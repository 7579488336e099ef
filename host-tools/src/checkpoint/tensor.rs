//! A named array.

/// A named array of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Row-major shape; `[]` for a scalar.
    pub shape: Vec<usize>,
    /// The elements; their number is the product of the shape.
    pub data: Vec<f32>,
}
