//! Plots as SVG.

use std::collections::BTreeSet;

use plotters::prelude::*;

use super::chart::{Area, Axes, Drawn, Series, chart, draw, span};
use super::{Findings, Part};
use resnet_bk_schema::Storage;
use resnet_bk_schema::frontier::{Kind, Row};

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// File name, without extension.
    pub name: &'static str,
    /// Title.
    pub title: &'static str,
    /// Caption.
    pub caption: &'static str,
    /// The image.
    pub svg: String,
}

/// Kinds of points: name in legends, colour.
const KINDS: [(Kind, &str, RGBColor); 8] = [
    (Kind::Tuned, "budget, fine-tuned", RGBColor(20, 20, 20)),
    (Kind::Budget, "budget", RGBColor(200, 30, 40)),
    (Kind::Uniform, "uniform precision", RGBColor(40, 90, 170)),
    (Kind::Static, "static (published)", RGBColor(20, 140, 90)),
    (Kind::Dynamic, "dynamic (published)", RGBColor(150, 90, 170)),
    (Kind::File, "policy file", RGBColor(120, 120, 120)),
    (Kind::General, "candle, weights only", RGBColor(210, 130, 20)),
    (Kind::Whole, "budget, tensors whole", RGBColor(235, 150, 160)),
];
/// Kinds whose points are connected by a line instead of labelled.
const JOINED: [Kind; 2] = [Kind::Tuned, Kind::Budget];
/// Colours of the parts of a blob.
const PARTS: [RGBColor; 7] = [
    RGBColor(40, 90, 170),
    RGBColor(230, 150, 60),
    RGBColor(200, 90, 40),
    RGBColor(20, 140, 90),
    RGBColor(150, 90, 170),
    RGBColor(90, 160, 210),
    RGBColor(150, 150, 150),
];

/// All plots with data to show.
pub fn plots(findings: &Findings) -> Vec<Plot> {
    let mut plots = vec![
        Plot {
            name: "kl",
            title: "Size against KL divergence",
            caption: "Whole blobs against the mean KL divergence to FP32 in nats per token. Lower and \
                      further left is better; lines join the budgets, as quantized and fine-tuned.",
            svg: scatter(findings, Measure::Kl),
        },
        Plot {
            name: "perplexity",
            title: "Size against perplexity",
            caption: "The same points by perplexity; the dashed line is FP32.",
            svg: scatter(findings, Measure::Perplexity),
        },
    ];
    if !findings.sensitivities.is_empty() {
        let height = 90 + 14 * findings.sensitivities.len() as u32;
        plots.push(Plot {
            name: "sensitivities",
            title: "What each tensor costs in each precision",
            caption: "KL divergence in nats per token when only this tensor is quantized; the darker, \
                      the more it costs.",
            svg: draw((940, height), |area| heat_map(area, findings)),
        });
    }
    if !findings.blobs.is_empty() {
        let height = 120 + 44 * findings.blobs.len() as u32;
        plots.push(Plot {
            name: "bytes",
            title: "Where the bytes go",
            caption: "Bytes of each part of a blob.",
            svg: draw((940, height), |area| bars(area, findings)),
        });
    }
    if findings.frontier.rows.iter().any(|row| row.predicted_kl.is_some()) {
        plots.push(Plot {
            name: "prediction",
            title: "Predicted against measured KL divergence",
            caption: "Of each budget's mix: the sum of what its tensors cost on their own against what they \
                      cost together, weights only, on the text that they were chosen on. On the line they \
                      are equal.",
            svg: draw((560, 480), |area| prediction(area, findings)),
        });
    }
    plots
}

/// The quality axis of a plot against size.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Kl,
    Perplexity,
}

impl Measure {
    fn of(self, row: &Row) -> f64 {
        match self {
            // Zero has no place on a logarithmic axis.
            Self::Kl => row.kl.max(1e-7),
            Self::Perplexity => row.ppl,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Kl => "KL, nats per token",
            Self::Perplexity => "perplexity",
        }
    }
}

fn scatter(findings: &Findings, measure: Measure) -> String {
    let frontier = &findings.frontier;
    let perplexity = measure == Measure::Perplexity;
    let axes = Axes {
        x: "kilobytes (1000 bytes)",
        y: measure.label(),
        decimals: if perplexity { 1 } else { 4 },
        margin: if perplexity { 1.02 } else { 1.2 },
        level: perplexity.then_some(frontier.ppl_fp32),
    };
    let series = KINDS.map(|(kind, name, RGBColor(r, g, b))| {
        let joined = JOINED.contains(&kind);
        let point = |row: &Row| (row.blob_bytes as f64 / 1000.0, measure.of(row));
        let labels = frontier.of(kind).filter(|_| !joined).map(|row| row.name.clone());
        Series {
            name: name.to_owned(),
            colour: (r, g, b),
            points: frontier.of(kind).map(point).collect(),
            labels: labels.collect(),
            joined,
        }
    });
    chart(&axes, &series)
}

