//! Selects the tensors of one model in a file.
//!
//! A file may contain several models (an exponential moving average beside the weights, a teacher
//! beside a student), in separate dictionaries or under prefixes in one, and unrelated tensors. A
//! *state* is one model: the tensors of one dictionary under one prefix.

use super::names::{Names, Split};
use super::refusal::{PASS_A_MODEL, Refusal};
use std::collections::BTreeMap;

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
#[derive(Clone, Debug)]
pub(super) struct State<T> {
    /// Dictionary keys and prefix, as `--state` takes them, or [`OUTERMOST`].
    pub(super) name: String,
    /// By name in the model; others keep their own name.
    pub(super) tensors: BTreeMap<String, T>,
    /// Tensors in the same dictionary outside the model's module.
    pub(super) left_out: Vec<String>,
}

/// The states of a file. Without any, its tensors are one, for a refusal that describes them.
pub(super) fn states<T: Clone>(dictionaries: &[Dictionary<T>]) -> Result<Vec<State<T>>, Refusal> {
    let mut states = Vec::new();
    for dictionary in dictionaries {
        states.extend(states_of(dictionary)?);
    }
    if states.is_empty() {
        states.extend(foreign(dictionaries)?);
    }
    Ok(states)
}

/// The state named `wanted`, or the only one, or the only one that `is_complete`.
pub(super) fn choose<'a, T>(
    states: &'a [State<T>],
    wanted: Option<&str>,
    is_complete: impl Fn(&State<T>) -> bool,
) -> Result<&'a State<T>, Refusal> {
    let names: Vec<String> = states.iter().map(|state| format!("`{}`", state.name)).collect();
    let names = names.join(", ");
    if let Some(wanted) = wanted {
        return states.iter().find(|state| state.name == wanted).ok_or_else(|| {
            let problem = format!("it holds no model `{wanted}`, but {names}");
            Refusal::new(problem, format!("pass --state {}", states[0].name))
        });
    }
    if let [only] = states {
        return Ok(only);
    }
    let mut complete = states.iter().filter(|state| is_complete(state));
    if let (Some(only), None) = (complete.next(), complete.next()) {
        return Ok(only);
    }
    let remedy = format!("choose one of them, for example --state {}", states[0].name);
    Err(Refusal::new(format!("it holds {} models: {names}", states.len()), remedy))
}

/// A tensor that may be the model's.
struct Member<'a, T> {
    /// Name in the file.
    name: &'a str,
    split: Split<'a>,
    tensor: &'a T,
}

/// The states of a dictionary: one for each prefix with BK layers below it.
fn states_of<T: Clone>(dictionary: &Dictionary<T>) -> Result<Vec<State<T>>, Refusal> {
    let names = Names::of(dictionary.tensors.iter().map(|(name, _)| name.as_str()));
    let mut groups: BTreeMap<String, Vec<Member<'_, T>>> = BTreeMap::new();
    let mut rest = Vec::new();
    for (name, tensor) in &dictionary.tensors {
        match names.split(name) {
            Some(split) => {
                let group = groups.entry(split.prefix.clone()).or_default();
                group.push(Member { name, split, tensor });
            }
            None => rest.push((name.as_str(), tensor)),
        }
    }
    let (mut models, others): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .partition(|(_, members)| members.iter().any(|m| m.split.inner.contains(".bk_layer.")));
    let others = others.into_iter().flat_map(|(_, members)| members);
    let others = match &mut models[..] {
        // Its embedding or head may be in another module than its blocks.
        [(_, only)] => complete(only, others.collect()),
        _ => others.collect(),
    };
    rest.extend(others.iter().map(|member| (member.name, member.tensor)));
    let state = |(prefix, members): (String, Vec<Member<'_, T>>)| {
        let module = module(&members);
        let mut tensors = unique(members)?;
        let mut left_out = Vec::new();
        for &(name, tensor) in &rest {
            // Those in the same module as the layers are named by it.
            match name.strip_prefix(module) {
                Some(inner) if !tensors.contains_key(inner) => {
                    tensors.insert(inner.into(), tensor.clone());
                }
                _ => left_out.push(name.to_owned()),
            }
        }
        Ok(State { name: join(&dictionary.path, &prefix), tensors, left_out })
    };
    models.into_iter().map(state).collect()
}

/// Adds those of the others that the model can have, does not have yet, and that are unique;
/// returns the rest.
fn complete<'a, T>(
    model: &mut Vec<Member<'a, T>>,
    others: Vec<Member<'a, T>>,
) -> Vec<Member<'a, T>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for member in model.iter().chain(&others) {
        *counts.entry(member.split.inner.clone()).or_default() += 1;
    }
    let is_missing = |m: &Member<'a, T>| m.split.is_known && counts[&m.split.inner] == 1;
    let (missing, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_missing);
    model.extend(missing);
    others
}

/// The module that has the model's blocks, by its name in front of theirs; empty if they differ.
fn module<'a, T>(members: &[Member<'a, T>]) -> &'a str {
    let mut blocks = members.iter().filter(|m| m.split.inner.contains(".bk_layer."));
    let first = blocks.next().map_or("", |member| member.split.before);
    if blocks.all(|member| member.split.before == first) { first } else { "" }
}

/// Tensors by name in the model; fails on duplicates of those that it can have.
fn unique<T: Clone>(members: Vec<Member<'_, T>>) -> Result<BTreeMap<String, T>, Refusal> {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    let mut problems = Vec::new();
    for Member { name, split, tensor } in members {
        if let Some(other) = names.insert(split.inner.clone(), name) {
            let inner = &split.inner;
            problems.push(format!("`{other}` and `{name}` are both the model's `{inner}`"));
        }
        tensors.insert(split.inner, tensor.clone());
    }
    let remedy = "remove one of the two, and save it again: `state.pop(\"NAME\")`, then \
                  `torch.save(state, \"weights.pt\")`";
    if problems.is_empty() { Ok(tensors) } else { Err(Refusal { problems, remedy: remedy.into() }) }
}

/// Keys of dictionaries and a name below them, joined by dots; [`OUTERMOST`] for neither.
pub(super) fn join(path: &str, prefix: &str) -> String {
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
        [] => Err(Refusal::new("it holds no tensors", PASS_A_MODEL)),
        [only] => Ok(vec![state(only)]),
        several => {
            let names = several.iter().map(|d| format!("`{}`", join(&d.path, "")));
            let names = names.collect::<Vec<_>>().join(", ");
            let problem = format!("none of its dictionaries of tensors has a BK layer: {names}");
            Err(Refusal::new(problem, PASS_A_MODEL))
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

    fn choose(
        dictionaries: &[Dictionary<String>],
        wanted: Option<&str>,
    ) -> Result<State<String>, Refusal> {
        super::choose(&states(dictionaries)?, wanted, |_| true).cloned()
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
        assert!(choose(&[], None).is_err());
    }
}
