//! The commands that are measured.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wait4::Wait4;

use super::busiest;
use super::models::Kind;

/// Names of the steps, in an order in which the files that each needs are there.
pub(super) const NAMES: [&str; 7] =
    ["inspect", "static", "arrange", "target", "eval", "finetune", "generate"];

/// One command with its arguments.
pub(super) struct Run(Vec<&'static str>);

/// What a command took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Cost {
    /// From start to end.
    pub(super) seconds: f64,
    /// Of all threads.
    pub(super) cpu_seconds: f64,
    /// Of the thread that worked most, where it is known.
    #[serde(default)]
    pub(super) busiest_seconds: Option<f64>,
    /// Largest resident memory.
    pub(super) peak_bytes: u64,
}

impl Run {
    /// The command of a step; `None` for text from a model that cannot write any.
    pub(super) fn of(step: &str, kind: Kind) -> Option<Self> {
        const MODEL: &str = "model.safetensors";
        Some(Self(match step {
            "inspect" => vec!["inspect", MODEL],
            "static" => vec!["quantize", MODEL, "--policy", "static", "--out", "static.rbk"],
            "arrange" => vec!["analyze", MODEL, "--part", "0/1", "--out", "arranged.json"],
            "target" => vec!["quantize", MODEL, "--target-ratio", "6", "--out", "target.rbk"],
            "eval" => vec!["eval", MODEL, "static.rbk", "--tokens", "16384"],
            "finetune" => vec![
                "finetune",
                MODEL,
                "--blob",
                "static.rbk",
                "--train-tokens",
                "65536",
                "--validation-tokens",
                "8192",
                "--rounds",
                "1",
                "--out",
                "tuned.rbk",
            ],
            _ if kind == Kind::Published => return None,
            _ => vec!["generate", "static.rbk", "--ids", "1", "--tokens", "256"],
        }))
    }

    /// Runs the command in `place` on so many threads (of 0: as many as there are cores), without
    /// any corpus in the environment.
    pub(super) fn measure(
        &self,
        program: &Path,
        threads: usize,
        place: &Path,
    ) -> Result<Cost, Box<dyn Error>> {
        let started = Instant::now();
        let mut command = Command::new(program.canonicalize()?);
        command.args(&self.0).current_dir(place).env_remove("WIKITEXT2_DIR").stdout(Stdio::null());
        if threads > 0 {
            command.args(["--threads", &threads.to_string()]);
        }
        let mut child = command.spawn()?;
        let (id, ended) = (child.id(), AtomicBool::new(false));
        let (done, busiest_seconds) = thread::scope(|scope| {
            let busiest = scope.spawn(|| busiest::watch(id, &ended));
            let done = child.wait4();
            ended.store(true, Ordering::Relaxed);
            (done, busiest.join().unwrap_or_default())
        });
        let done = done?;
        if !done.status.success() {
            return Err(format!("`resnet-bk {}` failed", self.0.join(" ")).into());
        }
        let used = done.rusage;
        Ok(Cost {
            seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: (used.utime + used.stime).as_secs_f64(),
            busiest_seconds,
            peak_bytes: used.maxrss,
        })
    }
}
