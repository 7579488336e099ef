//! What [`crate::Model::kernels`] reports: the kernel of a matrix, and why it is the portable one.

use core::fmt;

/// Why a matrix has no fast kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Reason {
    /// This processor, or this build, has no kernel for the precision and the group size.
    Storage,
    /// There is a kernel, but not for this number of rows or columns.
    Shape,
    /// There is a kernel, but it loads words and the codes are not 4-byte aligned.
    /// [`crate::include_blob!`] aligns a blob.
    Alignment,
}

impl Reason {
    /// Name in one word.
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
            Self::Alignment => "the blob is not aligned: include it with include_blob!",
        })
    }
}

/// The kernel of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Choice {
    /// Its name.
    pub kernel: &'static str,
    /// Why it is the portable one; `None` for a fast kernel, and for an embedding, of which only
    /// single rows are read, and for a convolution in INT8.
    pub fallback: Option<Reason>,
}

impl Choice {
    /// How embeddings are read.
    pub(crate) const ROW: Self = Self { kernel: "a row", fallback: None };
}

/// A microcontroller core that has kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Core {
    /// Cortex-M4 or M7 with a single-precision FPU: `thumbv7em-none-eabihf`.
    CortexM4F,
    /// The same without an FPU, or with its FPU unused: `thumbv7em-none-eabi`.
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

    /// Name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CortexM4F => "cortex-m4f",
            Self::CortexM4 => "cortex-m4",
            Self::CortexM3 => "cortex-m3",
            Self::CortexM0 => "cortex-m0",
            Self::Riscv32Im => "riscv32imc",
        }
    }
}
