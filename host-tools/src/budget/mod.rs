//! The budget policy: the mix of precisions with the smallest loss within a number of bytes.
//!
//! ```text
//! Bench ─ one tensor at a time ─▶ Sensitivities ─ knapsack ─▶ mix ─┐
//!                        ▲                                         │
//!                        └── what each step up or down costs there ◀┘
//! ```
//!
//! Losses are KL divergences to the FP32 model, measured on text not used for calibration. Losses
//! of single tensors are not quite additive, so costs are measured again around the chosen mix
//! until no better mix is found.
//!
//! A [`Limit`] on instructions is met by a price on them: the lowest with which the mix of the
//! smallest loss plus price keeps the limit.

mod arrangement;
mod bench;
mod divide;
mod estimate;
mod knapsack;
mod limit;
mod pruning;
mod search;
mod sensitivity;
mod sequential;
mod steps;
mod token_classes;
mod variants;

pub use arrangement::choose_arrangement;
pub use bench::Bench;
pub use divide::divide;
pub use estimate::estimate;
pub use knapsack::{Choice, solve};
pub use limit::Limit;
pub use search::{Mix, Progress, Search};
pub use sensitivity::{Entries, Part, Sensitivities, is_complete, measure};
pub use sequential::refine;
