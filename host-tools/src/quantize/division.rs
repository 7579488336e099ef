//! Division of a model into parts with their own storage.
//!
//! A few tokens make up most of a text, and some hidden units are rarely active. Tokens are
//! therefore sorted into classes whose rows of the two token tables are separate matrices, and
//! hidden units that an expert does not need are pruned. A budget decides the storage of each class
//! and which hidden units are kept.

use std::borrow::Cow;
use std::collections::BTreeMap;

use resnet_bk_core::Model;
use resnet_bk_core::blob::{TAPS, Tensor, TensorId, TokenClasses};
use resnet_bk_schema::{Step, Steps};
use serde::{Deserialize, Serialize};

use super::Source;
use super::calibration::{Calibration, Statistics};
use super::symmetry::Rearrangement;
use crate::error::{Error, Result};
use crate::tensors::layer_name;

/// Token classes and pruned hidden units of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Division {
    /// Class of every token, one digit each; empty for a single class.
    pub classes: String,
    /// Number of hidden units kept by each expert, keyed by the layer of its second matrix; other
    /// experts keep all. Units that contribute least to the outputs are pruned first.
    pub kept: BTreeMap<String, usize>,
}

impl Division {
    /// This division restricted to what the steps allow.
    pub(super) fn allowed(&self, steps: Steps) -> Self {
        let mut allowed = self.clone();
        if !steps.has(Step::Classes) {
            allowed.classes.clear();
        }
        if !steps.has(Step::Prune) {
            allowed.kept.clear();
        }
        allowed
    }

    /// Class of every token, if valid for the vocabulary: numbered from 0 without gaps.
    fn classes(&self, vocab: u32) -> Option<Vec<u8>> {
        let digits = self.classes.chars().map(|digit| digit.to_digit(TokenClasses::MOST));
        let classes: Vec<u8> = digits.map(|digit| digit.map(|d| d as u8)).collect::<Option<_>>()?;
        let count = classes.iter().max().map_or(0, |&most| most + 1);
        let complete = (0..count).all(|class| classes.contains(&class));
        let fits = classes.is_empty() || classes.len() == vocab as usize && count > 1;
        (complete && fits).then_some(classes)
    }
}

/// Contribution of each hidden unit to an expert's outputs: its second moment times the squared
/// norm of its column.
pub fn contributions(down: &[f32], statistics: &Statistics) -> Vec<f64> {
    let hidden = statistics.mean.len();
    let mut columns = vec![0.0; hidden];
    for row in down.chunks_exact(hidden) {
        columns.iter_mut().zip(row).for_each(|(sum, &w)| *sum += f64::from(w).powi(2));
    }
    let moments = statistics.inputs.diagonal().zip(&statistics.mean).map(|(v, m)| v + m * m);
    columns.iter().zip(moments).map(|(column, moment)| column * moment).collect()
}

/// Hidden units in order, except that those beyond `kept`, with the smallest contributions, come
/// last.
pub fn least_last(contributions: &[f64], kept: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = (0..contributions.len()).collect();
    ranks.sort_by(|&a, &b| contributions[b].total_cmp(&contributions[a]));
    let (kept, dropped) = ranks.split_at_mut(kept.min(contributions.len()));
    kept.sort_unstable();
    dropped.sort_unstable();
    ranks
}

impl Source {
    /// Divides the model and its calibration, as far as the steps allow.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] for a division of a different model.
    pub fn divide(&mut self, division: &Division, calibration: &mut Calibration) -> Result<()> {
        let division = division.allowed(self.steps);
        let foreign =
            || Error::Policy("the importance file is of a model with other dimensions".into());
        self.classes = division.classes(self.dims.vocab).ok_or_else(foreign)?;
        self.dims.token_classes = u32::from(self.classes.iter().max().map_or(0, |&most| most)) + 1;
        let hidden = self.dims.hidden as usize;
        self.kept = vec![hidden; self.experts().count()];
        for (index, (l, e)) in self.experts().enumerate() {
            let [up, down] = [TensorId::ExpertUp(l, e), TensorId::ExpertDown(l, e)].map(layer_name);
            let Some(&kept) = division.kept.get(&down) else { continue };
            if !(1..=hidden).contains(&kept) {
                return Err(foreign());
            }
            let weights = &self.folded.tensors[&format!("{down}.weight")].data;
            let statistics = calibration.statistics(&down, self.dims.width as usize, hidden);
            let order = least_last(&contributions(weights, &statistics), kept);
            let rearrangement = Rearrangement { scales: vec![1.0; order.len()], order };
            rearrangement.apply(&mut self.folded, &up, &down);
            rearrangement.apply_statistics(calibration, &up, &down);
            self.kept[index] = kept;
        }
        // Buffers are sized for the largest expert.
        self.dims.hidden = self.kept.iter().max().map_or(self.dims.hidden, |&most| most as u32);
        Ok(())
    }

