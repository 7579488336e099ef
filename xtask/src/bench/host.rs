//! This machine's kernels against candle's and the FP32 reference.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::measured::Ratio;
use crate::tools::BENCHMARKS;
use crate::{process, root, target_dir};

/// The part of the benchmark's output used here.
#[derive(Deserialize)]
struct Printed {
    host: Vec<Ratio>,
}

/// Builds the benchmark for this processor, which candle needs, and runs it. The build has its own
/// directory, because changed target flags would rebuild everything in a shared one.
pub(super) fn measure() -> Result<Vec<Ratio>> {
    let target = target_dir().join("native");
    let mut build = process::cargo();
    build.args(["build", "--release", "--quiet", "--package", BENCHMARKS]);
    build.env("RUSTFLAGS", "-C target-cpu=native").env("CARGO_TARGET_DIR", &target);
    process::run(build.current_dir(root()))?;
    let program =
        target.join("release").join(BENCHMARKS).with_extension(std::env::consts::EXE_EXTENSION);
    let mut command = std::process::Command::new(program);
    let printed = process::output(command.args(["kernels", "--json"]).current_dir(root()))?;
    let printed: Printed =
        serde_json::from_slice(&printed).context("the benchmark printed no table of ratios")?;
    Ok(printed.host)
}
