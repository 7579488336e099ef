//! Measures the loss of a mix of precisions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use resnet_bk_core::blob::TensorId;

use super::variants::{Base, first_changed};
use crate::error::{Error, Result};
use crate::eval::divergence::{Divergence, log_softmax};
use crate::memory;
use crate::quantize::Source;
use crate::quantize::calibration::Calibration;
use crate::quantize::decode;
use crate::quantize::division::Selection;
use crate::quantize::encode::Encoded;
use crate::reference::{Model, Tape, windows_per_pass};
use crate::tensors::layer_name;
use crate::threads;
use resnet_bk_schema::Storage;

/// Measures mixes on one text with the FP32 model and dequantized weights: the loss of the weights
/// alone, activations staying FP32. Caches encoded tensors.
pub struct Bench<'a> {
    source: &'a Source,
    calibration: &'a Calibration,
    tokens: &'a [u32],
    window: usize,
    /// Tokens of a pass.
    batch: usize,
    reference: Base,
    /// The model that mixes are compared with, if not the reference.
    other: Option<Base>,
    /// Its log-probabilities by batch, `[positions, V]`, if they are kept.
    teacher: Option<Vec<Vec<f32>>>,
    tensors: Vec<MatrixRanges>,
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

/// Buffers for comparing a model with the teacher.
#[derive(Default)]
struct Scratch {
    student: Tape,
    teacher: Tape,
    log_probabilities: Vec<f32>,
}

impl<'a> Bench<'a> {
    /// A bench on the complete windows of `tokens`, with the source's own FP32 model as teacher.
    pub fn new(
        source: &'a Source,
        calibration: &'a Calibration,
        tokens: &'a [u32],
        window: usize,
    ) -> Self {
        Self::with_teacher(None, source, calibration, tokens, window)
    }

    /// As [`Bench::new`], with another model as teacher.
    pub fn towards(
        teacher: &Model,
        source: &'a Source,
        calibration: &'a Calibration,
        tokens: &'a [u32],
        window: usize,
    ) -> Self {
        Self::with_teacher(Some(teacher), source, calibration, tokens, window)
    }

    fn with_teacher(
        teacher: Option<&Model>,
        source: &'a Source,
        calibration: &'a Calibration,
        tokens: &'a [u32],
        window: usize,
    ) -> Self {
        let vocab = source.dims.vocab as usize;
        let tokens = &tokens[..tokens.len() / window * window];
        let batch = window * windows_per_pass(vocab, window);
        let base = |model| Base::new(model, tokens, window, batch);
        let reference = Model::from_checkpoint(&source.folded);
        let tensors = source.dims.tensors().map(|id| MatrixRanges {
            id,
            part: source.part(id),
            weight: reference
                .range(&format!("{}.weight", layer_name(id)))
                .expect("a matrix of the model"),
            bias: reference.range(&format!("{}.bias", layer_name(id))),
        });
        let mut bench = Self {
            source,
            calibration,
            tokens,
            window,
            batch,
            tensors: tensors.collect(),
            reference: base(reference),
            other: teacher.map(|teacher| base(teacher.clone())),
            teacher: None,
            encoded: Mutex::default(),
        };
        if tokens.len() * vocab <= memory::kept_logits() {
            let batches = (0..tokens.len().div_ceil(batch)).into_par_iter();
            let kept = batches.map_init(Tape::default, |tape, batch| {
                let mut values = Vec::new();
                bench.log_probabilities(batch, tape, &mut values);
                values
            });
            bench.teacher = Some(kept.collect());
        }
        bench
    }

