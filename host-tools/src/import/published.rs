//! The published layout: infers dimensions from tensors, checks and renames them.

use super::buffers;
use super::element::{Entries, Entry, Values};
use super::options::Options;
use super::refusal::Refusal;
use crate::checkpoint::{Block, ModelConfig, Tensor};
use std::collections::BTreeMap;

const REVISION: &str = "only the model of commit 518528f (November 2025) in its default form is \
                        supported; train or export that one";

/// Block or expert indices beyond this are damage.
const LARGEST_INDEX: usize = 999;

/// A dimension that no tensor determines.
const UNKNOWN: usize = 0;

const SURPLUS: &str = "does not belong to this model";

/// Tensors that only other revisions and variants of the model have, by a part of their name.
const VARIANTS: [(&[&str], &str); 6] = [
    (
        &[".birman_schwinger_core.", "prime_bump_potential."],
        "the Birman–Schwinger core, a different operator from the tridiagonal chain",
    ),
    (&[".scattering_router."], "routing by scattering phases instead of a gating network"),
    (
        &[".bk_layer.gamma", ".bk_layer.epsilon_param", ".homeostasis."],
        "a learned decay, from a later revision of the model",
    ),
    (&[".hybrid_attn.", "hyperbolic"], "hyperbolic attention, from a later revision of the model"),
    (&[".force_field.", ".layer_norm_q."], "the symplectic block of a later revision of the model"),
    (
        &[".bk_layer.ffn."],
        "the feed-forward layer of a later revision of the model, whose potentials pass through tanh",
    ),
];

/// Converts to dimensions and weights in our layout.
pub(super) fn convert(
    entries: Entries,
    options: Options,
) -> Result<(ModelConfig, BTreeMap<String, Tensor>), Refusal> {
    if entries.keys().any(|name| name.ends_with(".bk_layer.log_eta")) {
        return Err(Refusal::new(
            "it is in this tool's own format and needs no import",
            "use it as it is",
        ));
    }
    refuse_variants(&entries)?;
    let mut config = count(&entries, options);
    refuse_foreign(&entries, &config)?;
    let problems = differences(&entries, &config);
    if !problems.is_empty() {
        let surplus = problems.iter().all(|problem| problem.ends_with(SURPLUS));
        let remedy = if surplus {
            format!(
                "if the model computes without these tensors, save the state_dict without them \
                 (`state.pop(name)` for each); otherwise it is of another revision: {REVISION}"
            )
        } else {
            format!("the file is damaged or of another revision; {REVISION}")
        };
        return Err(Refusal { problems, remedy });
    }
    let constants = buffers::constants(&entries, config.layers)
        .map_err(|problems| Refusal { problems, remedy: REVISION.into() })?;
    config.off_diagonal = constants[0].beta.unwrap_or(1.0);
    config.eta_floor = constants.iter().fold(1.0, |floor, c| floor.min(c.eta));
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        if let (Values::Real(data), false) = (entry.values, is_buffer(&name)) {
            tensors.insert(name, Tensor { shape: entry.shape, data });
        }
    }
    for (block, constants) in constants.iter().enumerate() {
        let mut insert = |name: &str, value: f32| {
            let data = vec![value; config.potentials];
            let tensor = Tensor { shape: vec![config.potentials], data };
            tensors.insert(format!("blocks.{block}.bk_layer.{name}"), tensor);
        };
        insert("diagonal", constants.diagonal);
        insert("log_eta", constants.eta.ln());
    }
    Ok((config, tensors))
}

fn refuse_variants(entries: &Entries) -> Result<(), Refusal> {
    let mut problems = Vec::new();
    let mut report = |names: Vec<&String>, reason: &str| match names.as_slice() {
        [] => {}
        [name] => problems.push(format!("`{name}` belongs to {reason}")),
        [name, rest @ ..] => {
            problems.push(format!("`{name}` and {} more belong to {reason}", rest.len()));
        }
    };
    for (parts, reason) in VARIANTS {
        report(entries.keys().filter(|n| parts.iter().any(|p| n.contains(p))).collect(), reason);
    }
    let per_channel = |(name, entry): &(&String, &Entry)| {
        name.ends_with(".bk_layer.bk_scale") && entry.shape.len() == 1
    };
    let reason = "a later revision of the model, which scales each channel by itself";
    report(entries.iter().filter(per_channel).map(|(name, _)| name).collect(), reason);
    if problems.is_empty() { Ok(()) } else { Err(Refusal { problems, remedy: REVISION.into() }) }
}

/// A file without any tensor of the model is another model's, not a damaged one.
fn refuse_foreign(entries: &Entries, config: &ModelConfig) -> Result<(), Refusal> {
    let expected = expected(config);
    if entries.keys().any(|name| expected.contains_key(name)) {
        return Ok(());
    }
    let mut names: Vec<String> = entries.keys().take(5).map(|name| format!("`{name}`")).collect();
    if entries.len() > names.len() {
        names.push("…".into());
    }
    Err(Refusal::new(
        format!(
            "none of its {} tensors belongs to a ResNet-BK model: {}",
            entries.len(),
            names.join(", ")
        ),
        "pass the state_dict of a ResNet-BK model",
    ))
}

