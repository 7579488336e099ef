//! Byte-level BPE with GPT-2's rule for pieces, as many programs write it: told from others, and
//! held in a blob so that a device encodes as the library does.

use std::collections::{BTreeMap, HashMap, HashSet};

use resnet_bk_core::tokenizer::{MAX_TOKEN_BYTES, Rule};
use serde_json::{Value, json};

use super::vocabulary;
use crate::error::{Error, Result};

/// GPT-2's rule as an expression, for files that have it apart from the byte level.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Mark and kind of its section, and what stands for a table of tokens.
const HEAD: [u16; 2] = [u16::MAX, 1];
const LISTED: u16 = u16::MAX;

/// A token beside those of bytes and merges.
#[derive(Debug, PartialEq)]
pub(super) struct Literal {
    pub(super) token: u32,
    /// When the library searches a text for it, from 1; 0 if never.
    pub(super) stage: u8,
    pub(super) text: String,
}

/// What a blob holds.
#[derive(Debug, PartialEq)]
pub(super) struct ByteLevel {
    /// The bytes of each token; none for numbers without one.
    pub(super) table: Vec<Vec<u8>>,
    /// Tokens of single bytes in ascending order, then those that merges make, by rank.
    pub(super) tokens: Vec<u32>,
    /// What each merge joins: places in `tokens`.
    pub(super) merges: Vec<(u16, u16)>,
    pub(super) literals: Vec<Literal>,
}

impl ByteLevel {
    /// From the library's file of a tokenizer and the bytes of its tokens.
    ///
    /// # Errors
    /// What a device would do otherwise than the library.
    pub(super) fn parse(file: &Value, table: Vec<Vec<u8>>) -> Result<Self, String> {
        let model = &file["model"];
        rules(file)?;
        let vocab = model["vocab"].as_object().ok_or("its model has no vocabulary")?;
        let numbers: HashMap<&str, u32> = vocab
            .iter()
            .filter_map(|(text, token)| Some((text.as_str(), u32::try_from(token.as_u64()?).ok()?)))
            .collect();
        if table.len() > 1 << 16 {
            return Err(format!("it has {} tokens; a device knows at most 65536", table.len()));
        }
        let mut tokens = Vec::new();
        for byte in 0..=255u8 {
            let token = numbers.get(vocabulary::text(&[byte]).as_str());
            tokens.push(*token.ok_or_else(|| format!("byte {byte} is no token"))?);
        }
        tokens.sort_unstable();
        let mut places: HashMap<u32, u16> = tokens.iter().copied().zip(0..).collect();
        let mut merges = Vec::new();
        for (rank, merge) in model["merges"].as_array().into_iter().flatten().enumerate() {
            let problem = |what: &str| format!("merge {rank} {what}");
            let (left, right) = pair(merge).ok_or_else(|| problem("is not two tokens"))?;
            let place = |text: &str| numbers.get(text).and_then(|token| places.get(token)).copied();
            let (Some(first), Some(second)) = (place(left), place(right)) else {
                return Err(problem("joins what no merge before it makes"));
            };
            let made = numbers.get(format!("{left}{right}").as_str()).copied();
            let made = made.ok_or_else(|| problem("makes no token"))?;
            if places.insert(made, tokens.len() as u16).is_some() {
                return Err(problem("makes a token that another one makes"));
            }
            tokens.push(made);
            merges.push((first, second));
        }
        let literals = literals(file, &table, &places)?;
        let longest = table.iter().map(Vec::len).max().unwrap_or(0);
        match longest {
            length if length > MAX_TOKEN_BYTES => {
                Err(format!("a token has {length} bytes; a device knows at most {MAX_TOKEN_BYTES}"))
            }
            _ => Ok(Self { table, tokens, merges, literals }),
        }
    }

