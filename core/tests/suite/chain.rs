//! The fixed-point BK-core: bit for bit against 128-bit integers that cannot overflow, and within
//! the error bound of `docs/numerics.md` against f64, over up to 100,000 positions.
//!
//! Longer than usual: contains two reference implementations.

use proptest::prelude::*;
use resnet_bk_core::blob::{ChainFormat, ChainParameters};
use resnet_bk_core::internals::bk::{full_chain, half_step};

use crate::random::Random;

const ONE: u32 = 1 << 16;

/// Real and imaginary part in fixed point.
type Fixed = (i32, i32);

/// One potential's chain: format, diagonal, η.
#[derive(Clone, Copy, Debug)]
struct Chain {
    format: ChainFormat,
    diagonal: i32,
    eta: i32,
}

impl Chain {
    /// The chain in the finest format that admits it, like the quantizer's choice.
    fn new(beta: f64, diagonal: f64, eta: f64, int8: bool) -> Self {
        let off_diagonal = (beta * ONE as f64) as u32;
        let fixed = |value: f64, frac: u32| (value * (frac as f64).exp2()).round() as i32;
        for frac in ChainFormat::FRACTIONS.rev().map(u32::from) {
            let format = ChainFormat { frac, off_diagonal, int8 };
            let (diagonal, eta) = (fixed(diagonal, frac), fixed(eta, frac));
            if format.admits(diagonal, eta) {
                return Self { format, diagonal, eta };
            }
        }
        panic!("no format admits the chain");
    }

    fn unit(&self) -> f64 {
        (-(self.format.frac as f64)).exp2()
    }

    fn half(&self, potentials: &[i32]) -> (Vec<Fixed>, Vec<Fixed>) {
        let bytes = self.bytes();
        let parameters = ChainParameters { bytes: &bytes };
        let (mut state, mut features) = ([0; 2], [0; 2]);
        let mut all = (Vec::new(), Vec::new());
        for &v in potentials {
            half_step(self.format, parameters, &[v], &mut state, &mut features);
            all.0.push(state.into());
            all.1.push(features.into());
        }
        all
    }

    fn full(&self, potentials: &[i32]) -> Vec<Fixed> {
        let bytes = self.bytes();
        let parameters = ChainParameters { bytes: &bytes };
        let mut left = vec![0; 2 * potentials.len()];
        let mut features = left.clone();
        full_chain(self.format, parameters, potentials, &mut left, &mut features);
        features.chunks_exact(2).map(|g| (g[0], g[1])).collect()
    }

    fn bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.diagonal.to_le_bytes());
        bytes[4..].copy_from_slice(&self.eta.to_le_bytes());
        bytes
    }
}

/// The recursion of the number contract in 128-bit integers without saturation. The core must
/// return the same bits, since nothing overflows.
mod wide {
    use super::{Chain, ONE};

    pub(super) fn alpha(chain: &Chain, v: i32) -> i128 {
        let frac = chain.format.frac;
        let v = (v as i128).clamp(-3 * ONE as i128, 3 * ONE as i128);
        let potential = if chain.format.int8 {
            let code = (v * 2_774_357 + (1 << 31)).div_euclid(1 << 32);
            assert!((-127..=127).contains(&code));
            code * (((3 << frac) + 63) / 127)
        } else {
            (v << frac).div_euclid(ONE as i128)
        };
        chain.diagonal as i128 + potential
    }

    pub(super) fn advance(chain: &Chain, alpha: i128, g: (i128, i128)) -> (i128, i128) {
        let back = |part: i128| (part * chain.format.off_diagonal as i128).div_euclid(ONE as i128);
        (alpha - back(g.0), -(chain.eta as i128) - back(g.1))
    }

    pub(super) fn invert(chain: &Chain, (re, im): (i128, i128)) -> (i128, i128) {
        let square = re * re + im * im;
        assert!(square > 0 && square < 1 << 63);
        let zeros = 63 - square.ilog2();
        let mantissa = (square << zeros) >> 32;
        let reciprocal = ((1i128 << 63) - 1) / mantissa;
        let shift = 95 - zeros as i32 - 2 * chain.format.frac as i32;
        assert!(shift > 0);
        ((re * reciprocal) >> shift, (-im * reciprocal) >> shift)
    }

    pub(super) fn feature(chain: &Chain, part: i128) -> i32 {
        let wide = if chain.format.frac > 16 {
            let below = chain.format.frac - 16;
            (part + (1 << (below - 1))) >> below
        } else {
            part << (16 - chain.format.frac)
        };
        wide.clamp(-10 * ONE as i128, 10 * ONE as i128) as i32
    }

