//! Multiplies a random matrix by random vectors, again and again, for a counter of instructions
//! around the whole process:
//!
//! ```text
//! instructions KERNEL STORAGE GROUP INPUTS OUTPUTS VECTORS NONZERO TIMES
//! instructions chain POTENTIALS TIMES
//! ```
//!
//! KERNEL is a name of the table, or `chosen`; of a hundred codes NONZERO are not zero, behind a
//! ReLU unless that is 100. The difference of two runs is that of their TIMES.

use std::env;
use std::error::Error;

use resnet_bk_core::blob::{ChainFormat, ChainParameters, Precision, Tensor, TensorLayout};
use resnet_bk_core::internals::{Prepared, Vectors, bk, kernels, matmul};

/// A linear congruential generator: the upper bits of each number.
fn random() -> impl FnMut() -> u32 {
    let mut state = 1u64;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u32
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["chain", potentials, times] => chain(potentials.parse()?, times.parse()?),
        [kernel, storage, group, inputs, outputs, vectors, nonzero, times] => {
            let precision = Precision::ALL.into_iter().find(|p| p.name() == *storage);
            let precision = precision.ok_or("no such storage")?;
            let shape = [group.parse()?, inputs.parse()?, outputs.parse()?, vectors.parse()?];
            product(kernel, precision, shape, nonzero.parse()?, times.parse()?)
        }
        _ => Err("KERNEL STORAGE GROUP INPUTS OUTPUTS VECTORS NONZERO TIMES".into()),
    }
}

fn product(
    kernel: &str,
    precision: Precision,
    [group, cols, rows, vectors]: [usize; 4],
    nonzero: u32,
    times: usize,
) -> Result<(), Box<dyn Error>> {
    let mut random = random();
    let layout = TensorLayout::new(precision, rows, cols, group, true);
    let mut bytes = |count: usize| (0..count).map(|_| random() as u8).collect::<Vec<u8>>();
    let mut codes = bytes(rows * layout.row_codes);
    if precision == Precision::Fp16 {
        // Finite.
        codes.iter_mut().skip(1).step_by(2).for_each(|high| *high &= 0xbf);
    }
    let (scales, biases) = (bytes(rows * layout.row_scales), bytes(2 * rows));
    let max_code = if nonzero < 100 { 255 } else { 127 };
    let tensor = Tensor {
        precision,
        rows,
        cols,
        group,
        exponent: 44,
        bias_exponent: 8,
        max_code,
        codes: &codes,
        scales: &scales,
        biases: &biases,
    };
    let prepared = Prepared::new(tensor, usize::MAX)?;
    let matrix = prepared.matrix();
    let lowest = if nonzero < 100 { 1 } else { -127 };
    let span = max_code as i32 - lowest + 1;
    let x: Vec<i16> = (0..vectors * cols)
        .map(
            |_| if random() % 100 < nonzero { (lowest + random() as i32 % span) as i16 } else { 0 },
        )
        .collect();
    // A mantissa of 2^14 and an exponent of −13.
    let scales =
        vec![resnet_bk_core::numeric::Scale { mantissa: 1 << 14, exponent: -13 }.pack(); vectors];
    let x = Vectors { codes: &x, scales: &scales };
    let mut out = vec![0; vectors * rows];
    if kernel == "chosen" {
        (0..times).for_each(|_| matmul(&matrix, x, &mut out));
    } else {
        let named = kernels().find(|entry| entry.name == kernel).ok_or("no such kernel")?;
        for _ in 0..times {
            if !named.multiply(&matrix, x, &mut out) {
                return Err("the kernel does not take it".into());
            }
        }
    }
    println!("{}", out.iter().fold(0, |sum: i32, &value| sum.wrapping_mul(31).wrapping_add(value)));
    Ok(())
}

fn chain(potentials: usize, times: usize) -> Result<(), Box<dyn Error>> {
    let format = ChainFormat { frac: 24, off_diagonal: 1 << 16, int8: false };
    let mut random = random();
    let parameters: Vec<u8> = (0..potentials)
        .flat_map(|_| [random() as i32 % (1 << 23), 1 << 23])
        .flat_map(i32::to_le_bytes)
        .collect();
    let parameters = ChainParameters { bytes: &parameters };
    let v: Vec<i32> = (0..potentials).map(|_| random() as i32 % (1 << 17)).collect();
    let (mut state, mut features) = (vec![0; 2 * potentials], vec![0; 2 * potentials]);
    for _ in 0..times {
        bk::half_step(format, parameters, &v, &mut state, &mut features);
    }
    println!(
        "{}",
        features.iter().fold(0, |sum: i32, &value| sum.wrapping_mul(31).wrapping_add(value))
    );
    Ok(())
}
