//! From a student back to a blob, through the common writer.

use std::collections::BTreeMap;

use resnet_bk_core::Model as Blob;
use resnet_bk_core::blob::{Measured, Preamble, Provenance, Section};

use super::Student;
use super::matrix::MatrixParameters;
use crate::error::{Error, Result};
use crate::quantize::writer::Parts;
use crate::quantize::{TOOL, chain};

/// Provenance of a fine-tuned blob, besides that of the blob it started from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Name of the policy.
    pub policy: &'a str,
    /// Seed of the fine-tuning.
    pub seed: u64,
    /// Measured quality, if any.
    pub measured: Option<Measured<'a>>,
}

impl Student {
    /// The blob of these parameters: `bytes`, which the student was made from, with new values.
    ///
    /// # Errors
    ///
    /// Those of [`Blob::from_bytes`]; [`Error::WeightTooLarge`].
    pub fn export(&self, parameters: &[f32], bytes: &[u8], origin: &Origin<'_>) -> Result<Vec<u8>> {
        let blob = Blob::from_bytes(bytes).map_err(Error::Blob)?;
        let sections = &bytes[Preamble::parse(bytes).map_err(Error::Blob)?.base()..];
        let cut = |place: Section| &sections[place.offset as usize..][..place.len as usize];
        let header = blob.header();
        let mut rest = parameters;
        let encode = |matrix: &super::matrix::Matrix| {
            matrix.encode(MatrixParameters::next(&mut rest, matrix.lengths()))
        };
        let matrices = self.matrices.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let (records, matrices): (Vec<_>, Vec<Vec<u8>>) = matrices.into_iter().unzip();
        let mut model = self.model().clone();
        self.put_chains(rest, model.parameters_mut());
        let checkpoint = model.to_checkpoint(BTreeMap::new())?;
        let chain = chain::encode(&checkpoint, header.potentials_int8)?;
        let parts = Parts {
            dims: *blob.dims(),
            chain: &chain,
            records,
            section_lens: matrices.iter().map(Vec::len).collect(),
            tokenizer: header.tokenizer.map(cut),
            token_classes: header.token_classes.map(|place| cut(place).to_vec()),
            provenance: Provenance {
                tool: TOOL,
                policy: origin.policy,
                seed: origin.seed,
                measured: origin.measured,
                ..header.provenance.clone()
            },
        };
        parts.assemble(&matrices)
    }
}
