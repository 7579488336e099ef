//! Whole messages, those of `firmware-example/messages.txt`: instructions per byte of text, memory,
//! and the bytes that they become, for the host.
//!
//! Lines: `code <hexadecimal>` for each message, `compress <instructions>`, `decompress
//! <instructions>` (both per byte), `stack_bytes <n>`, `ram_bytes <n>`: session, tokens and stack.
#![no_std]
#![no_main]

use resnet_bk_bench::machine::{self, Moment, Paint};
use resnet_bk_core::coder::{Check, Framing, Start};
use resnet_bk_core::{Codec, Error, Model, Session};
use semihosting::{print, println};

resnet_bk_bench::entry!(run);

const MESSAGES: &str = include_str!("../../../firmware-example/messages.txt");
/// As in `firmware-example`.
const FRAMING: Framing = Framing { identity: true, check: Check::Bits16 };
/// Bytes of the longest message.
const LONGEST: usize = 256;
/// Words for a session.
const WORDS: usize = 8 << 10;

fn run() -> ! {
    static mut MEMORY: ([u32; WORDS], [u32; LONGEST]) = ([0; WORDS], [0; LONGEST]);
    machine::start();
    let memory = &raw mut MEMORY;
    // SAFETY: this function is called once, and nothing else uses the static.
    let (memory, tokens) = unsafe { &mut *memory };
    if let Err(error) = measure(memory, tokens) {
        println!("{error}");
        machine::exit(1);
    }
    machine::exit(0)
}

fn measure(memory: &mut [u32], tokens: &mut [u32]) -> Result<(), Error> {
    let model = Model::from_bytes(resnet_bk_bench::blob::bytes())?;
    let session_bytes = 4 * model.dims().session_words();
    let paint = Paint::new();
    let mut codec = Codec::new(Session::new(model, memory)?, tokens, FRAMING)?;
    let (mut code, mut text) = ([0; LONGEST + 1 + FRAMING.bytes()], [0; LONGEST]);
    let (mut compressing, mut decompressing, mut bytes) = (0, 0, 0);
    for message in MESSAGES.lines() {
        let started = Moment::now();
        let len = codec.compress(message.as_bytes(), Start::Fresh, &mut code)?;
        compressing += started.instructions_until(Moment::now());
        print!("code ");
        code[..len].iter().for_each(|byte| print!("{byte:02x}"));
        println!();
        let started = Moment::now();
        let read = codec.decompress(&code[..len], Start::Fresh, &mut text)?;
        decompressing += started.instructions_until(Moment::now());
        if text[..read] != *message.as_bytes() {
            println!("a message does not come back");
            machine::exit(1);
        }
        bytes += message.len() as u64;
    }
    println!("compress {}", compressing / bytes);
    println!("decompress {}", decompressing / bytes);
    let stack = paint.high_water();
    println!("stack_bytes {stack}");
    println!("ram_bytes {}", session_bytes + 4 * LONGEST + stack);
    Ok(())
}
