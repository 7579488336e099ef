//! Names of tensors: which part of a name is the model's, and which belongs to modules around it.
//!
//! A model may sit in any other module, whose attribute then is a prefix of all names (`net.`), and
//! any module within it may be wrapped, which adds a part in the middle (`blocks.0._orig_mod.`). A
//! wrapper has no tensors of its own and one child: it is the only thing below the name of what it
//! wraps. So parts are dropped, wherever they stand, if the rest is a name of the model and they
//! are an only child.

use super::buffers;
use crate::checkpoint::{Block, Chain, ModelConfig};
use std::collections::{BTreeSet, HashMap};

/// Modules that wrap another one: data parallelism, `torch.compile`, FSDP, activation
/// checkpointing. They are dropped from prefixes, too, so that part of a model may be wrapped.
const WRAPPERS: [&str; 4] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Longer names, or names of more parts, are not the model's.
const LONGEST: usize = 256;
const MOST_PARTS: usize = 32;

/// A name, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// As in the file, before the model's own modules.
    pub(super) before: &'a str,
    /// The same without wrappers.
    pub(super) prefix: String,
    /// Name in the model, without wrappers.
    pub(super) inner: String,
    /// Whether the model can have a tensor of this name.
    pub(super) is_known: bool,
}

/// The names that models have, with `#` for an index.
pub(super) struct Names {
    templates: Vec<Vec<String>>,
    roots: BTreeSet<String>,
    /// The child of a module that has a single one, by the module's name; `None` if it has more.
    children: HashMap<String, Option<String>>,
}

impl Names {
    /// For the names in a dictionary.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let templates = templates();
        let roots = templates.iter().map(|template| template[0].clone()).collect();
        let mut children: HashMap<String, Option<String>> = HashMap::new();
        for name in names.filter(|name| is_short(name)) {
            let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
            let mut module = 0usize;
            for end in ends {
                let (parent, child) = (&name[..module.saturating_sub(1)], &name[module..end]);
                match children.get_mut(parent) {
                    Some(only) if only.as_deref() != Some(child) => *only = None,
                    Some(_) => {}
                    None => drop(children.insert(parent.to_owned(), Some(child.to_owned()))),
                }
                module = end + 1;
            }
        }
        Self { templates, roots, children }
    }

    /// Takes a name apart; `None` if no part of it is a module of the model.
    pub(super) fn split<'a>(&self, name: &'a str) -> Option<Split<'a>> {
        if !is_short(name) {
            return None;
        }
        let parts: Vec<&str> = name.split('.').collect();
        let starts: Vec<usize> =
            (0..parts.len()).filter(|&at| self.roots.contains(parts[at])).collect();
        let fit = |at: usize| {
            let droppable = |i: usize| WRAPPERS.contains(&parts[i]) || self.is_only(&parts[..=i]);
            let fits = |template: &&Vec<String>| fits(template, &parts, at, &droppable);
            let template = self.templates.iter().find(fits)?;
            Some((at, filled(template, &parts[at..])))
        };
        let whole = |at: usize| {
            let plain = self.templates.iter().any(|t| fits(t, &parts, at, &|_| false));
            plain.then(|| (at, parts[at..].join(".")))
        };
        let known = starts.iter().find_map(|&at| whole(at));
        let known = known.or_else(|| starts.iter().find_map(|&at| fit(at)));
        let is_known = known.is_some();
        let (at, inner) =
            known.or_else(|| starts.first().map(|&at| (at, without_wrappers(&parts[at..]))))?;
        let before = parts[..at].iter().map(|part| part.len() + 1).sum::<usize>();
        let prefix = without_wrappers(&parts[..at]);
        Some(Split { before: &name[..before], prefix, inner, is_known })
    }

    /// Whether a module has no sibling.
    fn is_only(&self, parts: &[&str]) -> bool {
        let [parent @ .., child] = parts else { return false };
        // Indices of blocks and experts are no wrappers, even of a single one.
        let is_index = child.bytes().all(|byte| byte.is_ascii_digit());
        !is_index
            && self
                .children
                .get(&parent.join("."))
                .is_some_and(|only| only.as_deref() == Some(child))
    }
}

/// Whether the first part of a name is a module of the model.
pub(super) fn is_within(name: &str) -> bool {
    let root = name.split('.').next();
    templates().iter().any(|template| Some(template[0].as_str()) == root)
}

