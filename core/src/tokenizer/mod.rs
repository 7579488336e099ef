//! Text to tokens and back, from tables in the blob.
//!
//! A section is of one of three kinds (`docs/format.md` has their bytes):
//!
//! - byte-level byte-pair encoding with this crate's rule for pieces ([`Rule::Words`]), as
//!   `resnet-bk train` makes it;
//! - the same with GPT-2's rule ([`Rule::Gpt2`]), tokens in any order, and [`Literal`] tokens;
//! - the bytes of every token, for tokenizers of other kinds: it decodes, and
//!   [`Tokenizer::encode`] is [`Error::NoEncoder`].

mod decoder;
mod ids;
mod literals;
mod merges;
mod pieces;
mod table;
#[cfg(test)]
mod tests;
mod unicode;

use crate::blob::Limits;
use crate::error::Error;
pub use decoder::Decoder;
use ids::Ids;
pub use literals::Literal;
use literals::{Literals, STAGES};
use merges::{BYTES, Merges};
pub(crate) use pieces::is_space;
pub use pieces::{Pieces, Rule};
use table::Table;

/// Limit on the bytes of a token. A merge can double the length, so without a limit the text of a
/// token could be exponentially long in the size of the table.
pub const MAX_TOKEN_BYTES: usize = 256;
/// Limit on the total bytes of all tokens, which bounds the time of validation. It is twice that of
/// 2^16 tokens of eight bytes.
pub const MAX_TEXT_BYTES: u32 = 1 << 20;

/// First `u16` of a section that does not begin with the token of a byte, which is below 256.
const MARK: u16 = u16::MAX;
/// Second `u16` of such a section: byte-pair encoding with GPT-2's rule for pieces.
const GPT2: u16 = 1;
/// The same: the bytes of every token.
const TABLE: u16 = 2;
/// Bytes before the tables of a section of these kinds.
const HEAD: usize = 12;

/// A tokenizer, read in place from a blob.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'a> {
    section: &'a [u8],
    kind: Kind<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Pairs(Pairs<'a>),
    Table(Table<'a>),
}

/// Byte-pair encoding.
#[derive(Clone, Copy, Debug)]
struct Pairs<'a> {
    rule: Rule,
    merges: Merges<'a>,
    ids: Ids<'a>,
    literals: Literals<'a>,
}

impl<'a> Tokenizer<'a> {
    /// Validates a section: every token must be below `vocab`, every merge must refer to earlier
    /// ones and make a token of at most [`MAX_TOKEN_BYTES`] bytes, and all tokens must total at
    /// most [`MAX_TEXT_BYTES`]. Takes time linear in the section and the tokens' bytes.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerText`] for too many bytes in total, otherwise
    /// [`Error::TokenizerSection`].
    pub fn from_bytes(bytes: &'a [u8], vocab: u32) -> Result<Self, Error> {
        let vocab = vocab.min(Limits::VOCAB);
        let (head, tables) = bytes.split_first_chunk::<HEAD>().ok_or(Error::TokenizerSection)?;
        let field = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let kind = match (field(0), field(2)) {
            (MARK, GPT2) => Kind::Pairs(gpt2([4, 6, 8, 10].map(field), tables, vocab)?),
            (MARK, TABLE) => Kind::Table(Table::new(tables, wide(field(4), field(6)), vocab)?),
            _ => {
                let merges = Merges::new(bytes, vocab as usize)?;
                let (rule, ids, literals) = (Rule::Words, Ids::Offset(0), Literals::EMPTY);
                Kind::Pairs(Pairs { rule, merges, ids, literals })
            }
        };
        Ok(Self { section: bytes, kind })
    }

