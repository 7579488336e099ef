//! Tokens beside those of bytes and merges, such as `<|endoftext|>`.

/// A token with a text of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal<'a> {
    /// The token.
    pub token: u32,
    /// When a text is searched for it: 1 before 2, 0 never.
    pub stage: u8,
    /// Its text, 1 to 255 bytes.
    pub text: &'a [u8],
}

/// Stages of the search.
pub(super) const STAGES: u8 = 2;

/// All of them, one after the other: token `u16`, stage, bytes, text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Literals<'a>(&'a [u8]);

/// Reads one off the front.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Literal<'a>> {
    let (&[low, high, stage, len], after) = rest.split_first_chunk()?;
    let token = u16::from_le_bytes([low, high]) as u32;
    let (text, after) = after.split_at_checked(len as usize)?;
    *rest = after;
    (stage <= STAGES && !text.is_empty()).then_some(Literal { token, stage, text })
}

impl<'a> Literals<'a> {
    /// None.
    pub(super) const EMPTY: Self = Self(&[]);

    /// Validates them for a model with `vocab` tokens.
    pub(super) fn new(bytes: &'a [u8], vocab: u32) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            take(&mut rest).filter(|literal| literal.token < vocab)?;
        }
        Some(Self(bytes))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Literal<'a>> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || take(&mut rest))
    }

    /// The first place in a text of any of a stage, and of those there the longest.
    pub(super) fn find(&self, text: &[u8], stage: u8) -> Option<(usize, Literal<'a>)> {
        let wanted = || self.iter().filter(move |literal| literal.stage == stage);
        // Most tokenizers have few, and this saves the search.
        wanted().next()?;
        (0..text.len()).find_map(|at| {
            let here = wanted().filter(|literal| text[at..].starts_with(literal.text));
            Some((at, here.max_by_key(|literal| literal.text.len())?))
        })
    }
}
