//! Heap use of loading a blob: bounded by its length for any content, and a typed error if the heap
//! is exhausted.
#![cfg(feature = "std")]

#[path = "../suite/blob.rs"]
#[allow(dead_code)]
mod blob;
#[path = "../suite/random.rs"]
#[allow(dead_code)]
mod random;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use blob::{Mix, Recipe, small};
use resnet_bk_core::blob::{Dimensions, Precision, TensorId};
use resnet_bk_core::{Error, Model};

/// The system allocator with a byte counter and a limit.
struct Counted {
    now: AtomicUsize,
    most: AtomicUsize,
    limit: AtomicUsize,
}

#[global_allocator]
static HEAP: Counted = Counted {
    now: AtomicUsize::new(0),
    most: AtomicUsize::new(0),
    limit: AtomicUsize::new(usize::MAX),
};

// SAFETY: forwards to the system allocator. Counting does not allocate, and returning null is
// allowed.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = self.now.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if now > self.limit.load(Ordering::Relaxed) {
            self.now.fetch_sub(layout.size(), Ordering::Relaxed);
            return std::ptr::null_mut();
        }
        self.most.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Runs `work` with a heap of `room` more bytes; returns its result and its peak use in bytes.
fn counted<T>(room: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let before = HEAP.now.load(Ordering::Relaxed);
    HEAP.most.store(before, Ordering::Relaxed);
    HEAP.limit.store(before.saturating_add(room), Ordering::Relaxed);
    let result = work();
    HEAP.limit.store(usize::MAX, Ordering::Relaxed);
    (result, HEAP.most.load(Ordering::Relaxed) - before)
}

/// A model with all matrices in one precision, with dimensions modified by `change`.
fn uniform(precision: Precision, change: impl FnOnce(&mut Dimensions)) -> Vec<u8> {
    let mut dims = Dimensions {
        vocab: 256,
        width: 128,
        layers: 2,
        experts: 4,
        hidden: 256,
        potentials: 8,
        ..small().dims
    };
    change(&mut dims);
    Recipe { dims, mix: Mix::All(precision), ..small() }.build()
}

/// The number of second matrices of experts with a column-major copy, and of all of them.
fn copies(model: &Model<'_>) -> (usize, usize) {
    let dims = *model.dims();
    let all = (0..dims.layers).flat_map(|l| (0..dims.experts).map(move |e| (l, e)));
    let copied = |&(l, e): &(u32, u32)| model.matrix(TensorId::ExpertDown(l, e)).has_columns();
    (all.clone().filter(copied).count(), all.count())
}

/// A single test, since all share the heap.
#[test]
fn a_blob_takes_a_bounded_part_of_the_heap() {
    #[cfg(target_arch = "x86_64")]
    let by_columns = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let by_columns = cfg!(all(target_arch = "aarch64", target_endian = "little"));

    // Usual shapes get all copies.
    for precision in Precision::ALL {
        let blob = uniform(precision, |_| ());
        let (model, bytes) = counted(usize::MAX, || Model::from_bytes(&blob).unwrap());
        assert!(bytes <= 5 * blob.len(), "{precision:?}: {bytes} for {}", blob.len());
        let (copied, all) = copies(&model);
        let expected = if by_columns && precision != Precision::Fp16 { all } else { 0 };
        assert_eq!(copied, expected, "{precision:?}");
    }

    // A single row takes a whole cache line per column and exceeds the limit on copies.
    let blob = uniform(Precision::Int2, |dims| {
        (dims.vocab, dims.width, dims.hidden, dims.experts) = (4, 1, 1024, 16);
    });
    let (model, bytes) = counted(usize::MAX, || Model::from_bytes(&blob).unwrap());
    assert!(bytes <= 5 * blob.len(), "{bytes} for {}", blob.len());
    let (copied, all) = copies(&model);
    assert!(copied < all, "{copied} of {all}");

    // An exhausted heap is an error with the size of the failed allocation.
    let blob = uniform(Precision::Int8, |_| ());
    for room in [0, 100, 4_000, 100_000] {
        let (refused, _) = counted(room, || Model::from_bytes(&blob).map(|_| ()));
        match refused {
            Err(Error::Memory { needed, given: 0 }) => assert!(needed > 0),
            Ok(()) => assert!(room > 4_000 && !by_columns, "{room}"),
            Err(error) => panic!("{error}"),
        }
    }
}
