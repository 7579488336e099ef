//! What sessions and windows share: from a token to the residual, through a block, to the logits.
//!
//! Everything works on a tile of B vectors. A session uses tiles of one; a window larger ones, so
//! that each weight is read once per tile. Every sum has the same terms in the same order either
//! way, so the tile size is a matter of speed and memory alone.

use half::f16;

use crate::blob::{Dimensions, TensorId};
use crate::error::Error;
use crate::kernels::{self, Vectors, matmul, portable, to_halves, with_simd};
use crate::layers::activation::{normalize, quantize};
use crate::layers::gate::route;
use crate::layers::moe;
use crate::memory::{Arena, code_words, product, total};
use crate::model::Model;

/// Scratch for B vectors of one model.
pub(crate) struct Tile<'a> {
    routes: &'a mut [u32],
    gate_logits: &'a mut [i32],
    experts: moe::Scratch<'a>,
}

impl<'a> Tile<'a> {
    /// Words of a tile of `batch` vectors.
    pub(crate) const fn words(dims: &Dimensions, batch: usize) -> usize {
        let width = dims.width as usize;
        let hidden = dims.hidden as usize;
        let (top_k, experts) = (dims.top_k as usize, dims.experts as usize);
        total([
            product([batch, total([top_k, experts, 1, 1])]),
            code_words(product([batch, width])),
            code_words(product([batch, Self::codes(dims)])),
            product([batch, total([hidden, width])]),
        ])
    }

    /// Codes of a vector that share one place: features', and later a hidden vector's.
    const fn codes(dims: &Dimensions) -> usize {
        let (hidden, features) = (dims.hidden as usize, product([2, dims.potentials as usize]));
        if hidden > features { hidden } else { features }
    }

    pub(crate) fn carve(arena: &mut Arena<'a>, dims: &Dimensions, batch: usize) -> Self {
        let (width, hidden) = (dims.width as usize, dims.hidden as usize);
        Self {
            routes: arena.words(batch * dims.top_k as usize),
            gate_logits: arena.wide(batch * dims.experts as usize),
            experts: moe::Scratch {
                codes: arena.codes(batch * width),
                scales: arena.words(batch),
                hidden: arena.wide(batch * hidden),
                hidden_codes: arena.codes(batch * Self::codes(dims)),
                outputs: arena.wide(batch * width),
                routed: arena.words(batch),
            },
        }
    }
}

/// Embedding of `token` at `position` into `h` (`[d]`), which also checks both.
#[inline(always)]
pub(crate) fn embed(
    model: &Model<'_>,
    token: u32,
    position: usize,
    h: &mut [i32],
) -> Result<(), Error> {
    let dims = model.dims();
    if token >= dims.vocab {
        return Err(Error::Token { token, vocab: dims.vocab });
    }
    if dims.positions == 0 {
        token_row(model, token, h);
        return Ok(());
    }
    if position >= dims.positions as usize {
        return Err(Error::EndOfPositions { positions: dims.positions });
    }
    token_row(model, token, h);
    portable::add_row(&model.tensor(TensorId::PositionEmbedding), position, h);
    Ok(())
}

#[inline(always)]
fn token_row(model: &Model<'_>, token: u32, h: &mut [i32]) {
    let (class, place) = model.token_classes().place(token);
    kernels::row(&model.tensor(TensorId::TokenEmbedding(class)), place, h);
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

/// The block's output from its normalized input `x` and its chain's `features`: h += s + f.
///
/// Shapes: `x` is `[B, d]`, `features` is `[B, 2K]`, `h` is `[B, d]` in Q15.16.
pub(crate) fn finish(
    model: &Model<'_>,
    layer: u32,
    x: Vectors<'_>,
    features: &[i32],
    h: &mut [i32],
    tile: &mut Tile<'_>,
) {
    let dims = model.dims();
    let batch = x.scales.len();
    let feature_width = 2 * dims.potentials as usize;
    let codes = &mut tile.experts.hidden_codes[..batch * feature_width];
    let scales = &mut tile.experts.scales[..batch];
    let vectors = features.chunks_exact(feature_width).zip(codes.chunks_exact_mut(feature_width));
    with_simd(
        #[inline(always)]
        || {
            for ((values, codes), scale) in vectors.zip(scales.iter_mut()) {
                *scale = quantize(values, codes).pack();
            }
        },
    );
    let outputs = &mut tile.experts.outputs[..h.len()];
    matmul(&model.matrix(TensorId::OutputProj(layer)), Vectors { codes, scales }, outputs);
    let sums = h.iter_mut().zip(outputs.iter());
    with_simd(
        #[inline(always)]
        || sums.for_each(|(h, &s)| *h = h.saturating_add(s)),
    );

    let logits = &mut tile.gate_logits[..batch * dims.experts as usize];
    let routes = &mut tile.routes[..batch * dims.top_k as usize];
    matmul(&model.matrix(TensorId::Gate(layer)), x, logits);
    let routed = routes.chunks_exact_mut(dims.top_k as usize);
    for (logits, routes) in logits.chunks_exact(dims.experts as usize).zip(routed) {
        route(logits, routes);
    }
    for e in 0..dims.experts {
        let matrices = || {
            let up = model.matrix(TensorId::ExpertUp(layer, e));
            (up, model.matrix(TensorId::ExpertDown(layer, e)))
        };
        moe::expert(e as usize, matrices, x, routes, h, &mut tile.experts);
    }
}

/// Logits of normalized vectors, a stretch of the vocabulary at a time.
///
/// Shapes: `x` is `[B, d]`, `logits` is `[B, V]`.
pub(crate) fn head(model: &Model<'_>, x: Vectors<'_>, logits: &mut [f16], tile: &mut Tile<'_>) {
    let dims = model.dims();
    let (batch, vocab) = (x.scales.len(), dims.vocab as usize);
    for class in 0..dims.token_classes {
        let matrix = model.matrix(TensorId::LmHead(class));
        let mut tokens = model.token_classes().tokens(class);
        let mut first = 0;
        while first < matrix.rows {
            let rows = (dims.hidden as usize).min(matrix.rows - first);
            let values = &mut tile.experts.hidden[..batch * rows];
            matmul(&matrix.rows(first, rows), x, values);
            if dims.token_classes == 1 {
                for (logits, values) in
                    logits.chunks_exact_mut(vocab).zip(values.chunks_exact(rows))
                {
                    to_halves(values, &mut logits[first..][..rows]);
                }
            } else {
                scatter(values, rows, &mut tokens, logits, vocab);
            }
            first += rows;
        }
    }
}

/// Rows that are converted at a time.
const PIECE: usize = 32;

/// Puts what belongs to the next `rows` of `tokens` where those are.
///
/// Shapes: `values` is `[B, rows]`, `logits` is `[B, V]`.
fn scatter(
    values: &[i32],
    rows: usize,
    tokens: &mut impl Iterator<Item = u32>,
    logits: &mut [f16],
    vocab: usize,
) {
    let (mut own, mut halves) = ([0; PIECE], [f16::ZERO; PIECE]);
    for first in (0..rows).step_by(PIECE) {
        let count = PIECE.min(rows - first);
        own[..count].iter_mut().zip(tokens.by_ref()).for_each(|(own, token)| *own = token as usize);
        for (logits, values) in logits.chunks_exact_mut(vocab).zip(values.chunks_exact(rows)) {
            to_halves(&values[first..][..count], &mut halves[..count]);
            own[..count].iter().zip(&halves).for_each(|(&token, &half)| logits[token] = half);
        }
    }
}
