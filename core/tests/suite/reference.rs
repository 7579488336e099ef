//! Reference model in f64, written from the equations.

use resnet_bk_core::Model;
use resnet_bk_core::blob::{Block, Chain, Precision, Tensor, TensorId};

type Vector = Vec<f64>;
type Complex = (f64, f64);

/// A decoded matrix with its biases.
struct Linear {
    weights: Vec<Vector>,
    biases: Vector,
}

impl Linear {
    fn new(model: &Model<'_>, id: TensorId) -> Self {
        let tensor = model.tensor(id);
        let per_code = if id.is_embedding() { 1.0 } else { tensor.max_code as f64 };
        let exponent = (-tensor.exponent as f64).exp2();
        let row_codes = tensor.codes.len() / tensor.rows;
        let row_scales = tensor.scales.len() / tensor.rows;
        let weights = (0..tensor.rows).map(|r| {
            let codes = &tensor.codes[r * row_codes..][..row_codes];
            let scales = &tensor.scales[r * row_scales..][..row_scales];
            let unit = || u16::from_le_bytes([scales[0], scales[1]]) as f64 * exponent * per_code;
            match tensor.precision {
                Precision::Fp16 => codes
                    .chunks_exact(2)
                    .map(|pair| half::f16::from_le_bytes([pair[0], pair[1]]).to_f64())
                    .collect(),
                Precision::Int8 => {
                    // Inputs 0, 2, 4, … are stored with an offset of 128.
                    let code = |(c, &byte): (usize, &u8)| match c % 2 {
                        0 => byte as f64 - 128.0,
                        _ => byte as i8 as f64,
                    };
                    codes.iter().enumerate().map(|byte| code(byte) * unit()).collect()
                }
                _ => grouped(&tensor, codes, scales, unit()),
            }
        });
        let bias_unit = (-(tensor.bias_exponent as f64)).exp2();
        let bias = |pair: &[u8]| i16::from_le_bytes([pair[0], pair[1]]) as f64 * bias_unit;
        Self {
            weights: weights.collect(),
            biases: tensor.biases.chunks_exact(2).map(bias).collect(),
        }
    }

    fn apply(&self, x: &[f64]) -> Vector {
        let row = |(row, bias): (&Vector, &f64)| dot(row, x) + bias;
        self.weights.iter().zip(&self.biases).map(row).collect()
    }
}

/// Decodes a row of bit planes; the first plane is signed.
fn grouped(tensor: &Tensor<'_>, codes: &[u8], scales: &[u8], unit: f64) -> Vector {
    let planes: &[(usize, i32)] = match tensor.precision {
        Precision::Int2 => &[(2, 0)],
        Precision::Int3 => &[(2, 1), (1, 0)],
        Precision::Int4 => &[(4, 0)],
        Precision::Int5 => &[(4, 1), (1, 0)],
        _ => &[(4, 2), (2, 0)],
    };
    let mut weights = vec![0.0; tensor.cols];
    let mut bytes = codes;
    for (p, &(bits, shift)) in planes.iter().enumerate() {
        for (g, first) in (0..tensor.cols).step_by(tensor.group).enumerate() {
            let len = tensor.group.min(tensor.cols - first);
            let (own, rest) = bytes.split_at((len * bits).div_ceil(8));
            bytes = rest;
            let scale = (scales[2 + g / 2] >> (4 * (g % 2)) & 15) as f64;
            for i in 0..len {
                let field = (own[i % own.len()] >> (bits * (i / own.len()))) as i32 % (1 << bits);
                let half = 1 << (bits - 1);
                // INT4 is stored with an offset of 8, except in the high half of an odd byte.
                let offset =
                    bits == 4 && planes.len() == 1 && i % own.len() % 2 * (i / own.len()) == 0;
                let value = match p {
                    0 if offset => field - half,
                    0 => (field + half) % (2 * half) - half,
                    _ => field,
                };
                weights[first + i] += (value << shift) as f64 * scale * unit;
            }
        }
    }
    weights
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &mut [f64], b: &[f64], factor: f64) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b);
}

