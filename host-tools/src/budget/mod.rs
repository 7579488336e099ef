//! The budget policy: the mix of precisions that loses least within so many bytes.
//!
//! ```text
//! Bench ─ one tensor at a time ─▶ Sensitivities ─ knapsack ─▶ mix ─┐
//!                        ▲                                         │
//!                        └── what each step up or down costs there ◀┘
//! ```
//!
//! Losses are KL divergences to the FP32 model, measured on text that the quantizer was not
//! calibrated on. What tensors cost on their own does not quite add up to what they cost together,
//! so the table is measured again around the chosen mix until no other mix is better.

mod arrangement;
mod bench;
mod divide;
mod knapsack;
mod pruning;
mod search;
mod sensitivity;
mod sequential;
mod token_classes;

pub use arrangement::choose_arrangement;
pub use bench::Bench;
pub use divide::divide;
pub use knapsack::{Choice, solve};
pub use search::{Mix, Progress, Search};
pub use sensitivity::{Sensitivities, is_complete, measure};
pub use sequential::refine;
