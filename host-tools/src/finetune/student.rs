//! A trainable model made from a blob.

use std::collections::BTreeMap;
use std::ops::Range;

use resnet_bk_core::Model as Blob;

use super::matrix::{Decoded, Matrix, MatrixParameters};
use crate::checkpoint::ModelConfig;
use crate::error::{Error, Result};
use crate::quantize::Source;
use crate::quantize::division::Selection;
use crate::reference::{FakeQuant, Model};
use crate::tensors::{dimensions, layer_name};
use crate::threads;

/// The model that a blob computes, and its trainable parameters.
pub struct Student {
    /// The dequantized model; equals inference up to the rounding of activations.
    model: Model,
    /// Fake quantization of its activations.
    fake_quant: FakeQuant,
    pub(super) matrices: Vec<Matrix>,
    decoded: Vec<Decoded>,
    /// Ranges of every block's diagonals and log η in the model's parameters.
    chains: Vec<Range<usize>>,
    /// Trainable parameters of all matrices and chains.
    parameters: Vec<f32>,
}

/// A range of parameters of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segment {
    pub(super) length: usize,
    /// Factor on the learning rate.
    pub(super) rate: f32,
    /// Whether these are weights, which stay fixed in the first stage.
    pub(super) weights: bool,
}

impl Student {
    /// The student of a blob. `teacher` is the configuration of the checkpoint that the blob was
    /// made from.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a blob with other dimensions.
    pub fn new(blob: &Blob<'_>, teacher: &ModelConfig) -> Result<Self> {
        let dims = *blob.dims();
        let mut expected = dimensions(teacher);
        // Hidden units may be pruned, and tokens may be in classes: not compared.
        (expected.hidden, expected.token_classes) = (dims.hidden, dims.token_classes);
        if dims != expected || dims.hidden as usize > teacher.hidden {
            return Err(Error::Usage(
                "the blob's dimensions are not those of the checkpoint".into(),
            ));
        }
        let config = ModelConfig { hidden: dims.hidden as usize, ..teacher.clone() };
        let mut model = Model::<f32>::zeros(config)?;
        for (name, value) in identities(&model) {
            model.tensor_mut(&name).expect("a tensor of the model").fill(value);
        }
        let range = |name: String| model.range(&name);
        let matrices = dims.tensors().map(|id| {
            let (layer, tensor) = (layer_name(id), blob.tensor(id));
            let weight = range(format!("{layer}.weight")).expect("a matrix of the model");
            let cols = dims.shape(id).1 as usize;
            let bias = range(format!("{layer}.bias"));
            Matrix::new(id, &tensor, Selection::of(blob, id, &tensor), (weight, cols), bias)
        });
        let mut matrices: Vec<Matrix> = matrices.collect();
        let chains: Vec<Range<usize>> = chain_names(dims.layers)
            .map(range)
            .collect::<Option<_>>()
            .expect("every block has a chain");
        let lengths = matrices.iter().map(|m| m.lengths().sum());
        let mut parameters =
            vec![0.0; lengths.sum::<usize>() + chains.iter().map(Range::len).sum::<usize>()];
        let mut rest = parameters.as_mut_slice();
        for matrix in &mut matrices {
            let kinds = MatrixParameters::take(&mut rest, matrix.lengths());
            matrix.read(&blob.tensor(matrix.id()), kinds);
        }
        let one = f64::from(blob.chain_format().frac).exp2();
        for l in 0..dims.layers {
            let (diagonal, rest_of) = rest.split_at_mut(dims.potentials as usize);
            let (log_eta, after) = rest_of.split_at_mut(dims.potentials as usize);
            rest = after;
            let own = diagonal.iter_mut().zip(log_eta);
            for ((d, log), (diagonal, eta)) in own.zip(blob.chain_parameters(l).iter()) {
                *d = (f64::from(diagonal) / one) as f32;
                *log = (f64::from(eta) / one).ln() as f32;
            }
        }
        let fake_quant = FakeQuant { potentials_int8: blob.chain_format().int8 };
        let decoded = vec![Decoded::default(); matrices.len()];
        let mut student =
            Self { model, fake_quant, matrices, decoded, chains, parameters: Vec::new() };
        student.show(&mut parameters, &mut [()])?;
        student.parameters = parameters;
        Ok(student)
    }

    /// The dequantized model; with fake quantization its forward passes match the blob's.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Fake quantization of activations.
    pub fn fake_quant(&self) -> FakeQuant {
        self.fake_quant
    }

