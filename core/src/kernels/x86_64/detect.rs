//! What this processor has, found once, and a way for measurements to leave some of it out.

use core::sync::atomic::{AtomicU8, Ordering};

/// Proof that this processor has AVX2 and what came with it: FMA, F16C, LZCNT, BMI.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        (Found::get() >= Found::AVX2).then_some(Self(()))
    }
}

/// Proof that this processor has AVX-512 with dot products of bytes.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Vnni(());

impl Vnni {
    #[cfg(test)]
    pub(in crate::kernels) fn detect() -> Option<Self> {
        (Found::get() >= Found::VNNI).then_some(Self(()))
    }

    /// A proof only where `faster`, told whether the processor takes registers of 512 bits at once,
    /// says so or a measurement wants nothing else.
    #[inline(always)]
    pub(super) fn detect_where(faster: impl FnOnce(bool) -> bool) -> Option<Self> {
        let found = Found::get();
        let useful = match found {
            Found::VNNI | Found::WHOLE_VNNI => faster(found == Found::WHOLE_VNNI),
            _ => found == Found::VNNI_EVERYWHERE,
        };
        useful.then_some(Self(()))
    }
}

/// Which kernels a measurement compares. All of them return the same bits.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKernels {
    /// The faster ones for each matrix: what is used where nobody measures.
    Chosen,
    /// Those with AVX2 alone.
    Avx2,
    /// Those with AVX-512 VNNI wherever there are any, else those with AVX2.
    Vnni,
}

impl HostKernels {
    /// Uses these kernels from now on, in every thread; says whether the processor has what they
    /// need. For benchmarks: it changes how fast products are, never what they are.
    pub fn select(self) -> bool {
        let best = Found::ask();
        let (least, found) = match self {
            Self::Chosen => (Found::NOTHING, best),
            Self::Avx2 => (Found::AVX2, Found::AVX2),
            Self::Vnni => (Found::VNNI, Found::VNNI_EVERYWHERE),
        };
        if best >= least {
            FOUND.store(found, Ordering::Relaxed);
        }
        best >= least
    }
}

/// What was found, or 0: layers ask a hundred times a token, and the question has ten parts.
/// Whoever comes first asks the processor; several at once find the same.
static FOUND: AtomicU8 = AtomicU8::new(0);

/// What there is to find, each with what comes before it.
struct Found;

impl Found {
    const NOTHING: u8 = 1;
    const AVX2: u8 = 2;
    /// AVX-512 with dot products of bytes, besides AVX2.
    const VNNI: u8 = 3;
    /// The same, and registers of 512 bits are taken at once, not by halves.
    const WHOLE_VNNI: u8 = 4;
    /// AVX-512 with dot products of bytes, and a measurement asks for nothing else.
    const VNNI_EVERYWHERE: u8 = 5;

    #[inline(always)]
    fn get() -> u8 {
        match FOUND.load(Ordering::Relaxed) {
            0 => {
                let found = Self::ask();
                FOUND.store(found, Ordering::Relaxed);
                found
            }
            found => found,
        }
    }

    #[cold]
    #[inline(never)]
    fn ask() -> u8 {
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
        // Nothing tells how wide the units are; what was measured to be fast has arithmetic on
        // halves, which Zen 4 lacks.
        let whole = std::arch::is_x86_feature_detected!("avx512fp16");
        match (avx2, vnni, whole) {
            (false, _, _) => Self::NOTHING,
            (true, false, _) => Self::AVX2,
            (true, true, false) => Self::VNNI,
            (true, true, true) => Self::WHOLE_VNNI,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AVX2 alone is not tried: other tests, which run beside this one, would miss the rest.
    #[test]
    fn a_selection_overrules_what_is_faster() {
        let present = Vnni::detect().is_some();
        assert_eq!(HostKernels::Vnni.select(), present);
        assert_eq!(Vnni::detect_where(|_| false).is_some(), present);
        assert!(HostKernels::Chosen.select());
        assert!(Vnni::detect_where(|_| false).is_none());
        assert_eq!(Vnni::detect_where(|_| true).is_some(), present);
    }
}