fn layer_norm(x: &[f64]) -> Vector {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt()).collect()
}

/// [Re G, Im G] of every position, for one potential.
fn chain(kind: Chain, alphas: &[Complex], beta: f64) -> Vec<Complex> {
    let inverse = |(re, im): Complex| (re / (re * re + im * im), -im / (re * re + im * im));
    let recursion = |alphas: &mut dyn Iterator<Item = Complex>| {
        let mut before = (0.0, 0.0);
        let mut values = Vec::new();
        for alpha in alphas {
            values.push((alpha.0 - beta * before.0, alpha.1 - beta * before.1));
            before = inverse(values[values.len() - 1]);
        }
        values
    };
    let left = recursion(&mut alphas.iter().copied());
    match kind {
        Chain::Half => left.into_iter().map(inverse).collect(),
        Chain::Full => {
            let right = recursion(&mut alphas.iter().rev().copied()).into_iter().rev();
            let sums = left.into_iter().zip(right).zip(alphas);
            sums.map(|((l, r), a)| inverse((l.0 + r.0 - a.0, l.1 + r.1 - a.1))).collect()
        }
    }
}

/// Rows and biases of a token table, in token order.
fn by_token(model: &Model<'_>, table: fn(u32) -> TensorId) -> (Vec<Vector>, Vector) {
    let dims = model.dims();
    let mut classes: Vec<_> = (0..dims.token_classes)
        .map(|class| {
            let Linear { weights, biases } = Linear::new(model, table(class));
            (weights.into_iter(), biases.into_iter())
        })
        .collect();
    let rows = (0..dims.vocab).map(|token| {
        let class = &mut classes[model.token_classes().class(token) as usize];
        (class.0.next().unwrap(), class.1.next().unwrap_or(0.0))
    });
    rows.unzip()
}

/// Logits of every position, `[N][V]`.
pub(crate) fn logits(model: &Model<'_>, tokens: &[u32]) -> Vec<Vector> {
    let dims = model.dims();
    let linear = |id| Linear::new(model, id);
    let (rows, _) = by_token(model, TensorId::TokenEmbedding);
    let mut h: Vec<Vector> = tokens.iter().map(|&token| rows[token as usize].clone()).collect();
    if dims.positions != 0 {
        let table = linear(TensorId::PositionEmbedding).weights;
        h.iter_mut().zip(&table).for_each(|(h, row)| add(h, row, 1.0));
    }
    for layer in 0..dims.layers {
        match dims.block {
            Block::Resolvent => resolvent(model, layer, &mut h),
            Block::Gated { channels } => gated(model, layer, channels as usize, &mut h),
        }
    }
    let (weights, biases) = by_token(model, TensorId::LmHead);
    let head = Linear { weights, biases };
    h.iter().map(|h| head.apply(&layer_norm(h))).collect()
}

/// Clamped potentials [N][K] of a block as diagonals of its chain; calls `each` with position,
/// potential, η and G.
fn chains(
    model: &Model<'_>,
    layer: u32,
    v: &[Vector],
    mut each: impl FnMut(usize, usize, f64, Complex),
) {
    let dims = model.dims();
    let unit = (-(model.chain_format().frac as f64)).exp2();
    let beta = model.chain_format().off_diagonal as f64 / 65536.0;
    for k in 0..dims.potentials as usize {
        let (diagonal, eta) = model.chain_parameters(layer).get(k);
        let alpha =
            |v: &Vector| (diagonal as f64 * unit + v[k].clamp(-3.0, 3.0), -eta as f64 * unit);
        let alphas: Vec<Complex> = v.iter().map(alpha).collect();
        for (t, g) in chain(dims.chain, &alphas, beta).into_iter().enumerate() {
            each(t, k, eta as f64 * unit, g);
        }
    }
}

