//! Code selection: GPTQ, then coordinate descent, minimizing the error weighted by its effect on
//! predictions.
//!
//! A row with error e costs e·A·eᵀ. GPTQ (Frantar et al., 2023) fixes one code after the other and
//! compensates its error in the columns not yet fixed; coordinate descent then revisits codes until
//! no single change lowers the cost.

use nalgebra::DMatrix;

use super::calibration::Symmetric;

/// Maximum sweeps of coordinate descent; it rarely needs five.
const SWEEPS: usize = 12;

/// A, with the Cholesky factor of its inverse.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    size: usize,
    /// A with damping.
    values: Vec<f64>,
    /// Columns in the order in which GPTQ fixes them: largest diagonal first.
    order: Vec<usize>,
    /// Upper triangle U with UᵀU = A⁻¹, rows and columns in that order.
    factor: Vec<f64>,
}

impl Metric {
    /// Adds `damping` × the mean of the diagonal, growing tenfold until the matrix is positive
    /// definite. `None` if no damping suffices, which cannot happen for finite entries: no
    /// eigenvalue exceeds the sum of their magnitudes, so damping of the order of the matrix size
    /// is enough.
    pub(super) fn new(second: &Symmetric, damping: f64) -> Option<Self> {
        let size = second.size;
        let mean = (second.diagonal().sum::<f64>() / size.max(1) as f64).max(1e-30);
        let mut order: Vec<usize> = (0..size).collect();
        let diagonal: Vec<f64> = second.diagonal().collect();
        order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        let mut damping = damping.max(1e-9);
        while mean.is_finite() && damping < 100.0 * size.max(1) as f64 {
            let mut values = second.values.clone();
            values.iter_mut().step_by(size + 1).for_each(|value| *value += damping * mean);
            let ordered = DMatrix::from_fn(size, size, |i, j| values[order[i] * size + order[j]]);
            let factor = ordered
                .cholesky()
                .and_then(|factor| factor.inverse().cholesky())
                .map(|factor| factor.l());
            if let Some(lower) = factor {
                // U is the transpose of the lower factor; nalgebra stores that column-major, so its
                // memory is U row-major.
                return Some(Self { size, values, order, factor: lower.as_slice().to_vec() });
            }
            damping *= 10.0;
        }
        None
    }

    /// Diagonal of the damped A.
    pub(super) fn diagonal(&self) -> impl Iterator<Item = f64> {
        self.values.iter().step_by(self.size + 1).copied()
    }

    fn row(&self, j: usize) -> &[f64] {
        &self.values[j * self.size..][..self.size]
    }

    /// A·e.
    fn times(&self, error: &[f64]) -> Vec<f64> {
        let mut product = vec![0.0; self.size];
        for (j, &e) in error.iter().enumerate().filter(|(_, e)| **e != 0.0) {
            product.iter_mut().zip(self.row(j)).for_each(|(p, a)| *p += a * e);
        }
        product
    }
}

/// A row to be rounded to codes `low..=high`, multiplied by the scale of each column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// The exact weights `[cols]`.
    pub(super) weights: &'a [f64],
    /// Scale of each column `[cols]`; 0 where every code decodes to 0.
    pub(super) scales: &'a [f64],
    /// Smallest code.
    pub(super) low: f64,
    /// Largest code.
    pub(super) high: f64,
}

impl Target<'_> {
    fn round(&self, j: usize, weight: f64) -> i8 {
        let scale = self.scales[j];
        if scale == 0.0 { 0 } else { (weight / scale).round().clamp(self.low, self.high) as i8 }
    }

    fn errors(&self, codes: &[i8]) -> Vec<f64> {
        let row = self.weights.iter().zip(self.scales).zip(codes);
        row.map(|((&w, &s), &c)| w - s * f64::from(c)).collect()
    }
}

/// A row's codes and their cost.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rounded {
    pub(super) codes: Vec<i8>,
    pub(super) cost: f64,
}