/// Colour scale from white to dark red over six powers of ten.
fn heat(kl: f64) -> RGBColor {
    let level = ((kl.max(1e-9).log10() + 6.5) / 6.0).clamp(0.0, 1.0);
    let mix = |from: f64, to: f64| (from + (to - from) * level) as u8;
    RGBColor(mix(255.0, 150.0), mix(250.0, 20.0), mix(240.0, 30.0))
}

fn heat_map(area: &Area<'_>, findings: &Findings) -> Drawn {
    let table = &findings.sensitivities;
    let storages: BTreeSet<Storage> =
        table.values().flat_map(|costs| costs.keys().copied()).collect();
    let (left, top, height) = (330, 40, 14);
    let width = (940 - left - 20) / storages.len().max(1) as i32;
    let text = |size| ("sans-serif", size).into_font().color(&BLACK);
    for (column, storage) in storages.iter().enumerate() {
        let x = left + width * column as i32;
        area.draw(&Text::new(storage.to_string(), (x + 4, top - 18), text(12)))?;
    }
    for (row, (name, costs)) in table.iter().enumerate() {
        let y = top + height * row as i32;
        area.draw(&Text::new(name.trim_end_matches(".weight").to_owned(), (8, y + 1), text(11)))?;
        for (column, storage) in storages.iter().enumerate() {
            let Some(&kl) = costs.get(storage) else { continue };
            let x = left + width * column as i32;
            let cell = [(x, y), (x + width - 1, y + height - 1)];
            area.draw(&Rectangle::new(cell, heat(kl).filled()))?;
            area.draw(&Text::new(format!("{kl:.0e}"), (x + 6, y + 2), text(10)))?;
        }
    }
    Ok(())
}

fn bars(area: &Area<'_>, findings: &Findings) -> Drawn {
    let total = |parts: &[(Part, usize)]| parts.iter().map(|part| part.1).sum::<usize>();
    let largest = findings.blobs.iter().map(|(_, parts)| total(parts)).max().unwrap_or(1);
    let text = || ("sans-serif", 12).into_font().color(&BLACK);
    let (left, width) = (150, 680.0);
    for (index, (name, parts)) in findings.blobs.iter().enumerate() {
        let y = 20 + 44 * index as i32;
        area.draw(&Text::new(name.clone(), (8, y + 8), text()))?;
        let mut before = 0;
        let place = |bytes: usize| left + (width * bytes as f64 / largest as f64) as i32;
        for (&(_, bytes), colour) in parts.iter().zip(PARTS) {
            let corners = [(place(before), y), (place(before + bytes), y + 28)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
            before += bytes;
        }
        area.draw(&Text::new(before.to_string(), (place(before) + 6, y + 8), text()))?;
    }
    let y = 30 + 44 * findings.blobs.len() as i32;
    for (index, (part, colour)) in Part::ALL.into_iter().zip(PARTS).enumerate() {
        let (x, y) = (left + 200 * (index as i32 % 4), y + 24 * (index as i32 / 4));
        area.draw(&Rectangle::new([(x, y), (x + 12, y + 12)], colour.filled()))?;
        area.draw(&Text::new(part.name(), (x + 18, y), text()))?;
    }
    Ok(())
}

fn prediction(area: &Area<'_>, findings: &Findings) -> Drawn {
    let rows = &findings.frontier.rows;
    let points: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| row.predicted_kl.zip(row.measured_kl)).collect();
    let (low, high) = span(points.iter().flat_map(|&(x, y)| [x.max(1e-7), y.max(1e-7)]), 1.3);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d((low..high).log_scale(), (low..high).log_scale())?;
    let label = |v: &f64| format!("{v:.4}");
    chart
        .configure_mesh()
        .x_desc("predicted KL")
        .y_desc("measured KL")
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series(LineSeries::new([(low, low), (high, high)], BLACK.mix(0.4)))?;
    let colour = KINDS[1].2;
    chart.draw_series(points.into_iter().map(|point| Circle::new(point, 4, colour.filled())))?;
    Ok(())
}
