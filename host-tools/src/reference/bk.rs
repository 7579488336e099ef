//! The BK-core: diagonal elements of the resolvent of a tridiagonal chain, and their adjoint.
//!
//! With α_t = diagonal + v_t − iη and off-diagonal product β, for each of K independent potentials:
//!
//! ```text
//! L_1 = α_1,  L_t = α_t − β / L_{t−1}
//! R_N = α_N,  R_t = α_t − β / R_{t+1}
//! Half: G_t = 1 / L_t        Full: G_t = 1 / (L_t + R_t − α_t)
//! ```
//!
//! Rows hold the real parts of all K potentials, then the imaginary parts: the recursion runs along
//! the chain, one potential per vector lane.
//!
//! The adjoint of a complex w is written w̄ = ∂ℓ/∂Re w + i·∂ℓ/∂Im w. For w = f(z) holomorphic,
//! z̄ = w̄ · conj(f′(z)).

use crate::checkpoint::Chain;
use crate::reference::real::{Real, size};

/// The chain's constants.
#[derive(Clone, Copy)]
pub(crate) struct Core<'a, T> {
    /// Real part of α without the potential `[K]`.
    pub(crate) diagonal: &'a [T],
    /// η `[K]`, positive.
    pub(crate) eta: &'a [T],
    /// Off-diagonal product β.
    pub(crate) beta: T,
    pub(crate) chain: Chain,
}

/// Saved for the backward pass of a full chain, besides v and G; `[window, 2K]` each.
#[derive(Default)]
pub(crate) struct Tape<T> {
    /// 1 / L.
    left: Vec<T>,
    /// 1 / R.
    right: Vec<T>,
}

/// Gradients of a window's inputs to G.
pub(crate) struct Gradients<'a, T> {
    /// `[window, K]`, written.
    pub(crate) v: &'a mut [T],
    /// `[K]`, added to.
    pub(crate) diagonal: &'a mut [T],
    /// `[K]`, added to.
    pub(crate) eta: &'a mut [T],
}

/// One step of the recursion: out = 1 / (α − β·previous), with `previous` = 1/L of the neighbour,
/// or `None` at the end of the chain.
#[inline(always)]
fn link<T: Real>(core: &Core<'_, T>, v: &[T], previous: Option<&[T]>, out: &mut [T]) {
    let k = v.len();
    let (out_re, out_im) = out.split_at_mut(k);
    let (diagonal, eta) = (&core.diagonal[..k], &core.eta[..k]);
    let out_im = &mut out_im[..k];
    match previous {
        None => {
            for i in 0..k {
                let (re, im) = (diagonal[i] + v[i], -eta[i]);
                let inverse = T::ONE / (re * re + im * im);
                out_re[i] = re * inverse;
                out_im[i] = -im * inverse;
            }
        }
        Some(previous) => {
            let (p_re, p_im) = previous.split_at(k);
            let p_im = &p_im[..k];
            for i in 0..k {
                let re = diagonal[i] + v[i] - core.beta * p_re[i];
                let im = -eta[i] - core.beta * p_im[i];
                let inverse = T::ONE / (re * re + im * im);
                out_re[i] = re * inverse;
                out_im[i] = -im * inverse;
            }
        }
    }
}

