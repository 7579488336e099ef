//! Choosing scales: the row and group scales that lose least on the calibration text.
//!
//! The loss of a row is Σ_c h_c (w_c − ŵ_c)², with h_c the mean square of input c: the expected
//! squared error of the output where inputs are uncorrelated.

/// Codes of a row and the scale that multiplies them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Int8Row {
    /// Weight per code.
    pub scale: f64,
}

/// Codes of a row in groups.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Int4Row {
    /// Weight per code and unit of group scale.
    pub unit: f64,
    /// One group scale per group, 0 to 15.
    pub group_scales: Vec<u8>,
}

/// Largest INT8 code; −128 is never written.
pub(super) const INT8_MAX: f64 = 127.0;

/// Nearest code on a grid of step `scale` within `low..=high`; 0 for a step of 0.
pub(super) fn code(weight: f32, scale: f64, low: f64, high: f64) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    (f64::from(weight) / scale).round().clamp(low, high) as i8
}

fn loss(weights: &[f32], importance: &[f64], scale: f64, low: f64, high: f64) -> f64 {
    let error = |(&w, &h): (&f32, &f64)| {
        let e = f64::from(w) - f64::from(code(w, scale, low, high)) * scale;
        h * e * e
    };
    weights.iter().zip(importance).map(error).sum()
}

fn peak(weights: &[f32]) -> f64 {
    weights.iter().fold(0.0, |peak, w| peak.max(f64::from(w.abs())))
}

/// The best of 24 steps from the one that just reaches the largest weight down to 0.77 of it.
pub(super) fn int8_row(weights: &[f32], importance: &[f64]) -> Int8Row {
    let reach = peak(weights) / INT8_MAX;
    let candidates = (0..24).map(|i| reach * (1.0 - 0.01 * f64::from(i)));
    Int8Row { scale: best(candidates, |s| loss(weights, importance, s, -INT8_MAX, INT8_MAX)) }
}

/// Group scales as multiples of one row unit: every group's best step first, then the row unit
/// and the multiples that together lose least.
pub(super) fn int4_row(weights: &[f32], importance: &[f64], group: usize) -> Int4Row {
    let groups: Vec<(&[f32], &[f64])> =
        weights.chunks(group).zip(importance.chunks(group)).collect();
    let steps: Vec<f64> = groups.iter().map(|(w, h)| int4_step(w, h)).collect();
    let largest = steps.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return Int4Row { unit: 0.0, group_scales: vec![0; groups.len()] };
    }
    let mut best: Option<(f64, Int4Row)> = None;
    for multiple in 9..=15 {
        for nudge in [0.98, 1.0, 1.02] {
            let unit = largest * nudge / f64::from(multiple);
            let mut total = 0.0;
            let mut group_scales = Vec::with_capacity(groups.len());
            for (&step, &(w, h)) in steps.iter().zip(&groups) {
                let (scale, loss) = group_scale(step / unit, unit, w, h);
                total += loss;
                group_scales.push(scale);
            }
            if best.as_ref().is_none_or(|(loss, _)| total < *loss) {
                best = Some((total, Int4Row { unit, group_scales }));
            }
        }
    }
    best.expect("there is at least one candidate").1
}

/// The better of the two whole multiples around `ideal`, with its loss.
fn group_scale(ideal: f64, unit: f64, weights: &[f32], importance: &[f64]) -> (u8, f64) {
    let below = ideal.floor().clamp(1.0, 15.0);
    let above = (below + 1.0).min(15.0);
    let candidates =
        [below, above].map(|n| (n as u8, loss(weights, importance, n * unit, -8.0, 7.0)));
    if candidates[1].1 < candidates[0].1 { candidates[1] } else { candidates[0] }
}

/// The best of 32 steps, refined once by least squares.
fn int4_step(weights: &[f32], importance: &[f64]) -> f64 {
    let reach = peak(weights) / 7.5;
    if reach == 0.0 {
        return 0.0;
    }
    let total = |s: f64| loss(weights, importance, s, -8.0, 7.0);
    let step = best((0..32).map(|i| reach * (1.2 - 0.02 * f64::from(i))), total);
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for (&w, &h) in weights.iter().zip(importance) {
        let q = f64::from(code(w, step, -8.0, 7.0));
        numerator += h * f64::from(w) * q;
        denominator += h * q * q;
    }
    let refined = if denominator > 0.0 { numerator / denominator } else { step };
    best([step, refined].into_iter(), total)
}

/// The candidate with the smallest cost; the first of equals.
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

    fn row_loss(weights: &[f32], row: &Int4Row, group: usize) -> f64 {
        let groups = weights.chunks(group).zip(&row.group_scales);
        groups.map(|(w, &n)| loss(w, &vec![1.0; w.len()], row.unit * f64::from(n), -8.0, 7.0)).sum()
    }

    /// Rows of bell-shaped weights, as trained ones are.
    fn rows() -> Vec<Vec<f32>> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut weight = || (0..6).map(|_| random.random_range(-1f32..1.0)).sum::<f32>();
        (0..40).map(|_| (0..128).map(|_| weight()).collect()).collect()
    }

    #[test]
    fn searched_scales_lose_less_than_those_of_the_largest_magnitude() {
        let (mut int8, mut int8_plain, mut int4, mut int4_plain) = (0.0, 0.0, 0.0, 0.0);
        for weights in rows() {
            let ones = vec![1.0; weights.len()];
            let of = |scale| loss(&weights, &ones, scale, -INT8_MAX, INT8_MAX);
            int8 += of(int8_row(&weights, &ones).scale);
            int8_plain += of(peak(&weights) / INT8_MAX);
            int4 += row_loss(&weights, &int4_row(&weights, &ones, 32), 32);
            let plain = |w: &[f32]| loss(w, &vec![1.0; w.len()], peak(w) / 7.0, -8.0, 7.0);
            int4_plain += weights.chunks(32).map(plain).sum::<f64>();
        }
        assert!(int8 <= int8_plain, "{int8} {int8_plain}");
        // Although the plain scales are not even rounded to a stored form.
        assert!(int4 < 0.9 * int4_plain, "{int4} {int4_plain}");
    }

    #[test]
    fn important_inputs_decide_the_scale() {
        let weights = [1.0, 0.1, 0.1, 0.1];
        let mut importance = [1e-9, 1.0, 1.0, 1.0];
        let error = |row: Int4Row| {
            let scale = row.unit * f64::from(row.group_scales[0]);
            (0.1 - f64::from(code(0.1, scale, -8.0, 7.0)) * scale).abs()
        };
        let focused = error(int4_row(&weights, &importance, 4));
        importance = [1.0; 4];
        assert!(focused < error(int4_row(&weights, &importance, 4)));
    }

    #[test]
    fn a_row_of_zeros_has_scale_zero() {
        assert_eq!(int8_row(&[0.0; 8], &[1.0; 8]).scale, 0.0);
        let row = int4_row(&[0.0; 40], &[1.0; 40], 32);
        assert_eq!(row, Int4Row { unit: 0.0, group_scales: vec![0, 0] });
    }
}
