//! Limits of the processor: its instruction sets compared, and its memory bandwidth.

use std::hint::black_box;
use std::io;

use rayon::prelude::*;
use resnet_bk_tools::files::Resident;
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

/// Rate at which a product reads its matrix, relative to a plain sum of as many bytes by as many
/// threads.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    bytes: usize,
    beside_sum: Ratio,
}

impl Reading {
    /// `bytes` is what `product` reads of its matrix. `None` if that fits the cache. The sum is
    /// divided among the threads of the pool that this runs in.
    pub(super) fn measure(
        rounds: usize,
        bytes: usize,
        product: impl FnMut(),
    ) -> io::Result<Option<Self>> {
        if bytes < LARGE {
            return Ok(None);
        }
        // In the same kind of memory as a model's.
        let mut memory = Resident::zeros(bytes)?;
        memory.fill(1);
        let words: &[[u8; 8]] = memory.as_chunks().0;
        let share = words.len().div_ceil(rayon::current_num_threads());
        let sum = || {
            black_box(words).par_chunks(share).for_each(|words| {
                let words = words.iter().map(|&word| u64::from_ne_bytes(word));
                black_box(words.fold(0, u64::wrapping_add));
            });
        };
        Ok(Some(Self { bytes, beside_sum: alternate(rounds, product, sum) }))
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
