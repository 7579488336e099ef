//! Products whose rows are shared among threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec;

use super::matrix::{Batch, Random, Section};
use crate::blob::Precision;
use crate::kernels::{Parallel, Prepared, matmul, portable};

/// So many threads, started for every product; counts the parts.
#[derive(Debug)]
struct Threads {
    count: usize,
    parts: AtomicUsize,
}

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.count
    }

    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        self.parts.fetch_add(parts, Ordering::Relaxed);
        std::thread::scope(|scope| (0..parts).for_each(|p| drop(scope.spawn(move || part(p)))));
    }
}

/// Large matrices give the bits of one thread for any number of threads and of rows, and small
/// ones and sparse vectors wait for nobody.
#[test]
fn threads_change_nothing() {
    let mut random = Random(7);
    let storages = [(Precision::Int4, 32), (Precision::Int8, 0), (Precision::Fp16, 0)];
    for (precision, group) in storages {
        for (rows, cols, count, parts) in [
            (1024, 384, 1, 1),
            (1100, 384, 2, 2),
            (1001, 512, 7, 7),
            (1024, 384, 99, 32),
            (64, 64, 4, 0),
        ] {
            let section = Section { max_code: 255, ..Section::new(precision, group, rows, cols) };
            let section = section.fill(true, || random.next() as u8 & 0x3f);
            let mut batch = Batch::random(&section, 1, -10, &mut random);
            let tensor = section.tensor();
            let prepared = Prepared::new(tensor, usize::MAX).unwrap();
            for sparse in [false, true] {
                if sparse {
                    batch.codes[cols / 8..].fill(0);
                } else {
                    batch.codes.iter_mut().for_each(|code| *code = (*code).abs().max(1));
                }
                let threads = Threads { count, parts: AtomicUsize::new(0) };
                let mut expected = vec![0; rows];
                portable::matmul(&tensor, batch.vectors(), &mut expected);
                let mut out = vec![i32::MIN; rows];
                let matrix = prepared.matrix().on_threads(Some(&threads));
                matmul(&matrix, batch.vectors(), &mut out);
                assert_eq!(out, expected, "{precision:?} {rows} {count} {sparse}");
                let parts = if sparse && matrix.has_columns() { 0 } else { parts };
                assert_eq!(threads.parts.into_inner(), parts, "{precision:?} {rows} {count}");
            }
        }
    }
}
