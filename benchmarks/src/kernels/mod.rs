//! Speed on the host: products against candle's, windows and generation against the FP32 reference.
//!
//! Absolute times on a shared machine mean little, so all figures are ratios of two computations
//! that alternate in this process, on one thread unless asked for more. Our kernels detect the
//! processor at run time; candle chooses at compile time, so this command must be built for the
//! processor it runs on.

mod alternate;
mod host;
mod model;
mod products;
mod row;

use std::error::Error;
use std::path::PathBuf;

use serde_json::{Value, json};

use row::Row;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoint (safetensors) for windows and generation.
    #[arg(default_value = "models/wikitext2/model.safetensors")]
    model: PathBuf,
    /// Policies of the blobs that are compared with the checkpoint.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "uniform-int4,static")]
    policies: Vec<String>,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 200, value_name = "N")]
    rounds: usize,
    /// Generate on so many threads, too.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Leave out windows and generation.
    #[arg(long)]
    products_only: bool,
    /// Leave out products.
    #[arg(long, conflicts_with = "products_only")]
    model_only: bool,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let missing: Vec<&str> =
        features().into_iter().filter(|f| f.present && !f.compiled).map(|f| f.name).collect();
    if !missing.is_empty() {
        let advice = "build with RUSTFLAGS=\"-C target-cpu=native\"";
        let missing = missing.join(", ");
        return Err(
            format!("candle was compiled without {missing}, which this CPU has: {advice}").into()
        );
    }
    // Inside the pool candle stays on its single thread.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let rows = pool.install(|| -> Result<_, String> {
        let mut rows = Vec::new();
        if !args.model_only {
            rows.extend(products::measure(args.rounds).map_err(|error| error.to_string())?);
        }
        if !args.products_only {
            let more = model::measure(&args.model, &args.policies, &args.threads, args.rounds);
            rows.extend(more.map_err(|error| error.to_string())?);
        }
        Ok(rows)
    })?;
    let built: Vec<&str> = features().into_iter().filter(|f| f.compiled).map(|f| f.name).collect();
    if args.json {
        let host: Vec<Value> = rows.iter().map(Row::to_json).collect();
        let result = json!({ "candle_compiled_for": built, "rounds": args.rounds, "host": host });
        println!("{result:#}");
        return Ok(());
    }
    println!("one thread, candle compiled for {}", built.join(", "));
    print_table(&rows);
    Ok(())
}

fn print_table(rows: &[Row]) {
    println!("{:>82}    AVX2 = 1", "");
    println!(
        "{:<36} {:>6} {:>7}  {:<14} {:>6}  {:<13} {:>5} {:>6} {:>6} {:>6}",
        "kernel",
        "inputs",
        "outputs",
        "against",
        "ratio",
        "quartiles",
        "VNNI",
        "chosen",
        "GB/s",
        "of sum"
    );
    for Row { kernel, inputs, outputs, against, ratio, sets, reading } in rows {
        let [low, high] = ratio.quartiles;
        let median = ratio.median;
        let [vnni, chosen] = sets.map_or(["".to_owned(), "".to_owned()], |sets| {
            sets.medians().map(|ratio| format!("{ratio:.2}"))
        });
        let [speed, share] = reading.map_or(["".to_owned(), "".to_owned()], |reading| {
            let speed = format!("{:.1}", reading.gigabytes_per_second());
            [speed, format!("{:.2}", reading.beside_sum())]
        });
        let quartiles = format!("{low:.2} to {high:.2}");
        println!(
            "{kernel:<36} {inputs:>6} {outputs:>7}  {against:<14} {median:>6.2}  {quartiles:<13} \
             {vnni:>5} {chosen:>6} {speed:>6} {share:>6}"
        );
    }
}

/// An extension that candle has kernels for or that its conversions use.
struct Feature {
    name: &'static str,
    /// Whether this program, and candle in it, was compiled for it.
    compiled: bool,
    /// Whether the processor has it.
    present: bool,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! features {
    ($detected:ident: $($name:tt),*) => {
        vec![$(Feature {
            name: $name,
            compiled: cfg!(target_feature = $name),
            present: std::arch::$detected!($name),
        }),*]
    };
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<Feature> {
    features!(is_x86_feature_detected: "avx2", "fma", "f16c", "avx512vnni")
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<Feature> {
    features!(is_aarch64_feature_detected: "neon", "dotprod")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<Feature> {
    vec![]
}
