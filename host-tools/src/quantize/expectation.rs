//! Checks that a calibration text is one the model knows.
//!
//! Statistics from text of another kind (another spelling or language, one repeated letter) say
//! little about inputs at inference. Two quantities detect it. On familiar text, cross-entropy
//! equals the entropy of the predictions, so their difference is near 0; and tokens that the model
//! predicts do occur somewhere in the text.

/// A text is surprising if its cross-entropy exceeds the model's entropy by more nats per token.
const SURPRISE: f64 = 1.0;
/// A text is narrow if tokens absent from it get a larger share of the predictions.
const MISSING: f64 = 0.2;

/// Occurrences of each token in a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts(Vec<usize>);

impl Counts {
    /// Counts the tokens of a text.
    pub(super) fn of(tokens: &[u32]) -> Self {
        let length = tokens.iter().max().map_or(0, |&most| most as usize + 1);
        let mut counts = vec![0; length];
        tokens.iter().for_each(|&token| counts[token as usize] += 1);
        Self(counts)
    }

    /// Occurrences of a token.
    pub fn of_token(&self, token: u32) -> usize {
        self.0.get(token as usize).copied().unwrap_or(0)
    }
}

/// Sums over the predictions of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expectation {
    predictions: usize,
    cross_entropy: f64,
    entropy: f64,
    missing: f64,
    vocab: usize,
}

impl Expectation {
    /// Adds complete windows of `window` tokens with their logits `[tokens, V]`; within a window
    /// each token predicts the next.
    pub(super) fn add(&mut self, logits: &[f32], tokens: &[u32], window: usize, counts: &Counts) {
        self.vocab = logits.len() / tokens.len().max(1);
        let rows = logits.chunks(window * self.vocab).zip(tokens.chunks(window));
        for (logits, tokens) in rows {
            for (row, &next) in logits.chunks_exact(self.vocab).zip(tokens.iter().skip(1)) {
                self.add_prediction(row, next, counts);
            }
        }
    }

    fn add_prediction(&mut self, logits: &[f32], next: u32, counts: &Counts) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut total, mut weighted, mut missing) = (0.0, 0.0, 0.0);
        for (token, &logit) in logits.iter().enumerate() {
            let below = f64::from(logit - largest);
            let p = below.exp();
            total += p;
            weighted += p * below;
            missing += if counts.of_token(token as u32) == 0 { p } else { 0.0 };
        }
        let normaliser = total.ln();
        self.predictions += 1;
        self.cross_entropy += normaliser - f64::from(logits[next as usize] - largest);
        self.entropy += normaliser - weighted / total;
        self.missing += missing / total;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.predictions += other.predictions;
        self.cross_entropy += other.cross_entropy;
        self.entropy += other.entropy;
        self.missing += other.missing;
        self.vocab = self.vocab.max(other.vocab);
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.predictions.max(1) as f64
    }

    /// Cross-entropy in nats per token.
    pub fn cross_entropy(&self) -> f64 {
        self.mean(self.cross_entropy)
    }

    /// Mean entropy of the predictions in nats per token.
    pub fn entropy(&self) -> f64 {
        self.mean(self.entropy)
    }

    /// Probability that predictions give to tokens absent from the text.
    pub fn missing(&self) -> f64 {
        self.mean(self.missing)
    }

    /// Why the text does not represent inputs that the model knows, if so.
    pub fn problem(&self) -> Option<String> {
        let (cross, own) = (self.cross_entropy(), self.entropy());
        let uniform = (self.vocab.max(1) as f64).ln();
        if cross > uniform {
            return Some(format!(
                "the model finds it harder to predict than random tokens ({cross:.2} nats a token; \
                 ln V is {uniform:.2})"
            ));
        }
        if cross - own > SURPRISE {
            return Some(format!(
                "a token costs the model {cross:.2} nats, but {own:.2} in text that it knows"
            ));
        }
        let missing = self.missing();
        (missing > MISSING).then(|| {
            format!(
                "the model gives {:.0} % of its probability to tokens that do not occur in it",
                100.0 * missing
            )
        })
    }
}
