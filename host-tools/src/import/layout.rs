//! Checks that the tensors are those of a model, and converts them to our layout.

use super::buffers;
use super::dimensions::{Contradiction, Dimensions};
use super::element::{Element, Entries, Values};
use super::options::Options;
use super::refusal::{PASS_A_MODEL, Refusal};
use super::shapes::{Constants, Shape, Shapes, dimensions};
use super::tying::{Fill, Tying};
use super::variants::{self, REVISION};
use crate::checkpoint::{Chain, ModelConfig, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// A dimension that no tensor determines.
const UNKNOWN: usize = 0;

/// The lower bound of η that the modules in `pytorch/` have by default.
const USUAL_ETA_FLOOR: f32 = 1.0 / 256.0;

/// Where dimensions that a training script saved come from.
const SAVED: &str = "saved beside the weights";

/// Where dimensions without another origin come from.
const ASSUMED: &str = "assumed";

/// What becomes of the tensors.
#[derive(Debug)]
pub(super) struct Plan {
    config: ModelConfig,
    constants: Constants,
    pub(super) tying: Tying,
    /// What flags and the like say of the constants, which only the values tell.
    given: Dimensions,
    /// Where each dimension that no tensor tells comes from.
    pub(super) origins: BTreeMap<&'static str, String>,
    /// Tensors that do not belong to the model.
    pub(super) surplus: BTreeSet<String>,
}

/// Plans the conversion of tensors with these shapes; `recorded` are the dimensions in the file's
/// metadata, `settings` those that a training script saved.
pub(super) fn plan(
    shapes: &Shapes<'_>,
    recorded: Option<&Dimensions>,
    settings: &[Dimensions],
    options: &Options,
) -> Result<Plan, Refusal> {
    variants::refuse(shapes)?;
    let counted = dimensions(shapes);
    let constants = Constants::of(shapes);
    let tying = Tying::of(shapes, &counted, options.tied);
    let draft = draft(&counted);
    refuse_foreign(shapes, &draft, constants)?;
    let (problems, surplus) = differences(shapes, &draft, constants, &tying);
    if !problems.is_empty() {
        let remedy = tying.remedy(&problems).unwrap_or_else(|| {
            let list = "list what is in it: `resnet-bk import {file} --dry-run`";
            format!("the file is damaged or of another revision; {list}; {REVISION}")
        });
        let surplus = surplus.iter().map(|name| {
            let extents = shapes[name.as_str()].map_or(&[][..], |shape| shape.extents);
            format!("`{name}` {} does not belong to this model", show(extents))
        });
        return Err(Refusal { problems: problems.into_iter().chain(surplus).collect(), remedy });
    }
    let mut plan = Plan {
        config: draft,
        constants,
        tying,
        given: Dimensions::default(),
        origins: BTreeMap::new(),
        surplus,
    };
    plan.complete(counted, recorded, settings, options)?;
    Ok(plan)
}

/// A configuration of these dimensions, the others unknown.
fn draft(known: &Dimensions) -> ModelConfig {
    ModelConfig {
        vocab: known.vocab.unwrap_or(UNKNOWN),
        width: known.width.unwrap_or(UNKNOWN),
        layers: known.layers.unwrap_or(UNKNOWN),
        experts: known.experts.unwrap_or(UNKNOWN),
        top_k: known.top_k.unwrap_or(UNKNOWN),
        hidden: known.hidden.unwrap_or(UNKNOWN),
        potentials: known.potentials.unwrap_or(UNKNOWN),
        positions: known.positions.unwrap_or(Some(UNKNOWN)),
        chain: known.chain.unwrap_or(Chain::Half),
        eta_floor: known.eta_floor.unwrap_or(USUAL_ETA_FLOOR),
        off_diagonal: known.off_diagonal.unwrap_or(1.0),
        block: known.block.unwrap_or_default(),
    }
}

/// A file without any tensor of the model is another model's, not a damaged one.
fn refuse_foreign(
    shapes: &Shapes<'_>,
    config: &ModelConfig,
    constants: Constants,
) -> Result<(), Refusal> {
    let expected = expected(config, constants);
    if shapes.keys().any(|name| expected.contains_key(*name)) {
        return Ok(());
    }
    let mut names: Vec<String> = shapes.keys().take(5).map(|name| format!("`{name}`")).collect();
    if shapes.len() > names.len() {
        names.push("…".into());
    }
    let problem = format!(
        "none of its {} tensors belongs to a ResNet-BK model: {}",
        shapes.len(),
        names.join(", ")
    );
    Err(Refusal::new(problem, PASS_A_MODEL))
}

/// The tensors and buffers of a model of these dimensions.
fn expected(config: &ModelConfig, constants: Constants) -> BTreeMap<String, Vec<usize>> {
    let trained = config.tensors().into_iter().map(|spec| (spec.name, spec.shape));
    if constants == Constants::Trained {
        return trained.collect();
    }
    // Trained here, but buffers in the published model.
    let ours = |name: &str| name.ends_with(".diagonal") || name.ends_with(".log_eta");
    let positions = config.positions.unwrap_or(UNKNOWN);
    let buffers = (0..config.layers).flat_map(|block| buffers::shapes(block, positions));
    trained.filter(|(name, _)| !ours(name)).chain(buffers).collect()
}

pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with(".z") || name.contains(".bk_layer.h0_")
}

