//! Clipping bounds of potentials and features.

use crate::reference::real::Real;

/// Bound of the potentials.
pub(crate) const POTENTIAL_BOUND: f64 = 3.0;
/// Bound of the features: the real and imaginary parts of G.
pub(crate) const FEATURE_BOUND: f64 = 10.0;

/// Clips every element of `x` to ±`bound`.
pub(crate) fn clip_into<T: Real>(x: &[T], bound: f64, y: &mut Vec<T>) {
    let bound = T::of(bound);
    y.clear();
    y.extend(x.iter().map(|x| x.clip(bound)));
}

/// Zeroes the gradient where the clip saturates.
pub(crate) fn mask<T: Real>(gradient: &mut [T], before: &[T], bound: f64) {
    let bound = T::of(bound);
    for (g, &x) in gradient.iter_mut().zip(before) {
        *g = if x < bound && x > -bound { *g } else { T::ZERO };
    }
}
