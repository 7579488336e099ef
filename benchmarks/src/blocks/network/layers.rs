//! Layers that several architectures share, on row-major activations.

use candle_core::{Device, Tensor};

use crate::blocks::tensors::{Failure, Tensors};

/// Added to a variance before its root is taken.
const EPSILON: f32 = 1e-5;

/// y = W x + b.
pub(super) struct Linear {
    /// `[in, out]`, a view of the stored rows.
    weights: Tensor,
    bias: Option<Vec<f32>>,
    inputs: usize,
    pub(super) outputs: usize,
}

impl Linear {
    /// The layer of this name, with so many inputs; the bias is optional.
    pub(super) fn new(tensors: &Tensors, name: &str, inputs: usize) -> Result<Self, Failure> {
        let weights = tensors.get(&format!("{name}.weight"))?;
        let outputs = match weights.shape[..] {
            [outputs, found] if found == inputs && outputs > 0 => outputs,
            _ => return Err(format!("{name}.weight does not have {inputs} columns").into()),
        };
        let rows = Tensor::from_slice(&weights.data, (outputs, inputs), &Device::Cpu)?;
        let bias = tensors.find(&format!("{name}.bias")).map(|bias| bias.data.clone());
        if bias.as_ref().is_some_and(|bias| bias.len() != outputs) {
            return Err(format!("{name}.bias does not have {outputs} values").into());
        }
        Ok(Self { weights: rows.t()?, bias, inputs, outputs })
    }

    /// `[rows, out]` of `x` `[rows, in]`.
    pub(super) fn forward(&self, x: &[f32]) -> Result<Vec<f32>, Failure> {
        let rows = x.len() / self.inputs;
        let x = Tensor::from_slice(x, (rows, self.inputs), &Device::Cpu)?;
        let mut y: Vec<f32> = x.matmul(&self.weights)?.flatten_all()?.to_vec1()?;
        if let Some(bias) = &self.bias {
            for row in y.chunks_exact_mut(self.outputs) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        Ok(y)
    }
}

/// Normalization with gain and bias.
pub(super) struct Norm {
    gain: Vec<f32>,
    bias: Vec<f32>,
}

impl Norm {
    pub(super) fn new(tensors: &Tensors, name: &str, width: usize) -> Result<Self, Failure> {
        Ok(Self {
            gain: tensors.vector(&format!("{name}.weight"), width)?,
            bias: tensors.vector(&format!("{name}.bias"), width)?,
        })
    }

    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let width = self.gain.len();
        let mut y = x.to_vec();
        for row in y.chunks_exact_mut(width) {
            let mean = row.iter().sum::<f32>() / width as f32;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / width as f32;
            let factor = (variance + EPSILON).sqrt().recip();
            for ((x, gain), bias) in row.iter_mut().zip(&self.gain).zip(&self.bias) {
                *x = (*x - mean) * factor * gain + bias;
            }
        }
        y
    }
}

/// Normalization, matrix, ReLU, matrix.
pub(super) struct FeedForward {
    norm: Norm,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    /// The one of a block.
    pub(super) fn new(
        tensors: &Tensors,
        block: &str,
        (width, hidden): (usize, usize),
    ) -> Result<Self, Failure> {
        let found = Self {
            norm: Norm::new(tensors, &format!("{block}.ffn_norm"), width)?,
            up: Linear::new(tensors, &format!("{block}.ffn.up"), width)?,
            down: Linear::new(tensors, &format!("{block}.ffn.down"), hidden)?,
        };
        let fits = found.up.outputs == hidden && found.down.outputs == width;
        if fits { Ok(found) } else { Err(format!("{block}.ffn does not fit its width").into()) }
    }

    pub(super) fn forward(&self, h: &[f32]) -> Result<Vec<f32>, Failure> {
        let mut hidden = self.up.forward(&self.norm.forward(h))?;
        hidden.iter_mut().for_each(|x| *x = x.max(0.0));
        self.down.forward(&hidden)
    }
}

/// e^x for x in ±87, to within two units in the last place or so, in a form that vectorizes.
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    // Adding 1.5 · 2^23 rounds to an integer, which is then in the lowest bits.
    let rounded = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = rounded - 12_582_912.0;
    // ln 2 in two parts, so that the difference is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let tail = 1.0 / 5040.0;
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let value = series.into_iter().fold(tail, |sum, term| sum * r + term);
    value * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

/// The logistic function.
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x · σ(x).
pub(super) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_to_a_few_units() {
        for i in -8_700..=8_700 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(error < 3e-7, "exp({x}): {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1e-37 && sigmoid(-200.0) < 1e-37 && sigmoid(200.0) == 1.0);
    }
}
