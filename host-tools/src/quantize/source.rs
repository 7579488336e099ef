//! A checkpoint prepared for quantization.

use std::borrow::Cow;

use rayon::prelude::*;
use resnet_bk_core::blob::{Dimensions, Measured, Provenance, TensorId, TensorRecord};
use resnet_bk_schema::{Step, Steps, Storage};

use super::calibration::{Calibration, Statistics};
use super::encode::{self, Decoded, Encoded, Matrix};
use super::symmetry::{Rearrangement, Symmetries, Symmetry};
use super::{balance, chain, clip, decode, fold, writer};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::tensors::{Assignment, dimensions, layer_name, weight_name};
use crate::threads::Progress;

/// Tool name and version recorded in blobs.
pub const TOOL: &str = concat!("resnet-bk ", env!("CARGO_PKG_VERSION"));

/// A folded checkpoint and everything else that does not depend on precisions.
#[derive(Clone, Debug)]
pub struct Source {
    /// The folded checkpoint.
    pub folded: Checkpoint,
    /// The core's dimensions.
    pub dims: Dimensions,
    /// SHA-256 of the checkpoint file.
    pub sha256: [u8; 32],
    /// Bytes of the checkpoint file.
    pub bytes: u64,
    /// Tokenizer section, if the blob is to contain one.
    pub tokenizer: Option<Vec<u8>>,
    /// Class of every token; empty for a single class.
    pub(super) classes: Vec<u8>,
    /// Number of hidden units that each expert keeps; empty if all keep all.
    pub(super) kept: Vec<usize>,
    /// Post-training quantization steps to apply.
    pub steps: Steps,
}

impl Source {
    /// Folds a checkpoint that was read from a file of `bytes` bytes with this hash.
    pub fn new(
        checkpoint: &Checkpoint,
        sha256: [u8; 32],
        bytes: u64,
        tokenizer: Option<Vec<u8>>,
    ) -> Result<Self> {
        let dims = dimensions(&checkpoint.config);
        dims.validate().map_err(Error::Blob)?;
        let mut folded = fold::fold(checkpoint);
        clip::clip(&mut folded);
        balance::balance(&mut folded);
        Ok(Self {
            folded,
            dims,
            sha256,
            bytes,
            tokenizer,
            classes: Vec::new(),
            kept: Vec::new(),
            steps: Steps::ALL,
        })
    }

    /// Rearranges experts and their calibration, if the steps allow it.
    pub fn rearrange(&mut self, symmetries: &Symmetries, calibration: &mut Calibration) {
        for (l, e) in self.experts() {
            let [up, down] = [TensorId::ExpertUp(l, e), TensorId::ExpertDown(l, e)].map(layer_name);
            let allowed =
                |symmetry: &&Symmetry| Symmetry::allowed(self.steps).any(|a| a == **symmetry);
            let Some(symmetry) = symmetries.get(&down).filter(allowed) else { continue };
            let weights = &self.folded.tensors[&format!("{down}.weight")].data;
            let rearrangement = symmetry.rearrangement(weights, self.dims.hidden as usize);
            rearrangement.apply(&mut self.folded, &up, &down);
            rearrangement.apply_statistics(calibration, &up, &down);
        }
    }

    /// Layer and expert index of every expert that has weights.
    pub fn experts(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let experts = self.folded.config.stored_experts() as u32;
        (0..self.dims.layers).flat_map(move |l| (0..experts).map(move |e| (l, e)))
    }

    /// Encodes one matrix.
    pub fn encode(
        &self,
        id: TensorId,
        storage: Storage,
        calibration: &Calibration,
    ) -> Result<Encoded> {
        let statistics = self.statistics(id, calibration);
        let how = (id, storage, self.steps);
        Ok(self.encode_weights(how, &self.weights(id), &statistics)?.0)
    }

    /// Corrects the biases of one matrix anew, for the shift of its inputs; its codes and scales
    /// stay.
    pub fn correct_biases(
        &self,
        id: TensorId,
        encoded: &Encoded,
        calibration: &Calibration,
    ) -> Result<Encoded> {
        let (weights, statistics) = (self.weights(id), self.statistics(id, calibration));
        let (name, biases) = (&weight_name(id), self.biases(id));
        let (cols, steps) = (self.shape(id).1, self.steps);
        let matrix = Matrix {
            id,
            name,
            weights: &weights,
            cols,
            biases: &biases,
            statistics: &statistics,
            steps,
        };
        encode::correct_biases(matrix, &self.dims, encoded)
    }

