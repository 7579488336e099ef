//! The output layer: logits of a tile, in chunks of rows.

use half::f16;

use super::cursor::Cursor;
use super::tile::Tile;
#[cfg(feature = "std")]
use crate::blob::Tensor;
use crate::blob::{Dimensions, TensorId, TokenClasses};
#[cfg(feature = "std")]
use crate::kernels::parallel::{self, Parallel};
use crate::kernels::{Matrix, Vectors, matmul, to_halves};
use crate::memory::{Arena, code_words, product};
use crate::model::Model;

/// Words for a tile of `batch` vectors.
pub(crate) const fn words(dims: &Dimensions, batch: usize) -> usize {
    code_words(product([batch, dims.vocab as usize]))
}

/// The logits `[B, V]` in the scratch of a tile of `batch` vectors.
pub(crate) fn logits<'a>(scratch: &'a mut [u32], dims: &Dimensions, batch: usize) -> &'a mut [f16] {
    Arena::new(scratch).halves(batch * dims.vocab as usize)
}

impl Cursor {
    /// Computes the next chunk of the output layer of a normalized tile: rows of one token class,
    /// scattered to the logits of their tokens. At most d rows, which take the place of `h`.
    pub(crate) fn advance_output(&mut self, model: &Model<'_>, tile: Tile<'_>) {
        let dims = model.dims();
        let x = Vectors { codes: &tile.codes[..tile.h.len()], scales: tile.scales };
        let (batch, vocab) = (x.scales.len(), dims.vocab as usize);
        let logits = logits(tile.scratch, dims, batch);
        let tensor = model.tensor(TensorId::LmHead(self.index));
        #[cfg(feature = "std")]
        if let (Some(parallel), 1, 1) = (model.parallel(), batch, dims.token_classes)
            && parallel::pays(&tensor)
        {
            all_logits(parallel, &tensor, x, logits);
            *self = Self::DONE;
            return;
        }
        let first = self.rows as usize;
        let rows = (dims.width as usize).min(tensor.rows - first);
        let values = &mut tile.h[..batch * rows];
        matmul(&Matrix::new(tensor.rows(first, rows)), x, values);
        if dims.token_classes == 1 {
            let vectors = values.chunks_exact(rows).zip(logits.chunks_exact_mut(vocab));
            for (values, logits) in vectors {
                to_halves(values, &mut logits[first..][..rows]);
            }
        } else {
            let class = Class { classes: model.token_classes(), class: self.index };
            self.count = scatter(values, rows, class, self.count..dims.vocab, logits);
        }
        self.rows += rows as u32;
        if self.rows as usize == tensor.rows {
            *self = Self { index: self.index + 1, ..Self::OUTPUT };
        }
        if self.index == dims.token_classes {
            self.next = None;
        }
    }
}

/// All logits of one vector, the rows shared among threads. Shapes: `logits` is `[V]`.
#[cfg(feature = "std")]
fn all_logits(parallel: &dyn Parallel, tensor: &Tensor<'_>, x: Vectors<'_>, logits: &mut [f16]) {
    const ROWS: usize = 512;
    parallel::by_rows(parallel, logits, |first, logits| {
        let mut values = [0; ROWS];
        for (k, logits) in logits.chunks_mut(ROWS).enumerate() {
            let values = &mut values[..logits.len()];
            matmul(&Matrix::new(tensor.rows(first + k * ROWS, values.len())), x, values);
            to_halves(values, logits);
        }
    });
}

/// One token class.
struct Class<'a> {
    classes: TokenClasses<'a>,
    class: u32,
}

/// Rows converted at a time.
const CHUNK: usize = 32;

/// Writes `rows` logits to the next `rows` tokens of a class within `tokens`, which must have that
/// many; returns the token after the last one.
///
/// Shapes: `values` is `[B, rows]`, `logits` is `[B, V]`.
// Outlined to keep its scratch off the stack during matrix products.
#[inline(never)]
fn scatter(
    values: &[i32],
    rows: usize,
    Class { classes, class }: Class<'_>,
    tokens: core::ops::Range<u32>,
    logits: &mut [f16],
) -> u32 {
    let (vocab, mut behind) = (tokens.end as usize, tokens.start);
    let mut tokens = tokens.filter(|&token| classes.class(token) == class);
    let (mut own, mut halves) = ([0; CHUNK], [f16::ZERO; CHUNK]);
    for first in (0..rows).step_by(CHUNK) {
        let count = CHUNK.min(rows - first);
        for (own, token) in own[..count].iter_mut().zip(tokens.by_ref()) {
            (*own, behind) = (token as usize, token + 1);
        }
        for (values, logits) in values.chunks_exact(rows).zip(logits.chunks_exact_mut(vocab)) {
            to_halves(&values[first..][..count], &mut halves[..count]);
            own[..count].iter().zip(&halves).for_each(|(&token, &half)| logits[token] = half);
        }
    }
    behind
}