/// G `[window, 2K]` of one window, from its clamped potentials v `[window, K]`.
pub(crate) fn forward<T: Real>(core: &Core<'_, T>, v: &[T], g: &mut [T], tape: &mut Tape<T>) {
    let k = core.diagonal.len();
    let window = v.len() / k;
    match core.chain {
        Chain::Half => left_to_right(core, v, g),
        Chain::Full => {
            size(&mut tape.left, g.len());
            size(&mut tape.right, g.len());
            left_to_right(core, v, &mut tape.left);
            for t in (0..window).rev() {
                let (head, tail) = tape.right.split_at_mut((t + 1) * 2 * k);
                let previous = (t + 1 < window).then(|| &tail[..2 * k]);
                link(core, &v[t * k..][..k], previous, &mut head[t * 2 * k..]);
            }
            for t in 0..window {
                // L + R − α = α − β/L_{t−1} − β/R_{t+1} avoids cancellation of large terms.
                let row = t * 2 * k;
                for i in 0..k {
                    let mut re = core.diagonal[i] + v[t * k + i];
                    let mut im = -core.eta[i];
                    if t > 0 {
                        re -= core.beta * tape.left[row - 2 * k + i];
                        im -= core.beta * tape.left[row - k + i];
                    }
                    if t + 1 < window {
                        re -= core.beta * tape.right[row + 2 * k + i];
                        im -= core.beta * tape.right[row + 3 * k + i];
                    }
                    let inverse = T::ONE / (re * re + im * im);
                    g[row + i] = re * inverse;
                    g[row + k + i] = -im * inverse;
                }
            }
        }
    }
}

/// As [`forward`] of a half chain that goes on from G of the position before, `state` `[2K]`: zero
/// at the start, and that of the last position afterwards.
pub(crate) fn forward_from<T: Real>(core: &Core<'_, T>, v: &[T], state: &mut [T], g: &mut [T]) {
    let k = core.diagonal.len();
    for (v, g) in v.chunks_exact(k).zip(g.chunks_exact_mut(2 * k)) {
        link(core, v, Some(state), g);
        state.copy_from_slice(g);
    }
}

fn left_to_right<T: Real>(core: &Core<'_, T>, v: &[T], out: &mut [T]) {
    let k = core.diagonal.len();
    for t in 0..v.len() / k {
        let (head, tail) = out.split_at_mut(t * 2 * k);
        let previous = (t > 0).then(|| &head[(t - 1) * 2 * k..]);
        link(core, &v[t * k..][..k], previous, &mut tail[..2 * k]);
    }
}

/// The adjoint of [`forward`] for one window, given dℓ/dG `[window, 2K]`.
pub(crate) fn backward<T: Real>(
    core: &Core<'_, T>,
    g: &[T],
    tape: &Tape<T>,
    dg: &[T],
    out: Gradients<'_, T>,
) {
    let k = core.diagonal.len();
    let window = g.len() / (2 * k);
    // Adjoint of 1/L_t through L_{t+1}: −β·L̄_{t+1}.
    let mut carry = vec![T::ZERO; 2 * k];
    let mut bar = vec![T::ZERO; 2 * k];
    match core.chain {
        Chain::Half => {
            for t in (0..window).rev() {
                let row = t * 2 * k..(t + 1) * 2 * k;
                through_inverse(&g[row.clone()], &dg[row], &carry, &mut bar);
                finish(core, &bar, &mut carry);
                out.v[t * k..][..k].copy_from_slice(&bar[..k]);
                accumulate(&bar, out.diagonal, out.eta);
            }
        }
        Chain::Full => {
            // G = 1/D with D = α_t − β/L_{t−1} − β/R_{t+1}: D̄ is part of ᾱ_t, and −β·D̄_t reaches
            // 1/L_{t−1} and 1/R_{t+1}.
            let zero = vec![T::ZERO; 2 * k];
            let mut d_bar = vec![T::ZERO; g.len()];
            for t in 0..window {
                let row = t * 2 * k..(t + 1) * 2 * k;
                through_inverse(&g[row.clone()], &dg[row.clone()], &zero, &mut d_bar[row]);
            }
            let mut alpha_bar = d_bar.clone();
            let mut from_middle = vec![T::ZERO; 2 * k];
            // 1/L_{t} feeds L_{t+1} (the carry) and D_{t+1}.
            for t in (0..window.saturating_sub(1)).rev() {
                let row = t * 2 * k..(t + 1) * 2 * k;
                finish(core, &d_bar[row.end..row.end + 2 * k], &mut from_middle);
                through_inverse(&tape.left[row.clone()], &from_middle, &carry, &mut bar);
                finish(core, &bar, &mut carry);
                crate::reference::real::add_to(&mut alpha_bar[row], &bar);
            }
            carry.fill(T::ZERO);
            for t in 1..window {
                let row = t * 2 * k..(t + 1) * 2 * k;
                finish(core, &d_bar[row.start - 2 * k..row.start], &mut from_middle);
                through_inverse(&tape.right[row.clone()], &from_middle, &carry, &mut bar);
                finish(core, &bar, &mut carry);
                crate::reference::real::add_to(&mut alpha_bar[row], &bar);
            }
            for (t, bar) in alpha_bar.chunks_exact(2 * k).enumerate() {
                out.v[t * k..][..k].copy_from_slice(&bar[..k]);
                accumulate(bar, out.diagonal, out.eta);
            }
        }
    }
}

