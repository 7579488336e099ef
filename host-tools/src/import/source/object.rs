//! The dictionaries of tensors within a pickled object: dictionaries, lists and the attributes of
//! objects at any depth, and whole modules, whose tensors have the names of their state_dict.

use super::contents::Contents;
use super::settings::settings;
use super::tensor::{is_tensor, view};
use crate::import::pickle::{Id, Node, Pickle};
use crate::import::refusal::{MAKE_TENSORS, Refusal, SAVE_AGAIN};
use crate::import::state::{Dictionary, join};
use crate::import::view::{Place, Stored};
use std::collections::{HashSet, VecDeque};

/// Maximum length of joined keys: no script nests more deeply, and long ones cost memory.
const LONGEST_PATH: usize = 1 << 8;

/// Maximum number of tensors and of modules; more are damage.
const MOST_ITEMS: usize = 1 << 18;

/// Every dictionary of the object that contains tensors, and what it says of dimensions. `place`
/// finds a storage by its key; `file` is the index of the file.
pub(super) fn contents(
    pickle: &Pickle,
    file: usize,
    place: &dyn Fn(&str) -> Result<Place, String>,
) -> Result<Contents, Refusal> {
    let mut dictionaries = Vec::new();
    let mut items_left = MOST_ITEMS;
    for (path, tensors) in tensors(pickle, &mut items_left)? {
        let stored = |(name, id): (String, Id)| {
            let whole = join(&path, &name);
            (name, Stored { name: whole, file, view: view(pickle, id, place) })
        };
        let tensors = tensors.into_iter().map(stored).collect();
        dictionaries.push(Dictionary { path, tensors });
    }
    Ok(Contents { dictionaries, settings: settings(pickle), ..Contents::default() })
}

/// Path and tensors of each dictionary.
type Found = Vec<(String, Vec<(String, Id)>)>;

fn tensors(pickle: &Pickle, items_left: &mut usize) -> Result<Found, Refusal> {
    let mut found = Found::new();
    let mut seen = HashSet::from([pickle.root()]);
    let mut waiting = VecDeque::from([(String::new(), pickle.root())]);
    // Breadth first, for a natural order of dictionaries.
    while let Some((path, id)) = waiting.pop_front() {
        let mut tensors = Vec::new();
        if is_module(pickle, id) {
            tensors = of_module(pickle, id, items_left);
        } else {
            for (name, value) in items(pickle, id) {
                *items_left = items_left.saturating_sub(1);
                if is_tensor(pickle, value) {
                    tensors.push((name, value));
                } else if holds_items(pickle, value) && seen.insert(value) {
                    let path = join(&path, &name);
                    if path.len() < LONGEST_PATH {
                        waiting.push_back((path, value));
                    }
                }
            }
        }
        if *items_left == 0 {
            let problem = format!("it holds more than {MOST_ITEMS} values in dictionaries");
            return Err(Refusal::new(problem, SAVE_AGAIN));
        }
        if !tensors.is_empty() {
            found.push((path, tensors));
        }
    }
    if found.is_empty() { Err(without_tensors(pickle)) } else { Ok(found) }
}

fn without_tensors(pickle: &Pickle) -> Refusal {
    let root = pickle.root();
    let keys: Vec<String> =
        items(pickle, root).into_iter().map(|(name, _)| name).take(10).collect();
    let (problem, remedy) = match pickle.node(root) {
        Node::Call { function, .. } => {
            let class = pickle.global(*function).unwrap_or("unknown");
            (format!("it holds a pickled `{class}` object, not a state_dict"), SAVE_AGAIN)
        }
        Node::Dict(_) | Node::List(_) => {
            (format!("it holds no dictionary of tensors; its keys are {keys:?}"), MAKE_TENSORS)
        }
        _ => ("it holds something else, not a state_dict".into(), SAVE_AGAIN),
    };
    Refusal::new(problem, remedy)
}

fn holds_items(pickle: &Pickle, id: Id) -> bool {
    matches!(pickle.node(id), Node::Dict(_) | Node::List(_) | Node::Call { state: Some(_), .. })
}

/// The items of a dictionary or list, by key or index, or the attributes of an object. Keys that
/// are neither text nor number are skipped: no state_dict has them.
fn items(pickle: &Pickle, id: Id) -> Vec<(String, Id)> {
    match pickle.node(id) {
        Node::Dict(items) => named(pickle, items).collect(),
        Node::List(items) => {
            items.iter().enumerate().map(|(index, &item)| (index.to_string(), item)).collect()
        }
        _ => named(pickle, pickle.attributes(id).unwrap_or_default()).collect(),
    }
}

fn named<'a>(
    pickle: &'a Pickle,
    items: &'a [(Id, Id)],
) -> impl Iterator<Item = (String, Id)> + use<'a> {
    items.iter().filter_map(|&(key, value)| match pickle.node(key) {
        Node::Text(text) => Some((text.clone(), value)),
        Node::Int(number) => Some((number.to_string(), value)),
        _ => None,
    })
}

/// Whether a value is a module: PyTorch keeps their tensors and children under these names.
fn is_module(pickle: &Pickle, id: Id) -> bool {
    pickle.attributes(id).is_some_and(|attributes| {
        ["_parameters", "_modules"].iter().all(|name| pickle.value(attributes, name).is_some())
    })
}

/// The tensors of a module and of its children.
fn of_module(pickle: &Pickle, id: Id, items_left: &mut usize) -> Vec<(String, Id)> {
    let mut tensors = Vec::new();
    let mut waiting = vec![(String::new(), id)];
    while let Some((path, id)) = waiting.pop() {
        let attributes = pickle.attributes(id).unwrap_or_default();
        let part = |name| {
            let items = pickle.value(attributes, name).and_then(|id| pickle.dict(id));
            named(pickle, items.unwrap_or_default())
        };
        for (name, value) in part("_parameters").chain(part("_buffers")).chain(part("_modules")) {
            *items_left = items_left.saturating_sub(1);
            let name = join(&path, &name);
            // Modules can be shared, and in damaged files contain themselves.
            if *items_left == 0 || name.len() >= LONGEST_PATH {
                continue;
            }
            if is_tensor(pickle, value) {
                tensors.push((name, value));
            } else if is_module(pickle, value) {
                waiting.push((name, value));
            }
        }
    }
    tensors
}
