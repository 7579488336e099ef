//! The budget policy: the mix of precisions that loses least within so many bytes.
//!
//! ```text
//! Bench ─ one tensor at a time ─▶ Sensitivities ─ knapsack ─▶ mix ─┐
//!                        ▲                                         │
//!                        └── what each step up or down costs there ◀┘
//! ```
//!
//! Losses are KL divergences to the FP32 model, measured on text that the quantizer was not calibrated
//! on. What tensors cost on their own does not quite add up to what they cost together, so the
//! table is measured again around the chosen mix until no other mix is better.

mod bench;
mod division;
mod knapsack;
mod prefix;
mod search;
mod sensitivity;
mod symmetries;

pub use bench::Bench;
pub use division::divide;
pub use knapsack::{Choice, solve};
pub use prefix::refine;
pub use search::{Found, Progress, Search};
pub use sensitivity::{CANDIDATES, Sensitivities, candidates, is_complete, measure};
pub use symmetries::choose;
