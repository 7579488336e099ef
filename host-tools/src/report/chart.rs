//! Points of several kinds on logarithmic axes.

use plotters::coord::Shift;
use plotters::prelude::*;

/// A drawing area of an SVG.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing returns.
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Points of one kind.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Red, green, blue.
    pub colour: (u8, u8, u8),
    /// Positive coordinates; others are left out.
    pub points: Vec<(f64, f64)>,
    /// A label for each point, or none.
    pub labels: Vec<String>,
    /// Whether a line joins the points, in their order.
    pub joined: bool,
}

/// Axes of a chart.
#[derive(Clone, Copy, Debug)]
pub struct Axes {
    /// What the horizontal axis measures.
    pub x: &'static str,
    /// What the vertical axis measures.
    pub y: &'static str,
    /// Decimal places of vertical labels.
    pub decimals: usize,
    /// Relative margin above and below the points.
    pub margin: f64,
    /// A dashed line at this height.
    pub level: Option<f64>,
}

/// A chart as SVG. Without any point it is empty.
pub fn chart(axes: &Axes, series: &[Series]) -> String {
    draw((940, 560), |area| fill(area, axes, series))
}

/// Draws an SVG of this size in pixels.
pub(super) fn draw(size: (u32, u32), content: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)
            .map_err(Box::from)
            .and_then(|()| content(&area))
            .and_then(|()| area.present().map_err(Box::from))
            .expect("a string takes everything that is drawn");
    }
    svg
}

/// Minimum and maximum of positive values, widened by the factor `margin`.
pub(super) fn span(values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    (low / margin, high * margin)
}

fn fill(area: &Area<'_>, axes: &Axes, series: &[Series]) -> Drawn {
    let drawn = |&&(x, y): &&(f64, f64)| x > 0.0 && y > 0.0 && x.is_finite() && y.is_finite();
    let all = || series.iter().flat_map(|series| series.points.iter().filter(drawn).copied());
    if all().next().is_none() {
        return Ok(());
    }
    let (left, right) = span(all().map(|point| point.0), 1.15);
    let (bottom, top) = span(all().map(|point| point.1).chain(axes.level), axes.margin);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
    let decimals = axes.decimals;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_label_formatter(&|x| if *x < 10.0 { format!("{x:.1}") } else { format!("{x:.0}") })
        .y_label_formatter(&|y| format!("{y:.decimals$}"))
        .light_line_style(WHITE)
        .draw()?;
    if let Some(level) = axes.level {
        let line = [(left, level), (right, level)];
        chart.draw_series(DashedLineSeries::new(line, 6, 4, BLACK.stroke_width(1)))?;
    }
    for Series { name, colour: (r, g, b), points, labels, joined } in series {
        let colour = RGBColor(*r, *g, *b);
        let labelled = labels.iter().zip(points).filter(|(_, point)| drawn(point));
        let points: Vec<(f64, f64)> = points.iter().filter(drawn).copied().collect();
        if points.is_empty() {
            continue;
        }
        if *joined {
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        }
        chart
            .draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
        chart.draw_series(labelled.map(|(label, &point)| {
            let font = ("sans-serif", 11).into_font().color(&colour);
            EmptyElement::at(point) + Text::new(label.clone(), (6, -12), font)
        }))?;
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}
