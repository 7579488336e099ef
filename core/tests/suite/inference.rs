//! Sessions and windows: equal bits, causality, errors that leave the state unchanged.
//!
//! Longer than usual: covers sessions and windows over random dimensions.

use half::f16;
use proptest::prelude::*;
use resnet_bk_core::blob::ChainFormat;
use resnet_bk_core::blob::{Block, Chain, Dimensions, Precision, TensorId};
use resnet_bk_core::{Error, Model, Sampler, Scorer, Session, Window};

use crate::blob::{Mix, Recipe, small};
use crate::random::Random;
use crate::reference;

/// Bits of the logits of each position.
pub(crate) type Bits = Vec<Vec<u16>>;

pub(crate) fn bits(logits: &[f16]) -> Vec<u16> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Logits of every step of a fresh session in dirty memory.
pub(crate) fn stream(model: &Model<'_>, tokens: &[u32]) -> Bits {
    let memory = vec![0xdead_beef; model.dims().session_words()];
    let mut session = Session::new(model.clone(), memory).unwrap();
    tokens.iter().map(|&token| bits(session.step(token).unwrap())).collect()
}

/// Logits of a window in dirty memory.
pub(crate) fn score(model: &Model<'_>, tokens: &[u32], tile: usize) -> Bits {
    let memory = vec![0xdead_beef; model.dims().window_words(tokens.len(), tile)];
    let mut window = Window::new(model.clone(), memory, tokens.len(), tile).unwrap();
    window_bits(&mut window, tokens)
}

fn window_bits(window: &mut Window<'_, Vec<u32>>, tokens: &[u32]) -> Bits {
    let mut all = Bits::new();
    let each = |position: usize, logits: &[f16]| {
        assert_eq!(position, all.len());
        all.push(bits(logits));
    };
    window.score(tokens, each).unwrap();
    all
}

pub(crate) fn tokens(count: usize, vocab: u32, seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    (0..count).map(|_| random.below(vocab)).collect()
}

/// Models of random shapes with this chain.
pub(crate) fn recipes(chain: Chain) -> impl Strategy<Value = Recipe> {
    let sizes = (1u32..40, 1u32..48, 1u32..=3, 1u32..=4, 1u32..60, 1u32..=4);
    let choices = (any::<bool>(), 0u32..2, 0u32..5, any::<bool>(), any::<bool>());
    let blocks = match chain {
        Chain::Full => Just((0, false)).boxed(),
        Chain::Half => prop_oneof![Just((0, false)), (1u32..=9, any::<bool>())].boxed(),
    };
    let mixes = prop_oneof![
        2 => Just(Mix::Random),
        1 => Just(Mix::Planes),
        1 => prop::sample::select(&Precision::ALL[..]).prop_map(Mix::All),
    ];
    (sizes, choices, blocks, mixes, any::<u64>()).prop_map(
        move |(
            (vocab, width, layers, experts, hidden, potentials),
            (table, frac, top, int8, wild),
            (shared, bare),
            mix,
            seed,
        )| {
            let experts = if bare { 1 } else { experts };
            let hidden = if bare { 0 } else { hidden };
            Recipe {
                dims: Dimensions {
                    vocab,
                    width,
                    layers,
                    experts,
                    top_k: 1 + top % experts,
                    hidden,
                    potentials,
                    positions: if table { 16 } else { 0 },
                    token_classes: (1 + seed as u32 % 4).min(vocab),
                    chain,
                    block: match shared {
                        0 => Block::Resolvent,
                        shared => Block::Gated { channels: shared * potentials },
                    },
                },
                smaller_experts: seed % 3 == 0 && hidden > 3 * layers + 5 * experts,
                mix,
                chain: ChainFormat { frac: [22, 15][frac as usize], off_diagonal: 1 << 16, int8 },
                merges: None,
                wild,
                seed,
            }
        },
    )
}

