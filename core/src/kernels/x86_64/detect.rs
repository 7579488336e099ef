//! The features of this processor, detected once, and a way for measurements to disable some.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::kernels::needs::Needs;

/// Proof that this processor has AVX2 and what came with it: FMA, F16C, LZCNT, BMI.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        (Features::found() >= Features::Avx2).then_some(Self(()))
    }
}

/// Which kernels a measurement compares. All of them return the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKernels {
    /// The faster ones for each matrix, as without a measurement.
    Chosen,
    /// The portable ones.
    Portable,
    /// Those with AVX2 alone.
    Avx2,
    /// Those with AVX-512 VNNI wherever there are any, else those with AVX2.
    Vnni,
}

impl HostKernels {
    /// Uses these kernels from now on, in every thread; returns whether the processor has what they
    /// need. For benchmarks: it changes how fast products are, never their bits.
    pub fn select(self) -> bool {
        let best = Features::ask();
        let (least, found) = match self {
            Self::Chosen => (Features::Nothing, best),
            Self::Portable => (Features::Nothing, Features::Nothing),
            Self::Avx2 => (Features::Avx2, Features::Avx2),
            Self::Vnni => (Features::Vnni, Features::WideVnni),
        };
        if best >= least {
            FOUND.store(found as u8, Ordering::Relaxed);
        }
        best >= least
    }
}

/// The features found, or [`Features::Unknown`]: layers ask a hundred times per token, and the
/// question has ten parts. The first to come asks the processor; several at once find the same.
static FOUND: AtomicU8 = AtomicU8::new(Features::Unknown as u8);

/// Features that kernels are for, each with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::kernels) enum Features {
    /// Not asked yet.
    Unknown,
    /// None.
    Nothing,
    /// AVX2.
    Avx2,
    /// AVX-512 with dot products of bytes.
    Vnni,
    /// The same with execution units of 512 bits, not two halves.
    WideVnni,
}

impl Features {
    /// How many there are.
    pub(in crate::kernels) const COUNT: usize = Self::WideVnni as usize + 1;

    /// The least that meets a kernel's need.
    pub(in crate::kernels) const fn least(needs: Needs) -> Self {
        match needs {
            Needs::Vnni => Self::Vnni,
            Needs::WideVnni => Self::WideVnni,
            _ => Self::Avx2,
        }
    }

    #[inline(always)]
    pub(in crate::kernels) fn found() -> Self {
        match FOUND.load(Ordering::Relaxed) {
            1 => Self::Nothing,
            2 => Self::Avx2,
            3 => Self::Vnni,
            4 => Self::WideVnni,
            _ => {
                let found = Self::ask();
                FOUND.store(found as u8, Ordering::Relaxed);
                found
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn ask() -> Self {
        let avx2 = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2");
        let vnni = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512vnni");
        // No flag tells the width of the units; the processors that were measured to be fast have
        // arithmetic on halves, which Zen 4 lacks.
        let wide = std::arch::is_x86_feature_detected!("avx512fp16");
        match (avx2, vnni, wide) {
            (false, _, _) => Self::Nothing,
            (true, false, _) => Self::Avx2,
            (true, true, false) => Self::Vnni,
            (true, true, true) => Self::WideVnni,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AVX2 alone is not tried: other tests, which run beside this one, would lose the rest.
    #[test]
    fn a_selection_overrules_what_is_faster() {
        let best = Features::ask();
        assert_eq!(HostKernels::Vnni.select(), best >= Features::Vnni);
        assert!(best < Features::Vnni || Features::found() == Features::WideVnni);
        assert!(HostKernels::Chosen.select());
        assert_eq!(Features::found(), best);
    }
}
