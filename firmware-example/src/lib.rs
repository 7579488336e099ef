//! Shared by the programs of this example: board support, fault handling, session memory, output.

#![no_std]

pub mod board;
mod fault;
mod memory;
pub mod meter;
pub mod prompt;
pub mod report;
pub mod settings;
pub mod storage;
