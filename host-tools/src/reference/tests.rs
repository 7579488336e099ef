//! Whole-model tests: gradients against finite differences, streaming against windows.

use super::*;
use crate::checkpoint::{Block, Chain, ModelConfig, TensorSpec};

/// Numbers between −1 and 1 without a pattern.
pub(super) fn wave(n: usize, f: f64) -> Vec<f64> {
    (0..n).map(|i| ((i + 1) as f64 * f).sin()).collect()
}

pub(super) fn config(chain: Chain, potentials: usize, top_k: usize) -> ModelConfig {
    ModelConfig {
        vocab: 11,
        width: 6,
        layers: 2,
        experts: 3,
        top_k,
        hidden: 5,
        potentials,
        positions: (potentials == 1).then_some(8),
        chain,
        eta_floor: 0.1,
        off_diagonal: 1.0,
        block: Block::Resolvent,
    }
}

/// A gated chain: with experts and a gate, with one expert, or with none.
pub(super) fn gated(hidden: usize, experts: usize, top_k: usize) -> ModelConfig {
    let config = config(Chain::Half, 2, top_k);
    ModelConfig { hidden, experts, positions: None, block: Block::Gated { channels: 6 }, ..config }
}

/// A model without parameters at special values, so that every gradient is tested.
fn model(config: ModelConfig) -> Model<f64> {
    let mut model = Model::<f64>::zeros(config).unwrap();
    for (i, p) in model.parameters_mut().iter_mut().enumerate() {
        // Platform-independent pseudorandom numbers.
        *p = ((i as f64 * 12.9898).sin() * 43_758.5).fract() * 0.7;
    }
    let names: Vec<String> = model.tensors().map(|(spec, _)| spec.name.clone()).collect();
    for name in names {
        // Keep experts in use and hidden units active.
        let (scale, shift) = match name.as_str() {
            n if n.ends_with("diagonal") => (1.0, -1.4),
            n if n.ends_with("bk_scale") => (1.0, 0.8),
            n if n.ends_with("0.bias") => (1.0, 0.8),
            n if n.contains("gating_network.bias") => (0.1, 0.0),
            _ => (1.0, 0.0),
        };
        for p in model.tensor_mut(&name).unwrap() {
            *p = *p * scale + shift;
        }
    }
    model
}

fn check_gradients(config: ModelConfig) {
    let (experts, top_k) = (config.experts, config.top_k);
    let mut model = model(config);
    let window = 4;
    let inputs: Vec<u32> = (0..24).map(|i| i * 7 % 11).collect();
    let targets: Vec<u32> = (0..24).map(|i| i * 5 % 11).collect();
    let mut gradient = vec![0.0; model.parameters().len()];
    let mut tape = Tape::default();
    // A previously used tape must give the same result.
    model.forward_tape(&[1, 2, 3], 3, &mut tape);
    let scale = 0.5;
    model.add_gradient(&inputs, &targets, window, scale, &mut tape, &mut gradient);
    let loss = |model: &Model<f64>| {
        let logits = model.forward(&inputs, window);
        scale * negative_log_likelihoods(&logits, &targets).iter().sum::<f64>()
    };
    let tensors: Vec<_> = model.tensors().map(|(spec, range)| (spec.name.clone(), range)).collect();
    let h = 1e-6;
    for (name, range) in tensors {
        // With a single selected expert the softmax is 1 for any gate, and an expert without
        // positions has no gradient.
        let may_rest =
            top_k == 1 && name.contains("gating") || top_k < experts && name.contains("experts");
        let moves = gradient[range.clone()].iter().any(|g| *g != 0.0);
        assert!(moves || may_rest, "{name} has no gradient");
        for i in range.clone() {
            let original = model.parameters()[i];
            model.parameters_mut()[i] = original + h;
            let up = loss(&model);
            model.parameters_mut()[i] = original - h;
            let down = loss(&model);
            model.parameters_mut()[i] = original;
            let numeric = (up - down) / (2.0 * h);
            let error = (numeric - gradient[i]).abs() / (0.1 + numeric.abs());
            let at = i - range.start;
            assert!(error < 1e-6, "{name}[{at}]: {} against {numeric}", gradient[i]);
        }
    }
}

