//! A tile of vectors: its memory, embedding and normalization.

use crate::blob::{Block, Dimensions, TensorId};
use crate::error::Error;
use crate::kernels::{self, Matrix, Vectors, matmul, portable, with_simd};
use crate::layers::activation::{normalize, quantize};
use crate::memory::product;
use crate::model::Model;

/// Memory of a tile of B vectors.
pub(crate) struct Tile<'a> {
    /// `[B, d]`: the residual stream in Q15.16. The output layer, which reads its codes only, has
    /// its chunks here.
    pub(crate) h: &'a mut [i32],
    /// `[B, d]`, in a gated chain room for `[B, C]` too: codes of what is multiplied next.
    pub(crate) codes: &'a mut [i16],
    /// `[B]`: their scales.
    pub(crate) scales: &'a mut [u32],
    /// What the pieces share: see [`super::scratch_words`].
    pub(crate) scratch: &'a mut [u32],
}

impl Tile<'_> {
    /// The memory for the vectors `h`, of which there may be fewer than B.
    pub(crate) fn of<'b>(&'b mut self, h: &'b mut [i32], width: usize) -> Tile<'b> {
        let count = h.len() / width;
        Tile { h, codes: self.codes, scales: &mut self.scales[..count], scratch: self.scratch }
    }

    /// Normalizes `h`.
    pub(crate) fn normalize(&mut self) {
        normalize_all(self.h, &mut self.codes[..self.h.len()], self.scales);
    }

    /// The same memory for a function that takes it.
    pub(crate) fn lend(&mut self) -> Tile<'_> {
        Tile { h: self.h, codes: self.codes, scales: self.scales, scratch: self.scratch }
    }
}

/// Codes of a tile of `batch` vectors.
pub(crate) const fn codes(dims: &Dimensions, batch: usize) -> usize {
    let width = dims.width as usize;
    match dims.block {
        Block::Gated { channels } if channels as usize > width => {
            product([batch, channels as usize])
        }
        _ => product([batch, width]),
    }
}

/// Refuses a token outside of the vocabulary and a position past the end of the position table.
pub(crate) fn check(dims: &Dimensions, token: u32, position: usize) -> Result<(), Error> {
    if token >= dims.vocab {
        return Err(Error::Token { token, vocab: dims.vocab });
    }
    if dims.positions != 0 && position >= dims.positions as usize {
        return Err(Error::EndOfPositions { positions: dims.positions });
    }
    Ok(())
}

/// Writes the embedding of `token` at `position` to `h` (`[d]`). [`check`] must admit both.
#[inline(always)]
pub(crate) fn embed(model: &Model<'_>, token: u32, position: usize, h: &mut [i32]) {
    let (class, place) = model.token_classes().place(token);
    kernels::row(&model.tensor(TensorId::TokenEmbedding(class)), place, h);
    if model.dims().positions != 0 {
        portable::add_row(&model.tensor(TensorId::PositionEmbedding), position, h);
    }
}

/// Layer normalization of every vector of `h` into codes and scales.
///
/// Shapes: `h` and `codes` are `[B, d]`, `scales` is `[B]`.
pub(crate) fn normalize_all(h: &[i32], codes: &mut [i16], scales: &mut [u32]) {
    let width = h.len() / scales.len().max(1);
    let vectors = h.chunks_exact(width).zip(codes.chunks_exact_mut(width));
    with_simd(
        #[inline(always)]
        || {
            for ((h, codes), scale) in vectors.zip(scales) {
                *scale = normalize(h, codes).pack();
            }
        },
    );
}

/// Quantizes the first elements of every row, as many as it has codes.
///
/// Shapes: `rows` is `[B, n]`, `codes` is `[B, m]` with m ≤ n, `scales` is `[B]`.
pub(super) fn quantize_all(rows: &[i32], codes: &mut [i16], scales: &mut [u32]) {
    let count = scales.len().max(1);
    let (length, used) = ((rows.len() / count).max(1), (codes.len() / count).max(1));
    let vectors = rows.chunks_exact(length).zip(codes.chunks_exact_mut(used));
    with_simd(
        #[inline(always)]
        || {
            for ((row, codes), scale) in vectors.zip(scales) {
                *scale = quantize(row.get(..codes.len()).unwrap_or(row), codes).pack();
            }
        },
    );
}

/// h += W x, saturating.
///
/// Shapes: `x` has B vectors, `outputs` is scratch `[B, d]`, `h` is `[B, d]` in Q15.16.
pub(super) fn add_product(matrix: &Matrix<'_>, x: Vectors<'_>, outputs: &mut [i32], h: &mut [i32]) {
    matmul(matrix, x, outputs);
    // Four at a time: small cores spend as much on a loop as on an element.
    let (fours, rest) = h.as_chunks_mut::<4>();
    let (sums, rest_of_sums) = outputs.as_chunks::<4>();
    with_simd(
        #[inline(always)]
        || {
            for (h, s) in fours.iter_mut().zip(sums) {
                let ([a, b, c, d], &[p, q, r, s]) = (*h, s);
                *h = [
                    a.saturating_add(p),
                    b.saturating_add(q),
                    c.saturating_add(r),
                    d.saturating_add(s),
                ];
            }
            for (h, &s) in rest.iter_mut().zip(rest_of_sums) {
                *h = h.saturating_add(s);
            }
        },
    );
}
