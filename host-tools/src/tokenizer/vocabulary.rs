//! Requirements on vocabulary and merges, so that a blob can hold them.

use super::merge::Merge;
use resnet_bk_core::blob::Limits;
use resnet_bk_core::tokenizer::MAX_TOKEN_BYTES;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The bytes of the tokens by number, if all are valid.
///
/// `numbers` maps the text of each token in the byte-level scheme to its number.
pub(super) fn tokens(
    numbers: &HashMap<&str, u32>,
    problems: &mut Vec<String>,
) -> Option<Vec<Vec<u8>>> {
    let before = problems.len();
    if numbers.len() > Limits::VOCAB as usize {
        let (count, most) = (numbers.len(), Limits::VOCAB);
        problems.push(format!("it has {count} tokens; at most {most} are supported"));
        return None;
    }
    let mut slots: Vec<Option<(&str, Vec<u8>)>> = vec![None; numbers.len()];
    let mut sorted: Vec<(&str, u32)> = numbers.iter().map(|(&text, &n)| (text, n)).collect();
    sorted.sort_unstable_by_key(|&(text, number)| (number, text));
    for (text, number) in sorted {
        let Some(bytes) = bytes(text).filter(|bytes| !bytes.is_empty()) else {
            problems.push(format!("token {number}, `{text}`, is not in the byte-level alphabet"));
            continue;
        };
        if number < 256 && bytes.len() != 1 {
            problems
                .push(format!("token {number}, `{text}`, is not a byte; the first 256 must be"));
        }
        if bytes.len() > MAX_TOKEN_BYTES {
            let length = bytes.len();
            problems.push(format!(
                "token {number} stands for {length} bytes; at most {MAX_TOKEN_BYTES} are supported"
            ));
        }
        match slots.get_mut(number as usize) {
            Some(slot @ None) => *slot = Some((text, bytes)),
            Some(Some((other, _))) => {
                problems.push(format!("`{other}` and `{text}` are both token {number}"));
            }
            None => problems.push(format!(
                "token `{text}` has the number {number}, but there are only {}",
                numbers.len()
            )),
        }
    }
    // 256 different single bytes among the first 256 numbers are all bytes.
    if numbers.len() < 256 {
        problems.push(format!("it has {} tokens; the 256 bytes must be tokens", numbers.len()));
    }
    // As many distinct numbers as tokens, all in range: no slot is empty.
    (problems.len() == before).then(|| slots.into_iter().flatten().map(|(_, b)| b).collect())
}

/// The merges by rank, if each makes the next token from earlier ones.
pub(super) fn merges(
    numbers: &HashMap<&str, u32>,
    pairs: &[(&str, &str)],
    problems: &mut Vec<String>,
) -> Option<Vec<Merge>> {
    let before = problems.len();
    let mut merges = Vec::with_capacity(pairs.len());
    let mut ranks = HashMap::new();
    let mut in_order = true;
    for (rank, &(left, right)) in pairs.iter().enumerate() {
        if let Some(first) = ranks.insert((left, right), rank) {
            problems.push(format!("merge {rank}, `{left}` and `{right}`, repeats merge {first}"));
            in_order = false;
            continue;
        }
        let joined = format!("{left}{right}");
        let number = |text: &str| numbers.get(text).copied();
        let (Some(left), Some(right), Some(result)) =
            (number(left), number(right), number(&joined))
        else {
            problems.push(format!("merge {rank}, `{left}` and `{right}`, names an unknown token"));
            continue;
        };
        let expected = 256 + rank as u32;
        // One out of order shifts all that follow.
        if in_order && (result != expected || left >= expected || right >= expected) {
            in_order = false;
            problems.push(format!(
                "merge {rank} makes token {result} of {left} and {right}; it must make token \
                 {expected} of tokens before it"
            ));
        }
        merges.push(Merge { left, right, result });
    }
    let made = 256 + pairs.len();
    if in_order && numbers.len() > made {
        let last = numbers.len() - 1;
        problems.push(format!("no merge makes tokens {made} to {last}"));
    }
    (problems.len() == before).then_some(merges)
}

/// The printable character of the byte-level scheme for each byte: itself if printable and not a
/// space, otherwise the next unused one from U+0100.
fn characters() -> impl Iterator<Item = (u8, char)> {
    let mut next = 0x100;
    (0..=255u8).map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (byte, char::from(byte)),
        _ => {
            next += 1;
            (byte, char::from_u32(next - 1).expect("below the surrogates"))
        }
    })
}

/// The bytes of a token from its text in the byte-level scheme.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    static BYTES: LazyLock<HashMap<char, u8>> =
        LazyLock::new(|| characters().map(|(byte, character)| (character, byte)).collect());
    text.chars().map(|character| BYTES.get(&character).copied()).collect()
}

/// The text of a token in the byte-level scheme.
pub(super) fn text(bytes: &[u8]) -> String {
    let characters: Vec<char> = characters().map(|(_, character)| character).collect();
    bytes.iter().map(|&byte| characters[usize::from(byte)]).collect()
}
