//! Single-vector products beside candle's: activation preparation included on both sides, ours from
//! Q15.16 to codes, candle's from f32 to blocks.

use std::error::Error;
use std::hint::black_box;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor as Floats};
use resnet_bk_core::blob::{Precision, Tensor, TensorLayout};
use resnet_bk_core::kernels::{Vectors, matmul, portable};
use resnet_bk_core::layers::activation::quantize;

use super::Row;
use super::alternate::alternate;

/// Inputs and outputs: an expert of the reference size, and what larger models have.
const SHAPES: [(usize, usize); 3] = [(128, 256), (1024, 4096), (4096, 4096)];

/// Precision, the candle type of as many bits, and its name.
const RIVALS: [(Precision, GgmlDType, &str); 3] = [
    (Precision::Int4, GgmlDType::Q4_0, "candle Q4_0"),
    (Precision::Int4, GgmlDType::Q4K, "candle Q4_K"),
    (Precision::Int8, GgmlDType::Q8_0, "candle Q8_0"),
];

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

/// A row for every precision, shape and rival that has whole blocks there.
pub(super) fn measure(rounds: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (inputs, outputs) in SHAPES {
        for (precision, rival, against) in RIVALS {
            if inputs % rival.block_size() == 0 {
                let ratio = ratio(precision, rival, (inputs, outputs), rounds)?;
                let kernel = precision.name().into();
                rows.push(Row { kernel, inputs, outputs, against, ratio });
            }
        }
    }
    Ok(rows)
}

fn ratio(
    precision: Precision,
    rival: GgmlDType,
    (cols, rows): (usize, usize),
    rounds: usize,
) -> Result<super::Ratio, Box<dyn Error>> {
    let mut random = Random(1);
    let floats: Vec<f32> = (0..cols).map(|_| random.float()).collect();
    let residual: Vec<i32> = floats.iter().map(|x| (x * 65536.0) as i32).collect();

    let group = if precision.is_grouped() { 32 } else { 0 };
    let layout = TensorLayout::new(precision, rows, cols, group, true);
    let section = random.bytes(layout.len());
    let (codes, rest) = section.split_at(layout.scales_at());
    let (scales, biases) = rest.split_at(layout.biases_at() - layout.scales_at());
    let matrix = Tensor {
        precision,
        rows,
        cols,
        group,
        exponent: 44,
        bias_exponent: 8,
        max_code: 127,
        codes,
        scales,
        biases,
        columns: &[],
    };
    let (mut codes, mut out) = (vec![0; cols], vec![0; rows]);
    let scale = quantize(&residual, &mut codes).pack();
    let mut expected = vec![0; rows];
    portable::matmul(&matrix, Vectors { codes: &codes, scales: &[scale] }, &mut expected);

    let weights: Vec<f32> = (0..rows * cols).map(|_| random.float()).collect();
    let weights = Floats::from_vec(weights, (rows, cols), &Device::Cpu)?;
    let theirs = QMatMul::from_qtensor(QTensor::quantize(&weights, rival)?)?;
    let x = Floats::from_vec(floats, (1, cols), &Device::Cpu)?;
    theirs.forward(&x)?;

    let ratio = alternate(
        rounds,
        || {
            let scale = quantize(black_box(&residual), &mut codes).pack();
            matmul(&matrix, Vectors { codes: &codes, scales: &[scale] }, &mut out);
            black_box(&out);
        },
        || {
            // The call above has shown that these shapes fit.
            let _ = black_box(theirs.forward(black_box(&x)));
        },
    );
    if out != expected {
        return Err("the kernel at hand and the portable one disagree".into());
    }
    Ok(ratio)
}
