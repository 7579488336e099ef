//! Piecewise tokens: the bits of a step, the documented order, no partial tokens.

use proptest::prelude::*;
use resnet_bk_core::blob::{Block, Chain, Dimensions};
use resnet_bk_core::{Error, Model, Piece, Session};

use crate::blob::{Recipe, small};
use crate::inference::{bits, recipes, stream, tokens};

fn session<'a>(model: &Model<'a>) -> Session<'a, Vec<u32>> {
    let memory = vec![0xdead_beef; model.dims().session_words()];
    Session::new(model.clone(), memory).unwrap()
}

/// The remaining pieces of a token.
fn pieces(session: &mut Session<'_, Vec<u32>>) -> Vec<Piece> {
    std::iter::from_fn(|| session.advance()).collect()
}

/// The expected pieces of a token: `top_k` experts per block; per token class, one piece for every
/// d rows.
fn expected(model: &Model<'_>, fed: bool) -> Vec<Piece> {
    let dims = model.dims();
    let mut all = vec![Piece::Embedding];
    for layer in 0..dims.layers {
        let gated = matches!(dims.block, Block::Gated { .. });
        all.push(Piece::Normalization);
        if gated {
            all.extend([Piece::InputProjection, Piece::Convolution]);
        }
        all.extend([Piece::Potentials, Piece::Chain]);
        if gated {
            all.push(Piece::Memory);
        }
        if fed && layer + 1 == dims.layers {
            return all;
        }
        all.push(Piece::OutputProjection);
        if dims.hidden == 0 {
            continue;
        }
        if gated {
            all.push(Piece::Normalization);
        }
        if dims.has_gate() {
            all.push(Piece::Gate);
        }
        for _ in 0..dims.top_k {
            all.extend([Piece::ExpertUp, Piece::Hidden, Piece::ExpertDown, Piece::Mixing]);
        }
    }
    all.push(Piece::Normalization);
    for class in 0..dims.token_classes {
        let rows = model.token_classes().tokens(class).count();
        all.extend(vec![Piece::OutputLayer; rows.div_ceil(dims.width as usize)]);
    }
    all
}

const CASES: u32 = if cfg!(miri) { 2 } else { 96 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn pieces_give_the_bits_of_a_step(
        recipe in recipes(Chain::Half), len in 1usize..16,
        fed in any::<u16>(), whole in any::<u16>(),
    ) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let tokens = tokens(len, recipe.dims.vocab, recipe.seed);
        let logits = stream(&model, &tokens);
        let mut session = session(&model);
        for (i, (&token, logits)) in tokens.iter().zip(&logits).enumerate() {
            let fed = fed >> i & 1 == 1;
            if whole >> i & 1 == 1 {
                let done = if fed { session.feed(token) } else { session.step(token).map(drop) };
                done.unwrap();
            } else {
                if fed { session.begin_feed(token).unwrap() } else { session.begin(token).unwrap() }
                prop_assert_eq!(session.position(), i);
                prop_assert_eq!(pieces(&mut session), expected(&model, fed));
            }
            prop_assert_eq!(session.position(), i + 1);
            let expected = (!fed).then_some(logits);
            let found = session.logits().map(|logits| bits(logits));
            prop_assert_eq!(found.as_ref(), expected, "token {}", i);
        }
    }

    #[test]
    fn half_a_token_is_never_kept(
        recipe in recipes(Chain::Half), len in 1usize..8, at in any::<prop::sample::Index>(),
    ) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let tokens = tokens(len, recipe.dims.vocab, recipe.seed);
        let logits = stream(&model, &tokens);
        let mut session = session(&model);
        // After a reset, nothing is left of a token dropped at any piece.
        session.begin(tokens[len - 1]).unwrap();
        for _ in 0..at.index(expected(&model, false).len()) {
            session.advance().unwrap();
        }
        session.reset();
        prop_assert!(!session.is_busy() && session.logits().is_none());
        prop_assert_eq!(session.advance(), None);
        for (&token, logits) in tokens.iter().zip(&logits) {
            prop_assert_eq!(&bits(session.step(token).unwrap()), logits);
        }
    }
}

#[test]
fn a_token_in_progress_refuses_everything_else() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let logits = stream(&model, &[3, 5]);
    let mut session = session(&model);
    assert_eq!((session.advance(), session.is_busy()), (None, false));
    assert_eq!(session.logits(), None);
    session.step(3).unwrap();
    session.begin(5).unwrap();
    let mut saved = vec![7; model.dims().snapshot_len()];
    loop {
        assert!(session.is_busy() && session.logits().is_none());
        assert_eq!(session.begin(1), Err(Error::Busy));
        assert_eq!(session.begin_feed(1), Err(Error::Busy));
        assert_eq!(session.step(1).unwrap_err(), Error::Busy);
        // A busy session does not check the token.
        assert_eq!(session.feed(u32::MAX), Err(Error::Busy));
        assert_eq!(session.snapshot(&mut saved), Err(Error::Busy));
        assert_eq!(session.position(), 1);
        session.advance().unwrap();
        if !session.is_busy() {
            break;
        }
    }
    assert!(saved.iter().all(|&byte| byte == 7));
    assert_eq!(bits(session.logits().unwrap()), logits[1]);
    assert_eq!((session.advance(), session.position()), (None, 2));
}

#[test]
fn a_refused_token_leaves_the_logits_of_the_last_one() {
    let dims = Dimensions { positions: 2, ..small().dims };
    let blob = Recipe { dims, ..small() }.build();
    let model = Model::from_bytes(&blob).unwrap();
    let logits = stream(&model, &[3, 5]);
    let mut session = session(&model);
    session.step(3).unwrap();
    assert_eq!(session.begin(20), Err(Error::Token { token: 20, vocab: 20 }));
    assert_eq!(bits(session.logits().unwrap()), logits[0]);
    session.step(5).unwrap();
    assert_eq!(session.begin(1), Err(Error::EndOfPositions { positions: 2 }));
    assert_eq!(bits(session.logits().unwrap()), logits[1]);
    assert!(!session.is_busy());
}

#[test]
fn names_of_pieces_differ() {
    let mut names = Piece::ALL.map(Piece::name);
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(Piece::ALL.iter().enumerate().all(|(i, &piece)| piece as usize == i));
}