    /// The values L, and their inverses.
    pub(super) fn recursion(chain: &Chain, alphas: &[i128]) -> Vec<[(i128, i128); 2]> {
        let mut g = (0, 0);
        let step = |&alpha: &i128| {
            let l = advance(chain, alpha, g);
            g = invert(chain, l);
            [l, g]
        };
        alphas.iter().map(step).collect()
    }
}

/// Minimal complex arithmetic.
mod complex {
    pub(super) type Complex = (f64, f64);

    pub(super) fn inverse((re, im): Complex) -> Complex {
        let square = re * re + im * im;
        (re / square, -im / square)
    }

    pub(super) fn times(a: Complex, b: Complex) -> Complex {
        (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
    }

    pub(super) fn minus(a: Complex, b: Complex) -> Complex {
        (a.0 - b.0, a.1 - b.1)
    }

    pub(super) fn distance(a: Complex, b: Complex) -> f64 {
        (a.0 - b.0).hypot(a.1 - b.1)
    }
}
use complex::{Complex, distance, inverse, minus, times};

/// The model in f64, with the potentials that the fixed-point chain sees.
struct Exact {
    alphas: Vec<Complex>,
    beta: f64,
}

impl Exact {
    fn new(chain: &Chain, potentials: &[i32]) -> Self {
        let unit = chain.unit();
        let alpha = |&v: &i32| (wide::alpha(chain, v) as f64 * unit, -chain.eta as f64 * unit);
        let beta = chain.format.off_diagonal as f64 / ONE as f64;
        Self { alphas: potentials.iter().map(alpha).collect(), beta }
    }

    fn recursion(&self, alphas: impl Iterator<Item = Complex>) -> Vec<Complex> {
        let mut before: Option<Complex> = None;
        let step = |alpha| {
            let back = before.map_or((0.0, 0.0), inverse);
            let l = minus(alpha, (self.beta * back.0, self.beta * back.1));
            before = Some(l);
            l
        };
        alphas.map(step).collect()
    }

    fn half(&self) -> Vec<Complex> {
        self.recursion(self.alphas.iter().copied()).into_iter().map(inverse).collect()
    }

    fn full(&self) -> Vec<Complex> {
        let left = self.recursion(self.alphas.iter().copied());
        let mut right = self.recursion(self.alphas.iter().rev().copied());
        right.reverse();
        let both = left.into_iter().zip(right).zip(&self.alphas);
        both.map(|((l, r), &alpha)| inverse((l.0 + r.0 - alpha.0, l.1 + r.1 - alpha.1))).collect()
    }

