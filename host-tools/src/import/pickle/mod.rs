//! The subset of Python's pickle that a `state_dict` needs; nothing is executed.
//!
//! A pickle is a program for a stack machine. Every value becomes a node in one array and every
//! reference an index into it, so that shared and cyclic objects are neither copied nor followed,
//! whatever the file. Calls of Python functions are recorded for the caller to interpret, never
//! performed.

mod graph;
mod machine;
mod opcode;
#[cfg(test)]
mod tests;

pub(super) use graph::{Id, Node, Pickle};

impl Pickle {
    /// Runs the program at the start of these bytes, or says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        machine::run(bytes)
    }
}