#[test]
fn every_gradient_equals_finite_differences_half_chain() {
    check_gradients(config(Chain::Half, 1, 1));
    check_gradients(config(Chain::Half, 4, 2));
}

#[test]
fn every_gradient_equals_finite_differences_gated_chain() {
    for (hidden, experts, top_k) in [(0, 1, 1), (5, 1, 1), (5, 3, 2)] {
        check_gradients(gated(hidden, experts, top_k));
    }
}

#[test]
fn every_gradient_equals_finite_differences_full_chain() {
    check_gradients(config(Chain::Full, 1, 3));
    check_gradients(config(Chain::Full, 3, 2));
}

pub(super) fn single(config: ModelConfig) -> Model {
    let source = model(config.clone());
    let mut model = Model::<f32>::zeros(config).unwrap();
    for (to, from) in model.parameters_mut().iter_mut().zip(source.parameters()) {
        *to = *from as f32;
    }
    model
}

#[test]
fn single_precision_agrees_with_double() {
    let configs = [config(Chain::Half, 4, 2), config(Chain::Full, 4, 2), gated(5, 3, 2)];
    for config in configs {
        let tokens: Vec<u32> = (0..16).map(|i| i * 3 % 11).collect();
        let exact = model(config.clone()).forward(&tokens, 8);
        let rounded = single(config).forward(&tokens, 8);
        for (a, b) in exact.iter().zip(&rounded) {
            assert!((a - f64::from(*b)).abs() < 1e-4, "{a} against {b}");
        }
    }
}

#[test]
fn long_windows_have_the_logits_of_short_ones() {
    for (config, window, count) in [
        (config(Chain::Half, 1, 2), 8, 64),
        (config(Chain::Half, 4, 2), 2500, 2500),
        (config(Chain::Full, 4, 2), 1100, 2500),
        (gated(0, 1, 1), 8, 60),
        (gated(5, 3, 2), 1100, 2500),
    ] {
        let model = single(config);
        let tokens: Vec<u32> = (0..count).map(|i| i * i % 11).collect();
        let hidden = model.hidden(&tokens, window);
        assert_eq!(hidden.positions(), tokens.len());
        let (mut found, mut part) = (Vec::new(), Vec::new());
        for start in (0..tokens.len()).step_by(CHUNK) {
            hidden.logits(start..tokens.len().min(start + CHUNK), &mut part);
            found.extend_from_slice(&part);
        }
        // The last window may be shorter.
        let expected = tokens.chunks(window).flat_map(|tokens| model.forward(tokens, tokens.len()));
        assert_eq!(found.len(), 11 * tokens.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{a} against {b}");
        }
        let whole = model.forward(&tokens[..count as usize / window * window], window);
        if tokens.len() <= CHUNK {
            assert_eq!(found[..whole.len()], whole, "to the bit");
        }
    }
}

#[test]
fn a_half_chain_is_causal_and_windows_are_independent() {
    for config in [config(Chain::Half, 4, 2), gated(0, 1, 1)] {
        let model = single(config);
        let mut tokens: Vec<u32> = (0..12).map(|i| i * 7 % 11).collect();
        let before = model.forward(&tokens, 6);
        tokens[3] = (tokens[3] + 1) % 11;
        let after = model.forward(&tokens, 6);
        assert_eq!(before[..3 * 11], after[..3 * 11]);
        assert_ne!(before[5 * 11..6 * 11], after[5 * 11..6 * 11]);
        assert_eq!(before[6 * 11..], after[6 * 11..]);
    }
}

#[test]
fn observers_see_every_linear_layer() {
    struct Names(Vec<String>, usize);
    impl Observer for Names {
        fn linear(&mut self, call: LinearCall<'_>) {
            let rows = call.inputs.len() / call.input_width;
            assert_eq!(call.outputs.len(), rows * call.output_width);
            if let Some(routed) = call.routed {
                assert_eq!(routed.positions.len(), rows);
                assert_eq!(routed.probabilities.len(), rows);
            } else {
                assert_eq!(rows, 8);
            }
            self.0.push(call.name.into());
        }
        fn chain(&mut self, call: ChainCall<'_>) {
            assert_eq!(call.resolvent.len(), 2 * call.potentials.len());
            self.1 += 1;
        }
    }
    let linear = |spec: &TensorSpec| {
        spec.shape.len() == 2 && !spec.name.contains("embedding") && !spec.name.contains(".conv.")
    };
    for config in [config(Chain::Half, 4, 3), gated(5, 3, 3), gated(0, 1, 1)] {
        let model = single(config);
        let mut seen = Names(Vec::new(), 0);
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8];
        let logits = model.forward_observed(&tokens, 8, &mut seen);
        assert_eq!(logits, model.forward(&tokens, 8));
        let mut expected: Vec<String> = model
            .tensors()
            .filter(|(spec, _)| linear(spec))
            .map(|(spec, _)| spec.name.trim_end_matches(".weight").to_string())
            .collect();
        expected.sort();
        seen.0.sort();
        assert_eq!(seen.0, expected);
        assert_eq!(seen.1, 2);
    }
}

