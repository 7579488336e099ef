//! Every kernel of the table against an f64 product of the decoded weights, and against the
//! portable one.
//!
//! The decoding in [`matrix`] is written from `docs/format.md`, not from the kernels.

#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
mod by_columns;
mod hosts;
mod malformed;
mod matrix;
#[cfg(all(feature = "std", not(miri)))]
mod on_threads;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod subnormal;

use half::f16;
use proptest::prelude::*;
use std::{vec, vec::Vec};

use matrix::{Batch, Random, Section, half};

use super::Matrix;
#[cfg(feature = "std")]
use super::Prepared;
use super::{Vectors, matmul, portable, row, table};
use crate::blob::{Precision, Tensor};
use crate::numeric::{Scale, residual_to_half};

/// A way to multiply.
pub(super) struct Subject {
    name: &'static str,
    multiply: Multiply,
}

/// Its function.
enum Multiply {
    Function(fn(&Tensor<'_>, Vectors<'_>, &mut [i32])),
    /// An entry of the table, with the portable kernel for what it leaves.
    Entry(&'static super::kernel::Kernel),
}

impl Subject {
    const fn function(
        name: &'static str,
        function: fn(&Tensor<'_>, Vectors<'_>, &mut [i32]),
    ) -> Self {
        Self { name, multiply: Multiply::Function(function) }
    }

    fn run(&self, tensor: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
        match self.multiply {
            Multiply::Function(function) => function(tensor, x, out),
            Multiply::Entry(kernel) => {
                let done = with_all_prepared(tensor, |matrix| kernel.multiply(matrix, x, out));
                if !done {
                    portable::matmul(tensor, x, out);
                }
            }
        }
    }
}

/// Calls `each` with the matrix and all that a host prepares of it.
fn with_all_prepared<R>(tensor: &Tensor<'_>, each: impl FnOnce(&Matrix<'_>) -> R) -> R {
    #[cfg(feature = "std")]
    return each(&Prepared::new(*tensor, usize::MAX).unwrap().matrix());
    #[cfg(not(feature = "std"))]
    each(&Matrix::new(*tensor))
}

/// The portable kernel, the dispatch, and every entry of the table that this build has.
fn subjects() -> impl Iterator<Item = Subject> {
    let functions = [
        Subject::function("portable", portable::matmul),
        Subject::function("the chosen one", |tensor, x, out| matmul(&Matrix::new(*tensor), x, out)),
        #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
        Subject::function("by columns, dense vectors, too", |tensor, x, out| {
            let done =
                with_all_prepared(tensor, |matrix| super::host::matmul_by_columns(matrix, x, out));
            if !done {
                portable::matmul(tensor, x, out);
            }
        }),
    ];
    let entries = table::compiled()
        .map(|kernel| Subject { name: kernel.name, multiply: Multiply::Entry(kernel) });
    functions.into_iter().chain(entries)
}

/// Holds every kernel to the bound, to the portable kernel's bits, and a batch to its vectors one
/// at a time.
fn check(matrix: &Section, batch: &Batch) -> Result<(), TestCaseError> {
    let (tensor, rows) = (matrix.tensor(), matrix.rows);
    let mut expected = vec![0; batch.scales.len() * rows];
    portable::matmul(&tensor, batch.vectors(), &mut expected);
    for r in 0..rows {
        let weights = matrix.weights(r);
        for (b, codes) in batch.codes.chunks_exact(matrix.cols).enumerate() {
            let scale = Scale::unpack(batch.scales[b]);
            let (exact, bound) = matrix.product(r, &weights, codes, scale);
            let error = (expected[b * rows + r] as f64 - exact).abs();
            prop_assert!(error <= bound, "row {r}, vector {b}: off by {error}, allowed {bound}");
        }
    }
    for subject in subjects() {
        let (name, mut out) = (subject.name, vec![i32::MIN; expected.len()]);
        subject.run(&tensor, batch.vectors(), &mut out);
        prop_assert_eq!(&out, &expected, "{}", name);
        for (b, codes) in batch.codes.chunks_exact(matrix.cols).enumerate() {
            let mut alone = vec![i32::MIN; rows];
            let x = Vectors { codes, scales: &batch.scales[b..][..1] };
            subject.run(&tensor, x, &mut alone);
            prop_assert_eq!(&alone[..], &expected[b * rows..][..rows], "{} alone", name);
        }
    }
    Ok(())
}

/// Precision and group size; groups that divide a row, that do not, odd ones, longer than a row.
fn storages() -> impl Strategy<Value = (Precision, usize)> {
    prop_oneof![
        Just((Precision::Fp16, 0)),
        Just((Precision::Int8, 0)),
        Just((Precision::Int4, 32)),
        (grouped(), prop_oneof![prop::sample::select(vec![16usize, 32, 64]), 1usize..=64]),
    ]
}

