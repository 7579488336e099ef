//! FP16 kernel for Cortex-M cores with a single-precision FPU (M4F, M7F), which converts halves.
//!
//! Register j of a row is the contract's lane j. An FP16 weight (11 bits) times a code (8 bits) is
//! exact in f32, so a fused multiply-add rounds once where the contract rounds once.
#![allow(unsafe_code)]

use core::arch::asm;

use half::f16;

use super::matrix::Matrix;
use super::portable::{LANES, batch, bias, fp16_unit, sum_lanes};
use super::shapes::LONGEST_FP16 as LONGEST;
use super::vectors::Vectors;
use crate::numeric::f32_to_residual;

/// See [`super::kernel::Kernel::run`]; takes every vector. Outlined, for its own stack frame.
///
/// # Safety
///
/// [`super::shapes::fpu`] admits the matrix.
#[inline(never)]
pub(super) unsafe fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let len = 2 * matrix.cols;
    let mut floats = [0f32; LONGEST];
    let floats = &mut floats[..matrix.cols];
    for (b, codes, scale) in batch(x, matrix.cols) {
        floats.iter_mut().zip(codes).for_each(|(float, &code)| *float = code as f32);
        let unit = fp16_unit(matrix, scale);
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        let rows = matrix.codes.chunks(2 * len).zip(out.chunks_mut(2));
        for (two, (codes, out)) in rows.enumerate() {
            // An odd last row is paired with itself.
            let (a, b) = (&codes[..len], &codes[codes.len() - len..]);
            // SAFETY: a matrix holds codes of whole rows, so that both are a row of as many halves
            // as there are floats, at least one round; a row is a multiple of sixteen bytes, and
            // the first is aligned to words, which `vldm` needs.
            let lanes = unsafe { dot(a, b, floats) };
            for (j, (out, lanes)) in out.iter_mut().zip(lanes).enumerate() {
                let value = f32_to_residual(sum_lanes(lanes) * unit);
                *out = value.saturating_add(bias(matrix, 2 * two + j));
            }
        }
    }
    true
}

/// As [`super::portable::to_halves`]: a fixed-point number is rounded once to a float, and that
/// once to a half. Outlined to keep one copy.
#[inline(never)]
pub(super) fn to_halves(values: &[i32], halves: &mut [f16]) {
    let (values, rest) = values.as_chunks();
    let (halves, last) = halves.as_chunks_mut();
    for (values, halves) in values.iter().zip(halves) {
        eight_halves(values, halves);
    }
    if rest.is_empty() {
        return;
    }
    let (mut eight, mut converted) = ([0; 8], [f16::ZERO; 8]);
    eight[..rest.len()].copy_from_slice(rest);
    eight_halves(&eight, &mut converted);
    last.copy_from_slice(&converted[..rest.len()]);
}

#[inline(always)]
fn eight_halves(values: &[i32; 8], halves: &mut [f16; 8]) {
    // SAFETY: reads eight integers, which are aligned to words, and stores words to the sixteen
    // bytes of the halves, for which `str` needs no alignment. All clobbered registers are named.
    unsafe {
        asm!(
            "vldmia {values}, {{s0-s7}}",
            "vcvt.f32.s32 s0, s0, #16",
            "vcvt.f32.s32 s1, s1, #16",
            "vcvt.f32.s32 s2, s2, #16",
            "vcvt.f32.s32 s3, s3, #16",
            "vcvt.f32.s32 s4, s4, #16",
            "vcvt.f32.s32 s5, s5, #16",
            "vcvt.f32.s32 s6, s6, #16",
            "vcvt.f32.s32 s7, s7, #16",
            "vcvtb.f16.f32 s0, s0",
            "vcvtt.f16.f32 s0, s1",
            "vcvtb.f16.f32 s1, s2",
            "vcvtt.f16.f32 s1, s3",
            "vcvtb.f16.f32 s2, s4",
            "vcvtt.f16.f32 s2, s5",
            "vcvtb.f16.f32 s3, s6",
            "vcvtt.f16.f32 s3, s7",
            "vmov {a}, {b}, s0, s1",
            "str {a}, [{halves}]",
            "str {b}, [{halves}, #4]",
            "vmov {a}, {b}, s2, s3",
            "str {a}, [{halves}, #8]",
            "str {b}, [{halves}, #12]",
            values = in(reg) values.as_ptr(),
            halves = in(reg) halves.as_mut_ptr(),
            a = out(reg) _, b = out(reg) _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _,
            out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            options(nostack),
        );
    }
}

