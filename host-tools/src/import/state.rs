//! Selects the tensors of one model in a file.
//!
//! A file may contain several models (an exponential moving average beside the weights, a teacher
//! beside a student), in separate dictionaries or under prefixes in one, and unrelated tensors. A
//! *state* is one model: the tensors of one dictionary under one prefix.

use super::refusal::Refusal;
use std::collections::{BTreeMap, BTreeSet};

/// Top-level modules of a published model: the first part of each tensor's name.
const ROOTS: [&str; 5] =
    ["token_embedding", "position_embedding", "blocks", "layer_norm_final", "lm_head"];

/// Modules that wrap another one and add a part anywhere in a name: data parallelism,
/// `torch.compile`, FSDP, activation checkpointing.
const WRAPPERS: [&str; 4] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

const STATE_DICT: &str = "pass the state_dict of a ResNet-BK model";

/// State name of the tensors of the outermost dictionary without a prefix.
pub(super) const OUTERMOST: &str = ".";

/// One dictionary of a file.
#[derive(Debug)]
pub(super) struct Dictionary<T> {
    /// Keys that lead to it, joined by dots; empty for the outermost.
    pub(super) path: String,
    /// Its tensors, of any representation.
    pub(super) tensors: Vec<(String, T)>,
}

/// The tensors of one model.
#[derive(Debug)]
pub(super) struct State<T> {
    /// Dictionary keys and prefix, as `--state` takes them, or [`OUTERMOST`].
    pub(super) name: String,
    /// By name in the published model; others keep their own name.
    pub(super) tensors: BTreeMap<String, T>,
    /// Tensors in the same dictionary outside the model's module.
    pub(super) left_out: Vec<String>,
}

/// The state named `wanted`, or the only one.
pub(super) fn choose<T: Clone>(
    dictionaries: &[Dictionary<T>],
    wanted: Option<&str>,
) -> Result<State<T>, Refusal> {
    let mut states = Vec::new();
    for dictionary in dictionaries {
        states.extend(states_of(dictionary)?);
    }
    if states.is_empty() {
        states.extend(foreign(dictionaries)?);
    }
    let names: Vec<String> = states.iter().map(|state| format!("`{}`", state.name)).collect();
    let names = names.join(", ");
    let at = match wanted {
        Some(wanted) => states.iter().position(|state| state.name == wanted).ok_or_else(|| {
            let problem = format!("it holds no model `{wanted}`, but {names}");
            Refusal::new(problem, format!("pass --state {}", states[0].name))
        })?,
        None if states.len() == 1 => 0,
        None => {
            let remedy = format!("choose one of them, for example --state {}", states[0].name);
            let problem = format!("it holds {} models: {names}", states.len());
            return Err(Refusal::new(problem, remedy));
        }
    };
    Ok(states.swap_remove(at))
}

/// The states of a dictionary: one for each prefix with BK layers below it.
fn states_of<T: Clone>(dictionary: &Dictionary<T>) -> Result<Vec<State<T>>, Refusal> {
    let mut groups: BTreeMap<String, Vec<Member<'_, T>>> = BTreeMap::new();
    for (name, tensor) in &dictionary.tensors {
        if let Some((before, prefix, inner)) = split(name) {
            groups.entry(prefix).or_default().push(Member { name, before, inner, tensor });
        }
    }
    groups.retain(|_, members| members.iter().any(|member| member.inner.contains(".bk_layer.")));
    let taken: BTreeSet<&str> = groups.values().flatten().map(|member| member.name).collect();
    let rest = dictionary.tensors.iter().filter(|(name, _)| !taken.contains(name.as_str()));
    let rest: Vec<&(String, T)> = rest.collect();
    let state = |(prefix, members): (String, Vec<Member<'_, T>>)| {
        let module = module(&members);
        let mut tensors = unique(members)?;
        let mut left_out = Vec::new();
        for (name, tensor) in &rest {
            // Tensors in the same module as the layers belong to the model and must be known.
            match name.strip_prefix(module) {
                Some(inner) => drop(tensors.insert(inner.into(), tensor.clone())),
                None => left_out.push(name.clone()),
            }
        }
        Ok(State { name: join(&dictionary.path, &prefix), tensors, left_out })
    };
    groups.into_iter().map(state).collect()
}

/// A tensor of the model.
struct Member<'a, T> {
    /// Name in the file.
    name: &'a str,
    /// Its prefix, before the names of the model's own modules.
    before: &'a str,
    /// Name in the published model.
    inner: String,
    tensor: &'a T,
}

/// Splits a name into its prefix before the model's modules, the prefix without wrappers, and the
/// rest without wrappers.
fn split(name: &str) -> Option<(&str, String, String)> {
    let parts: Vec<&str> = name.split('.').collect();
    let at = parts.iter().position(|part| ROOTS.contains(part))?;
    let before: usize = parts[..at].iter().map(|part| part.len() + 1).sum();
    let plain = |parts: &[&str]| {
        let parts = parts.iter().copied().filter(|part| !WRAPPERS.contains(part));
        parts.collect::<Vec<_>>().join(".")
    };
    Some((&name[..before], plain(&parts[..at]), plain(&parts[at..])))
}

/// The common prefix of all members; empty if they differ.
fn module<'a, T>(members: &[Member<'a, T>]) -> &'a str {
    let first = members.first().map_or("", |member| member.before);
    if members.iter().all(|member| member.before == first) { first } else { "" }
}

