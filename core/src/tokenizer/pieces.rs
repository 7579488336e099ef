//! The rules by which texts are divided into pieces that no token crosses.

use super::unicode::{self, Class};

/// White space, which separates words.
pub(crate) fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A rule for pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Rule {
    /// A run of bytes that are not white space, with the one space directly before it, or the rest
    /// of a run of white space: the bytes 0x20, 0x09, 0x0a and 0x0d.
    Words,
    /// GPT-2's: contractions such as `'ll`, runs of letters, of numbers or of other characters,
    /// each with the one space directly before it, and runs of white space, whose last character
    /// stands apart where something follows. Bytes that are not UTF-8 are other characters.
    Gpt2,
}

/// Iterator over the pieces of a text.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    rule: Rule,
    rest: &'a [u8],
}

impl Rule {
    /// The pieces of a text.
    pub fn pieces(self, text: &[u8]) -> Pieces<'_> {
        Pieces { rule: self, rest: text }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let first = self.rest.first()?;
        let len = match self.rule {
            Rule::Words => word(self.rest, *first),
            Rule::Gpt2 => gpt2(self.rest),
        };
        let (piece, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(piece)
    }
}

/// Bytes of the first piece by [`Rule::Words`].
fn word(text: &[u8], first: u8) -> usize {
    let word_after_space = first == b' ' && text.get(1).is_some_and(|b| !is_space(b));
    if is_space(&first) && !word_after_space {
        let run = text.iter().take_while(|b| is_space(b)).count();
        // A space directly before a word belongs to the word.
        run - (run < text.len() && text[run - 1] == b' ') as usize
    } else {
        1 + text[1..].iter().take_while(|b| !is_space(b)).count()
    }
}

/// Bytes of the first piece of a text that is not empty, by [`Rule::Gpt2`].
fn gpt2(text: &[u8]) -> usize {
    if let [b'\'', second, rest @ ..] = text {
        match (second, rest.first()) {
            (b's' | b't' | b'm' | b'd', _) => return 2,
            (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => return 3,
            _ => {}
        }
    }
    let space = (text[0] == b' ') as usize;
    match unicode::first(&text[space..]) {
        Some((class, _)) if class != Class::Space => space + run(&text[space..], class).0,
        _ => {
            let (all, last) = run(text, Class::Space);
            // What follows may begin with the last one.
            if all < text.len() && last < all { all - last } else { all }
        }
    }
}

/// Bytes of the characters of a class at the start of a text, and of the last of them.
fn run(text: &[u8], class: Class) -> (usize, usize) {
    let (mut all, mut last) = (0, 0);
    while let Some((found, len)) = unicode::first(&text[all..])
        && found == class
    {
        (all, last) = (all + len, len);
    }
    (all, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn pieces_keep_one_space_before_a_word() {
        let pieces: Vec<_> = Rule::Words.pieces(b"a  b c\n d\te \t ").collect();
        let expected: [&[u8]; 8] = [b"a", b" ", b" b", b" c", b"\n", b" d", b"\t", b"e"];
        assert_eq!(pieces[..8], expected);
        assert_eq!(pieces[8], b" \t ");
    }

    #[track_caller]
    fn divided(text: &str, expected: &[&str]) {
        let pieces = Rule::Gpt2.pieces(text.as_bytes());
        let pieces: Vec<_> = pieces.map(String::from_utf8_lossy).collect();
        assert_eq!(pieces, expected, "{text:?}");
    }

    #[test]
    fn words_numbers_and_signs_stand_apart() {
        divided("The 2nd cost $5.", &["The", " 2", "nd", " cost", " $", "5", "."]);
        divided("naïve漢字٣½x", &["naïve漢字", "٣½", "x"]);
        divided("a\u{301}b😀😀 !?", &["a", "\u{301}", "b", "😀😀", " !?"]);
    }

    #[test]
    fn contractions_go_first_only_where_they_begin() {
        divided("we'll've don't", &["we", "'ll", "'ve", " don", "'t"]);
        divided("it'se 'x", &["it", "'s", "e", " '", "x"]);
        divided("''s 's", &["''", "s", " '", "s"]);
        divided("'r 're 'RE'l", &["'", "r", " '", "re", " '", "RE", "'", "l"]);
        divided("'", &["'"]);
    }

    #[test]
    fn the_last_white_space_goes_with_what_follows() {
        divided("a  b", &["a", " ", " b"]);
        divided("a\n\nb", &["a", "\n", "\n", "b"]);
        divided("a \n b", &["a", " \n", " b"]);
        divided("a \t\u{a0}b", &["a", " \t", "\u{a0}", "b"]);
        divided("a\u{3000}\u{3000}b \n", &["a", "\u{3000}", "\u{3000}", "b", " \n"]);
        divided(" ", &[" "]);
        divided("\n b", &["\n", " b"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_signs() {
        let pieces: Vec<_> = Rule::Gpt2.pieces(b"a\xff\xc3 b \x80!\xe2\x82").collect();
        let expected: [&[u8]; 4] = [b"a", b"\xff\xc3", b" b", b" \x80!\xe2\x82"];
        assert_eq!(pieces, expected);
    }
}
