//! Fine-tuning under quantization: the weights move to where the grid is.
//!
//! ```text
//! blob ─▶ Student ─ forward with stored numbers ─▶ KL to the FP32 teacher ─▶ gradients ─┐
//!            ▲ codes, units, multiples, biases, chains ◀── straight through the rounding ┘
//!            └─ export ─▶ blob
//! ```
//!
//! A student starts as the numbers of a blob. Codes, the multiples of groups and biases are trained
//! as real numbers that are rounded before each step to what a section can hold, row units as their
//! logarithm; activations are rounded as the integer path rounds them. So every step sees the model
//! that the next export would write, and an exported student computes what its training saw.

mod export;
mod matrix;
mod run;
mod student;
#[cfg(test)]
mod tests;
mod tuner;
mod validation;

pub use export::Origin as ExportOrigin;
pub use run::{Event, Run, Summary};
pub use student::Student;
pub use tuner::{Recipe, Step, Tuner};
pub use validation::ValidationSet;
