//! Code selection: GPTQ, then coordinate descent, minimizing the error weighted by its effect on
//! predictions.
//!
//! A row with error e costs e·A·eᵀ. GPTQ (Frantar et al., 2023) fixes one code after the other and
//! compensates its error in the columns not yet fixed; coordinate descent then revisits codes until
//! no single change lowers the cost.

use super::metric::{Metric, add_rows};
use crate::reference::simd;

/// Columns whose errors GPTQ compensates together in the columns after them.
const BLOCK: usize = 32;
/// Maximum sweeps of coordinate descent; it rarely needs five.
pub(super) const SWEEPS: usize = 12;

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

    /// Errors of these codes `[cols]`.
    pub(super) fn errors(&self, codes: &[i8]) -> Vec<f64> {
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
pub(super) fn nearest(target: Target<'_>) -> Vec<i8> {
    target.weights.iter().enumerate().map(|(j, &w)| target.round(j, w)).collect()
}

/// GPTQ: rounds columns in order, compensating each error in the remaining ones, in those beyond a
/// block of columns only after the block. Targets share the reading of the factor.
pub(super) fn gptq(metric: &Metric, targets: &[Target<'_>]) -> Vec<Vec<i8>> {
    let size = metric.size;
    let ordered = |target: &Target<'_>| metric.order.iter().map(|&j| target.weights[j]).collect();
    let mut free: Vec<Vec<f64>> = targets.iter().map(ordered).collect();
    let mut codes = vec![vec![0; size]; targets.len()];
    simd(
        #[inline(always)]
        || {
            for from in (0..size).step_by(BLOCK) {
                let to = size.min(from + BLOCK);
                let rows = &metric.factor[from * size..to * size];
                for (target, (free, codes)) in targets.iter().zip(free.iter_mut().zip(&mut codes)) {
                    let mut errors = [0.0; BLOCK];
                    for i in from..to {
                        let (j, row) = (metric.order[i], &rows[(i - from) * size..][i..to]);
                        let code = target.round(j, free[i]);
                        codes[j] = code;
                        let error = free[i] - f64::from(code) * target.scales[j];
                        let error = error / f64::from(row[0]);
                        let products = row.iter().map(|&u| error * f64::from(u));
                        free[i..to].iter_mut().zip(products).for_each(|(w, p)| *w -= p);
                        errors[i - from] = -error;
                    }
                    add_rows(rows, (size, to), &errors, &mut free[to..]);
                }
            }
        },
    );
    codes
}

/// Coordinate descent from each of these codes: changes one code at a time while that lowers the
/// cost e·A·eᵀ, in at most so many sweeps over the columns; without any they stay as they are.
pub(super) fn descend(
    metric: &Metric,
    starts: Vec<(Target<'_>, Vec<i8>)>,
    sweeps: usize,
) -> Vec<Rounded> {
    let errors: Vec<Vec<f64>> = starts.iter().map(|(target, codes)| target.errors(codes)).collect();
    let products = metric.times(&errors);
    let each = starts.into_iter().zip(errors.into_iter().zip(products));
    let from = |((target, codes), at)| descend_from(metric, target, codes, at, sweeps);
    each.map(from).collect()
}

fn descend_from(
    metric: &Metric,
    target: Target<'_>,
    mut codes: Vec<i8>,
    (mut errors, mut product): (Vec<f64>, Vec<f64>),
    sweeps: usize,
) -> Rounded {
    simd(
        #[inline(always)]
        || {
            for _ in 0..sweeps {
                let mut changed = false;
                for j in 0..metric.size {
                    let row = metric.row(j);
                    let scale = target.scales[j];
                    let ideal = f64::from(codes[j]) * scale + product[j] / f64::from(row[j]);
                    let code = target.round(j, ideal);
                    if code == codes[j] {
                        continue;
                    }
                    let step = scale * (f64::from(code) - f64::from(codes[j]));
                    codes[j] = code;
                    errors[j] -= step;
                    let moved = row.iter().map(|&a| step * f64::from(a));
                    product.iter_mut().zip(moved).for_each(|(p, moved)| *p -= moved);
                    changed = true;
                }
                if !changed {
                    break;
                }
            }
        },
    );
    let cost = errors.iter().zip(&product).map(|(e, p)| e * p).sum();
    Rounded { codes, cost }
}

/// Least-squares scales of groups of `group` columns for the fixed codes of each target, by a few
/// rounds of Gauss-Seidel over groups.
pub(super) fn refit(
    metric: &Metric,
    starts: &[(Target<'_>, &[i8])],
    group: usize,
) -> Vec<Vec<f64>> {
    let size = metric.size;
    let errors: Vec<Vec<f64>> = starts.iter().map(|(target, codes)| target.errors(codes)).collect();
    // A times the codes of each group, which moves the product as its scale moves.
    let factors: Vec<Vec<f64>> =
        starts.iter().map(|(_, codes)| codes.iter().map(|&c| f64::from(c)).collect()).collect();
    let mut directions = vec![vec![vec![0.0; size]; size.div_ceil(group)]; starts.len()];
    simd(
        #[inline(always)]
        || {
            for (g, rows) in metric.values.chunks(group * size).enumerate() {
                for (factors, directions) in factors.iter().zip(&mut directions) {
                    add_rows(rows, (size, 0), &factors[g * group..], &mut directions[g]);
                }
            }
        },
    );
    let each = starts.iter().zip(metric.times(&errors).into_iter().zip(directions));
    let of_target =
        |(&(target, codes), (product, directions)): (&(Target<'_>, &[i8]), (_, Vec<_>))| {
            refit_from(target, codes, group, product, &directions)
        };
    each.map(of_target).collect()
}

fn refit_from(
    target: Target<'_>,
    codes: &[i8],
    group: usize,
    mut product: Vec<f64>,
    directions: &[Vec<f64>],
) -> Vec<f64> {
    let size = codes.len();
    let mut scales: Vec<f64> = target.scales.chunks(group).map(|scales| scales[0]).collect();
    simd(
        #[inline(always)]
        || {
            for _ in 0..4 {
                for (g, (scale, direction)) in scales.iter_mut().zip(directions).enumerate() {
                    let columns = g * group..size.min((g + 1) * group);
                    let dot = |v: &[f64]| {
                        columns.clone().map(|j| f64::from(codes[j]) * v[j]).sum::<f64>()
                    };
                    let curvature = dot(direction);
                    if curvature <= 0.0 {
                        continue;
                    }
                    let step = dot(&product) / curvature;
                    *scale += step;
                    product.iter_mut().zip(direction).for_each(|(p, d)| *p -= step * d);
                }
            }
        },
    );
    scales
}

#[cfg(test)]
mod tests {
    use super::super::calibration::Symmetric;
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
        (Symmetric::new(SIZE, values), weights, scales)
    }

    /// e·A·eᵀ by its definition.
    fn cost_of(metric: &Metric, target: Target<'_>, codes: &[i8]) -> f64 {
        let errors = target.errors(codes);
        let of_row = |(j, e): (usize, &f64)| {
            e * metric.row(j).iter().zip(&errors).map(|(&a, e)| f64::from(a) * e).sum::<f64>()
        };
        errors.iter().enumerate().map(of_row).sum()
    }

    #[test]
    fn every_step_costs_less_than_the_one_before() {
        let (mut plain, mut compensated, mut descended) = (0.0, 0.0, 0.0);
        for seed in 0..20 {
            let (second, weights, scales) = problem(seed);
            let metric = Metric::new(&second, 0.01, true).unwrap();
            let target = Target { weights: &weights, scales: &scales, low: -4.0, high: 3.0 };
            let nearest = cost_of(&metric, target, &nearest(target));
            let codes = gptq(&metric, &[target]).remove(0);
            assert!(codes.iter().all(|code| (-4..=3).contains(code)));
            let found = descend(&metric, vec![(target, codes.clone())], SWEEPS).remove(0);
            assert!((found.cost - cost_of(&metric, target, &found.codes)).abs() < 1e-9);
            assert!(found.cost <= cost_of(&metric, target, &codes) + 1e-12);
            plain += nearest;
            compensated += cost_of(&metric, target, &codes);
            descended += found.cost;
            // No change of a single code lowers the cost.
            for j in 0..SIZE {
                for step in [-1, 1] {
                    let mut other = found.codes.clone();
                    other[j] = (other[j] + step).clamp(-4, 3);
                    assert!(cost_of(&metric, target, &other) >= found.cost - 1e-9);
                }
            }
        }
        assert!(compensated < 0.5 * plain, "{compensated} {plain}");
        assert!(descended < compensated, "{descended} {compensated}");
    }

    #[test]
    fn fitted_scales_are_the_least_squares_ones() {
        let (second, weights, scales) = problem(5);
        let metric = Metric::new(&second, 0.01, true).unwrap();
        let target = Target { weights: &weights, scales: &scales, low: -4.0, high: 3.0 };
        let codes = gptq(&metric, &[target]).remove(0);
        let fitted = refit(&metric, &[(target, &codes)], SIZE / 2).remove(0);
        let with = |a: f64, b: f64| {
            let scales: Vec<f64> = (0..SIZE).map(|j| if j < SIZE / 2 { a } else { b }).collect();
            cost_of(&metric, Target { scales: &scales, ..target }, &codes)
        };
        let best = with(fitted[0], fitted[1]);
        assert!(best <= cost_of(&metric, target, &codes));
        for (a, b) in [(1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99)] {
            assert!(with(a * fitted[0], b * fitted[1]) >= best);
        }
    }

    /// A change from one end of INT8 to the other overflows eight bits.
    #[test]
    fn a_code_may_cross_the_whole_range() {
        let metric = Metric::new(&Symmetric::identity(2), 0.01, true).unwrap();
        let (weights, scales) = ([12.7, -12.7], [0.1, 0.1]);
        let target = Target { weights: &weights, scales: &scales, low: -127.0, high: 127.0 };
        let found = descend(&metric, vec![(target, vec![-127, 127])], SWEEPS).remove(0);
        assert_eq!(found.codes, [127, -127]);
        assert!(found.cost < 1e-9, "{}", found.cost);
    }
}
