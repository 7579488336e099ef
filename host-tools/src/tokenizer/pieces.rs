//! Pieces of a text, which no token crosses, and positions where a text may be split.

/// The rule for pieces in the module documentation as a regular expression.
pub(super) const PIECES: &str = r" ?[^ \t\n\r]+|[ \t\n\r]+(?= [^ \t\n\r])|[ \t\n\r]+";

/// Bytes of text encoded at a time.
pub(super) const CHUNK: usize = 1 << 14;

/// Whether a piece begins at byte `i`, by the rule in the module documentation.
pub(super) fn begins(bytes: &[u8], i: usize) -> bool {
    let white = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let Some(before) = i.checked_sub(1).map(|before| bytes[before]) else { return true };
    (bytes[i] == b' ' && bytes.get(i + 1).is_some_and(|&b| !white(b)))
        || (white(bytes[i]) && !white(before))
        || (!white(bytes[i]) && white(before) && before != b' ')
}

/// Splits a long text at piece boundaries, so that the chunks can be encoded independently and in
/// parallel. A text without a boundary stays whole.
pub(super) fn chunks(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut start, mut parts) = (0, Vec::new());
    while bytes.len() - start > CHUNK {
        let Some(cut) = (start + CHUNK..bytes.len()).find(|&i| begins(bytes, i)) else { break };
        parts.push(&text[start..cut]);
        start = cut;
    }
    parts.push(&text[start..]);
    parts
}

/// Splits a text at piece boundaries and inside pieces longer than `longest` bytes. Characters stay
/// whole.
pub(super) fn bounded_chunks(text: &str, longest: usize) -> Vec<&str> {
    chunks(text).into_iter().flat_map(|chunk| bounded(chunk, longest)).collect()
}

fn bounded(text: &str, longest: usize) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut start, mut piece, mut parts) = (0, 0, Vec::new());
    for end in 1..=bytes.len() {
        if end < bytes.len() && !begins(bytes, end) {
            continue;
        }
        while end - piece > longest {
            let mut cut = piece + longest;
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            parts.push(&text[start..cut]);
            (start, piece) = (cut, cut);
        }
        piece = end;
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_where_pieces_begin() {
        for line in ["of  the end , caf\u{e9} \n\n tale\t", "word\n", "no_space\t\n\r"] {
            let text = line.repeat(50_000 / line.len());
            let parts = chunks(&text);
            assert!(parts.len() > 2 && parts.concat() == text, "{line:?}");
            let mut at = 0;
            for part in &parts {
                assert!(begins(text.as_bytes(), at) && part.len() < CHUNK + 100, "{line:?}");
                at += part.len();
            }
        }
        assert_eq!(chunks(&"x".repeat(50_000)).len(), 1);
    }

    #[test]
    fn only_long_pieces_are_cut_and_characters_stay_whole() {
        assert_eq!(bounded_chunks("a  b cdefgh\nij", 7), ["a  b cdefgh\nij"]);
        assert_eq!(bounded_chunks("a  b cdefgh\nij", 3), ["a  b cd", "efg", "h\nij"]);
        assert_eq!(bounded_chunks("\u{6f22}\u{6f22}\u{6f22} x", 4), ["漢", "漢", "漢 x"]);
        assert_eq!(bounded_chunks("\n\n\n\n\n x", 2), ["\n\n", "\n\n", "\n x"]);
        assert_eq!(bounded_chunks("", 4), [""]);
    }
}