/// Dimensions by majority of the tensors, so that one misshapen tensor is reported itself instead
/// of making all others look wrong.
fn count(entries: &Entries, options: Options) -> ModelConfig {
    let mut votes = Votes::default();
    for (name, Entry { shape, .. }) in entries {
        let extent = |axis: usize| shape.get(axis).copied();
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["token_embedding", "weight"] | ["lm_head", "weight"] => {
                votes.add("vocab", extent(0));
                votes.add("width", extent(1));
            }
            ["lm_head", "bias"] => votes.add("vocab", extent(0)),
            ["position_embedding", "weight"] => {
                votes.add("positions", extent(0));
                votes.add("width", extent(1));
            }
            ["layer_norm_final", _] | ["blocks", _, "layer_norm", _] => {
                votes.add("width", extent(0));
            }
            ["blocks", _, "bk_layer", "h0_diag_base"] => votes.add("positions", extent(1)),
            ["blocks", _, "bk_layer", "v_proj", _] => votes.add("potentials", extent(0)),
            ["blocks", _, "bk_layer", "moe_ffn", "gating_network", _] => {
                votes.add("experts", extent(0));
            }
            ["blocks", _, "bk_layer", "moe_ffn", "experts", _, "0", _] => {
                votes.add("hidden", extent(0));
            }
            _ => {}
        }
    }
    let indices = |of: &str| {
        let index = |name: &String| {
            let digits = name.split_once(of)?.1.split('.').next()?;
            digits.parse().ok().filter(|&index: &usize| index <= LARGEST_INDEX)
        };
        entries.keys().filter_map(index).max().map_or(UNKNOWN, |index| index + 1)
    };
    ModelConfig {
        vocab: votes.winner("vocab").unwrap_or(UNKNOWN),
        width: votes.winner("width").unwrap_or(UNKNOWN),
        layers: indices("blocks."),
        experts: votes.winner("experts").unwrap_or_else(|| indices(".experts.")),
        top_k: options.top_k,
        hidden: votes.winner("hidden").unwrap_or(UNKNOWN),
        potentials: votes.winner("potentials").unwrap_or(UNKNOWN),
        positions: Some(votes.winner("positions").unwrap_or(UNKNOWN)),
        chain: options.chain,
        eta_floor: 1.0,
        off_diagonal: 1.0,
        block: Block::Resolvent,
    }
}

#[derive(Default)]
struct Votes(BTreeMap<&'static str, BTreeMap<usize, usize>>);

impl Votes {
    fn add(&mut self, dimension: &'static str, extent: Option<usize>) {
        if let Some(extent) = extent {
            *self.0.entry(dimension).or_default().entry(extent).or_default() += 1;
        }
    }

    fn winner(&self, dimension: &str) -> Option<usize> {
        let extents = self.0.get(dimension)?;
        extents.iter().max_by_key(|(_, votes)| **votes).map(|(extent, _)| *extent)
    }
}

/// The tensors and buffers of a published model of these dimensions.
fn expected(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let trained = config.tensors().into_iter().map(|spec| (spec.name, spec.shape));
    // Trained here, but buffers in the published model.
    let ours = |name: &str| name.ends_with(".diagonal") || name.ends_with(".log_eta");
    let positions = config.positions.unwrap_or(UNKNOWN);
    let buffers = (0..config.layers).flat_map(|block| buffers::shapes(block, positions));
    trained.filter(|(name, _)| !ours(name)).chain(buffers).collect()
}

fn is_buffer(name: &str) -> bool {
    name.ends_with(".z") || name.contains(".bk_layer.h0_")
}

/// A count of training steps: optional, and without effect.
fn is_counter(name: &str) -> bool {
    name.ends_with(".moe_ffn.scattering_step_counter")
}

/// Every missing, misshapen and unexpected tensor.
fn differences(entries: &Entries, config: &ModelConfig) -> Vec<String> {
    let expected = expected(config);
    let mut problems = Vec::new();
    for (name, shape) in &expected {
        match entries.get(name) {
            None => problems.push(format!("`{name}` {} is missing", show(shape))),
            Some(entry) if !fits(name, entry, shape) => problems.push(format!(
                "`{name}` has shape {}, expected {}",
                show(&entry.shape),
                show(shape)
            )),
            Some(entry) => problems.extend(wrong_type(name, entry)),
        }
    }
    for (name, entry) in entries {
        if !expected.contains_key(name) && !is_counter(name) {
            let shape = show(&entry.shape);
            problems.push(format!("`{name}` {shape} {SURPLUS}"));
        }
    }
    problems
}

fn fits(name: &str, entry: &Entry, shape: &[usize]) -> bool {
    // Formats without complex numbers store z as returned by `torch.view_as_real`.
    if name.ends_with(".z") && matches!(entry.values, Values::Real(_)) {
        return entry.shape == [2];
    }
    entry.shape.len() == shape.len()
        && entry.shape.iter().zip(shape).all(|(have, want)| have == want || *want == UNKNOWN)
}

fn wrong_type(name: &str, entry: &Entry) -> Option<String> {
    let kind = match &entry.values {
        Values::Real(_) => return None,
        Values::Complex(_) if name.ends_with(".z") => return None,
        Values::Complex(_) => "complex numbers",
        Values::Integers => "integers",
    };
    Some(format!("`{name}` holds {kind}, expected floating-point numbers"))
}

fn show(shape: &[usize]) -> String {
    let extents: Vec<String> = shape
        .iter()
        .map(|&extent| if extent == UNKNOWN { "?".into() } else { extent.to_string() })
        .collect();
    format!("[{}]", extents.join(", "))
}