const CASES: u32 = if cfg!(miri) { 2 } else { 96 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_window_gives_the_bits_of_a_session(recipe in recipes(Chain::Half), len in 1usize..16) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let tokens = tokens(len, recipe.dims.vocab, recipe.seed);
        let expected = stream(&model, &tokens);
        for tile in [1, 2, 3, 7, 16, 100] {
            prop_assert_eq!(&score(&model, &tokens, tile), &expected, "tile {}", tile);
        }
    }

    #[test]
    fn feeding_leaves_the_state_of_a_step(
        recipe in recipes(Chain::Half), len in 1usize..16, fed in any::<u16>(),
    ) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let tokens = tokens(len, recipe.dims.vocab, recipe.seed);
        let expected = stream(&model, &tokens);
        let memory = vec![0xdead_beef; model.dims().session_words()];
        let mut session = Session::new(model.clone(), memory).unwrap();
        for (i, (&token, expected)) in tokens.iter().zip(&expected).enumerate() {
            if fed >> i & 1 == 1 {
                session.feed(token).unwrap();
            } else {
                prop_assert_eq!(&bits(session.step(token).unwrap()), expected, "token {}", i);
            }
            prop_assert_eq!(session.position(), i + 1);
        }
    }

    /// Windows of any tile give the scores of a stream.
    #[test]
    fn log_probabilities_are_those_of_a_session(
        recipe in recipes(Chain::Half), len in 1usize..16, tile in 1usize..6,
    ) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let tokens = tokens(len, recipe.dims.vocab, recipe.seed);
        let memory = vec![0; model.dims().session_words()];
        let mut scorer = Scorer::new(Session::new(model.clone(), memory).unwrap());
        let mut stream = Vec::new();
        for &token in &tokens {
            let nats = scorer.next(token).unwrap();
            stream.extend(nats.map(|nats| (stream.len() + 1, nats)));
        }
        let memory = vec![0; model.dims().window_words(len, tile)];
        let mut window = Window::new(model.clone(), memory, len, tile).unwrap();
        let mut whole = Vec::new();
        window.log_probabilities(&tokens, |index, value| whole.push((index, -value))).unwrap();
        prop_assert_eq!(stream.len(), len - 1);
        prop_assert_eq!(stream, whole);
    }

    #[test]
    fn tiles_change_no_bit_of_a_full_chain(recipe in recipes(Chain::Full), len in 1usize..16) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let tokens = tokens(len, recipe.dims.vocab, recipe.seed);
        let expected = score(&model, &tokens, 1);
        for tile in [2, 5, 16] {
            prop_assert_eq!(&score(&model, &tokens, tile), &expected, "tile {}", tile);
        }
    }

    #[test]
    fn the_future_changes_no_bit_of_a_half_chain(
        recipe in recipes(Chain::Half), len in 2usize..16, at in any::<prop::sample::Index>(),
    ) {
        let blob = recipe.build();
        let model = Model::from_bytes(&blob).unwrap();
        let before = tokens(len, recipe.dims.vocab, recipe.seed);
        let j = at.index(len);
        let mut after = before.clone();
        after[j] = (after[j] + 1) % recipe.dims.vocab;
        prop_assert_eq!(&stream(&model, &before)[..j], &stream(&model, &after)[..j]);
        prop_assert_eq!(&score(&model, &before, 4)[..j], &score(&model, &after, 4)[..j]);
    }
}

/// Validates the causality test: the full chain depends on its future, the half chain on its past.
#[test]
fn a_changed_token_shows_where_it_may() {
    for (chain, first) in [(Chain::Half, 6), (Chain::Full, 0)] {
        let dims = Dimensions { chain, ..small().dims };
        let blob = Recipe { dims, mix: Mix::All(Precision::Int8), ..small() }.build();
        let model = Model::from_bytes(&blob).unwrap();
        let before = tokens(12, dims.vocab, 5);
        let mut after = before.clone();
        after[6] = (after[6] + 1) % dims.vocab;
        let (before, after) = (score(&model, &before, 4), score(&model, &after, 4));
        let changed: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a != b).collect();
        assert_eq!(changed[..first], vec![false; first]);
        assert!(changed[first.max(4)..].iter().all(|&changed| changed), "{chain:?}: {changed:?}");
    }
}

