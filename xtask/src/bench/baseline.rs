//! The committed counts, and regressions against them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::measured::Measured;
use crate::{process, root};

/// Counts by name; smaller is better.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Baseline(BTreeMap<String, u64>);

/// The file.
pub(super) fn path() -> PathBuf {
    root().join("bench-firmware/baseline.json")
}

impl Baseline {
    /// The counts of a run.
    pub(super) fn of(measured: &Measured) -> Self {
        let mut counts = BTreeMap::new();
        for kernel in measured.kernels.iter().chain(&measured.portable) {
            let (core, precision) = (kernel.core, &kernel.precision);
            let name = format!("{core} {precision} {}->{}", kernel.inputs, kernel.outputs);
            counts.insert(name, kernel.instructions);
        }
        for token in &measured.tokens {
            let (core, blob) = (token.core, &token.blob);
            counts.insert(format!("{core} token {blob}"), token.instructions);
            counts.insert(format!("{core} stack bytes {blob}"), token.stack_bytes);
            counts.insert(format!("{core} token of a prompt {blob}"), token.fed_instructions);
            counts.insert(format!("{core} longest piece {blob}"), token.longest_piece());
            let off = token.off_alignment;
            counts.extend(off.map(|n| (format!("{core} token off alignment {blob}"), n)));
            for (sampler, instructions) in &token.samplers {
                counts.insert(format!("{core} sampler {sampler} {blob}"), *instructions);
            }
            for (end, instructions) in &token.coder {
                counts.insert(format!("{core} coder {end} {blob}"), *instructions);
            }
        }
        for line in &measured.messages {
            let core = line.core;
            counts.insert(format!("{core} compress a byte"), line.compress_per_byte);
            counts.insert(format!("{core} decompress a byte"), line.decompress_per_byte);
            counts.insert(format!("{core} RAM bytes of messages"), line.ram_bytes);
            counts.insert(format!("{core} code bytes of messages"), line.code_bytes);
        }
        for code in &measured.code {
            counts.insert(format!("{} code bytes", code.core), code.own);
        }
        counts.extend(measured.session_ram_bytes.map(|n| ("session RAM bytes".to_owned(), n)));
        Self(counts)
    }

    /// Number of counts.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads the committed counts.
    pub(super) fn read() -> Result<Self> {
        let text = fs::read(path()).with_context(|| {
            format!("cannot read {}; write it with --update", process::shown_path(&path()))
        })?;
        serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged; write it with --update", process::shown_path(&path()))
        })
    }

    /// Writes these counts to the committed file; after a partial run, only those measured.
    pub(super) fn write(self, part: bool) -> Result<()> {
        let mut counts = if part { Self::read().unwrap_or_default() } else { Self::default() };
        counts.0.extend(self.0);
        let mut text = serde_json::to_vec_pretty(&counts)?;
        text.push(b'\n');
        process::write(&path(), &text)
    }

    /// Describes the counts of `now` that are more than 2 % above these, or missing here.
    pub(super) fn worse(&self, now: &Self) -> Vec<String> {
        let verdict = |(name, &count): (&String, &u64)| match self.0.get(name) {
            None => Some(format!("{name}: {count}, without a baseline")),
            Some(&before) if 100 * count > 102 * before => {
                let percent = 100.0 * (count as f64 / before as f64 - 1.0);
                Some(format!("{name}: {count} for {before}, {percent:+.1} %"))
            }
            Some(_) => None,
        };
        now.0.iter().filter_map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> Baseline {
        Baseline(pairs.iter().map(|&(name, count)| (name.to_owned(), count)).collect())
    }

    #[test]
    fn two_percent_are_allowed_and_no_more() {
        let before = counts(&[("a", 1000), ("b", 1000), ("c", 1000)]);
        assert!(before.worse(&counts(&[("a", 1020), ("b", 1), ("c", 1000)])).is_empty());
        let worse = before.worse(&counts(&[("a", 1021), ("b", 1020), ("new", 5)]));
        assert_eq!(worse, ["a: 1021 for 1000, +2.1 %", "new: 5, without a baseline"]);
    }

    #[test]
    fn the_committed_file_is_one() {
        assert!(Baseline::read().unwrap().len() > 0);
    }
}
