//! Multiple-choice knapsack: one choice per tensor, minimizing the total cost within a byte budget.

use resnet_bk_core::blob::align_up;

/// One way to store a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Bytes of its section, unaligned.
    pub bytes: usize,
    /// Cost in any additive unit.
    pub cost: f64,
}

/// Bytes per cell of the dynamic-programming table. Sections are aligned to it, so rounding to
/// cells is exact.
const CELL: usize = resnet_bk_core::blob::ALIGN;

/// For every tensor, the index of its choice: smallest summed cost with summed aligned bytes of at
/// most `capacity`. `None` if even the smallest choices do not fit. Exact, by dynamic programming
/// over bytes; ties go to the smaller mix.
pub fn solve(tensors: &[Vec<Choice>], capacity: usize) -> Option<Vec<usize>> {
    let largest = |choices: &Vec<Choice>| choices.iter().map(|c| align_up(c.bytes)).max();
    // Capacity beyond the sum of the largest choices would only enlarge the table.
    let capacity = capacity.min(tensors.iter().filter_map(largest).sum());
    let cells = capacity / CELL + 1;
    // best[c]: smallest cost of the tensors so far in at most c cells.
    let mut best = vec![0.0f64; cells];
    let mut chosen: Vec<Vec<u8>> = Vec::with_capacity(tensors.len());
    for choices in tensors {
        let mut next = vec![f64::INFINITY; cells];
        let mut choice = vec![u8::MAX; cells];
        for (index, option) in choices.iter().enumerate() {
            let weight = align_up(option.bytes) / CELL;
            for c in weight..cells {
                let cost = best[c - weight] + option.cost;
                if cost < next[c] {
                    next[c] = cost;
                    choice[c] = index as u8;
                }
            }
        }
        best = next;
        chosen.push(choice);
    }
    let last = *best.last()?;
    if !last.is_finite() {
        return None;
    }
    // The smallest capacity that reaches the lowest cost.
    let mut cell = best.iter().position(|&cost| cost <= last)?;
    let mut mix = vec![0; tensors.len()];
    for (t, choices) in tensors.iter().enumerate().rev() {
        let index = usize::from(chosen[t][cell]);
        mix[t] = index;
        cell -= align_up(choices[index].bytes) / CELL;
    }
    Some(mix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Enumerates every mix.
    fn brute_force(tensors: &[Vec<Choice>], capacity: usize) -> Option<f64> {
        let mut mixes = vec![(0, 0.0)];
        for choices in tensors {
            mixes = mixes
                .iter()
                .flat_map(|&(bytes, cost)| {
                    choices.iter().map(move |c| (bytes + align_up(c.bytes), cost + c.cost))
                })
                .collect();
        }
        let fitting = mixes.into_iter().filter(|&(bytes, _)| bytes <= capacity);
        fitting.map(|(_, cost)| cost).min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn nothing_is_better(
            tensors in prop::collection::vec(
                prop::collection::vec(
                    (1usize..200, 0.0f64..10.0).prop_map(|(bytes, cost)| Choice { bytes, cost }),
                    1..5,
                ),
                1..6,
            ),
            capacity in 0usize..900,
        ) {
            let mix = solve(&tensors, capacity);
            let best = brute_force(&tensors, capacity);
            prop_assert_eq!(mix.is_some(), best.is_some());
            if let (Some(mix), Some(best)) = (mix, best) {
                let chosen: Vec<Choice> = mix.iter().zip(&tensors).map(|(&i, t)| t[i]).collect();
                let bytes: usize = chosen.iter().map(|c| align_up(c.bytes)).sum();
                let cost: f64 = chosen.iter().map(|c| c.cost).sum();
                prop_assert!(bytes <= capacity);
                prop_assert!((cost - best).abs() < 1e-9, "{} {}", cost, best);
            }
        }
    }
}
