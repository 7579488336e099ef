//! A checkpoint prepared for quantization.

use std::borrow::Cow;

use rayon::prelude::*;
use resnet_bk_core::blob::{Dimensions, Measured, Provenance, TensorId, TensorRecord};
use resnet_bk_schema::{Step, Steps, Storage};

use super::calibration::{Calibration, Statistics, Symmetric};
use super::encode::{self, Encoded, Matrix};
use super::symmetry::{Rearrangement, Symmetries, Symmetry};
use super::{balance, chain, clip, decode, fold, metric, writer};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::tensors::{Assignment, dimensions, layer_name, weight_name};

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
        self.encode_by(id, storage, calibration, self.steps)
    }

    /// Σ G_ii A_jj E_ij² of the errors E of a matrix that is rounded to nearest after a search of
    /// its scales, with the diagonals of its calibration.
    pub fn rounding_loss(
        &self,
        id: TensorId,
        storage: Storage,
        calibration: &Calibration,
    ) -> Result<f64> {
        let steps = Steps::NONE.with(Step::ScaleSearch);
        let encoded = self.encode_by(id, storage, calibration, steps)?;
        let weights = decode::weights(id, &encoded.tensor(&self.dims, id));
        Ok(self.loss(id, &weights, calibration, |a, errors| {
            errors.iter().zip(a.diagonal()).map(|(error, a)| error * error * a).sum()
        }))
    }

    /// Σ G_ii e_i A e_iᵀ of the errors of the rows of a matrix with these `weights` instead of its
    /// own, with the diagonal of G.
    pub fn stored_loss(&self, id: TensorId, weights: &[f32], calibration: &Calibration) -> f64 {
        self.loss(id, weights, calibration, metric::quadratic)
    }

    fn loss(
        &self,
        id: TensorId,
        weights: &[f32],
        calibration: &Calibration,
        of_row: impl Fn(&Symmetric, &[f64]) -> f64,
    ) -> f64 {
        let whole = &self.folded.tensors[&format!("{}.weight", layer_name(id))];
        let exact = self.part(id).of_matrix(&whole.data, whole.shape[1]);
        let statistics = self.statistics(id, calibration);
        let outputs = statistics[0].outputs.diagonal();
        let cols = self.shape(id).1;
        let rows = exact.chunks_exact(cols).zip(weights.chunks_exact(cols)).enumerate();
        let loss = |(i, (exact, stored)): (usize, (&[f32], &[f32]))| {
            let errors: Vec<f64> =
                exact.iter().zip(stored).map(|(&w, &s)| f64::from(w - s)).collect();
            let weight = outputs.get(i).copied().unwrap_or(1.0);
            weight * of_row(&statistics[i % statistics.len()].inputs, &errors)
        };
        rows.map(loss).sum()
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

    fn encode_by(
        &self,
        id: TensorId,
        storage: Storage,
        calibration: &Calibration,
        steps: Steps,
    ) -> Result<Encoded> {
        let (rows, cols) = self.shape(id);
        writer::check(&self.dims, id, &storage.record(rows, cols))?;
        let (layer, part) = (layer_name(id), self.part(id));
        let whole = &self.folded.tensors[&format!("{layer}.weight")];
        let whole_cols = whole.shape[1];
        let biases = match id.is_embedding() {
            true => Cow::default(),
            false => part.of_biases(&self.folded.tensors[&format!("{layer}.bias")].data),
        };
        let statistics = self.statistics(id, calibration);
        let matrix = Matrix {
            id,
            name: &weight_name(id),
            weights: &part.of_matrix(&whole.data, whole_cols),
            cols,
            biases: &biases,
            statistics: &statistics,
            steps,
        };
        let (encoded, decoded) = encode::encode(matrix, storage)?;
        let tensor = encoded.tensor(&self.dims, id);
        debug_assert_eq!(decode::weights(id, &tensor), decoded.weights, "{storage} {id:?}");
        debug_assert_eq!(decode::biases(&tensor), decoded.biases, "{storage} {id:?}");
        Ok(encoded)
    }

    /// Encodes an expert's second matrix with its hidden units rearranged, of an undivided model.
    pub fn encode_rearranged(
        &self,
        id: TensorId,
        storage: Storage,
        rearrangement: &Rearrangement,
        calibration: &Calibration,
    ) -> Result<Encoded> {
        let (rows, cols) = self.shape(id);
        let layer = layer_name(id);
        let mut weights = self.folded.tensors[&weight_name(id)].data.clone();
        let mut statistics = calibration.statistics(&layer, rows, cols);
        rearrangement.rearrange(&mut weights);
        rearrangement.rearrange_statistics(&mut statistics);
        let matrix = Matrix {
            id,
            name: &weight_name(id),
            weights: &weights,
            cols,
            biases: &self.folded.tensors[&format!("{layer}.bias")].data,
            statistics: &[statistics],
            steps: self.steps,
        };
        Ok(encode::encode(matrix, storage)?.0)
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

    /// Quantizes every matrix in its assigned storage.
    pub fn encode_all(
        &self,
        assignment: &Assignment,
        calibration: &Calibration,
    ) -> Result<Vec<Encoded>> {
        let ids: Vec<TensorId> = self.dims.tensors().collect();
        ids.into_par_iter()
            .zip(&assignment.storage)
            .map(|(id, &storage)| self.encode(id, storage, calibration))
            .collect()
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
        self.assemble(&self.encode_all(assignment, calibration)?, assignment, origin)
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
