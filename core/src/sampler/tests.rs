use proptest::prelude::*;
use std::{vec, vec::Vec};

use super::*;
use crate::numeric::exp_nonpositive;

fn sampler(temperature: f32, top_k: usize, top_p: f32, seed: u64) -> Sampler {
    let builder = Sampler::builder().temperature(temperature).top_k(top_k).top_p(top_p);
    builder.seed(seed).build().unwrap()
}

fn logits(values: &[f32]) -> Vec<f16> {
    values.iter().map(|&v| f16::from_f32(v)).collect()
}

#[test]
fn greedy_takes_the_first_of_equals() {
    assert_eq!(Sampler::greedy().sample(&mut logits(&[0.0, 2.0, 2.0, -1.0])), 1);
    assert_eq!(Sampler::greedy().sample(&mut []), 0);
}

#[test]
fn frequencies_follow_the_softmax_of_the_candidates() {
    let mut logits = logits(&[1.0, 0.0, 3.0, 2.0]);
    let mut sampler = sampler(1.0, 2, 1.0, 7);
    let mut counts = [0u32; 4];
    for _ in 0..20_000 {
        counts[sampler.sample(&mut logits) as usize] += 1;
    }
    assert_eq!((counts[0], counts[1]), (0, 0));
    let share = counts[2] as f64 / 20_000.0;
    let exact = 1.0 / (1.0 + (-1f64).exp());
    assert!((share - exact).abs() < 0.01, "{share} instead of {exact}");
}

#[test]
fn zero_top_k_means_all_candidates() {
    let mut logits = logits(&[0.0; 100]);
    let mut sampler = sampler(1.0, 0, 1.0, 3);
    let mut seen = [false; 100];
    (0..2_000).for_each(|_| seen[sampler.sample(&mut logits) as usize] = true);
    assert_eq!(seen, [true; 100]);
}

/// Reference sampler after the contract: full sort, a stored weight per token, two sums.
fn contract(
    logits: &[f16],
    (temperature, top_k, top_p): (f32, usize, f32),
    draw: f32,
) -> Option<usize> {
    let best = argmax(logits);
    let weights: Vec<f32> = logits
        .iter()
        .map(|l| exp_nonpositive((l.to_f32() - logits[best].to_f32()) / temperature))
        .collect();
    let mut likeliest: Vec<usize> = (0..logits.len()).collect();
    likeliest.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap());
    if top_k > 0 {
        likeliest.truncate(top_k);
    }
    if top_p < 1.0 {
        let whole = |token: &usize| (weights[*token] * 8_388_608.0) as u128;
        let all: u128 = likeliest.iter().map(whole).sum();
        let enough = (all * (top_p * 16_777_216.0) as u128).div_ceil(1 << 24);
        let mut sum = 0;
        let last = likeliest.iter().position(|token| {
            sum += whole(token);
            sum >= enough
        });
        let bound = logits[likeliest[last.unwrap()]];
        likeliest.retain(|&token| logits[token] >= bound);
    }
    likeliest.sort_unstable();
    let total: f32 = likeliest.iter().fold(0.0, |sum, &token| sum + weights[token]);
    let mut sum = 0.0;
    likeliest.into_iter().find(|&token| {
        sum += weights[token];
        sum > draw * total
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]

    /// With and without many ties; vocabularies that are and are not multiples of the chunks.
    #[test]
    fn choices_are_the_contracts(
        (seed, len) in (any::<u64>(), 1usize..700),
        step in prop::sample::select(vec![0.0, 0.01, 2.0]),
        (spread, shift) in (0.0f32..40.0, -30.0f32..30.0),
        temperature in prop::sample::select(vec![1e-3f32, 0.3, 0.8, 1.0, 5.0]),
        top_k in prop::sample::select(vec![0usize, 2, 5, 40, 64]),
        top_p in prop::sample::select(vec![1.0f32, 1e-9, 0.1, 0.5, 0.9, 0.99, 0.999_999_9]),
    ) {
        let mut state = seed;
        let mut logit = || {
            let value = next_unit(&mut state) * spread + shift;
            f16::from_f32(if step > 0.0 { (value / step).floor() * step } else { value })
        };
        let mut logits: Vec<f16> = (0..len).map(|_| logit()).collect();
        let mut sampler = sampler(temperature, top_k, top_p, seed);
        for _ in 0..20 {
            let draw = next_unit(&mut sampler.generator.clone());
            let expected = contract(&logits, (temperature, top_k, top_p), draw);
            prop_assert_eq!(Some(sampler.sample(&mut logits) as usize), expected);
        }
    }
}