fn grouped() -> impl Strategy<Value = Precision> {
    let grouped = Precision::ALL.into_iter().filter(|precision| precision.is_grouped());
    prop::sample::select(grouped.collect::<Vec<_>>())
}

/// Columns: multiples of 32, odd ones, anything.
fn columns() -> impl Strategy<Value = usize> {
    prop_oneof![
        (1usize..=6).prop_map(|n| 32 * n),
        (0usize..80).prop_map(|n| 2 * n + 1),
        1usize..200
    ]
}

/// Exponents of a vector and of a matrix: outputs that mostly fit, sometimes any shift that a blob
/// may ask for.
fn exponents() -> impl Strategy<Value = (i8, i32)> {
    prop_oneof![4 => (-30i8..=0, 8i32..40), 1 => (-64i8..=64, -20i32..100)]
        .prop_map(|(x, shift)| (x, (shift + x as i32 + 16).clamp(0, 80)))
}

fn matrices() -> impl Strategy<Value = (Section, i8, u64)> {
    let numbers = (any::<bool>(), 0u32..=16, any::<bool>(), any::<u64>());
    // Shifts that keep bits of the result, and every one that a blob can ask for.
    let exponents = prop_oneof![
        (-40i8..=10, 8i32..64).prop_map(|(x, shift)| (x, (shift + x as i32 + 16).clamp(0, 80))),
        (-64i8..=64, 0i32..=80),
    ];
    // Less than a panel of rows, and more.
    let rows = prop_oneof![4 => 1usize..6, 1 => 7usize..=18];
    (storages(), rows, columns(), exponents, numbers).prop_map(
        |((precision, group), rows, cols, (x, exponent), (relu, bias_exponent, biased, seed))| {
            let max_code = if relu { 255 } else { 127 };
            let matrix = Section::new(precision, group, rows, cols);
            let matrix = Section { exponent, bias_exponent, max_code, ..matrix };
            let mut random = Random(seed);
            (matrix.fill(biased, || random.next() as u8), x, seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }))]

    #[test]
    fn products_are_within_the_contract((matrix, exponent, seed) in matrices(), size in 1usize..5) {
        check(&matrix, &Batch::random(&matrix, size, exponent, &mut Random(!seed)))?;
    }

    #[test]
    fn a_range_of_rows_is_the_same_rows((matrix, exponent, seed) in matrices()) {
        let batch = Batch::random(&matrix, 1, exponent, &mut Random(!seed));
        let prepared = Matrix::new(matrix.tensor());
        let mut whole = vec![0; matrix.rows];
        matmul(&prepared, batch.vectors(), &mut whole);
        for first in 0..matrix.rows {
            for count in 1..=matrix.rows - first {
                let mut some = vec![0; count];
                matmul(&prepared.rows(first, count), batch.vectors(), &mut some);
                prop_assert_eq!(&some[..], &whole[first..][..count]);
            }
        }
    }

    #[test]
    fn embedding_rows_are_the_decoded_weights((matrix, _, seed) in matrices()) {
        let matrix = Section { biases: vec![], ..matrix };
        let before: Vec<i32> = {
            let mut random = Random(seed);
            (0..matrix.cols).map(|_| random.next() as i32).collect()
        };
        for r in 0..matrix.rows {
            let mut out = vec![0; matrix.cols];
            portable::row(&matrix.tensor(), r, &mut out);
            let mut chosen = vec![i32::MIN; matrix.cols];
            row(&matrix.tensor(), r, &mut chosen);
            prop_assert_eq!(&chosen, &out);
            let mut sum = before.clone();
            portable::add_row(&matrix.tensor(), r, &mut sum);
            for (c, weight) in matrix.weights(r).into_iter().enumerate() {
                let exact = (weight * 65536.0).clamp(i32::MIN as f64, i32::MAX as f64);
                prop_assert!((out[c] as f64 - exact).abs() <= 0.5, "{} is not {}", out[c], exact);
                prop_assert_eq!(sum[c], before[c].saturating_add(out[c]));
            }
        }
    }
}

