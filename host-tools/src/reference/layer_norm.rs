//! Layer normalisation over rows of width d.

use crate::reference::real::{Real, dot, size, sum};
use crate::reference::simd::simd;
use std::ops::Range;

const EPSILON: f64 = 1e-5;

/// Ranges of gain and bias (`[d]` each) in the parameters.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    pub(crate) gain: Range<usize>,
    pub(crate) bias: Range<usize>,
}

/// Activations kept for the backward pass.
#[derive(Default)]
pub(crate) struct Tape<T> {
    /// Normalised rows `[rows, d]`, before gain and bias.
    normal: Vec<T>,
    /// 1/σ of each row.
    scale: Vec<T>,
}

impl LayerNorm {
    /// u = gain · (h − mean) / sqrt(variance + ε) + bias, for each row of `h` `[rows, d]`.
    pub(crate) fn forward<T: Real>(
        &self,
        parameters: &[T],
        h: &[T],
        u: &mut [T],
        tape: &mut Tape<T>,
    ) {
        simd(
            #[inline(always)]
            || {
                let (gain, bias) = (&parameters[self.gain.clone()], &parameters[self.bias.clone()]);
                let d = gain.len();
                let width = T::of(d as f64);
                size(&mut tape.normal, h.len());
                size(&mut tape.scale, h.len() / d);
                let rows = h.chunks_exact(d).zip(u.chunks_exact_mut(d));
                let tapes = tape.normal.chunks_exact_mut(d).zip(&mut tape.scale);
                for ((h, u), (normal, scale)) in rows.zip(tapes) {
                    let mean = sum(h) / width;
                    for (n, &h) in normal.iter_mut().zip(h) {
                        *n = h - mean;
                    }
                    *scale = T::ONE / (dot(normal, normal) / width + T::of(EPSILON)).sqrt();
                    for i in 0..d {
                        normal[i] = normal[i] * *scale;
                        u[i] = normal[i] * gain[i] + bias[i];
                    }
                }
            },
        )
    }

    /// Adds the gradients of gain and bias to `gradient` and that of the input to `dh`.
    pub(crate) fn backward<T: Real>(
        &self,
        parameters: &[T],
        tape: &Tape<T>,
        du: &[T],
        gradient: &mut [T],
        dh: &mut [T],
    ) {
        simd(
            #[inline(always)]
            || {
                let gain = &parameters[self.gain.clone()];
                let d = gain.len();
                let width = T::of(d as f64);
                // dL/dnormal of the current row.
                let mut dn = vec![T::ZERO; d];
                let rows = du.chunks_exact(d).zip(dh.chunks_exact_mut(d));
                let tapes = tape.normal.chunks_exact(d).zip(&tape.scale);
                for ((du, dh), (normal, &scale)) in rows.zip(tapes) {
                    let dgain = &mut gradient[self.gain.clone()];
                    for i in 0..d {
                        dgain[i] += du[i] * normal[i];
                        dn[i] = du[i] * gain[i];
                    }
                    let dbias = &mut gradient[self.bias.clone()];
                    for i in 0..d {
                        dbias[i] += du[i];
                    }
                    let mean = sum(&dn) / width;
                    let along = dot(&dn, normal) / width;
                    for i in 0..d {
                        dh[i] += scale * (dn[i] - mean - normal[i] * along);
                    }
                }
            },
        )
    }
}