    /// What is stored of one matrix, dequantized; of an expert's second matrix perhaps with its
    /// hidden units rearranged, and brought back to their order and scales.
    pub fn rounded(
        &self,
        id: TensorId,
        storage: Storage,
        rearrangement: Option<&Rearrangement>,
        calibration: &Calibration,
    ) -> Result<Decoded> {
        let (weights, statistics) = self.rearranged(id, rearrangement, calibration);
        let how = (id, storage, self.steps);
        let (_, Decoded { weights, biases }) = self.encode_weights(how, &weights, &statistics)?;
        let weights = match rearrangement {
            Some(rearrangement) => rearrangement.restore(&weights),
            None => weights,
        };
        Ok(Decoded { weights, biases })
    }

    /// Σ G_ii A_jj E_ij² of the errors E of a matrix that is rounded to nearest after a search of
    /// its scales, with the diagonals of its calibration; of an expert's second matrix perhaps with
    /// its hidden units rearranged.
    pub fn rounding_loss(
        &self,
        id: TensorId,
        storage: Storage,
        rearrangement: Option<&Rearrangement>,
        calibration: &Calibration,
    ) -> Result<f64> {
        let how = (id, storage, Steps::NONE.with(Step::ScaleSearch));
        let (exact, statistics) = self.rearranged(id, rearrangement, calibration);
        let (_, Decoded { weights, .. }) = self.encode_weights(how, &exact, &statistics)?;
        let outputs = statistics[0].outputs.diagonal();
        let cols = self.shape(id).1;
        let rows = exact.chunks_exact(cols).zip(weights.chunks_exact(cols)).enumerate();
        let loss = |(i, (exact, stored)): (usize, (&[f32], &[f32]))| {
            let moments = statistics[i % statistics.len()].inputs.diagonal();
            let errors = exact.iter().zip(stored).map(|(&w, &s)| f64::from(w - s));
            let loss: f64 = errors.zip(moments).map(|(error, a)| error * error * a).sum();
            outputs.get(i).copied().unwrap_or(1.0) * loss
        };
        Ok(rows.map(loss).sum())
    }

    /// The weights of a matrix and their statistics, with hidden units perhaps rearranged.
    fn rearranged(
        &self,
        id: TensorId,
        rearrangement: Option<&Rearrangement>,
        calibration: &Calibration,
    ) -> (Cow<'_, [f32]>, Vec<Statistics>) {
        let (mut weights, mut statistics) = (self.weights(id), self.statistics(id, calibration));
        if let Some(rearrangement) = rearrangement {
            rearrangement.rearrange(weights.to_mut());
            statistics.iter_mut().for_each(|each| rearrangement.rearrange_statistics(each));
        }
        (weights, statistics)
    }

    /// Statistics of a matrix, or of each row of a convolution.
    fn statistics(&self, id: TensorId, calibration: &Calibration) -> Vec<Statistics> {
        let layer = layer_name(id);
        if let TensorId::Convolution(_) = id {
            return calibration.of_channels(&layer);
        }
        let shape = &self.folded.tensors[&format!("{layer}.weight")].shape;
        vec![self.part(id).of_statistics(calibration.statistics(&layer, shape[0], shape[1]))]
    }

    /// Encodes a matrix with these `weights` instead of its own.
    fn encode_weights(
        &self,
        (id, storage, steps): (TensorId, Storage, Steps),
        weights: &[f32],
        statistics: &[Statistics],
    ) -> Result<(Encoded, Decoded)> {
        let (rows, cols) = self.shape(id);
        writer::check(&self.dims, id, &storage.record(rows, cols))?;
        let (name, biases) = (&weight_name(id), self.biases(id));
        let matrix = Matrix { id, name, weights, cols, biases: &biases, statistics, steps };
        let (encoded, decoded) = encode::encode(matrix, storage)?;
        let tensor = encoded.tensor(&self.dims, id);
        debug_assert_eq!(decode::weights(id, &tensor), decoded.weights, "{storage} {id:?}");
        debug_assert_eq!(decode::biases(&tensor), decoded.biases, "{storage} {id:?}");
        Ok((encoded, decoded))
    }

