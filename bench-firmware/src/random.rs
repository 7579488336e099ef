//! Seeded random matrices and vectors.

use resnet_bk_core::blob::{Precision, Tensor, TensorLayout};
use resnet_bk_core::internals::Vectors;
use resnet_bk_core::numeric::Scale;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        (((self.word() >> 32) * u64::from(limit)) >> 32) as u32
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for bytes in bytes.chunks_mut(8) {
            bytes.copy_from_slice(&self.word().to_le_bytes()[..bytes.len()]);
        }
    }
}

/// Storage and shape of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Storage precision.
    pub precision: Precision,
    /// Inputs per group; 0 unless the precision is grouped.
    pub group: usize,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

impl Shape {
    fn layout(&self) -> TensorLayout {
        TensorLayout::new(self.precision, self.rows, self.cols, self.group, true)
    }
}

/// Distribution of random numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Draw {
    /// Uniform.
    Even,
    /// Only the ends of their ranges.
    Extreme,
    /// Uniform, but only one code in twenty is nonzero, as after a ReLU.
    Sparse,
}

/// A matrix over `memory`, which must be large enough and aligned like a section.
pub fn matrix<'a>(
    shape: Shape,
    draw: Draw,
    memory: &'a mut [u8],
    random: &mut Random,
) -> Tensor<'a> {
    let layout = shape.layout();
    let section = &mut memory[..layout.len()];
    random.fill(section);
    if draw == Draw::Extreme {
        // Smallest and largest codes and scales; large halves.
        let ends: &[u8] = match shape.precision {
            Precision::Int8 => &[0x80, 0x7f, 0x81, 0x00, 0xff],
            Precision::Fp16 => &[0x7b, 0xfb, 0x00],
            _ => &[0x88, 0x77, 0x00, 0xff],
        };
        let one_kind = random.below(4);
        for byte in &mut section[..layout.scales_at()] {
            let kind = if one_kind < 2 { one_kind } else { random.below(ends.len() as u32) };
            *byte = ends[kind as usize];
        }
        section[layout.scales_at()..layout.biases_at()].fill(0xff);
    }
    if shape.precision == Precision::Fp16 {
        // Finite halves only.
        for high in section[..layout.scales_at()].iter_mut().skip(1).step_by(2) {
            if *high & 0x7c == 0x7c {
                *high &= !0x40;
            }
        }
    }
    let section: &'a [u8] = section;
    let (codes, rest) = section.split_at(layout.scales_at());
    let (scales, biases) = rest.split_at(layout.biases_at() - layout.scales_at());
    let fine = draw != Draw::Extreme;
    // As in the shipped model, matrices with fewer rows than columns follow a ReLU.
    let after_relu = if fine { shape.cols > shape.rows } else { random.below(2) == 1 };
    let max_code = if after_relu { 255 } else { 127 };
    Tensor {
        precision: shape.precision,
        rows: shape.rows,
        cols: shape.cols,
        group: shape.group,
        // As in the shipped model; otherwise any allowed shift.
        exponent: if fine { 31 } else { random.below(81) as i32 },
        bias_exponent: if fine { 15 } else { random.below(17) },
        max_code,
        codes,
        scales,
        biases,
    }
}

/// A vector for a matrix.
pub struct Vector {
    codes: [i16; Self::LONGEST],
    scale: [u32; 1],
    len: usize,
}

impl Vector {
    /// Largest number of elements.
    pub const LONGEST: usize = 1024;

    /// An empty vector.
    pub const fn new() -> Self {
        Self { codes: [0; Self::LONGEST], scale: [0], len: 0 }
    }

    /// Draws random codes and a scale for the inputs of `matrix`.
    pub fn draw(&mut self, matrix: &Tensor<'_>, draw: Draw, random: &mut Random) {
        self.len = matrix.cols;
        let max = matrix.max_code as i16;
        let min = if max == 255 { 0 } else { -max };
        let (kind, span) = (random.below(5), (max - min + 1) as u32);
        for code in &mut self.codes[..self.len] {
            *code = match (draw, kind) {
                (Draw::Sparse, _) if random.below(20) > 0 => 0,
                (Draw::Even | Draw::Sparse, _) => min + random.below(span) as i16,
                (Draw::Extreme, 0) => max,
                (Draw::Extreme, 1) => min,
                (Draw::Extreme, 2) => [0, max, min][random.below(3) as usize],
                (Draw::Extreme, _) => [0, max, min][random.below(40).saturating_sub(37) as usize],
            };
        }
        let exponent = match draw {
            Draw::Even | Draw::Sparse => -13,
            Draw::Extreme => (random.below(129) as i32 - 64) as i8,
        };
        let mantissa = match (draw, random.below(4)) {
            (Draw::Extreme, 0) => 0x7fff,
            _ => random.below(1 << 14) as u16 | 1 << 14,
        };
        self.scale = [Scale { mantissa, exponent }.pack()];
    }

    /// The vector as an argument of kernels.
    pub fn get(&self) -> Vectors<'_> {
        Vectors { codes: &self.codes[..self.len], scales: &self.scale }
    }
}

impl Default for Vector {
    fn default() -> Self {
        Self::new()
    }
}
