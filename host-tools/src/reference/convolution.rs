//! Causal convolution along the window, each channel with its own taps.

use std::ops::Range;

use crate::checkpoint::TAPS;
use crate::reference::real::{Real, add_to};
use crate::reference::simd::simd;

/// Ranges of the taps `[TAPS, C]`, the oldest position first, and the bias `[C]` in the parameters.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    /// The layer's name: its weight's name without `.weight`.
    pub(crate) name: String,
    pub(crate) weight: Range<usize>,
    pub(crate) bias: Range<usize>,
}

impl Convolution {
    /// y_t = bias + Σ_j weight_j ⊙ x_{t−3+j} for the rows of consecutive positions in `x`; each row
    /// of `x` holds `stride` numbers, the first C of which are the inputs. `tail` holds the last
    /// inputs before them `[TAPS − 1, C]`, oldest first, zero at the start of a window.
    pub(crate) fn forward<T: Real>(
        &self,
        parameters: &[T],
        (x, stride): (&[T], usize),
        tail: &[T],
        y: &mut [T],
    ) {
        simd(
            #[inline(always)]
            || {
                let bias = &parameters[self.bias.clone()];
                let c = bias.len();
                let taps = &parameters[self.weight.clone()];
                for (t, y) in y.chunks_exact_mut(c).enumerate() {
                    y.copy_from_slice(bias);
                    for (j, weight) in taps.chunks_exact(c).enumerate() {
                        let input = match (t + j).checked_sub(TAPS - 1) {
                            Some(t) => &x[t * stride..][..c],
                            None => &tail[(t + j) * c..][..c],
                        };
                        for ((y, &w), &x) in y.iter_mut().zip(weight).zip(input) {
                            *y += w * x;
                        }
                    }
                }
            },
        )
    }

    /// Shifts the inputs `x` of consecutive positions into `tail`.
    pub(crate) fn shift<T: Real>(&self, (x, stride): (&[T], usize), tail: &mut [T]) {
        let c = self.bias.len();
        let rows = x.len().div_ceil(stride);
        let kept = (TAPS - 1).saturating_sub(rows);
        tail.copy_within((TAPS - 1 - kept) * c.., 0);
        for i in kept..TAPS - 1 {
            let t = rows + i - (TAPS - 1);
            tail[i * c..][..c].copy_from_slice(&x[t * stride..][..c]);
        }
    }

    /// The adjoint of [`Convolution::forward`] for one window that starts with a zero tail: adds
    /// the gradients of taps and bias to `gradient`, and writes those of the inputs to the first C
    /// of each `stride` numbers of `dx`.
    pub(crate) fn backward<T: Real>(
        &self,
        parameters: &[T],
        (x, stride): (&[T], usize),
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [T],
    ) {
        simd(
            #[inline(always)]
            || {
                let c = self.bias.len();
                let rows = dy.len() / c;
                let taps = &parameters[self.weight.clone()];
                for t in 0..rows {
                    let dx = &mut dx[t * stride..][..c];
                    dx.fill(T::ZERO);
                    for (j, weight) in taps.chunks_exact(c).enumerate() {
                        // Input t reaches output t + 3 − j.
                        let Some(dy) = dy.get((t + TAPS - 1 - j) * c..(t + TAPS - j) * c) else {
                            continue;
                        };
                        for ((dx, &w), &dy) in dx.iter_mut().zip(weight).zip(dy) {
                            *dx += w * dy;
                        }
                    }
                }
                for (t, dy) in dy.chunks_exact(c).enumerate() {
                    let d_taps = gradient[self.weight.clone()].chunks_exact_mut(c);
                    for (j, d_weight) in d_taps.enumerate() {
                        let Some(t) = (t + j).checked_sub(TAPS - 1) else { continue };
                        let x = &x[t * stride..][..c];
                        for ((dw, &dy), &x) in d_weight.iter_mut().zip(dy).zip(x) {
                            *dw += dy * x;
                        }
                    }
                    add_to(&mut gradient[self.bias.clone()], dy);
                }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::wave;

    fn layer(c: usize) -> Convolution {
        Convolution { name: "conv".into(), weight: 0..TAPS * c, bias: TAPS * c..TAPS * c + c }
    }

    #[test]
    fn a_window_in_pieces_is_the_window() {
        let (c, stride, rows) = (3, 5, 11);
        let layer = layer(c);
        let (parameters, x) = (wave(TAPS * c + c, 0.7), wave(rows * stride, 1.3));
        let mut whole = vec![0.0; rows * c];
        layer.forward(&parameters, (&x, stride), &vec![0.0; 3 * c], &mut whole);
        // The definition.
        for t in 0..rows {
            for i in 0..c {
                let tap = |j: usize| match (t + j).checked_sub(3) {
                    Some(t) => parameters[j * c + i] * x[t * stride + i],
                    None => 0.0,
                };
                let exact = parameters[TAPS * c + i] + (0..TAPS).map(tap).sum::<f64>();
                assert!((whole[t * c + i] - exact).abs() < 1e-14);
            }
        }
        for piece in 1..=rows {
            let (mut tail, mut y) = (vec![0.0; 3 * c], vec![0.0; rows * c]);
            for (x, y) in x.chunks(piece * stride).zip(y.chunks_mut(piece * c)) {
                layer.forward(&parameters, (x, stride), &tail, y);
                layer.shift((x, stride), &mut tail);
            }
            assert_eq!(y, whole, "in pieces of {piece}");
        }
    }
}