/// A count of training steps: optional, and without effect.
pub(super) fn is_counter(name: &str) -> bool {
    name.ends_with(".moe_ffn.scattering_step_counter")
}

/// Every missing and misshapen tensor, and the names of those that are not the model's.
fn differences(
    shapes: &Shapes<'_>,
    config: &ModelConfig,
    constants: Constants,
    tying: &Tying,
) -> (Vec<String>, BTreeSet<String>) {
    let expected = expected(config, constants);
    let mut problems = Vec::new();
    for (name, extents) in &expected {
        match shapes.get(name.as_str()) {
            None if tying.fills(name) => {}
            None => problems.push(format!("`{name}` {} is missing", show(extents))),
            Some(Some(shape)) if !fits(name, shape, extents) => problems.push(format!(
                "`{name}` has shape {}, expected {}",
                show(shape.extents),
                show(extents)
            )),
            Some(Some(shape)) => problems.extend(wrong_type(name, shape.element)),
            // Reading it says why not.
            Some(None) => {}
        }
    }
    let surplus = shapes.keys().filter(|name| !expected.contains_key(**name) && !is_counter(name));
    (problems, surplus.map(|name| (*name).to_owned()).collect())
}

fn fits(name: &str, shape: &Shape<'_>, extents: &[usize]) -> bool {
    // Formats without complex numbers store z as returned by `torch.view_as_real`.
    if name.ends_with(".z") && shape.element != Element::Complex64 {
        return shape.extents == [2];
    }
    shape.extents.len() == extents.len()
        && shape.extents.iter().zip(extents).all(|(have, want)| have == want || *want == UNKNOWN)
}

fn wrong_type(name: &str, element: Element) -> Option<String> {
    let kind = match element {
        Element::Complex64 if name.ends_with(".z") => return None,
        Element::Complex64 => "complex numbers",
        Element::Integer(_) => "integers",
        Element::F64 | Element::F32 | Element::F16 | Element::BF16 => return None,
    };
    Some(format!("`{name}` holds {kind}, expected floating-point numbers"))
}

fn show(extents: &[usize]) -> String {
    let extents: Vec<String> = extents
        .iter()
        .map(|&extent| if extent == UNKNOWN { "?".into() } else { extent.to_string() })
        .collect();
    format!("[{}]", extents.join(", "))
}

impl Plan {
    /// Whether the tensor is read.
    pub(super) fn takes(&self, name: &str) -> bool {
        !is_counter(name) && !self.surplus.contains(name)
    }

    /// Takes the dimensions that no tensor tells from the file's metadata, what the user gave, what
    /// a training script saved, and what is usual for such models, in this order.
    fn complete(
        &mut self,
        counted: Dimensions,
        recorded: Option<&Dimensions>,
        settings: &[Dimensions],
        options: &Options,
    ) -> Result<(), Refusal> {
        let mut known = counted;
        let mut problems = Vec::new();
        let against = |found: Vec<Contradiction>, origin: &str, problems: &mut Vec<String>| {
            problems.extend(found.iter().map(|Contradiction { key, known, given }| {
                format!("{key} is {given} by {origin}, but {known} in the file")
            }));
        };
        if let Some(recorded) = recorded {
            let found = known.add(recorded, "the file's metadata", &mut self.origins);
            against(found, "its metadata", &mut problems);
        }
        let in_file = known.clone();
        for (origin, given) in &options.given {
            // Of two that the user gave, the first counts.
            known.add(given, origin, &mut self.origins);
            let found = in_file.clone().add(given, origin, &mut BTreeMap::new());
            against(found, origin, &mut problems);
        }
        if !problems.is_empty() {
            let remedy = "leave out what the file says itself; list it with \
                          `resnet-bk import {file} --dry-run`";
            return Err(Refusal { problems, remedy: remedy.into() });
        }
        self.given = known.clone();
        let experts = known.experts.unwrap_or(UNKNOWN);
        let settings = self.possible(settings, experts);
        known.add(&Dimensions::agreed(&settings), SAVED, &mut self.origins);
        let usual = Dimensions {
            top_k: (experts == 1).then_some(1),
            chain: Some(match self.constants {
                Constants::Buffers => Chain::Full,
                Constants::Trained => Chain::Half,
            }),
            ..match self.constants {
                Constants::Buffers => Dimensions::default(),
                Constants::Trained => Dimensions {
                    eta_floor: Some(USUAL_ETA_FLOOR),
                    off_diagonal: Some(1.0),
                    ..Dimensions::default()
                },
            }
        };
        known.add(&usual, ASSUMED, &mut self.origins);
        self.config = draft(&known);
        if known.top_k.is_none() {
            let routed = format!("to how many of its {experts} experts a token is routed (top_k)");
            let said: BTreeSet<usize> = settings.iter().filter_map(|one| one.top_k).collect();
            let problem = match said.is_empty() {
                true => format!("it does not say {routed}"),
                false => format!("its settings disagree {routed}: {said:?}"),
            };
            let remedy = format!(
                "add the number that it was trained with, 1 to {experts}, where {experts} is dense \
                 gating: `resnet-bk import {{file}} --top-k N --out model.safetensors`"
            );
            return Err(Refusal::new(problem, remedy));
        }
        self.check()
    }