#[test]
fn a_nucleus_is_as_small_as_can_be_and_keeps_ties() {
    // Shares of 0.6439, 0.2369, 0.0871 and four of 0.0080.
    let mut logits = logits(&[0.0, 1.0, 3.0, 2.0, -1.386, -1.386, -1.386, -1.386]);
    let mut seen = |top_p: f32| {
        let mut sampler = sampler(1.0, 0, top_p, 11);
        let mut seen = [false; 8];
        (0..20_000).for_each(|_| seen[sampler.sample(&mut logits) as usize] = true);
        seen.map(u8::from)
    };
    assert_eq!(seen(0.6), [0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(seen(0.65), [0, 0, 1, 1, 0, 0, 0, 0]);
    assert_eq!(seen(0.9), [0, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(seen(0.96), [1, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(seen(0.98), [1; 8]);
    assert_eq!(seen(1.0), [1; 8]);
}

/// Non-finite and extreme logits still give a token.
#[test]
fn any_logits_give_a_token() {
    let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 65504.0, -65504.0, 1e-7];
    for first in ends {
        for second in ends {
            let logits = logits(&[first, second, first]);
            for temperature in [0.0, 1e-45, 1e-10, 1.0, f32::MAX] {
                for (top_k, top_p) in [0, 1, 2, 3, 64].map(|k| [(k, 1.0), (k, 0.5)]).concat() {
                    let sampler = Sampler::builder().temperature(temperature).top_k(top_k);
                    let sampler = sampler.top_p(top_p).seed(9).repetition_penalty::<2>(1000.0);
                    let (mut sampler, mut logits) = (sampler.build().unwrap(), logits.clone());
                    for _ in 0..3 {
                        assert!(sampler.sample(&mut logits) < 3);
                    }
                }
            }
        }
    }
    for top_k in [0, 2] {
        assert_eq!(sampler(1.0, top_k, 1.0, 0).sample(&mut []), 0);
    }
}

/// The published first outputs of SplitMix64 from a seed of 0.
#[test]
fn the_generator_is_splitmix64() {
    let mut state = 0;
    let expected = [0xe220_a839_7b1d_cdaf_u64, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
    for expected in expected {
        assert_eq!(next_unit(&mut state) as f64, (expected >> 40) as f64 / 16_777_216.0);
    }
}

#[test]
fn bad_settings_are_refused() {
    let builder = Sampler::builder;
    for temperature in [f32::NAN, -1.0, f32::INFINITY] {
        let refused = builder().temperature(temperature).build();
        assert_eq!(refused.unwrap_err(), Error::Temperature);
    }
    let refused = builder().top_k(65).build().unwrap_err();
    assert_eq!(refused, Error::TopK { asked: 65, limit: 64 });
    for top_p in [0.0, -0.1, 1.1, f32::NAN, f32::INFINITY] {
        assert_eq!(builder().top_p(top_p).build().unwrap_err(), Error::TopP);
    }
    for penalty in [0.0, 0.99, 1000.1, f32::NAN, f32::INFINITY, -1.0] {
        let refused = builder().repetition_penalty::<4>(penalty).build();
        assert_eq!(refused.unwrap_err(), Error::RepetitionPenalty);
    }
}

/// Divides positive logits and multiplies the others, for the last distinct tokens only.
#[test]
fn the_penalty_meets_recent_tokens() {
    let sampler = Sampler::builder().temperature(0.0).repetition_penalty::<3>(2.0);
    let mut sampler = sampler.build().unwrap();
    // Token 5 is evicted; token 1 counts once and becomes the latest.
    [5, 1, 0, 3, 1].into_iter().for_each(|token| sampler.observe(token));
    sampler.observe(70_000);
    sampler.observe(0);
    let mut scores = logits(&[4.0, -1.5, 3.0, 5.0, -0.5, 2.5]);
    assert_eq!(sampler.sample(&mut scores), 3);
    assert_eq!(scores, logits(&[2.0, -3.0, 3.0, 5.0, -0.5, 2.5]));
    // Sampled tokens count too: 70,000, 0 and 3 are remembered.
    let mut scores = logits(&[4.0, 1.0, 3.0, 5.0, -0.5, 2.5]);
    assert_eq!(sampler.sample(&mut scores), 2);
    assert_eq!(scores, logits(&[2.0, 1.0, 3.0, 2.5, -0.5, 2.5]));
    sampler.forget();
    assert_eq!(sampler.sample(&mut logits(&[0.0, 1.0])), 1);
}

#[test]
fn penalized_logits_stay_finite() {
    let mut sampler = Sampler::builder().repetition_penalty::<2>(1000.0).build().unwrap();
    sampler.observe(0);
    sampler.observe(1);
    let mut scores = logits(&[-65504.0, 6e-8, 0.0]);
    sampler.sample(&mut scores);
    assert_eq!(scores, logits(&[-65504.0, 0.0, 0.0]));
}

/// A penalty of 1, or a history of length 0, has no effect.
#[test]
fn no_penalty_changes_nothing() {
    let builder = Sampler::builder().seed(4);
    let mut plain = builder.build().unwrap();
    let mut one = builder.repetition_penalty::<8>(1.0).build().unwrap();
    let mut empty = builder.repetition_penalty::<0>(5.0).build().unwrap();
    let scores = logits(&[0.5, 1.0, -1.0, 0.0, 2.0]);
    for _ in 0..100 {
        let token = plain.sample(&mut scores.clone());
        assert_eq!(one.sample(&mut scores.clone()), token);
        assert_eq!(empty.sample(&mut scores.clone()), token);
    }
}
