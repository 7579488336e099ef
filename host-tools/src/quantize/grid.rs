//! Scale search: row and group scales that minimize the loss under rounding to nearest.
//!
//! The loss of a row is Σ_c h_c (w_c − ŵ_c)², with h_c the second moment of input c: the expected
//! squared error of the output for uncorrelated inputs.

use resnet_bk_core::blob::Precision;

/// Code range of a precision, and the range of group multiples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    /// Smallest code.
    pub(super) low: f64,
    /// Largest code.
    pub(super) high: f64,
    /// Largest multiple of the row's unit that a group's scale may be.
    pub(super) multiple: u8,
}

impl Levels {
    /// The levels of an integer precision. −128 is never written, so that INT8 is symmetric.
    pub(super) fn of(precision: Precision) -> Self {
        let high = f64::from((1u32 << (precision.bits().min(8) - 1)) - 1);
        if precision.is_grouped() {
            Self { low: -high - 1.0, high, multiple: 15 }
        } else {
            Self { low: -high, high, multiple: 1 }
        }
    }
}

/// A row's scales: group g has the scale `unit · multiples[g]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowGrid {
    /// Weight per code at multiple 1.
    pub(super) unit: f64,
    /// One multiple per group, 0 to 15.
    pub(super) multiples: Vec<u8>,
}

impl RowGrid {
    /// The scale of every column.
    pub(super) fn columns(&self, cols: usize, group: usize) -> Vec<f64> {
        (0..cols).map(|j| self.unit * f64::from(self.multiples[j / group])).collect()
    }
}

/// Nearest code for a scale; 0 for a scale of 0.
fn code(weight: f64, scale: f64, levels: Levels) -> f64 {
    if scale == 0.0 { 0.0 } else { (weight / scale).round().clamp(levels.low, levels.high) }
}

fn loss(weights: &[f64], importance: &[f64], scale: f64, levels: Levels) -> f64 {
    let error = |(&w, &h): (&f64, &f64)| h * (w - code(w, scale, levels) * scale).powi(2);
    weights.iter().zip(importance).map(error).sum()
}

/// The scale at which the outermost codes just reach the largest weight.
fn reach(weights: &[f64], levels: Levels) -> f64 {
    let peak = weights.iter().fold(0.0, |peak: f64, w| peak.max(w.abs()));
    peak / ((levels.high - levels.low) / 2.0)
}

/// Absmax scales per group, without a search.
pub(super) fn plain(weights: &[f64], group: usize, levels: Levels) -> RowGrid {
    let steps: Vec<f64> = weights.chunks(group).map(|w| reach(w, levels)).collect();
    let unit = steps.iter().copied().fold(0.0, f64::max) / f64::from(levels.multiple);
    RowGrid {
        unit,
        multiples: steps.iter().map(|&step| nearest_multiple(step, unit, levels)).collect(),
    }
}

/// The integer multiple of `unit` nearest to `step`; 0 for a group of zeros.
pub(super) fn nearest_multiple(step: f64, unit: f64, levels: Levels) -> u8 {
    if step <= 0.0 || unit <= 0.0 {
        return 0;
    }
    (step / unit).round().clamp(1.0, f64::from(levels.multiple)) as u8
}

/// Searched scales: first the best scale of each group, then the row unit and multiples that
/// minimize the total loss.
pub(super) fn search(weights: &[f64], importance: &[f64], group: usize, levels: Levels) -> RowGrid {
    let groups: Vec<(&[f64], &[f64])> =
        weights.chunks(group).zip(importance.chunks(group)).collect();
    let steps: Vec<f64> = groups.iter().map(|(w, h)| step(w, h, levels)).collect();
    let largest = steps.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 || levels.multiple == 1 {
        let multiples = steps.iter().map(|&step| u8::from(step > 0.0)).collect();
        return RowGrid { unit: largest, multiples };
    }
    let mut best: Option<(f64, RowGrid)> = None;
    for multiple in 9..=levels.multiple {
        for nudge in [0.98, 1.0, 1.02] {
            let unit = largest * nudge / f64::from(multiple);
            let mut total = 0.0;
            let mut multiples = Vec::with_capacity(groups.len());
            for (&step, &(w, h)) in steps.iter().zip(&groups) {
                let (multiple, loss) = better_multiple(step / unit, unit, w, h, levels);
                total += loss;
                multiples.push(multiple);
            }
            if best.as_ref().is_none_or(|(loss, _)| total < *loss) {
                best = Some((total, RowGrid { unit, multiples }));
            }
        }
    }
    best.expect("there is at least one candidate").1
}

