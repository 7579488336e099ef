//! What a model costs a device beside its bytes: memory of the state, multiply-accumulates.

use resnet_bk_tools::checkpoint::Block;

use super::network::mamba::TAPS;
use super::trained::{Dimensions, Kind};

/// Costs per stream and per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Numbers that a stream keeps from one token to the next; of attention, in a window.
    pub(super) state: usize,
    /// Multiply-accumulates per token in matrices, convolutions, recurrences and gates, without
    /// normalizations and activation functions; of attention, the mean over a window.
    pub(super) macs: u64,
}

/// The costs of a model in windows of so many tokens.
pub(super) fn cost(dims: &Dimensions, window: usize) -> Cost {
    let (d, hidden) = (dims.width, dims.hidden);
    let tail = |channels: usize| (TAPS - 1) * channels;
    let (state, macs) = match &dims.kind {
        Kind::Gated(config) => {
            let channels = match config.block {
                Block::Gated { channels } => channels,
                Block::Resolvent => 0,
            };
            let state = dims.layers * (channels + tail(channels) + 2 * config.potentials);
            return Cost { state, macs: config.macs_per_token() };
        }
        Kind::Mamba { channels: c, states: n } => {
            let rank = (d / 16).max(1);
            let matrices = 3 * c * d + c * (rank + 2 * n) + rank * c;
            // Exponent, decay, input and output of every state; step times input, skip and gate.
            (c * n + tail(*c), matrices + TAPS * c + 4 * c * n + 3 * c)
        }
        Kind::Gru => (d, 6 * d * d + 3 * d),
        // Keys and values of the whole window; scores and means over half of it.
        Kind::Attention { .. } => (2 * d * window, 4 * d * d + d * (window + 1)),
    };
    Cost {
        state: dims.layers * state,
        macs: (dims.layers * (macs + 2 * d * hidden) + dims.vocab * d) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(kind: Kind) -> Dimensions {
        Dimensions { kind, vocab: 10, width: 32, layers: 2, hidden: 5 }
    }

    #[test]
    fn costs_are_counted_by_hand() {
        let frame = 2 * 2 * 32 * 5 + 320;
        let gru = cost(&dims(Kind::Gru), 8);
        assert_eq!((gru.state, gru.macs), (64, 2 * (6 * 1024 + 96) + frame));
        let attention = cost(&dims(Kind::Attention { heads: 4 }), 8);
        assert_eq!((attention.state, attention.macs), (1024, 2 * (4096 + 32 * 9) + frame));
        let mamba = cost(&dims(Kind::Mamba { channels: 64, states: 3 }), 8);
        assert_eq!(mamba.state, 2 * (64 * 3 + 3 * 64));
        let block = 3 * 64 * 32 + 64 * 8 + 2 * 64 + 4 * 64 + 4 * 64 * 3 + 3 * 64;
        assert_eq!(mamba.macs, 2 * block + frame);
    }
}
