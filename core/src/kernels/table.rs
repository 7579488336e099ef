//! The table of kernels: one entry each, fastest first.
//!
//! A matrix gets the kernels that admit it once, when it is cut from its blob ([`Matrix::new`]); a
//! product tries those in the order of the table, and the portable kernel takes what they leave.
//! Tests and benchmarks iterate over the same entries ([`compiled`]).
#![allow(unsafe_code)]

use super::choice::{Choice, Core, Reason};
use super::kernel::{Kernel, Takes, is_complete};
use super::matrix::{Mask, Matrix};
use super::needs::Needs;
use super::shapes;
use super::vectors::Vectors;
use crate::blob::Tensor;

#[cfg(all(feature = "std", neon))]
use super::aarch64;
#[cfg(all(feature = "std", any(test, not(any(target_arch = "x86_64", neon)))))]
use super::batched;
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
use super::columns;
#[cfg(arm_dsp)]
use super::dsp;
#[cfg(arm_fpu)]
use super::fpu;
#[cfg(any(arm_dsp, swar, test))]
use super::planes;
#[cfg(any(arm_dsp, swar, test))]
use super::sparse;
#[cfg(any(swar, test))]
use super::swar;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use super::x86_64;

/// For vectors that a ReLU leaves, on devices.
#[cfg(any(arm_dsp, swar, test))]
const SPARSE: Kernel = Kernel {
    name: "sparse",
    needs: Needs::Multiplier,
    takes: Takes::Sparse,
    admits: sparse::admits,
    run: Some(sparse::run),
};

/// INT4 in groups of 32 and INT8 on Cortex-M4 and M7.
const DSP: Kernel = Kernel {
    name: "DSP extension",
    needs: Needs::Dsp,
    takes: Takes::Any,
    admits: shapes::dsp,
    #[cfg(arm_dsp)]
    run: Some(dsp::run),
    #[cfg(not(arm_dsp))]
    run: None,
};

/// INT4 in groups of 32 and INT8 on Cortex-M0, M3 and RISC-V.
const SWAR: Kernel = Kernel {
    name: "products in words",
    needs: Needs::Multiplier,
    takes: Takes::Any,
    admits: shapes::swar,
    #[cfg(any(swar, test))]
    run: Some(swar::run),
    #[cfg(not(any(swar, test)))]
    run: None,
};

/// The other integers in groups, with the DSP extension.
const PLANES_DSP: Kernel = Kernel {
    name: "words of planes",
    needs: Needs::Dsp,
    takes: Takes::Any,
    admits: shapes::planes,
    #[cfg(arm_dsp)]
    run: Some(planes::run::<planes::Smlad>),
    #[cfg(not(arm_dsp))]
    run: None,
};

/// The other integers in groups, without.
const PLANES: Kernel = Kernel {
    needs: Needs::Multiplier,
    #[cfg(any(swar, test))]
    run: Some(planes::run::<planes::Mul32>),
    #[cfg(not(any(swar, test)))]
    run: None,
    ..PLANES_DSP
};

/// FP16 on Cortex-M4F and M7F.
const FPU: Kernel = Kernel {
    name: "FPU",
    needs: Needs::Fpu,
    takes: Takes::Any,
    admits: shapes::fpu,
    #[cfg(arm_fpu)]
    run: Some(fpu::run),
    #[cfg(not(arm_fpu))]
    run: None,
};

/// The arithmetic of [`PLANES_DSP`] in Rust, for tests.
#[cfg(test)]
const PLANES_DSP_MODEL: Kernel = Kernel {
    name: "words of planes, DSP extension in Rust",
    needs: Needs::Nothing,
    run: Some(planes::run::<planes::Smlad>),
    ..PLANES_DSP
};

/// Rows by columns, for vectors that a ReLU leaves.
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
const COLUMNS: Kernel = Kernel {
    #[cfg(target_arch = "x86_64")]
    name: "AVX2 by columns",
    #[cfg(neon)]
    name: "NEON by columns",
    #[cfg(target_arch = "x86_64")]
    needs: Needs::Avx2,
    #[cfg(neon)]
    needs: Needs::Neon,
    takes: Takes::Sparse,
    admits: columns::admits,
    #[cfg(target_arch = "x86_64")]
    run: Some(x86_64::columns::run),
    #[cfg(neon)]
    run: Some(aarch64::columns::run),
};

/// INT8, and INT4 in groups of 32 with long rows.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
const VNNI: Kernel = Kernel {
    name: "AVX-512 VNNI",
    needs: Needs::Vnni,
    takes: Takes::Any,
    admits: x86_64::shapes::vnni,
    run: Some(x86_64::vnni::run),
};

