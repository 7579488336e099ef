//! What a kernel needs of a processor.

use super::choice::Core;

/// Capabilities of processors.
#[allow(dead_code, reason = "no build has kernels for all")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// A multiplier of 32 bits: on microcontrollers without [`Needs::Dsp`].
    Multiplier,
    /// The DSP extension of Cortex-M.
    Dsp,
    /// A single-precision FPU that converts halves.
    Fpu,
    /// AVX2 and what came with it: FMA, F16C, LZCNT, BMI.
    Avx2,
    /// AVX-512 with dot products of bytes.
    Vnni,
    /// The same with execution units of 512 bits.
    WideVnni,
    /// NEON, on a little-endian processor.
    Neon,
    /// The dot products of Armv8.2, besides NEON.
    DotProducts,
    /// The products of matrices of bytes of Armv8.6, besides NEON.
    MatrixProducts,
    /// Nothing.
    Nothing,
}

impl Needs {
    /// Whether a microcontroller's core has it.
    pub(super) const fn met_by(self, core: Core) -> bool {
        let dsp = matches!(core, Core::CortexM4F | Core::CortexM4);
        match self {
            Self::Dsp => dsp,
            Self::Fpu => matches!(core, Core::CortexM4F),
            Self::Multiplier => !dsp,
            _ => false,
        }
    }
}
