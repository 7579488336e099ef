//! Matrices and vectors with parts shorter than their numbers say: a kernel may panic or leave
//! outputs unchanged, but must not read or write beyond its slices. Writes are checked here; every
//! part is an allocation of its exact size, so that Miri and Valgrind check reads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{vec, vec::Vec};

use super::matrix::{Batch, Random, Section};
use super::{Vectors, subjects};
use crate::blob::Precision;

/// Guards around outputs.
const GUARD: i32 = 0x5a5a_5a5a;

/// A matrix with one part shorter than its numbers ask for, in an allocation of exactly that size.
fn shortened(matrix: &Section, part: usize, by: usize) -> Section {
    let mut short = matrix.clone();
    let bytes = [&mut short.codes, &mut short.scales, &mut short.biases].into_iter().nth(part);
    if let Some(bytes) = bytes {
        *bytes = bytes[..bytes.len().saturating_sub(by)].to_vec();
    }
    short
}

#[test]
fn kernels_stay_within_what_they_are_given() {
    let mut random = Random(15);
    let storages = [
        (Precision::Fp16, 0),
        (Precision::Int8, 0),
        (Precision::Int4, 32),
        (Precision::Int2, 16),
        (Precision::Int5, 32),
        (Precision::Int6, 7),
    ];
    for ((precision, group), max_code) in storages.into_iter().flat_map(|s| [(s, 127), (s, 255)]) {
        let (rows, cols) = (9, 128);
        let matrix = Section { max_code, ..Section::new(precision, group, rows, cols) };
        let matrix = matrix.fill(true, || random.next() as u8);
        let row = matrix.codes.len() / rows;
        // A byte less, a row less, nothing at all: of codes, scales and biases, of the vectors, of
        // the outputs.
        let parts = (0..5).flat_map(|part| [1, row, usize::MAX].map(|by| (part, by)));
        for ((part, by), size) in parts.flat_map(|part| [(part, 1), (part, 3)]) {
            let short = shortened(&matrix, part, by);
            let batch = Batch::random(&matrix, size, -13, &mut random);
            let less =
                |count: usize, of: usize| if part == of { count.saturating_sub(by) } else { count };
            let codes: Vec<i16> = batch.codes[..less(size * cols, 3)].to_vec();
            let x = Vectors { codes: &codes, scales: &batch.scales };
            for subject in subjects() {
                let count = less(size * rows, 4);
                let mut memory = vec![GUARD; 64 + count + 64];
                let out = &mut memory[64..][..count];
                let _ = catch_unwind(AssertUnwindSafe(|| subject.run(&short.tensor(), x, out)));
                let (before, after) = (&memory[..64], &memory[64 + count..]);
                let kept = before.iter().chain(after).all(|&word| word == GUARD);
                assert!(kept, "{}: {precision:?}, part {part} by {by}", subject.name);
            }
        }
    }
}
