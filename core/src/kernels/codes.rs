//! Codes of scaled elements: the last step of quantizing activations.

/// How a code is stored.
pub(crate) trait Code: Copy {
    /// Stores a code.
    fn new(code: i16) -> Self;

    /// Writes the codes of all elements; false, having written nothing, where the processor has no
    /// loop of its own for them.
    fn write(x: &[i32], shift: u32, reciprocal: u32, codes: &mut [Self]) -> bool;
}

impl Code for i16 {
    #[inline(always)]
    fn new(code: i16) -> Self {
        code
    }

    #[inline(always)]
    fn write(_x: &[i32], _shift: u32, _reciprocal: u32, _codes: &mut [Self]) -> bool {
        #[cfg(arm_dsp)]
        return super::dsp::codes::write(_x, _shift, _reciprocal, _codes);
        #[cfg(not(arm_dsp))]
        return false;
    }
}

/// For codes in ±127.
impl Code for i8 {
    #[inline(always)]
    fn new(code: i16) -> Self {
        code as Self
    }

    #[inline(always)]
    fn write(_x: &[i32], _shift: u32, _reciprocal: u32, _codes: &mut [Self]) -> bool {
        #[cfg(arm_dsp)]
        return super::dsp::codes::write_narrow(_x, _shift, _reciprocal, _codes);
        #[cfg(not(arm_dsp))]
        return false;
    }
}

/// The code of an element: `scaled · reciprocal`, below 2^30 in magnitude, with 22 fraction bits.
#[inline(always)]
pub(crate) fn code(scaled: i32, reciprocal: u32) -> i16 {
    ((scaled.wrapping_mul(reciprocal as i32) + (1 << 21)) >> 22) as i16
}

/// Writes `code(x >> shift, reciprocal)` of every element.
///
/// Shapes: `x` and `codes` are `[n]`.
#[inline(always)]
pub(crate) fn write<C: Code>(x: &[i32], shift: u32, reciprocal: u32, codes: &mut [C]) {
    if !C::write(x, shift, reciprocal, codes) {
        write_with(x, codes, |x| C::new(code(x >> shift, reciprocal)));
    }
}

/// Writes `code((x − mean) >> shift, reciprocal)` of every element, the difference saturating;
/// returns the sum of the squares of what `code` was given, which is at most 2^15 in magnitude.
///
/// Shapes: `x` and `codes` are `[n]`.
#[inline(always)]
pub(crate) fn write_centered(
    x: &[i32],
    mean: i32,
    shift: u32,
    reciprocal: u32,
    codes: &mut [i16],
) -> i64 {
    #[cfg(arm_dsp)]
    if let Some(squares) = super::dsp::codes::write_centered(x, mean, shift, reciprocal, codes) {
        return squares;
    }
    let mut squares = 0i64;
    write_with(x, codes, |x| {
        let scaled = x.saturating_sub(mean) >> shift;
        squares += square(scaled);
        code(scaled, reciprocal)
    });
    squares
}

/// Square of a number of at most 2^15 in magnitude. A 32-bit product gives hosts more SIMD lanes
/// and is all that some cores have; others have a 64-bit multiply-accumulate.
#[inline(always)]
fn square(scaled: i32) -> i64 {
    if cfg!(any(feature = "std", thumb1)) {
        scaled.wrapping_mul(scaled) as i64
    } else {
        scaled as i64 * scaled as i64
    }
}

/// Writes the code of every element.
#[inline(always)]
pub(crate) fn write_with<C>(x: &[i32], codes: &mut [C], mut code: impl FnMut(i32) -> C) {
    let (fours, rest) = x.as_chunks::<4>();
    if cfg!(feature = "std") || !rest.is_empty() || codes.len() != x.len() {
        codes.iter_mut().zip(x).for_each(|(to, &x)| *to = code(x));
    } else {
        // Four at a time: small cores spend as much on a loop as on an element.
        for (to, &[a, b, c, d]) in codes.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
            *to = [code(a), code(b), code(c), code(d)];
        }
    }
}
