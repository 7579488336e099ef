//! Products against candle's, including the quantization of activations on both sides: ours from
//! Q15.16 to codes, candle's from f32 to blocks.

use std::error::Error;
use std::hint::black_box;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor as Floats};
use resnet_bk_core::blob::{Precision, Tensor, TensorLayout};
use resnet_bk_core::internals::activation::{quantize, quantize_relu};
use resnet_bk_core::internals::{Matrix, Prepared, Vectors, kernels, matmul, portable};
use resnet_bk_tools::files::Resident;

use super::alternate::alternate;
use super::host::{InstructionSets, Reading};
use super::row::Row;

/// Shape of a product.
struct Case {
    inputs: usize,
    outputs: usize,
    vectors: usize,
    /// As after a ReLU: one element in twenty is nonzero.
    sparse: bool,
}

const fn case(inputs: usize, outputs: usize, vectors: usize, sparse: bool) -> Case {
    Case { inputs, outputs, vectors, sparse }
}

/// Both matrices of an expert of the shipped model, the first also with a small batch and with a
/// window of vectors; and matrices of larger models.
const CASES: [Case; 6] = [
    case(128, 256, 1, false),
    case(256, 128, 1, true),
    case(128, 256, 4, false),
    case(128, 256, 128, false),
    case(1024, 4096, 1, false),
    case(4096, 4096, 1, false),
];

/// The candle types with the same number of bits, and their names.
fn rivals(precision: Precision) -> &'static [(GgmlDType, &'static str)] {
    match precision {
        Precision::Int4 => &[(GgmlDType::Q4_0, "candle Q4_0"), (GgmlDType::Q4K, "candle Q4_K")],
        _ => &[(GgmlDType::Q8_0, "candle Q8_0")],
    }
}

/// SplitMix64: the same weights in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// From −1 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A row for every case, precision and rival whose block size divides the inputs.
pub(super) fn measure(rounds: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for case in &CASES {
        for precision in [Precision::Int4, Precision::Int8] {
            rows.extend(measure_case(case, precision, rounds)?);
        }
    }
    Ok(rows)
}

fn measure_case(
    case: &Case,
    precision: Precision,
    rounds: usize,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let &Case { inputs: cols, outputs: rows, vectors, sparse } = case;
    let mut random = Random(1);
    let floats: Vec<f32> = (0..vectors * cols)
        .map(|_| match random.float() {
            x if sparse => (x - 0.9).max(0.0),
            x => x,
        })
        .collect();
    let residual: Vec<i32> = floats.iter().map(|x| (x * 65536.0) as i32).collect();

    let group = if precision.is_grouped() { 32 } else { 0 };
    let layout = TensorLayout::new(precision, rows, cols, group, true);
    let section = Resident::copy(&random.bytes(layout.len()))?;
    let (codes, rest) = section.split_at(layout.scales_at());
    let (scales, biases) = rest.split_at(layout.biases_at() - layout.scales_at());
    let matrix = Tensor {
        precision,
        rows,
        cols,
        group,
        exponent: 44,
        bias_exponent: 8,
        max_code: if sparse { 255 } else { 127 },
        codes,
        scales,
        biases,
    };
    // Models keep a copy by columns of matrices after a ReLU.
    let room = if sparse { usize::MAX } else { 0 };
    let prepared = Prepared::new(matrix, room).expect("room for the copy");
    let matrix = prepared.matrix();
    let prepare = if sparse { quantize_relu } else { quantize };
    let (mut codes, mut scales) = (vec![0; vectors * cols], vec![0; vectors]);
    let mut product = |out: &mut [i32], kernel: &dyn Fn(&Matrix<'_>, Vectors<'_>, &mut [i32])| {
        let all = black_box(&residual[..]).chunks_exact(cols).zip(codes.chunks_exact_mut(cols));
        for ((residual, codes), scale) in all.zip(&mut scales) {
            *scale = prepare(residual, codes).pack();
        }
        kernel(&matrix, Vectors { codes: &codes, scales: &scales }, out);
        black_box(&out);
    };
    let (mut expected, mut out) = (vec![0; vectors * rows], vec![0; vectors * rows]);
    product(&mut expected, &|matrix, x, out| portable::matmul(matrix, x, out));
    for kernel in kernels() {
        product(&mut out, &|matrix, x, out| {
            if !kernel.multiply(matrix, x, out) {
                portable::matmul(matrix, x, out);
            }
        });
        if out != expected {
            return Err(format!("{} and the portable kernel disagree", kernel.name).into());
        }
    }
    let mut ours = || product(&mut out, &matmul);

    let sets = InstructionSets::measure(rounds, &mut ours);
    let reading = Reading::measure(rounds, layout.len(), &mut ours)?;
    let mut name = precision.name().to_owned();
    if vectors > 1 {
        name += &format!(", {vectors} vectors");
    }
    if sparse {
        name += ", after a ReLU";
    }
    let weights: Vec<f32> = (0..rows * cols).map(|_| random.float()).collect();
    let weights = Floats::from_vec(weights, (rows, cols), &Device::Cpu)?;
    let x = Floats::from_vec(floats, (vectors, cols), &Device::Cpu)?;
    let whole = rivals(precision).iter().filter(|(rival, _)| cols % rival.block_size() == 0);
    let mut measured = Vec::new();
    for &(rival, against) in whole {
        let theirs = QMatMul::from_qtensor(QTensor::quantize(&weights, rival)?)?;
        theirs.forward(&x)?;
        let ratio = alternate(rounds, &mut ours, || {
            // The first call succeeded with the same shapes.
            let _ = black_box(theirs.forward(black_box(&x)));
        });
        let (inputs, outputs) = (cols, rows);
        measured.push(Row { kernel: name.clone(), inputs, outputs, against, ratio, sets, reading });
    }
    if out != expected {
        return Err("the kernel at hand and the portable one disagree".into());
    }
    Ok(measured)
}
