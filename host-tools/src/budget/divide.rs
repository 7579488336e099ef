//! Divides a model into parts that a budget can store differently: token classes, and pruned hidden
//! units.

use rayon::prelude::*;
use resnet_bk_core::blob::TensorId;
use resnet_bk_schema::Step;

use super::Bench;
use super::pruning::needed;
use super::token_classes::classes;
use crate::error::Result;
use crate::quantize::calibration::Calibration;
use crate::quantize::division::Division;
use crate::tensors::layer_name;
use crate::threads::Progress;

/// Chooses token classes and pruned hidden units, as far as the steps allow.
pub fn divide(
    bench: &Bench<'_>,
    calibration: &Calibration,
    progress: impl Fn(f64) + Sync,
) -> Result<Division> {
    let source = bench.source();
    let classes =
        if source.steps.has(Step::Classes) { classes(source, calibration) } else { String::new() };
    let experts: Vec<(u32, u32)> =
        source.experts().filter(|_| source.steps.has(Step::Prune)).collect();
    let progress = Progress::new(experts.len(), progress);
    let kept: Vec<Option<(String, usize)>> = experts
        .par_iter()
        .map(|&(l, e)| {
            let kept = needed(bench, calibration, TensorId::ExpertDown(l, e))?;
            progress.add(1);
            Ok(kept.map(|kept| (layer_name(TensorId::ExpertDown(l, e)), kept)))
        })
        .collect::<Result<_>>()?;
    Ok(Division { classes, kept: kept.into_iter().flatten().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::pruning::UNITS;
    use crate::checkpoint::ModelConfig;
    use crate::eval::sample::sample;
    use crate::quantize::Source;
    use crate::quantize::tests::{random_checkpoint, random_checkpoint_of};
    use crate::reference::Model;

    #[test]
    fn frequent_tokens_come_first_and_dead_units_go() {
        let hidden = 2 * UNITS;
        let config = ModelConfig { hidden, ..random_checkpoint(3, 2).config };
        let mut checkpoint = random_checkpoint_of(config, 3);
        let up = "blocks.0.bk_layer.moe_ffn.experts.0.0.bias";
        checkpoint.data_mut(up)[..UNITS + 5].fill(-1e3);
        // Tokens 0 to 3 are common.
        checkpoint.data_mut("lm_head.bias")[..4].fill(5.0);
        let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        let model = Model::from_checkpoint(&source.folded);
        let tokens = sample(&model, 1024, 1, |_| {}).unwrap();
        let calibration = Calibration::collect(&model, &tokens, 16, 1, |_| {}).unwrap();
        let bench = Bench::new(&source, &calibration, &tokens[..512], 16);
        let division = divide(&bench, &calibration, |_| {}).unwrap();
        assert_eq!(division.classes.len(), checkpoint.config.vocab);
        assert!(division.classes.starts_with("0000"), "{}", division.classes);
        let down = layer_name(TensorId::ExpertDown(0, 0));
        assert_eq!(division.kept.get(&down), Some(&UNITS), "{:?}", division.kept);
        let mut divided = source.clone();
        divided.divide(&division, &mut calibration.clone()).unwrap();
        assert!(divided.dims.token_classes > 1);
    }
}
