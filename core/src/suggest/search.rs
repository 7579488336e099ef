//! Best-first search over the tokens that may follow.

use half::f16;
use heapless::Vec;

use super::{BEGINNINGS, BITS, LONGEST, Suggestion, Unit};
use crate::numeric::shares::{Shares, TOTAL_BITS};
use crate::tokenizer::{Tokenizer, is_space};

/// Tokens of the longest continuation.
const DEPTH: usize = 16;
/// A probability of 1.
const ONE: u32 = 1 << 31;

/// A continuation that may go on.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    tokens: Vec<u16, DEPTH>,
    text: Vec<u8, LONGEST>,
    /// Probability of its tokens, in units of 2^−31.
    share: u32,
}

impl Beginning {
    pub(super) fn tokens(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().map(|&token| u32::from(token))
    }

    /// With another token; `None` if that is too long.
    fn with(&self, token: u16, share: u32, tokenizer: &Tokenizer<'_>) -> Option<Self> {
        let mut longer = Self { share, ..self.clone() };
        longer.tokens.push(token).ok()?;
        let mut fits = true;
        let known = tokenizer.decode(u32::from(token), |byte| {
            fits &= longer.text.push(byte).is_ok();
        });
        (known.is_ok() && fits).then_some(longer)
    }
}

/// The state of a search: the beginnings to be extended, and the best continuations so far.
pub(super) struct Search<'a, 't, 'o> {
    tokenizer: &'t Tokenizer<'a>,
    /// What every continuation begins with.
    typed: &'t [u8],
    unit: Unit,
    beginnings: Vec<Beginning, BEGINNINGS>,
    /// The best ones first. Their probabilities are in units of 2^−31 until the end.
    out: &'o mut [Suggestion],
    found: usize,
    /// Probability of everything that begins with what is typed, as far as it is known.
    total: u32,
}

impl<'a, 't, 'o> Search<'a, 't, 'o> {
    pub(super) fn new(
        tokenizer: &'t Tokenizer<'a>,
        typed: &'t [u8],
        unit: Unit,
        out: &'o mut [Suggestion],
    ) -> Self {
        let mut beginnings = Vec::new();
        let nothing = Beginning { tokens: Vec::new(), text: Vec::new(), share: ONE };
        // Cannot fail: there is room for more than one.
        let _ = beginnings.push(nothing);
        let total = if typed.is_empty() { ONE } else { 0 };
        Self { tokenizer, typed, unit, beginnings, out, found: 0, total }
    }

    /// Takes the likeliest beginning; `None` if no better continuation can come of any.
    pub(super) fn next(&mut self) -> Option<Beginning> {
        let shares = self.beginnings.iter().map(|beginning| beginning.share);
        let (likeliest, share) = shares.enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
        (share > self.floor()).then(|| self.beginnings.swap_remove(likeliest))
    }

    /// The probability that a continuation must exceed to be among the best.
    fn floor(&self) -> u32 {
        match self.out.last() {
            Some(last) if self.found == self.out.len() => last.probability,
            Some(_) => 0,
            None => ONE,
        }
    }

    /// Adds what may follow a beginning, given the logits (`[V]`) after it.
    pub(super) fn extend(&mut self, from: &Beginning, logits: &[f16]) {
        let shares = Shares::new(logits);
        let rest = self.typed.get(from.text.len()..).unwrap_or(&[]);
        let wanted = rest.first().map(|&byte| self.tokenizer.byte_token(byte));
        let spaces = [b' ', b'\t', b'\n', b'\r'].map(|byte| self.tokenizer.byte_token(byte));
        let is_word = rest.is_empty() && from.text.iter().any(|byte| !is_space(byte));
        let mut ends = 0;
        for (token, size) in (0..).zip(shares.sizes()) {
            let Some(first) = self.tokenizer.first(token) else { continue };
            if wanted.is_some_and(|wanted| wanted != first) {
                continue;
            }
            if is_word && self.unit == Unit::Word && spaces.contains(&first) {
                ends += size;
                continue;
            }
            let share = part(from.share, size);
            if rest.is_empty() && share <= self.least() {
                continue;
            }
            let Some(longer) = from.with(token as u16, share, self.tokenizer) else { continue };
            let len = longer.text.len().min(self.typed.len());
            if longer.text[..len] != self.typed[..len] {
                continue;
            }
            if len == self.typed.len() && !rest.is_empty() {
                self.total += share;
            }
            self.add(longer);
        }
        if ends > 0 {
            self.put(&from.text, part(from.share, ends));
        }
    }

    /// The probability that a beginning must exceed to be kept.
    fn least(&self) -> u32 {
        let worst = self.beginnings.iter().map(|beginning| beginning.share).min();
        let worst = worst.filter(|_| self.beginnings.is_full()).unwrap_or(0);
        match self.unit {
            Unit::Word => worst.max(self.floor()),
            // Most are continuations themselves.
            Unit::Token => self.floor(),
        }
    }

    /// A beginning that matches what is typed.
    fn add(&mut self, new: Beginning) {
        match self.unit {
            Unit::Token if new.text.len() > self.typed.len() => {
                return self.put(&new.text, new.share);
            }
            Unit::Word if !may_be_word(&new.text) => return,
            _ => {}
        }
        if self.beginnings.is_full() {
            let shares = self.beginnings.iter().map(|beginning| beginning.share);
            let worst = shares.enumerate().reduce(|a, b| if b.1 < a.1 { b } else { a });
            match worst {
                Some((worst, share)) if share < new.share => self.beginnings[worst] = new,
                _ => {}
            }
            return;
        }
        // Cannot fail: there is room.
        let _ = self.beginnings.push(new);
    }

    /// A continuation, which goes to its place among the best.
    fn put(&mut self, text: &Vec<u8, LONGEST>, share: u32) {
        // Other tokens may have the same text.
        let known = self.out[..self.found].iter().position(|known| known.text == *text);
        let mut place = match known {
            Some(place) => place,
            None if self.found < self.out.len() => {
                self.found += 1;
                self.out[self.found - 1] = Suggestion { text: text.clone(), probability: 0 };
                self.found - 1
            }
            None if share > self.floor() => {
                let last = self.found - 1;
                self.out[last] = Suggestion { text: text.clone(), probability: 0 };
                last
            }
            None => return,
        };
        self.out[place].probability += share;
        while place > 0 && self.out[place - 1].probability < self.out[place].probability {
            self.out.swap(place - 1, place);
            place -= 1;
        }
    }

    /// Ends the search: the number of continuations, whose probabilities are now those given what
    /// is typed.
    pub(super) fn finish(self) -> usize {
        let total = u64::from(self.total.max(1));
        for suggestion in &mut self.out[..self.found] {
            let share = u64::from(suggestion.probability) << BITS;
            suggestion.probability = (share / total).min(1 << BITS) as u32;
        }
        self.found
    }
}

/// A part of a probability, in units of 2^−24.
fn part(share: u32, size: u32) -> u32 {
    ((u64::from(share) * u64::from(size)) >> TOTAL_BITS) as u32
}

/// Whether a word, with at most one space before it, may begin like this.
fn may_be_word(text: &[u8]) -> bool {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    !text.iter().any(is_space)
}
