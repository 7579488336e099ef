//! How a pickle describes a tensor: a call of one of PyTorch's functions that build tensors.

use crate::import::element::Element;
use crate::import::pickle::{Id, Node, Pickle};
use crate::import::view::{Place, View};

/// Builds a tensor with attributes from a function, a class, the function's arguments and the
/// attributes.
const REBUILD_WITH_STATE: &str = "torch._tensor._rebuild_from_type_v2";

/// Builds a plain dense tensor; the first form is that of PyTorch before 0.4.
const REBUILD: [&str; 2] = ["torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"];

/// Whether a value is built by one of PyTorch's functions that build tensors.
pub(super) fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    pickle.call(id).is_some_and(|(function, _)| {
        function.starts_with("torch._utils._rebuild_") || function == REBUILD_WITH_STATE
    })
}

/// The function that builds the plain tensor inside a parameter or a tensor with attributes, and
/// its arguments.
fn plain(pickle: &Pickle, id: Id) -> Option<(&str, &[Id])> {
    let (function, arguments) = pickle.call(id)?;
    match (function, arguments) {
        ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", _) => {
            pickle.call(*arguments.first()?)
        }
        (REBUILD_WITH_STATE, &[function, _, arguments, ..]) => {
            Some((pickle.global(function)?, pickle.list(arguments)?))
        }
        _ => Some((function, arguments)),
    }
}

/// Class and key of a storage, from its persistent id.
pub(super) fn storage(pickle: &Pickle, id: Id) -> Option<(&str, &str)> {
    let Node::Persistent(storage) = *pickle.node(id) else { return None };
    let &[_, class, key, ..] = pickle.list(storage)? else { return None };
    Some((pickle.global(class)?, pickle.text(key)?))
}

/// The tensor as a view of the storage that `place` finds by its key, or why it is none.
pub(super) fn view(
    pickle: &Pickle,
    id: Id,
    place: &dyn Fn(&str) -> Result<Place, String>,
) -> Result<View, String> {
    let malformed = || "is described in an unknown way".to_string();
    let (function, arguments) = plain(pickle, id).ok_or_else(malformed)?;
    if !REBUILD.contains(&function) {
        return Err(format!("is made by `{function}`; only plain dense tensors are supported"));
    }
    let &[stored, offset, shape, strides, ..] = arguments else { return Err(malformed()) };
    let (class, key) = storage(pickle, stored).ok_or_else(malformed)?;
    let size = |&id: &Id| pickle.int(id).and_then(|value| usize::try_from(value).ok());
    let sizes = |id| pickle.list(id)?.iter().map(size).collect::<Option<Vec<_>>>();
    let shape = sizes(shape).ok_or_else(malformed)?;
    let strides = sizes(strides).ok_or_else(malformed)?;
    if shape.len() != strides.len() || shape.len() > 8 {
        return Err(malformed());
    }
    let marks = arguments.get(6).and_then(|&id| pickle.dict(id)).unwrap_or_default();
    let mut view = View::whole(
        Element::of_storage(class)
            .ok_or_else(|| format!("has elements of type `{class}`, which is not supported"))?,
        place(key)?,
        shape,
    );
    view.strides = strides;
    view.offset = size(&offset).ok_or_else(malformed)?;
    for &(mark, value) in marks {
        let is_set = *pickle.node(value) == Node::Bool(true);
        match pickle.text(mark) {
            Some("conj") => view.is_conjugated = is_set,
            Some("neg") => view.is_negated = is_set,
            mark => return Err(format!("has the unknown mark {mark:?}")),
        }
    }
    Ok(view)
}
