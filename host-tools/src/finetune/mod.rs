//! Quantization-aware fine-tuning with distillation from the FP32 model.
//!
//! ```text
//! blob ─▶ Student ─ forward with stored numbers ─▶ KL to the FP32 teacher ─▶ gradients ─┐
//!            ▲ codes, units, multiples, biases, chains ◀── straight through the rounding ┘
//!            └─ export ─▶ blob
//! ```
//!
//! A student starts from a blob. Codes, group multiples and biases are trained as real numbers, row
//! units as logarithms; before each step all are rounded to what a section can hold, and
//! activations are rounded as in the integer path. Each step thus sees the model that an export
//! would write, and an exported student computes what training computed.

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
