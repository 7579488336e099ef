//! Forward passes in parts: a variant of a model need only be computed from the first block that
//! differs.

use crate::reference::forward::Tape;
use crate::reference::model::Model;
use crate::reference::observer::Observer;

impl Model {
    /// The residual stream `[positions, d]` before the first block, of consecutive windows of
    /// `window` tokens each.
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn stream(&self, tokens: &[u32], window: usize) -> Vec<f32> {
        assert!(window > 0 && tokens.len().is_multiple_of(window), "not whole windows");
        let mut stream = vec![0.0; tokens.len() * self.config().width];
        self.embed(tokens, window, &mut stream);
        stream
    }

    /// Takes the residual stream from before block `l` to after it, and passes the inputs and
    /// outputs of its layers to `observer`.
    pub fn advance(
        &self,
        l: usize,
        window: usize,
        stream: &mut Vec<f32>,
        tape: &mut Tape,
        observer: Option<&mut dyn Observer>,
    ) {
        std::mem::swap(&mut tape.h, stream);
        self.block(l, window, tape);
        std::mem::swap(&mut tape.h, stream);
        if let Some(observer) = observer {
            self.report_block(l, tape, observer);
        }
    }

    /// Logits `[positions, V]` from the residual stream before block `l`, or after the last one if
    /// there is no such block; those of [`Model::forward`] to the bit. `observer` receives the
    /// output layer's inputs and outputs.
    pub fn logits_from<'t>(
        &self,
        l: usize,
        window: usize,
        stream: &[f32],
        tape: &'t mut Tape,
        observer: Option<&mut dyn Observer>,
    ) -> &'t [f32] {
        tape.h.clear();
        tape.h.extend_from_slice(stream);
        for l in l..self.config().layers {
            self.block(l, window, tape);
        }
        self.head(tape);
        if let Some(observer) = observer {
            self.report_head(tape, observer);
        }
        &tape.logits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Chain;
    use crate::reference::tests::{config, gated, single};

    #[test]
    fn a_pass_in_parts_is_the_pass() {
        for config in [config(Chain::Half, 1, 2), config(Chain::Full, 4, 2), gated(5, 3, 2)] {
            let (model, layers) = (single(config.clone()), config.layers);
            let tokens: Vec<u32> = (0..24).map(|i| i * i * 7 % 11).collect();
            let whole = model.forward(&tokens, 8);
            let (mut stream, mut tape) = (model.stream(&tokens, 8), Tape::default());
            for l in 0..=layers {
                assert_eq!(model.logits_from(l, 8, &stream, &mut tape, None), whole);
                if l < layers {
                    model.advance(l, 8, &mut stream, &mut tape, None);
                }
            }
        }
    }
}
