//! A token by the core's public parts, with the counter read between them.
//!
//! The session's own step stays as it is; that the logits come out the same is checked by whoever walks.

use half::f16;
use resnet_bk_core::Model;
use resnet_bk_core::blob::TensorId;
use resnet_bk_core::internals::activation::{normalize, quantize, quantize_relu};
use resnet_bk_core::internals::bk::half_step;
use resnet_bk_core::internals::gate::{Route, WEIGHT_FRAC, route};
use resnet_bk_core::internals::{Matrix, Vectors, matmul, portable, to_halves};
use resnet_bk_core::numeric::{Scale, shift_round};
use resnet_bk_core::sampler::argmax;

use crate::machine::Moment;

/// What a token's instructions are told apart by.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Rows of embedding tables.
    Embedding,
    /// LayerNorm with the quantization that it is fused with.
    Normalization,
    /// Potentials' matrix.
    Potentials,
    /// The chain.
    BkCore,
    /// From the chain's features back to the residual, with their quantization.
    OutputProjection,
    /// Gate's matrix, choice and shares.
    Gate,
    /// First matrix of the experts.
    ExpertUp,
    /// ReLU and quantization of what it gives.
    Hidden,
    /// Second matrix of the experts.
    ExpertDown,
    /// Adding the experts' shares.
    Mixing,
    /// Output layer, to halves.
    Head,
    /// The likeliest token.
    Sampler,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Embedding,
        Self::Normalization,
        Self::Potentials,
        Self::BkCore,
        Self::OutputProjection,
        Self::Gate,
        Self::ExpertUp,
        Self::Hidden,
        Self::ExpertDown,
        Self::Mixing,
        Self::Head,
        Self::Sampler,
    ];

    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Normalization => "normalization",
            Self::Potentials => "potentials",
            Self::BkCore => "bk_core",
            Self::OutputProjection => "output_projection",
            Self::Gate => "gate",
            Self::ExpertUp => "expert_up",
            Self::Hidden => "hidden",
            Self::ExpertDown => "expert_down",
            Self::Mixing => "mixing",
            Self::Head => "head",
            Self::Sampler => "sampler",
        }
    }
}

/// Instructions by kind. Every moment ends one stretch and begins the next, so that nothing is left out and
/// the sum is as exact as one measurement.
pub struct Laps {
    last: Moment,
    /// In the order of [`Kind::ALL`].
    pub instructions: [u64; Kind::ALL.len()],
}

impl Laps {
    /// None yet.
    pub fn new() -> Self {
        Self { last: Moment::now(), instructions: [0; Kind::ALL.len()] }
    }

    fn begin(&mut self) {
        self.last = Moment::now();
    }

    fn lap(&mut self, kind: Kind) {
        let now = Moment::now();
        self.instructions[kind as usize] += self.last.instructions_until(now);
        self.last = now;
    }
}

impl Default for Laps {
    fn default() -> Self {
        Self::new()
    }
}

const WIDTH: usize = 128;
const HIDDEN: usize = 256;
const POTENTIALS: usize = 64;
const EXPERTS: usize = 8;
const LAYERS: usize = 8;
const VOCAB: usize = 1024;

/// Memory of a walk, for models up to the sizes of the shipped one.
pub struct Walk {
    state: [[i32; 2 * POTENTIALS]; LAYERS],
    h: [i32; WIDTH],
    codes: [i16; WIDTH],
    potentials: [i32; POTENTIALS],
    features: [i32; 2 * POTENTIALS],
    feature_codes: [i16; 2 * POTENTIALS],
    gate: [i32; EXPERTS],
    routes: [u32; EXPERTS],
    hidden: [i32; HIDDEN],
    hidden_codes: [i16; HIDDEN],
    outputs: [i32; WIDTH],
    /// Logits of the last step.
    pub logits: [f16; VOCAB],
}

impl Walk {
    /// The beginning of a stream.
    pub const fn new() -> Self {
        Self {
            state: [[0; 2 * POTENTIALS]; LAYERS],
            h: [0; WIDTH],
            codes: [0; WIDTH],
            potentials: [0; POTENTIALS],
            features: [0; 2 * POTENTIALS],
            feature_codes: [0; 2 * POTENTIALS],
            gate: [0; EXPERTS],
            routes: [0; EXPERTS],
            hidden: [0; HIDDEN],
            hidden_codes: [0; HIDDEN],
            outputs: [0; WIDTH],
            logits: [f16::ZERO; VOCAB],
        }
    }

