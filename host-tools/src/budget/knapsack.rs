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

/// The most cells of the dynamic-programming table. Below that many aligned sections a cell has the
/// bytes that sections are aligned to, and rounding to cells is exact; above, sections count as up
/// to a cell larger than they are.
const CELLS: usize = 1 << 19;

/// Bytes of a cell, so that a capacity has at most [`CELLS`].
fn cell_bytes(capacity: usize) -> usize {
    align_up(capacity.div_ceil(CELLS).max(1))
}

/// For every tensor, the index of its choice: smallest summed cost with summed aligned bytes of at
/// most `capacity`. `None` if even the smallest choices do not fit. By dynamic programming over
/// bytes; ties go to the smaller mix. Exact up to a capacity of 8 MiB. Beyond, it leaves unused at
/// most 2⁻¹⁹ of the capacity for each tensor: 0.03 % of it for 135 tensors.
pub fn solve(tensors: &[Vec<Choice>], capacity: usize) -> Option<Vec<usize>> {
    let largest = tensors.iter().filter_map(|choices| choices.iter().map(|c| c.bytes).max());
    let cell_bytes = cell_bytes(capacity.min(largest.clone().map(align_up).sum()));
    let cells_of = |bytes: usize| align_up(bytes).div_ceil(cell_bytes);
    let weight = |choice: &Choice| cells_of(choice.bytes);
    // Capacity beyond the sum of the largest choices would only enlarge the table.
    let cells = (capacity / cell_bytes).min(largest.map(cells_of).sum()) + 1;
    // best[c]: smallest cost of the tensors so far in at most c cells.
    let mut best = vec![0.0f64; cells];
    let mut chosen: Vec<Vec<u8>> = Vec::with_capacity(tensors.len());
    for choices in tensors {
        let mut next = vec![f64::INFINITY; cells];
        let mut choice = vec![u8::MAX; cells];
        for (index, option) in choices.iter().enumerate() {
            let weight = weight(option);
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
        // Rounded to cells, what just fits may not.
        let smallest = |choices: &Vec<Choice>| (0..choices.len()).min_by_key(|&i| choices[i].bytes);
        let mix: Vec<usize> = tensors.iter().map(smallest).collect::<Option<_>>()?;
        let bytes = mix.iter().zip(tensors).map(|(&i, choices)| align_up(choices[i].bytes));
        return (bytes.sum::<usize>() <= capacity).then_some(mix);
    }
    // The smallest capacity that reaches the lowest cost.
    let mut cell = best.iter().position(|&cost| cost <= last)?;
    let mut mix = vec![0; tensors.len()];
    for (t, choices) in tensors.iter().enumerate().rev() {
        let index = usize::from(chosen[t][cell]);
        mix[t] = index;
        cell -= weight(&choices[index]);
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

    /// Cells are no multiple of such a size.
    #[test]
    fn a_capacity_for_everything_is_enough() {
        let [large, small] =
            [(9_870_241, 0.0), (1, 4.9)].map(|(bytes, cost)| Choice { bytes, cost });
        assert_eq!(solve(&[vec![large, small]], 30_000_000), Some(vec![0]));
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

        #[test]
        fn large_capacities_lose_a_cell_for_each_tensor_at_most(
            tensors in prop::collection::vec(
                prop::collection::vec(
                    (1usize..20_000_000, 0.0f64..10.0)
                        .prop_map(|(bytes, cost)| Choice { bytes, cost }),
                    1..4,
                ),
                1..4,
            ),
            capacity in 30_000_000usize..60_000_000,
        ) {
            let mix = solve(&tensors, capacity);
            prop_assert_eq!(mix.is_some(), brute_force(&tensors, capacity).is_some());
            let lost = (tensors.len() + 1) * cell_bytes(capacity);
            if let (Some(mix), Some(best)) = (mix, brute_force(&tensors, capacity - lost)) {
                let chosen: Vec<Choice> = mix.iter().zip(&tensors).map(|(&i, t)| t[i]).collect();
                prop_assert!(chosen.iter().map(|c| align_up(c.bytes)).sum::<usize>() <= capacity);
                prop_assert!(chosen.iter().map(|c| c.cost).sum::<f64>() <= best + 1e-9);
            }
        }
    }
}