    /// From a blob's tokenizer.
    pub(super) fn from_blob(blob: &resnet_bk_core::Tokenizer<'_>) -> Result<Self> {
        let broken = Error::Blob;
        let tokens = blob.tokens().collect::<Result<Vec<u32>, _>>().map_err(broken)?;
        let literals = blob.literals().map(|literal| Literal {
            token: literal.token,
            stage: literal.stage,
            text: String::from_utf8_lossy(literal.text).into_owned(),
        });
        let literals: Vec<Literal> = literals.collect();
        let all = || tokens.iter().copied().chain(literals.iter().map(|literal| literal.token));
        let mut table = vec![Vec::new(); all().max().map_or(0, |token| token as usize + 1)];
        for token in all() {
            let bytes = &mut table[token as usize];
            bytes.clear();
            blob.decode(token, |byte| bytes.push(byte)).map_err(broken)?;
        }
        let merges = blob.merges().map(|(left, right)| (left as u16, right as u16)).collect();
        Ok(Self { table, tokens, merges, literals })
    }

    /// The section of a blob that `resnet_bk_core::Tokenizer` reads.
    pub(super) fn section(&self) -> Vec<u8> {
        let first = self.tokens[0];
        let in_order = (first..).zip(&self.tokens).all(|(expected, &token)| token == expected);
        let mut ids = Vec::new();
        if !in_order {
            ids = vec![LISTED; self.table.len()];
            for (number, &token) in (0..).zip(&self.tokens) {
                ids[token as usize] = number;
            }
        }
        let mut numbers = [0; 256];
        for (number, &token) in (0..).zip(&self.tokens[..256]) {
            numbers[usize::from(self.table[token as usize][0])] = number;
        }
        let offset = if in_order { first as u16 } else { LISTED };
        let head = [HEAD[0], HEAD[1], self.merges.len() as u16, offset];
        let mut bytes: Vec<u8> = head.into_iter().flat_map(u16::to_le_bytes).collect();
        bytes.extend((ids.len() as u32).to_le_bytes());
        let pairs = self.merges.iter().flat_map(|&(left, right)| [left, right]);
        bytes.extend(numbers.into_iter().chain(pairs).chain(ids).flat_map(u16::to_le_bytes));
        for Literal { token, stage, text } in &self.literals {
            bytes.extend((*token as u16).to_le_bytes());
            bytes.extend([*stage, text.len() as u8]);
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    /// A file for the library.
    pub(super) fn file(&self) -> Value {
        let text = |token: u32| vocabulary::text(&self.table[token as usize]);
        let pairs = self
            .merges
            .iter()
            .map(|&(left, right)| [left, right].map(|place| text(self.tokens[usize::from(place)])));
        let mut vocab: BTreeMap<String, u32> =
            self.tokens.iter().map(|&token| (text(token), token)).collect();
        let made: HashSet<u32> = self.tokens.iter().copied().collect();
        let others = self.literals.iter().filter(|literal| !made.contains(&literal.token));
        vocab.extend(others.map(|literal| (literal.text.clone(), literal.token)));
        let searched = self.literals.iter().filter(|literal| literal.stage > 0);
        let added = searched.map(|literal| {
            json!({
                "id": literal.token, "content": literal.text, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": literal.stage == 2,
                "special": literal.stage == 1,
            })
        });
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added.collect::<Vec<_>>(), "normalizer": null,
            "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
                "merges": pairs.collect::<Vec<_>>(),
            },
        })
    }

    /// The longest text that the library searches for, in bytes.
    pub(super) fn longest_literal(&self) -> usize {
        let searched = self.literals.iter().filter(|literal| literal.stage > 0);
        searched.map(|literal| literal.text.len()).max().unwrap_or(0)
    }

    /// Splits a long text where a piece begins and no literal is near, so that the chunks can be
    /// encoded apart.
    pub(super) fn chunks<'t>(&self, text: &'t str, size: usize) -> Vec<&'t str> {
        // A piece that begins right after a literal may end elsewhere than without it, as may the
        // contraction there; the next ones do not.
        let near = self.longest_literal() + 8;
        let is_clear = |at: usize| {
            let (start, end) = (at.saturating_sub(near), (at + near).min(text.len()));
            let around = &text.as_bytes()[start..end];
            self.literals.iter().filter(|literal| literal.stage > 0).all(|literal| {
                !around.windows(literal.text.len()).any(|w| w == literal.text.as_bytes())
            })
        };
        let (mut start, mut at, mut chunks) = (0, 0, Vec::new());
        for piece in Rule::Gpt2.pieces(text.as_bytes()) {
            // The end of a run of white space depends on what follows it.
            let after_word = !text[..at].ends_with(char::is_whitespace);
            if at - start >= size && after_word && is_clear(at) {
                chunks.push(&text[start..at]);
                start = at;
            }
            at += piece.len();
        }
        chunks.push(&text[start..]);
        chunks
    }
}

