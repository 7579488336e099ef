//! The graph of objects.

/// A reference to a node.
pub(in crate::import) type Id = usize;

/// A value.
#[derive(Debug, PartialEq)]
pub(in crate::import) enum Node {
    Int(i64),
    Text(String),
    /// A class or function, such as `torch._utils._rebuild_tensor_v2`.
    Global(String),
    /// A list or tuple.
    List(Vec<Id>),
    /// A dictionary's keys and values, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    /// An object stored outside the pickle, by its persistent id.
    Persistent(Id),
    /// Result of calling a function or class with these arguments.
    Call {
        function: Id,
        arguments: Id,
        /// The attributes that the object was given afterwards.
        state: Option<Id>,
    },
    Bool(bool),
    Float(f64),
    /// A value whose content is not needed: None, bytes.
    Opaque,
}

/// The objects of a pickle.
#[derive(Debug)]
pub(in crate::import) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    /// Bytes of the program; others may follow it.
    pub(super) length: usize,
}

impl Pickle {
    /// The pickled object.
    pub(in crate::import) fn root(&self) -> Id {
        self.root
    }

    /// Number of bytes that the pickle takes up in front of what follows it.
    pub(in crate::import) fn length(&self) -> usize {
        self.length
    }

    /// Every value, in the order of creation.
    pub(in crate::import) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(in crate::import) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(in crate::import) fn int(&self, id: Id) -> Option<i64> {
        if let Node::Int(value) = self.node(id) { Some(*value) } else { None }
    }

    /// A number, whole or not.
    pub(in crate::import) fn real(&self, id: Id) -> Option<f64> {
        match self.node(id) {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub(in crate::import) fn text(&self, id: Id) -> Option<&str> {
        if let Node::Text(value) = self.node(id) { Some(value) } else { None }
    }

    pub(in crate::import) fn global(&self, id: Id) -> Option<&str> {
        if let Node::Global(value) = self.node(id) { Some(value) } else { None }
    }

    pub(in crate::import) fn list(&self, id: Id) -> Option<&[Id]> {
        if let Node::List(items) = self.node(id) { Some(items) } else { None }
    }

    pub(in crate::import) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Node::Dict(items) = self.node(id) { Some(items) } else { None }
    }

    /// Function name and arguments of a call.
    pub(in crate::import) fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        match self.node(id) {
            Node::Call { function, arguments, .. } => {
                Some((self.global(*function)?, self.list(*arguments)?))
            }
            _ => None,
        }
    }

    /// The attributes of an object, by name.
    pub(in crate::import) fn attributes(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Call { state: Some(state), .. } => self.dict(*state),
            _ => None,
        }
    }

    /// The value of a key of these items.
    pub(in crate::import) fn value(&self, items: &[(Id, Id)], key: &str) -> Option<Id> {
        items.iter().find(|&&(name, _)| self.text(name) == Some(key)).map(|&(_, value)| value)
    }
}
