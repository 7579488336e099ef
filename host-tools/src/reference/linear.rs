//! Matrix products (the only calls of the `gemm` crate), and linear layers.

use crate::reference::observer::{Each, LayerGradient, LinearGradient};
use crate::reference::real::{Real, add_to, dot, dot_four};
use crate::reference::simd::simd;
use std::ops::Range;

/// A matrix in a slice: element (r, c) is `data[r * row_stride + c * column_stride]`.
#[derive(Clone, Copy)]
struct Matrix<'a, T> {
    data: &'a [T],
    row_stride: usize,
    column_stride: usize,
}

/// The `[rows, columns]` matrix in `data`.
fn plain<T>(data: &[T], columns: usize) -> Matrix<'_, T> {
    Matrix { data, row_stride: columns, column_stride: 1 }
}

/// The transpose of the `[rows, columns]` matrix in `data`.
fn transposed<T>(data: &[T], columns: usize) -> Matrix<'_, T> {
    Matrix { data, row_stride: 1, column_stride: columns }
}

/// c\[m, n\] = a\[m, k\] · b\[k, n\], or c += with `accumulate`; on the calling thread. `c` comes
/// with the distance of its rows.
fn product<T: Real>(
    (c, stride): (&mut [T], usize),
    accumulate: bool,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    (m, k, n): (usize, usize, usize),
) {
    if m == 0 || n == 0 {
        return;
    }
    // Index of the last element of an `rows` × `columns` matrix: the largest that is touched.
    let last = |rows: usize, columns: usize, x: &Matrix<'_, T>| {
        rows.saturating_sub(1) * x.row_stride + columns.saturating_sub(1) * x.column_stride
    };
    assert!(n <= stride && (m - 1) * stride + n <= c.len(), "product: c is too short");
    assert!(k == 0 || last(m, k, &a) < a.data.len(), "product: a is too short");
    assert!(k == 0 || last(k, n, &b) < b.data.len(), "product: b is too short");
    // SAFETY: `gemm` reads a[i·rs + j·cs] for i < m, j < k, b likewise for i < k, j < n, and reads
    // and writes c[i·stride + j] for i < m, j < n. The assertions above bound the largest of these
    // indices by the slice lengths; strides are not negative, so the smallest is 0. `c` is a unique
    // borrow, so it overlaps neither `a` nor `b`. `T` is f32 or f64, which `gemm` supports.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Rows of inputs for which rearranging the weights, as `gemm` does, costs more than the product.
pub(crate) const FEW_ROWS: usize = 8;

/// y\[rows, out\] += x\[rows, in\] · Wᵀ for a few rows, of which every one has the bits that it
/// has alone.
fn few_rows<T: Real>(weight: &[T], x: &[T], y: &mut [T], (inputs, outputs): (usize, usize)) {
    let x: Vec<&[T]> = x.chunks_exact(inputs).collect();
    let (fours, others) = x.as_chunks::<4>();
    simd(
        #[inline(always)]
        || {
            for (output, weight) in weight.chunks_exact(inputs).enumerate() {
                let mut y = y.iter_mut().skip(output).step_by(outputs);
                for four in fours {
                    dot_four(weight, *four).iter().zip(&mut y).for_each(|(dot, y)| *y += *dot);
                }
                others.iter().zip(y).for_each(|(x, y)| *y += dot(weight, x));
            }
        },
    );
}

/// Columns of a block of [`add_gram`].
const GRAM_BLOCK: usize = 256;

/// Adds xᵀ·x to gram\[n, n\], for the rows of x\[rows, n\]. What is below the diagonal is right
/// only after [`mirror`].
pub(crate) fn add_gram(gram: &mut [f64], x: &[f64], n: usize) {
    let rows = x.len() / n;
    for from in (0..n).step_by(GRAM_BLOCK) {
        let (tall, x) = (GRAM_BLOCK.min(n - from), &x[from.min(x.len())..]);
        let gram = (&mut gram[from * n + from..], n);
        product(gram, true, transposed(x, n), plain(x, n), (tall, rows, n - from));
    }
}

/// Copies what is above the diagonal of gram\[n, n\] below it.
pub(crate) fn mirror(gram: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..i {
            gram[i * n + j] = gram[j * n + i];
        }
    }
}

