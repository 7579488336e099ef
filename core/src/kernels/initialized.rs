//! Memory on the stack that is written before it is read, and never as a whole.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;

/// Elements all of which were written. (The standard library has it since Rust 1.93.)
///
/// # Safety
///
/// They were.
#[inline(always)]
pub(super) const unsafe fn initialized<T>(elements: &[MaybeUninit<T>]) -> &[T] {
    // SAFETY: the two have the same layout, and every element is one, as the caller says.
    unsafe { &*(core::ptr::from_ref(elements) as *const [T]) }
}