    /// The part of the checkpoint's matrix that this stored matrix holds.
    pub fn part(&self, id: TensorId) -> Selection {
        let kept = |l, e| self.kept.get((l * self.dims.experts + e) as usize).copied();
        match id {
            TensorId::TokenEmbedding(class) | TensorId::LmHead(class)
                if self.dims.token_classes > 1 =>
            {
                let members = self.classes.iter().enumerate();
                Selection::Rows(members.filter(|m| u32::from(*m.1) == class).map(|m| m.0).collect())
            }
            TensorId::ExpertUp(l, e) => {
                kept(l, e).map_or(Selection::Whole, |kept| Selection::Rows((0..kept).collect()))
            }
            TensorId::ExpertDown(l, e) => kept(l, e).map_or(Selection::Whole, Selection::Columns),
            TensorId::Convolution(_) => Selection::Transposed(TAPS),
            _ => Selection::Whole,
        }
    }

    /// Stored shape `[rows, cols]` of a matrix.
    pub fn shape(&self, id: TensorId) -> (usize, usize) {
        let (rows, cols) = self.dims.shape(id);
        match self.part(id) {
            Selection::Whole | Selection::Transposed(_) => (rows as usize, cols as usize),
            Selection::Rows(rows) => (rows.len(), cols as usize),
            Selection::Columns(cols) => (rows as usize, cols),
        }
    }

    /// The section of token classes, if there are several.
    pub(super) fn class_section(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; TokenClasses::byte_len(self.dims.vocab)];
        for (token, class) in self.classes.iter().enumerate() {
            bytes[token / 4] |= class << (2 * (token % 4));
        }
        (self.dims.token_classes > 1).then_some(bytes)
    }
}

/// Rows or columns of a checkpoint's matrix that are stored as one matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Whole,
    /// Some rows, ascending.
    Rows(Vec<usize>),
    /// The first columns; the rest count as zero.
    Columns(usize),
    /// All of it, its rows as so many columns: the taps of a convolution, which a checkpoint holds
    /// tap by tap and a blob channel by channel.
    Transposed(usize),
}

impl Selection {
    /// The selection that a blob's matrix holds.
    pub fn of(blob: &Model<'_>, id: TensorId, tensor: &Tensor<'_>) -> Self {
        match id {
            TensorId::TokenEmbedding(class) | TensorId::LmHead(class) => {
                let tokens = blob.token_classes().tokens(class);
                Self::Rows(tokens.map(|token| token as usize).collect())
            }
            TensorId::ExpertUp(..) => Self::Rows((0..tensor.rows).collect()),
            TensorId::ExpertDown(..) => Self::Columns(tensor.cols),
            TensorId::Convolution(_) => Self::Transposed(tensor.cols),
            _ => Self::Whole,
        }
    }

