//! Which kernel multiplies a matrix, and why none of the fast ones does where that is so.
//!
//! The conditions of the kernels for microcontrollers stand here and nowhere else. The kernels ask them when they
//! run; [`choice`] and [`choice_on`] report what they say. They look at storage, shape and address alone,
//! so that a host can answer for a device.
//!
//! A kernel takes its matrix for any vector but a few of extreme scales, which may be left to the portable
//! one; and behind a ReLU vectors that are mostly zeros have kernels of their own, wherever the matrix lies.

use core::fmt;

use super::portable::LANES;
use crate::blob::{Precision, Tensor};

/// Longest row whose vector the integer kernels of microcontrollers keep on the stack.
pub(super) const LONGEST: usize = 512;
/// Longest row whose vector is kept as floats on the stack.
pub(super) const LONGEST_FP16: usize = 256;
/// Inputs that the integer kernels take at a time: a group of INT4.
pub(super) const BLOCK: usize = 32;
/// Bytes that loads of words want codes aligned to.
const WORD: usize = align_of::<u32>();

/// Why a matrix has no fast kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Reason {
    /// This processor, or this build for it, has no kernel for the precision and the group size.
    Storage,
    /// There is a kernel, but not for so many rows or columns.
    Shape,
    /// There is a kernel, but it loads words and the codes are not at a multiple of four bytes: the
    /// blob is not where a word may be. [`crate::include_blob!`] puts it there.
    Alignment,
}

impl Reason {
    /// Its name in one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Shape => "shape",
            Self::Alignment => "alignment",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "no kernel for this precision and group size on this processor",
            Self::Shape => "no kernel for this number of rows and columns",
            Self::Alignment => "the blob is not aligned: include it by include_blob!",
        })
    }
}

/// The kernel of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Choice {
    /// Its name.
    pub kernel: &'static str,
    /// Why it is none of the fast ones; `None` where it is, and for an embedding, of which no more than a
    /// row is read.
    pub fallback: Option<Reason>,
}

impl Choice {
    /// What embeddings are read by.
    pub(crate) const ROW: Self = Self { kernel: "a row", fallback: None };
}

/// A core of microcontrollers that has kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Core {
    /// Cortex-M4 or M7 with a single-precision FPU: `thumbv7em-none-eabihf`.
    CortexM4F,
    /// The same without, or with its FPU unused: `thumbv7em-none-eabi`.
    CortexM4,
    /// Cortex-M3: `thumbv7m-none-eabi`.
    CortexM3,
    /// Cortex-M0, M0+ or M1: `thumbv6m-none-eabi`.
    CortexM0,
    /// 32-bit RISC-V with multiplication: `riscv32imc-unknown-none-elf` and its like.
    Riscv32Im,
}

impl Core {
    /// Every core.
    pub const ALL: [Self; 5] =
        [Self::CortexM4F, Self::CortexM4, Self::CortexM3, Self::CortexM0, Self::Riscv32Im];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CortexM4F => "cortex-m4f",
            Self::CortexM4 => "cortex-m4",
            Self::CortexM3 => "cortex-m3",
            Self::CortexM0 => "cortex-m0",
            Self::Riscv32Im => "riscv32imc",
        }
    }

    /// The core that this build is for.
    #[cfg(any(arm_dsp, swar))]
    const HERE: Self = if cfg!(arm_fpu) {
        Self::CortexM4F
    } else if cfg!(arm_dsp) {
        Self::CortexM4
    } else if cfg!(armv6m) {
        Self::CortexM0
    } else if cfg!(target_arch = "riscv32") {
        Self::Riscv32Im
    } else {
        Self::CortexM3
    };
}

/// The kernel by which [`super::matmul`] multiplies `matrix` in this build, on this processor, by a
/// vector on its own.
pub fn choice(matrix: &Tensor<'_>) -> Choice {
    #[cfg(any(arm_dsp, swar))]
    return choice_on(Core::HERE, matrix);
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    return settle(&[super::x86_64::candidate(matrix)]);
    #[cfg(all(feature = "std", target_arch = "aarch64"))]
    return settle(&[super::aarch64::candidate(matrix)]);
    #[cfg(not(any(
        arm_dsp,
        swar,
        all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64"))
    )))]
    {
        let _ = matrix;
        settle(&[])
    }
}

