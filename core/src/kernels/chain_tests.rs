//! The chosen half chain against the one in [`crate::layers::bk`], step by step.

use proptest::prelude::*;
use std::{vec, vec::Vec};

use super::half_step;
use crate::layers::bk::{self, ChainFormat, ChainParameters};

/// A potential's parameters: the smallest η that the format admits with the diagonal, or a larger one.
fn parameters(format: ChainFormat, diagonal: i32, smallest: bool, eta: i32) -> Option<(i32, i32)> {
    let one = 1i32 << format.frac;
    let diagonal = diagonal % (8 * one as i64).min(i32::MAX as i64) as i32;
    let mut eta = (eta % one).abs().max(1);
    if smallest {
        // Between the largest that is refused and the smallest that is not.
        let mut refused = 0;
        let mut admitted = one;
        while admitted - refused > 1 {
            let middle = refused + (admitted - refused) / 2;
            if format.admits(diagonal, middle) {
                admitted = middle;
            } else {
                refused = middle;
            }
        }
        eta = admitted;
    }
    format.admits(diagonal, eta).then_some((diagonal, eta))
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
        off_diagonal in prop_oneof![0u32..=65536, Just(65536)],
        int8 in any::<bool>(),
        raw in prop::collection::vec((any::<i32>(), any::<bool>(), any::<i32>()), 1..14),
        potentials in prop::collection::vec(potential(), 14 * 12),
    ) {
        let format = ChainFormat { frac, off_diagonal, int8 };
        let admitted: Vec<(i32, i32)> =
            raw.into_iter().filter_map(|(d, smallest, e)| parameters(format, d, smallest, e)).collect();
        // Whole fours as often as not.
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
            bk::half_step(format, parameters, potentials, &mut expected_state, &mut expected);
            half_step(format, parameters, potentials, &mut state, &mut features);
            prop_assert_eq!(&state, &expected_state);
            prop_assert_eq!(&features, &expected);
        }
    }
}
