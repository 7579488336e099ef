//! The mixture of experts: h += Σ_e share_e · (W2_e · ReLU(W1_e · u + b1_e) + b2_e).
//!
//! An expert is [`up`], [`requantize`], [`down`] and [`mix`], in this order. Each step passes its
//! result to the next in [`Scratch`].

use super::activation::quantize_relu;
use super::gate::{Route, WEIGHT_FRAC};
use crate::kernels::{Matrix, Vectors, matmul, with_simd};

/// Scratch of an expert, for `batch` vectors.
pub struct Scratch<'a> {
    /// `[batch, d]`: codes of the vectors that are routed to the expert, packed.
    pub codes: &'a mut [i16],
    /// `[batch]`: their scales, then the scales of their hidden vectors.
    pub scales: &'a mut [u32],
    /// `[batch, hidden]`.
    pub hidden: &'a mut [i32],
    /// At least `[batch, hidden]`.
    pub hidden_codes: &'a mut [i16],
    /// `[batch, d]`.
    pub outputs: &'a mut [i32],
    /// `[batch]`: index of each routed vector in the batch (high half) and its gate weight.
    pub routed: &'a mut [u32],
}

/// Gathers the vectors that are routed to an expert and multiplies them by its first matrix;
/// returns their number.
///
/// Shapes: `up` is `[hidden, d]`, `x` is `[batch, d]`, `routes` is `[batch, top_k]`.
pub fn up(
    index: u32,
    up: &Matrix<'_>,
    x: Vectors<'_>,
    routes: &[u32],
    scratch: &mut Scratch<'_>,
) -> usize {
    let (width, hidden) = (up.cols, up.rows);
    let top_k = routes.len() / x.scales.len().max(1);
    let mut count = 0;
    for (place, routes) in routes.chunks_exact(top_k.max(1)).enumerate() {
        let route = routes.iter().map(|&r| Route::unpack(r)).find(|r| r.expert as u32 == index);
        let Some(route) = route else { continue };
        let source = &x.codes[place * width..][..width];
        scratch.codes[count * width..][..width].copy_from_slice(source);
        scratch.scales[count] = x.scales[place];
        scratch.routed[count] = (place as u32) << 16 | route.weight as u32;
        count += 1;
    }
    let inputs =
        Vectors { codes: &scratch.codes[..count * width], scales: &scratch.scales[..count] };
    matmul(up, inputs, &mut scratch.hidden[..count * hidden]);
    count
}

/// ReLU and quantization of `count` hidden vectors of `hidden` units.
pub fn requantize(hidden: usize, count: usize, scratch: &mut Scratch<'_>) {
    let vectors =
        scratch.hidden.chunks_exact(hidden).zip(scratch.hidden_codes.chunks_exact_mut(hidden));
    with_simd(
        #[inline(always)]
        || {
            for (scale, (values, codes)) in scratch.scales[..count].iter_mut().zip(vectors) {
                *scale = quantize_relu(values, codes).pack();
            }
        },
    );
}

/// Multiplies `count` quantized hidden vectors by an expert's second matrix.
///
/// Shape: `down` is `[d, hidden]`.
pub fn down(down: &Matrix<'_>, count: usize, scratch: &mut Scratch<'_>) {
    let inputs = Vectors {
        codes: &scratch.hidden_codes[..count * down.cols],
        scales: &scratch.scales[..count],
    };
    matmul(down, inputs, &mut scratch.outputs[..count * down.rows]);
}

/// Adds the weighted outputs of the expert to its `count` vectors.
///
/// Shape: `h` is `[batch, width]` in Q15.16.
pub fn mix(width: usize, count: usize, h: &mut [i32], scratch: &Scratch<'_>) {
    let results = scratch.routed[..count].iter().zip(scratch.outputs.chunks_exact(width));
    with_simd(
        #[inline(always)]
        || {
            for (&routed, outputs) in results {
                let (place, weight) = ((routed >> 16) as usize, (routed & 0xffff) as i64);
                for (h, &y) in h[place * width..][..width].iter_mut().zip(outputs) {
                    // Gate weights are at most 1, so the rounded product fits.
                    let share = (weight * y as i64 + (1 << (WEIGHT_FRAC - 1))) >> WEIGHT_FRAC;
                    *h = h.saturating_add(share as i32);
                }
            }
        },
    );
}
