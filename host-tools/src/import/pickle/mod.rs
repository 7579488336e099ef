//! As much of Python's pickle as a `state_dict` needs: the graph of objects, nothing executed.
//!
//! A pickle is a program for a stack machine. Here every value that the program makes becomes a
//! node in one array and every reference an index into it, so that shared and self-referential
//! objects are neither copied nor followed, however a file is made. Calls of Python functions are
//! recorded and never carried out; what to make of them is up to the caller.

mod graph;
mod machine;
mod opcode;
#[cfg(test)]
mod tests;

pub(super) use graph::{Id, Node, Pickle};

impl Pickle {
    /// Runs the program. On failure, says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        machine::run(bytes)
    }
}