/// Round to nearest.
pub(super) fn nearest(metric: &Metric, target: Target<'_>) -> Rounded {
    let codes: Vec<i8> =
        target.weights.iter().enumerate().map(|(j, &w)| target.round(j, w)).collect();
    let cost = cost(metric, target, &codes);
    Rounded { codes, cost }
}

/// GPTQ: rounds columns in order, compensating each error in the remaining ones.
pub(super) fn gptq(metric: &Metric, target: Target<'_>) -> Vec<i8> {
    let size = metric.size;
    let mut free: Vec<f64> = metric.order.iter().map(|&j| target.weights[j]).collect();
    let mut codes = vec![0; size];
    for (i, &j) in metric.order.iter().enumerate() {
        let code = target.round(j, free[i]);
        codes[j] = code;
        let row = &metric.factor[i * size..][i..size];
        let error = (free[i] - f64::from(code) * target.scales[j]) / row[0];
        free[i..].iter_mut().zip(row).for_each(|(w, u)| *w -= error * u);
    }
    codes
}

/// Coordinate descent: changes one code at a time while that lowers the cost.
pub(super) fn descend(metric: &Metric, target: Target<'_>, mut codes: Vec<i8>) -> Rounded {
    let mut errors = target.errors(&codes);
    let mut product = metric.times(&errors);
    for _ in 0..SWEEPS {
        let mut changed = false;
        for j in 0..metric.size {
            let row = metric.row(j);
            let scale = target.scales[j];
            let ideal = f64::from(codes[j]) * scale + product[j] / row[j];
            let code = target.round(j, ideal);
            if code == codes[j] {
                continue;
            }
            let step = scale * (f64::from(code) - f64::from(codes[j]));
            codes[j] = code;
            errors[j] -= step;
            product.iter_mut().zip(row).for_each(|(p, a)| *p -= step * a);
            changed = true;
        }
        if !changed {
            break;
        }
    }
    let cost = errors.iter().zip(&product).map(|(e, p)| e * p).sum();
    Rounded { codes, cost }
}

/// The cost e·A·eᵀ.
pub(super) fn cost(metric: &Metric, target: Target<'_>, codes: &[i8]) -> f64 {
    let errors = target.errors(codes);
    errors.iter().zip(metric.times(&errors)).map(|(e, p)| e * p).sum()
}

