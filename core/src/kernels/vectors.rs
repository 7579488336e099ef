//! The right-hand side of a product.

#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
use crate::blob::Tensor;

/// Activation vectors that are multiplied by the same matrix.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// Codes, `[batch, cols]`: symmetric around zero or, behind a ReLU, not negative.
    pub codes: &'a [i16],
    /// One packed [`crate::numeric::Scale`] per vector: the value of its largest code.
    pub scales: &'a [u32],
}

/// Whether no code is negative. A largest code of 255 promises only that none is beyond it.
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
#[inline(always)]
pub(super) fn not_negative(codes: &[i16]) -> bool {
    codes.iter().fold(0, |all, code| all | code) >= 0
}

#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
impl Vectors<'_> {
    /// Calls `each` with codes, packed scale and outputs of every vector, until it returns false;
    /// returns whether it never did.
    ///
    /// # Panics
    ///
    /// If there are fewer codes or outputs than the vectors have.
    #[inline(always)]
    pub(super) fn one_by_one(
        self,
        matrix: &Tensor<'_>,
        out: &mut [i32],
        mut each: impl FnMut(&[i16], u32, &mut [i32]) -> bool,
    ) -> bool {
        self.scales.iter().enumerate().all(|(b, &scale)| {
            let codes = &self.codes[b * matrix.cols..][..matrix.cols];
            each(codes, scale, &mut out[b * matrix.rows..][..matrix.rows])
        })
    }
}
