//! Every kernel against an f64 product of the decoded weights, and against the portable one.
//!
//! The decoding in [`matrix`] is written from `docs/format.md`, not from the kernels.

mod matrix;

use half::f16;
use proptest::prelude::*;
use std::{vec, vec::Vec};

use matrix::{Batch, Matrix, Random, half};

use super::{Vectors, matmul, planes, portable, row};
use crate::blob::{Precision, Tensor};
use crate::numeric::{Scale, residual_to_half};

type Kernel = fn(&Tensor<'_>, Vectors<'_>, &mut [i32]);

/// Every kernel of this build. A new one joins with one line.
const KERNELS: &[(&str, Kernel)] = &[
    ("portable", portable::matmul),
    ("the chosen one", matmul),
    ("sparse", |matrix, x, out| {
        if !super::sparse::matmul(matrix, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    ("without DSP", |matrix, x, out| {
        if !super::swar::matmul(matrix, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    ("planes with DSP", |matrix, x, out| {
        if !planes::matmul::<planes::Dsp>(matrix, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    ("planes without DSP", |matrix, x, out| {
        if !planes::matmul::<planes::Swar>(matrix, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    #[cfg(feature = "std")]
    ("batched", |matrix, x, out| super::batched::matmul(super::batched::Plain, matrix, x, out)),
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    ("AVX2", |matrix, x, out| {
        if !super::x86_64::matmul_with(None, matrix, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    ("AVX-512 VNNI", |matrix, x, out| {
        if !super::x86_64::matmul_with(super::x86_64::Vnni::detect(), matrix, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    ("AVX2 by columns", |matrix, x, out| {
        let columns = super::by_columns(matrix);
        if !super::x86_64::matmul_by_columns(&Tensor { columns: &columns, ..*matrix }, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    #[cfg(all(feature = "std", target_arch = "aarch64"))]
    ("NEON", |matrix, x, out| super::aarch64::matmul_with(None, matrix, x, out)),
    #[cfg(all(feature = "std", target_arch = "aarch64"))]
    ("NEON with dot products", |matrix, x, out| {
        super::aarch64::matmul_with(super::aarch64::Dot::detect(), matrix, x, out);
    }),
];

/// Holds every kernel to the bound, to the portable kernel's bits, and a batch to its vectors one
/// at a time.
fn check(matrix: &Matrix, batch: &Batch) -> Result<(), TestCaseError> {
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
    for &(name, kernel) in KERNELS {
        let mut out = vec![i32::MIN; expected.len()];
        kernel(&tensor, batch.vectors(), &mut out);
        prop_assert_eq!(&out, &expected, "{}", name);
        for (b, codes) in batch.codes.chunks_exact(matrix.cols).enumerate() {
            let mut alone = vec![i32::MIN; rows];
            let x = Vectors { codes, scales: &batch.scales[b..][..1] };
            kernel(&tensor, x, &mut alone);
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

fn matrices() -> impl Strategy<Value = (Matrix, i8, u64)> {
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
            let matrix = Matrix::new(precision, group, rows, cols);
            let matrix = Matrix { exponent, bias_exponent, max_code, ..matrix };
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
    fn a_stretch_of_rows_is_the_same_rows((matrix, exponent, seed) in matrices()) {
        let batch = Batch::random(&matrix, 1, exponent, &mut Random(!seed));
        let tensor = matrix.tensor();
        let mut whole = vec![0; matrix.rows];
        matmul(&tensor, batch.vectors(), &mut whole);
        for first in 0..matrix.rows {
            for count in 1..=matrix.rows - first {
                let mut some = vec![0; count];
                matmul(&tensor.rows(first, count), batch.vectors(), &mut some);
                prop_assert_eq!(&some[..], &whole[first..][..count]);
            }
        }
    }

    #[test]
    fn embedding_rows_are_the_decoded_weights((matrix, _, seed) in matrices()) {
        let matrix = Matrix { biases: vec![], ..matrix };
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
    // Halves of ±65504, codes of −128 at odd places and everywhere, 127, nibbles of −8 and 7, pairs of −2 and 1 over zeros
    // and ones.
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
            let matrix = Matrix { max_code, ..Matrix::new(precision, group, rows, cols) };
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 96 }))]

    /// What the kernels of hosts are for: rows in eights and sixteens with some left over, whole registers
    /// of columns and more than the stack takes, batches of more vectors than are taken together.
    #[cfg_attr(miri, ignore = "too slow there; the test below has what is needed of it")]
    #[test]
    fn hosts_agree_on_shapes_of_their_own(
        (precision, group) in prop::sample::select(vec![
            (Precision::Int4, 32),
            (Precision::Int8, 0),
            (Precision::Fp16, 0),
            (Precision::Int6, 32),
        ]),
        rows in 8usize..=40,
        cols in prop::sample::select(vec![32usize, 64, 96, 128, 192, 256, 1024, 1056, 1088, 2112]),
        size in prop_oneof![4 => Just(1usize), 3 => 2usize..9, 1 => 127usize..132],
        (relu, biased, seed) in (any::<bool>(), any::<bool>(), any::<u64>()),
        (x, shift) in prop_oneof![4 => (-30i8..=0, 8i32..40), 1 => (-64i8..=64, -20i32..100)],
    ) {
        let exponent = (shift + x as i32 + 16).clamp(0, 80);
        let max_code = if relu { 255 } else { 127 };
        let matrix = Matrix { exponent, max_code, ..Matrix::new(precision, group, rows, cols) };
        let mut random = Random(seed);
        let matrix = matrix.fill(biased, || random.next() as u8);
        let batch = Batch::random(&matrix, size, x, &mut random);
        let mut expected = vec![0; size * rows];
        portable::matmul(&matrix.tensor(), batch.vectors(), &mut expected);
        for &(name, kernel) in KERNELS {
            let mut out = vec![i32::MIN; expected.len()];
            kernel(&matrix.tensor(), batch.vectors(), &mut out);
            prop_assert_eq!(&out, &expected, "{}", name);
        }
    }
}

#[cfg(feature = "std")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]

    /// Vectors in which zeros are many, few, all and none, one and several, for any matrix of integers: the kernel
    /// is chosen by how many there are.
    #[test]
    fn a_copy_by_columns_changes_nothing(
        (precision, group) in prop_oneof![Just((Precision::Int8, 0)), (grouped(), 1usize..=64)],
        rows in prop_oneof![2 => 1usize..=40, 1 => 63usize..=81],
        cols in prop_oneof![4 => columns(), 1 => 1020usize..=1030],
        size in prop_oneof![4 => Just(1usize), 3 => 2usize..5, 1 => 15usize..18],
        percent in prop::sample::select(vec![0u64, 1, 5, 25, 50, 100]),
        (relu, biased, seed) in (any::<bool>(), any::<bool>(), any::<u64>()),
        (x, shift) in prop_oneof![4 => (-30i8..=0, 8i32..40), 1 => (-64i8..=64, -20i32..100)],
    ) {
        let exponent = (shift + x as i32 + 16).clamp(0, 80);
        let max_code = if relu { 255 } else { 127 };
        let matrix = Matrix { exponent, max_code, ..Matrix::new(precision, group, rows, cols) };
        let mut random = Random(seed);
        let matrix = matrix.fill(biased, || random.next() as u8);
        let mut batch = Batch::random(&matrix, size, x, &mut random);
        for code in &mut batch.codes {
            *code = if random.below(100) < percent { *code } else { 0 };
        }
        let tensor = matrix.tensor();
        let columns = super::by_columns(&tensor);
        let tensor = Tensor { columns: &columns, ..tensor };
        let mut expected = vec![0; size * rows];
        portable::matmul(&tensor, batch.vectors(), &mut expected);
        let mut out = vec![i32::MIN; expected.len()];
        matmul(&tensor, batch.vectors(), &mut out);
        prop_assert_eq!(&out, &expected);
        let first = random.below(rows as u64) as usize;
        let count = 1 + random.below((rows - first) as u64) as usize;
        let mut some = vec![i32::MIN; size * count];
        matmul(&tensor.rows(first, count), batch.vectors(), &mut some);
        for (some, all) in some.chunks(count).zip(expected.chunks(rows)) {
            prop_assert_eq!(some, &all[first..][..count]);
        }
    }
}

/// Otherwise the test above would be of nothing: with a copy of something else the outputs change where most codes are
/// zeros, and nowhere else.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[test]
fn a_copy_by_columns_is_what_vectors_of_zeros_meet() {
    let mut random = Random(13);
    for (precision, group) in [(Precision::Int4, 32), (Precision::Int8, 0), (Precision::Int6, 16)] {
        let matrix = Matrix { max_code: 255, ..Matrix::new(precision, group, 20, 64) };
        let matrix = matrix.fill(true, || random.next() as u8);
        let tensor = matrix.tensor();
        let mut other = matrix.clone();
        other.scales.fill(0);
        let columns = super::by_columns(&other.tensor());
        if columns.is_empty() {
            assert!(super::x86_64::Vnni::detect().is_none());
            continue;
        }
        let tensor = Tensor { columns: &columns, ..tensor };
        let scales = [Scale { mantissa: 20_000, exponent: -13 }.pack()];
        for (nonzero, expected) in [(7, &other), (64, &matrix)] {
            let codes: Vec<i16> = (0..64).map(|c| if c < nonzero { 255 } else { 0 }).collect();
            let x = Vectors { codes: &codes, scales: &scales };
            let (mut out, mut one) = ([0; 20], [0; 20]);
            matmul(&tensor, x, &mut out);
            portable::matmul(&expected.tensor(), x, &mut one);
            assert_eq!(out, one, "{nonzero} of {precision:?}");
        }
    }
}

/// The same at the edges of what registers, masks and the stack hold, small enough for Miri, which can run the
/// kernels of processors that are not at hand.
#[test]
fn products_of_bytes_agree_at_the_edges_of_registers() {
    let mut random = Random(11);
    let shapes = [(8, 32, 1), (9, 64, 1), (8, 96, 1), (8, 160, 2), (17, 64, 5)];
    let more =
        [(Precision::Int8, 1, 8, 71), (Precision::Int8, 1, 8, 576), (Precision::Int4, 1, 8, 1056)];
    let both = [Precision::Int8, Precision::Int4];
    let shapes = both.iter().flat_map(|&p| shapes.map(|(rows, cols, size)| (p, size, rows, cols)));
    for (precision, size, rows, cols) in shapes.chain(more) {
        for max_code in [127, 255] {
            let group = if precision == Precision::Int4 { 32 } else { 0 };
            let matrix = Matrix { max_code, ..Matrix::new(precision, group, rows, cols) };
            let matrix = matrix.fill(true, || random.next() as u8);
            let mut batch = Batch::random(&matrix, size, -13, &mut random);
            all_agree_on_bytes(
                &matrix,
                &mut batch,
                &format_args!("{rows} × {cols} of {precision:?}, {size}"),
            );
        }
    }
}

/// INT4 in whole stretches of 64 columns: rows that are no multiple of four or eight, any place of the last
/// scales, and outputs that fit, that need 64 bits, and that saturate.
#[test]
fn products_of_bytes_agree_on_four_rows_at_a_time() {
    let mut random = Random(12);
    for (rows, cols) in [(4, 128), (5, 192), (8, 256), (11, 320), (17, 128)] {
        for (max_code, exponent) in [(127, -30), (255, -30), (127, -13), (255, -13), (255, 5)] {
            let matrix = Matrix { max_code, ..Matrix::new(Precision::Int4, 32, rows, cols) };
            let matrix = matrix.fill(true, || random.next() as u8);
            let mut batch = Batch::random(&matrix, 1, exponent, &mut random);
            all_agree_on_bytes(
                &matrix,
                &mut batch,
                &format_args!("{rows} × {cols}, exponent {exponent}"),
            );
        }
    }
}

/// Compares every kernel with the portable one, on these codes and on the largest. Of kernels that are not for
/// x86-64 Miri would learn nothing here.
fn all_agree_on_bytes(matrix: &Matrix, batch: &mut Batch, case: &dyn core::fmt::Display) {
    for extreme in [false, true] {
        if extreme {
            batch.codes.fill(matrix.max_code as i16);
        }
        let mut expected = vec![0; batch.scales.len() * matrix.rows];
        portable::matmul(&matrix.tensor(), batch.vectors(), &mut expected);
        let slow = |name: &str| cfg!(miri) && !name.starts_with("AVX");
        for &(name, kernel) in KERNELS.iter().filter(|(name, _)| !slow(name)) {
            let mut out = vec![i32::MIN; expected.len()];
            kernel(&matrix.tensor(), batch.vectors(), &mut out);
            assert_eq!(out, expected, "{name}: {case}");
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
            let mut halves = vec![f16::ONE; len];
            super::to_halves(&values, &mut halves);
            for (value, half) in values.into_iter().zip(halves) {
                assert_eq!(half.to_bits(), residual_to_half(value).to_bits(), "{value}");
            }
        }
    }
}

#[test]
fn zero_vectors_leave_the_bias() {
    for precision in [Precision::Int4, Precision::Int8, Precision::Fp16] {
        let group = if precision == Precision::Int4 { 32 } else { 0 };
        let matrix = Matrix::new(precision, group, 3, 40);
        let mut random = Random(1);
        let matrix = matrix.fill(true, || random.next() as u8);
        for (_, kernel) in KERNELS {
            let mut out = [0; 3];
            let scales = &[Scale::ZERO.pack()];
            kernel(&matrix.tensor(), Vectors { codes: &[0; 40], scales }, &mut out);
            for (r, out) in out.into_iter().enumerate() {
                assert_eq!(out as f64, matrix.bias(r) * 65536.0);
            }
        }
    }
}

#[test]
fn a_matrix_without_rows_gives_nothing() {
    for precision in [Precision::Int4, Precision::Int8, Precision::Fp16] {
        let matrix = Matrix::new(precision, 1, 0, 0);
        for (_, kernel) in KERNELS {
            kernel(&matrix.tensor(), Vectors { codes: &[], scales: &[0] }, &mut []);
            kernel(&matrix.tensor(), Vectors { codes: &[], scales: &[0; 3] }, &mut []);
        }
    }
}
