//! The mixture of experts behind a chain, for both kinds of block.

use super::cursor::Cursor;
use crate::blob::{Dimensions, TensorId};
use crate::kernels::{Vectors, matmul};
use crate::layers::gate::{Route, route};
use crate::layers::moe;
use crate::memory::{Arena, code_words, product, total};
use crate::model::Model;
use crate::piece::Piece;

/// Scratch of a tile of B vectors.
pub(crate) struct Scratch<'a> {
    /// `[B, top_k]`.
    routes: &'a mut [u32],
    /// `[B, E]`.
    gate_logits: &'a mut [i32],
    pub(super) expert: moe::Scratch<'a>,
}

impl<'a> Scratch<'a> {
    /// Words for `batch` vectors; room for `codes` codes of each in the buffer of hidden codes.
    pub(crate) const fn words(dims: &Dimensions, batch: usize, codes: usize) -> usize {
        let width = dims.width as usize;
        let hidden = dims.hidden as usize;
        let (top_k, experts) = (dims.top_k as usize, dims.experts as usize);
        total([
            product([batch, total([top_k, experts, 1, 1])]),
            code_words(product([batch, width])),
            code_words(product([batch, codes])),
            product([batch, total([hidden, width])]),
        ])
    }

    pub(crate) fn carve(
        arena: &mut Arena<'a>,
        dims: &Dimensions,
        batch: usize,
        codes: usize,
    ) -> Self {
        let (width, hidden) = (dims.width as usize, dims.hidden as usize);
        Self {
            routes: arena.words(batch * dims.top_k as usize),
            gate_logits: arena.integers(batch * dims.experts as usize),
            expert: moe::Scratch {
                codes: arena.codes(batch * width),
                scales: arena.words(batch),
                hidden: arena.integers(batch * hidden),
                hidden_codes: arena.codes(batch * codes),
                outputs: arena.integers(batch * width),
                routed: arena.words(batch),
            },
        }
    }
}

impl Cursor {
    /// At the gate, or at the only expert if there is none to choose.
    pub(super) fn enter_experts(&mut self, dims: &Dimensions, batch: usize, scratch: &mut Scratch) {
        self.next = if dims.has_gate() {
            Some(Piece::Gate)
        } else {
            let routes = &mut scratch.routes[..batch * dims.top_k as usize];
            routes.fill(Route::WHOLE.pack());
            self.seek_expert(routes, 0)
        };
    }

    /// Computes the next piece of the experts: h += f, from the normalized input `x`. The last
    /// piece moves on to the next block's normalization. Other pieces are left to the caller.
    ///
    /// Shapes: `x` is `[B, d]`, `h` is `[B, d]` in Q15.16.
    pub(super) fn advance_experts(
        &mut self,
        model: &Model<'_>,
        x: Vectors<'_>,
        h: &mut [i32],
        scratch: &mut Scratch<'_>,
    ) {
        let dims = model.dims();
        let (layer, expert, count) = (self.layer, self.index, self.count as usize);
        let routes = &mut scratch.routes[..x.scales.len() * dims.top_k as usize];
        self.next = match self.next {
            Some(Piece::Gate) => {
                let experts = dims.experts as usize;
                let logits = &mut scratch.gate_logits[..x.scales.len() * experts];
                matmul(&model.matrix(TensorId::Gate(layer)), x, logits);
                route_all(logits, routes, x.scales.len());
                self.seek_expert(routes, 0)
            }
            Some(Piece::ExpertUp) => {
                let up = model.matrix(TensorId::ExpertUp(layer, expert));
                self.rows = up.rows as u32;
                self.count = moe::up(expert, &up, x, routes, &mut scratch.expert) as u32;
                Some(Piece::Hidden)
            }
            Some(Piece::Hidden) => {
                moe::requantize(self.rows as usize, count, &mut scratch.expert);
                Some(Piece::ExpertDown)
            }
            Some(Piece::ExpertDown) => {
                let down = model.matrix(TensorId::ExpertDown(layer, expert));
                moe::down(&down, count, &mut scratch.expert);
                Some(Piece::Mixing)
            }
            Some(Piece::Mixing) => {
                moe::mix(dims.width as usize, count, h, &scratch.expert);
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
                *self = self.next_block();
                self.next
            }
        }
    }
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
