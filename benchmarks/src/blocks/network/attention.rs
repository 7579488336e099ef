//! Causal attention with rotary positions (Su et al., 2021); halves of a head are rotated.

use super::layers::{Linear, exp};
use super::mixer::Mixer;
use crate::blocks::tensors::{Failure, Tensors};

/// Base of the rotation speeds.
const BASE: f64 = 10_000.0;

pub(super) struct Attention {
    qkv: Linear,
    out_proj: Linear,
    heads: usize,
    width: usize,
}

impl Attention {
    pub(super) fn new(
        tensors: &Tensors,
        name: &str,
        (width, heads): (usize, usize),
    ) -> Result<Self, Failure> {
        if heads == 0 || !width.is_multiple_of(2 * heads) {
            return Err(format!("{name}: {heads} heads do not divide a width of {width}").into());
        }
        let qkv = Linear::new(tensors, &format!("{name}.qkv"), width)?;
        let out_proj = Linear::new(tensors, &format!("{name}.out_proj"), width)?;
        if qkv.outputs != 3 * width || out_proj.outputs != width {
            return Err(format!("{name}: matrices do not fit a width of {width}").into());
        }
        Ok(Self { qkv, out_proj, heads, width })
    }

    /// Rotates queries and keys by their positions.
    fn rotate(&self, qkv: &mut [f32], window: usize) {
        let half = self.width / self.heads / 2;
        let speed = |i: usize| BASE.powf(-(i as f64) / half as f64);
        let angle = |t: usize, i: usize| (t as f64 * speed(i)).sin_cos();
        let table: Vec<(f32, f32)> = (0..window)
            .flat_map(|t| (0..half).map(move |i| (t, i)))
            .map(|(t, i)| angle(t, i))
            .map(|(sine, cosine)| (sine as f32, cosine as f32))
            .collect();
        for (row, qkv) in qkv.chunks_exact_mut(3 * self.width).enumerate() {
            let angles = &table[row % window * half..][..half];
            for head in qkv[..2 * self.width].chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                for ((x, y), &(sine, cosine)) in first.iter_mut().zip(second).zip(angles) {
                    (*x, *y) = (*x * cosine - *y * sine, *x * sine + *y * cosine);
                }
            }
        }
    }

    /// One head at one position: the mean of the values so far, weighted by the softmax of scores.
    fn attend(&self, qkv: &[f32], (start, row, head): (usize, usize, usize), y: &mut [f32]) {
        let (width, size) = (self.width, y.len());
        let part = |row: usize, which: usize| {
            &qkv[row * 3 * width + which * width + head * size..][..size]
        };
        let query = part(row, 0);
        let factor = (size as f32).sqrt().recip();
        let score = |key: &[f32]| query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>() * factor;
        let scores: Vec<f32> = (start..=row).map(|at| score(part(at, 1))).collect();
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|s| exp(s - largest)).collect();
        let total = weights.iter().sum::<f32>().recip();
        for (at, weight) in (start..=row).zip(weights) {
            for (y, v) in y.iter_mut().zip(part(at, 2)) {
                *y += weight * total * v;
            }
        }
    }
}

impl Mixer for Attention {
    fn forward(&self, u: &[f32], window: usize) -> Result<Vec<f32>, Failure> {
        let mut qkv = self.qkv.forward(u)?;
        self.rotate(&mut qkv, window);
        let mut y = vec![0.0; u.len()];
        for (row, y) in y.chunks_exact_mut(self.width).enumerate() {
            for (head, y) in y.chunks_exact_mut(self.width / self.heads).enumerate() {
                self.attend(&qkv, (row - row % window, row, head), y);
            }
        }
        self.out_proj.forward(&y)
    }
}
