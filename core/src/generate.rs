//! Text generation: feed a prompt, then sample tokens until a stop token or a limit.

use half::f16;

use crate::error::Error;
use crate::sampler::Sampler;
use crate::session::Session;

/// A next-token predictor, as [`Generator`] and [`crate::Scorer`] need it: a [`Session`], a
/// reference to one, or another model.
pub trait Predictor {
    /// Error for a refused token.
    type Error: From<Error>;

    /// Takes a token without computing logits.
    ///
    /// # Errors
    ///
    /// If the token is refused; the state is then unchanged.
    fn feed(&mut self, token: u32) -> Result<(), Self::Error>;

    /// Takes a token and returns the logits (`[V]`) of the next one. The caller may overwrite them:
    /// the next step recomputes all of them.
    ///
    /// # Errors
    ///
    /// If the token is refused; the state is then unchanged.
    fn step(&mut self, token: u32) -> Result<&mut [f16], Self::Error>;
}

impl<M: AsRef<[u32]> + AsMut<[u32]>> Predictor for Session<'_, M> {
    type Error = Error;

    fn feed(&mut self, token: u32) -> Result<(), Error> {
        Session::feed(self, token)
    }

    fn step(&mut self, token: u32) -> Result<&mut [f16], Error> {
        Session::step(self, token)
    }
}

impl<P: Predictor> Predictor for &mut P {
    type Error = P::Error;

    fn feed(&mut self, token: u32) -> Result<(), P::Error> {
        P::feed(self, token)
    }

    fn step(&mut self, token: u32) -> Result<&mut [f16], P::Error> {
        P::step(self, token)
    }
}

/// Continues a text token by token: an iterator that ends at a stop token or a limit.
///
/// ```
/// use resnet_bk_core::{Error, Generator, Model, Sampler, Session};
///
/// static MODEL: &[u8] = resnet_bk_core::include_blob!(concat!(
///     env!("CARGO_MANIFEST_DIR"),
///     "/tests/golden/v3/half-mixed.rbk"
/// ));
///
/// let model = Model::from_bytes(MODEL)?;
/// let tokenizer = model.tokenizer()?;
/// let mut session = Session::new(model.clone(), [0; 4096])?;
/// let sampler = Sampler::builder().temperature(0.8).top_k(40).top_p(0.95).seed(1);
/// let sampler = sampler.repetition_penalty::<32>(1.1).build()?;
///
/// let mut prompt = [0; 16];
/// let count = tokenizer.encode(b"The castle", &mut prompt)?;
/// let mut newline = [0; 1];
/// tokenizer.encode(b"\n", &mut newline)?;
///
/// let mut generator = Generator::new(&mut session, sampler).limit(20).stop_at(&newline);
/// generator.feed(&prompt[..count])?;
/// let mut decoder = tokenizer.decoder();
/// let mut text = String::new();
/// for token in generator {
///     decoder.decode(token?, |part| text.push_str(part))?;
/// }
/// decoder.finish(|part| text.push_str(part));
/// assert!(!text.is_empty() && !text.contains('\n'));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Generator<'a, P, const RECENT: usize = 0> {
    predictor: P,
    sampler: Sampler<RECENT>,
    stops: &'a [u32],
    limit: usize,
    /// Tokens left to generate.
    left: usize,
    /// The latest token, which the predictor has not seen yet.
    pending: Option<u32>,
}

impl<'a, P: Predictor, const RECENT: usize> Generator<'a, P, RECENT> {
    /// Generates with `sampler` from the current state of `predictor`, without stop tokens or a
    /// limit.
    pub fn new(predictor: P, sampler: Sampler<RECENT>) -> Self {
        let limit = usize::MAX;
        Self { predictor, sampler, stops: &[], limit, left: limit, pending: None }
    }

    /// Stops at any of these tokens. The stop token is not returned but remains part of the
    /// context: if more is fed, the predictor takes it first.
    #[must_use]
    pub fn stop_at(self, stops: &'a [u32]) -> Self {
        Self { stops, ..self }
    }

    /// Generates at most `tokens` tokens after each [`Self::feed`].
    #[must_use]
    pub fn limit(self, tokens: usize) -> Self {
        Self { limit: tokens, left: tokens, ..self }
    }

