//! Policy files: a base policy and overrides by tensor name.
//!
//! ```toml
//! name = "compact"
//! base = "uniform-int8"
//! potentials = "full"             # or "int8"
//!
//! [[override]]
//! tensors = "blocks.*.experts.*"  # or a list; `*` stands for any characters; the last match wins
//! precision = "int4"
//! group = 32
//! ```

use std::fmt;
use std::path::Path;

use resnet_bk_core::blob::{Dimensions, Precision};
use resnet_bk_schema::Storage;
use serde::{Deserialize, Deserializer};

use super::Policy;
use crate::error::{Error, Result};
use crate::files;
use crate::importance::Importance;
use crate::tensors::{Assignment, weight_name};

/// A parsed policy file.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    name: String,
    base: Box<Policy>,
    potentials: Option<Potentials>,
    overrides: Vec<Override>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: Option<String>,
    base: String,
    potentials: Option<Potentials>,
    #[serde(default, rename = "override")]
    overrides: Vec<Override>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Potentials {
    Full,
    Int8,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    tensors: Patterns,
    #[serde(deserialize_with = "precision")]
    precision: Precision,
    group: Option<usize>,
}

/// A pattern, or several, of which one must match a tensor.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Patterns {
    One(String),
    Any(Vec<String>),
}

impl Patterns {
    fn match_name(&self, name: &str) -> bool {
        self.all().iter().any(|pattern| matches(pattern, name))
    }

    fn all(&self) -> &[String] {
        match self {
            Self::One(pattern) => std::slice::from_ref(pattern),
            Self::Any(patterns) => patterns,
        }
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.all().join("`, `"))
    }
}

fn precision<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
    let name = String::deserialize(deserializer)?;
    let found = Precision::ALL.into_iter().find(|precision| precision.name() == name);
    found.ok_or_else(|| {
        let names = Precision::ALL.map(Precision::name).join(", ");
        serde::de::Error::custom(format!("`{name}` is not one of {names}"))
    })
}

impl PolicyFile {
    /// Reads a policy file.
    pub fn read(path: &Path) -> Result<Self> {
        let stem = path.file_stem().map_or("policy".into(), |stem| stem.to_string_lossy());
        Self::parse(&files::read_text(path)?, &stem)
            .map_err(|reason| Error::Policy(format!("{}: {reason}", path.display())))
    }

    /// Parses the text of a policy file; `default_name` applies if the file sets no name.
    fn parse(text: &str, default_name: &str) -> Result<Self, String> {
        let document: Document = toml::from_str(text).map_err(|e| e.to_string())?;
        let base = Policy::named(&document.base).map_err(|e| format!("base {e}"))?;
        for rule in &document.overrides {
            if rule.group.is_some() && !rule.precision.is_grouped() {
                return Err(format!("`{}`: only int2 to int6 have a group size", rule.tensors));
            }
            if rule.group.is_some_and(|group| !Storage::GROUPS.contains(&group)) {
                return Err(format!("`{}`: a group has 2 to 1024 inputs", rule.tensors));
            }
        }
        Ok(Self {
            name: document.name.unwrap_or_else(|| default_name.to_string()),
            base: Box::new(base),
            potentials: document.potentials,
            overrides: document.overrides,
        })
    }

    /// Name of the policy.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn base_needs_importance(&self) -> bool {
        self.base.needs_importance()
    }

    pub(super) fn assign(
        &self,
        dims: &Dimensions,
        importance: Option<&Importance>,
    ) -> Result<Assignment> {
        let mut assignment = self.base.assign(dims, importance)?;
        assignment.name.clone_from(&self.name);
        if let Some(potentials) = self.potentials {
            assignment.potentials_int8 = potentials == Potentials::Int8;
        }
        for rule in &self.overrides {
            let mut matched = false;
            for (id, storage) in dims.tensors().zip(&mut assignment.storage) {
                if rule.tensors.match_name(&weight_name(id)) {
                    matched = true;
                    *storage = rule.storage();
                }
            }
            if !matched {
                return Err(Error::Policy(format!(
                    "policy `{}`: `{}` matches no tensor of this model; `resnet-bk inspect` lists \
                     their names",
                    self.name, rule.tensors
                )));
            }
        }
        Ok(assignment)
    }
}

impl Override {
    fn storage(&self) -> Storage {
        let group = if self.precision.is_grouped() { self.group.unwrap_or(32) } else { 0 };
        Storage { precision: self.precision, group }
    }
}

/// Glob match: `*` in `pattern` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::random_checkpoint;
    use crate::tensors::dimensions;

    fn assign(text: &str) -> Result<Assignment> {
        let dims = dimensions(&random_checkpoint(0, 1).config);
        PolicyFile::parse(text, "test").map_err(Error::Policy)?.assign(&dims, None)
    }

    #[test]
    fn the_last_match_wins() {
        let assignment = assign(
            "base = \"uniform-int8\"\n\
             [[override]]\ntensors = \"blocks.*\"\nprecision = \"int4\"\ngroup = 16\n\
             [[override]]\ntensors = \"*.experts.1.3.weight\"\nprecision = \"fp16\"\n",
        )
        .unwrap();
        let fp16 = assignment.storage.iter().filter(|s| **s == Storage::FP16).count();
        let int8 = assignment.storage.iter().filter(|s| **s == Storage::INT8).count();
        assert_eq!((fp16, int8), (2, 2));
        assert!(assignment.storage.iter().any(|s| s.group == 16));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        let error =
            assign("base = \"static\"\n[[override]]\ntensors = \"head.*\"\nprecision = \"int8\"\n")
                .unwrap_err();
        assert!(error.to_string().contains("`head.*` matches no tensor"), "{error}");
    }

    #[test]
    fn one_pattern_of_a_list_must_match() {
        let list = |patterns: &str| {
            assign(&format!(
                "base = \"uniform-int8\"\n[[override]]\ntensors = {patterns}\nprecision = \"fp16\"\n"
            ))
        };
        let assignment = list("[\"head.*\", \"*.experts.1.3.weight\"]").unwrap();
        assert_eq!(assignment.storage.iter().filter(|s| **s == Storage::FP16).count(), 2);
        let error = list("[\"head.*\", \"tail.*\"]").unwrap_err().to_string();
        assert!(error.contains("`head.*`, `tail.*` matches no tensor"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("base = \"best\"", "base `best`"),
            ("base = \"static\"\nfoo = 1", "foo"),
            (
                "base = \"static\"\n[[override]]\ntensors = \"*\"\nprecision = \"int8\"\ngroup = 3",
                "only int2 to int6",
            ),
        ] {
            let error = assign(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn patterns() {
        assert!(matches("*", "a.b"));
        assert!(matches("a.*.c", "a.b.b.c"));
        assert!(matches("a.b", "a.b"));
        assert!(!matches("a.b", "a.bc"));
        assert!(!matches("a*a", "a"));
        assert!(!matches("*.c", "a.b"));
    }
}