/// Lanes of two rows.
///
/// # Safety
///
/// Each row is aligned to words and has as many halves as there are floats, a nonzero multiple of
/// eight.
#[inline(always)]
unsafe fn dot(a: &[u8], b: &[u8], x: &[f32]) -> [[f32; LANES]; 2] {
    let rounds = x.len() / LANES;
    let mut lanes = [[0f32; LANES]; 2];
    // SAFETY: each round reads eight floats and eight halves of each row, which have that many per
    // round, at least one round; all are aligned to words, the rows by the caller's promise. Writes
    // the lanes and the named registers.
    unsafe {
        asm!(
            "vldmia {lanes}, {{s0-s15}}",
            "2:",
            "vldmia {x}!, {{s16-s23}}",
            "vldmia {a}!, {{s24-s27}}",
            "vcvtb.f32.f16 s28, s24",
            "vcvtt.f32.f16 s29, s24",
            "vcvtb.f32.f16 s30, s25",
            "vcvtt.f32.f16 s31, s25",
            "vfma.f32 s0, s28, s16",
            "vfma.f32 s1, s29, s17",
            "vfma.f32 s2, s30, s18",
            "vfma.f32 s3, s31, s19",
            "vcvtb.f32.f16 s28, s26",
            "vcvtt.f32.f16 s29, s26",
            "vcvtb.f32.f16 s30, s27",
            "vcvtt.f32.f16 s31, s27",
            "vfma.f32 s4, s28, s20",
            "vfma.f32 s5, s29, s21",
            "vfma.f32 s6, s30, s22",
            "vfma.f32 s7, s31, s23",
            "vldmia {b}!, {{s24-s27}}",
            "vcvtb.f32.f16 s28, s24",
            "vcvtt.f32.f16 s29, s24",
            "vcvtb.f32.f16 s30, s25",
            "vcvtt.f32.f16 s31, s25",
            "vfma.f32 s8, s28, s16",
            "vfma.f32 s9, s29, s17",
            "vfma.f32 s10, s30, s18",
            "vfma.f32 s11, s31, s19",
            "vcvtb.f32.f16 s28, s26",
            "vcvtt.f32.f16 s29, s26",
            "vcvtb.f32.f16 s30, s27",
            "vcvtt.f32.f16 s31, s27",
            "vfma.f32 s12, s28, s20",
            "vfma.f32 s13, s29, s21",
            "vfma.f32 s14, s30, s22",
            "vfma.f32 s15, s31, s23",
            "subs {rounds}, {rounds}, #1",
            "bne 2b",
            "vstmia {lanes}, {{s0-s15}}",
            lanes = in(reg) lanes.as_mut_ptr(),
            x = inout(reg) x.as_ptr() => _,
            a = inout(reg) a.as_ptr() => _,
            b = inout(reg) b.as_ptr() => _,
            rounds = inout(reg) rounds => _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _,
            out("s6") _, out("s7") _, out("s8") _, out("s9") _, out("s10") _, out("s11") _,
            out("s12") _, out("s13") _, out("s14") _, out("s15") _, out("s16") _, out("s17") _,
            out("s18") _, out("s19") _, out("s20") _, out("s21") _, out("s22") _, out("s23") _,
            out("s24") _, out("s25") _, out("s26") _, out("s27") _, out("s28") _, out("s29") _,
            out("s30") _, out("s31") _,
            options(nostack),
        );
    }
    lanes
}
