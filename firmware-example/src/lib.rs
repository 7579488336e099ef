//! What the programs of this example share: the board, faults, the memory of inference, and what
//! they print.

#![no_std]

pub mod board;
mod fault;
mod memory;
pub mod meter;
pub mod prompt;
pub mod report;
pub mod settings;
pub mod storage;