/// Rounded activations make the loss piecewise constant, except in the output layer, whose gradient
/// is checked by finite differences. Before it, the straight-through estimator applies.
#[test]
fn rounded_activations_have_the_gradient_of_what_is_computed() {
    for config in [config(Chain::Half, 3, 2), gated(0, 1, 1), gated(5, 3, 2)] {
        check_rounded_gradients(model(config));
    }
}

fn check_rounded_gradients(mut model: Model<f64>) {
    let fake_quant = FakeQuant { potentials_int8: true };
    let teacher = model.clone();
    let (window, scale, how) = (4, 0.5, Distillation { temperature: 1.5, cross_entropy: 0.25 });
    let inputs: Vec<u32> = (0..24).map(|i| i * 7 % 11).collect();
    let targets: Vec<u32> = (0..24).map(|i| i * 5 % 11).collect();
    let exact = teacher.forward(&inputs, window);
    for p in model.parameters_mut().iter_mut().step_by(3) {
        *p += 0.05;
    }
    let pass = |model: &Model<f64>, tape: &mut Tape<f64>| {
        let mut gradient = vec![0.0; model.parameters().len()];
        let learnt = (targets.as_slice(), exact.as_slice());
        let losses =
            model.add_distilled_gradient(&inputs, learnt, window, how, scale, tape, &mut gradient);
        (scale * (0.75 * 2.25 * losses.kl + 0.25 * losses.nats), gradient)
    };
    let (_, gradient) = pass(&model, &mut Tape::fake_quantized(fake_quant));
    for name in ["lm_head.weight", "lm_head.bias"] {
        for i in model.range(name).unwrap() {
            let loss = |by: f64| {
                let mut model = model.clone();
                model.parameters_mut()[i] += by;
                pass(&model, &mut Tape::fake_quantized(fake_quant)).0
            };
            let numeric = (loss(1e-6) - loss(-1e-6)) / 2e-6;
            let error = (numeric - gradient[i]).abs() / (1.0 + numeric.abs());
            assert!(error < 1e-7, "{name} {i}: {} against {numeric}", gradient[i]);
        }
    }
    let (_, unrounded) = pass(&model, &mut Tape::default());
    assert_ne!(gradient, unrounded);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(&gradient, &unrounded)
        / (dot(&gradient, &gradient) * dot(&unrounded, &unrounded)).sqrt();
    assert!(cosine > 0.99, "{cosine}");
}

