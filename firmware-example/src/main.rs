//! Runs a resnet-bk blob on a Cortex-M and says what it took.
//!
//! A causal blob continues a prompt; a full-chain one scores windows. Either way the firmware ends
//! with a digest of every logit that it computed, which the same core on a workstation reproduces bit for bit.
//!
//! Lines without a log level are the program's output, one word naming each: `prompt`, `token`,
//! `text` and at the end `summary`. What may be set at build time stands in `build.rs`.

#![no_std]
#![no_main]

mod board;
mod fault;
mod job;
mod memory;
mod meter;
mod settings;
mod storage;

use resnet_bk_core::kernels::Reason;
use resnet_bk_core::{Error, Model};

use crate::job::Outcome;
use crate::meter::Meter;

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { board::exit(1) };
    board::protect_stack(peripherals.MPU);
    match run(&Meter::start(peripherals.SYST)) {
        Ok(outcome) => {
            summarize(&outcome);
            board::exit(0)
        }
        Err(error) => {
            defmt::error!("{}", error);
            board::exit(1)
        }
    }
}

fn run(meter: &Meter) -> Result<Outcome, Error> {
    let started = meter.instructions();
    let model = Model::from_bytes(settings::BLOB)?;
    let spent = meter.instructions() - started;
    let provenance = model.provenance();
    defmt::info!("{=str}", board::NAME);
    defmt::info!("{} policy {=str}", model.dims(), provenance.policy);
    defmt::info!(
        "{=usize} bytes of blob checked in {=u64} instructions",
        settings::BLOB.len(),
        spent
    );
    report_kernels(&model);
    if settings::SCORES_WINDOWS { job::score(&model, meter) } else { job::generate(&model, meter) }
}

/// Says how many tensors have a fast kernel, and warns where they would if the blob lay elsewhere.
fn report_kernels(model: &Model<'_>) {
    let (mut all, mut fast, mut unaligned) = (0u32, 0u32, 0u32);
    for (_, choice) in model.kernels() {
        all += 1;
        fast += u32::from(choice.fallback.is_none());
        unaligned += u32::from(choice.fallback == Some(Reason::Alignment));
    }
    defmt::info!("fast kernels for {=u32} of {=u32} tensors", fast, all);
    if unaligned > 0 {
        defmt::warn!(
            "{=u32} tensors are slow because the blob is not aligned: include it by include_blob!",
            unaligned
        );
    }
}

/// Prints what the run amounted to, as `key=value` pairs for people and programs alike.
fn summarize(outcome: &Outcome) {
    let stack = memory::stack_high_water();
    defmt::println!(
        "summary tokens={=u32} steps={=u32} digest={=u32:08x} instructions_per_token={=u64} \
         fed={=u32} instructions_per_fed_token={=u64} session_bytes={=usize} stack_bytes={=usize} \
         ram_bytes={=usize} flash_bytes={=usize}",
        outcome.tokens,
        outcome.digest.steps(),
        outcome.digest.value(),
        outcome.instructions / u64::from(outcome.digest.steps().max(1)),
        outcome.fed,
        outcome.fed_instructions / u64::from(outcome.fed.max(1)),
        4 * settings::MEMORY_WORDS,
        stack,
        memory::static_bytes() + stack,
        memory::flash_bytes(),
    );
}
