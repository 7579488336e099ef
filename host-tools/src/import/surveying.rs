//! Lists what a file holds, and what becomes of it.

use super::layout::{Plan, is_buffer, is_counter};
use super::names;
use super::source::Source;
use super::state::State;
use super::survey::{Added, Ignored, Mapped, Reason, Survey};
use super::view::Stored;
use std::collections::{BTreeMap, BTreeSet};

/// The survey of an import of this state of several.
pub(super) fn survey(
    source: &Source<'_>,
    states: &[State<Stored>],
    chosen: &State<Stored>,
    plan: &Plan,
) -> Survey {
    let mut mapped = Vec::new();
    let mut reasons: BTreeMap<(usize, &str), Reason> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for state in states {
        let stored = state.tensors.values().map(|stored| (stored.file, stored.name.as_str()));
        reasons.extend(stored.map(|key| (key, Reason::Other)));
    }
    for (name, stored) in &chosen.tensors {
        let key = (stored.file, stored.name.as_str());
        if let (Ok(view), true) = (&stored.view, plan.takes(name)) {
            taken.insert(key);
            mapped.push(Mapped {
                name: stored.name.clone(),
                shape: view.shape.clone(),
                dtype: view.element.name(),
                file: source.file_name(stored.file),
                becomes: becomes(name),
            });
            continue;
        }
        let reason = match () {
            () if is_counter(name) => Reason::Counter,
            () if names::is_within(name) => Reason::Unknown,
            () => Reason::Beside,
        };
        reasons.insert(key, reason);
    }
    let ignored = tensors(source)
        .map(|stored| ((stored.file, stored.name.as_str()), stored))
        .filter(|(key, _)| !taken.contains(key))
        .map(|(key, stored)| ignored(stored, reasons.get(&key).copied().unwrap_or(Reason::Beside)));
    let added = plan.fills().iter().map(|fill| Added {
        name: fill.to.to_owned(),
        from: fill.from.map_or("zeros".into(), |from| format!("a copy of {from}")),
    });
    Survey {
        files: (0..source.files.len()).map(|file| source.file_name(file)).collect(),
        states: states.iter().map(|state| state.name.clone()).collect(),
        state: chosen.name.clone(),
        mapped,
        added: added.collect(),
        ignored: ignored.collect(),
        origins: plan.origins.clone(),
    }
}

/// Every tensor of a checkpoint that is refused.
pub(super) fn contents(source: &Source<'_>) -> Vec<Ignored> {
    tensors(source).map(|stored| ignored(stored, Reason::Refused)).collect()
}

fn tensors<'a>(source: &'a Source<'_>) -> impl Iterator<Item = &'a Stored> {
    let all = source.dictionaries.iter().flat_map(|dictionary| &dictionary.tensors);
    all.map(|(_, stored)| stored)
}

fn ignored(stored: &Stored, reason: Reason) -> Ignored {
    let view = stored.view.as_ref().ok();
    Ignored {
        name: stored.name.clone(),
        shape: view.map(|view| view.shape.clone()),
        dtype: view.map(|view| view.element.name()),
        reason,
    }
}

/// Name in our layout; of a buffer, what its values become.
fn becomes(name: &str) -> String {
    if !is_buffer(name) {
        return name.to_owned();
    }
    let (block, buffer) = name.rsplit_once('.').unwrap_or_default();
    match buffer {
        "h0_diag_base" => format!("{block}.diagonal"),
        "z" => format!("{block}.log_eta"),
        _ => "off_diagonal".into(),
    }
}
