//! `cargo xtask demo`: from the FP32 checkpoint to a microcontroller that computes the same bits.

mod report;

use std::fs;

use anyhow::{Context, Result, ensure};
use resnet_bk_core::Model;

use crate::firmware::{Firmware, Job, Sampling};
use crate::steps::Steps;
use crate::terminal::{Stderr, Stdout};
use crate::tools::{Generated, SubjectArgs, Tools};
use crate::{process, qemu, reference, setup, target_dir};
use report::{Device, Report};

/// The compared policies: name, and argument of `quantize --policy`.
const POLICIES: [(&str, &str); 5] = [
    ("static", "static"),
    ("dynamic", "dynamic"),
    ("uniform-int8", "uniform-int8"),
    ("uniform-int4", "uniform-int4"),
    ("compact", "policies/compact.toml"),
];
/// The fine-tuned blob that a model may have beside its checkpoint: file, and name here.
const SHIPPED: (&str, &str) = ("shipped", "model.rbk");
/// The policy whose blob runs on the device if the model has no shipped blob.
const DEVICE_POLICY: &str = "static";
/// Prompt for the device.
const PROMPT: &str = "The castle was built in";
const TOKENS: usize = 128;
/// Calibration tokens: a quarter of the default, since the model may have to sample them first.
const CALIBRATION: &str = "16384";
const SAMPLING: Sampling =
    Sampling { temperature: 0.8, top_k: 40, top_p: 1.0, repetition_penalty: 1.0, seed: 1 };
/// Job of the device if the model cannot generate.
const WINDOWS: Job = Job::Score { windows: 4, seed: 1 };

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
}

/// Runs the demo.
pub fn run(args: &Args) -> Result<()> {
    let steps = Steps::new(6);
    steps.next("setting up: Rust targets, QEMU, the tools");
    setup::run_setup()?;
    let model = args.subject.model();
    let tools = Tools::build(&model, args.subject.corpus.as_deref(), "demo", &[])?;

    steps.next("measuring how much each layer matters");
    let importance = tools.analyze("importance", &["--tokens", CALIBRATION])?;

    steps.next("quantizing");
    let (mut names, mut blobs) = (POLICIES.map(|(name, _)| name).to_vec(), Vec::new());
    for (name, policy) in POLICIES {
        writeln!(Stderr, "      {name}");
        blobs.push(
            tools
                .quantize(
                    name,
                    &["--policy", policy, "--calibration-tokens", CALIBRATION],
                    &importance,
                )?
                .0,
        );
    }

    let shipped = model.join(SHIPPED.1);
    let on_device = if shipped.is_file() {
        names.push(SHIPPED.0);
        blobs.push(shipped);
        SHIPPED.0
    } else {
        DEVICE_POLICY
    };

    steps.next("evaluating every blob through the integer path");
    let evaluation = tools.evaluate(&blobs, &[])?;
    let policies = report::policies(&names, &evaluation)?;

    steps.next("running the device in QEMU");
    let place = names.iter().position(|name| *name == on_device);
    let blob = place.and_then(|place| blobs.get(place)).context("no blob for the device")?;
    let bytes = fs::read(blob).with_context(|| format!("cannot read {}", blob.display()))?;
    let job = match Model::from_bytes(&bytes)?.is_causal() {
        true => Job::Generate { prompt: PROMPT.to_owned(), tokens: TOKENS, sampling: SAMPLING },
        false => WINDOWS,
    };
    let elf = target_dir().join("demo/firmware.elf");
    Firmware::new(blob, job.clone()).build(&elf)?;
    let run = qemu::run(&elf, qemu::Options::default())?;
    let summary = run.success()?;

    steps.next("computing the same on this machine");
    let host = match &job {
        Job::Generate { prompt, tokens, sampling } => {
            tools.generate(blob, prompt, *tokens, *sampling)?
        }
        Job::Score { .. } => Generated { digest: reference::run(&bytes, &job)?.digest },
    };

    let device = Device {
        matches_host: summary.digest == host.digest,
        host_digest: host.digest,
        policy: on_device,
        prompt: if let Job::Generate { prompt, .. } = job { prompt } else { String::new() },
        text: run.text.clone(),
        summary: summary.clone(),
    };
    let report = Report {
        model: process::shown_path(&model),
        fp32_bytes: evaluation.fp32_bytes.context("`eval` gave no checkpoint")?,
        corpus: evaluation.corpus,
        errors_by: evaluation.errors_by,
        policies,
        device,
        seconds: steps.seconds(),
    };
    if args.subject.json {
        writeln!(Stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(Stdout, "{report}")?;
    }
    ensure!(
        report.device.matches_host,
        "the device's logits differ from the host's ({} and {}): please report this with the blob \
         {}",
        report.device.summary.digest,
        report.device.host_digest,
        process::shown_path(blob)
    );
    Ok(())
}
