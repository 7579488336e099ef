//! Every kernel against an f64 product of the decoded weights, and against the portable one.
//!
//! The decoding here is written from `docs/format.md`, not from the kernels, and shares nothing
//! with them.

use half::f16;
use proptest::prelude::*;
use std::{vec, vec::Vec};

use super::{Vectors, matmul, portable, row};
use crate::blob::{Precision, Tensor};
use crate::numeric::{Scale, residual_to_half};

type Kernel = fn(&Tensor<'_>, Vectors<'_>, &mut [i32]);

/// Every kernel of this build. A new one joins with one line.
const KERNELS: &[(&str, Kernel)] = &[
    ("portable", portable::matmul),
    ("the chosen one", matmul),
    ("without DSP", |matrix, x, out| {
        if !super::swar::matmul(matrix, x, out) {
            portable::matmul(matrix, x, out);
        }
    }),
    #[cfg(feature = "std")]
    ("batched", |matrix, x, out| super::batched::matmul(super::batched::Plain, matrix, x, out)),
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    ("AVX2", |matrix, x, out| {
        if !super::x86_64::matmul(matrix, x, out) {
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

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A matrix as bytes, with everything a record says of it.
#[derive(Clone, Debug)]
struct Matrix {
    precision: Precision,
    rows: usize,
    cols: usize,
    group: usize,
    exponent: i32,
    bias_exponent: u32,
    max_code: u32,
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Matrix {
    /// A matrix without numbers yet.
    fn new(precision: Precision, group: usize, rows: usize, cols: usize) -> Self {
        Self {
            precision,
            rows,
            cols,
            group,
            exponent: 44,
            bias_exponent: 8,
            max_code: 127,
            codes: vec![],
            scales: vec![],
            biases: vec![],
        }
    }

    /// Lengths of the groups of a row.
    fn groups(&self) -> Vec<usize> {
        let starts = (0..self.cols).step_by(self.group);
        starts.map(|start| self.group.min(self.cols - start)).collect()
    }

    fn row_codes(&self) -> usize {
        match self.precision {
            Precision::Fp16 => 2 * self.cols,
            Precision::Int8 => self.cols,
            _ => {
                let plane = |bits: usize| {
                    self.groups().iter().map(|len| (len * bits).div_ceil(8)).sum::<usize>()
                };
                planes(self.precision).iter().map(|&(bits, _)| plane(bits)).sum()
            }
        }
    }

    fn row_scales(&self) -> usize {
        match self.precision {
            Precision::Fp16 => 0,
            Precision::Int8 => 2,
            _ => 2 + self.groups().len().div_ceil(2),
        }
    }

    /// Fills codes, scales and biases with what `byte` returns; no half becomes infinite or NaN.
    fn fill(mut self, biased: bool, mut byte: impl FnMut() -> u8) -> Self {
        let mut bytes = |len: usize| (0..len).map(|_| byte()).collect::<Vec<u8>>();
        self.codes = bytes(self.rows * self.row_codes());
        self.scales = bytes(self.rows * self.row_scales());
        self.biases = bytes(if biased { 2 * self.rows } else { 0 });
        if self.precision == Precision::Fp16 {
            for high in self.codes.iter_mut().skip(1).step_by(2).filter(|h| **h & 0x7c == 0x7c) {
                *high &= !0x40;
            }
        }
        self
    }

    fn tensor(&self) -> Tensor<'_> {
        Tensor {
            precision: self.precision,
            rows: self.rows,
            cols: self.cols,
            group: self.group,
            exponent: self.exponent,
            bias_exponent: self.bias_exponent,
            max_code: self.max_code,
            codes: &self.codes,
            scales: &self.scales,
            biases: &self.biases,
        }
    }

    /// The weights of a row; for the integer precisions still per unit of activation code.
    fn weights(&self, row: usize) -> Vec<f64> {
        let codes = &self.codes[row * self.row_codes()..][..self.row_codes()];
        let scales = &self.scales[row * self.row_scales()..][..self.row_scales()];
        if self.precision == Precision::Fp16 {
            return codes.chunks(2).map(|pair| half(pair[0], pair[1])).collect();
        }
        let mantissa = u16::from_le_bytes([scales[0], scales[1]]) as f64;
        let unit = mantissa * power_of_two(-self.exponent);
        if self.precision == Precision::Int8 {
            // Inputs 0, 2, 4, … are stored plus 128.
            let code = |(c, &byte): (usize, &u8)| match c % 2 {
                0 => byte as f64 - 128.0,
                _ => byte as i8 as f64,
            };
            return codes.iter().enumerate().map(|byte| code(byte) * unit).collect();
        }
        let mut weights = vec![0.0; self.cols];
        let mut first = 0;
        let mut signed = true;
        for &(bits, shift) in planes(self.precision) {
            let mut input = 0;
            for (group, len) in self.groups().into_iter().enumerate() {
                let shared = scales[2 + group / 2];
                let scale = if group % 2 == 0 { shared & 15 } else { shared >> 4 };
                let bytes = (len * bits).div_ceil(8);
                for i in 0..len {
                    let value =
                        codes[first + i % bytes] >> (bits * (i / bytes)) & ((1 << bits) - 1);
                    // INT4 is stored plus 8, but for the upper half of an odd byte.
                    let offset =
                        self.precision == Precision::Int4 && (i % bytes % 2 == 0 || i / bytes == 0);
                    let value = match value as f64 {
                        value if offset => value - 8.0,
                        value if signed && value >= power_of_two(bits as i32 - 1) => {
                            value - power_of_two(bits as i32)
                        }
                        value => value,
                    };
                    weights[input + i] += value * (1 << shift) as f64 * scale as f64 * unit;
                }
                first += bytes;
                input += len;
            }
            signed = false;
        }
        weights
    }

    fn bias(&self, row: usize) -> f64 {
        if self.biases.is_empty() {
            return 0.0;
        }
        let bias = i16::from_le_bytes([self.biases[2 * row], self.biases[2 * row + 1]]);
        bias as f64 * power_of_two(-(self.bias_exponent as i32))
    }

    /// The product that every kernel must be near, in units of 2^−16, and how near.
    fn product(&self, row: usize, weights: &[f64], codes: &[i16], scale: Scale) -> (f64, f64) {
        let x = scale.mantissa as f64 * power_of_two(scale.exponent as i32);
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for (&weight, &code) in weights.iter().zip(codes) {
            let term = weight * code as f64 * x;
            sum += term;
            magnitude += term.abs();
        }
        let n = self.cols as f64;
        // Integers: the rounding to Q15.16 alone; what else there is belongs to this f64 sum.
        let mut bound = 0.5 + (n + 4.0) * magnitude * 65536.0 * power_of_two(-53);
        if self.precision == Precision::Fp16 {
            sum /= self.max_code as f64;
            magnitude /= self.max_code as f64;
            // Additions of a lane, of the lanes, and three roundings of the scale.
            let roundings = (n / 8.0).ceil() + 3.0 + 3.0;
            bound += 1.01 * roundings * power_of_two(-24) * magnitude * 65536.0;
        }
        let saturated = |v: f64| v.clamp(i32::MIN as f64, i32::MAX as f64);
        let biased = saturated(saturated(sum * 65536.0) + self.bias(row) * 65536.0);
        (biased, bound)
    }
}

/// Bits of a grouped precision's planes and what they are shifted by.
fn planes(precision: Precision) -> &'static [(usize, usize)] {
    match precision {
        Precision::Int2 => &[(2, 0)],
        Precision::Int3 => &[(2, 1), (1, 0)],
        Precision::Int4 => &[(4, 0)],
        Precision::Int5 => &[(4, 1), (1, 0)],
        Precision::Int6 => &[(4, 2), (2, 0)],
        Precision::Int8 | Precision::Fp16 => &[],
    }
}

/// 2^exponent, exactly: what the standard library returns for it is up to the platform.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// An IEEE half, by the definition.
fn half(low: u8, high: u8) -> f64 {
    let bits = u16::from_le_bytes([low, high]);
    let fraction = (bits & 0x3ff) as f64;
    let magnitude = match (bits >> 10) & 31 {
        0 => fraction * power_of_two(-24),
        exponent => (1024.0 + fraction) * power_of_two(exponent as i32 - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Vectors for a matrix: codes within its range, any scale.
struct Batch {
    codes: Vec<i16>,
    scales: Vec<u32>,
}

impl Batch {
    fn vectors(&self) -> Vectors<'_> {
        Vectors { codes: &self.codes, scales: &self.scales }
    }

    /// `size` vectors: random, all at the largest code, all at the smallest, zero, sparse.
    fn random(matrix: &Matrix, size: usize, exponent: i8, random: &mut Random) -> Self {
        let max = matrix.max_code as i16;
        let min = if max == 255 { 0 } else { -max };
        let span = (max - min + 1) as u64;
        let mut codes = Vec::new();
        let mut scales = Vec::new();
        for _ in 0..size {
            let kind = random.below(8);
            codes.extend((0..matrix.cols).map(|_| match kind {
                0 => max,
                1 => min,
                2 => 0,
                3 => [0, 0, 0, max, min][random.below(5) as usize],
                _ => min + random.below(span) as i16,
            }));
            let mantissa = match random.below(8) {
                0 => 0,
                1 => (1 << 15) - 1,
                _ => random.below(1 << 15) as u16,
            };
            scales.push(Scale { mantissa, exponent }.pack());
        }
        Self { codes, scales }
    }
}

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
    let widths: &[usize] = if cfg!(miri) { &[128] } else { &[16_384, 1_025, 1_024, 512] };
    let storages = [
        (Precision::Fp16, 0),
        (Precision::Int8, 0),
        (Precision::Int4, 32),
        (Precision::Int4, 48),
        (Precision::Int4, 16_384),
        (Precision::Int2, 32),
        (Precision::Int3, 32),
        (Precision::Int5, 32),
        (Precision::Int6, 32),
    ];
    // Halves of ±65504, codes of −128 and 127, nibbles of −8 and 7, pairs of −2 and 1 over zeros
    // and ones.
    let fills: [[u8; 2]; 7] = [
        [0xff, 0x7b],
        [0xff, 0xfb],
        [0x80, 0x80],
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
