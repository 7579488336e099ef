//! The learning-rate schedule.

/// Linear warm-up over `warmup` steps to `peak`, then half a cosine down to `peak · final_fraction`
/// at step `steps`. `step` counts from 0.
pub fn learning_rate(step: u64, steps: u64, warmup: u64, peak: f64, final_fraction: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
    peak * (final_fraction + (1.0 - final_fraction) * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls() {
        let at = |step| learning_rate(step, 1000, 100, 2.0, 0.1);
        assert_eq!(at(0), 0.02);
        assert_eq!(at(99), 2.0);
        assert_eq!(at(100), 2.0);
        assert!((at(550) - 1.1).abs() < 1e-9);
        assert!((at(1000) - 0.2).abs() < 1e-9);
        assert!((at(5000) - 0.2).abs() < 1e-9);
        assert_eq!(learning_rate(0, 0, 0, 1.0, 0.0), 1.0);
    }
}