    /// Diagonal of the inverse of the first `n` rows and columns, by Gaussian elimination.
    fn inverse_diagonal(&self, n: usize) -> Vec<Complex> {
        let mut matrix = vec![vec![(0.0, 0.0); 2 * n]; n];
        for i in 0..n {
            matrix[i][i] = self.alphas[i];
            matrix[i][n + i] = (1.0, 0.0);
            if i + 1 < n {
                matrix[i][i + 1] = (self.beta, 0.0);
                matrix[i + 1][i] = (1.0, 0.0);
            }
        }
        for c in 0..n {
            let size = |row: &Vec<Complex>| row[c].0.hypot(row[c].1);
            let pivot = (c..n).max_by(|&a, &b| size(&matrix[a]).total_cmp(&size(&matrix[b])));
            matrix.swap(c, pivot.unwrap_or(c));
            let scale = inverse(matrix[c][c]);
            let row: Vec<Complex> = matrix[c].iter().map(|&x| times(x, scale)).collect();
            for (_, other) in matrix.iter_mut().enumerate().filter(|&(i, _)| i != c) {
                let factor = other[c];
                other.iter_mut().zip(&row).for_each(|(x, &y)| *x = minus(*x, times(factor, y)));
            }
            matrix[c] = row;
        }
        (0..n).map(|i| matrix[i][n + i]).collect()
    }
}

/// Error bounds of `docs/numerics.md` on G, before rounding to a feature.
struct Bounds {
    half: f64,
    full: f64,
}

impl Bounds {
    /// `None` if the theorem does not apply.
    fn of(chain: &Chain) -> Option<Self> {
        let u = chain.unit();
        let beta = chain.format.off_diagonal as f64 / ONE as f64;
        let eta = chain.eta as f64 * u;
        let rho = (-31f64).exp2() + (-63f64).exp2();
        let whole = chain.format.off_diagonal.is_multiple_of(ONE);
        let roundings = if whole { beta } else { beta + 1.0 };
        let delta = 2f64.sqrt() * roundings * u + beta * rho / eta;
        let lambda = delta / (2.0 * eta);
        let kappa = beta / (beta + eta * eta);
        let kappa2 = beta / (eta + (beta + eta * eta).sqrt()).powi(2);
        let shrunk = kappa2 * (4.0 * lambda).exp();
        if lambda > 0.25 || shrunk >= 1.0 {
            return None;
        }
        let s = lambda * (1.0 + kappa * lambda.exp()) / (1.0 - shrunk);
        let last = rho / eta + 2f64.sqrt() * u;
        Some(Self { half: 2.0 * s / eta + last, full: 4.0 * s / eta + last })
    }
}

/// Largest error of fixed-point values with this unit.
fn worst(got: impl Iterator<Item = Fixed>, unit: f64, exact: &[Complex]) -> f64 {
    let errors = got.zip(exact).map(|((re, im), &exact)| {
        assert!((re as f64 * unit).abs() <= 1e3);
        distance((re as f64 * unit, im as f64 * unit), exact)
    });
    errors.fold(0.0, f64::max)
}

/// Clamps both components to ±10, like features. Clamping never increases a distance.
fn clamped(exact: &[Complex]) -> Vec<Complex> {
    exact.iter().map(|g| (g.0.clamp(-10.0, 10.0), g.1.clamp(-10.0, 10.0))).collect()
}

/// Error from rounding to a feature.
fn feature_rounding(chain: &Chain) -> f64 {
    if chain.format.frac > 16 { 2f64.sqrt() * (-17f64).exp2() } else { 0.0 }
}

/// Error of the f64 reference itself: its roundings, propagated by the same theorem.
const F64_ERROR: f64 = 1e-8;

/// Adversarial potentials: random, at and beyond their limits, and such that Re L is near zero,
/// where 1/L is largest.
fn hard_potentials(chain: &Chain, len: usize, random: &mut Random) -> Vec<i32> {
    let mut g = (0i128, 0i128);
    let mut kind = 0;
    let mut potential = |t: usize| {
        if t.is_multiple_of(7) {
            kind = random.below(6);
        }
        let resonant = {
            let l = wide::advance(chain, chain.diagonal as i128, g);
            (-l.0 << 16 >> chain.format.frac).clamp(i32::MIN as i128, i32::MAX as i128) as i32
        };
        let v = match kind {
            0 => random.between(-3 << 16, 3 << 16),
            1 => 3 << 16,
            2 => -3 << 16,
            3 => random.next() as i32,
            _ => resonant,
        };
        g = wide::invert(chain, wide::advance(chain, wide::alpha(chain, v), g));
        v
    };
    (0..len).map(&mut potential).collect()
}

/// A random chain that its format admits, often at the edge of the admitted range.
fn admitted(frac: u32, off_diagonal: u32, int8: bool, random: &mut Random) -> Option<Chain> {
    let format = ChainFormat { frac, off_diagonal, int8 };
    let powers: Vec<i32> = (0..30).map(|k| 1 << k).filter(|&eta| format.admits(0, eta)).collect();
    let &smallest = powers.first()?;
    let mut eta = powers[random.below(powers.len() as u32) as usize];
    if random.below(2) == 0 {
        eta = last_admitted(smallest, smallest / 2, |eta| format.admits(0, eta));
    }
    let mut diagonal = last_admitted(0, i32::MAX, |diagonal| format.admits(diagonal, eta));
    if random.below(2) == 0 {
        diagonal = random.between(0, diagonal.min(1 << 29));
    }
    let diagonal = if random.below(2) == 0 { diagonal } else { -diagonal };
    assert!(format.admits(diagonal, eta));
    Some(Chain { format, diagonal, eta })
}

/// Bisects for the last admitted number between `good`, which is admitted, and `bad`, which is not.
fn last_admitted(mut good: i32, mut bad: i32, admits: impl Fn(i32) -> bool) -> i32 {
    while (good as i64 - bad as i64).abs() > 1 {
        let middle = ((good as i64 + bad as i64) / 2) as i32;
        *(if admits(middle) { &mut good } else { &mut bad }) = middle;
    }
    good
}

fn off_diagonals() -> impl Strategy<Value = u32> {
    let largest = *ChainFormat::OFF_DIAGONALS.end();
    prop_oneof![Just(ONE), Just(0), Just(1), 0..4 * ONE, 0..=largest, Just(largest)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 1000 }))]

    /// Admitted chains never overflow: the bits are those of 128-bit arithmetic.
    #[test]
    fn nothing_admitted_overflows(
        frac in 12u32..=28, off_diagonal in off_diagonals(), int8 in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let Some(chain) = admitted(frac, off_diagonal, int8, &mut random) else { return Ok(()) };
        let potentials = hard_potentials(&chain, 40, &mut random);
        let alphas: Vec<i128> = potentials.iter().map(|&v| wide::alpha(&chain, v)).collect();
        let left = wide::recursion(&chain, &alphas);
        let reversed: Vec<i128> = alphas.iter().rev().copied().collect();
        let mut right = wide::recursion(&chain, &reversed);
        right.reverse();

        let (states, features) = chain.half(&potentials);
        let full = chain.full(&potentials);
        for t in 0..potentials.len() {
            let [l, g] = left[t];
            prop_assert!(l.1 <= -(chain.eta as i128), "Im L is above −η");
            prop_assert_eq!((states[t].0 as i128, states[t].1 as i128), g);
            let feature = |(re, im)| (wide::feature(&chain, re), wide::feature(&chain, im));
            prop_assert_eq!(features[t], feature(g));
            let r = right[t][0];
            let sum = (l.0 + r.0 - alphas[t], l.1 + r.1 + chain.eta as i128);
            prop_assert_eq!(full[t], feature(wide::invert(&chain, sum)));
        }
    }

    /// Short chains against Gaussian elimination: the recursion computes the resolvent, and the
    /// bound holds for adversarial potentials.
    #[test]
    fn short_chains_are_the_resolvent(
        beta in prop_oneof![Just(1.0), 0.0f64..4.0], eta in 0.05f64..2.0, diagonal in -4.0f64..4.0,
        int8 in any::<bool>(), seed in any::<u64>(), n in 1usize..20,
    ) {
        let chain = Chain::new(beta, diagonal, eta, int8);
        let potentials = hard_potentials(&chain, n, &mut Random(seed));
        let exact = Exact::new(&chain, &potentials);
        let bounds = Bounds::of(&chain).expect("the theorem covers the chain");
        let direct = exact.inverse_diagonal(n);
        for (recursion, direct) in exact.full().into_iter().zip(&direct) {
            prop_assert!(distance(recursion, *direct) < 1e-8);
        }
        let full = worst(chain.full(&potentials).into_iter(), 1.0 / ONE as f64, &clamped(&direct));
        let limit = bounds.full + feature_rounding(&chain) + F64_ERROR;
        prop_assert!(full <= limit, "{} is beyond {}", full, limit);

        // The half chain at t is the full chain truncated after t.
        let cut: Vec<Complex> = (1..=n).map(|len| exact.inverse_diagonal(len)[len - 1]).collect();
        let half = worst(chain.half(&potentials).0.into_iter(), chain.unit(), &cut);
        prop_assert!(half <= bounds.half + F64_ERROR, "{} is beyond {}", half, bounds.half);
    }

    /// α is the diagonal plus v, within half a quantization step.
    #[test]
    fn alpha_is_the_diagonal_plus_the_potential(
        frac in 12u32..=28, int8 in any::<bool>(), v in any::<i32>(),
        diagonal in -(1 << 28)..1 << 28,
    ) {
        let format = ChainFormat { frac, off_diagonal: ONE, int8 };
        let unit = (-(frac as f64)).exp2();
        let exact = diagonal as f64 * unit + (v as f64 / ONE as f64).clamp(-3.0, 3.0);
        let error = (format.alpha(diagonal, v) as f64 * unit - exact).abs();
        let half_step = if int8 { 1.5 / 127.0 + 64.0 * unit + 1e-5 } else { unit };
        prop_assert!(error <= half_step, "{} is beyond {}", error, half_step);
    }
}

