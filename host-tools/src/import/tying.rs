//! Models whose head has the weight of the embedding.
//!
//! Such a model is often stored with one of the two, and its head often has no bias.

use super::dimensions::Dimensions;
use super::refusal::Refusal;
use super::shapes::Shapes;
use crate::checkpoint::Tensor;
use std::collections::BTreeMap;

const EMBEDDING: &str = "token_embedding.weight";
const HEAD: &str = "lm_head.weight";
const BIAS: &str = "lm_head.bias";

/// A tensor that is added to those of the file.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) to: &'static str,
    /// The tensor that it is a copy of; without one it is 0.
    pub(super) from: Option<&'static str>,
    length: usize,
}

/// How embedding and head are tied.
#[derive(Debug, Default)]
pub(super) struct Tying {
    added: Vec<Fill>,
    /// Whether both weights are in the file, and have to be the same.
    compare: bool,
}

impl Tying {
    /// For a model with these tensors, which is tied if the user says so.
    pub(super) fn of(shapes: &Shapes<'_>, counted: &Dimensions, is_tied: bool) -> Self {
        let has = |name| shapes.contains_key(name);
        if !is_tied {
            return Self::default();
        }
        let mut added = Vec::new();
        match (has(EMBEDDING), has(HEAD)) {
            (true, false) => added.push(Fill { to: HEAD, from: Some(EMBEDDING), length: 0 }),
            (false, true) => added.push(Fill { to: EMBEDDING, from: Some(HEAD), length: 0 }),
            _ => {}
        }
        if !has(BIAS) && (has(EMBEDDING) || has(HEAD)) {
            added.push(Fill { to: BIAS, from: None, length: counted.vocab.unwrap_or(0) });
        }
        Self { added, compare: has(EMBEDDING) && has(HEAD) }
    }

    pub(super) fn added(&self) -> &[Fill] {
        &self.added
    }

    /// Whether the file need not have the tensor.
    pub(super) fn fills(&self, name: &str) -> bool {
        self.added.iter().any(|fill| fill.to == name)
    }

    /// The remedy if nothing else is wrong than that one of the tensors is missing.
    pub(super) fn remedy(&self, problems: &[String]) -> Option<String> {
        let is_missing = |name: &str, problem: &str| {
            problem.starts_with(&format!("`{name}`")) && problem.ends_with("is missing")
        };
        let of = |name: &str| problems.iter().any(|problem| is_missing(name, problem));
        let all = [EMBEDDING, HEAD, BIAS].into_iter().filter(|&name| of(name)).count();
        if all < problems.len() || of(EMBEDDING) && of(HEAD) {
            return None;
        }
        Some(if of(EMBEDDING) || of(HEAD) {
            "if head and embedding have the same weight, add --tied: \
             `resnet-bk import {file} --tied --out model.safetensors`"
                .into()
        } else {
            "if its head has no bias, add --tied where it has the weight of the embedding; \
             otherwise store a bias of 0: `state[\"lm_head.bias\"] = \
             torch.zeros(state[\"lm_head.weight\"].shape[0])`, then \
             `torch.save(state, \"weights.pt\")`"
                .into()
        })
    }

    /// Adds the tensors.
    pub(super) fn apply(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<(), Refusal> {
        if self.compare && tensors[EMBEDDING] != tensors[HEAD] {
            let problem = format!("`{EMBEDDING}` and `{HEAD}` differ, so that they are not tied");
            let remedy = "leave --tied out: `resnet-bk import {file} --out model.safetensors`";
            return Err(Refusal::new(problem, remedy));
        }
        for fill in &self.added {
            let tensor = match fill.from {
                Some(from) => tensors[from].clone(),
                None => Tensor { shape: vec![fill.length], data: vec![0.0; fill.length] },
            };
            tensors.insert(fill.to.to_owned(), tensor);
        }
        Ok(())
    }
}
