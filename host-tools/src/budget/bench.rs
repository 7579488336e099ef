//! Measures the loss of a mix of precisions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use resnet_bk_core::blob::TensorId;

use crate::error::{Error, Result};
use crate::eval::divergence::{Divergence, log_softmax};
use crate::eval::teacher::Teacher;
use crate::quantize::Source;
use crate::quantize::calibration::Calibration;
use crate::quantize::division::Selection;
use crate::quantize::encode::Encoded;
use crate::reference::{Model, Tape};
use crate::tensors::layer_name;
use resnet_bk_schema::Storage;

/// Measures mixes on one text with the FP32 model and dequantized weights: the loss of the weights
/// alone, activations staying FP32. Caches encoded tensors.
pub struct Bench<'a> {
    source: &'a Source,
    calibration: &'a Calibration,
    reference: Model,
    tensors: Vec<MatrixRanges>,
    /// Log-probabilities of the model that mixes are compared with.
    teacher: Teacher<'a>,
    encoded: Mutex<BTreeMap<(usize, Storage), Arc<Encoded>>>,
}

/// Ranges of a matrix in the reference's parameters.
struct MatrixRanges {
    id: TensorId,
    part: Selection,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
}

impl std::fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench").field("tokens", &self.tokens()).finish_non_exhaustive()
    }
}

impl<'a> Bench<'a> {
    /// A bench on the complete windows of `tokens`, with the source's own FP32 model as teacher.
    pub fn new(
        source: &'a Source,
        calibration: &'a Calibration,
        tokens: &'a [u32],
        window: usize,
    ) -> Self {
        let own = Model::from_checkpoint(&source.folded);
        Self::towards(&own, source, calibration, tokens, window)
    }

    /// As [`Bench::new`], with another model as teacher.
    pub fn towards(
        teacher: &Model,
        source: &'a Source,
        calibration: &'a Calibration,
        tokens: &'a [u32],
        window: usize,
    ) -> Self {
        let reference = Model::from_checkpoint(&source.folded);
        let tokens = &tokens[..tokens.len() / window * window];
        let vocab = source.dims.vocab as usize;
        let log_probabilities = |logits: &[f32]| {
            let mut values = Vec::with_capacity(logits.len());
            logits.chunks_exact(vocab).for_each(|logits| log_softmax(logits, &mut values));
            values
        };
        let teacher = Teacher::new(teacher, tokens, window, log_probabilities);
        let tensors = source.dims.tensors().map(|id| MatrixRanges {
            id,
            part: source.part(id),
            weight: reference
                .range(&format!("{}.weight", layer_name(id)))
                .expect("a matrix of the model"),
            bias: reference.range(&format!("{}.bias", layer_name(id))),
        });
        Self {
            source,
            calibration,
            tensors: tensors.collect(),
            reference,
            teacher,
            encoded: Mutex::default(),
        }
    }

    /// Number of tokens measured on.
    pub fn tokens(&self) -> usize {
        self.teacher.tokens().len()
    }

    /// The checkpoint to quantize.
    pub fn source(&self) -> &'a Source {
        self.source
    }

    /// Encodes matrix `index` (canonical order) in this storage, or returns the cached result.
    pub fn encode(&self, index: usize, storage: Storage) -> Result<Arc<Encoded>> {
        let lock = || self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(encoded) = lock().get(&(index, storage)) {
            return Ok(Arc::clone(encoded));
        }
        let encoded = self.source.encode(self.tensors[index].id, storage, self.calibration)?;
        let encoded = Arc::new(encoded);
        lock().insert((index, storage), Arc::clone(&encoded));
        Ok(encoded)
    }

    /// Encodes every matrix of a mix, in canonical order.
    pub fn encode_mix(&self, mix: &[Storage]) -> Result<Vec<Encoded>> {
        let matrices: Vec<(usize, Storage)> = mix.iter().copied().enumerate().collect();
        let encode = |(index, storage)| Ok(Encoded::clone(&*self.encode(index, storage)?));
        matrices.into_par_iter().map(encode).collect()
    }

    /// KL divergence of a mix in nats per token: a storage for each matrix in canonical order,
    /// `None` for FP32.
    pub fn kl(&self, mix: &[Option<Storage>]) -> Result<f64> {
        let mut model = self.reference.clone();
        for (index, storage) in mix.iter().enumerate() {
            let Some(storage) = *storage else { continue };
            self.put(index, &*self.encode(index, storage)?, &mut model);
        }
        self.kl_of(&model)
    }

    /// KL divergence in nats per token with one matrix replaced, all others in FP32.
    pub fn kl_with(&self, id: TensorId, encoded: &Encoded) -> Result<f64> {
        let mut model = self.reference.clone();
        for place in self.tensors.iter().filter(|place| place.id == id) {
            place.replace(&mut model, encoded);
        }
        self.kl_of(&model)
    }

    /// The FP32 model.
    pub fn reference(&self) -> &Model {
        &self.reference
    }

    /// Calibration of the FP32 model.
    pub fn calibration(&self) -> &'a Calibration {
        self.calibration
    }

    /// Writes matrix `index` (canonical order) into a model of the reference's shape.
    pub fn put(&self, index: usize, encoded: &Encoded, model: &mut Model) {
        self.tensors[index].replace(model, encoded);
    }

    /// KL divergence in nats per token with one matrix's weights replaced, all others in FP32.
    pub fn kl_with_weights(&self, id: TensorId, weights: &[f32]) -> Result<f64> {
        let mut model = self.reference.clone();
        for place in self.tensors.iter().filter(|place| place.id == id) {
            model.parameters_mut()[place.weight.clone()].copy_from_slice(weights);
        }
        self.kl_of(&model)
    }

    /// KL divergence of a model to the teacher in nats per token.
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`] where either model computes infinities or NaNs: mixes could not be
    /// ranked.
    pub fn kl_of(&self, model: &Model) -> Result<f64> {
        let vocab = self.teacher.vocab();
        let parts = self.teacher.batches(Tape::default, |tape, batch| {
            let logits = model.forward_reusing(batch.inputs, self.teacher.window(), tape);
            let mut total = Divergence::default();
            for (p, q) in batch.teacher.chunks_exact(vocab).zip(logits.chunks_exact(vocab)) {
                total.add(p, q);
            }
            total.mean() * batch.inputs.len() as f64
        });
        let kl = parts.iter().sum::<f64>() / self.tokens().max(1) as f64;
        if kl.is_finite() {
            return Ok(kl);
        }
        let what = "the FP32 model or a quantized one".into();
        Err(Error::Overflow { what, text: "the text that precisions are measured on" })
    }
}

impl MatrixRanges {
    /// Replaces the model's weights and biases by the dequantized ones.
    fn replace(&self, model: &mut Model, encoded: &Encoded) {
        let weights = &mut model.parameters_mut()[self.weight.clone()];
        self.part.put_matrix(&encoded.decoded, weights);
        if let Some(bias) = &self.bias {
            let biases = &mut model.parameters_mut()[bias.clone()];
            self.part.put_biases(&encoded.decoded_biases, biases);
        }
    }
}
