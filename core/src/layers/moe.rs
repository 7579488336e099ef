//! The mixture of experts: h += Σ_e share_e · (W2_e · ReLU(W1_e · u + b1_e) + b2_e).

use super::activation::quantize_relu;
use super::gate::{Route, WEIGHT_FRAC};
use crate::kernels::{Matrix, Vectors, matmul, with_simd};

/// Scratch of [`expert`], for `batch` tokens.
pub struct Scratch<'a> {
    /// `[batch, d]`: the routed tokens' codes, side by side.
    pub codes: &'a mut [i16],
    /// `[batch]`: their scales, then the scales of their hidden vectors.
    pub scales: &'a mut [u32],
    /// `[batch, hidden]`.
    pub hidden: &'a mut [i32],
    /// At least `[batch, hidden]`.
    pub hidden_codes: &'a mut [i16],
    /// `[batch, d]`.
    pub outputs: &'a mut [i32],
    /// `[batch]`: position of each routed token, with its share.
    pub routed: &'a mut [u32],
}

/// Adds one expert's share to every token that is routed to it. `matrices` is called if there is
/// such a token.
///
/// Shapes: of the matrices `up` is `[hidden, d]`, `down` is `[d, hidden]`, `x` is `[batch, d]`,
/// `routes` is `[batch, top_k]`, `h` is `[batch, d]` in Q15.16.
pub fn expert<'a>(
    index: usize,
    matrices: impl FnOnce() -> (Matrix<'a>, Matrix<'a>),
    x: Vectors<'_>,
    routes: &[u32],
    h: &mut [i32],
    scratch: &mut Scratch<'_>,
) {
    let width = x.codes.len() / x.scales.len().max(1);
    let top_k = routes.len() / x.scales.len().max(1);
    let mut count = 0;
    for (token, routes) in routes.chunks_exact(top_k.max(1)).enumerate() {
        let route = routes.iter().map(|&r| Route::unpack(r)).find(|r| r.expert as usize == index);
        let Some(route) = route else { continue };
        let source = &x.codes[token * width..][..width];
        scratch.codes[count * width..][..width].copy_from_slice(source);
        scratch.scales[count] = x.scales[token];
        scratch.routed[count] = (token as u32) << 16 | route.weight as u32;
        count += 1;
    }
    if count == 0 {
        return;
    }
    let (up, down) = matrices();
    let hidden = up.rows;
    let inputs =
        Vectors { codes: &scratch.codes[..count * width], scales: &scratch.scales[..count] };
    matmul(&up, inputs, &mut scratch.hidden[..count * hidden]);
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
    let inputs = Vectors {
        codes: &scratch.hidden_codes[..count * hidden],
        scales: &scratch.scales[..count],
    };
    matmul(&down, inputs, &mut scratch.outputs[..count * width]);
    let results = scratch.routed[..count].iter().zip(scratch.outputs.chunks_exact(width));
    with_simd(
        #[inline(always)]
        || {
            for (&routed, outputs) in results {
                let (token, weight) = ((routed >> 16) as usize, (routed & 0xffff) as i64);
                for (h, &y) in h[token * width..][..width].iter_mut().zip(outputs) {
                    // A share is at most 1: what is rounded fits.
                    let share = (weight * y as i64 + (1 << (WEIGHT_FRAC - 1))) >> WEIGHT_FRAC;
                    *h = h.saturating_add(share as i32);
                }
            }
        },
    );
}
