//! Train, import, analyse, quantize and evaluate ResNet-BK language models on a workstation.

// `terminal` prints, and gives the reason.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod budget;
pub mod checkpoint;
pub mod cli;
pub mod compress;
pub mod corpus;
mod digest;
pub mod error;
pub mod eval;
pub mod files;
pub mod finetune;
pub mod import;
pub mod importance;
pub mod instructions;
pub mod memory;
pub mod output;
pub mod policy;
pub mod quantize;
pub mod reference;
pub mod report;
mod table;
pub mod tensors;
pub mod terminal;
pub mod threads;
pub mod token_file;
pub mod tokenizer;
pub mod train;
pub mod upgrade;