/// The published block.
fn resolvent(model: &Model<'_>, layer: u32, h: &mut [Vector]) {
    let u: Vec<Vector> = h.iter().map(|h| layer_norm(h)).collect();
    let v_proj = Linear::new(model, TensorId::VProj(layer));
    let potentials: Vec<Vector> = u.iter().map(|u| v_proj.apply(u)).collect();
    let count = model.dims().potentials as usize;
    let mut features = vec![vec![0.0; 2 * count]; h.len()];
    chains(model, layer, &potentials, |t, k, _, g| {
        features[t][k] = g.0.clamp(-10.0, 10.0);
        features[t][count + k] = g.1.clamp(-10.0, 10.0);
    });
    let output = Linear::new(model, TensorId::OutputProj(layer));
    for (h, features) in h.iter_mut().zip(&features) {
        add(h, &output.apply(features), 1.0);
    }
    experts(model, layer, &u, h);
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The gated chain.
fn gated(model: &Model<'_>, layer: u32, channels: usize, h: &mut [Vector]) {
    let linear = |id| Linear::new(model, id);
    let (in_proj, conv) = (linear(TensorId::InProj(layer)), linear(TensorId::Convolution(layer)));
    let rows: Vec<Vector> = h.iter().map(|h| in_proj.apply(&layer_norm(h))).collect();
    let convolved = |t: usize, i: usize| {
        let taps = conv.weights[i].iter().enumerate();
        let inputs = taps.filter(|(j, _)| t + j >= 3).map(|(j, w)| w * rows[t + j - 3][i]);
        silu(inputs.sum::<f64>() + conv.biases[i])
    };
    let a: Vec<Vector> =
        (0..h.len()).map(|t| (0..channels).map(|i| convolved(t, i)).collect()).collect();
    let v_proj = linear(TensorId::VProj(layer));
    let potentials: Vec<Vector> = a.iter().map(|a| v_proj.apply(a)).collect();
    let count = model.dims().potentials as usize;
    let mut gates = vec![vec![0.0; count]; h.len()];
    chains(model, layer, &potentials, |t, k, eta, g| gates[t][k] = eta / (eta + g.1));
    let output = linear(TensorId::OutputProj(layer));
    let mut memory = vec![0.0; channels];
    for (t, h) in h.iter_mut().enumerate() {
        let mut read = vec![0.0; channels];
        for i in 0..channels {
            memory[i] += gates[t][i * count / channels] * (a[t][i] - memory[i]);
            read[i] = memory[i] * silu(rows[t][channels + i]);
        }
        add(h, &output.apply(&read), 1.0);
    }
    if model.dims().hidden > 0 {
        let u: Vec<Vector> = h.iter().map(|h| layer_norm(h)).collect();
        experts(model, layer, &u, h);
    }
}

/// h += the mixture of experts of u; a single expert of a gated chain has no gate.
fn experts(model: &Model<'_>, layer: u32, u: &[Vector], h: &mut [Vector]) {
    let dims = model.dims();
    let linear = |id| Linear::new(model, id);
    let gate = dims.contains(TensorId::Gate(layer)).then(|| linear(TensorId::Gate(layer)));
    let experts: Vec<[Linear; 2]> = (0..dims.experts)
        .map(|e| [TensorId::ExpertUp(layer, e), TensorId::ExpertDown(layer, e)].map(linear))
        .collect();
    for (h, u) in h.iter_mut().zip(u) {
        let scores = gate.as_ref().map_or(vec![0.0], |gate| gate.apply(u));
        let mut order: Vec<usize> = (0..experts.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.truncate(dims.top_k as usize);
        let sum: f64 = order.iter().map(|&e| scores[e].exp()).sum();
        for e in order {
            let [up, down] = &experts[e];
            let hidden: Vector = up.apply(u).iter().map(|x| x.max(0.0)).collect();
            add(h, &down.apply(&hidden), scores[e].exp() / sum);
        }
    }
}
