//! Figures of a model from the sums of its windows.

use resnet_bk_schema::blocks::Blocks;
use resnet_bk_schema::outputs::{Fidelity, Quality};
use resnet_bk_schema::statistics::Estimate;

use super::sums::{Sums, by_block};

/// Scores of one model on consecutive windows.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Sums of each window.
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

    /// The figures; `exact` is the reference's tally of the same text.
    pub(super) fn quality(&self, exact: Option<&Self>, blocks: &Blocks) -> Quality {
        let sums = by_block(&self.windows, blocks);
        let pairs = |numbers: fn(&Sums) -> [f64; 2]| sums.iter().map(numbers).collect::<Vec<_>>();
        let perplexity = pairs(|s| [s.nats, s.predictions as f64]);
        let perplexity = Estimate::new(&perplexity, |nats, tokens| (nats / tokens).exp());
        let tokens = pairs(|s| [s.nats, s.predictions as f64]);
        let tokens = Estimate::new(&tokens, |nats, tokens| nats / std::f64::consts::LN_2 / tokens);
        let bits = pairs(|s| [s.nats, s.bytes as f64]);
        let bits = Estimate::new(&bits, |nats, bytes| nats / std::f64::consts::LN_2 / bytes);
        let bits = sums.iter().any(|s| s.bytes > 0).then_some(bits);
        Quality {
            tokens: sums.iter().map(|s| s.predictions).sum(),
            perplexity: perplexity.value,
            perplexity_se: perplexity.standard_error(),
            bits_per_token: tokens.value,
            bits_per_token_se: tokens.standard_error(),
            bits_per_byte: bits.as_ref().map(|bits| bits.value),
            bits_per_byte_se: bits.as_ref().and_then(Estimate::standard_error),
            fidelity: exact.map(|exact| self.fidelity(&sums, &by_block(&exact.windows, blocks))),
            seconds: self.seconds,
        }
    }

    /// Distance to the reference, from the sums of each block.
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
