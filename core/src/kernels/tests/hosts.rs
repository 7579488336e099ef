//! The shapes that the kernels of hosts are for.

use proptest::prelude::*;
use std::vec;
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
use std::vec::Vec;

use super::matrix::{Batch, Random, Section};
use super::{exponents, subjects};
use crate::blob::Precision;
use crate::kernels::portable;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 96 }))]

    /// What the kernels of hosts are for: rows in eights and sixteens with some left over, whole
    /// registers of columns and more than the stack takes, batches of more vectors than are taken
    /// together.
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
        (x, exponent) in exponents(),
    ) {
        let max_code = if relu { 255 } else { 127 };
        let matrix = Section { exponent, max_code, ..Section::new(precision, group, rows, cols) };
        let mut random = Random(seed);
        let matrix = matrix.fill(biased, || random.next() as u8);
        let batch = Batch::random(&matrix, size, x, &mut random);
        let mut expected = vec![0; size * rows];
        portable::matmul(&matrix.tensor(), batch.vectors(), &mut expected);
        for subject in subjects() {
            let mut out = vec![i32::MIN; expected.len()];
            subject.run(&matrix.tensor(), batch.vectors(), &mut out);
            prop_assert_eq!(&out, &expected, "{}", subject.name);
        }
    }
}

/// The same at the edges of what registers, masks and the stack hold, small enough for Miri, which
/// can run the kernels of processors that are not at hand.
#[test]
fn products_of_bytes_agree_at_the_edges_of_registers() {
    let mut random = Random(11);
    let shapes = [(8, 32, 1), (9, 64, 1), (16, 96, 1), (8, 160, 2), (17, 64, 5), (17, 128, 1)];
    let more = [
        (Precision::Int8, 1, 8, 71),
        (Precision::Int8, 1, 8, 576),
        (Precision::Int4, 1, 16, 160),
        (Precision::Int4, 1, 16, 256),
        (Precision::Int4, 1, 8, 1056),
        (Precision::Int4, 1, 16, 1056),
    ];
    let both = [Precision::Int8, Precision::Int4];
    let shapes = both.iter().flat_map(|&p| shapes.map(|(rows, cols, size)| (p, size, rows, cols)));
    for (precision, size, rows, cols) in shapes.chain(more) {
        for max_code in [127, 255] {
            let group = if precision == Precision::Int4 { 32 } else { 0 };
            let matrix = Section { max_code, ..Section::new(precision, group, rows, cols) };
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

/// INT4 in whole chunks of 64 columns: rows that are no multiple of four or eight, any place of
/// the last scales, and outputs that fit, that need 64 bits, and that saturate.
#[test]
fn products_of_bytes_agree_on_four_rows_at_a_time() {
    let mut random = Random(12);
    for (rows, cols) in [(4, 128), (5, 192), (8, 256), (11, 320), (17, 128)] {
        for (max_code, exponent) in [(127, -30), (255, -30), (127, -13), (255, -13), (255, 5)] {
            let matrix = Section { max_code, ..Section::new(Precision::Int4, 32, rows, cols) };
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

/// Keeps the entries with AVX-512 VNNI from being tested by AVX2 alone: they take all usual shapes,
/// whether chosen or not.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[test]
fn products_of_bytes_have_kernels_with_vnni() {
    use crate::kernels::{Matrix, table};
    let kernels: Vec<_> =
        table::compiled().filter(|kernel| kernel.name.starts_with("AVX-512 VNNI")).collect();
    if !kernels.iter().any(|kernel| kernel.is_available()) {
        return;
    }
    // Entries with one name share a function: those for wide units take what others leave.
    crate::kernels::x86_64::HostKernels::Vnni.select();
    let mut random = Random(15);
    for (precision, group) in [(Precision::Int4, 32), (Precision::Int8, 0)] {
        for (cols, max_code, size) in [(128, 127, 1), (256, 255, 1), (1024, 127, 1), (128, 127, 9)]
        {
            let matrix = Section { max_code, ..Section::new(precision, group, 40, cols) };
            let matrix = matrix.fill(true, || random.next() as u8);
            let mut batch = Batch::random(&matrix, size, -13, &mut random);
            batch.codes.fill(1);
            let mut expected = vec![0; size * 40];
            portable::matmul(&matrix.tensor(), batch.vectors(), &mut expected);
            let mut out = vec![i32::MIN; size * 40];
            let tensor = Matrix::new(matrix.tensor());
            assert!(kernels.iter().any(|k| k.multiply(&tensor, batch.vectors(), &mut out)));
            assert_eq!(out, expected, "{precision:?} of {cols}, {size}");
        }
    }
}

/// Keeps the entries with NEON from being tested by the portable kernel alone: each takes every
/// storage that it is for, whether chosen or not, and no storage is left to the portable kernel.
#[cfg(all(feature = "std", neon))]
#[test]
fn every_storage_has_kernels_with_neon() {
    use crate::kernels::kernel::{Kernel, Takes};
    use crate::kernels::{Prepared, choice, table};
    let kernels: Vec<&Kernel> = table::compiled()
        .filter(|kernel| kernel.name.starts_with("NEON") && kernel.is_available())
        .collect();
    assert!(kernels.len() >= 3);
    let mut random = Random(16);
    let storages = Precision::ALL.into_iter().flat_map(|precision| {
        let groups: &[usize] = if precision.is_grouped() { &[16, 32, 64] } else { &[0] };
        groups.iter().map(move |&group| (precision, group))
    });
    for (precision, group) in storages {
        // Also longer than what is decoded on the stack.
        for (cols, max_code) in [(128, 127), (192, 255), (1088, 127), (1088, 255)] {
            let matrix = Section { max_code, ..Section::new(precision, group, 21, cols) };
            let matrix = matrix.fill(true, || random.next() as u8);
            let tensor = matrix.tensor();
            assert!(choice(&tensor).kernel.starts_with("NEON"), "{precision:?} {group} {cols}");
            let prepared = Prepared::new(tensor, usize::MAX).unwrap();
            for kernel in &kernels {
                let batch = kernel.takes == Takes::Batches;
                let mut vectors =
                    Batch::random(&matrix, if batch { 5 } else { 1 }, -13, &mut random);
                if kernel.takes == Takes::Sparse {
                    vectors.codes.iter_mut().skip(1).for_each(|code| *code = 0);
                }
                let rows = vectors.scales.len() * 21;
                let (mut expected, mut out) = (vec![0; rows], vec![i32::MIN; rows]);
                portable::matmul(&tensor, vectors.vectors(), &mut expected);
                let done = kernel.multiply(&prepared.matrix(), vectors.vectors(), &mut out);
                let halves = precision == Precision::Fp16;
                let columns = kernel.takes == Takes::Sparse && (halves || cols > 1024);
                let bytes = kernel.name.starts_with("NEON panels with") && halves;
                let case = format_args!("{}: {precision:?} {group} {cols}", kernel.name);
                assert_eq!(done, !columns && !bytes, "{case}");
                assert!(!done || out == expected, "{case}");
            }
        }
    }
}

/// Compares every kernel with the portable one, on these codes and on the largest. Of kernels that
/// are not for x86-64 Miri would learn nothing here.
fn all_agree_on_bytes(matrix: &Section, batch: &mut Batch, case: &dyn core::fmt::Display) {
    for extreme in [false, true] {
        if extreme {
            batch.codes.fill(matrix.max_code as i16);
        }
        let mut expected = vec![0; batch.scales.len() * matrix.rows];
        portable::matmul(&matrix.tensor(), batch.vectors(), &mut expected);
        let slow = |name: &str| cfg!(miri) && !name.starts_with("AVX");
        for subject in subjects().filter(|subject| !slow(subject.name)) {
            let mut out = vec![i32::MIN; expected.len()];
            subject.run(&matrix.tensor(), batch.vectors(), &mut out);
            assert_eq!(out, expected, "{}: {case}", subject.name);
        }
    }
}
