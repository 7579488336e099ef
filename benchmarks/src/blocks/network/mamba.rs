//! Mamba (Gu and Dao, 2023): convolution, selective scan, gate.
//!
//! ```text
//! [a | z] = W_in u            a = SiLU(convolution(a))
//! [δ | b | c] = W_x a         Δ = softplus(W_δ δ)
//! h_t = exp(Δ A) h_{t−1} + Δ a b       N states a channel
//! y = W_out [(Σ_n c h + D a) ⊙ SiLU(z)]
//! ```

use super::layers::{Linear, exp, silu};
use super::mixer::Mixer;
use crate::blocks::tensors::{Failure, Tensors};

/// Positions that the convolution sees.
pub(in crate::blocks) const TAPS: usize = 4;

pub(super) struct Mamba {
    in_proj: Linear,
    /// `[TAPS, C]`, oldest first.
    taps: Vec<f32>,
    taps_bias: Vec<f32>,
    x_proj: Linear,
    dt_proj: Linear,
    /// A `[N, C]`, negative.
    a: Vec<f32>,
    skip: Vec<f32>,
    out_proj: Linear,
}

impl Mamba {
    pub(super) fn new(
        tensors: &Tensors,
        name: &str,
        (width, channels, states): (usize, usize, usize),
    ) -> Result<Self, Failure> {
        let linear = |part: &str, inputs| Linear::new(tensors, &format!("{name}.{part}"), inputs);
        let values = |part: &str, count| tensors.vector(&format!("{name}.{part}"), count);
        let x_proj = linear("x_proj", channels)?;
        let rank = x_proj.outputs.saturating_sub(2 * states);
        let mamba = Self {
            in_proj: linear("in_proj", width)?,
            taps: values("conv.weight", TAPS * channels)?,
            taps_bias: values("conv.bias", channels)?,
            x_proj,
            dt_proj: linear("dt_proj", rank)?,
            a: values("A_log", states * channels)?.iter().map(|&x| -exp(x)).collect(),
            skip: values("D", channels)?,
            out_proj: linear("out_proj", channels)?,
        };
        let fits = mamba.in_proj.outputs == 2 * channels
            && mamba.out_proj.outputs == width
            && mamba.dt_proj.outputs == channels;
        if fits { Ok(mamba) } else { Err(format!("{name}: matrices do not fit together").into()) }
    }

    /// SiLU of the convolution of the first C of every 2C numbers.
    fn convolve(&self, projected: &[f32], window: usize) -> Vec<f32> {
        let channels = self.skip.len();
        let rows = projected.len() / (2 * channels);
        let mut a = Vec::with_capacity(rows * channels);
        let mut sums = vec![0.0; channels];
        for row in 0..rows {
            sums.copy_from_slice(&self.taps_bias);
            for (age, taps) in self.taps.chunks_exact(channels).rev().enumerate() {
                if age > row % window {
                    break;
                }
                let inputs = &projected[(row - age) * 2 * channels..][..channels];
                for ((sum, tap), x) in sums.iter_mut().zip(taps).zip(inputs) {
                    *sum += tap * x;
                }
            }
            a.extend(sums.iter().map(|&x| silu(x)));
        }
        a
    }

    /// Adds the scan's output at one position to `y`.
    fn step(
        &self,
        (dt, a): (&[f32], &[f32]),
        (b, c): (&[f32], &[f32]),
        h: &mut [f32],
        y: &mut [f32],
    ) {
        let channels = self.skip.len();
        let states = h.chunks_exact_mut(channels).zip(self.a.chunks_exact(channels));
        for ((h, rates), (&b, &c)) in states.zip(b.iter().zip(c)) {
            for i in 0..channels {
                h[i] = exp(dt[i] * rates[i]) * h[i] + dt[i] * a[i] * b;
                y[i] += c * h[i];
            }
        }
    }
}

impl Mixer for Mamba {
    fn forward(&self, u: &[f32], window: usize) -> Result<Vec<f32>, Failure> {
        let (channels, states) = (self.skip.len(), self.a.len() / self.skip.len());
        let projected = self.in_proj.forward(u)?;
        let a = self.convolve(&projected, window);
        let selected = self.x_proj.forward(&a)?;
        let rank = self.x_proj.outputs - 2 * states;
        let ranks: Vec<f32> = selected
            .chunks_exact(self.x_proj.outputs)
            .flat_map(|row| &row[..rank])
            .copied()
            .collect();
        let mut dt = self.dt_proj.forward(&ranks)?;
        dt.iter_mut().for_each(|x| *x = x.max(0.0) + (-x.abs()).exp().ln_1p());
        let mut y: Vec<f32> = a
            .chunks_exact(channels)
            .flat_map(|a| a.iter().zip(&self.skip).map(|(a, d)| a * d))
            .collect();
        let mut h = vec![0.0; states * channels];
        for (row, y) in y.chunks_exact_mut(channels).enumerate() {
            if row % window == 0 {
                h.fill(0.0);
            }
            let at = row * channels..(row + 1) * channels;
            let (b, c) =
                selected[row * self.x_proj.outputs + rank..][..2 * states].split_at(states);
            self.step((&dt[at.clone()], &a[at]), (b, c), &mut h, y);
            let z = &projected[(2 * row + 1) * channels..][..channels];
            y.iter_mut().zip(z).for_each(|(y, &z)| *y *= silu(z));
        }
        self.out_proj.forward(&y)
    }
}
