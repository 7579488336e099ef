//! The backward pass: exact gradients of the summed loss with respect to every parameter.

use crate::reference::forward::{Scratch, Tape};
use crate::reference::layout::BlockLayout;
use crate::reference::loss::{self, Distillation, Losses};
use crate::reference::model::Model;
use crate::reference::observer::{Each, LayerGradient, LinearGradient};
use crate::reference::real::{Real, add_to, size};
use crate::reference::soft_targets::SoftWindows;

impl<T: Real> Model<T> {
    /// Adds the gradient of `scale` × the summed loss to `gradient`, laid out as
    /// [`Model::parameters`], and returns the summed negative log-likelihood in nats.
    ///
    /// `inputs` are whole windows of `window` tokens, `targets` the token after each of them.
    /// `tape` may come from any earlier batch; its buffers are reused.
    pub fn add_gradient(
        &self,
        inputs: &[u32],
        targets: &[u32],
        window: usize,
        scale: T,
        tape: &mut Tape<T>,
        gradient: &mut [T],
    ) -> f64 {
        let loss = |logits: &mut [T]| loss::gradient_in_place(logits, targets, scale);
        self.add_gradient_of(inputs, window, tape, gradient, loss)
    }

    /// As [`Model::add_gradient`] with soft targets beside those of the text.
    pub fn add_soft_gradient(
        &self,
        inputs: &[u32],
        (targets, soft): (&[u32], SoftWindows<'_>),
        window: usize,
        scale: T,
        tape: &mut Tape<T>,
        gradient: &mut [T],
    ) -> f64 {
        let loss = |logits: &mut [T]| soft.gradient_in_place(logits, targets, scale);
        self.add_gradient_of(inputs, window, tape, gradient, loss)
    }

    /// As [`Model::add_gradient`] for a distillation loss, with a teacher's logits `[positions,
    /// V]`.
    #[expect(clippy::too_many_arguments, reason = "add_gradient and a teacher")]
    pub fn add_distilled_gradient(
        &self,
        inputs: &[u32],
        (targets, teacher): (&[u32], &[T]),
        window: usize,
        how: Distillation,
        scale: T,
        tape: &mut Tape<T>,
        gradient: &mut [T],
    ) -> Losses {
        let loss = |logits: &mut [T]| loss::distil_in_place(logits, teacher, targets, how, scale);
        self.add_gradient_of(inputs, window, tape, gradient, loss)
    }

    /// Adds the gradient of a loss that turns logits into their gradients in place.
    fn add_gradient_of<L>(
        &self,
        inputs: &[u32],
        window: usize,
        tape: &mut Tape<T>,
        gradient: &mut [T],
        loss: impl FnOnce(&mut [T]) -> L,
    ) -> L {
        self.forward_tape(inputs, window, tape);
        let found = loss(&mut tape.logits);
        self.backward_logits(inputs, window, tape, gradient, &mut |_| true);
        found
    }

    /// Losses on a text relative to a teacher's logits `[positions, V]`, without gradients.
    pub fn losses(
        &self,
        inputs: &[u32],
        (targets, teacher): (&[u32], &[T]),
        window: usize,
        tape: &mut Tape<T>,
    ) -> Losses {
        self.forward_tape(inputs, window, tape);
        let nats = loss::negative_log_likelihoods(&tape.logits, targets).iter().sum();
        let how = Distillation::KL;
        let losses = loss::distil_in_place(&mut tape.logits, teacher, targets, how, T::ONE);
        Losses { nats, ..losses }
    }

    /// Starts from the logits of the last forward pass in `tape`; `each` receives every layer.
    #[expect(clippy::too_many_arguments, reason = "add_gradient and its observer")]
    pub(crate) fn backward_tape(
        &self,
        inputs: &[u32],
        targets: &[u32],
        window: usize,
        scale: T,
        tape: &mut Tape<T>,
        gradient: &mut [T],
        each: &mut Each<'_, T>,
    ) -> f64 {
        let total = loss::gradient_in_place(&mut tape.logits, targets, scale);
        self.backward_logits(inputs, window, tape, gradient, each);
        total
    }

    /// Starts from the gradients of the logits, stored in place of the logits in `tape`.
    fn backward_logits(
        &self,
        inputs: &[u32],
        window: usize,
        tape: &mut Tape<T>,
        gradient: &mut [T],
        each: &mut Each<'_, T>,
    ) {
        let d = self.config().width;
        let Tape { blocks, h, final_norm, final_u, logits, scratch, .. } = tape;
        let (head, norm) = (&self.layout.head, &self.layout.norm);
        head.backward_parameters(gradient, final_u, logits, each);
        size(&mut scratch.du, h.len());
        head.backward_input(&self.parameters, logits, &mut scratch.du, false);
        size(&mut scratch.dh, h.len());
        scratch.dh.fill(T::ZERO);
        norm.backward(&self.parameters, final_norm, &scratch.du, gradient, &mut scratch.dh);
        for (block, tape) in self.layout.blocks.iter().zip(blocks).rev() {
            let Scratch { dh, resolvent, gated, .. } = &mut *scratch;
            match block {
                BlockLayout::Resolvent(block) => {
                    let tapes = (&mut tape.resolvent, resolvent);
                    block.backward(self, window, tapes, dh, gradient, each);
                }
                BlockLayout::Gated(block) => {
                    let tapes = (&mut tape.gated, gated);
                    block.backward(self, window, tapes, dh, gradient, each);
                }
            }
        }
        let of = |name| {
            let (rows, outputs) = (inputs.len(), scratch.dh.as_slice());
            LayerGradient::Linear(LinearGradient { name, rows, inputs: &[], outputs })
        };
        if each(of("token_embedding")) {
            let table = &mut gradient[self.layout.embedding.clone()];
            for (row, &token) in scratch.dh.chunks_exact(d).zip(inputs) {
                add_to(&mut table[token as usize * d..][..d], row);
            }
        }
        let Some(positions) = &self.layout.positions else { return };
        if each(of("position_embedding")) {
            let table = &mut gradient[positions.clone()];
            for (i, row) in scratch.dh.chunks_exact(d).enumerate() {
                add_to(&mut table[i % window * d..][..d], row);
            }
        }
    }
}
