//! Blobs embedded in a program.

use super::ALIGN;

/// Alignment wrapper of [`crate::include_blob!`].
#[doc(hidden)]
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<B: ?Sized>(pub B);

const _: () = assert!(align_of::<Aligned<u8>>() == ALIGN);

/// `include_bytes!` with 16-byte alignment, which the fast kernels need. The path is relative to
/// the source file. The result is a constant expression, from which
/// [`crate::blob::Dimensions::of_blob`] sizes the session memory at compile time.
///
/// Plain `include_bytes!` does not align. A misaligned blob gives the same logits, but falls back
/// to kernels with byte loads and about ten times the instructions.
///
/// ```
/// static BLOB: &[u8] =
///     resnet_bk_core::include_blob!("../../tests/golden/v3/half-int4.rbk");
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
