//! Letters, numbers and white space of Unicode.

mod table;

use table::{INDEX, RUNS};

/// What GPT-2's rule for pieces tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Anything else, and bytes that are not UTF-8.
    Other,
    /// General category L.
    Letter,
    /// General category N.
    Number,
    /// Property White_Space.
    Space,
}

/// Class and bytes of the first character of a text; `None` at its end.
pub(super) fn first(text: &[u8]) -> Option<(Class, usize)> {
    let byte = *text.first()?;
    let ascii = match byte {
        b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
        b'0'..=b'9' => Class::Number,
        b' ' | b'\t'..=b'\r' => Class::Space,
        _ => Class::Other,
    };
    if byte < 0x80 {
        return Some((ascii, 1));
    }
    Some(match character(byte, text) {
        Some((character, len)) => (class(character), len),
        None => (Class::Other, 1),
    })
}

/// The character beyond ASCII that a text begins with, and its bytes; `None` if they are none. The
/// standard library's way to tell takes more flash than all of this module.
fn character(first: u8, text: &[u8]) -> Option<(u32, usize)> {
    let (len, least) = match first {
        0xc2..=0xdf => (2, 0x80),
        0xe0..=0xef => (3, 0x800),
        0xf0..=0xf4 => (4, 0x1_0000),
        _ => return None,
    };
    let mut character = first as u32 & (0x7f >> len);
    for byte in text.get(1..len)? {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        character = character << 6 | (byte & 0x3f) as u32;
    }
    let is_surrogate = (0xd800..0xe000).contains(&character);
    let is_one = character >= least && character <= char::MAX as u32 && !is_surrogate;
    is_one.then_some((character, len))
}

/// Class of a character beyond ASCII.
fn class(character: u32) -> Class {
    // Cannot be absent: the table begins with the first of them.
    let before = INDEX.iter().rev().find(|(start, _)| *start <= character);
    let Some(&(mut start, place)) = before else { return Class::Other };
    let mut runs = RUNS[place as usize..].iter();
    while let Some(run) = varint(&mut runs) {
        start += (run >> 2) + 1;
        if character < start {
            return match run & 3 {
                1 => Class::Letter,
                2 => Class::Number,
                3 => Class::Space,
                _ => Class::Other,
            };
        }
    }
    Class::Other
}

/// Seven bits a byte, the lowest first.
fn varint<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Option<u32> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = *bytes.next()?;
        value |= ((byte & 0x7f) as u32) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Class, usize) {
        first(text.as_bytes()).unwrap()
    }

    #[test]
    fn characters_have_the_classes_of_unicode() {
        for (class, text) in [
            (Class::Letter, "azAZéßΩжא漢가ªʰ𐐀𝒜"),
            (Class::Number, "09²½٣Ⅷ①𝟘"),
            (Class::Space, " \t\n\u{b}\u{c}\r\u{85}\u{a0}\u{1680}\u{2003}\u{2028}\u{3000}"),
            (Class::Other, "!_'\0\u{7f}\u{80}€😀\u{301}\u{200b}\u{180e}\u{e0001}\u{10ffff}"),
        ] {
            for character in text.chars() {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes);
                assert_eq!(of(bytes), (class, bytes.len()), "{character:?}");
            }
        }
        assert_eq!(first(b""), None);
    }

    /// Where the standard library has an opinion, it is the same.
    #[test]
    fn white_space_is_that_of_the_standard_library() {
        for character in '\0'..=char::MAX {
            let mut bytes = [0; 4];
            let (class, _) = of(character.encode_utf8(&mut bytes));
            assert_eq!(class == Class::Space, character.is_whitespace(), "{character:?}");
            if cfg!(miri) && character > '\u{2ff}' {
                break;
            }
        }
    }

    proptest::proptest! {
        /// Overlong forms, surrogates and numbers that are too large among them.
        #[test]
        fn characters_are_those_of_the_standard_library(
            first in 0x80u8..,
            rest in proptest::collection::vec(
                proptest::prop_oneof![0x80u8..0xc0, proptest::prelude::any::<u8>()], 0..4,
            ),
        ) {
            let text = [&[first][..], &rest].concat();
            let known = (1..=text.len()).find_map(|len| std::str::from_utf8(&text[..len]).ok());
            let known = known.map(|text| (text.chars().next().unwrap() as u32, text.len()));
            proptest::prop_assert_eq!(character(first, &text), known);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_characters_of_their_own() {
        for text in
            [&b"\x80a"[..], b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"]
        {
            assert_eq!(first(text), Some((Class::Other, 1)), "{text:x?}");
        }
    }
}