/// The core's integer layers of a gated chain on what the f64 reference feeds them: a million
/// positions differ by no more than the 8-bit codes of the convolution's inputs explain.
#[test]
fn the_core_has_the_memory_of_the_reference() {
    use half::f16;
    use resnet_bk_core::blob::{ChainFormat, ChainParameters};
    use resnet_bk_core::blob::{Precision, TAPS, Tensor};
    use resnet_bk_core::internals::convolution::{Tail, step};
    use resnet_bk_core::internals::{self, bk};

    // Rows at a time, and how often.
    let (c, k, rows, times) = (6, 2, 1000, 1000);
    let wave = |from: usize, n: usize, f: f64| {
        (from..from + n).map(move |i| ((i * i + 7 * i) as f64 * f).sin())
    };
    let fixed = |x: f64| (x * 65536.0).round() as i32;
    let (weights, biases): (Vec<f64>, Vec<f64>) =
        (wave(0, TAPS * c, 0.7).map(|x| 0.5 * x).collect(), wave(0, c, 0.3).collect());
    let (diagonal, eta) = ([-2.0, -1.0], [0.05, 0.4]);

    // The reference, in f64.
    let parameters: Vec<f64> = weights.iter().chain(&biases).copied().collect();
    let layer = convolution::Convolution {
        name: "conv".into(),
        weight: 0..TAPS * c,
        bias: TAPS * c..TAPS * c + c,
    };
    let core = super::bk::Core { diagonal: &diagonal, eta: &eta, beta: 1.0, chain: Chain::Half };
    let (mut before, mut chain, mut memory) =
        (vec![0.0; (TAPS - 1) * c], vec![0.0; 2 * k], vec![0.0; c]);

    // The core.
    let format = ChainFormat { frac: 20, off_diagonal: 1 << 16, int8: false };
    let of_chain = |x: f64| ((x * f64::from(1 << 20)).round() as i32).to_le_bytes();
    let constants: Vec<u8> =
        (0..k).flat_map(|i| [of_chain(diagonal[i]), of_chain(eta[i])].concat()).collect();
    let constants = ChainParameters { bytes: &constants };
    let by_channel = (0..c).flat_map(|i| weights[i..].iter().step_by(c));
    let codes: Vec<u8> = by_channel.flat_map(|&w| f16::from_f64(w).to_le_bytes()).collect();
    let biases: Vec<u8> =
        biases.iter().flat_map(|b| ((b * 16384.0).round() as i16).to_le_bytes()).collect();
    let taps = Tensor {
        precision: Precision::Fp16,
        rows: c,
        cols: TAPS,
        group: 0,
        exponent: 0,
        bias_exponent: 14,
        max_code: 127,
        codes: &codes,
        scales: &[],
        biases: &biases,
    };
    let (mut codes, mut scales) = (vec![0; (TAPS - 1) * c], [0; TAPS - 1]);
    let mut tail = Tail { codes: &mut codes, scales: &mut scales };
    let (mut state, mut s) = (vec![0; 2 * k], vec![0; c]);

    let mut worst = 0.0f64;
    for time in 0..times {
        let of = |n: usize, f: f64, height: f64| -> Vec<f64> {
            wave(time * rows * n, rows * n, f).map(|x| height * x).collect()
        };
        let (inputs, outputs) = (of(c, 0.011, 4.0), of(c, 0.017, 3.0));
        let potentials = of(k, 0.013, 3.0);
        let mut a = vec![0.0; rows * c];
        layer.forward(&parameters, (&inputs, c), &before, &mut a);
        before.copy_from_slice(&inputs[(rows - TAPS + 1) * c..]);
        a.iter_mut().for_each(|x| *x = super::silu::silu(*x));
        let (mut g, mut gates) = (vec![0.0; rows * 2 * k], vec![0.0; rows * k]);
        super::bk::forward_from(&core, &potentials, &mut chain, &mut g);
        super::memory::gates(&eta, &g, &mut gates);
        let mut exact = vec![0.0; rows * c];
        super::memory::forward((&gates, k), &a, &mut memory, &mut exact);
        for t in 0..rows {
            let mut a: Vec<i32> = inputs[t * c..][..c].iter().map(|&x| fixed(x)).collect();
            step(&taps, &mut tail, &mut vec![0; c], &mut a);
            let mut gates: Vec<i32> = potentials[t * k..][..k].iter().map(|&v| fixed(v)).collect();
            bk::half_gates(format, constants, &mut gates, &mut state);
            internals::memory::step(&gates, &a, &mut s);
            let z: Vec<i32> = outputs[t * c..][..c].iter().map(|&z| fixed(z)).collect();
            let mut read = vec![0; c];
            internals::memory::read(&s, &z, &mut read);
            let exact = exact[t * c..].iter().zip(&outputs[t * c..]);
            for (&found, (&s, &z)) in read.iter().zip(exact) {
                worst = worst.max((f64::from(found) / 65536.0 - s * super::silu::silu(z)).abs());
            }
        }
    }
    // However long the stream: codes are off by at most 4/254; a channel's weights sum to at most
    // 2, slopes of SiLU are below 1.1, SiLU(z) below 2.9.
    assert!(worst < 4.0 / 254.0 * 2.0 * 1.1 * 2.9, "{worst}");
    assert!(worst > 1e-4, "codes must show: {worst}");
}
