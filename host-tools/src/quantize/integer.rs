//! Scales and codes of a matrix in an integer precision.

use resnet_bk_schema::{Step, Steps, Storage};

use super::calibration::{OutputMoments, Statistics, Symmetric};
use super::code_search::{Metric, Rounded, Target, cost, descend, gptq, nearest, refit};
use super::grid::{self, Levels, RowGrid, nearest_multiple};

/// Damping of A as a fraction of its mean diagonal: larger for few samples per column, as for
/// experts that rarely get a token.
pub(super) fn damping(cols: usize, samples: usize) -> f64 {
    0.01 + 0.1 * cols as f64 / samples.max(1) as f64
}

/// Shrinkage of the off-diagonal of G: stronger for few samples per output.
fn trust(outputs: usize, samples: usize) -> f64 {
    0.9 * samples as f64 / (samples + outputs) as f64
}

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
}

/// Finds the scales of every row, before rounding to their stored form. `metrics` has one metric
/// for all rows, or one for each.
pub(super) fn scales(
    rows: &[Vec<f64>],
    metrics: &[Metric],
    layout: Layout,
    steps: Steps,
) -> Vec<RowGrid> {
    let row = |(weights, metric): (&Vec<f64>, &Metric)| {
        if !steps.has(Step::ScaleSearch) {
            return grid::plain(weights, layout.group, layout.levels);
        }
        let importance: Vec<f64> = metric.diagonal().collect();
        let first = grid::search(weights, &importance, layout.group, layout.levels);
        if steps.has(Step::Refit) { improve(weights, first, metric, layout, steps) } else { first }
    };
    rows.iter().zip(metrics.iter().cycle()).map(row).collect()
}

/// Tries units around the first, each with its own codes, then alternately refits scales and codes;
/// keeps the lowest cost.
fn improve(
    weights: &[f64],
    first: RowGrid,
    metric: &Metric,
    layout: Layout,
    steps: Steps,
) -> RowGrid {
    let try_grid = |grid: &RowGrid| {
        let scales = grid.columns(layout.cols, layout.group);
        round(metric, layout.target(weights, &scales), None, steps)
    };
    let mut best = (try_grid(&first), first.clone());
    for factor in [0.92, 0.96, 1.04, 1.08] {
        let grid = RowGrid { unit: first.unit * factor, ..first.clone() };
        let rounded = try_grid(&grid);
        if rounded.cost < best.0.cost {
            best = (rounded, grid);
        }
    }
    for _ in 0..REFITS {
        let scales = best.1.columns(layout.cols, layout.group);
        let target = layout.target(weights, &scales);
        let fitted = refit(metric, target, &best.0.codes, layout.group);
        let largest = fitted.iter().copied().fold(0.0, f64::max);
        let mut improved = false;
        for multiple in [15, 13, 11, 9].map(|m| m.min(layout.levels.multiple)) {
            let unit = largest / f64::from(multiple);
            let multiples =
                fitted.iter().map(|&step| nearest_multiple(step, unit, layout.levels)).collect();
            let grid = RowGrid { unit, multiples };
            let scales = grid.columns(layout.cols, layout.group);
            let codes = best.0.codes.clone();
            let rounded = finish(metric, layout.target(weights, &scales), codes, steps);
            if rounded.cost < best.0.cost {
                best = (rounded, grid);
                improved = true;
            }
        }
        if !improved {
            break;
        }
    }
    best.1
}

/// Codes of one row, from scratch or improving given codes.
fn round(metric: &Metric, target: Target<'_>, codes: Option<Vec<i8>>, steps: Steps) -> Rounded {
    let fresh = if steps.has(Step::Gptq) { Some(gptq(metric, target)) } else { None };
    let starts = [fresh, codes.or_else(|| Some(nearest(metric, target).codes))];
    let found = starts.into_iter().flatten().map(|codes| finish(metric, target, codes, steps));
    found.min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("there is always a start")
}

/// Coordinate descent if enabled, and the cost.
fn finish(metric: &Metric, target: Target<'_>, codes: Vec<i8>, steps: Steps) -> Rounded {
    if steps.has(Step::Descent) {
        descend(metric, target, codes)
    } else {
        Rounded { cost: cost(metric, target, &codes), codes }
    }
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
    let mut codes: Vec<Vec<i8>> = rows
        .iter()
        .zip(scales)
        .zip(metrics.iter().cycle())
        .map(|((weights, scales), metric)| {
            round(metric, layout.target(weights, scales), None, steps).codes
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
    let error = |i: usize, codes: &[i8]| -> Vec<f64> {
        let row = rows[i].iter().zip(&scales[i]).zip(codes);
        row.map(|((&w, &s), &c)| w - s * f64::from(c)).collect()
    };
    let mut errors: Vec<Vec<f64>> = (0..rows.len()).map(|i| error(i, &codes[i])).collect();
    for _ in 0..JOINT_PASSES {
        let mut changed = false;
        for i in 0..rows.len() {
            let weight = outputs.row(i);
            if weight[i] <= 0.0 {
                continue;
            }
            let mut target = rows[i].clone();
            for (k, error) in errors.iter().enumerate().filter(|&(k, _)| k != i) {
                let share = trust * weight[k] / weight[i];
                target.iter_mut().zip(error).for_each(|(t, e)| *t += share * e);
            }
            let target = layout.target(&target, &scales[i]);
            let rounded = round(metric, target, Some(codes[i].clone()), steps);
            if rounded.codes != codes[i] {
                errors[i] = error(i, &rounded.codes);
                codes[i] = rounded.codes;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}
