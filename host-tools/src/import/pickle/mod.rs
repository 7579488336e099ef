//! As much of Python's pickle as a `state_dict` needs: the graph of objects, nothing executed.
//!
//! A pickle is a program for a stack machine. Here every value that the program makes becomes a node
//! in one array and every reference an index into it, so that shared and self-referential objects
//! are neither copied nor followed, however a file is made. Calls of Python functions are recorded
//! and never carried out; what to make of them is up to the caller.

mod machine;
mod opcode;
#[cfg(test)]
mod tests;

/// A reference to a node.
pub(super) type Id = usize;

/// A value.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Int(i64),
    Text(String),
    /// A class or function, such as `torch._utils._rebuild_tensor_v2`.
    Global(String),
    /// A list or tuple.
    List(Vec<Id>),
    /// A dictionary's keys and values, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    /// An object that is kept outside the pickle, and how it is called there.
    Persistent(Id),
    /// What a function or class gives for these arguments.
    Call {
        function: Id,
        arguments: Id,
    },
    /// A value whose content is of no interest here: None, a number with a fraction, bytes.
    Opaque,
}

/// The objects of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Runs the program. On failure, says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        machine::run(bytes)
    }

    /// The object that was pickled.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        if let Node::Int(value) = self.node(id) { Some(*value) } else { None }
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Node::Text(value) = self.node(id) { Some(value) } else { None }
    }

    pub(super) fn global(&self, id: Id) -> Option<&str> {
        if let Node::Global(value) = self.node(id) { Some(value) } else { None }
    }

    pub(super) fn list(&self, id: Id) -> Option<&[Id]> {
        if let Node::List(items) = self.node(id) { Some(items) } else { None }
    }

    pub(super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Node::Dict(items) = self.node(id) { Some(items) } else { None }
    }

    /// Name and arguments of a call.
    pub(super) fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        match self.node(id) {
            Node::Call { function, arguments } => {
                Some((self.global(*function)?, self.list(*arguments)?))
            }
            _ => None,
        }
    }
}
