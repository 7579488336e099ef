//! Reads a `tokenizer.json` and names whatever differs from the rules that a device
//! follows.
//!
//! The format is that of the Hugging Face library, which drops unknown fields and has many options
//! that the device does not support. The file is therefore compared field by field with what the
//! library writes for a tokenizer of this module; only vocabulary and merges may differ.

use super::library::library;
use super::merge::Merge;
use super::vocabulary;
use serde_json::{Map, Value};
use std::collections::HashMap;
use tokenizers::models::bpe::BPE;

/// Maximum number of problems of tokens and merges that are listed.
const MOST_OF_TABLES: usize = 10;

/// The parts in which tokenizers differ.
#[derive(Debug, PartialEq)]
pub(super) struct Parts {
    /// The bytes of each token.
    pub(super) tokens: Vec<Vec<u8>>,
    /// Lowest rank first.
    pub(super) merges: Vec<Merge>,
}

/// Parses a `tokenizer.json`, or returns every problem.
pub(super) fn parse(bytes: &[u8]) -> Result<Parts, Vec<String>> {
    let file: Value = serde_json::from_slice(bytes).map_err(|e| vec![format!("not JSON: {e}")])?;
    let Value::Object(file) = file else { return Err(vec!["not a JSON object".into()]) };
    let mut problems = Vec::new();
    compare("", Some(&Value::Object(without_tables(&file))), &template(), &mut problems);
    let field = |name| file.get("model").and_then(|model| model.get(name));
    let parts = match (field("vocab").and_then(Value::as_object), field("merges")) {
        (Some(vocab), Some(Value::Array(merges))) => {
            let mut of_tables = Vec::new();
            let parts = tables(vocab, merges, &mut of_tables);
            // A single cause can affect every token.
            let more = of_tables.len().saturating_sub(MOST_OF_TABLES);
            of_tables.truncate(MOST_OF_TABLES);
            problems.extend(of_tables);
            problems
                .extend((more > 0).then(|| format!("{more} more problems of tokens and merges")));
            parts
        }
        (vocab, _) => {
            let name = if vocab.is_none() { "vocab" } else { "merges" };
            problems.push(format!("`model.{name}` is missing or has the wrong type"));
            None
        }
    };
    parts.filter(|_| problems.is_empty()).ok_or(problems)
}

/// The file of a tokenizer of this module, without vocabulary and merges.
fn template() -> Value {
    let empty = library(BPE::default()).expect("the rule for pieces is a valid expression");
    let json = serde_json::to_value(empty).expect("a tokenizer serialises");
    Value::Object(without_tables(json.as_object().expect("a tokenizer is an object")))
}

fn without_tables(file: &Map<String, Value>) -> Map<String, Value> {
    let mut file = file.clone();
    if let Some(Value::Object(model)) = file.get_mut("model") {
        model.remove("vocab");
        model.remove("merges");
    }
    file
}

/// Adds a line for every unexpected field at or below `path`.
fn compare(path: &str, found: Option<&Value>, expected: &Value, problems: &mut Vec<String>) {
    let below = |name: &str| match path {
        "" => name.to_string(),
        _ => format!("{path}.{name}"),
    };
    let absent = Value::Null;
    match (found.unwrap_or(&absent), expected) {
        (Value::Object(found), Value::Object(fields))
            if found.get("type") == fields.get("type") =>
        {
            for (name, expected) in fields {
                compare(&below(name), found.get(name), expected, problems);
            }
            let unknown = found.keys().filter(|name| !fields.contains_key(*name));
            problems.extend(unknown.map(|name| format!("`{}` is not supported", below(name))));
        }
        (Value::Object(found), Value::Object(_)) if found.contains_key("type") => {
            compare(&below("type"), found.get("type"), &expected["type"], problems);
        }
        (Value::Array(found), Value::Array(steps)) => {
            for (i, expected) in steps.iter().enumerate() {
                compare(&format!("{path}[{i}]"), found.get(i), expected, problems);
            }
            let more = found.iter().enumerate().skip(steps.len());
            problems.extend(
                more.map(|(i, step)| format!("`{path}[{i}]` is not supported: {}", brief(step))),
            );
        }
        (found, expected) if found == expected || means_the_same(path, found) => {}
        // The library writes every field; older versions lacked some of those of the model.
        (Value::Null, Value::Bool(false)) if path.starts_with("model.") => {}
        (Value::Null, Value::Array(none)) if none.is_empty() => {}
        (found, expected) => {
            let (found, expected) = (brief(found), brief(expected));
            problems.push(format!("`{path}` is {found}; only {expected} is supported"));
        }
    }
}

/// Whether a field with this value gives the same tokens as the value that we write.
fn means_the_same(path: &str, found: &Value) -> bool {
    match path {
        // An empty prefix or suffix has no effect.
        "model.continuing_subword_prefix" | "model.end_of_word_suffix" => found == "",
        // No effect in a decoder, and text offsets are not used.
        "decoder.add_prefix_space" | "decoder.use_regex" => found.is_boolean(),
        _ => path.ends_with(".trim_offsets") && found.is_boolean(),
    }
}

/// A value as one short line.
fn brief(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Vocabulary and merges, if a device can hold them.
fn tables(
    vocab: &Map<String, Value>,
    merges: &[Value],
    problems: &mut Vec<String>,
) -> Option<Parts> {
    let mut numbers = HashMap::new();
    for (text, number) in vocab {
        match number.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => drop(numbers.insert(text.as_str(), number)),
            None => {
                problems.push(format!("token `{text}` has the invalid number {}", brief(number)))
            }
        }
    }
    let tokens = vocabulary::tokens(&numbers, problems);
    let mut pairs = Vec::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        // Older versions wrote a merge as one string.
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            _ => merge
                .as_array()
                .filter(|pair| pair.len() == 2)
                .and_then(|pair| Some((pair[0].as_str()?, pair[1].as_str()?))),
        };
        match pair {
            Some(pair) => pairs.push(pair),
            None => {
                problems.push(format!("merge {rank} is {}, not two tokens", brief(merge)));
                return None;
            }
        }
    }
    let merges = vocabulary::merges(&numbers, &pairs, problems);
    Some(Parts { tokens: tokens?, merges: merges? })
}