    /// Number of tokens measured on.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
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
        self.kl_of(&self.mixed(mix)?)
    }

    /// A mix, to measure what a change of a single matrix does to it.
    pub(super) fn base(&self, mix: &[Option<Storage>]) -> Result<Base> {
        Ok(Base::new(self.mixed(mix)?, self.tokens, self.window, self.batch))
    }

    /// The FP32 model, for the same.
    pub(super) fn exact(&self) -> &Base {
        &self.reference
    }

    /// KL divergences in nats per token of `base` with one matrix (its index in canonical order) in
    /// another storage, for each of these steps.
    pub(super) fn kl_of_each(&self, base: &Base, steps: &[(usize, Storage)]) -> Result<Vec<f64>> {
        let mut found: Vec<Result<f64>> = steps.iter().map(|_| Ok(0.0)).collect();
        let copies = memory::threads(base.model.parameters().len());
        let mut variants = threads::states(steps.len().min(copies), || base.model.clone());
        let items = steps.iter().zip(&mut found);
        threads::for_each(&mut variants, items, |variant, (&(index, storage), found)| {
            *found = self.encode(index, storage).and_then(|encoded| {
                self.put(index, &encoded, variant);
                self.kl_from(base, variant, self.tensors[index].id)
            });
            let MatrixRanges { weight, bias, .. } = &self.tensors[index];
            for range in [Some(weight), bias.as_ref()].into_iter().flatten() {
                let original = &base.model.parameters()[range.clone()];
                variant.parameters_mut()[range.clone()].copy_from_slice(original);
            }
        });
        found.into_iter().collect()
    }

    /// KL divergence in nats per token with one matrix's weights, and its biases if given,
    /// replaced, all others in FP32.
    pub fn kl_with(&self, id: TensorId, weights: &[f32], biases: Option<&[f32]>) -> Result<f64> {
        let mut model = self.reference.model.clone();
        for place in self.tensors.iter().filter(|place| place.id == id) {
            place.replace(&mut model, weights, biases);
        }
        self.kl_from(&self.reference, &model, id)
    }

    /// The FP32 model.
    pub fn reference(&self) -> &Model {
        &self.reference.model
    }

    /// Calibration of the FP32 model.
    pub fn calibration(&self) -> &'a Calibration {
        self.calibration
    }

    /// Writes matrix `index` (canonical order) into a model of the reference's shape.
    pub fn put(&self, index: usize, encoded: &Encoded, model: &mut Model) {
        let place = &self.tensors[index];
        let tensor = encoded.tensor(&self.source.dims, place.id);
        let (weights, biases) = (decode::weights(place.id, &tensor), decode::biases(&tensor));
        place.replace(model, &weights, Some(&biases));
    }

    /// KL divergence of a model to the teacher in nats per token.
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`] where either model computes infinities or NaNs: mixes could not be
    /// ranked.
    pub fn kl_of(&self, model: &Model) -> Result<f64> {
        self.divergence(|batch, tape| {
            let end = self.tokens.len().min((batch + 1) * self.batch);
            let inputs = &self.tokens[batch * self.batch..end];
            model.forward_reusing(inputs, self.window, tape);
        })
    }

    /// As [`Bench::kl_of`], of a variant of `base` that differs in matrix `id`.
    fn kl_from(&self, base: &Base, variant: &Model, id: TensorId) -> Result<f64> {
        match first_changed(id, variant.config().layers) {
            None => self.kl_of(variant),
            Some(l) => self.divergence(|batch, tape| {
                base.logits_of(variant, l, (batch, self.window), tape);
            }),
        }
    }

    /// The FP32 model with the matrices of a mix.
    fn mixed(&self, mix: &[Option<Storage>]) -> Result<Model> {
        let mut model = self.reference.model.clone();
        for (index, storage) in mix.iter().enumerate() {
            let Some(storage) = *storage else { continue };
            self.put(index, &*self.encode(index, storage)?, &mut model);
        }
        Ok(model)
    }

    /// KL divergence to the teacher of what `student` leaves in the tape for each batch.
    fn divergence(&self, student: impl Fn(usize, &mut Tape) + Sync) -> Result<f64> {
        let vocab = self.source.dims.vocab as usize;
        let batches = (0..self.tokens.len().div_ceil(self.batch)).into_par_iter();
        let parts = batches.map_init(Scratch::default, |scratch, batch| {
            let Scratch { student: tape, teacher, log_probabilities } = scratch;
            student(batch, tape);
            let exact = match &self.teacher {
                Some(kept) => &kept[batch],
                None => {
                    self.log_probabilities(batch, teacher, log_probabilities);
                    log_probabilities
                }
            };
            let mut total = Divergence::default();
            for (p, q) in exact.chunks_exact(vocab).zip(tape.logits.chunks_exact(vocab)) {
                total.add(p, q);
            }
            total.mean() * (exact.len() / vocab) as f64
        });
        let kl = parts.collect::<Vec<f64>>().iter().sum::<f64>() / self.tokens().max(1) as f64;
        if kl.is_finite() {
            return Ok(kl);
        }
        let what = "the FP32 model or a quantized one".into();
        Err(Error::Overflow { what, text: "the text that precisions are measured on" })
    }

    /// The teacher's log-probabilities of a batch, `[positions, V]`.
    fn log_probabilities(&self, batch: usize, tape: &mut Tape, values: &mut Vec<f32>) {
        let vocab = self.source.dims.vocab as usize;
        let logits =
            self.other.as_ref().unwrap_or(&self.reference).logits(batch, self.window, tape);
        values.clear();
        values.reserve(logits.len());
        logits.chunks_exact(vocab).for_each(|logits| log_softmax(logits, values));
    }
}

impl MatrixRanges {
    /// Replaces the model's weights and biases.
    fn replace(&self, model: &mut Model, weights: &[f32], biases: Option<&[f32]>) {
        self.part.put_matrix(weights, &mut model.parameters_mut()[self.weight.clone()]);
        if let (Some(range), Some(biases)) = (&self.bias, biases) {
            self.part.put_biases(biases, &mut model.parameters_mut()[range.clone()]);
        }
    }
}
