//! Containers of a small model.

use proptest::prelude::*;
use resnet_bk_core::coder::Check;
use resnet_bk_core::{MessageProblem, Model};
use std::sync::LazyLock;

use super::*;

static BLOB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/64k/model.rbk");
    crate::files::read(&path).unwrap()
});

const TEXT: &[u8] = b"The castle was built in 1204.\nIt has two towers.\n\n\xff\x00 \r\nthe end";

fn packed(text: &[u8], settings: Settings<'_>) -> (Vec<u8>, Figures) {
    compress(&Model::from_bytes(&BLOB).unwrap(), text, settings, |_| ()).unwrap()
}

fn unpacked(bytes: &[u8], prime: &[u8]) -> Vec<std::result::Result<Vec<u8>, Lost>> {
    let model = Model::from_bytes(&BLOB).unwrap();
    let container = Container::parse(bytes).unwrap();
    container.header.check(&model, prime).unwrap();
    decompress(&model, &container, prime, |_| ()).unwrap()
}

fn whole(bytes: &[u8], prime: &[u8]) -> Vec<u8> {
    unpacked(bytes, prime).into_iter().map(std::result::Result::unwrap).collect::<Vec<_>>().concat()
}

fn settings(lines: bool, carried: bool, prime: &[u8], chunk: usize) -> Settings<'_> {
    Settings { flags: Flags { lines, carried }, prime, chunk }
}

#[test]
fn texts_come_back() {
    for (lines, carried) in [(false, false), (true, false), (true, true)] {
        for prime in [&b""[..], b"It is a castle.\n"] {
            for chunk in [1, 20, 1000] {
                for text in [&b""[..], b"\n", b"a", TEXT] {
                    let (bytes, figures) = packed(text, settings(lines, carried, prime, chunk));
                    assert_eq!(whole(&bytes, prime), text);
                    assert_eq!((figures.text_bytes, figures.bytes), (text.len(), bytes.len()));
                    assert!(figures.code_bytes <= text.len() + figures.messages);
                }
            }
        }
    }
}

/// Also where a chunk has no room for the rest of its last line.
#[test]
fn chunks_are_of_whole_lines() {
    let divided = |text, chunk| divide(text, settings(true, false, b"", chunk)).unwrap();
    assert_eq!(divided(b"ab\ncd\nefghij\nk", 7), [&b"ab\ncd\n"[..], b"efghij\n", b"k"]);
    assert_eq!(divided(b"ab\ncd\nefghij\nk", 4), [&b"ab\n"[..], b"cd\n", b"efghij\n", b"k"]);
    let text = b"a line\n".repeat(MAX_CHUNK / 7 + 2);
    let chunks = divided(&text, MAX_CHUNK);
    assert_eq!(chunks.concat(), text);
    assert!(chunks.iter().all(|chunk| chunk.len() <= MAX_CHUNK && chunk.ends_with(b"\n")));
    let line = vec![b'a'; MAX_CHUNK + 1];
    let refused = divide(&line, settings(true, false, b"", 9));
    assert!(matches!(refused, Err(Error::Usage(_))));
}

#[test]
fn what_comes_before_changes_the_code() {
    let code = |lines, carried, prime| packed(TEXT, settings(lines, carried, prime, 1000)).0;
    let codes = [
        code(true, false, &b""[..]),
        code(true, true, b""),
        code(true, false, b"It is a castle.\n"),
        code(false, false, b""),
    ];
    for (i, one) in codes.iter().enumerate() {
        assert!(codes[..i].iter().all(|other| other[52..] != one[52..]), "{i}");
    }
}

#[test]
fn damage_costs_the_chunk_that_it_hits() {
    let text = TEXT.repeat(4);
    let (bytes, figures) = packed(&text, settings(false, false, b"", 60));
    let chunks: Vec<&[u8]> = text.chunks(60).collect();
    assert_eq!(figures.chunks, chunks.len());
    for at in (32..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let pieces = unpacked(&damaged, b"");
        let lost = pieces.iter().filter(|piece| piece.is_err()).count();
        assert_eq!(lost, 1, "byte {at}");
        for (piece, chunk) in pieces.iter().zip(&chunks) {
            assert!(piece.as_ref().is_ok_and(|piece| piece == chunk) || piece.is_err());
        }
    }
    for len in (32..bytes.len()).step_by(5) {
        let pieces = unpacked(&bytes[..len], b"");
        assert!(matches!(pieces.last(), Some(Err(Lost { last: None, .. }))), "{len}");
        for (piece, chunk) in pieces.iter().flatten().zip(&chunks) {
            assert_eq!(piece, chunk);
        }
    }
    // A chunk that is missing.
    let body = Container::parse(&bytes).unwrap().pieces[1].unwrap().body;
    let start = body.as_ptr() as usize - bytes.as_ptr() as usize;
    let without = [&bytes[..start - 20], &bytes[start + body.len()..]].concat();
    assert_eq!(unpacked(&without, b"")[1], Err(Lost { first: 1, last: Some(1) }));
}

