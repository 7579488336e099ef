//! A bump allocator over caller-provided memory: one slice of words, split into typed slices.

/// Splits typed slices off the front of a slice of words. The caller has checked the total size, so
/// every slice fits.
pub(crate) struct Arena<'a> {
    rest: &'a mut [u32],
}

impl<'a> Arena<'a> {
    pub(crate) fn new(words: &'a mut [u32]) -> Self {
        Self { rest: words }
    }

    pub(crate) fn words(&mut self, len: usize) -> &'a mut [u32] {
        let (slice, rest) = core::mem::take(&mut self.rest).split_at_mut(len);
        self.rest = rest;
        slice
    }

    /// `len` integers.
    pub(crate) fn integers(&mut self, len: usize) -> &'a mut [i32] {
        bytemuck::cast_slice_mut(self.words(len))
    }

    /// `len` codes, in ⌈len/2⌉ words.
    pub(crate) fn codes(&mut self, len: usize) -> &'a mut [i16] {
        &mut bytemuck::cast_slice_mut(self.words(code_words(len)))[..len]
    }
}

/// Sum of sizes. Saturates, so that a size beyond the address space is refused instead of wrapping
/// into one that seems to fit.
pub(crate) const fn total<const N: usize>(sizes: [usize; N]) -> usize {
    let (mut sum, mut i) = (0usize, 0);
    while i < N {
        sum = sum.saturating_add(sizes[i]);
        i += 1;
    }
    sum
}

/// Product of sizes; saturates like [`total`].
pub(crate) const fn product<const N: usize>(sizes: [usize; N]) -> usize {
    let (mut product, mut i) = (1usize, 0);
    while i < N {
        product = product.saturating_mul(sizes[i]);
        i += 1;
    }
    product
}

/// Zeroed words on the heap, or [`crate::Error::Memory`] with the number of words.
#[cfg(feature = "alloc")]
pub(crate) fn allocate(words: usize) -> Result<alloc::vec::Vec<u32>, crate::Error> {
    let mut memory = alloc::vec::Vec::new();
    reserve(&mut memory, words)?;
    memory.resize(words, 0);
    Ok(memory)
}

/// Reserves `count` more elements on the heap, or returns [`crate::Error::Memory`] with their size
/// in words.
#[cfg(feature = "alloc")]
pub(crate) fn reserve<T>(
    memory: &mut alloc::vec::Vec<T>,
    count: usize,
) -> Result<(), crate::Error> {
    let words = product([count, size_of::<T>().div_ceil(4)]);
    let refused = crate::Error::Memory { needed: words, given: 0 };
    memory.try_reserve_exact(count).map_err(|_| refused)
}

/// Words that `len` codes take.
pub(crate) const fn code_words(len: usize) -> usize {
    len.div_ceil(2)
}

impl<'a> Arena<'a> {
    /// `len` logits, in ⌈len/2⌉ words.
    pub(crate) fn halves(&mut self, len: usize) -> &'a mut [half::f16] {
        &mut bytemuck::cast_slice_mut(self.words(code_words(len)))[..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_saturate() {
        assert_eq!(total([1, 2, 3]), 6);
        assert_eq!(product([2, 3, 4]), 24);
        assert_eq!(total([usize::MAX, 1]), usize::MAX);
        assert_eq!(product([usize::MAX / 2, 3, 0]), 0);
        assert_eq!(product([usize::MAX / 2, 3]), usize::MAX);
        assert_eq!((code_words(3), code_words(usize::MAX)), (2, usize::MAX / 2 + 1));
    }
}
