//! Suggests how the prompt goes on, as a keyboard on a device would.
//!
//! Lines without a log level: `prompt`, `suggestion` with a probability and the word, and at the
//! end `suggested` with the cost. `resnet-bk suggest BLOB PROMPT --count 3 --steps 16` prints the
//! same.

#![no_std]
#![no_main]

use resnet_bk_core::Error;
use resnet_bk_core::suggest::{Suggester, Suggestion, Unit};
use resnet_bk_firmware::meter::Meter;
use resnet_bk_firmware::settings::{DIMS, PROMPT};
use resnet_bk_firmware::{board, report, storage};
use static_cell::ConstStaticCell;

/// Suggestions.
const COUNT: usize = 3;
/// How often the model may be asked.
const STEPS: usize = 16;

/// Room for two tokens per byte of the prompt.
static TOKENS: ConstStaticCell<[u32; 2 * PROMPT.len()]> =
    ConstStaticCell::new([0; 2 * PROMPT.len()]);
/// The model's state after the whole words of the prompt.
static STATE: ConstStaticCell<[u8; DIMS.context_len()]> =
    ConstStaticCell::new([0; DIMS.context_len()]);

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { board::exit(1) };
    board::protect_stack(peripherals.MPU);
    report::end(suggest(&Meter::start(peripherals.SYST)), report::suggested)
}

/// Prints the suggestions and returns their instructions.
fn suggest(meter: &Meter) -> Result<u64, Error> {
    let session = storage::session(report::load(meter)?)?;
    let mut suggester = Suggester::new(session, TOKENS.take(), STATE.take())?;
    defmt::println!("prompt {=[u8]:a}", PROMPT.as_bytes());
    let mut found = [Suggestion::NONE; COUNT];
    let started = meter.instructions();
    let count = suggester.suggest(PROMPT.as_bytes(), Unit::Word, STEPS, &mut found)?;
    let instructions = meter.instructions() - started;
    for suggestion in &found[..count] {
        defmt::println!("suggestion {=f32} {=[u8]:a}", suggestion.probability(), suggestion.text());
    }
    Ok(instructions)
}
