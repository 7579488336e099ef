//! Snapshots: a restored stream continues bit for bit, and any other input is refused.

use proptest::prelude::*;
use resnet_bk_core::blob::{Block, Chain, Dimensions, Precision};
use resnet_bk_core::{Error, Model, Session, SnapshotProblem};

use crate::blob::{Mix, Recipe, small};
use crate::inference::{bits, recipes, stream, tokens};

fn session<'a>(model: &Model<'a>) -> Session<'a, Vec<u32>> {
    let memory = vec![0xdead_beef; model.dims().session_words()];
    Session::new(model.clone(), memory).unwrap()
}

fn snapshot(session: &Session<'_, Vec<u32>>) -> Vec<u8> {
    let mut bytes = vec![0xaa; session.model().dims().snapshot_len()];
    assert_eq!(session.snapshot(&mut bytes), Ok(bytes.len()));
    bytes
}

/// Bitwise CRC-32C after RFC 3720, independent of the writer's implementation.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        (0..8).fold(crc ^ u32::from(byte), step)
    })
}

/// Replaces the checksum by a correct one.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 4;
    let sum = crc(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn problem(session: &mut Session<'_, Vec<u32>>, bytes: &[u8]) -> SnapshotProblem {
    match session.restore(bytes) {
        Err(Error::Snapshot(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

const CASES: u32 = if cfg!(miri) { 2 } else { 96 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_restored_stream_goes_on_with_the_same_bits(
        recipe in recipes(Chain::Half), before in 0usize..8, after in 1usize..8,
        busy in any::<bool>(),
    ) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let tokens = tokens(before + after, recipe.dims.vocab, recipe.seed);
        let logits = stream(&model, &tokens);
        let mut first = session(&model);
        tokens[..before].iter().for_each(|&token| first.feed(token).unwrap());
        let bytes = snapshot(&first);
        let block = 8 * recipe.dims.potentials + match recipe.dims.block {
            Block::Resolvent => 0,
            Block::Gated { channels } => 4 * channels + 12 + (3 * channels).next_multiple_of(4),
        };
        prop_assert_eq!(bytes.len(), (32 + recipe.dims.layers * block) as usize);
        prop_assert_eq!(&sealed(bytes.clone()), &bytes);
        // Restores into a used session, even with a token in progress, of a reloaded model.
        let again = Model::from_bytes(&blob).unwrap();
        let mut second = session(&again);
        second.feed(tokens[0]).unwrap();
        if busy {
            second.begin(tokens[0]).unwrap();
            second.advance().unwrap();
        }
        second.restore(&bytes).unwrap();
        prop_assert_eq!((second.position(), second.logits()), (before, None));
        prop_assert_eq!(&snapshot(&second), &bytes);
        for (&token, logits) in tokens[before..].iter().zip(&logits[before..]) {
            prop_assert_eq!(&bits(second.step(token).unwrap()), logits);
        }
    }

    #[test]
    fn no_bytes_panic_or_change_a_session(
        content in prop::collection::vec(any::<u8>(), 0..400), keep in 0usize..40,
    ) {
        let blob = small().build();
        let model = Model::from_bytes(&blob).unwrap();
        let mut session = session(&model);
        session.feed(3).unwrap();
        let saved = snapshot(&session);
        let mut bytes = content;
        let kept = keep.min(bytes.len());
        bytes[..kept].copy_from_slice(&saved[..kept]);
        prop_assert!(session.restore(&bytes).is_err());
        prop_assert_eq!(snapshot(&session), saved);
    }

    /// A forged state with a correct checksum is refused or harmless: nothing overflows later,
    /// which a debug build would detect.
    #[test]
    fn a_forged_state_is_refused_or_streams(
        recipe in recipes(Chain::Half), words in prop::collection::vec(any::<i32>(), 24..200),
        shift in 0u32..32,
    ) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let mut session = session(&model);
        let mut bytes = snapshot(&session);
        let end = bytes.len() - 4;
        for (bytes, word) in bytes[28..end].chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&(word >> shift).to_le_bytes());
        }
        match session.restore(&sealed(bytes)) {
            Ok(()) => for token in tokens(4, recipe.dims.vocab, recipe.seed) {
                session.step(token).unwrap();
            },
            Err(error) => prop_assert_eq!(error, Error::Snapshot(SnapshotProblem::State)),
        }
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let mut session = session(&model);
    [3, 5, 7].into_iter().for_each(|token| session.feed(token).unwrap());
    let saved = snapshot(&session);
    session.feed(1).unwrap();
    let before = snapshot(&session);
    for len in 0..saved.len() {
        let expected =
            if len < 8 { SnapshotProblem::NotASnapshot } else { SnapshotProblem::Length };
        assert_eq!(problem(&mut session, &saved[..len]), expected, "{len}");
    }
    let longer = [&saved[..], &[0]].concat();
    assert_eq!(problem(&mut session, &longer), SnapshotProblem::Length);
    for bit in 0..8 * saved.len() {
        let mut bytes = saved.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let problem = problem(&mut session, &bytes);
        let expected = match bit / 8 {
            0..8 => SnapshotProblem::NotASnapshot,
            8..12 => SnapshotProblem::Version { found: 1 ^ 1 << (bit - 64), supported: 1 },
            12..20 => SnapshotProblem::Model,
            _ => SnapshotProblem::Checksum,
        };
        assert_eq!(problem, expected, "bit {bit}");
    }
    assert_eq!(snapshot(&session), before);
    session.restore(&saved).unwrap();
    assert_eq!(snapshot(&session), saved);
}

#[test]
fn another_model_refuses_a_snapshot() {
    // The same shapes and precisions, other weights.
    let mix = Mix::All(Precision::Int8);
    let [blob, other] = [1, 2].map(|seed| Recipe { seed, mix, ..small() }.build());
    assert_eq!(blob.len(), other.len());
    let [model, other] = [&blob, &other].map(|blob| Model::from_bytes(blob).unwrap());
    let bytes = snapshot(&session(&model));
    assert_eq!(problem(&mut session(&other), &bytes), SnapshotProblem::Model);
}

#[test]
fn a_position_that_the_model_has_not_is_refused() {
    let dims = Dimensions { positions: 5, ..small().dims };
    let blob = Recipe { dims, ..small() }.build();
    let model = Model::from_bytes(&blob).unwrap();
    let mut session = session(&model);
    let saved = snapshot(&session);
    let at = |position: u64| {
        let mut bytes = saved.clone();
        bytes[20..28].copy_from_slice(&position.to_le_bytes());
        sealed(bytes)
    };
    for position in [6, 1 << 32, u64::MAX] {
        assert_eq!(problem(&mut session, &at(position)), SnapshotProblem::State);
    }
    session.restore(&at(5)).unwrap();
    assert_eq!(session.step(1).unwrap_err(), Error::EndOfPositions { positions: 5 });
    // Without a position table any position is valid.
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let mut session = self::session(&model);
    let mut bytes = snapshot(&session);
    bytes[20..28].copy_from_slice(&(1u64 << 31).to_le_bytes());
    session.restore(&sealed(bytes)).unwrap();
    assert_eq!(session.position(), 1 << 31);
}

#[test]
fn a_buffer_of_one_byte_less_stays_as_it_was() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let needed = model.dims().snapshot_len();
    let mut bytes = vec![7; needed - 1];
    let refused = session(&model).snapshot(&mut bytes);
    assert_eq!(refused, Err(Error::Buffer { needed, given: needed - 1 }));
    assert!(bytes.iter().all(|&byte| byte == 7));
    // Bytes after the snapshot are unchanged.
    let mut bytes = vec![7; needed + 3];
    assert_eq!(session(&model).snapshot(&mut bytes), Ok(needed));
    assert_eq!(bytes[needed..], [7; 3]);
}
