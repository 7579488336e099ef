//! Scales and codes of a matrix in an integer precision.

use rayon::prelude::*;
use resnet_bk_schema::{Step, Steps, Storage};

use super::calibration::{OutputMoments, Statistics, Symmetric};
use super::code_search::{Rounded, SWEEPS, Target, descend, gptq, nearest, refit};
use super::grid::{self, Levels, RowGrid, nearest_multiple};
use super::metric::{Metric, add_rows};
use crate::reference::simd;

/// Damping of A as a fraction of its mean diagonal: larger for few samples per column, as for
/// experts that rarely get a token.
pub(super) fn damping(cols: usize, samples: usize) -> f64 {
    0.01 + 0.1 * cols as f64 / samples.max(1) as f64
}

/// Shrinkage of the off-diagonal of G: stronger for few samples per output.
fn trust(outputs: usize, samples: usize) -> f64 {
    0.9 * samples as f64 / (samples + outputs) as f64
}

/// Rows that are rounded together, which share the reading of their metric.
const ROWS: usize = 8;
/// Passes of cross-row error compensation.
const JOINT_PASSES: usize = 3;
/// Rounds of alternately refitting scales and codes.
const REFITS: usize = 2;

/// Shape, groups and code range of a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) cols: usize,
    /// Columns per scale.
    pub(super) group: usize,
    pub(super) levels: Levels,
}

impl Layout {
    pub(super) fn new(cols: usize, storage: Storage) -> Self {
        let group = if storage.precision.is_grouped() { storage.group } else { cols };
        Self { cols, group, levels: Levels::of(storage.precision) }
    }

    fn target<'a>(&self, weights: &'a [f64], scales: &'a [f64]) -> Target<'a> {
        Target { weights, scales, low: self.levels.low, high: self.levels.high }
    }

    /// Each row with its scales, of which there are equally many for each row.
    fn targets<'a>(&self, rows: &'a [Vec<f64>], scales: &'a [Vec<f64>]) -> Vec<Target<'a>> {
        let of_each = scales.len() / rows.len();
        let target = |(i, scales): (usize, &'a Vec<f64>)| self.target(&rows[i / of_each], scales);
        scales.iter().enumerate().map(target).collect()
    }
}

/// Finds the scales of every row, before rounding to their stored form. `metrics` has one metric
/// for all rows, or one for each.
pub(super) fn scales(
    rows: &[Vec<f64>],
    metrics: &[Metric],
    layout: Layout,
    steps: Steps,
) -> Vec<RowGrid> {
    let of_block = |(rows, metric): (&[Vec<f64>], &Metric)| {
        if !steps.has(Step::ScaleSearch) {
            return rows.iter().map(|row| grid::plain(row, layout.group, layout.levels)).collect();
        }
        let importance: Vec<f64> = metric.diagonal().collect();
        let first = |row: &Vec<f64>| grid::search(row, &importance, layout.group, layout.levels);
        let first: Vec<RowGrid> = rows.iter().map(first).collect();
        // INT8 is fine enough without: refitting lowers the KL divergence by 0.4 % and would take
        // most of the time.
        let refit = steps.has(Step::Refit) && layout.levels.multiple > 1;
        if refit { improve(rows, first, metric, layout, steps) } else { first }
    };
    let blocks: Vec<Vec<RowGrid>> = blocks(rows, metrics).map(of_block).collect();
    blocks.concat()
}

/// Blocks of rows with their metric.
fn blocks<'a>(
    rows: &'a [Vec<f64>],
    metrics: &'a [Metric],
) -> impl IndexedParallelIterator<Item = (&'a [Vec<f64>], &'a Metric)> {
    let size = block_size(metrics);
    rows.par_chunks(size).enumerate().map(|(i, rows)| (rows, &metrics[i % metrics.len()]))
}

/// Rows that are rounded together: those of one metric.
fn block_size(metrics: &[Metric]) -> usize {
    if metrics.len() == 1 { ROWS } else { 1 }
}