    /// The selected part of a matrix `[_, cols]`.
    pub fn of_matrix<'a>(&self, whole: &'a [f32], cols: usize) -> Cow<'a, [f32]> {
        match self {
            Self::Whole => whole.into(),
            Self::Rows(rows) => {
                rows.iter().flat_map(|row| &whole[row * cols..][..cols]).copied().collect()
            }
            Self::Columns(first) => {
                whole.chunks_exact(cols).flat_map(|row| &row[..*first]).copied().collect()
            }
            Self::Transposed(rows) => {
                let cols = whole.len() / rows;
                (0..cols).flat_map(|c| whole[c..].iter().step_by(cols)).copied().collect()
            }
        }
    }

    /// The selected biases.
    pub fn of_biases<'a>(&self, whole: &'a [f32]) -> Cow<'a, [f32]> {
        match self {
            Self::Rows(_) => self.of_matrix(whole, 1),
            _ => whole.into(),
        }
    }

    /// Writes the part into the whole matrix.
    pub fn put_matrix(&self, part: &[f32], whole: &mut [f32]) {
        match self {
            Self::Whole => whole.copy_from_slice(part),
            Self::Rows(rows) => {
                let cols = part.len() / rows.len().max(1);
                for (row, values) in rows.iter().zip(part.chunks_exact(cols)) {
                    whole[row * cols..][..cols].copy_from_slice(values);
                }
            }
            Self::Columns(first) => {
                let cols = whole.len() / (part.len() / first).max(1);
                for (row, values) in whole.chunks_exact_mut(cols).zip(part.chunks_exact(*first)) {
                    row[..*first].copy_from_slice(values);
                    row[*first..].fill(0.0);
                }
            }
            Self::Transposed(rows) => {
                let cols = whole.len() / rows;
                for (c, values) in part.chunks_exact(*rows).enumerate() {
                    let column = whole[c..].iter_mut().step_by(cols);
                    column.zip(values).for_each(|(own, &value)| *own = value);
                }
            }
        }
    }

    /// Writes the part's biases into all biases.
    pub fn put_biases(&self, part: &[f32], whole: &mut [f32]) {
        match self {
            Self::Rows(_) => self.put_matrix(part, whole),
            _ => whole.copy_from_slice(part),
        }
    }

    /// Statistics of the selection.
    pub(super) fn of_statistics(&self, mut whole: Statistics) -> Statistics {
        match self {
            Self::Whole | Self::Transposed(_) => {}
            Self::Rows(rows) => whole.outputs = whole.outputs.among(rows),
            Self::Columns(first) => {
                let columns: Vec<usize> = (0..*first).collect();
                whole.inputs = whole.inputs.among(&columns);
                whole.mean.truncate(*first);
                whole.shift.truncate(*first);
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::random_checkpoint;
    use crate::reference;

    #[test]
    fn parts_come_out_as_they_went_in() {
        let whole: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let parts = [
            (Selection::Whole, whole.clone()),
            (
                Selection::Rows(vec![1, 3]),
                vec![6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0],
            ),
            (Selection::Columns(1), vec![0.0, 6.0, 12.0, 18.0]),
            (Selection::Transposed(4), (0..24).map(|i| (i % 4 * 6 + i / 4) as f32).collect()),
        ];
        for (part, expected) in parts {
            let taken = part.of_matrix(&whole, 6);
            assert_eq!(*taken, expected, "{part:?}");
            let mut back = vec![9.0; 24];
            part.put_matrix(&taken, &mut back);
            assert_eq!(part.of_matrix(&back, 6), taken);
            let biases: Vec<f32> = (0..4).map(|i| i as f32).collect();
            let mut back = biases.clone();
            part.put_biases(&part.of_biases(&biases), &mut back);
            assert_eq!(back, biases);
        }
        let mut back = vec![9.0; 24];
        Selection::Columns(1).put_matrix(&[1.0; 4], &mut back);
        assert_eq!(back[..7], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    /// Units that are never active contribute nothing: pruning them leaves the model the same.
    #[test]
    fn units_that_add_nothing_go_without_a_trace() {
        let mut checkpoint = random_checkpoint(1, 3);
        let (up, down) =
            ("blocks.0.bk_layer.moe_ffn.experts.1.0", "blocks.0.bk_layer.moe_ffn.experts.1.3");
        let hidden = checkpoint.config.hidden;
        let dead = [2, 5, 7];
        for unit in dead {
            checkpoint.data_mut(&format!("{up}.bias"))[unit] = -1e3;
        }
        let tokens: Vec<u32> = (0..480).map(|i| i * 7 % 40).collect();
        let mut source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        let model = reference::Model::from_checkpoint(&source.folded);
        let mut calibration = Calibration::collect(&model, &tokens, 12, 1, |_| {}).unwrap();
        let kept = BTreeMap::from([(down.to_owned(), hidden - dead.len())]);
        let classes: String = (0..40).map(|token| ['0', '2', '1'][token % 3]).collect();
        let division = Division { classes: classes.clone(), kept };
        source.divide(&division, &mut calibration).unwrap();
        let id = TensorId::ExpertDown(0, 1);
        assert_eq!(source.shape(id), (checkpoint.config.width, hidden - dead.len()));
        assert_eq!(source.shape(TensorId::LmHead(2)), (13, checkpoint.config.width));
        // The pruned columns are those of the dead units.
        let mut without = reference::Model::from_checkpoint(&source.folded);
        let values = without.tensor_mut(&format!("{down}.weight")).unwrap();
        let part = source.part(id).of_matrix(values, hidden).into_owned();
        source.part(id).put_matrix(&part, values);
        for (a, b) in model.forward(&tokens, 12).iter().zip(without.forward(&tokens, 12)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }

        // Without the step nothing is divided; a division of a different model is an error.
        let mut plain = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        plain.steps = Steps::NONE;
        plain.divide(&division, &mut calibration).unwrap();
        assert_eq!((plain.dims.token_classes, plain.part(id)), (1, Selection::Columns(hidden)));
        for classes in [&classes[1..], "x", &"0".repeat(40), &"03".repeat(20)] {
            let foreign = Division { classes: classes.into(), kept: BTreeMap::new() };
            let mut source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
            assert!(source.divide(&foreign, &mut calibration).is_err(), "{classes}");
        }
    }
}
