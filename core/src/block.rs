//! The parts of the forward pass that sessions and windows share: embedding, the part of a block
//! after its chain, output layer.
//!
//! Everything works on a tile of B vectors: one in a session, more in a window, so that each weight
//! is read once per tile. Sums have the same terms in the same order for every B, so the tile size
//! affects speed and memory but not results.

use half::f16;

use crate::blob::{Dimensions, TensorId, TokenClasses};
use crate::error::Error;
use crate::kernels::{self, Vectors, matmul, portable, to_halves, with_simd};
use crate::layers::activation::{normalize, quantize};
use crate::layers::gate::{Route, route};
use crate::layers::moe;
use crate::memory::{Arena, code_words, product, total};
use crate::model::Model;
use crate::piece::Piece;

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

    /// Codes per vector of the buffer that features and, later, hidden vectors share.
    const fn codes(dims: &Dimensions) -> usize {
        let (hidden, features) = (dims.hidden as usize, product([2, dims.potentials as usize]));
        if hidden > features { hidden } else { features }
    }

    pub(crate) fn carve(arena: &mut Arena<'a>, dims: &Dimensions, batch: usize) -> Self {
        let (width, hidden) = (dims.width as usize, dims.hidden as usize);
        Self {
            routes: arena.words(batch * dims.top_k as usize),
            gate_logits: arena.integers(batch * dims.experts as usize),
            experts: moe::Scratch {
                codes: arena.codes(batch * width),
                scales: arena.words(batch),
                hidden: arena.integers(batch * hidden),
                hidden_codes: arena.codes(batch * Self::codes(dims)),
                outputs: arena.integers(batch * width),
                routed: arena.words(batch),
            },
        }
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

/// Progress of a forward pass. Intermediate results are in its memory.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    /// The next piece; `None` after the last one.
    pub(crate) next: Option<Piece>,
    /// Block of the next piece.
    pub(crate) layer: u32,
    /// Its expert; in the output layer its token class.
    index: u32,
    /// Vectors of the tile that are routed to the expert; in the output layer the next token to
    /// examine for its class.
    count: u32,
    /// Hidden units of the expert; in the output layer the completed rows of the class.
    rows: u32,
}

impl Cursor {
    /// After the last piece.
    pub(crate) const DONE: Self = Self::at(None, 0);
    /// At the start of the output layer.
    pub(crate) const OUTPUT: Self = Self::at(Some(Piece::OutputLayer), 0);

    /// At the given piece of a block.
    pub(crate) const fn at(next: Option<Piece>, layer: u32) -> Self {
        Self { next, layer, index: 0, count: 0, rows: 0 }
    }

    /// Computes the next piece of the part of a block after its chain: h += s + f, from the
    /// normalized input `x` and the chain's `features`. The last piece moves on to the next block's
    /// normalization. Other pieces are left to the caller.
    ///
    /// Shapes: `x` is `[B, d]`, `features` is `[B, 2K]`, `h` is `[B, d]` in Q15.16.
    pub(crate) fn advance_block(
        &mut self,
        model: &Model<'_>,
        x: Vectors<'_>,
        features: &[i32],
        h: &mut [i32],
        tile: &mut Tile<'_>,
    ) {
        let dims = model.dims();
        let (layer, expert, count) = (self.layer, self.index, self.count as usize);
        let routes = &mut tile.routes[..x.scales.len() * dims.top_k as usize];
        self.next = match self.next {
            Some(Piece::OutputProjection) => {
                project(model, layer, features, h, &mut tile.experts);
                Some(Piece::Gate)
            }
            Some(Piece::Gate) => {
                let experts = dims.experts as usize;
                let logits = &mut tile.gate_logits[..x.scales.len() * experts];
                matmul(&model.matrix(TensorId::Gate(layer)), x, logits);
                route_all(logits, routes, x.scales.len());
                self.seek_expert(routes, 0)
            }
            Some(Piece::ExpertUp) => {
                let up = model.matrix(TensorId::ExpertUp(layer, expert));
                self.rows = up.rows as u32;
                self.count = moe::up(expert, &up, x, routes, &mut tile.experts) as u32;
                Some(Piece::Hidden)
            }
            Some(Piece::Hidden) => {
                moe::requantize(self.rows as usize, count, &mut tile.experts);
                Some(Piece::ExpertDown)
            }
            Some(Piece::ExpertDown) => {
                let down = model.matrix(TensorId::ExpertDown(layer, expert));
                moe::down(&down, count, &mut tile.experts);
                Some(Piece::Mixing)
            }
            Some(Piece::Mixing) => {
                moe::mix(dims.width as usize, count, h, &tile.experts);
                self.seek_expert(routes, expert + 1)
            }
            other => other,
        };
    }

