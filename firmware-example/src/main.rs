//! Runs a resnet-bk blob on a Cortex-M and says what it took.
//!
//! A causal blob continues a prompt; a full-chain one scores windows. Either way the firmware ends
//! with a digest of every logit, which the same core on a workstation reproduces bit for bit.
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
    if settings::SCORES_WINDOWS { job::score(&model, meter) } else { job::generate(&model, meter) }
}

/// Prints what the run amounted to, as `key=value` pairs for people and programs alike.
fn summarize(outcome: &Outcome) {
    let stack = memory::stack_high_water();
    defmt::println!(
        "summary tokens={=u32} steps={=u32} digest={=u32:08x} instructions_per_token={=u64} \
         session_bytes={=usize} stack_bytes={=usize} ram_bytes={=usize} flash_bytes={=usize}",
        outcome.tokens,
        outcome.digest.steps(),
        outcome.digest.value(),
        outcome.instructions / u64::from(outcome.digest.steps().max(1)),
        4 * settings::MEMORY_WORDS,
        stack,
        memory::static_bytes() + stack,
        memory::flash_bytes(),
    );
}
