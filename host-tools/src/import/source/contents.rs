//! What there is in one file, before any tensor is read.

use crate::import::dimensions::Dimensions;
use crate::import::state::Dictionary;
use crate::import::view::Stored;
use std::collections::BTreeMap;

/// What a file holds.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) dictionaries: Vec<Dictionary<Stored>>,
    /// Text by key; only safetensors have it.
    pub(super) metadata: BTreeMap<String, String>,
    /// What a training script saved of the dimensions; only files of PyTorch have it.
    pub(super) settings: Vec<Dimensions>,
}
