//! Which kernels multiply: the one place that knows what was measured to be faster.
//!
//! How many times as fast AVX-512 VNNI is as AVX2 (`resnet-bk-benchmarks kernels` prints it); more
//! shapes are in `docs/numerics.md`, section 12:
//!
//! | storage | vectors | inputs | Xeon, Emerald Rapids | EPYC, Zen 4 |
//! |---|---|---|---|---|
//! | INT4 | one | 128 | 1.3 | 0.6, of an earlier kernel |
//! | INT4 | one | 1024 | 1.7 | 1.3, of an earlier kernel |
//! | INT8 | one | 128 | 1.5 | 1.3 |
//! | INT8 | one | 1024 | 1.1 | 1.6 |
//! | INT4 | 128 | 128 | 1.5 | |
//! | INT8 | 128 | 128 | 2.1 | |
//!
//! Where they disagree a processor without AVX512-FP16, which Zen 4 lacks, takes AVX2. Every choice
//! returns the same bits.

use super::detect::Vnni;
use super::int4;
use crate::blob::{Precision, Tensor};

/// Inputs from which INT4 of one vector was measured to be faster with VNNI on Zen 4, too.
const LONG: usize = 1024;

/// AVX-512 VNNI if the processor has it and it is the faster one for this matrix and as many
/// vectors.
#[inline(always)]
pub(super) fn vnni(matrix: &Tensor<'_>, vectors: usize) -> Option<Vnni> {
    let single = vectors == 1 || one_by_one(matrix, vectors);
    Vnni::detect_where(|whole| vnni_is_faster(whole, matrix.precision, matrix.cols, single))
}

/// `whole` says whether the processor is of a kind that takes registers of 512 bits at once,
/// `single` whether vectors come one by one.
#[inline(always)]
const fn vnni_is_faster(whole: bool, precision: Precision, inputs: usize, single: bool) -> bool {
    match precision {
        Precision::Int4 if single => whole || inputs >= LONG,
        _ => true,
    }
}

/// Whether so few vectors are multiplied one by one: rows are decoded for all of them in the time
/// of five (INT4) or nine (INT8).
#[inline(always)]
pub(super) fn one_by_one(matrix: &Tensor<'_>, vectors: usize) -> bool {
    match matrix.precision {
        Precision::Int4 => vectors <= 4 && int4::fits(matrix),
        Precision::Int8 => vectors <= 8 && !matrix.codes.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was measured on both kinds of processors, the choice on each.
    #[test]
    fn the_faster_kernel_is_chosen_where_it_was_measured() {
        use Precision::{Int4, Int8};
        for (precision, inputs, single, [zen_4, emerald_rapids]) in [
            (Int4, 128, true, [false, true]),
            (Int4, 256, true, [false, true]),
            (Int4, 1024, true, [true, true]),
            (Int8, 128, true, [true, true]),
            (Int8, 1024, true, [true, true]),
            (Int4, 128, false, [true, true]),
            (Int8, 128, false, [true, true]),
        ] {
            let case = format_args!("{precision:?} of {inputs}, single: {single}");
            assert_eq!(vnni_is_faster(false, precision, inputs, single), zen_4, "{case}");
            assert_eq!(vnni_is_faster(true, precision, inputs, single), emerald_rapids, "{case}");
        }
    }
}