    /// Its bytes: equal for equal tokenizers.
    pub fn section(&self) -> &'a [u8] {
        self.section
    }

    /// The rule by which it divides texts; `None` if it only decodes.
    pub fn rule(&self) -> Option<Rule> {
        match &self.kind {
            Kind::Pairs(pairs) => Some(pairs.rule),
            Kind::Table(_) => None,
        }
    }

    /// The two numbers that each merge joins, in order of rank: below 256 those of bytes, then
    /// 256 + i that of merge i. With [`Rule::Words`] they are tokens.
    pub fn merges(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        let merges = self.pairs().map(|pairs| pairs.merges);
        merges.into_iter().flat_map(|merges| (0..merges.count()).map(move |rank| merges.pair(rank)))
    }

    /// The tokens of the numbers in [`Self::merges`], in their order: bytes, then merges.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerSection`] for numbers without one.
    pub fn tokens(&self) -> impl Iterator<Item = Result<u32, Error>> + 'a {
        let pairs = self.pairs();
        pairs.into_iter().flat_map(|pairs| {
            (0..pairs.merges.numbers() as u32).map(move |number| pairs.ids.token(number))
        })
    }

    /// Tokens beside bytes and merges.
    pub fn literals(&self) -> impl Iterator<Item = Literal<'a>> + 'a {
        self.pairs().into_iter().flat_map(|pairs| pairs.literals.iter())
    }

    /// Encodes `text` into `tokens` and returns the number of tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if `tokens` is shorter than `text`: encoding starts with a token per byte;
    /// [`Error::NoEncoder`] if the tokenizer only decodes.
    pub fn encode(&self, text: &[u8], tokens: &mut [u32]) -> Result<usize, Error> {
        let pairs = self.pairs().ok_or(Error::NoEncoder)?;
        if tokens.len() < text.len() {
            return Err(Error::Buffer { needed: text.len(), given: tokens.len() });
        }
        let mut total = 0;
        pairs.encode(text, 1, &mut |piece| {
            let room = tokens.get_mut(total..).unwrap_or(&mut []);
            match piece {
                Part::Token(token) => {
                    room[0] = token;
                    total += 1;
                }
                Part::Piece(piece) => {
                    let count = pairs.merges.encode(piece, &mut room[..piece.len()]);
                    for number in &mut room[..count] {
                        *number = pairs.ids.token(*number)?;
                    }
                    total += count;
                }
            }
            Ok(())
        })?;
        Ok(total)
    }

    /// Fails unless it encodes.
    ///
    /// # Errors
    ///
    /// [`Error::NoEncoder`].
    pub(crate) fn require_encoder(&self) -> Result<(), Error> {
        self.pairs().map(|_| ()).ok_or(Error::NoEncoder)
    }

    /// A streaming decoder, which returns whole characters.
    pub fn decoder(&self) -> Decoder<'a> {
        Decoder::new(*self)
    }

    /// Encodes `text` into a vector.
    ///
    /// # Errors
    ///
    /// [`Error::NoEncoder`] if the tokenizer only decodes.
    #[cfg(feature = "alloc")]
    pub fn encode_vec(&self, text: &[u8]) -> Result<alloc::vec::Vec<u32>, Error> {
        let mut tokens = alloc::vec![0; text.len()];
        let count = self.encode(text, &mut tokens)?;
        tokens.truncate(count);
        Ok(tokens)
    }

    /// Calls `each` with the bytes of `token`, at most [`MAX_TOKEN_BYTES`]. They may split a
    /// character; [`Tokenizer::decoder`] returns whole ones.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] for a token without text, inside or outside of the vocabulary.
    pub fn decode(&self, token: u32, mut each: impl FnMut(u8)) -> Result<(), Error> {
        self.decode_to(token, &mut each)
    }

    /// [`Self::decode`], whose callers share this code.
    #[inline(never)]
    fn decode_to(&self, token: u32, each: &mut dyn FnMut(u8)) -> Result<(), Error> {
        let (text, vocab) = match &self.kind {
            Kind::Pairs(Pairs { merges, ids, literals, .. }) => {
                if let Some(number) = ids.number(token, merges.numbers()) {
                    return merges.decode(number, each);
                }
                let literal = literals.iter().find(|literal| literal.token == token);
                (literal.map(|literal| literal.text), merges.numbers())
            }
            Kind::Table(table) => (table.text(token), table.count()),
        };
        let text = text.ok_or(Error::Token { token, vocab: vocab as u32 })?;
        text.iter().copied().for_each(each);
        Ok(())
    }

    /// What [`Self::first`] is for a token that begins with this byte.
    pub(crate) fn byte_token(&self, byte: u8) -> u32 {
        self.pairs().map_or(byte as u32, |pairs| pairs.merges.of_byte(byte))
    }

    /// A number for the byte that `token` begins with; `None` for a token without text.
    pub(crate) fn first(&self, token: u32) -> Option<u32> {
        match &self.kind {
            Kind::Pairs(Pairs { merges, ids, literals, .. }) => {
                match ids.number(token, merges.numbers()) {
                    Some(number) => Some(merges.first(number)),
                    None => {
                        let literal = literals.iter().find(|literal| literal.token == token)?;
                        Some(merges.of_byte(*literal.text.first()?))
                    }
                }
            }
            Kind::Table(table) => Some(*table.text(token)?.first()? as u32),
        }
    }

    fn pairs(&self) -> Option<Pairs<'a>> {
        match self.kind {
            Kind::Pairs(pairs) => Some(pairs),
            Kind::Table(_) => None,
        }
    }
}

/// A part of a text, for encoding.
enum Part<'t> {
    /// Text that is a token.
    Token(u32),
    /// Text within which tokens merge.
    Piece(&'t [u8]),
}

impl Pairs<'_> {
    /// Calls `each` with the parts of a text: around literals of this stage, those of later ones,
    /// and around these pieces.
    fn encode(
        &self,
        mut text: &[u8],
        stage: u8,
        each: &mut dyn FnMut(Part<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if stage > STAGES {
            return self.rule.pieces(text).try_for_each(|piece| each(Part::Piece(piece)));
        }
        while let Some((at, literal)) = self.literals.find(text, stage) {
            self.encode(&text[..at], stage + 1, each)?;
            each(Part::Token(literal.token))?;
            text = &text[at + literal.text.len()..];
        }
        self.encode(text, stage + 1, each)
    }
}

/// Two halves, the low one first.
fn wide(low: u16, high: u16) -> usize {
    low as usize | (high as usize) << 16
}

/// A section of kind [`GPT2`], from the rest of its head and its tables.
fn gpt2(head: [u16; 4], tables: &[u8], vocab: u32) -> Result<Pairs<'_>, Error> {
    let [merges, offset, low, high] = head;
    let malformed = Error::TokenizerSection;
    let (pairs, rest) = tables.split_at_checked(BYTES + 4 * merges as usize).ok_or(malformed)?;
    let merges = Merges::new(pairs, vocab as usize)?;
    let listed = wide(low, high).min(vocab as usize + 1);
    let (table, literals) = rest.split_at_checked(2 * listed).ok_or(malformed)?;
    let literals = Literals::new(literals, vocab).ok_or(malformed)?;
    let numbers = merges.numbers();
    let (ids, most) = match offset {
        ids::NONE => (Ids::table(table, numbers).ok_or(malformed)?, listed),
        offset => (Ids::Offset(offset as u32), numbers + offset as usize),
    };
    let fits = most <= vocab as usize;
    if fits { Ok(Pairs { rule: Rule::Gpt2, merges, ids, literals }) } else { Err(malformed) }
}