fn is_short(name: &str) -> bool {
    name.len() <= LONGEST && name.bytes().filter(|&byte| byte == b'.').count() < MOST_PARTS
}

fn without_wrappers(parts: &[&str]) -> String {
    let parts = parts.iter().copied().filter(|part| !WRAPPERS.contains(part));
    parts.collect::<Vec<_>>().join(".")
}

fn is(part: &str, of: &str) -> bool {
    part == of || of == "#" && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the parts from `at` on are the template's, but for droppable ones between them.
fn fits(template: &[String], parts: &[&str], at: usize, droppable: &dyn Fn(usize) -> bool) -> bool {
    let mut next = 0;
    for i in at..parts.len() {
        if next < template.len() && is(parts[i], &template[next]) {
            next += 1;
        } else if next == 0 || i + 1 == parts.len() || !droppable(i) {
            return false;
        }
    }
    next == template.len()
}

/// The template with the indices of these parts.
fn filled(template: &[String], parts: &[&str]) -> String {
    let mut rest = parts.iter();
    let name = |of: &String| rest.find(|part| is(part, of)).copied().unwrap_or_default();
    template.iter().map(name).collect::<Vec<_>>().join(".")
}

/// Every name of every kind of model, from models of one block and one or two experts.
fn templates() -> Vec<Vec<String>> {
    let published = ModelConfig {
        vocab: 1,
        width: 1,
        layers: 1,
        experts: 2,
        top_k: 1,
        hidden: 1,
        potentials: 1,
        positions: Some(1),
        chain: Chain::Half,
        eta_floor: 1.0,
        off_diagonal: 1.0,
        block: Block::Resolvent,
    };
    let gated = ModelConfig { block: Block::Gated { channels: 1 }, ..published.clone() };
    let ours = [published, gated].into_iter().flat_map(|config| config.tensors());
    let theirs = buffers::shapes(0, 1).into_iter().map(|(name, _)| name);
    let names: BTreeSet<Vec<String>> =
        ours.map(|spec| spec.name).chain(theirs).map(|name| template(&name)).collect();
    names.into_iter().collect()
}

fn template(name: &str) -> Vec<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let is_list = |at: usize| at > 0 && ["blocks", "experts"].contains(&parts[at - 1]);
    (0..parts.len()).map(|at| if is_list(at) { "#" } else { parts[at] }.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The model's part of a name among others.
    fn inner(name: &str, others: &[&str]) -> Option<String> {
        let names = Names::of(others.iter().copied().chain([name]));
        names.split(name).filter(|split| split.is_known).map(|split| split.inner)
    }

    const LAYER: &str = "blocks.0.bk_layer.z";

    #[test]
    fn any_prefix_and_any_wrapper_is_found() {
        for name in [
            "net.blocks.0.bk_layer.z",
            "blocks.0.bk_layer.shell.z",
            "a.b.c.blocks.0.anything.bk_layer.z",
            "blocks.blocks.0.bk_layer.z",
            "lm_head.blocks.module.0._orig_mod.bk_layer.z",
        ] {
            assert_eq!(inner(name, &["other.weight"]).as_deref(), Some(LAYER), "{name}");
        }
        let expert = "m.blocks.3.w.bk_layer.moe_ffn.w.experts.0.w.3.weight";
        let plain = "blocks.3.bk_layer.moe_ffn.experts.0.3.weight";
        assert_eq!(inner(expert, &[]).as_deref(), Some(plain));
    }

    #[test]
    fn modules_with_siblings_are_no_wrappers() {
        for (name, others) in [
            ("blocks.0.adapter.layer_norm.weight", &["blocks.0.layer_norm.weight"][..]),
            ("blocks.0.bk_layer.core.z", &["blocks.0.bk_layer.v_proj.bias"]),
            ("blocks.0.1.bk_layer.z", &[]),
            ("blocks.0.bk_layer.z.extra", &[]),
            ("blocks.x.bk_layer.v_proj", &[]),
        ] {
            assert_eq!(inner(name, others), None, "{name}");
        }
        assert_eq!(Names::of([].into_iter()).split("optimizer.step"), None);
        let long = "a.".repeat(MOST_PARTS) + LAYER;
        assert_eq!(inner(&long, &[]), None);
    }
}
