//! The FP32 model with a blob's dequantized matrices.

use resnet_bk_core::Model;

use super::Source;
use super::decode::{biases, weights};
use super::division::Selection;
use crate::tensors::layer_name;

/// The FP32 model with the dequantized matrices and biases of a blob: measures the loss of the
/// weights alone, activations staying FP32.
///
/// `source` is the checkpoint that the blob was made from. Its chain parameters are kept.
pub fn substitute(source: &Source, blob: &Model<'_>) -> crate::reference::Model {
    let mut model = crate::reference::Model::from_checkpoint(&source.folded);
    for id in blob.dims().tensors() {
        let tensor = blob.tensor(id);
        let (layer, part) = (layer_name(id), Selection::of(blob, id, &tensor));
        if let Some(own) = model.tensor_mut(&format!("{layer}.weight")) {
            part.put_matrix(&weights(id, &tensor), own);
        }
        if let Some(own) = model.tensor_mut(&format!("{layer}.bias")) {
            part.put_biases(&biases(&tensor), own);
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use resnet_bk_core::blob::Precision;

    use super::*;
    use crate::quantize::Origin;
    use crate::quantize::calibration::Calibration;
    use crate::quantize::tests::{random_checkpoint, random_gated};
    use crate::tensors::Assignment;
    use resnet_bk_schema::Storage;

    /// Encoding and decoding compute weights independently; `Source::encode` compares them.
    #[test]
    fn decoding_gives_what_encoding_chose() {
        for checkpoint in [random_checkpoint(2, 2), random_gated(2, (24, 3, 2))] {
            decoding_is_encoding(&Source::new(&checkpoint, [7; 32], 0, None).unwrap());
        }
    }

    fn decoding_is_encoding(source: &Source) {
        let storages = Precision::ALL.map(|precision| {
            // 24 divides no row: the last group is shorter.
            Storage { precision, group: if precision.is_grouped() { 24 } else { 0 } }
        });
        for storage in storages {
            let assignment = Assignment {
                name: "one".into(),
                storage: vec![storage; source.dims.tensor_count()],
                potentials_int8: false,
            };
            let calibration = Calibration::default();
            let encoded = source.encode_all(&assignment, &calibration, |_| {}).unwrap();
            let origin =
                Origin { calibration: "none", calibration_tokens: 0, seed: 0, measured: None };
            let blob = source.assemble(&encoded, &assignment, &origin).unwrap();
            let blob = Model::from_bytes(&blob).unwrap();
            let substituted = substitute(source, &blob);
            for (id, encoded) in source.dims.tensors().zip(&encoded) {
                let (tensor, alone) = (blob.tensor(id), encoded.tensor(&source.dims, id));
                let decoded = weights(id, &alone);
                assert_eq!(weights(id, &tensor), decoded, "{storage} {id:?}");
                assert_eq!(biases(&tensor), biases(&alone), "{storage} {id:?}");
                let whole = substituted.tensor(&format!("{}.weight", layer_name(id))).unwrap();
                let part = source.part(id).of_matrix(whole, tensor.cols);
                assert_eq!(*part, decoded, "{storage} {id:?}");
            }
        }
    }
}
