//! Random matrices and vectors, and what they stand for by `docs/format.md` and `docs/numerics.md`.
//! Shares nothing with the kernels.

use std::{vec, vec::Vec};

use crate::blob::{Precision, Tensor};
use crate::kernels::Vectors;
use crate::numeric::Scale;

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A matrix as bytes, with everything a record says of it.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) precision: Precision,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) group: usize,
    pub(super) exponent: i32,
    pub(super) bias_exponent: u32,
    pub(super) max_code: u32,
    pub(super) codes: Vec<u8>,
    pub(super) scales: Vec<u8>,
    pub(super) biases: Vec<u8>,
}

impl Section {
    /// A matrix without numbers yet.
    pub(super) fn new(precision: Precision, group: usize, rows: usize, cols: usize) -> Self {
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
    pub(super) fn groups(&self) -> Vec<usize> {
        let starts = (0..self.cols).step_by(self.group);
        starts.map(|start| self.group.min(self.cols - start)).collect()
    }

    pub(super) fn row_codes(&self) -> usize {
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

    pub(super) fn row_scales(&self) -> usize {
        match self.precision {
            Precision::Fp16 => 0,
            Precision::Int8 => 2,
            _ => 2 + self.groups().len().div_ceil(2),
        }
    }

    /// Fills codes, scales and biases by `byte`; no half becomes infinite or NaN.
    pub(super) fn fill(mut self, biased: bool, mut byte: impl FnMut() -> u8) -> Self {
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

    pub(super) fn tensor(&self) -> Tensor<'_> {
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
    pub(super) fn weights(&self, row: usize) -> Vec<f64> {
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
                    // INT4 is stored plus 8, except the high half of an odd byte.
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

    pub(super) fn bias(&self, row: usize) -> f64 {
        if self.biases.is_empty() {
            return 0.0;
        }
        let bias = i16::from_le_bytes([self.biases[2 * row], self.biases[2 * row + 1]]);
        bias as f64 * power_of_two(-(self.bias_exponent as i32))
    }

    /// The exact product, in units of 2^−16, and the error bound of every kernel.
    pub(super) fn product(
        &self,
        row: usize,
        weights: &[f64],
        codes: &[i16],
        scale: Scale,
    ) -> (f64, f64) {
        let x = scale.mantissa as f64 * power_of_two(scale.exponent as i32);
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for (&weight, &code) in weights.iter().zip(codes) {
            let term = weight * code as f64 * x;
            sum += term;
            magnitude += term.abs();
        }
        let n = self.cols as f64;
        // Integers: the rounding to Q15.16, and the rounding errors of this f64 sum.
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
pub(super) fn planes(precision: Precision) -> &'static [(usize, usize)] {
    match precision {
        Precision::Int2 => &[(2, 0)],
        Precision::Int3 => &[(2, 1), (1, 0)],
        Precision::Int4 => &[(4, 0)],
        Precision::Int5 => &[(4, 1), (1, 0)],
        Precision::Int6 => &[(4, 2), (2, 0)],
        Precision::Int8 | Precision::Fp16 => &[],
    }
}

/// 2^exponent, exactly; the standard library's precision depends on the platform.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// An IEEE half, by the definition.
pub(super) fn half(low: u8, high: u8) -> f64 {
    let bits = u16::from_le_bytes([low, high]);
    let fraction = (bits & 0x3ff) as f64;
    let magnitude = match (bits >> 10) & 31 {
        0 => fraction * power_of_two(-24),
        exponent => (1024.0 + fraction) * power_of_two(exponent as i32 - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Vectors for a matrix: codes within its range, any scale.
pub(super) struct Batch {
    pub(super) codes: Vec<i16>,
    pub(super) scales: Vec<u32>,
}

impl Batch {
    pub(super) fn vectors(&self) -> Vectors<'_> {
        Vectors { codes: &self.codes, scales: &self.scales }
    }

    /// `size` vectors: random, all at the largest code, all at the smallest, zero, sparse, sparser.
    pub(super) fn random(matrix: &Section, size: usize, exponent: i8, random: &mut Random) -> Self {
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
                4 if random.below(16) > 0 => 0,
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
