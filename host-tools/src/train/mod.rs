//! Training: windows drawn at random from a text, AdamW, cosine schedule.
//!
//! The same seed, text and settings give bit-identical weights on the same machine, for any number
//! of threads and across interruption and resume.

pub mod adamw;
mod batch;
mod evaluate;
mod initial;
mod log;
pub(crate) mod random;
mod run;
mod schedule;
pub mod state;
#[cfg(test)]
mod tests;
mod trainer;

pub(crate) use batch::{Batch, CHUNK, Shard};
pub use evaluate::{Score, evaluate};
pub use initial::initial_model;
pub(crate) use log::Log;
pub use run::{Event, Output, Run, Summary};
pub use schedule::learning_rate;
pub use trainer::{Recipe, Step, Trainer};
