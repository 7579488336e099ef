//! Compresses messages as a sensor or a tracker would send them, and decompresses what the host
//! compressed.
//!
//! Lines without a log level: `code` with the bytes of each of the messages as hexadecimal digits,
//! `read` with the text of each of the codes, at the end `exchanged` with the cost. `resnet-bk
//! compress BLOB messages.txt --hex --check 16 --identity` prints the same codes.

#![no_std]
#![no_main]

use resnet_bk_core::coder::{Check, Framing, Start};
use resnet_bk_core::{Codec, Error};
use resnet_bk_firmware::meter::Meter;
use resnet_bk_firmware::settings::{CODES, LONGEST_MESSAGE, MESSAGES};
use resnet_bk_firmware::{board, report, storage};
use static_cell::ConstStaticCell;

/// What both ends add to a message: it names the model, and damage is noticed.
const FRAMING: Framing = Framing { identity: true, check: Check::Bits16 };

/// Room for a token per byte.
static TOKENS: ConstStaticCell<[u32; LONGEST_MESSAGE]> = ConstStaticCell::new([0; LONGEST_MESSAGE]);

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { board::exit(1) };
    board::protect_stack(peripherals.MPU);
    report::end(exchange(&Meter::start(peripherals.SYST)), report::exchanged)
}

/// Compresses all messages, each on its own, then decompresses all codes.
fn exchange(meter: &Meter) -> Result<report::Exchange, Error> {
    let model = report::load(meter)?;
    let mut codec = Codec::new(storage::session(model)?, TOKENS.take(), FRAMING)?;
    let mut done = report::Exchange::default();
    let mut code = [0; LONGEST_MESSAGE + 1 + FRAMING.bytes()];
    for message in MESSAGES {
        let started = meter.instructions();
        let len = codec.compress(message, Start::Fresh, &mut code)?;
        done.compressing += meter.instructions() - started;
        done.text_bytes += message.len() as u64;
        done.code_bytes += len as u64;
        defmt::println!("code {=[u8]:02x}", code[..len]);
    }
    let mut text = [0; LONGEST_MESSAGE];
    for code in CODES {
        let started = meter.instructions();
        let len = codec.decompress(code, Start::Fresh, &mut text)?;
        done.decompressing += meter.instructions() - started;
        done.read_bytes += len as u64;
        defmt::println!("read {=[u8]:a}", text[..len]);
    }
    Ok(done)
}
