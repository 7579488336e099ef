//! Sequential bias correction: the biases of each matrix are corrected on inputs from the quantized
//! layers before it.
//!
//! Matrices are processed in order of inference, those that share an input together, so that each
//! compensates the remaining mean error of the layers before it. Their codes and scales stay.

use std::collections::BTreeSet;

use rayon::prelude::*;
use resnet_bk_core::blob::{Block, Dimensions, TensorId};

use super::Bench;
use crate::error::Result;
use crate::quantize::encode::Encoded;
use crate::quantize::input_shift::Prefix;
use crate::tensors::{is_linear, layer_name};

/// Corrects the biases of every matrix on `tokens` in windows of `window`. Returns the matrices and
/// their KL divergence in nats per token on the bench if that falls, otherwise `first` and its own.
pub fn refine(
    bench: &Bench<'_>,
    (tokens, window): (&[u32], usize),
    first: Vec<Encoded>,
    mut progress: impl FnMut(f64),
) -> Result<(Vec<Encoded>, f64)> {
    let source = bench.source();
    let dims = &source.dims;
    let before = {
        let mut before = bench.reference().clone();
        first.iter().enumerate().for_each(|(i, encoded)| bench.put(i, encoded, &mut before));
        bench.kl_of(&before)?
    };
    // Embeddings have no layers before them, and the inputs of a convolution are outputs of a
    // linear layer, whose biases correct their mean.
    let mut real = bench.reference().clone();
    for index in dims.tensors().filter(|&id| !is_linear(id)).map(|id| dims.index(id)) {
        bench.put(index, &first[index], &mut real);
    }
    let mut calibration = bench.calibration().clone();
    let mut again = first.clone();
    let mut prefix = Prefix::new(bench.reference(), &real, tokens, window);
    for l in 0..=dims.layers {
        for stage in stages(dims, l) {
            let layers: BTreeSet<String> = stage.iter().copied().map(layer_name).collect();
            for (layer, shift) in prefix.shifts(&real, &layers) {
                calibration.set_shift(&layer, shift);
            }
            let encoded: Vec<Encoded> = stage
                .par_iter()
                .map(|&id| source.correct_biases(id, &first[dims.index(id)], &calibration))
                .collect::<Result<_>>()?;
            for (&id, encoded) in stage.iter().zip(encoded) {
                let index = dims.index(id);
                bench.put(index, &encoded, &mut real);
                again[index] = encoded;
            }
        }
        if l < dims.layers {
            prefix.advance(&real);
        }
        progress(f64::from(l + 1) / f64::from(dims.layers + 1));
    }
    let after = bench.kl_of(&real)?;
    Ok(if after < before { (again, after) } else { (first, before) })
}

/// Linear layers of a block in order of inference, the output layer after the last block; layers
/// whose inputs do not depend on each other share a stage.
fn stages(dims: &Dimensions, l: u32) -> Vec<Vec<TensorId>> {
    let ups = || (0..dims.experts).map(move |e| TensorId::ExpertUp(l, e));
    let downs = || (0..dims.experts).map(move |e| TensorId::ExpertDown(l, e));
    let (v_proj, output_proj) = ([TensorId::VProj(l)], [TensorId::OutputProj(l)]);
    let gate = [TensorId::Gate(l)];
    let all = match dims.block {
        _ if l == dims.layers => vec![(0..dims.token_classes).map(TensorId::LmHead).collect()],
        Block::Resolvent => vec![
            v_proj.into_iter().chain(gate).chain(ups()).collect(),
            output_proj.into_iter().chain(downs()).collect(),
        ],
        Block::Gated { .. } => vec![
            vec![TensorId::InProj(l)],
            v_proj.into(),
            output_proj.into(),
            gate.into_iter().chain(ups()).collect(),
            downs().collect(),
        ],
    };
    let stored = |stage: Vec<TensorId>| -> Vec<TensorId> {
        stage.into_iter().filter(|&id| dims.contains(id)).collect()
    };
    all.into_iter().map(stored).filter(|stage| !stage.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use resnet_bk_core::blob::Precision;
    use resnet_bk_schema::Storage;

    use super::*;
    use crate::eval::sample::sample;
    use crate::quantize::Source;
    use crate::quantize::calibration::Calibration;
    use crate::quantize::tests::{random_checkpoint, random_gated};
    use crate::reference::Model;

    #[test]
    fn every_linear_layer_has_its_stage_and_nothing_gets_worse() {
        let gated = [(0, 1, 1), (24, 1, 1), (24, 3, 2)].map(|sizes| random_gated(3, sizes));
        for checkpoint in gated.into_iter().chain([random_checkpoint(3, 2)]) {
            let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
            let dims = &source.dims;
            let all = (0..=dims.layers).flat_map(|l| stages(dims, l).concat());
            let mut staged: Vec<usize> = all.map(|id| dims.index(id)).collect();
            staged.sort_unstable();
            let linear = dims.tensors().filter(|&id| is_linear(id)).map(|id| dims.index(id));
            assert!(linear.eq(staged));
            nothing_gets_worse(&source);
        }
    }

    /// Codes and scales do not depend on the shift of inputs: only biases have to be computed.
    #[test]
    fn corrected_biases_are_those_of_quantizing_again() {
        for checkpoint in [random_gated(5, (24, 1, 1)), random_checkpoint(5, 2)] {
            let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
            let model = Model::from_checkpoint(&source.folded);
            let tokens = sample(&model, 512, 1, |_| {}).unwrap();
            let before = Calibration::collect(&model, &tokens, 16, 1, |_| {}).unwrap();
            let mut after = before.clone();
            for id in source.dims.tensors().filter(|id| !id.is_embedding()) {
                let layer = layer_name(id);
                let cols = source.folded.tensors[&format!("{layer}.weight")].shape[1];
                after.set_shift(&layer, (0..cols).map(|j| (j as f64 * 0.7).sin()).collect());
            }
            let mut changed = 0;
            for id in source.dims.tensors().filter(|id| !id.is_embedding()) {
                for storage in [Storage::INT8, Storage::FP16, Storage::grouped(Precision::Int4, 16)]
                {
                    let first = source.encode(id, storage, &before).unwrap();
                    let again = source.encode(id, storage, &after).unwrap();
                    assert_eq!(source.correct_biases(id, &first, &after).unwrap(), again, "{id:?}");
                    changed += usize::from(first != again);
                }
            }
            assert!(changed > 0);
        }
    }

    fn nothing_gets_worse(source: &Source) {
        let model = Model::from_checkpoint(&source.folded);
        let tokens = sample(&model, 512, 1, |_| {}).unwrap();
        let calibration = Calibration::collect(&model, &tokens, 16, 1, |_| {}).unwrap();
        let bench = Bench::new(source, &calibration, &tokens, 16);
        for precision in [Precision::Int2, Precision::Int4] {
            let mix = vec![Storage::grouped(precision, 16); source.dims.tensor_count()];
            let before = bench.kl(&mix.iter().copied().map(Some).collect::<Vec<_>>()).unwrap();
            let first = bench.encode_mix(&mix).unwrap();
            let (again, kl) = refine(&bench, (&tokens, 16), first, |_| {}).unwrap();
            assert!(kl <= before, "{kl} {before}");
            let mut stored = bench.reference().clone();
            let put = |(index, encoded)| bench.put(index, encoded, &mut stored);
            again.iter().enumerate().for_each(put);
            assert_eq!(kl, bench.kl_of(&stored).unwrap());
        }
    }
}