/// Root mean square error of a position's logits relative to their standard deviation. The median
/// over positions, since rounding may change the selected expert at a few of them.
fn relative_error(blob: &[u8], tokens: &[u32]) -> f64 {
    let model = Model::from_bytes(blob).unwrap();
    let exact = reference::logits(&model, tokens);
    let mut errors = Vec::new();
    for (got, exact) in score(&model, tokens, 4).into_iter().zip(exact) {
        let got = got.into_iter().map(|bits| f16::from_bits(bits).to_f64());
        let mean = exact.iter().sum::<f64>() / exact.len() as f64;
        let variance: f64 = exact.iter().map(|x| (x - mean).powi(2)).sum();
        let error: f64 = got.zip(&exact).map(|(a, b)| (a - b).powi(2)).sum();
        errors.push((error / variance).sqrt());
    }
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

/// Integer inference matches the f64 model up to the error of 8-bit activations.
#[test]
fn logits_are_those_of_the_equations() {
    let mixes = [
        Mix::All(Precision::Fp16),
        Mix::All(Precision::Int8),
        Mix::All(Precision::Int4),
        Mix::Random,
        Mix::Planes,
    ];
    for (i, mix) in mixes.into_iter().enumerate() {
        for (chain, positions) in [(Chain::Half, 0), (Chain::Full, 24), (Chain::Half, 24)] {
            for top_k in [1, 2, 3] {
                let (width, hidden) = (64, 128);
                let dims = Dimensions { width, hidden, chain, positions, top_k, ..small().dims };
                let blob = Recipe { dims, mix, seed: 40 + i as u64, ..small() }.build();
                let error = relative_error(&blob, &tokens(24, dims.vocab, 9));
                assert!(error < 0.01, "{mix:?} {chain:?} {positions} {top_k}: {error}");
                let dims = Dimensions { token_classes: 1 + top_k, ..dims };
                let recipe = Recipe { dims, mix, seed: 40 + i as u64, ..small() };
                let blob = Recipe { smaller_experts: true, ..recipe }.build();
                let error = relative_error(&blob, &tokens(24, dims.vocab, 9));
                assert!(error < 0.01, "{mix:?} {chain:?} {positions} {top_k}, classes: {error}");
            }
        }
    }
}

/// The same of gated chains, with and without experts.
#[test]
fn logits_of_gated_chains_are_those_of_the_equations() {
    let block = Block::Gated { channels: 96 };
    let dims = Dimensions { width: 64, layers: 3, block, ..small().dims };
    let shapes = [
        Dimensions { experts: 1, top_k: 1, hidden: 0, ..dims },
        Dimensions { experts: 1, top_k: 1, hidden: 40, ..dims },
        Dimensions { experts: 3, top_k: 2, hidden: 128, token_classes: 2, ..dims },
    ];
    for (i, mix) in [Precision::Fp16, Precision::Int8, Precision::Int4].into_iter().enumerate() {
        for dims in shapes {
            let seed = 60 + i as u64;
            let blob = Recipe { dims, mix: Mix::All(mix), seed, ..small() }.build();
            let error = relative_error(&blob, &tokens(24, dims.vocab, 9));
            assert!(error < 0.015, "{mix:?} {}: {error}", dims.hidden);
        }
    }
}

#[test]
fn full_chains_do_not_stream() {
    let dims = Dimensions { chain: Chain::Full, ..small().dims };
    let blob = Recipe { dims, ..small() }.build();
    let model = Model::from_bytes(&blob).unwrap();
    assert!(!model.is_causal());
    assert_eq!(Session::new(model.clone(), vec![0; 1 << 16]).unwrap_err(), Error::NotCausal);
}

#[test]
fn memory_of_one_word_less_is_refused() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let needed = model.dims().session_words();
    let error = Session::new(model.clone(), vec![0; needed - 1]).unwrap_err();
    assert_eq!(error, Error::Memory { needed, given: needed - 1 });
    let mut words = vec![0; needed];
    Session::new(model.clone(), &mut words[..]).unwrap().step(0).unwrap();

    let needed = model.dims().window_words(9, 4);
    let error = Window::new(model.clone(), vec![0; needed - 1], 9, 4).unwrap_err();
    assert_eq!(error, Error::Memory { needed, given: needed - 1 });
    Window::new(model.clone(), vec![0; needed], 9, 4).unwrap().score(&[1; 9], |_, _| ()).unwrap();
}

#[test]
fn windows_beyond_the_address_space_are_refused() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let (needed, given) = (usize::MAX, 100);
    for tokens in [usize::MAX, usize::MAX / 2, usize::MAX / 16 + 2] {
        let error = Window::new(model.clone(), vec![0; given], tokens, 4).unwrap_err();
        assert_eq!(error, Error::Memory { needed, given });
        #[cfg(feature = "alloc")]
        assert_eq!(
            Window::allocate(model.clone(), tokens, 4).unwrap_err(),
            Error::Memory { needed, given: 0 }
        );
    }
}

#[test]
fn the_end_of_the_position_table_changes_nothing() {
    let dims = Dimensions { positions: 5, ..small().dims };
    let blob = Recipe { dims, ..small() }.build();
    let model = Model::from_bytes(&blob).unwrap();
    let words = dims.session_words();
    let mut session = Session::new(model.clone(), vec![0; words]).unwrap();
    for token in 0..5 {
        session.step(token).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(session.step(0).unwrap_err(), Error::EndOfPositions { positions: 5 });
        assert_eq!(session.feed(0).unwrap_err(), Error::EndOfPositions { positions: 5 });
        assert_eq!(session.position(), 5);
    }
    session.reset();
    assert_eq!(session.position(), 0);
    assert_eq!(bits(session.step(3).unwrap()), stream(&model, &[3])[0]);

    let words = dims.window_words(6, 2);
    let mut window = Window::new(model.clone(), vec![0; words], 6, 2).unwrap();
    let refused = window.score(&[0; 6], |_, _| panic!("a logit of a refused window"));
    assert_eq!(refused, Err(Error::EndOfPositions { positions: 5 }));
    assert_eq!(window_bits(&mut window, &[1, 2, 3]), stream(&model, &[1, 2, 3]));
}

