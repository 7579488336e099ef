//! Sizes of models for the flash that they are to fit, after quantization, with their tokenizer.

use clap::ValueEnum;

/// Flash for a model.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(super) enum Flash {
    #[value(name = "16K")]
    K16,
    #[value(name = "64K")]
    K64,
    #[value(name = "256K")]
    K256,
    #[value(name = "712K")]
    K712,
    #[value(name = "1M")]
    M1,
}

/// What a gated chain of a size is made of, and how it is trained, unless flags say otherwise.
pub(super) struct Shape {
    pub(super) vocab: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) layers: usize,
    pub(super) potentials: usize,
    pub(super) rate: f64,
    pub(super) window: usize,
    pub(super) steps: u64,
}

impl Flash {
    /// The dimensions of the model of this size in `models/`.
    pub(super) fn shape(self) -> Shape {
        let [vocab, width, channels, layers, potentials] = match self {
            Self::K16 => [256, 32, 64, 2, 4],
            Self::K64 => [384, 64, 64, 5, 8],
            Self::K256 => [1024, 96, 128, 6, 8],
            Self::K712 => [1024, 160, 192, 10, 12],
            Self::M1 => [1024, 160, 320, 10, 16],
        };
        let (rate, window, steps) = match self {
            Self::K16 => (0.03, 256, 12_000),
            Self::K64 => (0.018, 256, 3_000),
            Self::K256 => (0.012, 128, 6_000),
            Self::K712 | Self::M1 => (0.008, 128, 7_200),
        };
        Shape { vocab, width, channels, layers, potentials, rate, window, steps }
    }
}
