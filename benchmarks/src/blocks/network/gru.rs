//! Gated recurrent unit (Cho et al., 2014), the reset gate after the product.

use super::layers::{Linear, sigmoid};
use super::mixer::Mixer;
use crate::blocks::tensors::{Failure, Tensors};

/// Rows of both matrices: reset, update, new.
pub(super) struct Gru {
    input: Linear,
    recurrent: Linear,
    width: usize,
}

impl Gru {
    pub(super) fn new(tensors: &Tensors, name: &str, width: usize) -> Result<Self, Failure> {
        let input = Linear::new(tensors, &format!("{name}.input"), width)?;
        let recurrent = Linear::new(tensors, &format!("{name}.recurrent"), width)?;
        if input.outputs != 3 * width || recurrent.outputs != 3 * width {
            return Err(format!("{name}: matrices do not have {} rows", 3 * width).into());
        }
        Ok(Self { input, recurrent, width })
    }
}

impl Mixer for Gru {
    /// Windows go side by side: one product a position for all of them.
    fn forward(&self, u: &[f32], window: usize) -> Result<Vec<f32>, Failure> {
        let width = self.width;
        let of_input = self.input.forward(u)?;
        let windows = u.len() / width / window;
        let mut h = vec![0.0; windows * width];
        let mut y = vec![0.0; u.len()];
        for t in 0..window {
            let of_state = self.recurrent.forward(&h)?;
            for (w, h) in h.chunks_exact_mut(width).enumerate() {
                let row = w * window + t;
                let x = &of_input[row * 3 * width..][..3 * width];
                let s = &of_state[w * 3 * width..][..3 * width];
                for i in 0..width {
                    let reset = sigmoid(x[i] + s[i]);
                    let update = sigmoid(x[width + i] + s[width + i]);
                    let new = (x[2 * width + i] + reset * s[2 * width + i]).tanh();
                    h[i] = new + update * (h[i] - new);
                }
                y[row * width..][..width].copy_from_slice(h);
            }
        }
        Ok(y)
    }
}