    /// Appends tokens to the context: a prompt, or text that follows the generated tokens. Logits
    /// are computed for the last one only.
    ///
    /// # Errors
    ///
    /// As [`Predictor::feed`], after the tokens before the refused one.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<(), P::Error> {
        for &token in tokens {
            if let Some(pending) = self.pending {
                self.predictor.feed(pending)?;
            }
            self.sampler.observe(token);
            self.pending = Some(token);
        }
        self.left = self.limit;
        Ok(())
    }

    /// The next token, or `None` at the end of the text. `inspect` sees the logits before the
    /// sampler does, also those that give a stop token.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`] if nothing has been fed; otherwise as [`Predictor::step`].
    pub fn next_token(&mut self, inspect: impl FnOnce(&[f16])) -> Result<Option<u32>, P::Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let token = self.pending.ok_or(Error::EmptyPrompt)?;
        let logits = self.predictor.step(token)?;
        inspect(logits);
        let token = self.sampler.sample(logits);
        self.pending = Some(token);
        self.left -= 1;
        if self.stops.contains(&token) {
            self.left = 0;
            return Ok(None);
        }
        Ok(Some(token))
    }
}

/// Ends after an error; [`Generator::feed`] restarts it.
impl<P: Predictor, const RECENT: usize> Iterator for Generator<'_, P, RECENT> {
    type Item = Result<u32, P::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_token(|_| ());
        if next.is_err() {
            self.left = 0;
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Predicts token + 1, in a vocabulary of 5.
    #[derive(Default)]
    struct Counter {
        fed: Vec<u32>,
        stepped: Vec<u32>,
        logits: [f16; 5],
    }

    impl Predictor for Counter {
        type Error = Error;

        fn feed(&mut self, token: u32) -> Result<(), Error> {
            self.fed.push(token);
            Ok(())
        }

        fn step(&mut self, token: u32) -> Result<&mut [f16], Error> {
            if token == 4 {
                return Err(Error::EndOfPositions { positions: 4 });
            }
            self.stepped.push(token);
            self.logits = [f16::ZERO; 5];
            self.logits[token as usize + 1] = f16::ONE;
            Ok(&mut self.logits)
        }
    }

    #[test]
    fn generation_ends_at_stops_limits_and_errors() {
        let mut counter = Counter::default();
        let mut generator = Generator::new(&mut counter, Sampler::greedy()).limit(2);
        assert_eq!(generator.next(), Some(Err(Error::EmptyPrompt)));
        assert_eq!(generator.next(), None);
        generator.feed(&[2, 3, 0]).unwrap();
        assert_eq!(generator.by_ref().collect::<Result<Vec<_>, _>>(), Ok([1, 2].into()));
        let mut seen = None;
        let mut generator = generator.limit(9).stop_at(&[7, 3]);
        assert_eq!(generator.next_token(|logits| seen = logits.get(3).copied()), Ok(None));
        assert_eq!((seen, generator.next()), (Some(f16::ONE), None));
        // The stop token is fed before the new text.
        generator.feed(&[1]).unwrap();
        assert_eq!(generator.by_ref().collect::<Result<Vec<_>, _>>(), Ok([2].into()));
        let mut generator = generator.stop_at(&[]);
        generator.feed(&[]).unwrap();
        let end = Err(Error::EndOfPositions { positions: 4 });
        assert_eq!(generator.by_ref().collect::<Vec<_>>(), [Ok(4), end]);
        assert_eq!(generator.next(), None);
        assert_eq!(counter.fed, [2, 3, 3]);
        assert_eq!(counter.stepped, [0, 1, 2, 1, 2, 3]);
    }

    #[test]
    fn prompts_count_as_repetition() {
        let sampler = Sampler::builder().temperature(0.0).repetition_penalty::<4>(1.5);
        let mut generator = Generator::new(Counter::default(), sampler.build().unwrap());
        generator.feed(&[1, 0]).unwrap();
        let mut before = f16::ZERO;
        // 1 is the successor of 0, with a logit of 1: divided by 1.5 it is still the largest.
        assert_eq!(generator.next_token(|logits| before = logits[1]), Ok(Some(1)));
        assert_eq!(before, f16::ONE);
        assert_eq!(generator.predictor.logits[1], f16::from_f32(1.0 / 1.5));
    }
}
