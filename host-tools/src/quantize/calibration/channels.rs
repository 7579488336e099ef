//! Statistics of the channels of a convolution.
//!
//! A channel reads its own last four inputs and nothing else: an error e of its taps costs e·A·eᵀ
//! with A = E\[g²·x·xᵀ\], `[4, 4]`, x its inputs and g the gradient of its output. Neighbouring
//! inputs are correlated, so A is not diagonal, and channels differ in it. Keeping all of it takes
//! ten numbers a channel. Products of different channels' gradients are left out: they would couple
//! rows that have no input in common.

use resnet_bk_core::blob::TAPS;

use super::statistics::{OutputMoments, Statistics, Symmetric};
use crate::reference::ConvolutionGradient;

/// Sums over positions, for each channel.
#[derive(Default)]
pub(super) struct ChannelSums {
    rows: usize,
    /// Of g² `[C]`.
    weight: Vec<f64>,
    /// Of g²·x, tap by tap `[TAPS, C]`.
    mean: Vec<f64>,
    /// Of g²·x·xᵀ `[TAPS, TAPS, C]`, its lower triangle.
    second: Vec<f64>,
}

impl ChannelSums {
    /// Adds the positions of a batch of windows.
    pub(super) fn add_rows(&mut self, seen: ConvolutionGradient<'_, f32>) {
        let ConvolutionGradient { window, inputs: (inputs, stride), outputs, channels, .. } = seen;
        self.resize(channels);
        self.rows += outputs.len() / channels;
        let mut squares = vec![0.0; channels];
        for (t, g) in outputs.chunks_exact(channels).enumerate() {
            for ((square, sum), &g) in squares.iter_mut().zip(&mut self.weight).zip(g) {
                *square = f64::from(g).powi(2);
                *sum += *square;
            }
            // Before the start of a window inputs are zero.
            let input = |j: usize| {
                let t = (t % window + j >= TAPS - 1).then(|| t + j - (TAPS - 1))?;
                Some(&inputs[t * stride..][..channels])
            };
            for i in 0..TAPS {
                let Some(x) = input(i) else { continue };
                add_products(&mut self.mean[i * channels..][..channels], &squares, x, None);
                for j in 0..=i {
                    let sums = &mut self.second[(i * TAPS + j) * channels..][..channels];
                    if let Some(other) = input(j) {
                        add_products(sums, &squares, x, Some(other));
                    }
                }
            }
        }
    }

    fn resize(&mut self, channels: usize) {
        self.weight.resize(channels, 0.0);
        self.mean.resize(TAPS * channels, 0.0);
        self.second.resize(TAPS * TAPS * channels, 0.0);
    }

    /// Statistics of every channel.
    pub(super) fn finish(self) -> Vec<Statistics> {
        let channels = self.weight.len();
        let channel = |c: usize| {
            let weight = self.weight[c].max(f64::MIN_POSITIVE);
            let mean: Vec<f64> = (0..TAPS).map(|i| self.mean[i * channels + c] / weight).collect();
            let moment = |i: usize, j: usize| {
                let (low, high) = (i.min(j), i.max(j));
                self.second[(high * TAPS + low) * channels + c] / weight - mean[i] * mean[j]
            };
            let values = (0..TAPS * TAPS).map(|index| moment(index / TAPS, index % TAPS)).collect();
            Statistics {
                rows: self.rows,
                shift: vec![0.0; TAPS],
                inputs: Symmetric::new(TAPS, values),
                outputs: OutputMoments::None,
                mean,
            }
        };
        (0..channels).map(channel).collect()
    }
}

/// Adds square · x, or square · x · other.
fn add_products(sums: &mut [f64], squares: &[f64], x: &[f32], other: Option<&[f32]>) {
    let products = squares.iter().zip(x).map(|(square, &x)| square * f64::from(x));
    match other {
        None => sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product),
        Some(other) => sums
            .iter_mut()
            .zip(products.zip(other))
            .for_each(|(sum, (product, &other))| *sum += product * f64::from(other)),
    }
}
