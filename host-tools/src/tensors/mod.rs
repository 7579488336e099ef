//! Names of matrices, and the storage of each.

mod assignment;
mod names;

pub use assignment::Assignment;
pub use names::{bias_name, dimensions, feeds_a_choice, is_linear, layer_name, weight_name};
