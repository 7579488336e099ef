//! Quantizes a checkpoint under a policy or for a target.

use resnet_bk_schema::Step;

use super::flags::{FALLBACK_TOKENS, QuantizeArgs};
use super::model::QuantizedModel;
use super::target;
use super::write::preview;
use crate::budget::Bench;
use crate::cli::Global;
use crate::cli::common::{Loaded, bar, set};
use crate::corpus::Split;
use crate::error::Result;
use crate::importance::Importance;
use crate::policy::Policy;
use crate::quantize::Source;
use crate::reference::Model;

impl QuantizeArgs {
    /// Quantizes a checkpoint; a dry run prints the result and returns `None`.
    pub(in crate::cli) fn make(
        &self,
        loaded: &Loaded,
        dry_run: bool,
        global: Global,
    ) -> Result<Option<(Source, QuantizedModel)>> {
        let policy = self.policy.as_deref().map(Policy::parse).transpose()?;
        let mut source = match self.no_tokenizer {
            true => loaded.source()?,
            false => loaded.source_with_tokenizer(global)?,
        };
        source.steps = self.steps.taken();
        let importance =
            self.importance.as_deref().map(|path| loaded.importance(path)).transpose()?;
        let Some(policy) = policy else {
            let made = target::make(self, loaded, &mut source, importance, dry_run, global)?;
            return Ok(made.map(|made| (source, made)));
        };
        if dry_run {
            self.dry_run(&policy, loaded, &source, importance.as_ref(), global)?;
            return Ok(None);
        }
        let tokenizer = loaded.tokenizer.as_ref();
        let (mut calibration, text) =
            self.text.calibrate(&source, self.calibration_tokens, tokenizer, global)?;
        let importance = match importance {
            None if policy.needs_importance() => Some(self.publish(loaded, &text, global)?),
            given => given,
        };
        if let Some(symmetries) = importance.as_ref().and_then(|i| i.symmetries.as_ref()) {
            source.rearrange(symmetries, &mut calibration);
        }
        let mut assignment = policy.assign(&source.dims, importance.as_ref())?;
        assignment.name.push_str(self.suffix);
        let progress = bar("quantizing", global);
        let mut encoded =
            source.encode_all(&assignment, &calibration, |share| set(&progress, share))?;
        progress.finish_and_clear();
        if source.steps.has(Step::Prefix) {
            let folded = Model::from_checkpoint(&source.folded);
            let limit = Some(FALLBACK_TOKENS);
            let held_out =
                self.text.tokens(Split::Valid, limit, Some(&folded), tokenizer, global)?;
            let bench = Bench::new(&source, &calibration, &held_out.tokens, self.text.window);
            (encoded, _) = self.refine(&bench, &text, encoded, global)?;
        }
        let recorded =
            self.recorded(&Model::from_checkpoint(&loaded.checkpoint), tokenizer, global)?;
        Ok(Some((source, QuantizedModel { assignment, encoded, mix: None, text, recorded })))
    }

    fn dry_run(
        &self,
        policy: &Policy,
        loaded: &Loaded,
        source: &Source,
        importance: Option<&Importance>,
        global: Global,
    ) -> Result<()> {
        let tokenizer = loaded.tokenizer.as_ref();
        // The header contains names and token counts of texts: the size depends on them, but not on
        // their statistics.
        let reference = Model::from_checkpoint(&loaded.checkpoint);
        let limit = Some(self.calibration_tokens);
        let text = self.text.tokens(Split::Train, limit, Some(&reference), tokenizer, global)?;
        let computed = match importance {
            None if policy.needs_importance() => Some(self.publish(loaded, &text, global)?),
            _ => None,
        };
        let assignment = policy.assign(&source.dims, importance.or(computed.as_ref()))?;
        let recorded = self.recorded(&reference, tokenizer, global)?;
        let origin = self.origin(&text, recorded.as_ref());
        preview(loaded, source, &assignment, &origin, global)
    }
}
