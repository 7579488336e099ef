//! The memory of a gated chain: s_t = s_{t−1} + γ_t (a_t − s_{t−1}), γ_t = η / (η + Im G_t).
//!
//! The memory has more fraction bits than the residual stream, since an update below half a unit
//! would be lost for ever: with 23 bits the error of a memory stays below 2^−24 / γ, γ being its
//! smallest gate, however long the text (`docs/numerics.md`, 15).

use crate::numeric::{RESIDUAL_FRAC, high_product, reciprocal_mantissa, silu};

/// Fraction bits of the memory.
pub const MEMORY_FRAC: u32 = 23;
/// Inputs and output gates are clamped to [−64, 64), so that twice a difference fits 32 bits.
const LIMIT: i32 = 64 << RESIDUAL_FRAC;

/// Clamps to [−64, 64): one instruction on Arm.
#[inline(always)]
fn clamp(value: i32) -> i32 {
    value.clamp(-LIMIT, LIMIT - 1)
}

/// γ = η / (η + Im G) with 31 fraction bits, too small by at most two units. Both arguments are in
/// the chain's format, η positive, Im G not negative, their sum below 2^31: as for every admitted
/// chain ([`crate::blob::ChainFormat::admits`]).
#[inline(always)]
pub fn gate(eta: i32, imaginary: i32) -> i32 {
    let sum = eta as u32 + imaginary as u32;
    let zeros = sum.leading_zeros();
    // 1 / sum = reciprocal · 2^(zeros − 63). The product with η ≤ sum is below 2^63.
    let reciprocal = reciprocal_mantissa(sum << zeros) as u64;
    ((eta as u64 * reciprocal) >> (32 - zeros)) as i32
}

/// The memory after an input `a` in Q15.16: between the old memory and the clamped input, so never
/// larger than the largest input.
#[inline(always)]
pub fn update(memory: i32, gate: i32, a: i32) -> i32 {
    let target = clamp(a) << (MEMORY_FRAC - RESIDUAL_FRAC);
    memory + high_product((target - memory) << 1, gate)
}

/// One position of a memory.
///
/// Shapes: `gates` is `[K]`, `inputs` (Q15.16) and `memory` are `[C]`; channel i has the gate
/// ⌊i·K/C⌋.
// Outlined on devices, as `convolution::step`.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn step(gates: &[i32], inputs: &[i32], memory: &mut [i32]) {
    let shared = (memory.len() / gates.len().max(1)).max(1);
    let channels = inputs.chunks_exact(shared).zip(memory.chunks_exact_mut(shared));
    for ((own_inputs, own), &gate) in channels.zip(gates) {
        // Four at a time: small cores spend as much on a loop as on a channel.
        let (fours, rest) = own.as_chunks_mut::<4>();
        let (inputs, rest_of_inputs) = own_inputs.as_chunks::<4>();
        let next = |memory, input| update(memory, gate, input);
        for (memory, &[a, b, c, d]) in fours.iter_mut().zip(inputs) {
            let [s, t, u, v] = *memory;
            *memory = [next(s, a), next(t, b), next(u, c), next(v, d)];
        }
        for (memory, &input) in rest.iter_mut().zip(rest_of_inputs) {
            *memory = next(*memory, input);
        }
    }
}

/// The memory through its output gates: s ⊙ SiLU(z), the latter clamped below 64.
///
/// Shapes: `memory`, `z` and `out` are `[C]`, the last two in Q15.16.
// Outlined on devices, for registers of its own.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn read(memory: &[i32], z: &[i32], out: &mut [i32]) {
    // SiLU is far above −64; a clamp on both sides is one instruction where there is one for it.
    let limited = |y: i32| if cfg!(thumb1) { y.min(LIMIT - 1) } else { clamp(y) };
    let read = |memory, z| high_product(memory, limited(silu(z)) << (32 - MEMORY_FRAC));
    // Two at a time, as in `step`.
    let (pairs, rest) = out.as_chunks_mut::<2>();
    let ((memory, last_memory), (z, last_z)) = (memory.as_chunks::<2>(), z.as_chunks::<2>());
    for ((out, &[s, t]), &[z, y]) in pairs.iter_mut().zip(memory).zip(z) {
        *out = [read(s, z), read(t, y)];
    }
    for ((out, &memory), &z) in rest.iter_mut().zip(last_memory).zip(last_z) {
        *out = read(memory, z);
    }
}

/// Whether a memory can be: no input is larger.
pub(crate) fn admits(memory: i32) -> bool {
    let target = LIMIT << (MEMORY_FRAC - RESIDUAL_FRAC);
    (-target..target).contains(&memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNIT: f64 = 1.0 / (1u64 << MEMORY_FRAC) as f64;

    proptest! {
        #[test]
        fn gates_are_at_most_two_units_too_small(
            eta in 1i32..1 << 30, im in 0i32..1 << 30, drop in 0u32..30, less in 0u32..30,
        ) {
            let (eta, im) = ((eta >> drop).max(1), im >> less);
            let exact = eta as f64 / (eta as f64 + im as f64) * (1u64 << 31) as f64;
            let found = gate(eta, im) as f64;
            prop_assert!(found <= exact && found > exact - 2.0, "{} {}", found, exact);
        }

        #[test]
        fn a_memory_stays_between_what_it_was_and_its_input(
            memory in -(1i32 << 29)..1 << 29, gate in 0i32..=i32::MAX, a in any::<i32>(),
        ) {
            let after = update(memory, gate, a);
            let target = clamp(a) << 7;
            prop_assert!(memory.min(target) <= after && after <= memory.max(target));
        }

        #[test]
        fn reading_is_a_product(memory in -(1i32 << 29)..1 << 29, z in any::<i32>()) {
            let mut out = [0];
            read(&[memory], &[z], &mut out);
            let exact = memory as f64 * UNIT * clamp(silu(z)) as f64;
            prop_assert!((out[0] as f64 - exact).abs() <= 0.51);
        }
    }

    #[test]
    fn gates_at_the_edges() {
        assert_eq!(gate(1, 0), i32::MAX);
        assert_eq!(gate((1 << 30) - 1, 0), i32::MAX);
        assert_eq!(gate(1, (1 << 30) - 1), 1);
        assert_eq!(gate(1 << 12, 1 << 12), (1 << 30) - 1);
    }

    /// A million positions with gates down to 2^−12, against f64: the error stays below the proven
    /// bound, and an input that stays is reached.
    #[test]
    fn a_long_stream_keeps_within_its_bound() {
        let (mut memory, mut exact, mut random) = (0i32, 0.0f64, 1u64);
        let mut worst = 0.0f64;
        let smallest = (1i64 << 31 >> 12) as f64 / (1u64 << 31) as f64;
        for _ in 0..1_000_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Seldom a large gate: mostly the smallest, which forgets errors most slowly.
            let gate = if random >> 60 == 0 { (random >> 33) as i32 } else { 1 << 19 };
            let gate = gate.max(1 << 19);
            let a = (random >> 20) as i32 >> 10;
            memory = update(memory, gate, a);
            let gate = gate as f64 / (1u64 << 31) as f64;
            exact += gate * (clamp(a) as f64 / 65536.0 - exact);
            worst = worst.max((memory as f64 * UNIT - exact).abs());
        }
        assert!(worst <= UNIT / 2.0 / smallest, "{worst}");
        for _ in 0..100_000 {
            memory = update(memory, 1 << 19, 3 << 16);
        }
        assert!((memory as f64 * UNIT - 3.0).abs() <= UNIT / 2.0 / smallest);
    }
}
