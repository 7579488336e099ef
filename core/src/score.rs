//! Surprisal (negative log-likelihood) of a text under a model, token by token.

use half::f16;

use crate::error::Error;
use crate::generate::Predictor;
use crate::numeric::{SURPRISE_FRAC, surprise};

/// Nats per unit of [`surprise`].
const NATS: f32 = 1.0 / (1u32 << SURPRISE_FRAC) as f32;

/// Natural logarithm of the softmax probability of `token`: 0 or less.
///
/// Computed in integers, so every target returns the same bits. For finite logits the error is at
/// most 3e-7 + 2⁻²⁴ · |result|: 1.5e-6 for results down to −20 (`docs/numerics.md`, section 14).
/// Small probabilities do not underflow: results reach −131,020, the range of FP16 logits.
///
/// # Errors
///
/// [`Error::Token`] for a token without a logit, or beyond the first 2^16 logits.
pub fn log_probability(logits: &[f16], token: u32) -> Result<f32, Error> {
    Ok(0.0 - units(logits, token)? as f32 * NATS)
}

/// −ln of the token's probability in units of 2^−24 nats.
fn units(logits: &[f16], token: u32) -> Result<u64, Error> {
    let logits = &logits[..logits.len().min(1 << 16)];
    if token as usize >= logits.len() {
        return Err(Error::Token { token, vocab: logits.len() as u32 });
    }
    Ok(surprise(logits, token as usize))
}

/// Total surprisal of a text, summed exactly: the same on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Score {
    tokens: u32,
    /// In units of 2^−24 nats.
    total: u64,
}

impl Score {
    /// Tokens that were scored.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Total surprisal in nats.
    pub fn nats(&self) -> f32 {
        self.total as f32 * NATS
    }

    /// Mean surprisal per token in nats, the logarithm of the perplexity; 0 for no tokens.
    pub fn nats_per_token(&self) -> f32 {
        self.nats() / self.tokens.max(1) as f32
    }

    /// Mean surprisal per token in bits; 0 for no tokens.
    pub fn bits_per_token(&self) -> f32 {
        self.nats_per_token() * core::f32::consts::LOG2_E
    }

    /// Adds the surprisal of `token` under `logits` and returns it in nats: −[`log_probability`].
    ///
    /// # Errors
    ///
    /// As [`log_probability`].
    pub fn add(&mut self, logits: &[f16], token: u32) -> Result<f32, Error> {
        let units = units(logits, token)?;
        self.tokens = self.tokens.saturating_add(1);
        self.total = self.total.saturating_add(units);
        Ok(units as f32 * NATS)
    }
}

/// Computes the surprisal of every token of a stream, given the tokens before it. It is large where
/// the text is unlike the training data, which makes it an anomaly score.
///
/// ```
/// use resnet_bk_core::{Error, Model, Scorer, Session};
///
/// static MODEL: &[u8] = resnet_bk_core::include_blob!(concat!(
///     env!("CARGO_MANIFEST_DIR"),
///     "/tests/golden/v3/half-mixed.rbk"
/// ));
/// /// Nats per token, smoothed over some eight tokens, that are no longer ordinary.
/// const ALARM: f32 = 9.0;
///
/// let model = Model::from_bytes(MODEL)?;
/// let mut scorer = Scorer::new(Session::new(model.clone(), [0; 4096])?);
/// let (mut smoothed, mut alarms) = (0.0, 0);
/// // Readings of a sensor, as tokens.
/// for token in [3, 141, 59, 26, 53, 58, 97, 93, 23, 84] {
///     // There is nothing that the first token could be expected from.
///     if let Some(nats) = scorer.next(token)? {
///         smoothed += (nats - smoothed) / 8.0;
///         alarms += u32::from(smoothed > ALARM);
///     }
/// }
/// assert_eq!((scorer.score().tokens(), alarms), (9, 0));
/// assert!(scorer.score().bits_per_token() > 0.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scorer<P> {
    predictor: P,
    /// The latest token, which the predictor has not seen yet.
    pending: Option<u32>,
    score: Score,
}

impl<P: Predictor> Scorer<P> {
    /// A scorer that starts from the current state of `predictor`. The first token is not scored.
    pub fn new(predictor: P) -> Self {
        Self { predictor, pending: None, score: Score::default() }
    }

