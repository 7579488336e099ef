//! A model: its dimensions, and its parameters in one array.

use crate::checkpoint::{Checkpoint, ModelConfig, Tensor, TensorSpec};
use crate::error::{Error, Result};
use crate::reference::bk;
use crate::reference::layout::{ChainLayout, Layout};
use crate::reference::real::Real;
use std::collections::BTreeMap;
use std::ops::Range;

/// A model and its parameters; `f64` is for checking gradients.
#[derive(Clone, Debug)]
pub struct Model<T: Real = f32> {
    config: ModelConfig,
    pub(crate) layout: Layout,
    pub(crate) parameters: Vec<T>,
}

impl<T: Real> Model<T> {
    /// A model of these dimensions whose parameters are all zero.
    pub fn zeros(config: ModelConfig) -> Result<Self> {
        if let Some(problem) = config.problem() {
            return Err(Error::Config(problem));
        }
        let layout = Layout::new(&config);
        let parameters = vec![T::ZERO; config.parameters()];
        Ok(Self { config, layout, parameters })
    }

    /// The dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// All parameters: the tensors of [`ModelConfig::tensors`], concatenated.
    pub fn parameters(&self) -> &[T] {
        &self.parameters
    }

    /// All parameters, mutably.
    pub fn parameters_mut(&mut self) -> &mut [T] {
        &mut self.parameters
    }

    /// Range of a tensor in [`Model::parameters`], and in gradients.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.tensors().find(|(spec, _)| spec.name == name).map(|(_, range)| range)
    }

    /// Every tensor and its range in [`Model::parameters`], in canonical order.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        self.layout.tensors.iter().map(|(spec, range)| (spec, range.clone()))
    }

    /// The tensor of this name, row-major.
    pub fn tensor(&self, name: &str) -> Option<&[T]> {
        self.range(name).map(|range| &self.parameters[range])
    }

    /// The tensor of this name, mutably.
    pub fn tensor_mut(&mut self, name: &str) -> Option<&mut [T]> {
        self.range(name).map(|range| &mut self.parameters[range])
    }

    /// η of a block's potentials `[K]`.
    pub(crate) fn eta(&self, chain: &ChainLayout) -> Vec<T> {
        let floor = T::of(f64::from(self.config.eta_floor));
        let raise = |&log: &T| {
            let eta = log.exp();
            if eta < floor { floor } else { eta }
        };
        self.parameters[chain.log_eta.clone()].iter().map(raise).collect()
    }

    /// The chain's constants for one block.
    pub(crate) fn core<'a>(&'a self, chain: &ChainLayout, eta: &'a [T]) -> bk::Core<'a, T> {
        bk::Core {
            diagonal: &self.parameters[chain.diagonal.clone()],
            eta,
            beta: T::of(f64::from(self.config.off_diagonal)),
            chain: self.config.chain,
        }
    }

    /// Adds the gradients of log_eta, given those of η: η = max(exp(log_eta), floor), so that at
    /// the floor log_eta has no effect.
    pub(crate) fn eta_backward(
        &self,
        chain: &ChainLayout,
        (eta, d_eta): (&[T], &[T]),
        gradient: &mut [T],
    ) {
        let floor = T::of(f64::from(self.config.eta_floor));
        let d_log_eta = &mut gradient[chain.log_eta.clone()];
        for ((d_log, &eta), &d_eta) in d_log_eta.iter_mut().zip(eta).zip(d_eta) {
            if eta > floor {
                *d_log += d_eta * eta;
            }
        }
    }
}

impl Model<f32> {
    /// The model of a checkpoint.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Self {
        let layout = Layout::new(&checkpoint.config);
        let mut parameters = Vec::with_capacity(checkpoint.config.parameters());
        for (spec, _) in &layout.tensors {
            parameters.extend_from_slice(&checkpoint.tensors[&spec.name].data);
        }
        Self { config: checkpoint.config.clone(), layout, parameters }
    }

    /// The model as a checkpoint; fails for non-finite parameters.
    pub fn to_checkpoint(&self, provenance: BTreeMap<String, String>) -> Result<Checkpoint> {
        let tensors = self
            .tensors()
            .map(|(spec, range)| {
                let data = self.parameters[range].to_vec();
                (spec.name.clone(), Tensor { shape: spec.shape.clone(), data })
            })
            .collect();
        Checkpoint::new(self.config.clone(), tensors, provenance)
    }
}