    /// Moves to the next expert, from `first` on, that any vector is routed to, or else to the next
    /// block. The order must be ascending: saturating sums depend on it.
    fn seek_expert(&mut self, routes: &[u32], first: u32) -> Option<Piece> {
        let experts = routes.iter().map(|&route| u32::from(Route::unpack(route).expert));
        match experts.filter(|&expert| expert >= first).min() {
            Some(expert) => {
                self.index = expert;
                Some(Piece::ExpertUp)
            }
            None => {
                *self = Self::at(None, self.layer + 1);
                Some(Piece::Normalization)
            }
        }
    }

    /// Computes the next chunk of the output layer from normalized vectors: at most `hidden` rows
    /// of one token class, scattered to the logits of their tokens.
    ///
    /// Shapes: `x` is `[B, d]`, `logits` is `[B, V]`.
    pub(crate) fn advance_output(
        &mut self,
        model: &Model<'_>,
        x: Vectors<'_>,
        logits: &mut [f16],
        tile: &mut Tile<'_>,
    ) {
        let dims = model.dims();
        let (batch, vocab) = (x.scales.len(), dims.vocab as usize);
        let matrix = model.matrix(TensorId::LmHead(self.index));
        let first = self.rows as usize;
        let rows = (dims.hidden as usize).min(matrix.rows - first);
        let values = &mut tile.experts.hidden[..batch * rows];
        matmul(&matrix.rows(first, rows), x, values);
        if dims.token_classes == 1 {
            let vectors = logits.chunks_exact_mut(vocab).zip(values.chunks_exact(rows));
            for (logits, values) in vectors {
                to_halves(values, &mut logits[first..][..rows]);
            }
        } else {
            let class = Class { classes: model.token_classes(), class: self.index };
            self.count = scatter(values, rows, class, self.count..dims.vocab, logits);
        }
        self.rows += rows as u32;
        if self.rows as usize == matrix.rows {
            *self = Self { index: self.index + 1, ..Self::OUTPUT };
        }
        if self.index == dims.token_classes {
            self.next = None;
        }
    }
}

/// h += s: quantizes the chain's features and multiplies them by the output projection.
///
/// Shapes: `features` is `[B, 2K]`, `h` is `[B, d]`.
fn project(
    model: &Model<'_>,
    layer: u32,
    features: &[i32],
    h: &mut [i32],
    scratch: &mut moe::Scratch<'_>,
) {
    let feature_width = 2 * model.dims().potentials as usize;
    let codes = &mut scratch.hidden_codes[..features.len()];
    let scales = &mut scratch.scales[..features.len() / feature_width];
    let vectors = features.chunks_exact(feature_width).zip(codes.chunks_exact_mut(feature_width));
    with_simd(
        #[inline(always)]
        || {
            for ((values, codes), scale) in vectors.zip(scales.iter_mut()) {
                *scale = quantize(values, codes).pack();
            }
        },
    );
    let outputs = &mut scratch.outputs[..h.len()];
    matmul(&model.matrix(TensorId::OutputProj(layer)), Vectors { codes, scales }, outputs);
    let sums = h.iter_mut().zip(outputs.iter());
    with_simd(
        #[inline(always)]
        || sums.for_each(|(h, &s)| *h = h.saturating_add(s)),
    );
}

/// Routes `batch` vectors to their experts.
///
/// Shapes: `logits` is `[batch, E]`, `routes` is `[batch, top_k]`.
// Outlined to keep its scratch off the stack during matrix products.
#[inline(never)]
fn route_all(logits: &[i32], routes: &mut [u32], batch: usize) {
    let (experts, top_k) = (logits.len() / batch, routes.len() / batch);
    for (logits, routes) in logits.chunks_exact(experts).zip(routes.chunks_exact_mut(top_k)) {
        route(logits, routes);
    }
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
        for (logits, values) in logits.chunks_exact_mut(vocab).zip(values.chunks_exact(rows)) {
            to_halves(&values[first..][..count], &mut halves[..count]);
            own[..count].iter().zip(&halves).for_each(|(&token, &half)| logits[token] = half);
        }
    }
    behind
}
