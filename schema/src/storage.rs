//! How a matrix is stored.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use resnet_bk_core::blob::{Precision, TensorId, TensorLayout, TensorRecord};
use serde::{Deserialize, Serialize};

/// A precision with its group size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Storage {
    /// Precision of the codes.
    pub precision: Precision,
    /// Inputs per group for a grouped precision, 0 otherwise.
    pub group: usize,
}

/// Group size if the name of a grouped precision states none.
const DEFAULT_GROUP: usize = 32;

impl Storage {
    /// FP16.
    pub const FP16: Self = Self { precision: Precision::Fp16, group: 0 };
    /// INT8 with a scale per row.
    pub const INT8: Self = Self { precision: Precision::Int8, group: 0 };
    /// INT4 in groups of 32.
    pub const INT4: Self = Self::grouped(Precision::Int4, DEFAULT_GROUP);

    /// The storages that budgets choose from and sensitivities are measured for, in ascending order
    /// of bits per weight.
    pub const CANDIDATES: [Self; 10] = [
        Self::grouped(Precision::Int2, 16),
        Self::grouped(Precision::Int3, 32),
        Self::grouped(Precision::Int3, 16),
        Self::grouped(Precision::Int4, 64),
        Self::INT4,
        Self::grouped(Precision::Int4, 16),
        Self::grouped(Precision::Int5, 32),
        Self::grouped(Precision::Int6, 32),
        Self::INT8,
        Self::FP16,
    ];

    /// Group sizes that a policy may name.
    pub const GROUPS: RangeInclusive<usize> = 2..=1024;

    /// A grouped precision.
    pub const fn grouped(precision: Precision, group: usize) -> Self {
        Self { precision, group }
    }

    /// Candidates for rows of `cols` inputs: those with groups no longer than a row. Where some
    /// group size divides the row, sizes that do not are left out: kernels of microcontrollers need
    /// whole groups, and pruning makes rows such as 224 = 3.5 × 64.
    pub fn candidates(cols: usize) -> impl Iterator<Item = Self> {
        let divides =
            move |storage: &Self| storage.group == 0 || cols.is_multiple_of(storage.group);
        let grouped = |storage: &&Self| storage.group != 0;
        let whole = Self::CANDIDATES.iter().filter(grouped).any(divides);
        Self::CANDIDATES
            .into_iter()
            .filter(move |storage| storage.for_row(cols) == *storage)
            .filter(move |storage| !whole || divides(storage))
    }

    /// This storage for rows of `cols` inputs. A group ends where its row does, so a larger group
    /// size means one scale per row.
    pub fn for_row(self, cols: usize) -> Self {
        let longest = TensorRecord::longest_group(u32::try_from(cols).unwrap_or(u32::MAX));
        Self { group: self.group.min(longest as usize), ..self }
    }

    /// Tensor record of a matrix `[rows, cols]` in this storage; exponents and offset are 0.
    pub fn record(self, rows: usize, cols: usize) -> TensorRecord {
        TensorRecord {
            precision: self.precision,
            exponent: 0,
            bias_exponent: 0,
            // No valid group is that long, so a size that does not fit `u16` stays invalid.
            group: u16::try_from(self.group).unwrap_or(u16::MAX),
            rows: rows as u32,
            cols: cols as u32,
            offset: 0,
        }
    }

    /// Layout of the section of a matrix `[rows, cols]`. Embeddings have no biases.
    pub fn layout(self, id: TensorId, rows: usize, cols: usize) -> TensorLayout {
        TensorLayout::new(self.precision, rows, cols, self.group, !id.is_embedding())
    }

    /// Name in policies, which omits a group size of 32.
    pub fn short_name(self) -> String {
        match self.group {
            DEFAULT_GROUP => self.precision.name().into(),
            _ => self.to_string(),
        }
    }

    /// Parses [`Storage::short_name`] or the name that [`Storage`] displays; `None` for anything
    /// else and for group sizes outside [`Storage::GROUPS`].
    pub fn parse_short(text: &str) -> Option<Self> {
        let storage: Self =
            text.parse().or_else(|_| format!("{text}/{DEFAULT_GROUP}").parse()).ok()?;
        (storage.group == 0 || Self::GROUPS.contains(&storage.group)).then_some(storage)
    }
}

/// Name in tables: `int8`, or `int4/32` with the group size.
impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            0 => f.pad(self.precision.name()),
            group => f.pad(&format!("{}/{group}", self.precision.name())),
        }
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, group) = text.split_once('/').unwrap_or((text, "0"));
        let precision = Precision::ALL.into_iter().find(|precision| precision.name() == name);
        let storage = precision.zip(group.parse().ok());
        storage
            .map(|(precision, group)| Self { precision, group })
            .filter(|storage| storage.precision.is_grouped() == (storage.group != 0))
            .ok_or_else(|| format!("`{text}` is not a storage such as int8 or int4/32"))
    }
}

impl From<Storage> for String {
    fn from(storage: Storage) -> Self {
        storage.to_string()
    }
}

impl TryFrom<String> for Storage {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for storage in Storage::CANDIDATES {
            assert_eq!(storage.to_string().parse(), Ok(storage));
            assert_eq!(Storage::parse_short(&storage.short_name()), Some(storage));
        }
        assert_eq!(Storage::INT4.short_name(), "int4");
        assert_eq!(Storage::grouped(Precision::Int4, 16).short_name(), "int4/16");
        for text in ["int7", "int8/32", "int4", "int4/0", "int4/x", ""] {
            assert!(text.parse::<Storage>().is_err(), "{text}");
        }
        assert_eq!(Storage::parse_short("int4/1"), None);
        assert_eq!(Storage::parse_short("int4/2048"), None);
    }

    #[test]
    fn candidates_ascend_and_fit_their_rows() {
        let bytes = |storage: Storage| storage.layout(TensorId::Gate(0), 64, 256).len();
        assert!(Storage::CANDIDATES.is_sorted_by_key(|&storage| bytes(storage)));
        assert!(Storage::candidates(16).all(|storage| storage.group < 64));
        assert_eq!(Storage::candidates(64).count(), Storage::CANDIDATES.len());
    }

    #[test]
    fn candidates_have_whole_groups_where_any_do() {
        // What pruning in steps of 32 units can leave.
        for cols in (32..=256).step_by(32) {
            let mut candidates = Storage::candidates(cols);
            assert!(candidates.all(|s| s.group == 0 || cols % s.group == 0), "{cols}");
        }
        assert!(!Storage::candidates(224).any(|s| s == Storage::grouped(Precision::Int4, 64)));
        assert_eq!(Storage::candidates(100).count(), Storage::CANDIDATES.len());
    }
}
