//! Matrices with a copy by columns.

use proptest::prelude::*;
use std::{vec, vec::Vec};

use super::matrix::{Batch, Random, Section};
use super::{columns, exponents, grouped};
use crate::blob::Precision;
use crate::kernels::host::by_columns;
use crate::kernels::{Matrix, Prepared, Vectors, matmul, portable};
use crate::numeric::Scale;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]

    /// One vector and several, with any share of zeros, which decides on the kernel, for any matrix
    /// of integers.
    #[test]
    fn a_copy_by_columns_changes_nothing(
        (precision, group) in prop_oneof![Just((Precision::Int8, 0)), (grouped(), 1usize..=64)],
        rows in prop_oneof![2 => 1usize..=40, 1 => 63usize..=81],
        cols in prop_oneof![4 => columns(), 1 => 1020usize..=1030],
        size in prop_oneof![4 => Just(1usize), 3 => 2usize..5, 1 => 15usize..18],
        percent in prop::sample::select(vec![0u64, 1, 5, 25, 50, 100]),
        (relu, biased, seed) in (any::<bool>(), any::<bool>(), any::<u64>()),
        (x, exponent) in exponents(),
    ) {
        let max_code = if relu { 255 } else { 127 };
        let matrix = Section { exponent, max_code, ..Section::new(precision, group, rows, cols) };
        let mut random = Random(seed);
        let matrix = matrix.fill(biased, || random.next() as u8);
        let mut batch = Batch::random(&matrix, size, x, &mut random);
        for code in &mut batch.codes {
            *code = if random.below(100) < percent { *code } else { 0 };
        }
        let tensor = matrix.tensor();
        let prepared = Prepared::new(tensor, usize::MAX).unwrap();
        let mut expected = vec![0; size * rows];
        portable::matmul(&tensor, batch.vectors(), &mut expected);
        let mut out = vec![i32::MIN; expected.len()];
        matmul(&prepared.matrix(), batch.vectors(), &mut out);
        prop_assert_eq!(&out, &expected);
        let first = random.below(rows as u64) as usize;
        let count = 1 + random.below((rows - first) as u64) as usize;
        let mut some = vec![i32::MIN; size * count];
        matmul(&prepared.matrix().rows(first, count), batch.vectors(), &mut some);
        for (some, all) in some.chunks(count).zip(expected.chunks(rows)) {
            prop_assert_eq!(some, &all[first..][..count]);
        }
    }
}

/// Keeps the test above from testing nothing: with a copy of another matrix, outputs change where
/// most codes are zeros, and nowhere else.
#[test]
fn sparse_vectors_read_the_copy_by_columns() {
    let mut random = Random(13);
    for (precision, group) in [(Precision::Int4, 32), (Precision::Int8, 0), (Precision::Int6, 16)] {
        let matrix = Section { max_code: 255, ..Section::new(precision, group, 20, 64) };
        let matrix = matrix.fill(true, || random.next() as u8);
        let tensor = matrix.tensor();
        let mut other = matrix.clone();
        other.scales.fill(0);
        let columns = by_columns(&other.tensor(), usize::MAX).unwrap();
        if columns.is_empty() {
            #[cfg(target_arch = "x86_64")]
            if !std::arch::is_x86_feature_detected!("avx2") {
                continue;
            }
            panic!("no copy of {precision:?}");
        }
        let with_columns_of_other = Matrix { columns: &columns, ..Matrix::new(tensor) };
        let scales = [Scale { mantissa: 20_000, exponent: -13 }.pack()];
        for (nonzero, expected) in [(7, &other), (64, &matrix)] {
            let codes: Vec<i16> = (0..64).map(|c| if c < nonzero { 255 } else { 0 }).collect();
            let x = Vectors { codes: &codes, scales: &scales };
            let (mut out, mut one) = ([0; 20], [0; 20]);
            matmul(&with_columns_of_other, x, &mut out);
            portable::matmul(&expected.tensor(), x, &mut one);
            assert_eq!(out, one, "{nonzero} of {precision:?}");
        }
    }
}