/// The widest rows that a blob may have, every code and scale at its end: sums come within a
/// factor of two of what the accumulator holds, and an overflow would panic.
#[test]
fn the_widest_rows_at_the_largest_codes_stay_exact() {
    let widths: &[usize] = if cfg!(miri) { &[128] } else { &[16_384, 4_096, 1_025, 1_024, 512] };
    let storages = [
        (Precision::Fp16, 0),
        (Precision::Int8, 0),
        (Precision::Int4, 32),
        (Precision::Int4, 48),
        (Precision::Int4, 16_384),
        (Precision::Int2, 16),
        (Precision::Int2, 32),
        (Precision::Int3, 16),
        (Precision::Int3, 32),
        (Precision::Int4, 16),
        (Precision::Int4, 64),
        (Precision::Int5, 32),
        (Precision::Int6, 32),
    ];
    // Halves of ±65504, codes of −128 at odd places and everywhere, of 127, nibbles of −8 and 7,
    // pairs of −2 and 1 over zeros and ones.
    let fills: [[u8; 2]; 8] = [
        [0xff, 0x7b],
        [0xff, 0xfb],
        [0x80, 0x80],
        [0x00, 0x80],
        [0x7f, 0x7f],
        [0x88, 0x77],
        [0xaa, 0xaa],
        [0x55, 0x55],
    ];
    for ((precision, group), fill) in storages.into_iter().flat_map(|s| fills.map(|f| (s, f))) {
        for (max_code, &cols) in
            [127, 255].into_iter().flat_map(|m| widths.iter().map(move |w| (m, w)))
        {
            let rows = if cfg!(miri) { 2 } else { 9 };
            let matrix = Section { max_code, ..Section::new(precision, group, rows, cols) };
            let mut bytes = fill.into_iter().cycle();
            let mut matrix = matrix.fill(true, || bytes.next().unwrap_or(0));
            matrix.scales.fill(0xff);
            let code = max_code as i16;
            let codes = [vec![code; cols], vec![-code; cols]].concat();
            for exponent in [-30, -13, 33] {
                let scale = Scale { mantissa: (1 << 15) - 1, exponent }.pack();
                check(&matrix, &Batch { codes: codes.clone(), scales: vec![scale; 2] }).unwrap();
            }
        }
    }
}

#[test]
fn halves_become_floats_exactly() {
    for bits in (0..=u16::MAX).filter(|bits| bits & 0x7c00 != 0x7c00) {
        let [low, high] = bits.to_le_bytes();
        let float = portable::half_to_f32([low, high]);
        assert_eq!(float as f64, half(low, high));
        assert_eq!(float.is_sign_negative(), bits >> 15 == 1);
    }
}

/// Every number of values, those that are rounded twice or saturate among them.
#[test]
fn logits_become_the_same_halves() {
    let mut random = Random(7);
    for len in 0..40 {
        for drop in 0..32 {
            let values: Vec<i32> = (0..len).map(|_| random.next() as i32 >> drop).collect();
            for to_halves in [super::to_halves, portable::to_halves] {
                let mut halves = vec![f16::ONE; len];
                to_halves(&values, &mut halves);
                for (&value, half) in values.iter().zip(halves) {
                    assert_eq!(half.to_bits(), residual_to_half(value).to_bits(), "{value}");
                }
            }
        }
    }
}

/// Keeps its entry from being tested by the portable kernel alone: a sparse vector has a kernel of
/// its own in every grouped precision, a dense one has not.
#[test]
fn sparse_vectors_have_their_kernel() {
    let mut random = Random(14);
    for (precision, group) in Precision::ALL
        .into_iter()
        .filter(|p| p.is_grouped())
        .flat_map(|p| [16, 32, 64].map(|g| (p, g)))
    {
        let matrix = Section { max_code: 255, ..Section::new(precision, group, 8, 256) };
        let matrix = matrix.fill(true, || random.next() as u8);
        let scales = [Scale { mantissa: 20_000, exponent: -13 }.pack()];
        for (apart, expected) in [(20, true), (1, false)] {
            let codes: Vec<i16> = (0..256).map(|c| if c % apart == 0 { 255 } else { 0 }).collect();
            let x = Vectors { codes: &codes, scales: &scales };
            let sparse = table::compiled().find(|kernel| kernel.name == "sparse").unwrap();
            let done = sparse.multiply(&Matrix::new(matrix.tensor()), x, &mut [0; 8]);
            assert_eq!(done, expected, "{precision:?} {group}");
        }
    }
}

#[test]
fn zero_vectors_leave_the_bias() {
    for precision in [Precision::Int4, Precision::Int8, Precision::Fp16] {
        let group = if precision == Precision::Int4 { 32 } else { 0 };
        let matrix = Section::new(precision, group, 3, 40);
        let mut random = Random(1);
        let matrix = matrix.fill(true, || random.next() as u8);
        for subject in subjects() {
            let mut out = [0; 3];
            let scales = &[Scale::ZERO.pack()];
            subject.run(&matrix.tensor(), Vectors { codes: &[0; 40], scales }, &mut out);
            for (r, out) in out.into_iter().enumerate() {
                assert_eq!(out as f64, matrix.bias(r) * 65536.0);
            }
        }
    }
}

#[test]
fn a_matrix_without_rows_gives_nothing() {
    for precision in [Precision::Int4, Precision::Int8, Precision::Fp16] {
        let matrix = Section::new(precision, 1, 0, 0);
        for subject in subjects() {
            subject.run(&matrix.tensor(), Vectors { codes: &[], scales: &[0] }, &mut []);
            subject.run(&matrix.tensor(), Vectors { codes: &[], scales: &[0; 3] }, &mut []);
        }
    }
}
