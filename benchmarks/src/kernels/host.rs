//! Limits of the processor: its instruction sets compared, and its memory bandwidth.

use std::hint::black_box;

use serde_json::{Value, json};

use super::alternate::{Ratio, alternate};

/// Speed with AVX-512 VNNI wherever such kernels exist, and with the kernels chosen by default,
/// both relative to AVX2 alone.
#[derive(Clone, Copy)]
pub(super) struct InstructionSets {
    vnni: Ratio,
    chosen: Ratio,
}

impl InstructionSets {
    /// `None` on a processor without AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn measure(rounds: usize, mut work: impl FnMut()) -> Option<Self> {
        use super::alternate::alternate_settings;
        use resnet_bk_core::internals::HostKernels;

        let set = |kernels: HostKernels| {
            kernels.select();
        };
        let all = [HostKernels::Avx2, HostKernels::Vnni, HostKernels::Chosen];
        if !all.into_iter().all(HostKernels::select) {
            set(HostKernels::Chosen);
            return None;
        }
        let mut beside_avx2 =
            |kernels| alternate_settings(rounds, &mut work, set, [kernels, HostKernels::Avx2]);
        let vnni = beside_avx2(HostKernels::Vnni);
        let chosen = beside_avx2(HostKernels::Chosen);
        set(HostKernels::Chosen);
        Some(Self { vnni, chosen })
    }

    /// Only x86-64 has a choice.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn measure(_rounds: usize, _work: impl FnMut()) -> Option<Self> {
        None
    }

    pub(super) fn to_json(self) -> Value {
        let ratio = |ratio: Ratio| json!({ "ratio": ratio.rounded(), "quartiles": ratio.spread() });
        json!({ "vnni": ratio(self.vnni), "chosen": ratio(self.chosen) })
    }

    /// The medians: VNNI, default choice.
    pub(super) fn medians(&self) -> [f64; 2] {
        [self.vnni.median, self.chosen.median]
    }
}

/// Smaller matrices stay in the cache of a core.
const LARGE: usize = 1 << 20;

/// Rate at which a product reads its matrix, relative to a plain sum of as many bytes.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    bytes: usize,
    beside_sum: Ratio,
}

impl Reading {
    /// `bytes` is what `product` reads of its matrix. `None` if that fits the cache.
    pub(super) fn measure(rounds: usize, bytes: usize, product: impl FnMut()) -> Option<Self> {
        if bytes < LARGE {
            return None;
        }
        let words = vec![1u64; bytes / size_of::<u64>()];
        let sum = || {
            black_box(black_box(&words).iter().fold(0, |sum: u64, &word| sum.wrapping_add(word)));
        };
        Some(Self { bytes, beside_sum: alternate(rounds, product, sum) })
    }

    /// Bytes of the matrix per second, in units of 10⁹.
    pub(super) fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.beside_sum.seconds / 1e9
    }

    /// Speed relative to the sum.
    pub(super) fn beside_sum(&self) -> f64 {
        self.beside_sum.median
    }

    pub(super) fn to_json(self) -> Value {
        json!({
            "matrix_bytes": self.bytes,
            "bytes_per_second": (self.bytes as f64 / self.beside_sum.seconds).round(),
            "beside_sum": {
                "ratio": self.beside_sum.rounded(), "quartiles": self.beside_sum.spread(),
            },
        })
    }
}
