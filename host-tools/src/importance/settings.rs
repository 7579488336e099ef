//! Settings that an importance file depends on.

use resnet_bk_schema::Steps;
use serde::{Deserialize, Serialize};

use crate::digest::{sha256, sha256_of_tokens};
use crate::eval::text::Tokens;

/// Identity of a text by its content; names and lengths are not unique.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Name for display; not compared.
    pub name: String,
    /// Number of tokens.
    pub tokens: usize,
    /// SHA-256 of the tokens as little-endian u32, in hexadecimal.
    pub sha256: String,
}

/// Settings of an importance file. Files can be merged or extended only if all settings match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// SHA-256 of the checkpoint file, in hexadecimal.
    pub model_sha256: String,
    /// SHA-256 of the tokenizer as this tool writes it, in hexadecimal; `None` for a model without
    /// one.
    pub tokenizer_sha256: Option<String>,
    /// Text of the published metrics and the calibration.
    pub text: Text,
    /// Tokens per window.
    pub window: usize,
    /// Seed.
    pub seed: u64,
    /// Quantization steps applied when tensors are measured.
    #[serde(rename = "methods")]
    pub steps: Steps,
}

impl Text {
    /// Identity of a text.
    pub fn of(text: &Tokens) -> Self {
        Self {
            name: text.name.clone(),
            tokens: text.tokens.len(),
            sha256: sha256_of_tokens(&text.tokens),
        }
    }

    /// The concatenation of this text and another.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            name: format!("{} and {}", self.name, other.name),
            tokens: self.tokens + other.tokens,
            sha256: sha256(format!("{} {}", self.sha256, other.sha256).as_bytes()),
        }
    }

    /// Adds a line if this text differs from `before`.
    pub(super) fn differ_from(&self, before: &Self, what: &str, differences: &mut Vec<String>) {
        if self != before {
            let show = |text: &Self| {
                format!("{} tokens of {} ({})", text.tokens, text.name, short(&text.sha256))
            };
            differences.push(format!("the {what} was {}, is now {}", show(before), show(self)));
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

impl Settings {
    /// One line for each setting that differs in `now`.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, before: String, now: String| {
            if before != now {
                differences.push(format!("the {what} was {before}, is now {now}"));
            }
        };
        compare("checkpoint", short(&self.model_sha256), short(&now.model_sha256));
        let tokenizer =
            |settings: &Self| settings.tokenizer_sha256.as_deref().map_or("none".into(), short);
        compare("tokenizer", tokenizer(self), tokenizer(now));
        compare("window", self.window.to_string(), now.window.to_string());
        compare("seed", self.seed.to_string(), now.seed.to_string());
        compare("set of steps", self.steps.to_string(), now.steps.to_string());
        now.text.differ_from(&self.text, "calibration text", &mut differences);
        differences
    }
}

/// The first digits of a hash, for display.
pub(super) fn short(sha256: &str) -> String {
    match sha256.get(..12) {
        Some(start) => format!("{start}…"),
        None => sha256.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, tokens: &[u32]) -> Text {
        Text::of(&Tokens { name: name.into(), tokens: tokens.to_vec(), bytes: None, parts: None })
    }

    fn settings() -> Settings {
        Settings {
            model_sha256: "a".repeat(64),
            tokenizer_sha256: None,
            text: text("train", &[1, 2, 3]),
            window: 128,
            seed: 1,
            steps: Steps::ALL,
        }
    }

    #[test]
    fn a_text_is_its_content() {
        assert_eq!(text("a", &[1, 2]), text("b", &[1, 2]));
        // Same name and length, different content.
        assert_ne!(text("a", &[1, 2]), text("a", &[2, 1]));
        let both = text("a", &[1]).and(text("b", &[2]));
        assert_eq!(both.tokens, 2);
        assert_ne!(both, text("b", &[2]).and(text("a", &[1])));
    }

    #[test]
    fn every_difference_is_named() {
        assert_eq!(settings().differences(&settings()), Vec::<String>::new());
        for (other, what) in [
            (Settings { model_sha256: "b".repeat(64), ..settings() }, "checkpoint"),
            (Settings { tokenizer_sha256: Some("c".repeat(64)), ..settings() }, "tokenizer"),
            (Settings { text: text("train", &[1, 2, 4]), ..settings() }, "calibration text"),
            (Settings { window: 64, ..settings() }, "window"),
            (Settings { seed: 2, ..settings() }, "seed"),
            (Settings { steps: Steps::NONE, ..settings() }, "steps"),
        ] {
            let differences = settings().differences(&other);
            assert_eq!(differences.len(), 1, "{differences:?}");
            assert!(differences[0].contains(what), "{differences:?}");
        }
    }
}
