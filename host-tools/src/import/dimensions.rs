//! Dimensions from several places: the tensors, the file's metadata, flags and a JSON file.

use crate::checkpoint::{Block, Chain, ModelConfig};
use crate::error::{Error, Result};
use crate::files;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Dimensions of a model of which any may be unknown, named as in [`ModelConfig`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "they are those of `ModelConfig`")]
pub struct Dimensions {
    pub vocab: Option<usize>,
    pub width: Option<usize>,
    pub layers: Option<usize>,
    pub experts: Option<usize>,
    pub top_k: Option<usize>,
    pub hidden: Option<usize>,
    pub potentials: Option<usize>,
    /// `Some(None)` is a model without a table of positions.
    #[serde(deserialize_with = "present")]
    pub positions: Option<Option<usize>>,
    pub chain: Option<Chain>,
    pub eta_floor: Option<f32>,
    pub off_diagonal: Option<f32>,
    pub block: Option<Block>,
}

/// A key that is there, even if it is `null`.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A dimension with two values.
#[derive(Debug)]
pub(super) struct Contradiction {
    pub(super) key: &'static str,
    /// As JSON.
    pub(super) known: String,
    pub(super) given: String,
}

impl Dimensions {
    /// Reads a JSON object of dimensions.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = files::read(path)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Format {
            kind: "file of dimensions",
            path: path.to_path_buf(),
            reason: error.to_string(),
        })
    }

    /// Those of a complete configuration.
    pub(super) fn of(config: &ModelConfig) -> Self {
        Self {
            vocab: Some(config.vocab),
            width: Some(config.width),
            layers: Some(config.layers),
            experts: Some(config.experts),
            top_k: Some(config.top_k),
            hidden: Some(config.hidden),
            potentials: Some(config.potentials),
            positions: Some(config.positions),
            chain: Some(config.chain),
            eta_floor: Some(config.eta_floor),
            off_diagonal: Some(config.off_diagonal),
            block: Some(config.block),
        }
    }

    /// The dimensions of which all that know them say the same.
    pub(super) fn agreed(all: &[Self]) -> Self {
        fn same<T: PartialEq>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
            let mut values = values.flatten();
            let first = values.next()?;
            values.all(|value| value == first).then_some(first)
        }
        Self {
            top_k: same(all.iter().map(|one| one.top_k)),
            chain: same(all.iter().map(|one| one.chain)),
            eta_floor: same(all.iter().map(|one| one.eta_floor)),
            off_diagonal: same(all.iter().map(|one| one.off_diagonal)),
            ..Self::default()
        }
    }

    /// Takes over what is not known yet, and returns where the rest contradicts. `origins` says for
    /// each dimension that was taken over that it is from `origin`.
    pub(super) fn add(
        &mut self,
        given: &Self,
        origin: &str,
        origins: &mut BTreeMap<&'static str, String>,
    ) -> Vec<Contradiction> {
        let mut adding = Adding { origin, origins, found: Vec::new() };
        adding.one("vocab", &mut self.vocab, &given.vocab);
        adding.one("width", &mut self.width, &given.width);
        adding.one("layers", &mut self.layers, &given.layers);
        adding.one("experts", &mut self.experts, &given.experts);
        adding.one("top_k", &mut self.top_k, &given.top_k);
        adding.one("hidden", &mut self.hidden, &given.hidden);
        adding.one("potentials", &mut self.potentials, &given.potentials);
        adding.one("positions", &mut self.positions, &given.positions);
        adding.one("chain", &mut self.chain, &given.chain);
        adding.one("eta_floor", &mut self.eta_floor, &given.eta_floor);
        adding.one("off_diagonal", &mut self.off_diagonal, &given.off_diagonal);
        adding.one("block", &mut self.block, &given.block);
        adding.found
    }
}

/// Adding dimensions from one place.
struct Adding<'a> {
    origin: &'a str,
    origins: &'a mut BTreeMap<&'static str, String>,
    found: Vec<Contradiction>,
}

impl Adding<'_> {
    fn one<T: Copy + PartialEq + Serialize>(
        &mut self,
        key: &'static str,
        known: &mut Option<T>,
        given: &Option<T>,
    ) {
        let shown = |value: T| serde_json::to_string(&value).expect("a plain value serialises");
        match (*known, *given) {
            (None, Some(value)) => {
                *known = Some(value);
                self.origins.insert(key, self.origin.to_owned());
            }
            (Some(known), Some(given)) if known != given => {
                let (known, given) = (shown(known), shown(given));
                self.found.push(Contradiction { key, known, given });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> serde_json::Result<Dimensions> {
        serde_json::from_str(json)
    }

    #[test]
    fn any_part_of_a_configuration_is_read() {
        assert_eq!(parsed("{}").unwrap(), Dimensions::default());
        let some = parsed(r#"{"positions": null, "chain": "half", "eta_floor": 0.1}"#).unwrap();
        assert_eq!((some.positions, some.chain), (Some(None), Some(Chain::Half)));
        assert_eq!(some.eta_floor, Some(0.1));
        let gated = parsed(r#"{"block": {"gated": {"channels": 8}}}"#).unwrap();
        assert_eq!(gated.block, Some(Block::Gated { channels: 8 }));
        assert!(parsed(r#"{"topk": 1}"#).unwrap_err().to_string().contains("topk"));
    }

    #[test]
    fn what_is_known_stays_and_contradictions_are_returned() {
        let mut origins = BTreeMap::new();
        let mut known = parsed(r#"{"width": 8}"#).unwrap();
        let given = parsed(r#"{"width": 9, "top_k": 2}"#).unwrap();
        let found = known.add(&given, "a file", &mut origins);
        assert_eq!((known.width, known.top_k), (Some(8), Some(2)));
        assert_eq!(origins, BTreeMap::from([("top_k", "a file".to_owned())]));
        let [Contradiction { key: "width", known, given }] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((known.as_str(), given.as_str()), ("8", "9"));
    }
}
