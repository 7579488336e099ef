//! The steps of post-training quantization, each of which can be omitted for ablation.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A step of post-training quantization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Equalize the scales of experts' hidden units.
    Equalize,
    /// Permute experts' hidden units.
    Permute,
    /// Search for scales; without it, the largest weight determines the scale.
    ScaleSearch,
    /// Alternately fit scales to codes and codes to scales, by the second moments of the inputs.
    Refit,
    /// Store token classes as separate matrices, in budgets.
    Classes,
    /// Prune hidden units, in budgets.
    Prune,
    /// GPTQ: compensate the errors of earlier columns in later ones.
    Gptq,
    /// Coordinate descent over codes.
    Descent,
    /// Cross-row error compensation.
    Outputs,
    /// Correct biases again for the inputs produced by the quantized prefix.
    Prefix,
    /// Correct biases by the mean error.
    BiasCorrection,
}

impl Step {
    /// Every step, in the order in which importance files and `--help` list them.
    pub const ALL: [Self; 11] = [
        Self::Equalize,
        Self::Permute,
        Self::ScaleSearch,
        Self::Refit,
        Self::Classes,
        Self::Prune,
        Self::Gptq,
        Self::Descent,
        Self::Outputs,
        Self::Prefix,
        Self::BiasCorrection,
    ];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equalize => "equalize",
            Self::Permute => "permute",
            Self::ScaleSearch => "scale-search",
            Self::Refit => "refit",
            Self::Classes => "classes",
            Self::Prune => "prune",
            Self::Gptq => "gptq",
            Self::Descent => "descent",
            Self::Outputs => "outputs",
            Self::Prefix => "prefix",
            Self::BiasCorrection => "bias-correction",
        }
    }

    /// What it does, for `--help` and tables.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Equalize => "equalized scales of hidden units",
            Self::Permute => "permuted hidden units",
            Self::ScaleSearch => "scale search",
            Self::Refit => "scales refitted to codes",
            Self::Classes => "token classes (budgets)",
            Self::Prune => "pruned hidden units (budgets)",
            Self::Gptq => "GPTQ",
            Self::Descent => "coordinate descent",
            Self::Outputs => "cross-row error compensation",
            Self::Prefix => "biases for the quantized prefix",
            Self::BiasCorrection => "bias correction",
        }
    }

    /// Key in JSON.
    fn key(self) -> String {
        self.name().replace('-', "_")
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of steps. In JSON it is an object with a boolean for every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps(u16);

impl Steps {
    /// Every step.
    pub const ALL: Self = Self((1 << Step::ALL.len()) - 1);
    /// No step: rounding to nearest only.
    pub const NONE: Self = Self(0);

    /// Whether the set has a step.
    pub const fn has(self, step: Step) -> bool {
        self.0 & step.bit() != 0
    }

    /// The set with a step added.
    pub const fn with(self, step: Step) -> Self {
        Self(self.0 | step.bit())
    }

    /// The set without a step.
    pub const fn without(self, step: Step) -> Self {
        Self(self.0 & !step.bit())
    }

    /// The omitted steps.
    pub fn left_out(self) -> impl Iterator<Item = Step> {
        Step::ALL.into_iter().filter(move |&step| !self.has(step))
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromIterator<Step> for Steps {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        steps.into_iter().fold(Self::NONE, Self::with)
    }
}

/// In words.
impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out: Vec<&str> = self.left_out().map(Step::name).collect();
        match left_out[..] {
            [] => f.write_str("all"),
            _ => write!(f, "all but {}", left_out.join(", ")),
        }
    }
}

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Step::ALL.map(|step| (step.key(), self.has(step))))
    }
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut found: BTreeMap<String, bool> = BTreeMap::deserialize(deserializer)?;
        let mut steps = Self::NONE;
        for step in Step::ALL {
            match found.remove(&step.key()) {
                Some(true) => steps = steps.with(step),
                Some(false) => {}
                None => return Err(D::Error::custom(format!("no `{}` among steps", step.key()))),
            }
        }
        match found.into_keys().next() {
            Some(unknown) => Err(D::Error::custom(format!("`{unknown}` is not a step"))),
            None => Ok(steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_bit_and_its_key() {
        for (index, step) in Step::ALL.into_iter().enumerate() {
            let one = Steps::ALL.without(step);
            assert!(!one.has(step) && one.left_out().eq([step]), "{index}");
            assert_eq!(one.with(step), Steps::ALL);
            let json = serde_json::to_string(&one).unwrap();
            assert!(json.contains(&format!("\"{}\":false", step.key())), "{json}");
            assert_eq!(serde_json::from_str::<Steps>(&json).unwrap(), one);
        }
        assert_eq!(Step::ALL.into_iter().collect::<Steps>(), Steps::ALL);
        assert_eq!(Steps::ALL.without(Step::ScaleSearch).to_string(), "all but scale-search");
    }

    #[test]
    fn missing_and_unknown_steps_are_named() {
        let read = |json: &str| serde_json::from_str::<Steps>(json).unwrap_err().to_string();
        assert!(read("{}").contains("equalize"));
        let all = serde_json::to_string(&Steps::ALL).unwrap();
        assert!(read(&all.replace("gptq", "gptp")).contains("gptq"));
        assert!(read(&all.replace('}', ",\"more\":true}")).contains("`more`"));
    }
}
