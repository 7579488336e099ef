//! Blobs inside a program.

use super::ALIGN;

/// What [`crate::include_blob!`] aligns bytes with.
#[doc(hidden)]
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<B: ?Sized>(pub B);

const _: () = assert!(align_of::<Aligned<u8>>() == ALIGN);

/// A file's bytes, as `include_bytes!` gives them, at a multiple of 16, where every kernel is fast.
/// The path is relative to the file that names it. The bytes are a constant expression:
/// [`crate::blob::Dimensions::of_blob`] sizes the memory of a session by them at compile time.
///
/// `include_bytes!` alone aligns nothing. A blob at an odd address gives the same logits by kernels
/// that load bytes instead of words, in ten times the instructions.
///
/// ```
/// static BLOB: &[u8] =
///     resnet_bk_core::include_blob!("../../tests/golden/v2/half-int4.rbk");
/// assert_eq!(BLOB.as_ptr().addr() % 16, 0);
/// ```
#[macro_export]
macro_rules! include_blob {
    ($path:expr $(,)?) => {{
        const BLOB: &$crate::blob::Aligned<[u8]> =
            &$crate::blob::Aligned(*::core::include_bytes!($path));
        &BLOB.0
    }};
}