/// INT4 in groups of 32 with short rows, where AVX2 is faster unless units are wide.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
const WIDE_VNNI: Kernel =
    Kernel { needs: Needs::WideVnni, admits: x86_64::shapes::wide_vnni, ..VNNI };

#[cfg(all(feature = "std", target_arch = "x86_64"))]
const AVX2: Kernel = Kernel {
    name: "AVX2",
    needs: Needs::Avx2,
    takes: Takes::Any,
    admits: x86_64::shapes::avx2,
    run: Some(x86_64::single::run),
};

#[cfg(all(feature = "std", target_arch = "x86_64"))]
const VNNI_PANELS: Kernel = Kernel {
    name: "AVX-512 VNNI panels",
    needs: Needs::Vnni,
    takes: Takes::Batches,
    admits: x86_64::shapes::vnni_panels,
    run: Some(x86_64::vnni_panels::run),
};

#[cfg(all(feature = "std", target_arch = "x86_64"))]
const AVX2_PANELS: Kernel = Kernel {
    name: "AVX2 panels",
    needs: Needs::Avx2,
    takes: Takes::Batches,
    admits: any_matrix,
    run: Some(x86_64::panels::run),
};

#[cfg(all(feature = "std", neon))]
const DOT_PRODUCTS: Kernel = Kernel {
    name: "NEON with dot products",
    needs: Needs::DotProducts,
    run: Some(aarch64::single::run_with_dot_products),
    ..NEON
};

#[cfg(all(feature = "std", neon))]
const NEON: Kernel = Kernel {
    name: "NEON",
    needs: Needs::Neon,
    takes: Takes::Any,
    admits: aarch64::single::admits,
    run: Some(aarch64::single::run),
};

#[cfg(all(feature = "std", neon))]
const MATRIX_PRODUCT_PANELS: Kernel = Kernel {
    name: "NEON panels with matrix products",
    needs: Needs::MatrixProducts,
    run: Some(aarch64::byte_panels::run_with_matrix_products),
    ..DOT_PRODUCT_PANELS
};

#[cfg(all(feature = "std", neon))]
const DOT_PRODUCT_PANELS: Kernel = Kernel {
    name: "NEON panels with dot products",
    needs: Needs::DotProducts,
    takes: Takes::Batches,
    admits: aarch64::byte_panels::admits,
    run: Some(aarch64::byte_panels::run_with_dot_products),
};

#[cfg(all(feature = "std", neon))]
const NEON_PANELS: Kernel = Kernel {
    name: "NEON panels",
    needs: Needs::Neon,
    takes: Takes::Batches,
    admits: any_matrix,
    run: Some(aarch64::panels::run),
};

/// What compilers vectorize, on hosts without kernels of their own.
#[cfg(all(feature = "std", any(test, not(any(target_arch = "x86_64", neon)))))]
const BATCHED: Kernel = Kernel {
    name: "batched",
    needs: Needs::Nothing,
    takes: Takes::Batches,
    admits: any_matrix,
    run: Some(batched::run),
};

#[cfg(feature = "std")]
fn any_matrix(_: &Tensor<'_>) -> Result<(), Reason> {
    Ok(())
}

/// The kernels of microcontrollers, for [`choice_on`].
const DEVICES: [Kernel; 5] = [DSP, SWAR, PLANES_DSP, PLANES, FPU];

/// The kernels that this build chooses from, in the order in which they are tried.
const HERE: &[Kernel] = &[
    #[cfg(any(arm_dsp, swar))]
    SPARSE,
    #[cfg(arm_dsp)]
    DSP,
    #[cfg(swar)]
    SWAR,
    #[cfg(arm_dsp)]
    PLANES_DSP,
    #[cfg(swar)]
    PLANES,
    #[cfg(arm_fpu)]
    FPU,
    #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
    COLUMNS,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    VNNI,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    WIDE_VNNI,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    AVX2,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    VNNI_PANELS,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    AVX2_PANELS,
    #[cfg(all(feature = "std", neon))]
    DOT_PRODUCTS,
    #[cfg(all(feature = "std", neon))]
    NEON,
    #[cfg(all(feature = "std", neon))]
    MATRIX_PRODUCT_PANELS,
    #[cfg(all(feature = "std", neon))]
    DOT_PRODUCT_PANELS,
    #[cfg(all(feature = "std", neon))]
    NEON_PANELS,
    #[cfg(all(feature = "std", not(any(target_arch = "x86_64", neon))))]
    BATCHED,
];
const _: () = assert!(HERE.len() <= Mask::BITS as usize);

