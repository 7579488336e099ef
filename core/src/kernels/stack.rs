//! Buffers on the stack that are written piece by piece, without clearing them first.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;

/// The elements of a buffer. (In the standard library since Rust 1.93.)
///
/// # Safety
///
/// Every element has been written.
#[inline(always)]
pub(super) const unsafe fn initialized<T>(elements: &[MaybeUninit<T>]) -> &[T] {
    // SAFETY: both types have the same layout, and the caller vouches that all elements are
    // initialized.
    unsafe { &*(core::ptr::from_ref(elements) as *const [T]) }
}
