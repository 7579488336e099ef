//! An encoded text.

/// The tokens of a text and the bytes that they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Bytes of the text that each token stands for; their sum is the length of the text, unless
    /// there is no token.
    pub bytes: Vec<u32>,
}

impl Encoded {
    /// From the places in a text of `length` bytes where its tokens end.
    pub(super) fn new(tokens: Vec<u32>, ends: impl Iterator<Item = usize>, length: usize) -> Self {
        let mut before = 0;
        let mut bytes: Vec<u32> = ends
            .map(|end| {
                // Tokens may share a character, and stand in another order than what they are of.
                let end = end.clamp(before, length);
                (end - std::mem::replace(&mut before, end)) as u32
            })
            .collect();
        if let Some(last) = bytes.last_mut() {
            *last += (length - before) as u32;
        }
        Self { tokens, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_once() {
        let bytes = |ends: &[usize], length| {
            Encoded::new(vec![0; ends.len()], ends.iter().copied(), length).bytes
        };
        // White space between tokens, a character of three tokens, a token from the start of the
        // text, and what comes after the last one.
        assert_eq!(bytes(&[3, 8], 8), [3, 5]);
        assert_eq!(bytes(&[2, 2, 2, 5], 5), [2, 0, 0, 3]);
        assert_eq!(bytes(&[4, 0, 6], 9), [4, 0, 5]);
        assert_eq!(bytes(&[12], 9), [9]);
        assert_eq!(bytes(&[], 9), [0; 0]);
    }
}
