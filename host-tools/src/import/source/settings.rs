//! Dimensions that a training script saved beside the weights: in a dictionary of settings, the
//! arguments of the command line, or the attributes of modules.

use crate::checkpoint::Chain;
use crate::import::dimensions::Dimensions;
use crate::import::pickle::{Id, Node, Pickle};

/// Maximum number of different settings; more are damage.
const MOST: usize = 1 << 10;

/// What any dictionary of the pickle, or any object by its attributes, says of the dimensions that
/// no tensor tells. Values that none of them can have are skipped: others use the names, too.
pub(super) fn settings(pickle: &Pickle) -> Vec<Dimensions> {
    let mut found = Vec::new();
    for node in pickle.nodes() {
        let Node::Dict(items) = node else { continue };
        let settings = of(pickle, items);
        if settings != Dimensions::default() && !found.contains(&settings) {
            found.push(settings);
        }
        if found.len() == MOST {
            break;
        }
    }
    found
}

fn of(pickle: &Pickle, items: &[(Id, Id)]) -> Dimensions {
    let value = |key| pickle.value(items, key);
    let real = |key| value(key).and_then(|id| pickle.real(id)).map(|real| real as f32);
    let top_k = value("top_k").and_then(|id| pickle.int(id));
    Dimensions {
        top_k: top_k.and_then(|top_k| usize::try_from(top_k).ok()),
        chain: match value("chain").and_then(|id| pickle.text(id)) {
            Some("half") => Some(Chain::Half),
            Some("full") => Some(Chain::Full),
            _ => None,
        },
        eta_floor: real("eta_floor").filter(|&floor| floor > 0.0 && floor.is_finite()),
        off_diagonal: real("off_diagonal").filter(|&beta| beta >= 0.0 && beta.is_finite()),
        ..Dimensions::default()
    }
}
