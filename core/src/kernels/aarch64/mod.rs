//! The kernels for 64-bit Arm hosts: with NEON, which all of them have, and with the dot products
//! of Armv8.2 where the processor has them, chosen at run time. For little-endian targets: bytes
//! are used as wider lanes.
//!
//! Modules in the order of their imports: `dot`, `requantize`; the kernels of the table (`single`,
//! `panels`).
#![allow(unsafe_code)]

mod dot;
pub(super) mod panels;
mod requantize;
pub(super) mod single;

/// Whether this processor has SDOT and UDOT.
#[inline(always)]
pub(super) fn has_dot_products() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}
