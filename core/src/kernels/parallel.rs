//! Products on several threads, which hosts bring along.

use core::fmt;
use std::sync::Mutex;

use crate::blob::Tensor;

/// Threads that share the rows of large matrices when a token is computed. Results are the same
/// bits as without: every row is the sum of one thread.
///
/// For a thread pool that is awake between the products of a token, a few microseconds apart, such
/// as rayon's:
///
/// ```
/// # use resnet_bk_core::{Error, Model, Parallel, Session};
/// #[derive(Debug)]
/// struct Scoped;
///
/// impl Parallel for Scoped {
///     fn threads(&self) -> usize {
///         4
///     }
///
///     fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
///         std::thread::scope(|scope| {
///             for p in 1..parts {
///                 scope.spawn(move || part(p));
///             }
///             part(0);
///         });
///     }
/// }
/// # static BLOB: &[u8] =
/// #     resnet_bk_core::include_blob!("../../tests/golden/v3/half-int4.rbk");
///
/// let model = Model::from_bytes(BLOB)?;
/// let alone = Session::allocate(model.clone())?.step(3)?.to_vec();
/// let model = model.with_threads(std::sync::Arc::new(Scoped));
/// assert_eq!(Session::allocate(model)?.step(3)?, alone);
/// # Ok::<(), Error>(())
/// ```
pub trait Parallel: fmt::Debug + Send + Sync {
    /// How many parts work is divided into, at most 64.
    fn threads(&self) -> usize;

    /// Calls `part` once with every number below `parts`, in any order and at the same time, and
    /// returns when all calls have returned.
    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync));
}

/// Most parts of a product.
const MOST: usize = 64;
/// Rows of a part are a multiple of this, so that threads write to different lines of the cache.
const ROWS: usize = 32;
/// Bytes of codes below which threads would rather wait than work.
const LEAST: usize = 1 << 16;

/// Whether dividing a product of this matrix among threads pays.
pub(crate) fn pays(matrix: &Tensor<'_>) -> bool {
    matrix.codes.len() >= LEAST
}

/// Calls `part` on several threads with parts of the outputs and the rows where they begin.
pub(crate) fn by_rows<T: Send>(
    parallel: &dyn Parallel,
    out: &mut [T],
    part: impl Fn(usize, &mut [T]) + Sync,
) {
    let threads = parallel.threads().clamp(1, MOST);
    let rows = out.len().div_ceil(threads).next_multiple_of(ROWS);
    let parts: heapless::Vec<Mutex<&mut [T]>, MOST> =
        out.chunks_mut(rows).map(Mutex::new).collect();
    parallel.run(parts.len(), &|p| {
        // No lock is taken twice, so none is poisoned.
        if let Some(Ok(mut out)) = parts.get(p).map(Mutex::lock) {
            part(p * rows, &mut out);
        }
    });
}
