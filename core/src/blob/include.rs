//! Blobs inside a program.

use super::ALIGN;

/// What [`crate::include_blob!`] makes its static of.
#[doc(hidden)]
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<B: ?Sized>(pub B);

const _: () = assert!(align_of::<Aligned<u8>>() == ALIGN);

/// A file's bytes, as `include_bytes!` gives them, at an address that kernels are fast at: a multiple
/// of 16. The path is taken from the file that names it.
///
/// `include_bytes!` alone puts bytes anywhere. A blob that lies at an odd address gives the same logits, but
/// by kernels that read bytes where others read words, at ten times the instructions.
///
/// ```ignore
/// static MODEL: &[u8] = resnet_bk_core::include_blob!("model.rbk");
/// ```
#[macro_export]
macro_rules! include_blob {
    ($path:expr $(,)?) => {{
        const BLOB: &$crate::blob::Aligned<[u8]> =
            &$crate::blob::Aligned(*::core::include_bytes!($path));
        &BLOB.0
    }};
}