/// Every kernel whose code this build has, those of devices among them in tests.
pub fn compiled() -> impl Iterator<Item = &'static Kernel> {
    #[cfg(test)]
    const ELSEWHERE: &[Kernel] = &[
        SPARSE,
        SWAR,
        PLANES,
        PLANES_DSP_MODEL,
        #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
        BATCHED,
    ];
    #[cfg(not(test))]
    const ELSEWHERE: &[Kernel] = &[];
    HERE.iter().chain(ELSEWHERE)
}

/// The kernels of [`HERE`] that admit a tensor.
#[inline(always)]
pub(super) fn admitting(tensor: &Tensor<'_>) -> Mask {
    if !is_complete(tensor) {
        return 0;
    }
    let mut mask = 0;
    for (k, kernel) in HERE.iter().enumerate() {
        mask |= ((kernel.admits)(tensor).is_ok() as Mask) << k;
    }
    mask
}

/// The kernels for vectors that are mostly zeros.
#[cfg(feature = "std")]
pub(super) const SPARSE_VECTORS: Mask = {
    let (mut mask, mut k) = (0, 0);
    while k < HERE.len() {
        mask |= (matches!(HERE[k].takes, Takes::Sparse) as Mask) << k;
        k += 1;
    }
    mask
};

/// Multiplies by the first kernel of a mask that takes the vectors; returns whether one did.
///
/// # Safety
///
/// For each kernel of the mask, the conditions of [`super::kernel::Run`] hold.
#[inline(always)]
pub(super) unsafe fn run(mask: Mask, matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    for (k, kernel) in HERE.iter().enumerate() {
        if mask >> k & 1 == 1
            && let Some(run) = kernel.run
            // SAFETY: as the caller says.
            && unsafe { run(matrix, x, out) }
        {
            return true;
        }
    }
    false
}

/// The kernels that this processor can run.
#[inline(always)]
pub(super) fn available() -> Mask {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    return BY_FEATURES[x86_64::Features::found() as usize];
    #[cfg(all(feature = "std", neon))]
    {
        let without = |has: bool, mask: Mask| if has { Mask::MAX } else { !mask };
        without(aarch64::has_dot_products(), const { needing(Needs::DotProducts) })
            & without(aarch64::has_matrix_products(), const { needing(Needs::MatrixProducts) })
    }
    #[cfg(not(all(feature = "std", any(target_arch = "x86_64", neon))))]
    Mask::MAX
}

/// The kernels that need something.
#[cfg(all(feature = "std", neon))]
const fn needing(needs: Needs) -> Mask {
    let (mut mask, mut k) = (0, 0);
    while k < HERE.len() {
        mask |= ((HERE[k].needs as u8 == needs as u8) as Mask) << k;
        k += 1;
    }
    mask
}

/// The kernels that processors with [`x86_64::Features`] can run, by the latter.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
const BY_FEATURES: [Mask; x86_64::Features::COUNT] = {
    let mut masks = [0; x86_64::Features::COUNT];
    let mut f = 0;
    while f < masks.len() {
        let mut k = 0;
        while k < HERE.len() {
            masks[f] |= ((x86_64::Features::least(HERE[k].needs) as usize <= f) as Mask) << k;
            k += 1;
        }
        f += 1;
    }
    masks
};

/// The kernel by which [`super::dispatch::matmul`] multiplies `matrix` in this build, on this
/// processor, by a vector on its own; for vectors that are not sparse.
pub(crate) fn choice(matrix: &Tensor<'_>) -> Choice {
    settle(HERE.iter().filter(|kernel| kernel.is_available()), matrix)
}

/// [`choice`] on a microcontroller's core, whatever this build is for. Addresses are those that
/// `matrix` has here.
pub(crate) fn choice_on(core: Core, matrix: &Tensor<'_>) -> Choice {
    settle(DEVICES.iter().filter(|kernel| kernel.needs.met_by(core)), matrix)
}

/// The first kernel for any vector that takes the matrix, or the portable one with the reason of
/// the nearest.
fn settle<'a>(kernels: impl Iterator<Item = &'a Kernel>, matrix: &Tensor<'_>) -> Choice {
    let mut reason = Reason::Storage;
    for kernel in kernels.filter(|kernel| kernel.takes == Takes::Any) {
        match (kernel.admits)(matrix) {
            Ok(()) => return Choice { kernel: kernel.name, fallback: None },
            Err(Reason::Storage) => {}
            Err(other) => reason = other,
        }
    }
    Choice { kernel: "portable", fallback: Some(reason) }
}
