//! The memory of a gated chain, and the gates that the chain gives it.
//!
//! Rows hold K potentials or C channels; channel i belongs to potential ⌊i·K/C⌋.

use crate::reference::real::Real;
use crate::reference::simd::simd;

/// γ = η / (η + Im G) `[rows, K]`, from G `[rows, 2K]`. In (0, 1], since Im G > 0.
pub(crate) fn gates<T: Real>(eta: &[T], g: &[T], gates: &mut [T]) {
    let k = eta.len();
    for (g, gates) in g.chunks_exact(2 * k).zip(gates.chunks_exact_mut(k)) {
        for ((gate, &eta), &im) in gates.iter_mut().zip(eta).zip(&g[k..]) {
            *gate = eta / (eta + im);
        }
    }
}

/// The adjoint of [`gates`]: writes the gradients of G, and adds those of η.
///
/// ∂γ/∂(Im G) = −γ²/η and ∂γ/∂η = γ(1 − γ)/η.
pub(crate) fn gates_backward<T: Real>(
    eta: &[T],
    (gates, d_gates): (&[T], &[T]),
    dg: &mut [T],
    d_eta: &mut [T],
) {
    let k = eta.len();
    let rows = gates.chunks_exact(k).zip(d_gates.chunks_exact(k));
    for ((gates, d_gates), dg) in rows.zip(dg.chunks_exact_mut(2 * k)) {
        let (re, im) = dg.split_at_mut(k);
        re.fill(T::ZERO);
        for i in 0..k {
            let by_eta = d_gates[i] * gates[i] / eta[i];
            im[i] = -(by_eta * gates[i]);
            d_eta[i] += by_eta * (T::ONE - gates[i]);
        }
    }
}

/// s_t = s_{t−1} + γ_t (a_t − s_{t−1}) over the rows of `a` `[rows, C]`; `state` holds the s before
/// the first row and receives that of the last.
pub(crate) fn forward<T: Real>(
    (gates, potentials): (&[T], usize),
    a: &[T],
    state: &mut [T],
    s: &mut [T],
) {
    simd(
        #[inline(always)]
        || {
            let c = state.len();
            let shared = c / potentials;
            let rows = gates.chunks_exact(potentials).zip(a.chunks_exact(c));
            for ((gates, a), s) in rows.zip(s.chunks_exact_mut(c)) {
                let channels = a.chunks_exact(shared).zip(state.chunks_exact_mut(shared));
                for ((&gate, (a, state)), s) in
                    gates.iter().zip(channels).zip(s.chunks_exact_mut(shared))
                {
                    for ((s, state), &a) in s.iter_mut().zip(state).zip(a) {
                        *state += gate * (a - *state);
                        *s = *state;
                    }
                }
            }
        },
    )
}

/// The adjoint of [`forward`] for one window that starts from zero, of C `channels`: writes the
/// gradients of `a` and of the gates.
pub(crate) fn backward<T: Real>(
    (gates, potentials): (&[T], usize),
    (a, s, channels): (&[T], &[T], usize),
    ds: &[T],
    (da, d_gates): (&mut [T], &mut [T]),
) {
    simd(
        #[inline(always)]
        || {
            let (k, c, shared) = (potentials, channels, channels / potentials);
            // Gradient of s_t through s_{t+1}.
            let mut carry = vec![T::ZERO; c];
            let start = vec![T::ZERO; c];
            for t in (0..ds.len() / c).rev() {
                let row = t * c..(t + 1) * c;
                let before = if t > 0 { &s[row.start - c..row.start] } else { &start };
                let (a, ds, da) = (&a[row.clone()], &ds[row.clone()], &mut da[row]);
                for p in 0..k {
                    let gate = gates[t * k + p];
                    let part = p * shared..(p + 1) * shared;
                    let (a, before) = (&a[part.clone()], &before[part.clone()]);
                    let (ds, da) = (&ds[part.clone()], &mut da[part.clone()]);
                    let carry = &mut carry[part];
                    for i in 0..shared {
                        let total = ds[i] + carry[i];
                        da[i] = gate * total;
                        carry[i] = total - da[i];
                    }
                    // ∂s_t/∂γ_t = a_t − s_{t−1}; da / γ would divide by gates near 0.
                    let through = |i: usize| (carry[i] + da[i]) * (a[i] - before[i]);
                    d_gates[t * k + p] = (0..shared).map(through).sum();
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::wave;

    #[test]
    fn the_adjoint_equals_finite_differences() {
        let (k, c, window) = (2, 6, 5);
        let gates: Vec<f64> = wave(window * k, 0.9).iter().map(|x| 0.5 + 0.4 * x).collect();
        let (a, weight) = (wave(window * c, 1.7), wave(window * c, 2.3));
        let memory = |gates: &[f64], a: &[f64]| {
            let mut s = vec![0.0; window * c];
            forward((gates, k), a, &mut vec![0.0; c], &mut s);
            s
        };
        let objective = |gates: &[f64], a: &[f64]| -> f64 {
            memory(gates, a).iter().zip(&weight).map(|(s, w)| s * w).sum()
        };
        let s = memory(&gates, &a);
        let (mut da, mut d_gates) = (vec![0.0; window * c], vec![0.0; window * k]);
        backward((&gates, k), (&a, &s, c), &weight, (&mut da, &mut d_gates));
        let moved = |x: &[f64], i: usize, by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            x
        };
        let h = 1e-6;
        for i in 0..a.len() {
            let at = |by| objective(&gates, &moved(&a, i, by));
            assert!(((at(h) - at(-h)) / (2.0 * h) - da[i]).abs() < 1e-8);
        }
        for i in 0..gates.len() {
            let at = |by| objective(&moved(&gates, i, by), &a);
            assert!(((at(h) - at(-h)) / (2.0 * h) - d_gates[i]).abs() < 1e-8);
        }
    }

    #[test]
    fn memories_never_exceed_their_inputs() {
        let gates: Vec<f64> = wave(10_000, 0.37).iter().map(|x| x * x).collect();
        let a = wave(10_000, 1.3);
        let mut s = vec![0.0; a.len()];
        forward((&gates, 1), &a, &mut [0.0], &mut s);
        assert!(s.iter().all(|s| s.abs() <= 1.0));
    }

    #[test]
    fn gates_open_where_the_chain_has_no_states() {
        let mut gate = [0.0f64];
        for (im, expected) in [(0.0, 1.0), (0.1, 0.5), (0.9, 0.1)] {
            gates(&[0.1], &[7.0, im], &mut gate);
            assert!((gate[0] - expected).abs() < 1e-12);
        }
        let (eta, im, h) = (0.2, 0.7, 1e-6);
        let at = |eta: f64, im: f64| {
            let mut gate = [0.0];
            gates(&[eta], &[0.0, im], &mut gate);
            gate[0]
        };
        let (mut dg, mut d_eta) = ([1.0; 2], [0.0]);
        gates_backward(&[eta], (&[at(eta, im)], &[1.0]), &mut dg, &mut d_eta);
        assert_eq!(dg[0], 0.0);
        assert!((dg[1] - (at(eta, im + h) - at(eta, im - h)) / (2.0 * h)).abs() < 1e-8);
        assert!((d_eta[0] - (at(eta + h, im) - at(eta - h, im)) / (2.0 * h)).abs() < 1e-8);
    }
}
