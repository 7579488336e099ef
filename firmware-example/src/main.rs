//! Runs a resnet-bk blob on a Cortex-M and says what it took.
//!
//! A causal blob continues a prompt; a full-chain one scores windows. Either way the firmware ends
//! with a digest of every logit that it computed, which the same core on a workstation reproduces
//! bit for bit.
//!
//! Lines without a log level are the program's output, one word naming each: `prompt`, `token`,
//! `text` and at the end `summary`. `build.rs` lists what may be set at build time.

#![no_std]
#![no_main]

mod job;

use resnet_bk_core::Error;
use resnet_bk_firmware::meter::Meter;
use resnet_bk_firmware::report::{self, Outcome};
use resnet_bk_firmware::{board, settings};

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { board::exit(1) };
    board::protect_stack(peripherals.MPU);
    report::end(run(&Meter::start(peripherals.SYST)))
}

fn run(meter: &Meter) -> Result<Outcome, Error> {
    let model = report::load(meter)?;
    if settings::SCORES_WINDOWS { job::score(model, meter) } else { job::generate(model, meter) }
}
