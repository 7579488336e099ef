//! Tensors as views of storages.
//!
//! A storage is a run of elements in a file; several tensors may share one, each with its own
//! offset, shape and strides. What a view describes is checked when its storage is read.

use super::element::{Element, Entry};

/// Where the bytes of a storage are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A part of the file.
    Span { start: u64, length: u64 },
    /// An entry of an archive.
    Entry(String),
}

/// A tensor as a strided view of a storage.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) element: Element,
    pub(super) place: Place,
    /// In elements, as the strides.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// The values are those of the storage times -1.
    pub(super) is_negated: bool,
    /// The values are the conjugates of those of the storage.
    pub(super) is_conjugated: bool,
}

/// A tensor of a file, with its data or the reason why they cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Name in the file: the keys of dictionaries and its own, joined by dots.
    pub(super) name: String,
    /// Index of the file.
    pub(super) file: usize,
    pub(super) view: Result<View, String>,
}

impl View {
    /// All of a storage, row-major.
    pub(super) fn whole(element: Element, place: Place, shape: Vec<usize>) -> Self {
        let mut strides = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        Self { element, place, offset: 0, shape, strides, is_negated: false, is_conjugated: false }
    }

    /// Number of elements; can exceed the storage's where strides are 0.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().fold(1, |count: usize, &extent| count.saturating_mul(extent))
    }

    /// Whether the elements are contiguous in row-major order.
    fn is_contiguous(&self) -> bool {
        let mut step = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&extent, &stride)| {
            let fits = extent == 1 || stride == step;
            step = usize::saturating_mul(step, extent);
            fits
        })
    }

    /// The elements in row-major order, for any strides.
    pub(super) fn gather(self, storage: &[u8]) -> Result<Entry, String> {
        let mut values = self.element.decode(&self.bytes(storage)?);
        if self.is_conjugated {
            values.conjugate();
        }
        if self.is_negated {
            values.negate();
        }
        Ok(Entry { shape: self.shape, values })
    }

    /// The bytes of the elements in row-major order: a part of the storage if they lie in it so.
    fn bytes<'a>(&self, storage: &'a [u8]) -> Result<std::borrow::Cow<'a, [u8]>, String> {
        let size = self.element.size();
        let (count, stored) = (self.count(), storage.len() / size);
        if count == 0 {
            return Ok(Default::default());
        }
        let last =
            self.shape.iter().zip(&self.strides).try_fold(self.offset, |at, (&n, &stride)| {
                at.checked_add(n.saturating_sub(1).checked_mul(stride)?)
            });
        if last.is_none_or(|last| last >= stored) {
            let shape = &self.shape;
            return Err(format!("{shape:?} does not fit its storage of {stored} elements"));
        }
        if self.is_contiguous() {
            return Ok(storage[self.offset * size..][..count * size].into());
        }
        let mut gathered = Vec::with_capacity(count * size);
        for index in 0..count {
            let (mut rest, mut position) = (index, self.offset);
            for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
                position += rest % extent * stride;
                rest /= extent;
            }
            gathered.extend_from_slice(&storage[position * size..][..size]);
        }
        Ok(gathered.into())
    }
}
