//! The half-chain kernel of this processor against the portable one, step by step.

use proptest::prelude::*;
use std::{vec, vec::Vec};

use super::{ChainFormat, ChainParameters, half_step, half_step_portably};

/// Chain parameters that the format admits, if any: η is a power of two or the smallest admitted
/// value, the diagonal the largest for that η or a smaller one.
fn parameters(
    format: ChainFormat,
    (pick, edges, diagonal): (usize, u8, i32),
) -> Option<(i32, i32)> {
    let powers: Vec<i32> = (0..30).map(|k| 1 << k).filter(|&eta| format.admits(0, eta)).collect();
    let mut eta = powers.get(pick.checked_rem(powers.len())?).copied()?;
    if edges & 1 == 1 {
        eta = last_admitted(powers[0], powers[0] / 2, |eta| format.admits(0, eta));
    }
    let largest = last_admitted(0, i32::MAX, |diagonal| format.admits(diagonal, eta));
    let diagonal = if edges & 2 == 2 { largest } else { diagonal % (largest + 1) };
    let diagonal = if edges & 4 == 4 { -diagonal } else { diagonal };
    Some((diagonal, eta))
}

/// Bisects for the last admitted number between `good`, which is admitted, and `bad`, which is not.
fn last_admitted(mut good: i32, mut bad: i32, admits: impl Fn(i32) -> bool) -> i32 {
    while (good as i64 - bad as i64).abs() > 1 {
        let middle = ((good as i64 + bad as i64) / 2) as i32;
        *(if admits(middle) { &mut good } else { &mut bad }) = middle;
    }
    good
}

/// Any β, with emphasis on the usual values; [`parameters`] skips those that no format admits.
fn off_diagonals() -> impl Strategy<Value = u32> {
    let edges =
        vec![0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, i32::MAX as u32, 1 << 31, u32::MAX];
    prop_oneof![
        Just(1 << 16),
        0u32..4 << 16,
        (any::<u32>(), 0u32..32).prop_map(|(bits, drop)| bits >> drop),
        prop::sample::select(edges),
    ]
}

fn potential() -> impl Strategy<Value = i32> {
    let ends = vec![i32::MIN, i32::MAX, 0, 3 << 16, -(3 << 16), (3 << 16) + 1, 1, -1];
    prop_oneof![-(4i32 << 16)..4 << 16, any::<i32>(), prop::sample::select(ends)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 2048 }))]

    #[test]
    fn half_chains_agree(
        frac in 12u32..=28,
        off_diagonal in off_diagonals(),
        int8 in any::<bool>(),
        raw in prop::collection::vec((any::<usize>(), any::<u8>(), any::<i32>()), 1..14),
        potentials in prop::collection::vec(potential(), 14 * 12),
    ) {
        let format = ChainFormat { frac, off_diagonal, int8 };
        let admitted: Vec<(i32, i32)> =
            raw.into_iter().filter_map(|raw| parameters(format, raw)).collect();
        // With and without a remainder after groups of four.
        let count = if int8 { admitted.len() } else { admitted.len() / 4 * 4 };
        let bytes: Vec<u8> = admitted[..count]
            .iter()
            .flat_map(|(diagonal, eta)| [diagonal.to_le_bytes(), eta.to_le_bytes()].concat())
            .collect();
        let parameters = ChainParameters { bytes: &bytes };
        let (mut state, mut expected_state) = (vec![0; 2 * count], vec![0; 2 * count]);
        for potentials in potentials.chunks_exact(14) {
            let potentials = &potentials[..count];
            let (mut features, mut expected) = (vec![0; 2 * count], vec![0; 2 * count]);
            half_step_portably(format, parameters, potentials, &mut expected_state, &mut expected);
            half_step(format, parameters, potentials, &mut state, &mut features);
            prop_assert_eq!(&state, &expected_state);
            prop_assert_eq!(&features, &expected);
        }
    }
}