#[test]
fn a_hundred_thousand_positions_stay_within_the_bound() {
    let positions = if cfg!(miri) { 50 } else { 100_000 };
    let mut random = Random(11);
    let chains = [
        // The published layer, without and with INT8 potentials.
        Chain::new(1.0, -2.0, 1.0, false),
        Chain::new(1.0, -2.0, 1.0, true),
        // η and off-diagonals that training may find.
        Chain::new(1.0, -2.0, 0.25, false),
        Chain::new(1.0, -2.0, 1.0 / 32.0, false),
        Chain::new(1.0, 0.5, 1.0 / 32.0, true),
        Chain::new(0.3, -1.0, 0.125, false),
        Chain::new(3.7, 1.0, 0.5, true),
    ];
    for chain in chains {
        let potentials = hard_potentials(&chain, positions, &mut random);
        let exact = Exact::new(&chain, &potentials);
        let bounds = Bounds::of(&chain).expect("the theorem covers the chain");
        let eta = chain.eta as f64 * chain.unit();
        // A bound of 2/η would be trivial, since |G| ≤ 1/η.
        assert!(bounds.full < 0.01 / eta, "the bound says nothing: {}", bounds.full);

        let g = exact.half();
        let (states, features) = chain.half(&potentials);
        let half = worst(states.into_iter(), chain.unit(), &g);
        assert!(half <= bounds.half + F64_ERROR, "{chain:?}: {half:e} beyond {:e}", bounds.half);
        let rounding = feature_rounding(&chain) + F64_ERROR;
        let half_features = worst(features.into_iter(), 1.0 / ONE as f64, &clamped(&g));
        assert!(half_features <= bounds.half + rounding);
        let full = chain.full(&potentials).into_iter();
        let full = worst(full, 1.0 / ONE as f64, &clamped(&exact.full()));
        assert!(full <= bounds.full + rounding, "{chain:?}: {full:e} beyond {:e}", bounds.full);
        println!(
            "F {:2}, β {:.2}, η {eta:.4}: half {half:.2e} of {:.2e}, full {full:.2e} of {:.2e}",
            chain.format.frac,
            exact.beta,
            bounds.half,
            bounds.full + rounding,
        );
    }
}

