//! Cross-entropy of the next token.

use crate::reference::real::{Real, sum};

/// Turns logits `[rows, V]` into gradients of `scale` × the summed loss, in place, and returns the
/// summed negative log-likelihood in nats.
pub(crate) fn gradient_in_place<T: Real>(logits: &mut [T], targets: &[u32], scale: T) -> f64 {
    let vocab = logits.len() / targets.len();
    let mut total = 0.0;
    for (row, &target) in logits.chunks_exact_mut(vocab).zip(targets) {
        let largest = maximum(row);
        let at_target = (row[target as usize] - largest).to_f64();
        for x in row.iter_mut() {
            *x = (*x - largest).exp();
        }
        let normaliser = sum(row);
        total += normaliser.to_f64().ln() - at_target;
        let factor = scale / normaliser;
        for x in row.iter_mut() {
            *x = *x * factor;
        }
        row[target as usize] -= scale;
    }
    total
}

/// Negative log-likelihood in nats of each target, given logits `[rows, V]`.
pub fn negative_log_likelihoods<T: Real>(logits: &[T], targets: &[u32]) -> Vec<f64> {
    let vocab = logits.len() / targets.len().max(1);
    let row = |(row, &target): (&[T], &u32)| {
        let largest = maximum(row);
        let normaliser: T = row.iter().map(|&x| (x - largest).exp()).sum();
        normaliser.to_f64().ln() - (row[target as usize] - largest).to_f64()
    };
    logits.chunks_exact(vocab.max(1)).zip(targets).map(row).collect()
}

fn maximum<T: Real>(row: &[T]) -> T {
    // Lanes, as in the reductions: a running maximum would be one long chain of comparisons.
    let mut lanes = [row[0]; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(row[0], |a, &b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_gradient_match_the_definition() {
        let logits: Vec<f64> = (0..57).map(|i| f64::from(i).sin() * 4.0).collect();
        let targets = [3, 0, 18];
        let mut gradient = logits.clone();
        let total = gradient_in_place(&mut gradient, &targets, 0.25);
        let each = negative_log_likelihoods(&logits, &targets);
        assert!((each.iter().sum::<f64>() - total).abs() < 1e-12);
        for (r, &target) in targets.iter().enumerate() {
            let row = &logits[r * 19..][..19];
            let z: f64 = row.iter().map(|x| x.exp()).sum();
            assert!((each[r] + (row[target as usize].exp() / z).ln()).abs() < 1e-12);
            for i in 0..19 {
                let hit = f64::from(u8::from(i == target as usize));
                let expected = 0.25 * (row[i].exp() / z - hit);
                assert!((gradient[r * 19 + i] - expected).abs() < 1e-12);
            }
        }
    }
}