#[test]
fn headers_say_what_does_not_fit() {
    let (bytes, _) = packed(TEXT, settings(true, true, b"before", 100));
    let refused = |bytes: &[u8]| Container::parse(bytes).unwrap_err();
    assert!(refused(b"RBK").contains("first bytes"));
    assert!(refused(&bytes[..31]).contains("cut short"));
    let mut other = bytes.clone();
    other[8] = 9;
    assert!(refused(&other).contains("format 9"));
    other[8] = 1;
    other[20] ^= 1;
    assert!(refused(&other).contains("damaged"));
    for flags in [2, 4, 0x101] {
        let mut other = bytes[..28].to_vec();
        other[20..24].copy_from_slice(&u32::to_le_bytes(flags));
        other.extend(container::checksum(&other).to_le_bytes());
        assert!(refused(&other).contains("does not know"), "{flags}");
    }
    let model = Model::from_bytes(&BLOB).unwrap();
    let header = Container::parse(&bytes).unwrap().header;
    assert_eq!(header.check(&model, b"before"), Ok(()));
    assert!(header.check(&model, b"").unwrap_err().contains("pass it with --prime"));
    assert!(header.check(&model, b"after").unwrap_err().contains("not the one"));
    let mut unprimed = header;
    unprimed.prime = 0;
    assert!(unprimed.check(&model, b"after").unwrap_err().contains("leave out --prime"));
    let mut foreign = header;
    foreign.model.0 ^= 1;
    assert!(foreign.check(&model, b"before").unwrap_err().contains("checksum"));
}

/// Bare messages come back; a damaged one is lost, with all that go on from it.
#[test]
fn messages_come_back_over_a_link() {
    let model = Model::from_bytes(&BLOB).unwrap();
    let lines: Vec<&[u8]> = TEXT.split(|&byte| byte == b'\n').collect();
    let framing = Framing { identity: true, check: Check::Bits16 };
    for carried in [false, true] {
        let link = Link::new(&model, framing, carried, b"Before.").unwrap();
        let mut codes = link.send(&lines, |_| ()).unwrap();
        let texts = |codes: &[Vec<u8>]| link.receive(codes, |_| ()).unwrap();
        assert!(texts(&codes).into_iter().zip(&lines).all(|(a, b)| a.as_deref() == Ok(*b)));
        let last = codes[1].len() - 1;
        codes[1][last] ^= 1;
        let lost = core::Error::Message(MessageProblem::Check);
        for (index, text) in texts(&codes).into_iter().enumerate() {
            match index == 1 || carried && index > 1 {
                true => assert_eq!(text, Err(lost)),
                false => assert_eq!(text.as_deref(), Ok(lines[index])),
            }
        }
    }
    let long = vec![b'a'; LONGEST_MESSAGE + 1];
    let refused = Link::new(&model, framing, false, b"").unwrap().send(&[&long], |_| ());
    assert!(matches!(refused, Err(Error::Usage(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_back(
        text in prop::collection::vec(any::<u8>(), 0..300),
        lines in any::<bool>(),
        chunk in 1usize..200,
    ) {
        prop_assert_eq!(whole(&packed(&text, settings(lines, lines, b"", chunk)).0, b""), text);
    }

    /// Records of any content are read or lost, without a panic.
    #[test]
    fn any_records_are_read_or_lost(
        bodies in prop::collection::vec(
            (any::<u32>(), prop::collection::vec(any::<u8>(), 0..30)),
            0..5,
        ),
        lines in any::<bool>(),
    ) {
        let (mut bytes, _) = packed(b"", settings(lines, false, b"", 1));
        bytes.truncate(32);
        for (index, (text_len, body)) in bodies.iter().enumerate() {
            let text = vec![0; *text_len as usize % 1000];
            container::append_chunk(&mut bytes, index as u32, &text, body);
        }
        prop_assert!(unpacked(&bytes, b"").iter().all(std::result::Result::is_err));
    }
}
