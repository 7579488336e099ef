//! The layers of a block, each on activation codes and Q15.16 vectors.

pub mod activation;
pub mod bk;
pub mod gate;
pub mod moe;
