//! Runs a resnet-bk blob on a Cortex-M and reports its cost.
//!
//! A causal blob continues a prompt; a full-chain one scores windows. The firmware ends with a
//! digest of every computed logit, which a host reproduces bit for bit.
//!
//! Lines without a log level are the program's output and begin with a keyword: `prompt`, `token`,
//! `text` and at the end `summary`. `build.rs` lists the build-time settings.

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
    report::end(run(&Meter::start(peripherals.SYST)), report::summary)
}

fn run(meter: &Meter) -> Result<Outcome, Error> {
    let model = report::load(meter)?;
    if settings::SCORES_WINDOWS { job::score(model, meter) } else { job::generate(model, meter) }
}
