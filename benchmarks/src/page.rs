//! A page of plots from tables of models.

use std::path::PathBuf;

use resnet_bk_schema::statistics::with_error;
use resnet_bk_tools::files;
use resnet_bk_tools::report::{Axes, Plot, Series, Table, chart, document};
use serde::Deserialize;

type Failure = Box<dyn std::error::Error>;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tables as JSON: of `blocks --json`, compare.py and atome.py, or of `resnet-bk eval --json`.
    #[arg(required = true, value_name = "FILE")]
    tables: Vec<PathBuf>,
    /// Title of the page.
    #[arg(long, default_value = "Models by size")]
    title: String,
    /// HTML page to write; an older one is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What a file holds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum File {
    Figures(Figures),
    Evaluation(Evaluation),
}

/// Blobs scored by `resnet-bk eval`.
#[derive(Debug, Deserialize)]
struct Evaluation {
    corpus: String,
    errors_by: Option<String>,
    blobs: Vec<Blob>,
}

#[derive(Debug, Deserialize)]
struct Blob {
    path: String,
    blob_bytes: f64,
    bits_per_byte: Option<f64>,
    bits_per_byte_se: Option<f64>,
}

impl From<Evaluation> for Figures {
    fn from(Evaluation { corpus, errors_by, blobs }: Evaluation) -> Self {
        let line = |blob: Blob| {
            Some(Line {
                model: "resnet-bk, blobs".into(),
                storage: blob.path,
                bytes: blob.blob_bytes,
                bits_per_byte: blob.bits_per_byte?,
                bits_per_byte_se: blob.bits_per_byte_se,
                ..Line::default()
            })
        };
        let errors_by = errors_by.unwrap_or_else(|| "nothing".into());
        Self { text: corpus, errors_by, lines: blobs.into_iter().filter_map(line).collect() }
    }
}

/// Models in storages, on one text.
#[derive(Debug, Deserialize)]
struct Figures {
    text: String,
    errors_by: String,
    lines: Vec<Line>,
}

/// A model in one storage.
#[derive(Debug, Default, Deserialize)]
struct Line {
    model: String,
    storage: String,
    bytes: f64,
    bits_per_byte: f64,
    bits_per_byte_se: Option<f64>,
    bits_per_byte_sd_of_seeds: Option<f64>,
    difference: Option<f64>,
    difference_se: Option<f64>,
    state_bytes_fp32: Option<f64>,
    macs_per_token: Option<f64>,
}

/// Colours of models, in the order in which they first appear.
const COLOURS: [(u8, u8, u8); 8] = [
    (20, 20, 20),
    (200, 30, 40),
    (40, 90, 170),
    (20, 140, 90),
    (150, 90, 170),
    (210, 130, 20),
    (90, 160, 210),
    (120, 120, 120),
];

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut tables = Vec::new();
    for path in &args.tables {
        let file = serde_json::from_slice(&files::read(path)?)
            .map_err(|_| format!("{} is no table of models", path.display()))?;
        tables.push(match file {
            File::Figures(figures) => figures,
            File::Evaluation(evaluation) => evaluation.into(),
        });
    }
    let subjects = tables.iter().map(|table| {
        format!(
            "{}; ± are standard errors by {}, of seeds their deviation.",
            table.text, table.errors_by
        )
    });
    let mut subjects: Vec<String> = subjects.collect();
    subjects.dedup();
    let lines: Vec<&Line> = tables.iter().flat_map(|table| &table.lines).collect();
    let page = document(&args.title, &subjects.join(" "), &plots(&lines), &[figures(&lines)]);
    files::write_atomically(&args.out, page.as_bytes())?;
    println!("{}", args.out.display());
    Ok(())
}