/// Tensors by name in the published model; fails on duplicates.
fn unique<T: Clone>(members: Vec<Member<'_, T>>) -> Result<BTreeMap<String, T>, Refusal> {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    let mut problems = Vec::new();
    for Member { name, inner, tensor, .. } in members {
        tensors.insert(inner.clone(), tensor.clone());
        if let Some(other) = names.insert(inner.clone(), name) {
            problems.push(format!("`{other}` and `{name}` are both the model's `{inner}`"));
        }
    }
    let remedy = "remove one of the two from the dictionary, and save it again";
    if problems.is_empty() { Ok(tensors) } else { Err(Refusal { problems, remedy: remedy.into() }) }
}

fn join(path: &str, prefix: &str) -> String {
    match [path, prefix] {
        ["", ""] => OUTERMOST.into(),
        [one, ""] | ["", one] => one.into(),
        [path, prefix] => format!("{path}.{prefix}"),
    }
}

/// The tensors of a file without BK layers, for an error that describes them.
fn foreign<T: Clone>(dictionaries: &[Dictionary<T>]) -> Result<Vec<State<T>>, Refusal> {
    let state = |dictionary: &Dictionary<T>| State {
        name: join(&dictionary.path, ""),
        tensors: dictionary.tensors.iter().cloned().collect(),
        left_out: Vec::new(),
    };
    match dictionaries {
        [] => Err(Refusal::new("it holds no tensors", STATE_DICT)),
        [only] => Ok(vec![state(only)]),
        several => {
            let names = several.iter().map(|d| format!("`{}`", join(&d.path, "")));
            let names = names.collect::<Vec<_>>().join(", ");
            let problem = format!("none of its dictionaries of tensors has a BK layer: {names}");
            Err(Refusal::new(problem, STATE_DICT))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dictionary whose tensors are represented by their names.
    fn dictionary(path: &str, names: &[&str]) -> Dictionary<String> {
        let tensors = names.iter().map(|name| (name.to_string(), name.to_string())).collect();
        Dictionary { path: path.into(), tensors }
    }

    fn chosen(dictionaries: &[Dictionary<String>], wanted: Option<&str>) -> Vec<String> {
        choose(dictionaries, wanted).unwrap().tensors.into_keys().collect()
    }

    const LAYER: &str = "blocks.0.bk_layer.z";

    #[test]
    fn wrappers_go_wherever_they_stand() {
        for name in [
            "blocks.0._orig_mod.bk_layer.z",
            "module.blocks.0.module._orig_mod.bk_layer.z",
            "_orig_mod.module.net.core.blocks.0.bk_layer.z",
            "_fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.bk_layer.z",
        ] {
            assert_eq!(chosen(&[dictionary("", &[name])], None), [LAYER], "{name}");
        }
        let some = ["blocks.0._orig_mod.bk_layer.z", "blocks.1.bk_layer.z", "lm_head.bias"];
        let plain = ["blocks.0.bk_layer.z", "blocks.1.bk_layer.z", "lm_head.bias"];
        assert_eq!(chosen(&[dictionary("", &some)], None), plain);
    }

    #[test]
    fn what_is_beside_the_model_is_left_out_and_what_is_in_it_stays() {
        let names = ["net.blocks.0.bk_layer.z", "net.extra.w", "loss.weight", "loss.blocks.0.w"];
        let state = choose(&[dictionary("", &names)], None).unwrap();
        assert_eq!(state.tensors.into_keys().collect::<Vec<_>>(), [LAYER, "extra.w"]);
        assert_eq!(state.left_out, ["loss.weight", "loss.blocks.0.w"]);
        let state = choose(&[dictionary("", &[LAYER, "loss.weight"])], None).unwrap();
        assert_eq!(state.tensors.len(), 2, "without a prefix everything is the model's");
    }

    #[test]
    fn of_several_models_one_is_chosen_by_its_name() {
        let both = [
            dictionary("model", &["module.blocks.0.bk_layer.z"]),
            dictionary("ema.shadow", &[LAYER, "lm_head.bias"]),
            dictionary("optimizer.state", &["0.exp_avg"]),
        ];
        let Refusal { problems, remedy } = choose(&both, None).unwrap_err();
        assert_eq!(problems, ["it holds 2 models: `model`, `ema.shadow`"]);
        assert!(remedy.ends_with("--state model"), "{remedy}");
        assert_eq!(chosen(&both, Some("ema.shadow")), [LAYER, "lm_head.bias"]);
        let unknown = choose(&both, Some("emma")).unwrap_err();
        assert!(unknown.problems[0].contains("no model `emma`, but `model`, `ema.shadow`"));

        let flat = dictionary("", &["student.blocks.0.bk_layer.z", "teacher.blocks.0.bk_layer.z"]);
        assert!(choose(std::slice::from_ref(&flat), None).is_err());
        let state = choose(&[flat], Some("teacher")).unwrap();
        assert_eq!(state.tensors[LAYER], "teacher.blocks.0.bk_layer.z");
        assert!(state.left_out.is_empty(), "the other model is no part of this one's dictionary");
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let names = ["blocks.0.bk_layer.z", "blocks.0._orig_mod.bk_layer.z"];
        let problems = choose(&[dictionary("", &names)], None).unwrap_err().problems;
        assert!(problems[0].contains("are both the model's `blocks.0.bk_layer.z`"), "{problems:?}");
    }

    #[test]
    fn files_without_a_model_say_what_they_hold() {
        assert_eq!(chosen(&[dictionary("a", &["x.weight"])], None), ["x.weight"]);
        let two = [dictionary("a", &["x"]), dictionary("b.c", &["y"])];
        assert!(choose(&two, None).unwrap_err().problems[0].contains("`a`, `b.c`"));
        assert!(choose::<()>(&[], None).is_err());
    }
}
