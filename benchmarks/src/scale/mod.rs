//! Time and peak memory of every command for models of growing size.

mod busiest;
mod command;
mod growth;
mod models;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use resnet_bk_tools::files;
use serde_json::{Value, json};

use command::{Cost, Run};
use models::{KINDS, Kind, SIZES, Size};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory for models, blobs and what was measured; what is there is not measured again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The command to measure [default: the resnet-bk beside this program].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Kind of the models.
    #[arg(long, value_name = "KIND", default_value = "published", value_parser = KINDS)]
    kind: String,
    /// Sizes, by millions of parameters.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_values = SIZES.map(|size| size.name))]
    #[arg(value_parser = SIZES.map(|size| size.name))]
    sizes: Vec<String>,
    /// Steps to measure.
    #[arg(long, value_name = "STEP", value_delimiter = ',', default_values = command::NAMES)]
    #[arg(value_parser = command::NAMES)]
    steps: Vec<String>,
    /// Threads of every command; 0 for as many as there are cores.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Trained models whose weights the made ones resemble.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    #[arg(default_values = ["models/wikitext2/model.safetensors", "models/small-seed2/model.safetensors"])]
    like: Vec<PathBuf>,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Cost of each step by size and step.
type Costs = BTreeMap<(String, String), Cost>;

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let program = args.program.clone().map_or_else(beside, Ok)?;
    let kind = Kind::of(&args.kind);
    let directory = args.out.join(&args.kind);
    files::create_directory(&directory)?;
    let sizes: Vec<&Size> =
        SIZES.iter().filter(|s| args.sizes.iter().any(|n| n == s.name)).collect();
    let mut costs = Costs::new();
    for size in &sizes {
        let place = directory.join(size.name);
        files::create_directory(&place)?;
        if !place.join("model.safetensors").exists() {
            eprintln!("making a model of {} million parameters", size.name);
            models::make(kind, size, &args.like, &place)?;
        }
        for step in &args.steps {
            let Some(run) = Run::of(step, kind) else { continue };
            let name = match args.threads {
                0 => step.clone(),
                threads => format!("{step}-{threads}"),
            };
            let cost = kept(&place, &name, || {
                eprintln!("{} million parameters: {step}", size.name);
                run.measure(&program, args.threads, &place)
            })?;
            costs.insert((size.name.to_owned(), step.clone()), cost);
        }
    }
    if args.json {
        println!("{:#}", to_json(kind, &sizes, &args.steps, &costs));
    } else {
        print(kind, &sizes, &args.steps, &costs);
    }
    Ok(())
}

/// The command that cargo builds beside this program.
fn beside() -> Result<PathBuf, Box<dyn Error>> {
    let program = std::env::current_exe()?.with_file_name("resnet-bk");
    if program.exists() {
        return Ok(program);
    }
    Err(format!(
        "there is no {}: build it with `cargo build --release -p resnet-bk-tools`",
        program.display()
    )
    .into())
}

/// The cost in the file of this name, which `measure` fills if there is none.
fn kept(
    place: &Path,
    name: &str,
    measure: impl FnOnce() -> Result<Cost, Box<dyn Error>>,
) -> Result<Cost, Box<dyn Error>> {
    let path = place.join(format!("{name}.json"));
    if path.exists() {
        return Ok(serde_json::from_slice(&files::read(&path)?)?);
    }
    let cost = measure()?;
    files::write_atomically(&path, &serde_json::to_vec(&cost)?)?;
    Ok(cost)
}

/// Costs of a step by number of parameters.
fn of_step(kind: Kind, sizes: &[&Size], step: &str, costs: &Costs) -> Vec<(f64, Cost)> {
    let cost = |size: &&Size| {
        let cost = costs.get(&(size.name.to_owned(), step.to_owned()))?;
        Some((size.config(kind).parameters() as f64, *cost))
    };
    sizes.iter().filter_map(cost).collect()
}

/// Exponents of time and memory of a step; `None` for fewer than two sizes.
fn exponents(points: &[(f64, Cost)]) -> Option<[f64; 2]> {
    let of = |value: fn(&Cost) -> f64| {
        growth::exponent(
            &points.iter().map(|(size, cost)| (*size, value(cost))).collect::<Vec<_>>(),
        )
    };
    Some([of(|cost| cost.cpu_seconds)?, of(|cost| cost.peak_bytes as f64)?])
}

fn print(kind: Kind, sizes: &[&Size], steps: &[String], costs: &Costs) {
    println!(
        "CPU seconds, those of the busiest thread, seconds and peak memory in MB by millions of \
         parameters; growth exponents"
    );
    print!("{:<12}", "");
    sizes.iter().for_each(|size| print!("{:>35}", size.name));
    println!("{:>8}{:>8}", "CPU", "memory");
    for step in steps {
        let points = of_step(kind, sizes, step, costs);
        if points.is_empty() {
            continue;
        }
        print!("{step:<12}");
        for (_, Cost { seconds, cpu_seconds, busiest_seconds, peak_bytes }) in &points {
            let busiest = busiest_seconds.map_or_else(String::new, |busy| format!("{busy:.1}"));
            let megabytes = *peak_bytes as f64 / 1e6;
            print!("{cpu_seconds:>9.1}{busiest:>9}{seconds:>9.1}{megabytes:>8.0}");
        }
        match exponents(&points) {
            Some([time, memory]) => println!("{time:>8.2}{memory:>8.2}"),
            None => println!(),
        }
    }
}

fn to_json(kind: Kind, sizes: &[&Size], steps: &[String], costs: &Costs) -> Value {
    let of_step = |step: &String| {
        let points = of_step(kind, sizes, step, costs);
        let exponents = exponents(&points);
        let rows: Vec<Value> = points
            .iter()
            .map(|(parameters, cost)| json!({ "parameters": parameters, "cost": cost }))
            .collect();
        json!({
            "step": step, "sizes": rows, "cpu_exponent": exponents.map(|e| e[0]),
            "memory_exponent": exponents.map(|e| e[1]),
        })
    };
    json!({ "steps": steps.iter().map(of_step).collect::<Vec<_>>() })
}