/// Ranges of a linear layer's weight `[out, in]` and bias `[out]` in the parameters.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// The layer's name: its weight's name without `.weight`.
    pub(crate) name: String,
    pub(crate) weight: Range<usize>,
    pub(crate) bias: Range<usize>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Linear {
    /// y\[rows, out\] = x\[rows, in\] · Wᵀ + b.
    pub(crate) fn forward<T: Real>(&self, parameters: &[T], x: &[T], y: &mut [T]) {
        let rows = x.len() / self.inputs;
        let bias = &parameters[self.bias.clone()];
        for row in y.chunks_exact_mut(self.outputs) {
            row.copy_from_slice(bias);
        }
        let weight = &parameters[self.weight.clone()];
        if rows <= FEW_ROWS {
            return few_rows(weight, x, y, (self.inputs, self.outputs));
        }
        let (a, b) = (plain(x, self.inputs), transposed(weight, self.inputs));
        product((y, self.outputs), true, a, b, (rows, self.inputs, self.outputs));
    }

    /// Adds the gradients of weight and bias, given those of the outputs, if `each` wants them.
    pub(crate) fn backward_parameters<T: Real>(
        &self,
        gradient: &mut [T],
        x: &[T],
        dy: &[T],
        each: &mut Each<'_, T>,
    ) {
        let rows = x.len() / self.inputs;
        let seen = LinearGradient { name: &self.name, rows, inputs: x, outputs: dy };
        if !each(LayerGradient::Linear(seen)) {
            return;
        }
        let (a, b) = (transposed(dy, self.outputs), plain(x, self.inputs));
        let dw = &mut gradient[self.weight.clone()];
        product((dw, self.inputs), true, a, b, (self.outputs, rows, self.inputs));
        let db = &mut gradient[self.bias.clone()];
        simd(
            #[inline(always)]
            || dy.chunks_exact(self.outputs).for_each(|row| add_to(db, row)),
        );
    }

    /// dx\[rows, in\] = dy\[rows, out\] · W, or dx += with `accumulate`.
    pub(crate) fn backward_input<T: Real>(
        &self,
        parameters: &[T],
        dy: &[T],
        dx: &mut [T],
        accumulate: bool,
    ) {
        let rows = dy.len() / self.outputs;
        let (a, b) =
            (plain(dy, self.outputs), plain(&parameters[self.weight.clone()], self.inputs));
        product((dx, self.inputs), accumulate, a, b, (rows, self.outputs, self.inputs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_and_backward_match_the_definition() {
        for rows in [1, 2, 4, 7, FEW_ROWS, FEW_ROWS + 1] {
            matches_the_definition(rows, 7, 3);
            matches_the_definition(rows, 37, 2);
        }
    }

    #[test]
    fn a_gram_matrix_is_that_of_its_columns() {
        for (rows, n) in [(0, 3), (5, 3), (7, GRAM_BLOCK), (3, 2 * GRAM_BLOCK + 5)] {
            let x: Vec<f64> = (0..rows * n).map(|i| (i as f64 * 0.7).sin()).collect();
            let mut gram = vec![0.5; n * n];
            add_gram(&mut gram, &x, n);
            mirror(&mut gram, n);
            for (at, found) in gram.iter().enumerate() {
                let columns = x.chunks_exact(n).map(|row| row[at / n] * row[at % n]);
                assert!((found - 0.5 - columns.sum::<f64>()).abs() < 1e-12, "{n}: {at}");
            }
        }
    }

    fn matches_the_definition(rows: usize, inputs: usize, outputs: usize) {
        let wave = |n: usize, f: f64| (0..n).map(|i| (i as f64 * f).sin()).collect::<Vec<_>>();
        let at = inputs * outputs;
        let (weight, bias) = (0..at, at..at + outputs);
        let layer = Linear { name: "l".into(), weight, bias, inputs, outputs };
        let parameters = wave(at + outputs, 0.7);
        let x = wave(rows * inputs, 1.3);
        let dy = wave(rows * outputs, 2.1);
        let mut y = vec![0.0; rows * outputs];
        layer.forward(&parameters, &x, &mut y);
        let mut gradient = vec![1.0; at + outputs];
        layer.backward_parameters(&mut gradient, &x, &dy, &mut |_| true);
        let mut dx = vec![0.5; rows * inputs];
        layer.backward_input(&parameters, &dy, &mut dx, true);
        let mut expected_gradient = vec![1.0; at + outputs];
        let mut expected_dx = vec![0.5; rows * inputs];
        for r in 0..rows {
            for o in 0..outputs {
                let mut sum = parameters[at + o];
                expected_gradient[at + o] += dy[r * outputs + o];
                for i in 0..inputs {
                    sum += parameters[o * inputs + i] * x[r * inputs + i];
                    expected_gradient[o * inputs + i] += dy[r * outputs + o] * x[r * inputs + i];
                    expected_dx[r * inputs + i] += dy[r * outputs + o] * parameters[o * inputs + i];
                }
                assert!((sum - y[r * outputs + o]).abs() < 1e-12);
            }
        }
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&gradient, &expected_gradient));
        assert!(close(&dx, &expected_dx));
    }
}