    /// Moves the initial parameters out.
    pub(super) fn take_parameters(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.parameters)
    }

    /// Parameters by kind, in order. Row units and multiples move `scale_rate` times as fast as
    /// weights, relative to their magnitude.
    pub(super) fn segments(&self, scale_rate: f32) -> Vec<Segment> {
        let segment = |length, rate, weights| Segment { length, rate, weights };
        let matrices = self.matrices.iter().flat_map(|matrix| {
            let (lengths, rates) = (matrix.lengths(), matrix.rates(scale_rate));
            [
                segment(lengths.codes, rates.codes, true),
                segment(lengths.units, rates.units, false),
                segment(lengths.multiples, rates.multiples, true),
                segment(lengths.biases, rates.biases, false),
            ]
        });
        matrices.chain(self.chains.iter().map(|chain| segment(chain.len(), 1.0, false))).collect()
    }

    /// Updates the model to these parameters, clamping them to their range; one thread per state.
    pub(super) fn show<S: Send>(&mut self, parameters: &mut [f32], states: &mut [S]) -> Result<()> {
        let mut rest = parameters;
        let mut results: Vec<Result<()>> = self.matrices.iter().map(|_| Ok(())).collect();
        let items: Vec<_> = self
            .matrices
            .iter()
            .zip(self.decoded.iter_mut().zip(&mut results))
            .map(|(matrix, out)| (matrix, MatrixParameters::take(&mut rest, matrix.lengths()), out))
            .collect();
        threads::for_each(states, items.into_iter(), |_, (matrix, kinds, (decoded, result))| {
            *result = matrix.decode(kinds, decoded);
        });
        results.into_iter().collect::<Result<()>>()?;
        let model = self.model.parameters_mut();
        for (matrix, decoded) in self.matrices.iter().zip(&self.decoded) {
            matrix.put(decoded, model);
        }
        put_chains(&self.chains, rest, model);
        Ok(())
    }

    /// Writes the unrounded parameters into `source`, from which blobs in other precisions can then
    /// be made. The student's blob must come from a source of the same division.
    pub fn teach(&self, parameters: &[f32], source: &mut Source) {
        let mut rest = parameters;
        for matrix in &self.matrices {
            let (weights, biases) =
                matrix.unrounded(&MatrixParameters::next(&mut rest, matrix.lengths()));
            let (layer, part) = (layer_name(matrix.id()), source.part(matrix.id()));
            part.put_matrix(&weights, source.folded.data_mut(&format!("{layer}.weight")));
            if !biases.is_empty() {
                part.put_biases(&biases, source.folded.data_mut(&format!("{layer}.bias")));
            }
        }
        for (name, chain) in chain_names(source.dims.layers).zip(&self.chains) {
            let (own, after) = rest.split_at(chain.len());
            source.folded.data_mut(&name).copy_from_slice(own);
            rest = after;
        }
    }

    /// Writes chain parameters, which come last, into a model's.
    pub(super) fn put_chains(&self, own: &[f32], model: &mut [f32]) {
        put_chains(&self.chains, own, model);
    }

    /// Gradient of the parameters, from that of the model of the last [`Student::show`].
    pub(super) fn gradient<S: Send>(&self, model: &[f32], out: &mut [f32], states: &mut [S]) {
        let mut rest = out;
        let items: Vec<_> = self
            .matrices
            .iter()
            .zip(&self.decoded)
            .map(|(matrix, decoded)| {
                (matrix, decoded, MatrixParameters::take(&mut rest, matrix.lengths()))
            })
            .collect();
        threads::for_each(states, items.into_iter(), |_, (matrix, decoded, kinds)| {
            matrix.gradient(decoded, model, kinds);
        });
        for chain in &self.chains {
            let (own, after) = rest.split_at_mut(chain.len());
            own.copy_from_slice(&model[chain.clone()]);
            rest = after;
        }
    }
}

/// Names of the diagonal and log η of every block.
fn chain_names(layers: u32) -> impl Iterator<Item = String> {
    (0..layers)
        .flat_map(|l| ["diagonal", "log_eta"].map(|part| format!("blocks.{l}.bk_layer.{part}")))
}

fn put_chains(chains: &[Range<usize>], mut own: &[f32], model: &mut [f32]) {
    for chain in chains {
        let (next, after) = own.split_at(chain.len());
        model[chain.clone()].copy_from_slice(next);
        own = after;
    }
}

/// Gains and scales after folding, all 1.
fn identities(model: &Model) -> BTreeMap<String, f32> {
    let value = |name: &str| {
        let norm = name.contains("norm");
        match name.rsplit('.').next() {
            Some("weight") if norm => Some(1.0),
            Some("bk_scale") => Some(1.0),
            _ => None,
        }
    };
    let names = model.tensors().map(|(spec, _)| spec.name.clone());
    names.filter_map(|name| value(&name).map(|value| (name, value))).collect()
}

impl MatrixParameters<usize> {
    fn sum(&self) -> usize {
        self.codes + self.units + self.multiples + self.biases
    }
}

impl<'a> MatrixParameters<&'a mut [f32]> {
    /// Splits off the next parameters.
    fn take(rest: &mut &'a mut [f32], lengths: MatrixParameters<usize>) -> Self {
        let mut cut = |length| rest.split_off_mut(..length).expect("parameters of every matrix");
        Self {
            codes: cut(lengths.codes),
            units: cut(lengths.units),
            multiples: cut(lengths.multiples),
            biases: cut(lengths.biases),
        }
    }
}

impl<'a> MatrixParameters<&'a [f32]> {
    /// Splits off the next parameters.
    pub(super) fn next(rest: &mut &'a [f32], lengths: MatrixParameters<usize>) -> Self {
        let mut cut = |length| rest.split_off(..length).expect("parameters of every matrix");
        Self {
            codes: cut(lengths.codes),
            units: cut(lengths.units),
            multiples: cut(lengths.multiples),
            biases: cut(lengths.biases),
        }
    }
}
