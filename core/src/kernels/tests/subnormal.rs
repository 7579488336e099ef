//! Subnormal halves, in every setting of the processor for subnormal floats.
//!
//! No float operation of a kernel may see a subnormal number: some settings, and some soft-float
//! libraries, flush them to zero.

#[path = "../../../tests/suite/subnormals.rs"]
#[allow(unsafe_code)]
mod subnormals;

use std::{vec, vec::Vec};

use super::matrix::{Batch, Section};
use super::{portable, row, subjects};
use crate::blob::Precision;
use crate::numeric::Scale;
use subnormals::in_every_setting;

/// Eight rows of every subnormal half of either sign, zeros of either sign, and normal ones beside
/// them.
fn of_subnormals(columns: usize) -> Section {
    let halves = (0..0x440u16).flat_map(|half| [half, half | 0x8000]);
    let mut bytes: Vec<u8> = halves.flat_map(u16::to_le_bytes).collect();
    let rows = bytes.len().div_ceil(2 * columns).max(8);
    bytes.resize(2 * columns * rows, 1);
    let matrix = Section::new(Precision::Fp16, 0, rows, columns);
    let mut bytes = bytes.into_iter();
    let mut matrix = matrix.fill(true, || bytes.next().unwrap_or(0));
    matrix.biases.fill(0);
    matrix
}

#[test]
fn products_with_subnormal_halves_need_no_subnormal_floats() {
    for columns in [1, 8, 40, 131, 1088] {
        let matrix = of_subnormals(columns);
        for (size, max) in [1, 2, 5].into_iter().flat_map(|size| [(size, 127), (size, 255i16)]) {
            let matrix = Section { max_code: max as u32, ..matrix.clone() };
            let codes = (0..size * columns).map(|c| [max, 1, 0, max / 3, 2][c % 5]).collect();
            // Outputs of all of their bits, and of the smallest vectors that there are.
            let exponents = [14, 1, -64].into_iter().cycle();
            let scales = exponents.map(|exponent| Scale { mantissa: 1 << 14, exponent }.pack());
            let batch = Batch { codes, scales: scales.take(size).collect() };
            let run = |subject: &super::Subject| {
                let mut out = vec![i32::MIN; size * matrix.rows];
                subject.run(&matrix.tensor(), batch.vectors(), &mut out);
                out
            };
            let reference = super::Subject::function("portable", portable::matmul);
            let expected = in_every_setting("portable", &|| run(&reference));
            assert!(expected.iter().any(|&value| value != 0));
            for subject in subjects() {
                let name = subject.name;
                assert_eq!(in_every_setting(name, &|| run(&subject)), expected, "{name}");
            }
        }
    }
}

#[test]
fn rows_of_subnormal_halves_need_no_subnormal_floats() {
    let matrix = Section { biases: vec![], ..of_subnormals(97) };
    let read = |read: fn(&crate::blob::Tensor<'_>, usize, &mut [i32])| {
        let mut out = vec![0; matrix.rows * matrix.cols];
        for (r, out) in out.chunks_exact_mut(matrix.cols).enumerate() {
            read(&matrix.tensor(), r, out);
        }
        out
    };
    let expected = in_every_setting("portable", &|| read(portable::row));
    assert_eq!(in_every_setting("the chosen one", &|| read(row)), expected);
}

#[test]
fn logits_of_every_size_need_no_subnormal_floats() {
    let values: Vec<i32> =
        (0..32).flat_map(|bit| [1 << bit, 3 << bit, (5i32 << bit).wrapping_neg()]).collect();
    for to_halves in [crate::kernels::to_halves, portable::to_halves] {
        in_every_setting("halves", &|| {
            let mut halves = vec![half::f16::ZERO; values.len()];
            to_halves(&values, &mut halves);
            halves.iter().map(|half| half.to_bits()).collect::<Vec<_>>()
        });
    }
}
