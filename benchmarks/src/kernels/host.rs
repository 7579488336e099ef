//! The processor's own limits: its instruction sets beside each other, and how fast it reads.

use std::hint::black_box;

use serde_json::{Value, json};

use super::alternate::{Ratio, alternate};

/// How fast the same work is with AVX-512 VNNI wherever there are such kernels, and with the
/// kernels that are chosen, both beside AVX2 alone.
#[derive(Clone, Copy)]
pub(super) struct InstructionSets {
    vnni: Ratio,
    chosen: Ratio,
}

impl InstructionSets {
    /// None where the processor has not both.
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

    /// There is no choice.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn measure(_rounds: usize, _work: impl FnMut()) -> Option<Self> {
        None
    }

    pub(super) fn to_json(self) -> Value {
        let ratio = |ratio: Ratio| json!({ "ratio": ratio.rounded(), "quartiles": ratio.spread() });
        json!({ "vnni": ratio(self.vnni), "chosen": ratio(self.chosen) })
    }

    /// The medians: of VNNI, of what is chosen.
    pub(super) fn medians(&self) -> [f64; 2] {
        [self.vnni.median, self.chosen.median]
    }
}

/// Matrices of fewer bytes stay in a core's own cache.
const LARGE: usize = 1 << 20;

/// How fast a product gets through its matrix, beside a sum of as many bytes, which does nothing
/// but read.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    bytes: usize,
    beside_sum: Ratio,
}

impl Reading {
    /// `bytes` is what `product` reads of its matrix. None where that fits the cache.
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

    /// Of the matrix, in units of 10⁹.
    pub(super) fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.beside_sum.seconds / 1e9
    }

    /// How many times as fast as a sum.
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