#[test]
fn what_could_overflow_is_refused() {
    let published = ChainFormat { frac: 27, off_diagonal: ONE, int8: false };
    let one = 1 << 27;
    assert!(published.admits(-2 * one, one));
    assert!(!published.admits(-2 * one, 0));
    assert!(!published.admits(-2 * one, -one));
    assert!(!published.admits(i32::MIN, one));
    assert!(!published.admits(-2 * one, one >> 5), "1/η of 32 does not fit");
    assert!(!published.admits(0, i32::MAX));
    assert!(!ChainFormat { frac: 28, ..published }.admits(-2 << 28, 1 << 28));
    assert!(!ChainFormat { frac: 29, ..published }.admits(0, 1 << 29));
    assert!(!ChainFormat { frac: u32::MAX, ..published }.admits(0, one));
    assert!(!ChainFormat { off_diagonal: u32::MAX, ..published }.admits(0, one));
    let largest = ChainFormat { frac: 12, off_diagonal: i32::MAX as u32, int8: false };
    assert!(largest.admits(0, 1 << 20));
    let beyond = ChainFormat { off_diagonal: 1 << 31, ..largest };
    assert!(!beyond.admits(0, 1 << 20), "a processor that multiplies with a sign takes it for −β");
    let coarse = ChainFormat { frac: 15, ..published };
    assert!(coarse.admits(0, 3));
    assert!(!coarse.admits(0, 2), "η of 2^−14 is not above 2^−14");
}

/// Chains are independent: K at once give the results of each alone.
#[test]
fn potentials_are_independent() {
    let mut random = Random(3);
    let format = ChainFormat { frac: 24, off_diagonal: ONE, int8: false };
    let chains: Vec<Chain> = [(-2.0, 1.0), (0.5, 0.25), (1.0, 0.0625)]
        .map(|(d, eta)| Chain {
            format,
            diagonal: (d * 2f64.powi(24)) as i32,
            eta: (eta * 2f64.powi(24)) as i32,
        })
        .to_vec();
    let bytes: Vec<u8> = chains.iter().flat_map(|c| c.bytes()).collect();
    let parameters = ChainParameters { bytes: &bytes };
    let (positions, count) = (30, chains.len());
    let potentials: Vec<i32> =
        (0..positions * count).map(|_| random.between(-3 << 16, 3 << 16)).collect();

    let mut features = vec![0; positions * 2 * count];
    full_chain(format, parameters, &potentials, &mut vec![0; 2 * positions], &mut features);
    let (mut state, mut step) = (vec![0; 2 * count], vec![0; 2 * count]);
    let mut half = Vec::new();
    for v in potentials.chunks_exact(count) {
        half_step(format, parameters, v, &mut state, &mut step);
        half.extend(&step);
    }
    for (k, chain) in chains.iter().enumerate() {
        let own: Vec<i32> = potentials.iter().skip(k).step_by(count).copied().collect();
        let (full_alone, half_alone) = (chain.full(&own), chain.half(&own).1);
        for t in 0..positions {
            let at = |all: &[i32]| (all[t * 2 * count + k], all[t * 2 * count + count + k]);
            assert_eq!(at(&features), full_alone[t]);
            assert_eq!(at(&half), half_alone[t]);
        }
    }
}
