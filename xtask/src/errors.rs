//! Figures with their standard errors.

/// Standard error of a function of two figures that were measured on the same text, from what both are
/// without each block of it in turn: √((B − 1)/B · Σ (θ_b − θ̄)²), the jackknife of `resnet-bk eval`. What
/// both have in common, such as blocks that are hard for either, does not count. `None` without two
/// blocks, or where the blocks are not the same.
pub(crate) fn paired(a: &[f64], b: &[f64], of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    if a.len() != b.len() || a.len() < 2 {
        return None;
    }
    let replicates: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| of(a, b)).collect();
    let count = replicates.len() as f64;
    let mean = replicates.iter().sum::<f64>() / count;
    let squares: f64 = replicates.iter().map(|r| (r - mean).powi(2)).sum();
    Some(((count - 1.0) / count * squares).sqrt())
}

/// A figure and its error to so many digits, "–" where there is none.
pub(crate) fn with_error(figure: String, error: Option<f64>, digits: usize) -> String {
    match error {
        Some(error) => format!("{figure} ± {error:.digits$}"),
        None => format!("{figure} ± –"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_common_to_both_does_not_count() {
        // Three blocks of one prediction each with losses 1, 2, 6 and half of that.
        let a = [4.0, 3.5, 1.5];
        let b = a.map(|a| a / 2.0);
        assert_eq!(paired(&a, &b, |a, b| b / a), Some(0.0));
        // By hand: 1/4, 2/3.5 and 1/1.5 have the mean 0.49603 and squared deviations 0.0605, 0.0057
        // and 0.0291, whose sum times 2/3 has the root 0.2521.
        let error = paired(&a, &[1.0, 2.0, 1.0], |a, b| b / a).unwrap();
        assert!((error - 0.2521).abs() < 5e-5, "{error}");
        assert_eq!(paired(&a, &b[..2], |a, b| b / a), None);
        assert_eq!(paired(&a[..1], &b[..1], |a, b| b / a), None);
        assert_eq!(with_error("1.25".into(), Some(0.034), 2), "1.25 ± 0.03");
        assert_eq!(with_error("1.25".into(), None, 2), "1.25 ± –");
    }
}