/// [`choice`] on a microcontroller's core, whatever this build is for. Addresses are those that `matrix` has here.
pub fn choice_on(core: Core, matrix: &Tensor<'_>) -> Choice {
    let planes = ("words of planes", planes(matrix));
    match core {
        Core::CortexM4F => settle(&[("DSP extension", dsp(matrix)), planes, ("FPU", fpu(matrix))]),
        Core::CortexM4 => settle(&[("DSP extension", dsp(matrix)), planes]),
        Core::CortexM3 | Core::CortexM0 | Core::Riscv32Im => {
            settle(&[("products in words", swar(matrix)), planes])
        }
    }
}

/// The first of the candidates that takes the matrix, or the portable kernel with what the nearest one lacks.
fn settle(candidates: &[(&'static str, Result<(), Reason>)]) -> Choice {
    let mut reason = Reason::Storage;
    for &(kernel, admitted) in candidates {
        match admitted {
            Ok(()) => return Choice { kernel, fallback: None },
            Err(Reason::Storage) => {}
            Err(other) => reason = other,
        }
    }
    Choice { kernel: "portable", fallback: Some(reason) }
}

/// Whether `dsp` takes a matrix: INT8, or INT4 in groups of 32, rows of whole blocks.
#[inline(always)]
pub(super) fn dsp(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if !is_of_blocks(matrix) {
        return Err(Reason::Storage);
    }
    words(matrix, (1..=LONGEST).contains(&matrix.cols) && matrix.cols.is_multiple_of(BLOCK))
}

/// Whether `swar` does: the same, but INT4 by two groups at a time.
#[inline(always)]
pub(super) fn swar(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if !is_of_blocks(matrix) || matrix.max_code > 255 {
        return Err(Reason::Storage);
    }
    let whole = if matrix.precision == Precision::Int8 { BLOCK } else { 2 * BLOCK };
    words(matrix, (1..=LONGEST).contains(&matrix.cols) && matrix.cols.is_multiple_of(whole))
}

/// Whether `planes` does: groups that divide into units as the kernels take them, rows of whole groups
/// and words; not INT4 in groups of 32, which has its own.
#[inline(always)]
pub(super) fn planes(matrix: &Tensor<'_>) -> Result<(), Reason> {
    use Precision::{Int2, Int3, Int4, Int5, Int6};
    let known = matches!(
        (matrix.precision, matrix.group),
        (Int2 | Int3 | Int4, 16) | (Int2 | Int3 | Int5 | Int6, 32) | (Int4, 64)
    );
    if !known || matrix.max_code > 255 || matrix.biases.is_empty() {
        return Err(Reason::Storage);
    }
    words(
        matrix,
        (1..=LONGEST).contains(&matrix.cols) && matrix.cols.is_multiple_of(matrix.group.max(BLOCK)),
    )
}

/// Whether `fpu` does: FP16, rows of whole rounds of eight lanes.
#[inline(always)]
pub(super) fn fpu(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if matrix.precision != Precision::Fp16 {
        return Err(Reason::Storage);
    }
    words(matrix, (1..=LONGEST_FP16).contains(&matrix.cols) && matrix.cols.is_multiple_of(LANES))
}

/// INT8, or INT4 in groups of 32; of a linear layer, which has biases.
#[inline(always)]
fn is_of_blocks(matrix: &Tensor<'_>) -> bool {
    let int4 = matrix.precision == Precision::Int4 && matrix.group == BLOCK;
    (matrix.precision == Precision::Int8 || int4) && !matrix.biases.is_empty()
}

/// What remains of the conditions where the storage is right: `fits` and codes, aligned to words.
#[inline(always)]
fn words(matrix: &Tensor<'_>, fits: bool) -> Result<(), Reason> {
    if !fits || matrix.codes.is_empty() {
        return Err(Reason::Shape);
    }
    if !matrix.codes.as_ptr().addr().is_multiple_of(WORD) {
        return Err(Reason::Alignment);
    }
    Ok(())
}
