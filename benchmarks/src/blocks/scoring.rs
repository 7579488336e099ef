//! Scores of a model on a text: the protocol of `resnet-bk eval`.

use std::f64::consts::LN_2;

use rayon::prelude::*;
use resnet_bk_schema::blocks::Blocks;
use resnet_bk_schema::statistics::Estimate;
use resnet_bk_tools::eval::divergence::{kl, log_softmax};
use resnet_bk_tools::eval::sums::{Sums, by_block};

use super::network::Network;
use super::tensors::Failure;

/// Windows per forward pass.
const PASS: usize = 16;

/// A text in windows, each with a fresh state: every token but the first is predicted once.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) blocks: &'a Blocks,
    /// Bytes of each token.
    pub(super) lengths: &'a [usize],
}

/// First position, number of positions and window of a forward pass.
type Job = (usize, usize, usize);

impl Text<'_> {
    fn jobs(&self) -> Vec<Job> {
        let window = self.blocks.window;
        let predictions = self.tokens.len().saturating_sub(1);
        let whole = predictions / window * window;
        let step = PASS * window;
        let mut jobs: Vec<Job> =
            (0..whole).step_by(step).map(|at| (at, step.min(whole - at), window)).collect();
        if whole < predictions {
            jobs.push((whole, predictions - whole, predictions - whole));
        }
        jobs
    }

    /// Log-probabilities of every forward pass, to compare other models with.
    pub(super) fn probabilities(&self, network: &dyn Network) -> Result<Vec<Vec<f32>>, Failure> {
        self.jobs().into_par_iter().map(|job| self.probabilities_of(network, job)).collect()
    }

    fn probabilities_of(&self, network: &dyn Network, job: Job) -> Result<Vec<f32>, Failure> {
        let (start, length, window) = job;
        let logits = network.logits(&self.tokens[start..start + length], window)?;
        let mut probabilities = Vec::with_capacity(logits.len());
        for row in logits.chunks_exact(self.lengths.len()) {
            log_softmax(row, &mut probabilities);
        }
        Ok(probabilities)
    }

    /// Sums of each block of the text.
    pub(super) fn score(&self, network: &dyn Network) -> Result<Vec<Sums>, Failure> {
        let jobs: Vec<Vec<Sums>> = self
            .jobs()
            .into_par_iter()
            .map(|job| {
                let probabilities = self.probabilities_of(network, job)?;
                Ok(self.sums(job, &probabilities))
            })
            .collect::<Result<_, Failure>>()?;
        let windows = jobs.concat();
        match windows.iter().all(|sums| sums.nats.is_finite()) {
            true => Ok(by_block(&windows, self.blocks)),
            false => Err("the model computes infinities or NaNs on the text".into()),
        }
    }

    /// Mean KL divergence of a model to the log-probabilities of another, nats per token.
    pub(super) fn divergence(
        &self,
        network: &dyn Network,
        exact: &[Vec<f32>],
    ) -> Result<f64, Failure> {
        let vocab = self.lengths.len();
        let sums: Vec<f64> = self
            .jobs()
            .into_par_iter()
            .zip(exact)
            .map(|(job, exact)| {
                let own = self.probabilities_of(network, job)?;
                let rows = exact.chunks_exact(vocab).zip(own.chunks_exact(vocab));
                Ok(rows.map(|(p, q)| kl(p, q)).sum())
            })
            .collect::<Result<_, Failure>>()?;
        Ok(sums.iter().sum::<f64>() / self.tokens.len().saturating_sub(1).max(1) as f64)
    }

    /// Sums of each window of a forward pass.
    fn sums(&self, (start, length, window): Job, probabilities: &[f32]) -> Vec<Sums> {
        let mut windows = vec![Sums::default(); length / window];
        let rows = probabilities.chunks_exact(self.lengths.len());
        for (i, row) in rows.enumerate() {
            let target = self.tokens[start + i + 1] as usize;
            let sums = &mut windows[i / window];
            sums.predictions += 1;
            sums.bytes += self.lengths[target];
            sums.nats -= f64::from(row[target]);
        }
        windows
    }
}

/// Bits per byte with their jackknife replicates.
pub(super) fn bits_per_byte(blocks: &[Sums]) -> Estimate {
    let pairs: Vec<[f64; 2]> = blocks.iter().map(|sums| [sums.nats, sums.bytes as f64]).collect();
    Estimate::new(&pairs, |nats, bytes| nats / LN_2 / bytes)
}