    /// The matrix's own biases; an embedding has none.
    fn biases(&self, id: TensorId) -> Cow<'_, [f32]> {
        if id.is_embedding() {
            return Cow::default();
        }
        let whole = &self.folded.tensors[&format!("{}.bias", layer_name(id))];
        self.part(id).of_biases(&whole.data)
    }

    /// The matrix's own weights, `[rows, cols]`.
    fn weights(&self, id: TensorId) -> Cow<'_, [f32]> {
        let whole = &self.folded.tensors[&format!("{}.weight", layer_name(id))];
        self.part(id).of_matrix(&whole.data, whole.shape[1])
    }

    /// Bytes of a matrix's section, unpadded.
    pub fn section_len(&self, id: TensorId, storage: Storage) -> usize {
        let (rows, cols) = self.shape(id);
        storage.layout(id, rows, cols).len()
    }

    /// Exact size in bytes of the blob that [`Source::quantize`] would give, without quantizing.
    pub fn predict(&self, assignment: &Assignment, origin: &Origin<'_>) -> Result<usize> {
        let records: Vec<TensorRecord> = self
            .dims
            .tensors()
            .zip(&assignment.storage)
            .map(|(id, storage)| {
                let (rows, cols) = self.shape(id);
                storage.record(rows, cols)
            })
            .collect();
        let chain = chain::encode(&self.folded, assignment.potentials_int8)?;
        self.parts(&chain, records, assignment, origin).total_len()
    }

    /// Quantizes every matrix in its assigned storage; `done` receives the finished share of the
    /// weights.
    pub fn encode_all(
        &self,
        assignment: &Assignment,
        calibration: &Calibration,
        done: impl Fn(f64) + Sync,
    ) -> Result<Vec<Encoded>> {
        let ids: Vec<TensorId> = self.dims.tensors().collect();
        let weights = |&id: &TensorId| {
            let (rows, cols) = self.shape(id);
            rows * cols
        };
        let progress = Progress::new(ids.iter().map(weights).sum(), done);
        let encode = |(id, &storage): (TensorId, &Storage)| {
            let encoded = self.encode(id, storage, calibration)?;
            progress.add(weights(&id));
            Ok(encoded)
        };
        ids.into_par_iter().zip(&assignment.storage).map(encode).collect()
    }

    /// The blob of these matrices.
    pub fn assemble(
        &self,
        encoded: &[Encoded],
        assignment: &Assignment,
        origin: &Origin<'_>,
    ) -> Result<Vec<u8>> {
        let chain = chain::encode(&self.folded, assignment.potentials_int8)?;
        let records = encoded.iter().map(|tensor| tensor.record).collect();
        let sections: Vec<Vec<u8>> = encoded.iter().map(|tensor| tensor.section.clone()).collect();
        self.parts(&chain, records, assignment, origin).assemble(&sections)
    }

    /// Quantizes and assembles.
    pub fn quantize(
        &self,
        assignment: &Assignment,
        calibration: &Calibration,
        origin: &Origin<'_>,
    ) -> Result<Vec<u8>> {
        self.assemble(&self.encode_all(assignment, calibration, |_| {})?, assignment, origin)
    }

    fn parts<'a>(
        &'a self,
        chain: &'a chain::EncodedChain,
        records: Vec<TensorRecord>,
        assignment: &'a Assignment,
        origin: &'a Origin<'a>,
    ) -> writer::Parts<'a> {
        let stored = self.dims.tensors().zip(&assignment.storage);
        let section_lens = stored.map(|(id, &storage)| self.section_len(id, storage)).collect();
        writer::Parts {
            dims: self.dims,
            chain,
            records,
            section_lens,
            tokenizer: self.tokenizer.as_deref(),
            token_classes: self.class_section(),
            provenance: Provenance {
                source_sha256: &self.sha256,
                source_bytes: self.bytes,
                tool: TOOL,
                policy: &assignment.name,
                calibration: origin.calibration,
                calibration_tokens: origin.calibration_tokens,
                seed: origin.seed,
                measured: origin.measured,
            },
        }
    }
}

/// Provenance of a blob, besides its policy.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Name of the calibration text.
    pub calibration: &'a str,
    /// Calibration tokens.
    pub calibration_tokens: u32,
    /// Seed.
    pub seed: u64,
    /// Measured quality, if any.
    pub measured: Option<Measured<'a>>,
}
