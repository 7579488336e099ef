//! Gating: top-k selection of experts and their softmax weights.

use crate::blob::Limits;
use crate::numeric::{exp_nonpositive, residual_to_f32};

/// Fraction bits of a gate weight.
pub const WEIGHT_FRAC: u32 = 15;

/// A selected expert and its gate weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the expert.
    pub expert: u8,
    /// Gate weight in units of 2^−15.
    pub weight: u16,
}

impl Route {
    /// To the only expert.
    pub const WHOLE: Self = Self { expert: 0, weight: 1 << WEIGHT_FRAC };

    /// The route in one word, as sessions store it.
    pub const fn pack(self) -> u32 {
        (self.expert as u32) << 16 | self.weight as u32
    }

    /// Undoes [`Route::pack`].
    pub const fn unpack(word: u32) -> Self {
        Self { expert: (word >> 16) as u8, weight: word as u16 }
    }
}

/// Selects the experts with the largest logits (the lower index wins a tie) and weights them by the
/// softmax over the selected logits. `routes` are packed, largest logit first.
///
/// Shapes: `logits` is `[E]` in Q15.16, `routes` is `[top_k]` with top_k ≤ E ≤ 64.
pub fn route(logits: &[i32], routes: &mut [u32]) {
    const { assert!(Limits::EXPERTS <= u64::BITS) };
    let mut chosen = 0u64;
    let mut weights = [0f32; Limits::EXPERTS as usize];
    let mut sum = 0f32;
    let mut largest = 0;
    for rank in 0..routes.len().min(logits.len()) {
        let mut best: Option<usize> = None;
        for (e, &logit) in logits.iter().enumerate() {
            if chosen >> e & 1 == 0 && best.is_none_or(|b| logit > logits[b]) {
                best = Some(e);
            }
        }
        let best = best.unwrap_or(0);
        chosen |= 1 << best;
        routes[rank] = best as u32;
        if rank == 0 {
            largest = logits[best];
        }
        weights[rank] = exp_nonpositive(residual_to_f32(logits[best].saturating_sub(largest)));
        sum += weights[rank];
    }
    for (rank, route) in routes.iter_mut().enumerate() {
        let share = weights[rank] / sum * (1 << WEIGHT_FRAC) as f32 + 0.5;
        *route = Route { expert: *route as u8, weight: share as u16 }.pack();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_index_wins_a_tie() {
        let mut routes = [0; 2];
        route(&[5, 9, 9, 9], &mut routes);
        let routes = routes.map(Route::unpack);
        assert_eq!(routes[0], Route { expert: 1, weight: 1 << 14 });
        assert_eq!(routes[1], Route { expert: 2, weight: 1 << 14 });
    }

    #[test]
    fn one_expert_takes_all() {
        let mut routes = [0];
        route(&[i32::MIN, i32::MAX], &mut routes);
        assert_eq!(Route::unpack(routes[0]), Route { expert: 1, weight: 1 << 15 });
    }

    /// For any logits the weights sum to 1, up to rounding.
    #[test]
    fn shares_add_up() {
        let ends = [i32::MIN, i32::MAX, 0, 1, -1, 65536, i32::MIN + 1];
        for experts in 1..=ends.len() {
            for top_k in 1..=experts {
                let mut routes = std::vec![0; top_k];
                route(&ends[..experts], &mut routes);
                let sum: i32 = routes.iter().map(|&r| Route::unpack(r).weight as i32).sum();
                assert!((sum - (1 << WEIGHT_FRAC)).abs() <= top_k as i32);
            }
        }
    }

    #[test]
    fn dense_gating_is_a_softmax() {
        let logits = [65536, -32768, 0, 131072];
        let mut routes = [0; 4];
        route(&logits, &mut routes);
        let sum: f64 = logits.iter().map(|&l| (l as f64 / 65536.0).exp()).sum();
        for route in routes.map(Route::unpack) {
            let exact = (logits[route.expert as usize] as f64 / 65536.0).exp() / sum;
            assert!((route.weight as f64 / 32768.0 - exact).abs() < 2e-3);
        }
    }
}
