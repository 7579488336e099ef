//! Token classes: mixed precision within the two token tables.
//!
//! Frequent tokens deserve more bits than rare ones. A blob may divide its tokens into up to four
//! classes; the embedding and the output layer then have one matrix per class, with one row per
//! token of the class in ascending order.

/// The class of every token, two bits each: token t is in bits 2 (t mod 4) and up of byte t / 4.
#[derive(Clone, Copy, Debug)]
pub struct TokenClasses<'a> {
    vocab: u32,
    /// Empty for a single class.
    bytes: &'a [u8],
}

impl<'a> TokenClasses<'a> {
    /// Largest number of classes.
    pub const MOST: u32 = 4;

    /// Bytes of the section for a vocabulary.
    pub const fn byte_len(vocab: u32) -> usize {
        vocab.div_ceil(4) as usize
    }

    /// Reads a section; an empty one puts every token in class 0. `None` for a wrong length.
    pub fn new(vocab: u32, bytes: &'a [u8]) -> Option<Self> {
        let fits = bytes.is_empty() || bytes.len() == Self::byte_len(vocab);
        fits.then_some(Self { vocab, bytes })
    }

    /// The class of a token; 0 for one that does not exist.
    pub fn class(&self, token: u32) -> u32 {
        self.bytes.get(token as usize / 4).map_or(0, |&byte| (byte >> (2 * (token % 4))) as u32 & 3)
    }

    /// Class of a token, and its row in the matrices of that class.
    pub fn place(&self, token: u32) -> (u32, usize) {
        if self.bytes.is_empty() {
            return (0, token as usize);
        }
        let class = self.class(token);
        let (whole, part) = (token as usize / 4, token % 4);
        let before = self.bytes.iter().take(whole).map(|&byte| members(byte, class).count_ones());
        let last = self.bytes.get(whole).map_or(0, |&byte| members(byte, class));
        let row = before.sum::<u32>() + (last & ((1 << (2 * part)) - 1)).count_ones();
        (class, row as usize)
    }

    /// The tokens of a class, ascending.
    pub fn tokens(&self, class: u32) -> impl Iterator<Item = u32> + use<'a> {
        let own = *self;
        (0..own.vocab).filter(move |&token| own.class(token) == class)
    }
}

/// Bit 2i is set if token i of the four is in the class.
fn members(byte: u8, class: u32) -> u8 {
    let other = byte ^ ((class as u8 & 3) * 0x55);
    !(other | other >> 1) & 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_the_tokens_of_a_class() {
        let bytes = [0b11_01_00_01, 0b00_10_01_11, 0b00_00_00_11];
        let classes = TokenClasses::new(9, &bytes).unwrap();
        let expected = [1, 0, 1, 3, 3, 1, 2, 0, 3];
        let mut rows = [0; 4];
        for (token, class) in (0..).zip(expected) {
            assert_eq!(classes.place(token), (class, rows[class as usize]), "{token}");
            rows[class as usize] += 1;
        }
        for class in 0..4 {
            let tokens = (0..9).filter(|&t| expected[t as usize] == class);
            assert!(classes.tokens(class).eq(tokens));
        }
        assert!(TokenClasses::new(9, &bytes[..2]).is_none());
        assert_eq!(TokenClasses::new(9, &[]).unwrap().place(7), (0, 7));
    }
}