    /// Takes the next token and returns its surprisal in nats; `None` for the first token. Each
    /// token is stepped when the next one arrives, so the last one costs no inference.
    ///
    /// # Errors
    ///
    /// As [`Predictor::step`] for the previous token; it is dropped, and `token` counts as a first
    /// one. [`Error::Token`] for a token without a logit; it is dropped, and the next token is not
    /// scored.
    pub fn next(&mut self, token: u32) -> Result<Option<f32>, P::Error> {
        let Some(before) = self.pending.replace(token) else { return Ok(None) };
        let logits = self.predictor.step(before)?;
        match self.score.add(logits, token) {
            Ok(nats) => Ok(Some(nats)),
            Err(error) => {
                self.pending = None;
                Err(error.into())
            }
        }
    }

    /// The surprisal of all tokens so far.
    pub fn score(&self) -> Score {
        self.score
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric;

    /// Logits of 4 tokens: 1 for the token just taken, 0 for the others.
    struct Echo([f16; 4]);

    impl Predictor for Echo {
        type Error = Error;

        fn feed(&mut self, token: u32) -> Result<(), Error> {
            self.step(token).map(|_| ())
        }

        fn step(&mut self, token: u32) -> Result<&mut [f16], Error> {
            self.0 = [f16::ZERO; 4];
            let taken = self.0.get_mut(token as usize).ok_or(Error::Token { token, vocab: 4 })?;
            *taken = f16::ONE;
            Ok(&mut self.0)
        }
    }

    #[test]
    fn probabilities_are_logarithms_of_the_softmax() {
        let logits = [0.0, 1.0, -2.0, 3.5].map(f16::from_f32);
        let sum: f64 = logits.iter().map(|l| l.to_f64().exp()).sum();
        for (token, logit) in (0..).zip(logits) {
            let exact = logit.to_f64() - sum.ln();
            let error = log_probability(&logits, token).unwrap() as f64 - exact;
            assert!(error.abs() < 3e-7 + exact.abs() / 16_777_216.0, "{error}");
        }
        let certain = log_probability(&[f16::MIN], 0).unwrap();
        assert_eq!(certain.to_bits(), 0);
        let ends = [f16::MAX, f16::MIN];
        assert_eq!(log_probability(&ends, 1), Ok(-131_008.0));
        assert_eq!(log_probability(&ends, 2), Err(Error::Token { token: 2, vocab: 2 }));
        assert_eq!(log_probability(&[], 0), Err(Error::Token { token: 0, vocab: 0 }));
    }

    #[test]
    fn every_token_but_the_first_is_scored() {
        let mut scorer = Scorer::new(Echo([f16::ZERO; 4]));
        assert_eq!(scorer.score().nats_per_token(), 0.0);
        assert_eq!(scorer.next(1), Ok(None));
        let (likely, rare) = (scorer.next(1).unwrap().unwrap(), scorer.next(2).unwrap().unwrap());
        let sum = 3.0 + core::f64::consts::E;
        assert!((likely as f64 - (sum.ln() - 1.0)).abs() < 1e-6);
        assert!((rare as f64 - sum.ln()).abs() < 1e-6);
        let score = scorer.score();
        assert_eq!(score.tokens(), 2);
        assert!((score.nats() - likely - rare).abs() < 1e-6);
        let bits = (2.0 * sum.ln() - 1.0) / 2.0 / core::f64::consts::LN_2;
        assert!((score.bits_per_token() as f64 - bits).abs() < 1e-6);
    }

    #[test]
    fn refused_tokens_are_left_out() {
        let refused = Err(Error::Token { token: 9, vocab: 4 });
        let mut scorer = Scorer::new(Echo([f16::ZERO; 4]));
        // A first token is refused when it is stepped.
        assert_eq!(scorer.next(9), Ok(None));
        assert_eq!(scorer.next(1), refused);
        let surprise = scorer.next(1);
        assert!(matches!(surprise, Ok(Some(_))));
        // A later token has no logit.
        assert_eq!(scorer.next(9), refused);
        assert_eq!(scorer.next(1), Ok(None));
        assert_eq!(scorer.next(1), surprise);
        assert_eq!(scorer.score().tokens(), 2);
    }

    /// Sums stay exact where an f32 sum would round.
    #[test]
    fn sums_are_exact() {
        let logits = [0.0, 5.0].map(f16::from_f32);
        let one = numeric::surprise(&logits, 0);
        let mut score = Score::default();
        (0..100_000).for_each(|_| assert!(score.add(&logits, 0).is_ok()));
        assert_eq!(score.total, 100_000 * one);
    }
}