    /// Of these settings, what the model can have.
    fn possible(&self, settings: &[Dimensions], experts: usize) -> Vec<Dimensions> {
        let fits = |top_k: &usize| (1..=experts).contains(top_k);
        let possible = |one: &Dimensions| match self.constants {
            // The rest is in the buffers.
            Constants::Buffers => Dimensions { eta_floor: None, off_diagonal: None, ..one.clone() },
            Constants::Trained => one.clone(),
        };
        let possible = settings.iter().map(possible);
        possible.map(|one| Dimensions { top_k: one.top_k.filter(fits), ..one }).collect()
    }

    fn check(&self) -> Result<(), Refusal> {
        let Some(problem) = self.config.problem() else { return Ok(()) };
        let remedy = "the limits are in docs/checkpoint.md; dimensions that the file does not \
                      record are set by flags: `resnet-bk import {file} --top-k N --chain half \
                      --eta-floor X --out model.safetensors`";
        Err(Refusal::new(problem, remedy))
    }

    /// Converts to dimensions and weights in our layout.
    pub(super) fn convert(
        mut self,
        mut entries: Entries,
    ) -> Result<(ModelConfig, BTreeMap<String, Tensor>), Refusal> {
        let constants = match self.constants {
            Constants::Trained => Vec::new(),
            Constants::Buffers => self.buffers(&entries)?,
        };
        entries.retain(|name, _| self.takes(name) && !is_buffer(name));
        let mut tensors = BTreeMap::new();
        for (name, entry) in entries {
            if let Values::Real(data) = entry.values {
                tensors.insert(name, Tensor { shape: entry.shape, data });
            }
        }
        for (block, constants) in constants.iter().enumerate() {
            let mut insert = |name: &str, value: f32| {
                let data = vec![value; self.config.potentials];
                let tensor = Tensor { shape: vec![self.config.potentials], data };
                tensors.insert(format!("blocks.{block}.bk_layer.{name}"), tensor);
            };
            insert("diagonal", constants.diagonal);
            insert("log_eta", constants.eta.ln());
        }
        self.tying.apply(&mut tensors)?;
        refuse_infinite(&tensors)?;
        Ok((self.config, tensors))
    }

    /// The constants of the buffers, of which two are dimensions.
    fn buffers(&mut self, entries: &Entries) -> Result<Vec<buffers::Constants>, Refusal> {
        let constants = buffers::constants(entries, self.config.layers)
            .map_err(|problems| Refusal { problems, remedy: REVISION.into() })?;
        let least = constants.iter().fold(1.0f32, |floor, c| floor.min(c.eta));
        self.config.off_diagonal = constants[0].beta.unwrap_or(1.0);
        self.config.eta_floor = self.given.eta_floor.unwrap_or(least);
        let beta = self.given.off_diagonal.unwrap_or(self.config.off_diagonal);
        let remedy = "leave that out: the file says it itself";
        if self.config.eta_floor > least {
            let given = self.config.eta_floor;
            let problem = format!("eta_floor is to be {given}, but its smallest η is {least}");
            return Err(Refusal::new(problem, remedy));
        }
        if beta != self.config.off_diagonal {
            let known = self.config.off_diagonal;
            let problem = format!("off_diagonal is to be {beta}, but is {known} in its buffers");
            return Err(Refusal::new(problem, remedy));
        }
        Ok(constants)
    }

    /// What is added to the tensors of the file.
    pub(super) fn fills(&self) -> &[Fill] {
        self.tying.added()
    }
}

/// Refuses weights that are NaN or infinite, but for −∞ before a softmax, which masks an output.
fn refuse_infinite(tensors: &BTreeMap<String, Tensor>) -> Result<(), Refusal> {
    let is_mask = |name: &str, value: f32| {
        let softmax = name == "lm_head.bias" || name.ends_with("gating_network.bias");
        softmax && value == f32::NEG_INFINITY
    };
    let mut problems = Vec::new();
    for (name, tensor) in tensors {
        let is_bad = |w: &f32| !w.is_finite() && !is_mask(name, *w);
        if let Some(index) = tensor.data.iter().position(is_bad) {
            problems.push(format!("`{name}` holds {} at index {index}", tensor.data[index]));
        }
    }
    let remedy = "the training that wrote it diverged, or FP16 overflowed: import an earlier or an \
                  FP32 checkpoint: `resnet-bk import EARLIER --out model.safetensors`";
    if problems.is_empty() { Ok(()) } else { Err(Refusal { problems, remedy: remedy.into() }) }
}
