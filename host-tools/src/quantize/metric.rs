//! The metric of a row's error: A, and the factor of its inverse that GPTQ needs.

use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Par, Side};

use super::calibration::Symmetric;
use crate::reference::simd;

/// A, with the Cholesky factor of its inverse for GPTQ, in single precision: rows read them from
/// memory again and again, and a relative error of 2⁻²⁴ decides no code that matters. Sums are in
/// double precision.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    pub(super) size: usize,
    /// A with damping, divided by the mean of its diagonal: no decision depends on its scale.
    pub(super) values: Vec<f32>,
    /// Columns in the order in which GPTQ fixes them: largest diagonal first.
    pub(super) order: Vec<usize>,
    /// Upper triangle U with UᵀU = A⁻¹, rows and columns in that order; empty without GPTQ.
    pub(super) factor: Vec<f32>,
}

impl Metric {
    /// Adds `damping` × the mean of the diagonal, growing tenfold until the matrix is positive
    /// definite. `None` if no damping suffices, which cannot happen for finite entries: no
    /// eigenvalue exceeds the sum of their magnitudes, so damping of the order of the matrix size
    /// is enough. Without `gptq` there is no factor, and the damping does not grow.
    pub(super) fn new(second: &Symmetric, damping: f64, gptq: bool) -> Option<Self> {
        let size = second.size;
        let mean = (second.diagonal().sum::<f64>() / size.max(1) as f64).max(1e-30);
        let mut order: Vec<usize> = (0..size).collect();
        let diagonal: Vec<f64> = second.diagonal().collect();
        order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        let mut damping = damping.max(1e-9);
        while mean.is_finite() && damping < 100.0 * size.max(1) as f64 {
            let mut values: Vec<f64> = second.values.iter().map(|value| value / mean).collect();
            values.iter_mut().step_by(size + 1).for_each(|value| *value += damping);
            let factor = if gptq { inverse_factor(&values, &order) } else { Some(Vec::new()) };
            if let Some(factor) = factor {
                let single = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
                return Some(Self { size, values: single(values), order, factor: single(factor) });
            }
            damping *= 10.0;
        }
        None
    }

    /// Diagonal of the damped A.
    pub(super) fn diagonal(&self) -> impl Iterator<Item = f64> {
        self.values.iter().step_by(self.size + 1).map(|&value| f64::from(value))
    }

    pub(super) fn row(&self, j: usize) -> &[f32] {
        &self.values[j * self.size..][..self.size]
    }

    /// A·e of several errors, which share the reading of A. Each sum is in the order of the rows of
    /// A, however many errors there are.
    pub(super) fn times(&self, errors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut products: Vec<Vec<f64>> = errors.iter().map(|_| vec![0.0; self.size]).collect();
        let (fours, errors) = errors.as_chunks::<4>();
        let (products_of_fours, few) = products.as_chunks_mut::<4>();
        simd(
            #[inline(always)]
            || {
                self.add_products(fours, products_of_fours);
                if errors.is_empty() {
                    return;
                }
                for from in (0..self.size).step_by(TILE) {
                    let tile = from..self.size.min(from + TILE);
                    for (four, rows) in self.values.chunks(4 * self.size).enumerate() {
                        for (error, product) in errors.iter().zip(&mut *few) {
                            let product = &mut product[tile.clone()];
                            add_rows(rows, (self.size, tile.start), &error[4 * four..], product);
                        }
                    }
                }
            },
        );
        products
    }

