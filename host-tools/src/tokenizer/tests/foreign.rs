//! Files of other tokenizers are told from those that follow this module's rules by what differs.

use serde_json::{Value, json};

use super::*;

#[test]
fn impossible_sizes_are_refused() {
    assert!(Tokenizer::train(&[TEXT], 255).is_err());
    assert!(Tokenizer::train(&["abc"], 300).is_err());
}

pub(super) fn file() -> Value {
    serde_json::from_slice(&TOKENIZER.to_bytes()).unwrap()
}

/// In what a file does not follow the rules.
pub(super) fn said(file: &Value) -> Vec<String> {
    super::file::parse(file.to_string().as_bytes()).err().unwrap_or_default()
}

pub(super) fn put(file: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match file.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.insert(name.into(), value)),
        Value::Array(items) if name == "-" => items.push(value),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{pointer} in {other}"),
    }
}

/// Fields with values that change the encoding or are unknown, and the expected messages.
pub(super) fn refused() -> Vec<(&'static str, Value, &'static str)> {
    let truncation = json!({
        "direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0
    });
    let padding = json!({
        "strategy": {"Fixed": 512}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!"
    });
    let added = json!({
        "id": 270, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    });
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true
    });
    vec![
        ("/version", json!("2.0"), "`version` is \"2.0\""),
        ("/truncation", truncation, "`truncation` is {"),
        ("/padding", padding, "`padding` is {"),
        ("/added_tokens/-", added, "`added_tokens[0]`"),
        ("/normalizer", json!({"type": "Lowercase"}), "`normalizer` is {\"type\":\"Lowercase\"}"),
        ("/post_processor", byte_level.clone(), "`post_processor` is {"),
        ("/decoder", json!({"type": "Fuse"}), "`decoder.type` is \"Fuse\""),
        ("/decoder", json!(null), "`decoder` is null"),
        ("/extra", json!(1), "`extra` is not supported"),
        ("/pre_tokenizer", byte_level, "`pre_tokenizer.type` is \"ByteLevel\""),
        ("/pre_tokenizer", json!(null), "`pre_tokenizer` is null"),
        (
            "/pre_tokenizer/pretokenizers/-",
            json!({"type": "Digits", "individual_digits": true}),
            "`pre_tokenizer.pretokenizers[2]` is not supported: {\"individual_digits\"",
        ),
        ("/pre_tokenizer/pretokenizers/0/behavior", json!("Removed"), "[0].behavior` is"),
        ("/pre_tokenizer/pretokenizers/0/invert", json!(true), "[0].invert` is true"),
        ("/pre_tokenizer/pretokenizers/0/pattern", json!({"String": " "}), "[0].pattern.Regex` is"),
        ("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("."), "[0].pattern.Regex` is \".\""),
        ("/pre_tokenizer/pretokenizers/0/type", json!("Digits"), "[0].type` is \"Digits\""),
        ("/pre_tokenizer/pretokenizers/1/use_regex", json!(true), "[1].use_regex` is true"),
        ("/pre_tokenizer/pretokenizers/1/add_prefix_space", json!(true), "[1].add_prefix_space`"),
        ("/model/type", json!("WordLevel"), "`model.type` is \"WordLevel\""),
        ("/model/dropout", json!(0.5), "`model.dropout` is 0.5"),
        ("/model/unk_token", json!("!"), "`model.unk_token` is \"!\""),
        ("/model/continuing_subword_prefix", json!("##"), "`model.continuing_subword_prefix` is"),
        ("/model/end_of_word_suffix", json!("</w>"), "`model.end_of_word_suffix` is \"</w>\""),
        ("/model/fuse_unk", json!(true), "`model.fuse_unk` is true"),
        ("/model/byte_fallback", json!(true), "`model.byte_fallback` is true"),
        ("/model/ignore_merges", json!(true), "`model.ignore_merges` is true"),
        ("/model/cache", json!(1), "`model.cache` is not supported"),
        ("/model/vocab", json!([1]), "`model.vocab` is missing"),
        ("/model/merges", json!(null), "`model.merges` is missing"),
        ("/model/vocab/a", json!(-1), "token `a` has the invalid number -1"),
        ("/model/vocab/a", json!(69), "are both token 69"),
        ("/model/vocab/漢", json!(270), "token 270, `漢`, is not in the byte-level alphabet"),
        ("/model/vocab/zzz", json!(270), "no merge makes tokens 270 to 270"),
        ("/model/merges/3", json!(["a"]), "merge 3 is [\"a\"], not two tokens"),
        ("/model/merges/3", json!(["a", "漢"]), "merge 3, `a` and `漢`, names an unknown token"),
        ("/model/merges/-", json!(["z", "z"]), "merge 14, `z` and `z`, names an unknown token"),
    ]
}

