//! The three precisions of a published policy.

use std::fmt;

use crate::storage::Storage;

/// Storages of a published policy for its three tiers of layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ladder {
    /// The most important layers.
    pub high: Storage,
    /// The layers in between.
    pub middle: Storage,
    /// The least important layers.
    pub low: Storage,
}

impl Ladder {
    /// As published: FP16, INT8, INT4.
    pub const PUBLISHED: Self =
        Self { high: Storage::FP16, middle: Storage::INT8, low: Storage::INT4 };

    /// The same storage for all three.
    pub const fn uniform(storage: Storage) -> Self {
        Self { high: storage, middle: storage, low: storage }
    }

    /// Parses three comma-separated storages, from high to low.
    pub fn parse(text: &str) -> Option<Self> {
        let mut storages = text.split(',').map(Storage::parse_short);
        let mut next = || storages.next().flatten();
        let ladder = Self { high: next()?, middle: next()?, low: next()? };
        storages.next().is_none().then_some(ladder)
    }
}

/// Suffix of the policy's name: nothing for the published ladder, else `:high,middle,low`.
impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::PUBLISHED {
            return Ok(());
        }
        let [high, middle, low] = [self.high, self.middle, self.low].map(Storage::short_name);
        write!(f, ":{high},{middle},{low}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ladders_are_read_as_they_are_written() {
        let ladder = Ladder::parse("int8,int6/16,int4").unwrap();
        assert_eq!(ladder.to_string(), ":int8,int6/16,int4");
        assert_eq!(Ladder::parse("fp16,int8,int4"), Some(Ladder::PUBLISHED));
        assert_eq!(Ladder::PUBLISHED.to_string(), "");
        for text in ["int8,int4", "int8,int6,int4,int3", "int8,int6,int7", ""] {
            assert_eq!(Ladder::parse(text), None, "{text}");
        }
    }
}
