//! Quality of a checkpoint and of its blobs on the same text; blobs run on the shipped integer
//! path.
//!
//! Protocol: consecutive windows, each with a fresh state, each token predicting the next; every
//! token of the text but the first is predicted once.
//!
//! ```text
//! tokens ─ windows ─▶ Sums of each ─ Blocks ─▶ Sums of each ─ jackknife ─▶ Quality ± error
//! ```

pub mod articles;
pub mod divergence;
mod integer;
mod quality;
pub mod sample;
mod score;
mod subject;
pub mod sums;
pub mod teacher;
pub mod text;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::reference::{CHUNK, Model, WINDOWS_PER_PASS};
use crate::threads::Progress;
use quality::Tally;
pub use resnet_bk_schema::blocks::Blocks;
pub use resnet_bk_schema::outputs::{Fidelity, Quality};
use score::score;
pub use subject::Subject;

/// Scores `reference` and `subjects` on `tokens` in the windows of `blocks`, which also define the
/// jackknife blocks of standard errors. `bytes` are those of
/// each token of the text; `progress` receives
/// the completed fraction. Results are ordered reference (if any), subjects, and do not depend on
/// the number of threads.
///
/// # Panics
/// If `blocks` belongs to a text of another length.
pub fn evaluate(
    reference: Option<&Model>,
    subjects: &[Subject<'_>],
    tokens: &[u32],
    blocks: &Blocks,
    bytes: Option<&[u32]>,
    progress: impl Fn(f64) + Sync,
) -> Result<Vec<Quality>> {
    check_range(reference, subjects, tokens)?;
    let window = blocks.window;
    let predictions = tokens.len().saturating_sub(1);
    // Longer jobs would only use more memory.
    let job = window * WINDOWS_PER_PASS.min(CHUNK / window).max(1);
    let starts: Vec<usize> = (0..predictions).step_by(job).collect();
    let progress = Progress::new(starts.len(), progress);
    let jobs: Vec<Vec<Tally>> = starts
        .par_iter()
        .map(|&start| {
            let end = predictions.min(start + job);
            let bytes = bytes.map(|bytes| &bytes[start..end + 1]);
            let tallies = score(reference, subjects, &tokens[start..end + 1], window, bytes)?;
            progress.add(1);
            Ok(tallies)
        })
        .collect::<Result<_>>()?;
    let models = usize::from(reference.is_some()) + subjects.len();
    let mut totals = vec![Tally::default(); models];
    for job in jobs {
        totals.iter_mut().zip(job).for_each(|(total, tally)| total.add(tally));
    }
    let exact = reference.and(totals.first());
    let quality = |(i, tally): (usize, &Tally)| tally.quality(exact.filter(|_| i > 0), blocks);
    Ok(totals.iter().enumerate().map(quality).collect())
}

/// Fails if a token is outside the vocabulary of any model.
fn check_range(reference: Option<&Model>, subjects: &[Subject<'_>], tokens: &[u32]) -> Result<()> {
    let of_subject = |subject: &Subject<'_>| match subject {
        Subject::Blob(blob) => blob.dims().vocab as usize,
        Subject::Weights(model) => model.config().vocab,
    };
    let of_reference = reference.map(|model| model.config().vocab);
    let vocab = subjects.iter().map(of_subject).chain(of_reference).min();
    match tokens.iter().max().copied().zip(vocab) {
        Some((token, vocab)) if token as usize >= vocab => {
            Err(Error::TokenOutOfRange { token, vocab })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    #[test]
    fn tokens_beyond_the_vocabulary_are_an_error() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/model.safetensors");
        let checkpoint = Checkpoint::read(path.as_ref()).unwrap();
        let model = Model::from_checkpoint(&checkpoint);
        let bytes = [1; 3];
        let blocks = Blocks::runs(3, 8);
        let scored =
            |tokens: &[u32]| evaluate(Some(&model), &[], tokens, &blocks, Some(&bytes), |_| {});
        let error = scored(&[1, 272, 2]).unwrap_err();
        assert!(matches!(error, Error::TokenOutOfRange { token: 272, vocab: 272 }), "{error}");
        assert!(scored(&[1, 271, 2]).is_ok());
    }
}