/// Fails unless the library follows the rules of a device.
fn rules(file: &Value) -> Result<(), String> {
    let differs = |what: &str| Err(format!("its {what} is none that a device follows"));
    let model = &file["model"];
    if model["type"] != "BPE" {
        return Err(format!("its model is {}, not BPE", model["type"]));
    }
    if !file["normalizer"].is_null() {
        return differs("normalizer");
    }
    let pre = &file["pre_tokenizer"];
    let byte_level = |step: &Value, use_regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            && step["use_regex"] == use_regex
    };
    let split = |step: &Value| {
        step["type"] == "Split"
            && step["pattern"]["Regex"] == GPT2
            && step["behavior"] == "Isolated"
            && step["invert"] == false
    };
    let gpt2 = match pre["pretokenizers"].as_array().map(Vec::as_slice) {
        Some([one]) => byte_level(one, true),
        Some([first, second]) => split(first) && byte_level(second, false),
        Some(_) => false,
        None => byte_level(pre, true),
    };
    if !gpt2 {
        return differs("pre_tokenizer");
    }
    if file["decoder"]["type"] != "ByteLevel" {
        return differs("decoder");
    }
    for (key, plain) in [
        ("continuing_subword_prefix", &model["continuing_subword_prefix"]),
        ("end_of_word_suffix", &model["end_of_word_suffix"]),
    ] {
        if !plain.is_null() && plain != "" {
            return differs(&format!("model.{key}"));
        }
    }
    if model["ignore_merges"] == true {
        return differs("model.ignore_merges");
    }
    Ok(())
}

/// The two tokens of a merge.
fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        _ => match &merge.as_array()?[..] {
            [left, right] => Some((left.as_str()?, right.as_str()?)),
            _ => None,
        },
    }
}

/// Every token that is neither a byte nor made by a merge, or that a text is searched for.
fn literals(
    file: &Value,
    table: &[Vec<u8>],
    made: &HashMap<u32, u16>,
) -> Result<Vec<Literal>, String> {
    let mut stages = BTreeMap::new();
    for added in file["added_tokens"].as_array().into_iter().flatten() {
        let content = added["content"].as_str().unwrap_or_default();
        if ["single_word", "lstrip", "rstrip"].iter().any(|flag| added[flag] == true) {
            return Err(format!("its added token `{content}` looks at what stands around it"));
        }
        let token = added["id"].as_u64().unwrap_or(u64::MAX) as u32;
        if table.get(token as usize).is_none_or(|bytes| bytes != content.as_bytes()) {
            return Err(format!("its added token `{content}` is decoded to another text"));
        }
        stages.insert(token, if added["normalized"] == true { 2 } else { 1 });
    }
    let mut literals = Vec::new();
    for (token, bytes) in (0..).zip(table) {
        let stage = stages.get(&token).copied();
        if bytes.is_empty() || made.contains_key(&token) && stage.is_none() {
            continue;
        }
        let text = String::from_utf8(bytes.clone());
        let text = text.map_err(|_| format!("token {token} is no text, and no merge makes it"))?;
        if text.len() > 255 {
            return Err(format!("token {token} has {} bytes and no merge makes it", text.len()));
        }
        literals.push(Literal { token, stage: stage.unwrap_or(0), text });
    }
    Ok(literals)
}