    /// Adds A·e of four errors at a time, whose sums stay in registers while they go through a
    /// block of A.
    #[inline(always)]
    fn add_products(&self, errors: &[[Vec<f64>; 4]], products: &mut [[Vec<f64>; 4]]) {
        if errors.is_empty() {
            return;
        }
        let size = self.size;
        let mut block = [[[0.0; LANES]; BLOCK]; BLOCK_COLUMNS / LANES];
        for column in (0..size).step_by(BLOCK_COLUMNS) {
            for (at, rows) in self.values.chunks(BLOCK * size).enumerate() {
                let rows = rows.chunks_exact(size);
                let count = rows.len();
                for (r, row) in rows.enumerate() {
                    let columns = row[column..].chunks(LANES).zip(&mut block);
                    columns.for_each(|(from, to)| {
                        to[r].iter_mut().zip(from).for_each(|(to, &from)| *to = f64::from(from));
                    });
                }
                for (errors, products) in errors.iter().zip(&mut *products) {
                    let errors = errors.each_ref().map(|error| &error[at * BLOCK..][..count]);
                    for (lanes, rows) in block.iter().enumerate() {
                        let column = size.min(column + lanes * LANES);
                        let width = LANES.min(size - column);
                        let mut sums = [[0.0; LANES]; 4];
                        for (sums, product) in sums.iter_mut().zip(&*products) {
                            sums[..width].copy_from_slice(&product[column..][..width]);
                        }
                        add_block(&rows[..count], errors, &mut sums);
                        for (sums, product) in sums.iter().zip(&mut *products) {
                            product[column..][..width].copy_from_slice(&sums[..width]);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of each of four errors with some columns of a block of A.
#[inline(always)]
fn add_block(rows: &[[f64; LANES]], errors: [&[f64]; 4], sums: &mut [[f64; LANES]; 4]) {
    let [a, b, c, d] = errors;
    let mut all = *sums;
    for ((((row, a), b), c), d) in rows.iter().zip(a).zip(b).zip(c).zip(d) {
        for (sums, error) in all.iter_mut().zip([a, b, c, d]) {
            for (sum, a) in sums.iter_mut().zip(row) {
                *sum += a * error;
            }
        }
    }
    *sums = all;
}

/// Upper triangle U with UᵀU = A⁻¹, rows and columns of A `values` in this order; `None` if A is
/// not positive definite.
fn inverse_factor(values: &[f64], order: &[usize]) -> Option<Vec<f64>> {
    let size = order.len();
    // With rows and columns in reverse, A = L·Lᵀ and A⁻¹ = L⁻ᵀ·L⁻¹: in reverse again, L⁻¹ is U.
    let reversed = |i: usize| order[size - 1 - i];
    let a = Mat::from_fn(size, size, |i, j| values[reversed(i) * size + reversed(j)]);
    let lower = a.llt(Side::Lower).ok()?;
    let mut inverse = Mat::zeros(size, size);
    invert_lower_triangular(inverse.as_mut(), lower.L(), Par::Seq);
    let at = |k: usize| inverse[(size - 1 - k / size, size - 1 - k % size)];
    let factor: Vec<f64> = (0..size * size).map(at).collect();
    factor.iter().all(|value| value.is_finite()).then_some(factor)
}

/// Columns of A that are multiplied at a time with a few errors: they and the products stay in the
/// L1 cache.
const TILE: usize = 256;
/// Rows and columns of A that are multiplied at a time with many errors: they stay in the L1 cache.
const BLOCK: usize = 64;
const BLOCK_COLUMNS: usize = 32;
/// Columns whose sums for four errors stay in registers.
const LANES: usize = 8;

/// Adds `factors[r]` times row r of `rows` to `sums`, four rows at a time; each sum is in the order
/// of the rows. Rows hold `size` numbers, the first of which that counts is the one at `start`.
#[inline(always)]
pub(super) fn add_rows<T: Copy + Into<f64>>(
    rows: &[T],
    (size, start): (usize, usize),
    factors: &[f64],
    sums: &mut [f64],
) {
    let n = sums.len();
    let count = rows.len() / size;
    let row = |r: usize| &rows[r * size + start..][..n];
    for r in (0..count).step_by(4) {
        if r + 4 > count {
            for r in r..count {
                let products = row(r).iter().map(|&a| a.into() * factors[r]);
                sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
            }
            break;
        }
        let [a, b, c, d] = [row(r), row(r + 1), row(r + 2), row(r + 3)];
        let [e, f, g, h] = [factors[r], factors[r + 1], factors[r + 2], factors[r + 3]];
        for i in 0..n {
            let sum = sums[i] + a[i].into() * e + b[i].into() * f;
            sums[i] = sum + c[i].into() * g + d[i].into() * h;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_sums_over_rows() {
        for size in [3, 7, 9, 2 * TILE + 3] {
            let values: Vec<f32> =
                (0..size * size).map(|i| ((i % size + i / size) % 7) as f32).collect();
            let metric = Metric { size, values, order: (0..size).collect(), factor: Vec::new() };
            for count in [2, 4, 9] {
                let error = |e: usize| (0..size).map(|i| (i * 5 + e) as f64 * 0.3 - 7.1).collect();
                let errors: Vec<Vec<f64>> = (0..count).map(error).collect();
                for (error, found) in errors.iter().zip(metric.times(&errors)) {
                    for (j, found) in found.into_iter().enumerate() {
                        let products = (0..size).map(|i| f64::from(metric.row(i)[j]) * error[i]);
                        assert_eq!(found, products.fold(0.0, |sum, product| sum + product));
                    }
                }
            }
        }
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        for size in [1, 2, 7, 40] {
            let wave = |i: usize, j: usize| ((i * 5 + j * 3) as f64 * 0.7).sin();
            let entry = |i, j| (0..size + 3).map(|k| wave(i, k) * wave(j, k)).sum::<f64>();
            let values: Vec<f64> = (0..size * size).map(|k| entry(k / size, k % size)).collect();
            let metric = Metric::new(&Symmetric::new(size, values), 0.1, true).unwrap();
            let order = &metric.order;
            assert!(order.is_sorted_by_key(|&i| -metric.values[i * size + i]));
            let values: Vec<f64> = metric.values.iter().map(|&value| f64::from(value)).collect();
            let factor = inverse_factor(&values, order).unwrap();
            let mut stored = metric.factor.iter().zip(&factor);
            assert!(stored.all(|(&a, b)| (f64::from(a) - b).abs() < 1e-5));
            let u = |i: usize, j: usize| factor[i * size + j];
            assert!((0..size).all(|i| u(i, i) > 0.0 && (0..i).all(|j| u(i, j) == 0.0)));
            // UᵀU·A = 1.
            for (i, j) in (0..size * size).map(|k| (k / size, k % size)) {
                let inverse = |k: usize| (0..size).map(|r| u(r, i) * u(r, k)).sum::<f64>();
                let a = |k: usize| values[order[k] * size + order[j]];
                let product: f64 = (0..size).map(|k| inverse(k) * a(k)).sum();
                let exact = f64::from(u8::from(i == j));
                assert!((product - exact).abs() < 1e-9, "{i} {j}: {product}");
            }
        }
    }

    #[test]
    fn a_singular_matrix_is_damped_until_it_is_not() {
        let second = Symmetric::new(3, vec![1.0; 9]);
        let metric = Metric::new(&second, 0.0, true).unwrap();
        assert_eq!(metric.size, 3);
        let zero = Symmetric::new(3, vec![0.0; 9]);
        assert!(Metric::new(&zero, 0.01, true).unwrap().diagonal().all(|d| d > 0.0));
        let plain = Metric::new(&second, 0.5, false).unwrap();
        assert!(plain.factor.is_empty() && plain.diagonal().eq([1.5; 3]));
    }

    #[test]
    fn no_damping_is_tried_for_ever() {
        let identity_but = |changed: &[usize], value| {
            let mut values = Symmetric::identity(3).values.to_vec();
            changed.iter().for_each(|&i| values[i] = value);
            Symmetric::new(3, values)
        };
        for value in [f64::NAN, f64::INFINITY, 1e308] {
            assert!(Metric::new(&identity_but(&[1, 3], value), 0.01, true).is_none(), "{value}");
            let metric = Metric::new(&identity_but(&[4], value), 0.01, true);
            assert_eq!(metric.is_some(), value.is_finite(), "{value}");
        }
    }
}