/// The better of the two integer multiples around `ideal`, with its loss.
fn better_multiple(
    ideal: f64,
    unit: f64,
    weights: &[f64],
    importance: &[f64],
    levels: Levels,
) -> (u8, f64) {
    let limit = f64::from(levels.multiple);
    let below = ideal.floor().clamp(1.0, limit);
    let above = (below + 1.0).min(limit);
    let [a, b] = [below, above].map(|n| (n as u8, loss(weights, importance, n * unit, levels)));
    if b.1 < a.1 { b } else { a }
}

/// The best of 36 candidate scales, refined once by least squares.
fn step(weights: &[f64], importance: &[f64], levels: Levels) -> f64 {
    let reach = reach(weights, levels);
    if reach == 0.0 {
        return 0.0;
    }
    let total = |s: f64| loss(weights, importance, s, levels);
    let (first, stride) = if levels.high > 100.0 { (1.02, 0.01) } else { (1.2, 0.02) };
    let step = best((0..36).map(|i| reach * (first - stride * f64::from(i))), total);
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for (&w, &h) in weights.iter().zip(importance) {
        let q = code(w, step, levels);
        numerator += h * w * q;
        denominator += h * q * q;
    }
    let refined = if denominator > 0.0 { numerator / denominator } else { step };
    best([step, refined].into_iter(), total)
}

/// The candidate with the smallest cost; ties go to the first.
fn best(candidates: impl Iterator<Item = f64>, cost: impl Fn(f64) -> f64) -> f64 {
    let mut best = (f64::INFINITY, 0.0);
    for candidate in candidates {
        let cost = cost(candidate);
        if cost < best.0 {
            best = (cost, candidate);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const COLS: usize = 128;

    fn row_loss(weights: &[f64], row: &RowGrid, group: usize, levels: Levels) -> f64 {
        let groups = weights.chunks(group).zip(&row.multiples);
        let loss =
            |(w, &n): (&[f64], &u8)| loss(w, &vec![1.0; w.len()], row.unit * f64::from(n), levels);
        groups.map(loss).sum()
    }

    /// Rows of roughly Gaussian weights, as trained ones are.
    fn rows() -> Vec<Vec<f64>> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut weight = || (0..6).map(|_| random.random_range(-1f64..1.0)).sum::<f64>();
        (0..40).map(|_| (0..COLS).map(|_| weight()).collect()).collect()
    }

    #[test]
    fn searched_scales_lose_less_than_those_of_the_largest_magnitude() {
        for precision in Precision::ALL.into_iter().filter(|&p| p != Precision::Fp16) {
            let levels = Levels::of(precision);
            let group = if precision.is_grouped() { 32 } else { COLS };
            let (mut searched, mut unsearched) = (0.0, 0.0);
            for weights in rows() {
                let ones = vec![1.0; COLS];
                searched +=
                    row_loss(&weights, &search(&weights, &ones, group, levels), group, levels);
                unsearched += row_loss(&weights, &plain(&weights, group, levels), group, levels);
            }
            let share = if precision.is_grouped() { 0.9 } else { 1.0 };
            assert!(searched <= share * unsearched, "{precision:?}: {searched} {unsearched}");
        }
    }

    #[test]
    fn important_inputs_decide_the_scale() {
        let levels = Levels::of(Precision::Int4);
        let weights = [1.0, 0.1, 0.1, 0.1];
        let mut importance = [1e-9, 1.0, 1.0, 1.0];
        let error = |row: RowGrid| {
            let scale = row.unit * f64::from(row.multiples[0]);
            (0.1 - code(0.1, scale, levels) * scale).abs()
        };
        let focused = error(search(&weights, &importance, 4, levels));
        importance = [1.0; 4];
        assert!(focused < error(search(&weights, &importance, 4, levels)));
    }

    #[test]
    fn a_row_of_zeros_has_scale_zero() {
        let row = search(&[0.0; 8], &[1.0; 8], 8, Levels::of(Precision::Int8));
        assert_eq!(row, RowGrid { unit: 0.0, multiples: vec![0] });
        let row = search(&[0.0; 40], &[1.0; 40], 32, Levels::of(Precision::Int4));
        assert_eq!(row, RowGrid { unit: 0.0, multiples: vec![0, 0] });
        assert_eq!(plain(&[0.0; 40], 32, Levels::of(Precision::Int3)), row);
    }
}