/// Fields with values that change nothing.
pub(super) fn harmless() -> Vec<(&'static str, Value)> {
    vec![
        ("/model/continuing_subword_prefix", json!("")),
        ("/model/end_of_word_suffix", json!("")),
        ("/pre_tokenizer/pretokenizers/1/trim_offsets", json!(true)),
        ("/decoder/trim_offsets", json!(true)),
        ("/decoder/use_regex", json!(true)),
        ("/decoder/add_prefix_space", json!(true)),
        ("/padding", json!(null)),
    ]
}

#[test]
fn every_foreign_field_is_refused_by_its_name() {
    for (pointer, value, name) in refused() {
        let mut file = file();
        put(&mut file, pointer, value);
        let said = said(&file);
        assert!(said.iter().any(|line| line.contains(name)), "{pointer}: {said:?}");
    }
}

#[test]
fn all_that_is_foreign_is_named_at_once() {
    let mut file = file();
    put(&mut file, "/normalizer", json!({"type": "NFC"}));
    put(&mut file, "/model/dropout", json!(0.1));
    put(&mut file, "/model/byte_fallback", json!(true));
    file["model"]["merges"].as_array_mut().unwrap().swap(4, 5);
    file.as_object_mut().unwrap().remove("version");
    let said = said(&file);
    assert_eq!(said.len(), 5, "{said:?}");
    for name in ["normalizer", "model.dropout", "model.byte_fallback", "merge 4", "version"] {
        assert!(said.iter().any(|line| line.contains(name)), "{name}: {said:?}");
    }
    let error = Tokenizer::from_bytes(b"[]", Path::new("mine.json")).err().unwrap();
    assert!(error.to_string().contains("mine.json:\n  - not a JSON object"), "{error}");
    assert!(Tokenizer::from_bytes(b"{}", Path::new("x")).is_err());
    let gaps = json!({"model": {"vocab": {}, "merges": []}});
    assert!(!self::said(&gaps).is_empty());
}

#[test]
fn merges_come_once_and_in_order() {
    let merges = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut file = file();
        change(file["model"]["merges"].as_array_mut().unwrap());
        said(&file)
    };
    let twice = merges(&|merges| merges.push(merges[2].clone()));
    assert!(twice.len() == 1 && twice[0].contains("repeats merge 2"), "{twice:?}");
    let swapped = merges(&|merges| merges.swap(0, 7));
    assert!(swapped.len() == 1 && swapped[0].contains("must make token 256"), "{swapped:?}");
    let short = merges(&|merges| drop(merges.pop()));
    assert_eq!(short, ["no merge makes tokens 269 to 269"]);
    let as_text = merges(&|merges| {
        for merge in merges {
            *merge =
                format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()).into();
        }
    });
    assert!(as_text.is_empty(), "older versions wrote merges as text: {as_text:?}");
}

#[test]
fn a_long_list_of_problems_is_cut() {
    let mut file = file();
    for (number, token) in file["model"]["vocab"].as_object_mut().unwrap().values_mut().enumerate()
    {
        *token = json!(1000 + number);
    }
    let said = said(&file);
    assert!(said.len() < 20 && said.last().unwrap().contains("more"), "{said:?}");
}