/// Tries units around the first, each with its own codes, then alternately refits scales and codes;
/// keeps the lowest cost of each row.
fn improve(
    rows: &[Vec<f64>],
    first: Vec<RowGrid>,
    metric: &Metric,
    layout: Layout,
    steps: Steps,
) -> Vec<RowGrid> {
    let factors = [1.0, 0.92, 0.96, 1.04, 1.08];
    let scaled = |grid: &RowGrid, factor: f64| RowGrid { unit: grid.unit * factor, ..grid.clone() };
    let grids = first.iter().flat_map(|grid| factors.map(|factor| scaled(grid, factor)));
    let tried = round_grids(metric, rows, layout, &grids.collect::<Vec<_>>(), steps);
    let mut tried = tried.into_iter();
    let mut best: Vec<(Rounded, RowGrid)> = first
        .iter()
        .map(|grid| {
            let of_row = tried.by_ref().take(factors.len()).zip(factors);
            lowest(of_row.map(|(rounded, factor)| (rounded, scaled(grid, factor))))
        })
        .collect();
    let mut improving: Vec<usize> = (0..rows.len()).collect();
    for _ in 0..REFITS {
        let columns: Vec<Vec<f64>> =
            improving.iter().map(|&i| best[i].1.columns(layout.cols, layout.group)).collect();
        let starts: Vec<(Target<'_>, &[i8])> = improving
            .iter()
            .zip(&columns)
            .map(|(&i, scales)| (layout.target(&rows[i], scales), best[i].0.codes.as_slice()))
            .collect();
        let fitted = refit(metric, &starts, layout.group);
        let mut improved = vec![false; rows.len()];
        for multiple in [15, 13, 11, 9] {
            let grid = |fitted: &Vec<f64>| {
                let unit = fitted.iter().copied().fold(0.0, f64::max) / f64::from(multiple);
                let nearest = |&step: &f64| nearest_multiple(step, unit, layout.levels);
                RowGrid { unit, multiples: fitted.iter().map(nearest).collect() }
            };
            let grids: Vec<RowGrid> = fitted.iter().map(grid).collect();
            let columns: Vec<Vec<f64>> =
                grids.iter().map(|grid| grid.columns(layout.cols, layout.group)).collect();
            let starts = improving
                .iter()
                .zip(&columns)
                .map(|(&i, scales)| (layout.target(&rows[i], scales), best[i].0.codes.clone()))
                .collect();
            let found = finish(metric, starts, steps);
            for ((&i, grid), rounded) in improving.iter().zip(grids).zip(found) {
                if rounded.cost < best[i].0.cost {
                    best[i] = (rounded, grid);
                    improved[i] = true;
                }
            }
        }
        improving.retain(|&i| improved[i]);
    }
    best.into_iter().map(|(_, grid)| grid).collect()
}

/// Codes of each row in each of its grids, those of the first row first.
fn round_grids(
    metric: &Metric,
    rows: &[Vec<f64>],
    layout: Layout,
    grids: &[RowGrid],
    steps: Steps,
) -> Vec<Rounded> {
    let columns: Vec<Vec<f64>> =
        grids.iter().map(|grid| grid.columns(layout.cols, layout.group)).collect();
    let targets = layout.targets(rows, &columns);
    round(metric, &targets, None, steps)
}

/// Codes of each target, from scratch or improving given codes.
fn round(
    metric: &Metric,
    targets: &[Target<'_>],
    codes: Option<&[i8]>,
    steps: Steps,
) -> Vec<Rounded> {
    let mut starts: Vec<(Target<'_>, Vec<i8>)> = Vec::new();
    if steps.has(Step::Gptq) {
        starts.extend(targets.iter().copied().zip(gptq(metric, targets)));
    }
    for target in targets {
        starts.push((*target, codes.map_or_else(|| nearest(*target), <[i8]>::to_vec)));
    }
    let mut found = finish(metric, starts, steps);
    let second = found.split_off(targets.len());
    for (first, second) in found.iter_mut().zip(second) {
        if second.cost < first.cost {
            *first = second;
        }
    }
    found
}

/// Coordinate descent if enabled, and the cost.
fn finish(metric: &Metric, starts: Vec<(Target<'_>, Vec<i8>)>, steps: Steps) -> Vec<Rounded> {
    descend(metric, starts, if steps.has(Step::Descent) { SWEEPS } else { 0 })
}

/// The first of those with the lowest cost.
fn lowest<T>(all: impl Iterator<Item = (Rounded, T)>) -> (Rounded, T) {
    let lower = |best: (Rounded, T), next: (Rounded, T)| {
        if next.0.cost < best.0.cost { next } else { best }
    };
    all.reduce(lower).expect("there is one")
}

/// Codes of every row, given scales as stored (per row, one per column).
pub(super) fn codes(
    rows: &[Vec<f64>],
    scales: &[Vec<f64>],
    metrics: &[Metric],
    statistics: &[Statistics],
    layout: Layout,
    steps: Steps,
) -> Vec<Vec<i8>> {
    let mut codes: Vec<Vec<i8>> = blocks(rows, metrics)
        .zip(scales.par_chunks(block_size(metrics)))
        .flat_map_iter(|((rows, metric), scales)| {
            let targets = layout.targets(rows, scales);
            round(metric, &targets, None, steps).into_iter().map(|rounded| rounded.codes)
        })
        .collect();
    // Errors compensate each other only in rows that read the same inputs.
    let ([metric], [statistics]) = (metrics, statistics) else { return codes };
    if let OutputMoments::Full(outputs) = &statistics.outputs
        && steps.has(Step::Outputs)
        && outputs.size == rows.len()
    {
        let trust = trust(rows.len(), statistics.rows);
        joint(rows, scales, metric, (outputs, trust), layout, steps, &mut codes);
    }
    codes
}

/// Cross-row error compensation: with all other rows fixed, row i costs G_ii · e A eᵀ for
/// the target w_i + Σ_{k≠i} G_ik / G_ii · e_k.
fn joint(
    rows: &[Vec<f64>],
    scales: &[Vec<f64>],
    metric: &Metric,
    (outputs, trust): (&Symmetric, f64),
    layout: Layout,
    steps: Steps,
    codes: &mut [Vec<i8>],
) {
    let cols = layout.cols;
    let mut errors: Vec<f64> = Vec::with_capacity(rows.len() * cols);
    for ((row, scales), codes) in rows.iter().zip(scales).zip(&*codes) {
        errors.extend(layout.target(row, scales).errors(codes));
    }
    for _ in 0..JOINT_PASSES {
        let mut changed = false;
        for i in 0..rows.len() {
            let weight = outputs.row(i);
            if weight[i] <= 0.0 {
                continue;
            }
            let mut shares: Vec<f64> = weight.iter().map(|w| trust * w / weight[i]).collect();
            shares[i] = 0.0;
            let mut target = rows[i].clone();
            simd(
                #[inline(always)]
                || add_rows(&errors, (cols, 0), &shares, &mut target),
            );
            let target = layout.target(&target, &scales[i]);
            let rounded = round(metric, &[target], Some(&codes[i]), steps).remove(0);
            if rounded.codes != codes[i] {
                let error = layout.target(&rows[i], &scales[i]).errors(&rounded.codes);
                errors[i * cols..][..cols].copy_from_slice(&error);
                codes[i] = rounded.codes;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}
