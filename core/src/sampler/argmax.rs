//! Argmax over FP16 logits, and an integer key that orders them.

use half::f16;

use crate::kernels::with_simd;

/// Index of the largest logit, the lowest on a tie; 0 for an empty slice. NaN never wins against an
/// earlier logit.
pub fn argmax(logits: &[f16]) -> usize {
    if cfg!(feature = "std") { widest_argmax(logits) } else { first_argmax(logits) }
}

/// One pass with integer comparisons of the bits. Outlined to keep one copy of the loop.
#[inline(never)]
fn first_argmax(logits: &[f16]) -> usize {
    let mut best = 0;
    // As signed integers, bits of positive halves are ordered like the halves, above all others.
    let mut least = i32::MIN;
    for (i, logit) in logits.iter().enumerate() {
        let bits = logit.to_bits() as i16 as i32;
        if bits > least && (*logit > logits[best] || i == 0) {
            best = i;
            least = if bits > 0 { bits } else { i32::MIN };
        }
    }
    best
}

/// Two passes over integer keys: vectorized, they are faster than one over halves.
fn widest_argmax(logits: &[f16]) -> usize {
    if logits.first().is_none_or(|first| first.is_nan()) {
        return 0;
    }
    with_simd(
        #[inline(always)]
        || {
            let largest = logits.iter().map(|&logit| order(logit)).max().unwrap_or(i16::MIN);
            let found = |&logit: &f16| order(logit) == largest;
            let chunk = |logits: &[f16]| logits.iter().fold(false, |any, l| any | found(l));
            let start = 64 * logits.chunks(64).position(chunk).unwrap_or(0);
            start + logits[start..].iter().position(found).unwrap_or(0)
        },
    )
}

/// An integer with the order of the halves: equal for both zeros, smallest for NaN.
#[inline(always)]
pub(super) fn order(half: f16) -> i16 {
    let magnitude = (half.to_bits() & 0x7fff) as i16;
    if magnitude > 0x7c00 {
        i16::MIN
    } else if half.to_bits() >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Includes zeros of both signs, subnormals, infinities and NaN.
    #[test]
    fn argmax_is_the_first_that_no_later_one_exceeds() {
        let kinds = [0u16, 0x8000, 1, 0x8001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00];
        for bits in (0..=u16::MAX).step_by(7).chain(kinds) {
            let mut logits = std::vec![f16::from_bits(bits); 100];
            for (j, &kind) in kinds.iter().enumerate() {
                logits[(37 * j + 1) % 100] = f16::from_bits(kind);
                let mut best = 0;
                for (i, logit) in logits.iter().enumerate() {
                    if *logit > logits[best] {
                        best = i;
                    }
                }
                assert_eq!(argmax(&logits), best, "{bits:#x} and {kind:#x}");
            }
        }
    }
}
