//! Estimates with their standard errors, by a jackknife over blocks of a text.
//!
//! Every estimate here is a function of sums over predictions, such as the perplexity of total nats
//! and the number of predictions. Omitting one block at a time (Quenouille, 1949; Tukey, 1958)
//! gives B *replicates* θ₁ … θ_B with mean θ̄ and the standard error
//!
//! ```text
//! √((B − 1)/B · Σ (θ_b − θ̄)²)
//! ```
//!
//! Correlation within a block does not matter. Two models on the same text are compared by the
//! replicates of a function of both. A single block gives no standard error.

/// An estimate and its replicates.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate from all blocks.
    pub value: f64,
    /// Estimates without the first block, the second, and so on; empty with a single block.
    pub replicates: Vec<f64>,
}

impl Estimate {
    /// `statistic` of the sums of two numbers per block.
    pub fn new(blocks: &[[f64; 2]], statistic: impl Fn(f64, f64) -> f64) -> Self {
        let [a, b] = [0, 1].map(|i| blocks.iter().map(|block| block[i]).sum::<f64>());
        let without = |block: &[f64; 2]| statistic(a - block[0], b - block[1]);
        let several = if blocks.len() > 1 { blocks } else { &[] };
        Self { value: statistic(a, b), replicates: several.iter().map(without).collect() }
    }

    /// The standard error; `None` with fewer than two blocks.
    pub fn standard_error(&self) -> Option<f64> {
        standard_error(&self.replicates)
    }
}

/// Standard error from replicates; `None` for fewer than two.
fn standard_error(replicates: &[f64]) -> Option<f64> {
    let count = replicates.len() as f64;
    let mean = replicates.iter().sum::<f64>() / count;
    let squares: f64 = replicates.iter().map(|r| (r - mean).powi(2)).sum();
    (count > 1.0).then(|| ((count - 1.0) / count * squares).sqrt())
}

/// Standard error of a function of two estimates on the same text, from the replicates of both:
/// effects common to both, such as hard blocks, cancel. `None` with fewer than two blocks, or if
/// the numbers of blocks differ.
pub fn paired_error(a: &[f64], b: &[f64], of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let replicates: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| of(a, b)).collect();
    standard_error(&replicates)
}

/// Appends the standard error with `digits` decimals to a figure, "–" for a missing one.
pub fn with_error(figure: String, error: Option<f64>, digits: usize) -> String {
    match error {
        Some(error) => format!("{figure} ± {error:.digits$}"),
        None => format!("{figure} ± –"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(blocks: &[[f64; 2]]) -> Estimate {
        Estimate::new(blocks, |sum, count| sum / count)
    }

    #[test]
    fn errors_equal_the_formula() {
        // Blocks of one value each: the error is that of a mean, √(Σ(x − x̄)² / (n(n − 1))).
        let values = [1.0, 2.0, 4.0, 9.0];
        let error = mean(&values.map(|x| [x, 1.0])).standard_error().unwrap();
        let by_hand = ((9.0 + 4.0 + 0.0 + 25.0) / (4.0 * 3.0f64)).sqrt();
        assert!((error - by_hand).abs() < 1e-12, "{error} {by_hand}");
        // Unequal blocks (3, 1), (4, 2), (5, 4): leaving one out gives 9/6, 8/5, 7/3.
        let estimate = mean(&[[3.0, 1.0], [4.0, 2.0], [5.0, 4.0]]);
        assert_eq!(estimate.value, 12.0 / 7.0);
        let replicates = [1.5, 1.6, 7.0 / 3.0];
        let centre = replicates.iter().sum::<f64>() / 3.0;
        let by_hand =
            (2.0 / 3.0 * replicates.map(|r| (r - centre).powi(2)).iter().sum::<f64>()).sqrt();
        let error = estimate.standard_error().unwrap();
        assert!((error - by_hand).abs() < 1e-12, "{error} {by_hand}");
    }

    #[test]
    fn one_block_has_no_error() {
        assert_eq!(mean(&[[3.0, 2.0]]), Estimate { value: 1.5, replicates: Vec::new() });
        assert_eq!(mean(&[[3.0, 2.0]]).standard_error(), None);
        assert_eq!(mean(&[]).standard_error(), None);
        assert_eq!(mean(&[[1.0, 1.0]; 2]).standard_error(), Some(0.0));
    }

    #[test]
    fn what_two_figures_have_in_common_cancels() {
        // Three blocks of one prediction each, with losses 1, 2, 6 and half of these.
        let a = [4.0, 3.5, 1.5];
        let b = a.map(|a| a / 2.0);
        assert_eq!(paired_error(&a, &b, |a, b| b / a), Some(0.0));
        // 1/4, 2/3.5 and 1/1.5 have the mean 0.49603 and squared deviations 0.0605, 0.0057 and
        // 0.0291, whose sum times 2/3 has the root 0.2521.
        let error = paired_error(&a, &[1.0, 2.0, 1.0], |a, b| b / a).unwrap();
        assert!((error - 0.2521).abs() < 5e-5, "{error}");
        assert_eq!(paired_error(&a, &b[..2], |a, b| b / a), None);
        assert_eq!(paired_error(&a[..1], &b[..1], |a, b| b / a), None);
        assert_eq!(with_error("1.25".into(), Some(0.034), 2), "1.25 ± 0.03");
        assert_eq!(with_error("1.25".into(), None, 2), "1.25 ± –");
    }
}
