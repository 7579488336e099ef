//! One comparison.

use serde_json::{Value, json};

use super::alternate::Ratio;
use super::host::{InstructionSets, Reading};

/// Speed of a kernel relative to another implementation.
pub(super) struct Row {
    pub(super) kernel: String,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) against: &'static str,
    pub(super) ratio: Ratio,
    /// On processors with AVX-512 VNNI.
    pub(super) sets: Option<InstructionSets>,
    /// For matrices larger than the cache.
    pub(super) reading: Option<Reading>,
}

impl Row {
    pub(super) fn to_json(&self) -> Value {
        let mut row = json!({
            "kernel": self.kernel, "inputs": self.inputs, "outputs": self.outputs,
            "against": self.against, "ratio": self.ratio.rounded(),
            "quartiles": self.ratio.spread(),
        });
        if let Some(sets) = self.sets {
            row["beside_avx2"] = sets.to_json();
        }
        if let Some(reading) = self.reading {
            row["reading"] = reading.to_json();
        }
        row
    }
}