#[test]
fn a_refused_token_changes_nothing() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let words = model.dims().session_words();
    let mut session = Session::new(model.clone(), vec![0; words]).unwrap();
    let expected = stream(&model, &[1, 2, 3, 4]);
    for (token, expected) in (1..).zip(&expected) {
        for bad in [20, 21, u32::MAX] {
            let error = session.step(bad).unwrap_err();
            assert_eq!(error, Error::Token { token: bad, vocab: 20 });
            assert_eq!(session.feed(bad).unwrap_err(), error);
        }
        assert_eq!(session.position(), token as usize - 1);
        assert_eq!(&bits(session.step(token).unwrap()), expected);
    }
    assert!(matches!(window_error(&model, &[1, 20, 1]), Error::Token { token: 20, vocab: 20 }));
    assert_eq!(window_error(&model, &[]), Error::EmptyWindow);
    assert_eq!(window_error(&model, &[1; 5]), Error::Buffer { needed: 5, given: 4 });
}

fn window_error(model: &Model<'_>, tokens: &[u32]) -> Error {
    let words = model.dims().window_words(4, 2);
    let mut window = Window::new(model.clone(), vec![0; words], 4, 2).unwrap();
    window.score(tokens, |_, _| panic!("a logit of a refused window")).unwrap_err()
}

/// No state leaks from the previous window or stream.
#[test]
fn windows_and_sessions_can_be_used_again() {
    for chain in [Chain::Half, Chain::Full] {
        let dims = Dimensions { chain, ..small().dims };
        let blob = Recipe { dims, ..small() }.build();
        let model = Model::from_bytes(&blob).unwrap();
        let words = dims.window_words(12, 4);
        let mut window = Window::new(model.clone(), vec![0; words], 12, 4).unwrap();
        for (len, seed) in [(12, 1), (5, 2), (1, 3), (12, 1)] {
            let tokens = tokens(len, dims.vocab, seed);
            assert_eq!(window_bits(&mut window, &tokens), score(&model, &tokens, 3));
        }
    }
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let words = model.dims().session_words();
    let mut session = Session::new(model.clone(), vec![0; words]).unwrap();
    for token in 0..9 {
        session.step(token).unwrap();
    }
    session.reset();
    let expected = stream(&model, &[7, 8]);
    for (token, expected) in [7, 8].into_iter().zip(&expected) {
        assert_eq!(&bits(session.step(token).unwrap()), expected);
    }
}

#[test]
fn matrices_that_a_model_lacks_are_empty() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let missing = [
        TensorId::PositionEmbedding,
        TensorId::TokenEmbedding(1),
        TensorId::LmHead(u32::MAX),
        TensorId::VProj(2),
        TensorId::Gate(u32::MAX),
        TensorId::OutputProj(u32::MAX),
        TensorId::ExpertUp(0, 3),
        TensorId::ExpertDown(u32::MAX, 0),
    ];
    for id in missing {
        let tensor = model.tensor(id);
        assert_eq!((tensor.rows, tensor.cols, tensor.codes.len()), (0, 0, 0), "{id:?}");
    }
    for id in model.dims().tensors() {
        let tensor = model.tensor(id);
        assert_eq!((tensor.rows as u32, tensor.cols as u32), model.dims().shape(id));
    }
    assert_eq!(model.chain_parameters(2).bytes, &[]);
}

#[test]
fn models_and_sessions_print_without_their_numbers() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let words = model.dims().session_words();
    let session = Session::new(model.clone(), vec![0; words]).unwrap();
    for text in [format!("{model:?}"), format!("{session:?}")] {
        assert!(text.len() < 300, "{text}");
    }
}

#[test]
fn a_seed_samples_the_same_text_every_time() {
    let blob = small().build();
    let model = Model::from_bytes(&blob).unwrap();
    let words = model.dims().session_words();
    let generate = |mut sampler: Sampler| {
        let mut session = Session::new(model.clone(), vec![0; words]).unwrap();
        let mut text = vec![0];
        for i in 0..40 {
            text.push(sampler.sample(session.step(text[i]).unwrap()));
        }
        text
    };
    let builder = Sampler::builder();
    let sampler = |seed| builder.temperature(0.9).top_k(5).seed(seed).build().unwrap();
    assert_eq!(generate(sampler(1)), generate(sampler(1)));
    assert_ne!(generate(sampler(1)), generate(sampler(2)));
    let greedy = generate(Sampler::greedy());
    assert_eq!(greedy, generate(builder.temperature(0.0).top_k(7).seed(3).build().unwrap()));
    assert_eq!(greedy, generate(builder.temperature(1.5).top_k(1).seed(3).build().unwrap()));
}
