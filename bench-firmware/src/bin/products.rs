//! Complete matrix-vector products: compares kernels with the portable one and counts instructions.
//!
//! A line per count: `product <storage> <inputs> <outputs> <instructions>`. A storage is a
//! precision and, after a slash, its group size unless that is 32; `-sparse` marks vectors in which
//! one code in twenty is nonzero, `-portable` the portable kernel.
#![no_std]
#![no_main]

use core::hint::black_box;

use resnet_bk_bench::machine::{self, Moment};
use resnet_bk_bench::random::{Draw, Random, Shape, Vector, matrix};
use resnet_bk_core::blob::{Precision, Tensor};
use resnet_bk_core::internals::{Matrix, Vectors, matmul, portable};
use semihosting::println;

resnet_bk_bench::entry!(run);

/// Inputs and outputs of the counted products.
const COUNTED: [(usize, usize); 5] = [(128, 256), (256, 128), (128, 1024), (64, 128), (160, 512)];
/// Inputs and outputs that are also counted with a sparse vector: an expert's second matrix.
const SPARSE: (usize, usize) = (256, 128);
/// Counted storages: all candidates of a budget, and groups of 32 of every precision.
const STORAGES: [(Precision, usize); 11] = [
    (Precision::Int2, 32),
    (Precision::Int2, 16),
    (Precision::Int3, 32),
    (Precision::Int3, 16),
    (Precision::Int4, 32),
    (Precision::Int4, 16),
    (Precision::Int4, 64),
    (Precision::Int5, 32),
    (Precision::Int6, 32),
    (Precision::Int8, 0),
    (Precision::Fp16, 0),
];
/// Group sizes of the counted portable products, whose cost falls with the group size.
const PORTABLE_GROUPS: [usize; 3] = [1, 8, 32];
/// Inputs and outputs of the counted portable products.
const PORTABLE: (usize, usize) = (64, 128);
/// Calls per count, to resolve fractions of a tick.
const CALLS: u64 = 8;
/// Bytes of the largest matrix, FP16 128 to 1024, with its biases.
const ROOM: usize = 2 * 1024 * 128 + 2 * 1024;

#[repr(align(16))]
struct Memory([u8; ROOM]);

struct Room {
    matrix: Memory,
    vector: Vector,
    out: [i32; 1024],
    expected: [i32; 1024],
}

fn run() -> ! {
    static mut ROOM: Room = Room {
        matrix: Memory([0; self::ROOM]),
        vector: Vector::new(),
        out: [0; 1024],
        expected: [0; 1024],
    };
    machine::start();
    let room = &raw mut ROOM;
    // SAFETY: this function is called once, and nothing else uses the static.
    let room = unsafe { &mut *room };
    let mut random = Random(1);
    let checked = check(room, &mut random);
    for (precision, group) in STORAGES {
        for (cols, rows) in COUNTED {
            // Budgets choose only groups that divide a row.
            if group == 0 || cols.is_multiple_of(group) {
                count(room, Shape { precision, group, rows, cols }, Draw::Even);
            }
        }
        if precision.is_grouped() {
            let (cols, rows) = SPARSE;
            count(room, Shape { precision, group, rows, cols }, Draw::Sparse);
        }
    }
    count_portable(room, &mut random);
    println!("checked {checked}");
    machine::exit(0)
}

/// Prints the instructions of a product. Its numbers do not depend on what was counted before.
fn count(room: &mut Room, shape: Shape, draw: Draw) {
    let Shape { precision, group, rows, cols } = shape;
    let mut random = Random(1);
    let matrix = Matrix::new(matrix(shape, draw, &mut room.matrix.0, &mut random));
    room.vector.draw(&matrix, draw, &mut random);
    let x = room.vector.get();
    let out = &mut room.out[..rows];
    let started = Moment::now();
    for _ in 0..CALLS {
        matmul(black_box(&matrix), black_box(x), black_box(&mut *out));
    }
    let instructions = started.instructions_until(Moment::now()) / CALLS;
    compare(&matrix, x, out, &mut room.expected[..rows]);
    let (name, kind) = (precision.name(), if draw == Draw::Sparse { "-sparse" } else { "" });
    match group {
        0 | 32 => println!("product {name}{kind} {cols} {rows} {instructions}"),
        _ => println!("product {name}/{group}{kind} {cols} {rows} {instructions}"),
    }
}

/// Prints the instructions of products that fall back to the portable kernel: codes are misaligned.
fn count_portable(room: &mut Room, random: &mut Random) {
    let (cols, rows) = PORTABLE;
    for precision in Precision::ALL {
        let groups = if precision.is_grouped() { &PORTABLE_GROUPS[..] } else { &[0] };
        for &group in groups {
            let shape = Shape { precision, group, rows, cols };
            let matrix = Matrix::new(matrix(shape, Draw::Even, &mut room.matrix.0[1..], random));
            room.vector.draw(&matrix, Draw::Even, random);
            let out = &mut room.out[..rows];
            let started = Moment::now();
            matmul(black_box(&matrix), black_box(room.vector.get()), black_box(&mut *out));
            let instructions = started.instructions_until(Moment::now());
            let name = precision.name();
            match group {
                0 | 32 => println!("portable {name}-portable {cols} {rows} {instructions}"),
                _ => println!("portable {name}/{group}-portable {cols} {rows} {instructions}"),
            }
        }
    }
}

/// Compares kernels with the portable one on shapes with and without an optimized kernel, on random
/// and extreme numbers. Returns the number of products.
fn check(room: &mut Room, random: &mut Random) -> u32 {
    let groups = |precision: Precision| -> &[usize] {
        if precision.is_grouped() { &[32, 16, 64, 7] } else { &[0] }
    };
    let mut checked = 0;
    for precision in Precision::ALL {
        for &group in groups(precision) {
            for cols in [32, 64, 96, 128, 160, 192, 256, 320, 512, 1024, 8, 36, 45] {
                for rows in [1, 2, 7, 8] {
                    for draw in
                        [Draw::Even, Draw::Sparse, Draw::Extreme, Draw::Extreme, Draw::Extreme]
                    {
                        let shape = Shape { precision, group, rows, cols };
                        let matrix = Matrix::new(matrix(shape, draw, &mut room.matrix.0, random));
                        room.vector.draw(&matrix, draw, random);
                        let x = room.vector.get();
                        let out = &mut room.out[..rows];
                        out.fill(i32::MIN);
                        matmul(&matrix, x, out);
                        compare(&matrix, x, out, &mut room.expected[..rows]);
                        checked += 1;
                    }
                }
            }
        }
    }
    checked
}

/// Exits with an error if an output differs from the portable kernel's.
#[inline(never)]
fn compare(matrix: &Tensor<'_>, x: Vectors<'_>, out: &[i32], expected: &mut [i32]) {
    portable::matmul(matrix, x, expected);
    let Some(row) = (0..out.len()).find(|&row| out[row] != expected[row]) else { return };
    println!(
        "different: {} group {} rows {} cols {} codes to {} exponent {} scale {:#x} row {row}: {} for {}",
        matrix.precision.name(),
        matrix.group,
        matrix.rows,
        matrix.cols,
        matrix.max_code,
        matrix.exponent,
        x.scales[0],
        out[row],
        expected[row]
    );
    machine::exit(1)
}