/// For w = 1/z with w̄ = dw + carry: z̄ = w̄ · conj(−w²).
#[inline(always)]
fn through_inverse<T: Real>(w: &[T], dw: &[T], carry: &[T], z_bar: &mut [T]) {
    let k = w.len() / 2;
    let (w_re, w_im) = w.split_at(k);
    let (d_re, d_im) = dw.split_at(k);
    let (c_re, c_im) = carry.split_at(k);
    let (z_re, z_im) = z_bar.split_at_mut(k);
    let (w_im, d_im, c_im, z_im) = (&w_im[..k], &d_im[..k], &c_im[..k], &mut z_im[..k]);
    for i in 0..k {
        let (a, b) = (d_re[i] + c_re[i], d_im[i] + c_im[i]);
        let p = w_re[i] * w_re[i] - w_im[i] * w_im[i];
        let q = w_re[i] * w_im[i] + w_re[i] * w_im[i];
        z_re[i] = -(a * p) - b * q;
        z_im[i] = a * q - b * p;
    }
}

/// carry = −β · bar.
#[inline(always)]
fn finish<T: Real>(core: &Core<'_, T>, bar: &[T], carry: &mut [T]) {
    for (c, &b) in carry.iter_mut().zip(bar) {
        *c = -core.beta * b;
    }
}

