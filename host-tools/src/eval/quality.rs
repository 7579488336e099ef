//! Figures of a model from what its windows say.

use serde::Serialize;

use super::blocks::Blocks;
use super::statistics::{Estimate, Sums, by_block};

/// Quality of one model on a text. Standard errors are those of [`Blocks`], `None` of a single one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Predicted tokens.
    pub tokens: usize,
    /// exp of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_se: Option<f64>,
    /// Bits per byte of the predicted text; `None` where tokens stand for no text.
    pub bits_per_byte: Option<f64>,
    /// Its standard error.
    pub bits_per_byte_se: Option<f64>,
    /// Distance to the FP32 model; `None` for that model itself.
    pub fidelity: Option<Fidelity>,
    /// Thread seconds spent on this model: logits and their likelihoods.
    pub seconds: f64,
}

/// How far a blob is from its FP32 model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fidelity {
    /// Rise of the perplexity, in percent.
    pub ppl_rise_percent: f64,
    /// Standard error of that rise: both models are compared on each block.
    pub ppl_rise_percent_se: Option<f64>,
    /// Mean KL divergence D(FP32 ‖ blob), nats per token.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
    /// That divergence without each block in turn: two models' on the same text have the error of any
    /// function of both.
    pub kl_replicates: Vec<f64>,
    /// 99th percentile of the divergences.
    pub kl_p99: f64,
    /// Their maximum.
    pub kl_max: f64,
    /// Share of positions at which both find the same token likeliest.
    pub top1: f64,
    /// Its standard error.
    pub top1_se: Option<f64>,
}

/// What a stretch of text says of one model.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Of each window.
    pub(super) windows: Vec<Sums>,
    /// KL divergence of each position.
    pub(super) kl: Vec<f32>,
    pub(super) seconds: f64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.windows.extend(other.windows);
        self.kl.extend(other.kl);
        self.seconds += other.seconds;
    }

    /// The figures; `exact` is what the reference said of the same text.
    pub(super) fn quality(&self, exact: Option<&Self>, blocks: &Blocks) -> Quality {
        let sums = by_block(&self.windows, blocks);
        let pairs = |numbers: fn(&Sums) -> [f64; 2]| sums.iter().map(numbers).collect::<Vec<_>>();
        let perplexity = pairs(|s| [s.nats, s.predictions as f64]);
        let perplexity = Estimate::new(&perplexity, |nats, tokens| (nats / tokens).exp());
        let bits = pairs(|s| [s.nats, s.bytes as f64]);
        let bits = Estimate::new(&bits, |nats, bytes| nats / std::f64::consts::LN_2 / bytes);
        let bits = sums.iter().any(|s| s.bytes > 0).then_some(bits);
        Quality {
            tokens: sums.iter().map(|s| s.predictions).sum(),
            perplexity: perplexity.value,
            perplexity_se: perplexity.standard_error(),
            bits_per_byte: bits.as_ref().map(|bits| bits.value),
            bits_per_byte_se: bits.as_ref().and_then(Estimate::standard_error),
            fidelity: exact.map(|exact| self.fidelity(&sums, &by_block(&exact.windows, blocks))),
            seconds: self.seconds,
        }
    }

    /// The distance to the reference, from the sums of each block.
    fn fidelity(&self, sums: &[Sums], exact: &[Sums]) -> Fidelity {
        let rise: Vec<_> = sums
            .iter()
            .zip(exact)
            .map(|(model, exact)| [model.nats - exact.nats, model.predictions as f64])
            .collect();
        let rise = Estimate::new(&rise, |nats, tokens| 100.0 * (nats / tokens).exp_m1());
        let kl: Vec<_> = sums.iter().map(|s| [s.kl, s.predictions as f64]).collect();
        let kl = Estimate::new(&kl, |nats, tokens| nats / tokens);
        let top1: Vec<_> =
            sums.iter().map(|s| [s.agreements as f64, s.predictions as f64]).collect();
        let top1 = Estimate::new(&top1, |agreements, tokens| agreements / tokens);
        let mut sorted = self.kl.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let p99 = sorted.get((sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1)));
        Fidelity {
            ppl_rise_percent: rise.value,
            ppl_rise_percent_se: rise.standard_error(),
            kl: kl.value,
            kl_se: kl.standard_error(),
            kl_replicates: kl.replicates,
            kl_p99: p99.map_or(0.0, |&x| f64::from(x)),
            kl_max: sorted.last().map_or(0.0, |&x| f64::from(x)),
            top1: top1.value,
            top1_se: top1.standard_error(),
        }
    }
}
