//! Kernel selection, and the reported reasons for fallbacks.

use resnet_bk_core::blob::{Block, Dimensions, Precision, TensorId};
use resnet_bk_core::kernels::{Choice, Core, Reason};
use resnet_bk_core::{Model, include_blob};

use crate::blob::{Mix, Recipe, small};
use crate::inference::{stream, tokens};

/// Bytes at an address of `by` modulo 16.
struct Shifted {
    memory: Vec<u128>,
    by: usize,
    len: usize,
}

impl Shifted {
    fn new(bytes: &[u8], by: usize) -> Self {
        let mut memory = vec![0u128; bytes.len() / 16 + 2];
        bytemuck::cast_slice_mut::<_, u8>(&mut memory)[by..][..bytes.len()].copy_from_slice(bytes);
        Self { memory, by, len: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.memory)[self.by..][..self.len]
    }
}

/// A model whose matrices all have an optimized kernel on every core: rows of 64 or 128 inputs.
fn regular(precision: Precision) -> Vec<u8> {
    let (width, hidden, potentials) = (64, 128, 32);
    let dims = Dimensions { width, hidden, potentials, ..small().dims };
    Recipe { dims, mix: Mix::All(precision), ..small() }.build()
}

fn reasons(model: &Model<'_>, core: Core) -> Vec<Reason> {
    model.kernels_on(core).filter_map(|(_, choice)| choice.fallback).collect()
}

#[test]
fn an_aligned_blob_of_regular_shapes_has_fast_kernels() {
    for precision in Precision::ALL.into_iter().filter(|&p| p != Precision::Fp16) {
        let blob = Shifted::new(&regular(precision), 0);
        let model = Model::from_bytes(blob.bytes()).unwrap();
        for core in Core::ALL {
            assert_eq!(reasons(&model, core), [], "{precision:?} on {}", core.name());
        }
        let mut choices = model.kernels_on(Core::CortexM4F);
        let row = Choice { kernel: "a row", fallback: None };
        assert_eq!(choices.next(), Some((TensorId::TokenEmbedding(0), row)));
        assert_eq!(choices.count(), model.dims().tensor_count() - 1);
    }
}

/// A gated chain whose taps are not INT8 says so.
#[test]
fn a_convolution_has_a_fast_kernel_in_int8_only() {
    for (precision, slow) in [(Precision::Int8, 0), (Precision::Int4, 2), (Precision::Fp16, 2)] {
        let block = Block::Gated { channels: 64 };
        let dims = Dimensions { block, width: 64, hidden: 128, potentials: 32, ..small().dims };
        let blob = Recipe { dims, mix: Mix::All(precision), ..small() }.build();
        let model = Model::from_bytes(&blob).unwrap();
        let taps = |(id, choice): (TensorId, Choice)| match id {
            TensorId::Convolution(_) => choice.fallback,
            _ => None,
        };
        let reasons: Vec<Reason> = model.kernels_on(Core::CortexM4F).filter_map(taps).collect();
        assert_eq!(reasons, vec![Reason::Storage; slow]);
    }
}

/// Misalignment changes the kernels, not the logits.
#[test]
fn a_blob_off_alignment_says_so_and_gives_the_same_logits() {
    for precision in [Precision::Int4, Precision::Int8, Precision::Int3, Precision::Fp16] {
        let blob = regular(precision);
        let logits = |by| {
            let blob = Shifted::new(&blob, by);
            let model = Model::from_bytes(blob.bytes()).unwrap();
            stream(&model, &tokens(8, model.dims().vocab, 3))
        };
        let expected = logits(0);
        for by in [1, 2, 3, 4, 8, 15] {
            assert_eq!(logits(by), expected, "{precision:?}, {by} bytes off");
            let blob = Shifted::new(&blob, by);
            let model = Model::from_bytes(blob.bytes()).unwrap();
            let reasons = reasons(&model, Core::CortexM4F);
            let linear = model.dims().tensors().filter(|id| !id.is_embedding()).count();
            let expected = if by % 4 == 0 { vec![] } else { vec![Reason::Alignment; linear] };
            assert_eq!(reasons, expected, "{precision:?}, {by} bytes off");
        }
    }
}

#[test]
fn shapes_and_storages_without_a_kernel_are_told_apart() {
    let off_by = |by: usize, blob: &[u8], core| {
        let blob = Shifted::new(blob, by);
        let mut reasons = reasons(&Model::from_bytes(blob.bytes()).unwrap(), core);
        reasons.dedup();
        reasons
    };
    // Without FP16 conversion in hardware, alignment does not matter.
    let halves = regular(Precision::Fp16);
    for core in [Core::CortexM4, Core::CortexM3, Core::CortexM0, Core::Riscv32Im] {
        assert_eq!(off_by(1, &halves, core), [Reason::Storage], "{}", core.name());
    }
    // Rows of 16, 24 and 6 inputs.
    let odd = Recipe { mix: Mix::All(Precision::Int8), ..small() }.build();
    for core in Core::ALL {
        assert_eq!(off_by(1, &odd, core), [Reason::Shape], "{}", core.name());
    }
}

/// `include_blob!` aligns to 16 bytes, as a static and as a constant.
#[test]
fn included_blobs_are_aligned() {
    static STATIC: &[u8] = include_blob!("../golden/v3/half-int4.rbk");
    const CONSTANT: &[u8] = include_blob!(concat!("../golden/v3/", "half-mixed.rbk"),);
    for blob in [STATIC, CONSTANT] {
        assert!(blob.as_ptr().cast::<u128>().is_aligned());
        Model::from_bytes(blob).unwrap();
    }
    assert_eq!(STATIC, include_bytes!("../golden/v3/half-int4.rbk"));
}

/// On this processor, too, every matrix but odd ones reports an optimized kernel.
#[test]
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn this_processor_reports_its_kernels() {
    let blob = regular(Precision::Int4);
    let model = Model::from_bytes(&blob).unwrap();
    for (id, choice) in model.kernels() {
        // Gates have fewer rows than a kernel's tile.
        let few = matches!(id, TensorId::Gate(_));
        let known = choice.fallback.is_none() || few && choice.fallback == Some(Reason::Shape);
        let without_avx2 = choice.fallback == Some(Reason::Storage);
        assert!(known || without_avx2, "{id:?}: {choice:?}");
    }
}
