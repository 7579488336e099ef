//! Loops compiled once for each width of SIMD registers.

/// Runs loops with the widest SIMD registers of the processor. `work` must be inlined: a closure
/// marked `#[inline(always)]`.
///
/// The results are the same bits with all of them: the compiler neither fuses a product with a sum
/// nor reorders sums.
#[inline(always)]
pub(crate) fn simd<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::real::{Real, dot, sum};
    use crate::reference::tests::wave;

    #[test]
    fn the_bits_are_those_of_plain_loops() {
        let (x, y) = (wave(1003, 0.7), wave(1003, 1.9));
        let [x, y] = [x, y].map(|v| v.iter().map(|&x| x as f32 * 5.0).collect::<Vec<_>>());
        let work = |out: &mut Vec<f32>| {
            out.extend(x.iter().zip(&y).map(|(&x, &y)| Real::exp(x) * y + x));
            out.extend([sum(&x), dot(&x, &y)]);
        };
        let (mut plain, mut wide) = (Vec::new(), Vec::new());
        work(&mut plain);
        simd(
            #[inline(always)]
            || work(&mut wide),
        );
        assert_eq!(plain, wide);
    }
}