fn plots(lines: &[&Line]) -> Vec<Plot> {
    let axes = |x| Axes { x, y: "bits per byte", decimals: 3, margin: 1.01, level: None };
    let fp32 = |line: &Line| line.storage == "fp32";
    let mut plots = vec![Plot {
        name: "bytes",
        title: "Bits per byte against bytes",
        caption: "Whole models with their tokenizers, in every storage. Lower and further left is better.",
        svg: chart(&axes("kilobytes (1000 bytes)"), &series(lines, |l| Some(l.bytes / 1000.0))),
    }];
    if lines.iter().any(|line| line.state_bytes_fp32.is_some()) {
        let state = |line: &Line| line.state_bytes_fp32.filter(|_| fp32(line));
        plots.push(Plot {
            name: "state",
            title: "Bits per byte against memory",
            caption: "What a stream keeps from one token to the next, in FP32; of attention, keys and values \
                      of a window. Weights in FP32.",
            svg: chart(&axes("kilobytes of state"), &series(lines, |l| Some(state(l)? / 1000.0))),
        });
        let macs = |line: &Line| line.macs_per_token.filter(|_| fp32(line));
        plots.push(Plot {
            name: "macs",
            title: "Bits per byte against work",
            caption: "Multiply-accumulates per token, in thousands. Weights in FP32.",
            svg: chart(
                &axes("thousand MACs per token"),
                &series(lines, |l| Some(macs(l)? / 1000.0)),
            ),
        });
    }
    plots
}

/// A series for each model, by increasing size.
fn series(lines: &[&Line], x: impl Fn(&Line) -> Option<f64>) -> Vec<Series> {
    let mut models: Vec<&str> = Vec::new();
    for line in lines {
        if !models.contains(&&*line.model) {
            models.push(&line.model);
        }
    }
    let one = |(index, model): (usize, &&str)| {
        let own = lines.iter().filter(|line| line.model == *model);
        let points = own.filter_map(|line| Some((x(line)?, line.bits_per_byte)));
        let mut points: Vec<(f64, f64)> = points.collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series {
            name: (*model).to_owned(),
            colour: COLOURS[index % COLOURS.len()],
            labels: Vec::new(),
            joined: points.len() > 1,
            points,
        }
    };
    models.iter().enumerate().map(one).collect()
}

fn figures(lines: &[&Line]) -> Table {
    let row = |line: &&Line| {
        let spread = line.bits_per_byte_sd_of_seeds.map_or("–".into(), |sd| format!("± {sd:.4}"));
        let difference = match line.difference {
            Some(value) => with_error(format!("{value:+.4}"), line.difference_se, 4),
            None => "–".into(),
        };
        let bits = with_error(format!("{:.4}", line.bits_per_byte), line.bits_per_byte_se, 4);
        let model = line.model.clone();
        (
            "",
            vec![
                model,
                line.storage.clone(),
                format!("{:.0}", line.bytes),
                bits,
                spread,
                difference,
            ],
        )
    };
    Table {
        heading: "Figures",
        columns: vec!["model", "storage", "bytes", "bits per byte", "of seeds", "to gated chain"],
        rows: lines.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_becomes_a_page() {
        let folder = std::env::temp_dir().join(format!("resnet-bk-page-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let table = folder.join("valid.json");
        let line = |model: &str, storage: &str, bytes: u32, bits: f64| {
            serde_json::json!({
                "model": model, "seeds": 3, "storage": storage, "bytes": bytes, "bits_per_byte": bits,
                "bits_per_byte_se": 0.02, "state_bytes_fp32": 4000, "macs_per_token": 1000,
            })
        };
        let lines = [
            line("ours", "fp32", 9000, 1.5),
            line("ours", "int4", 2000, 1.6),
            line("GRU", "fp32", 9000, 1.7),
        ];
        let json =
            serde_json::json!({ "text": "a text", "errors_by": "3 articles", "lines": lines });
        std::fs::write(&table, json.to_string()).unwrap();
        let out = folder.join("page.html");
        let args = Args { tables: vec![table.clone()], title: "Blocks".into(), out: out.clone() };
        run(&args).unwrap();
        let page = std::fs::read_to_string(&out).unwrap();
        assert_eq!(page.matches("<svg").count(), 3);
        for figure in ["1.6000 ± 0.0200", "3 articles", "GRU", "2000"] {
            assert!(page.contains(figure), "{figure}");
        }
        let blob = serde_json::json!({
            "path": "model.rbk", "blob_bytes": 1234, "bits_per_byte": 1.25, "bits_per_byte_se": null,
        });
        let json = serde_json::json!({ "corpus": "a text", "errors_by": null, "blobs": [blob] });
        std::fs::write(&table, json.to_string()).unwrap();
        run(&args).unwrap();
        let page = std::fs::read_to_string(&out).unwrap();
        assert!(page.contains("1234") && page.matches("<svg").count() == 1);
        std::fs::write(&table, "[]").unwrap();
        assert!(run(&args).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