/// α = diagonal + v − iη.
#[inline(always)]
fn accumulate<T: Real>(bar: &[T], diagonal: &mut [T], eta: &mut [T]) {
    let (re, im) = bar.split_at(diagonal.len());
    for (d, &re) in diagonal.iter_mut().zip(re) {
        *d += re;
    }
    for (e, &im) in eta.iter_mut().zip(im) {
        *e -= im;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::wave;

    /// Σ weight · G.
    fn objective(core: &Core<'_, f64>, v: &[f64], weight: &[f64]) -> f64 {
        let mut g = vec![0.0; weight.len()];
        forward(core, v, &mut g, &mut Tape::default());
        g.iter().zip(weight).map(|(g, w)| g * w).sum()
    }

    fn check(chain: Chain, k: usize, window: usize) {
        let diagonal: Vec<f64> = wave(k, 0.9).iter().map(|x| x - 1.5).collect();
        let eta: Vec<f64> = wave(k, 0.3).iter().map(|x| 0.3 + x.abs()).collect();
        let (v, weight) = (wave(window * k, 1.7), wave(window * 2 * k, 2.3));
        let core = Core { diagonal: &diagonal, eta: &eta, beta: 0.9, chain };
        let (mut g, mut tape) = (vec![0.0; window * 2 * k], Tape::default());
        forward(&core, &v, &mut g, &mut tape);
        let (mut dv, mut dd, mut de) = (vec![0.0; window * k], vec![0.0; k], vec![0.0; k]);
        let out = Gradients { v: &mut dv, diagonal: &mut dd, eta: &mut de };
        backward(&core, &g, &tape, &weight, out);
        let h = 1e-6;
        let compare = |what: &str, i: usize, up: f64, down: f64, exact: f64| {
            let numeric = (up - down) / (2.0 * h);
            let error = (numeric - exact).abs() / (1.0 + exact.abs());
            assert!(error < 1e-7, "{chain:?} K={k} {what}[{i}]: {exact} against {numeric}");
        };
        let moved = |x: &[f64], i: usize, by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            x
        };
        for i in 0..v.len() {
            let at = |by| objective(&core, &moved(&v, i, by), &weight);
            compare("v", i, at(h), at(-h), dv[i]);
        }
        for i in 0..k {
            let at = |by| {
                let diagonal = moved(&diagonal, i, by);
                objective(&Core { diagonal: &diagonal, ..core }, &v, &weight)
            };
            compare("diagonal", i, at(h), at(-h), dd[i]);
            let at = |by| objective(&Core { eta: &moved(&eta, i, by), ..core }, &v, &weight);
            compare("eta", i, at(h), at(-h), de[i]);
        }
    }

    #[test]
    fn the_adjoint_equals_finite_differences() {
        for chain in [Chain::Half, Chain::Full] {
            for (k, window) in [(1, 1), (1, 2), (1, 9), (3, 7), (16, 5)] {
                check(chain, k, window);
            }
        }
    }

    /// The definition: G_t = [(H − z)^-1]_tt by Gauss-Jordan elimination of the whole matrix.
    #[test]
    fn a_full_chain_is_the_diagonal_of_the_inverse() {
        use std::ops::{Mul, Sub};
        #[derive(Clone, Copy, Debug)]
        struct C(f64, f64);
        impl Mul for C {
            type Output = Self;
            fn mul(self, o: Self) -> Self {
                Self(self.0 * o.0 - self.1 * o.1, self.0 * o.1 + self.1 * o.0)
            }
        }
        impl Sub for C {
            type Output = Self;
            fn sub(self, o: Self) -> Self {
                Self(self.0 - o.0, self.1 - o.1)
            }
        }
        let n = 12;
        let v: Vec<f64> = wave(n, 1.1).iter().map(|x| 3.0 * x).collect();
        let core = Core { diagonal: &[-2.0], eta: &[1.0], beta: 1.0, chain: Chain::Full };
        let mut g = vec![0.0; 2 * n];
        forward(&core, &v, &mut g, &mut Tape::default());
        let mut matrix = vec![vec![C(0.0, 0.0); 2 * n]; n];
        for t in 0..n {
            matrix[t][t] = C(-2.0 + v[t], -1.0);
            matrix[t][n + t] = C(1.0, 0.0);
            if t > 0 {
                matrix[t][t - 1] = C(1.0, 0.0);
                matrix[t - 1][t] = C(1.0, 0.0);
            }
        }
        for p in 0..n {
            let C(re, im) = matrix[p][p];
            let inverse = C(re / (re * re + im * im), -im / (re * re + im * im));
            for c in 0..2 * n {
                matrix[p][c] = matrix[p][c] * inverse;
            }
            for r in (0..n).filter(|&r| r != p) {
                let factor = matrix[r][p];
                for c in 0..2 * n {
                    matrix[r][c] = matrix[r][c] - factor * matrix[p][c];
                }
            }
        }
        for t in 0..n {
            let C(re, im) = matrix[t][n + t];
            assert!((g[2 * t] - re).abs() < 1e-12 && (g[2 * t + 1] - im).abs() < 1e-12);
        }
    }

    #[test]
    fn g_stays_within_one_over_eta_on_a_long_chain() {
        let n = 100_000;
        let v: Vec<f32> = wave(n, 0.37).iter().map(|x| 3.0 * *x as f32).collect();
        let core = Core { diagonal: &[-2.0f32], eta: &[0.0625], beta: 1.0, chain: Chain::Full };
        let mut g = vec![0.0; 2 * n];
        forward(&core, &v, &mut g, &mut Tape::default());
        for pair in g.chunks_exact(2) {
            let norm = (pair[0] * pair[0] + pair[1] * pair[1]).sqrt();
            assert!(norm > 0.0 && norm <= 16.001, "{norm}");
        }
    }
}
