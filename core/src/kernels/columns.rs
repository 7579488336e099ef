//! Sparse vectors on hosts: behind a ReLU nineteen codes of twenty are zeros, and of a matrix
//! stored by columns only the columns of the others are read. The products are those of `x86_64`
//! and `aarch64`.

use alloc::vec::Vec;

use super::batched::LONGEST;
use super::choice::Reason;
use super::matrix::Column;
use super::portable::{bias, int8_code};
use crate::blob::{Precision, Tensor, pair_u16};
use crate::error::Error;
use crate::memory::reserve;

/// Lines before the weights: mantissas and biases, two lines of sixteen words each.
pub(super) const HEAD: usize = 4;
/// Rows per cache line.
pub(super) const LINE: usize = 32;
/// Lines whose sums stay in registers.
pub(super) const LINES: usize = 2;
/// Up to so many vectors, decoding rows for all of them does not pay.
const FEW: usize = 16;
/// Rows of so few columns take longer to begin and to end than to multiply.
const NARROW: usize = 16;

/// A nonzero code.
pub(super) struct Nonzero {
    pub(super) code: i16,
    /// Index of its column's first line.
    pub(super) at: u32,
}

/// The nonzero codes of a vector; there is room for all.
pub(super) type Nonzeros = heapless::Vec<Nonzero, LONGEST>;

/// Whether a copy by columns helps: of matrices that follow a ReLU, and of those with few columns
/// whose rows fill lines.
pub(super) fn helps(matrix: &Tensor<'_>) -> bool {
    matrix.max_code > 127 || matrix.cols <= NARROW && matrix.rows >= LINE
}

/// A matrix of integers that is not empty and whose rows are not too long.
pub(super) fn admits(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if matrix.precision == Precision::Fp16 {
        return Err(Reason::Storage);
    }
    if matrix.codes.is_empty() || matrix.cols > LONGEST { Err(Reason::Shape) } else { Ok(()) }
}

/// The weights by columns, `[4 + cols, ⌈rows / 32⌉]` lines, for a matrix that [`admits`] takes;
/// empty for others and if they exceed `room` bytes.
///
/// The first four lines of 32 rows are words of 32 bits: mantissas of the first sixteen rows, of
/// the others, their biases in Q15.16. The columns follow: weights times their groups' scales, of
/// which `decode` decodes a row's, given its scales and codes; of sixteen rows, row j is at
/// `place(j)`.
#[inline(always)]
pub(super) fn copy(
    matrix: &Tensor<'_>,
    room: usize,
    decode: impl Fn(&[u8], &[u8], &mut [i16]),
    place: impl Fn(usize) -> usize,
) -> Result<Vec<Column>, Error> {
    let Tensor { precision, rows, cols, .. } = *matrix;
    if admits(matrix).is_err() {
        return Ok(Vec::new());
    }
    let lines = rows.div_ceil(LINE);
    let count = (HEAD + cols) * lines;
    if count > room / size_of::<Column>() {
        return Ok(Vec::new());
    }
    let mut columns = Vec::new();
    reserve(&mut columns, count)?;
    columns.resize(count, Column([[0; 16]; 2]));
    let layout = matrix.layout();
    let mut weights = [0; LONGEST];
    for r in 0..rows {
        let codes = &matrix.codes[r * layout.row_codes..][..layout.row_codes];
        let scales = &matrix.scales[r * layout.row_scales..][..layout.row_scales];
        if precision == Precision::Int8 {
            for (c, (weight, &code)) in weights.iter_mut().zip(codes).enumerate() {
                *weight = int8_code(code, c) as i16;
            }
        } else {
            decode(scales, codes, &mut weights[..cols]);
        }
        let (line, half, j) = (r / LINE, r % LINE / 16, r % 16);
        for (head, word) in [pair_u16(scales, 0) as i32, bias(matrix, r)].into_iter().enumerate() {
            let Column(words) = &mut columns[(2 * head + half) * lines + line];
            words.as_flattened_mut().as_chunks_mut().0[j] = [word as i16, (word >> 16) as i16];
        }
        let place = place(j);
        let columns = columns[HEAD * lines..].chunks_exact_mut(lines);
        for (column, &weight) in columns.zip(&weights) {
            column[line].0[half][place] = weight;
        }
    }
    Ok(columns)
}

/// Whether so many zeros of `all` codes make reading columns faster, as measured with AVX2: two
/// thirds for a single vector, five sixths for many, which share the decoding otherwise. A few
/// columns always are.
#[inline(always)]
pub(super) fn pays(matrix: &Tensor<'_>, zeros: usize, all: usize, vectors: usize) -> bool {
    let sparse = if vectors < FEW { 3 * zeros >= 2 * all } else { 6 * zeros >= 5 * all };
    sparse || matrix.cols <= NARROW
}

/// Calls `several` or `single` with the first line and the outputs of all lines; rows beyond the
/// last are left out.
#[inline(always)]
pub(super) fn each_line(
    out: &mut [i32],
    mut several: impl FnMut(usize, &mut [[i32; LINE]; LINES]),
    mut single: impl FnMut(usize, &mut [[i32; LINE]; 1]),
) {
    let (whole, rest) = out.as_chunks_mut::<LINE>();
    let (twos, ones) = whole.as_chunks_mut::<LINES>();
    let mut first = 0;
    for out in twos {
        several(first, out);
        first += LINES;
    }
    for out in ones.as_chunks_mut::<1>().0 {
        single(first, out);
        first += 1;
    }
    if !rest.is_empty() {
        let mut last = [[0; LINE]];
        single(first, &mut last);
        rest.copy_from_slice(&last[0][..rest.len()]);
    }
}