    /// Whether a model is causal, has no position table and no classes of tokens, and fits.
    pub fn admits(&self, model: &Model<'_>) -> bool {
        let d = model.dims();
        let exact = (d.width, d.hidden, d.potentials, d.vocab, d.positions);
        exact == (WIDTH as u32, HIDDEN as u32, POTENTIALS as u32, VOCAB as u32, 0)
            && d.experts <= EXPERTS as u32
            && d.layers <= LAYERS as u32
            && d.token_classes == 1
            && model.is_causal()
    }

    /// What a session's step does, and the likeliest token.
    pub fn step(&mut self, model: &Model<'_>, token: u32, laps: &mut Laps) -> u32 {
        let dims = *model.dims();
        laps.begin();
        portable::row(&model.tensor(TensorId::TokenEmbedding(0)), token as usize, &mut self.h);
        laps.lap(Kind::Embedding);
        for layer in 0..dims.layers {
            let scale = [self.normalize(laps)];
            let x = Vectors { codes: &self.codes, scales: &scale };
            matmul(&Matrix::new(model.tensor(TensorId::VProj(layer))), x, &mut self.potentials);
            laps.lap(Kind::Potentials);
            let state = &mut self.state[layer as usize];
            let parameters = model.chain_parameters(layer);
            half_step(
                model.chain_format(),
                parameters,
                &self.potentials,
                state,
                &mut self.features,
            );
            laps.lap(Kind::BkCore);
            self.project(model, layer, laps);
            let x = Vectors { codes: &self.codes, scales: &scale };
            let gate = &mut self.gate[..dims.experts as usize];
            matmul(&Matrix::new(model.tensor(TensorId::Gate(layer))), x, gate);
            route(gate, &mut self.routes[..dims.top_k as usize]);
            laps.lap(Kind::Gate);
            // In the order of experts, as sums saturate.
            for expert in 0..dims.experts {
                let routes = self.routes[..dims.top_k as usize].iter();
                let route = routes
                    .clone()
                    .map(|&r| Route::unpack(r))
                    .find(|r| u32::from(r.expert) == expert);
                if let Some(route) = route {
                    self.expert(model, layer, route, scale, laps);
                }
            }
        }
        let scale = [self.normalize(laps)];
        self.head(model, scale, laps);
        let token = argmax(&self.logits);
        laps.lap(Kind::Sampler);
        token as u32
    }

    #[inline(never)]
    fn normalize(&mut self, laps: &mut Laps) -> u32 {
        let scale: Scale = normalize(&self.h, &mut self.codes);
        laps.lap(Kind::Normalization);
        scale.pack()
    }

    fn project(&mut self, model: &Model<'_>, layer: u32, laps: &mut Laps) {
        let scales = [quantize(&self.features, &mut self.feature_codes).pack()];
        let x = Vectors { codes: &self.feature_codes, scales: &scales };
        matmul(&Matrix::new(model.tensor(TensorId::OutputProj(layer))), x, &mut self.outputs);
        for (h, &s) in self.h.iter_mut().zip(&self.outputs) {
            *h = h.saturating_add(s);
        }
        laps.lap(Kind::OutputProjection);
    }

    fn expert(
        &mut self,
        model: &Model<'_>,
        layer: u32,
        route: Route,
        scale: [u32; 1],
        laps: &mut Laps,
    ) {
        let expert = u32::from(route.expert);
        let x = Vectors { codes: &self.codes, scales: &scale };
        matmul(&Matrix::new(model.tensor(TensorId::ExpertUp(layer, expert))), x, &mut self.hidden);
        laps.lap(Kind::ExpertUp);
        let scales = [quantize_relu(&self.hidden, &mut self.hidden_codes).pack()];
        laps.lap(Kind::Hidden);
        let x = Vectors { codes: &self.hidden_codes, scales: &scales };
        matmul(
            &Matrix::new(model.tensor(TensorId::ExpertDown(layer, expert))),
            x,
            &mut self.outputs,
        );
        laps.lap(Kind::ExpertDown);
        for (h, &y) in self.h.iter_mut().zip(&self.outputs) {
            let share = i64::from(route.weight) * i64::from(y);
            *h = h.saturating_add(shift_round(share, WEIGHT_FRAC as i32));
        }
        laps.lap(Kind::Mixing);
    }

    fn head(&mut self, model: &Model<'_>, scales: [u32; 1], laps: &mut Laps) {
        let matrix = Matrix::new(model.tensor(TensorId::LmHead(0)));
        for (stretch, logits) in self.logits.chunks_mut(HIDDEN).enumerate() {
            let x = Vectors { codes: &self.codes, scales: &scales };
            matmul(&matrix.rows(stretch * HIDDEN, logits.len()), x, &mut self.hidden);
            to_halves(&self.hidden[..logits.len()], logits);
        }
        laps.lap(Kind::Head);
    }
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}