/// Least-squares scales of groups of `group` columns for fixed codes, by a few rounds of
/// Gauss-Seidel over groups.
pub(super) fn refit(metric: &Metric, target: Target<'_>, codes: &[i8], group: usize) -> Vec<f64> {
    let size = metric.size;
    let mut scales: Vec<f64> = target.scales.chunks(group).map(|scales| scales[0]).collect();
    let mut product = metric.times(&target.errors(codes));
    for _ in 0..4 {
        for (g, scale) in scales.iter_mut().enumerate() {
            let columns = g * group..size.min((g + 1) * group);
            let mut direction = vec![0.0; size];
            for j in columns.clone().filter(|&j| codes[j] != 0) {
                let code = f64::from(codes[j]);
                direction.iter_mut().zip(metric.row(j)).for_each(|(d, a)| *d += a * code);
            }
            let dot = |v: &[f64]| columns.clone().map(|j| f64::from(codes[j]) * v[j]).sum::<f64>();
            let curvature = dot(&direction);
            if curvature <= 0.0 {
                continue;
            }
            let step = dot(&product) / curvature;
            *scale += step;
            product.iter_mut().zip(&direction).for_each(|(p, d)| *p -= step * d);
        }
    }
    scales
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const SIZE: usize = 24;

    /// A second moment of correlated inputs, weights, and scales of two groups.
    fn problem(seed: u64) -> (Symmetric, Vec<f64>, Vec<f64>) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mix: Vec<f64> = (0..SIZE * SIZE).map(|_| random.random_range(-1.0..1.0)).collect();
        let mut values = vec![0.0; SIZE * SIZE];
        for i in 0..SIZE {
            for j in 0..SIZE {
                values[i * SIZE + j] =
                    (0..SIZE / 2).map(|k| mix[i * SIZE + k] * mix[j * SIZE + k]).sum();
            }
        }
        let weights = (0..SIZE).map(|_| random.random_range(-1.0..1.0)).collect();
        let scales = (0..SIZE).map(|j| if j < SIZE / 2 { 0.3 } else { 0.25 }).collect();
        (Symmetric { size: SIZE, values }, weights, scales)
    }

    #[test]
    fn every_step_costs_less_than_the_one_before() {
        let (mut plain, mut compensated, mut descended) = (0.0, 0.0, 0.0);
        for seed in 0..20 {
            let (second, weights, scales) = problem(seed);
            let metric = Metric::new(&second, 0.01).unwrap();
            let target = Target { weights: &weights, scales: &scales, low: -4.0, high: 3.0 };
            let nearest = nearest(&metric, target);
            assert!((nearest.cost - cost(&metric, target, &nearest.codes)).abs() < 1e-9);
            let codes = gptq(&metric, target);
            assert!(codes.iter().all(|code| (-4..=3).contains(code)));
            let found = descend(&metric, target, codes.clone());
            assert!((found.cost - cost(&metric, target, &found.codes)).abs() < 1e-9);
            assert!(found.cost <= cost(&metric, target, &codes) + 1e-12);
            plain += nearest.cost;
            compensated += cost(&metric, target, &codes);
            descended += found.cost;
            // No change of a single code lowers the cost.
            for j in 0..SIZE {
                for step in [-1, 1] {
                    let mut other = found.codes.clone();
                    other[j] = (other[j] + step).clamp(-4, 3);
                    assert!(cost(&metric, target, &other) >= found.cost - 1e-9);
                }
            }
        }
        assert!(compensated < 0.5 * plain, "{compensated} {plain}");
        assert!(descended < compensated, "{descended} {compensated}");
    }

    #[test]
    fn fitted_scales_are_the_least_squares_ones() {
        let (second, weights, scales) = problem(5);
        let metric = Metric::new(&second, 0.01).unwrap();
        let target = Target { weights: &weights, scales: &scales, low: -4.0, high: 3.0 };
        let codes = gptq(&metric, target);
        let fitted = refit(&metric, target, &codes, SIZE / 2);
        let with = |a: f64, b: f64| {
            let scales: Vec<f64> = (0..SIZE).map(|j| if j < SIZE / 2 { a } else { b }).collect();
            cost(&metric, Target { scales: &scales, ..target }, &codes)
        };
        let best = with(fitted[0], fitted[1]);
        assert!(best <= cost(&metric, target, &codes));
        for (a, b) in [(1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99)] {
            assert!(with(a * fitted[0], b * fitted[1]) >= best);
        }
    }

    #[test]
    fn a_singular_matrix_is_damped_until_it_is_not() {
        let second = Symmetric { size: 3, values: vec![1.0; 9] };
        let metric = Metric::new(&second, 0.0).unwrap();
        assert_eq!(metric.size, 3);
        let zero = Symmetric { size: 3, values: vec![0.0; 9] };
        assert!(Metric::new(&zero, 0.01).unwrap().diagonal().all(|d| d > 0.0));
    }
    /// A change from one end of INT8 to the other overflows eight bits.
    #[test]
    fn a_code_may_cross_the_whole_range() {
        let metric = Metric::new(&Symmetric::identity(2), 0.01).unwrap();
        let (weights, scales) = ([12.7, -12.7], [0.1, 0.1]);
        let target = Target { weights: &weights, scales: &scales, low: -127.0, high: 127.0 };
        let found = descend(&metric, target, vec![-127, 127]);
        assert_eq!(found.codes, [127, -127]);
        assert!(found.cost < 1e-9, "{}", found.cost);
    }

    #[test]
    fn no_damping_is_tried_for_ever() {
        for value in [f64::NAN, f64::INFINITY, 1e308] {
            let mut second = Symmetric::identity(3);
            second.values[1] = value;
            second.values[3] = value;
            assert!(Metric::new(&second, 0.01).is_none(), "{value}");
            second = Symmetric::identity(3);
            second.values[4] = value;
            let metric = Metric::new(&second, 0.01);
            assert_eq!(metric.is_some(), value.is_finite(), "{value}");
        }
    }
}
