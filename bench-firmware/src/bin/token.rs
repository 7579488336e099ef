//! Whole tokens, greedy: instructions of tokens with and without logits, of pieces and of sampling
//! methods, memory, and a digest of the logits for the host.
//!
//! Lines: `token <instructions>`, `fed <instructions>`, `kind <name> <instructions>`,
//! `sampler <name> <instructions>`, `coder <encode or decode> <instructions>` (all per token),
//! `piece <name> <instructions>` (the longest of its kind), `session_ram_bytes <n>`,
//! `stack_bytes <n>`, `digest <hexadecimal>`, `code <hexadecimal>`: the tokens after the first,
//! compressed.
#![no_std]
#![no_main]

use core::hint::black_box;

use resnet_bk_bench::laps::Laps;
use resnet_bk_bench::machine::{self, Moment, Paint};
use resnet_bk_core::coder::{Decoder, Encoder};
use resnet_bk_core::{Error, LogitsDigest, Model, Sampler, Session};
use semihosting::{print, println};

resnet_bk_bench::entry!(run);

/// Tokens to average over.
const TOKENS: usize = 16;
/// The first token.
const FIRST: u32 = 1;
/// Temperature of the non-greedy samplers.
const TEMPERATURE: f32 = 0.8;
/// Bytes for the code of the tokens: 24 bits each at most.
const CODE: usize = 3 * TOKENS + 8;
/// Words for a session.
const WORDS: usize = 8 << 10;

fn run() -> ! {
    static mut MEMORY: [u32; WORDS] = [0; WORDS];
    machine::start();
    let memory = &raw mut MEMORY;
    // SAFETY: this function is called once, and nothing else uses the static.
    let memory = unsafe { &mut *memory };
    if let Err(error) = measure(memory) {
        println!("{error}");
        machine::exit(1);
    }
    machine::exit(0)
}

fn measure(memory: &mut [u32]) -> Result<(), Error> {
    let model = Model::from_bytes(resnet_bk_bench::blob::bytes())?;
    println!("session_ram_bytes {}", 4 * model.dims().session_words());
    let paint = Paint::new();
    let mut session = Session::new(model, memory)?;
    let mut sampler = Sampler::greedy();
    let mut samplers = samplers()?;
    let mut sampled = [0; SAMPLERS];
    let (mut token, mut instructions) = (FIRST, 0);
    let mut tokens = [0; TOKENS];
    let mut digest = LogitsDigest::new();
    let (mut code, mut encoding) = ([0; CODE], 0);
    let mut encoder = Encoder::new(&mut code);
    for taken in &mut tokens {
        *taken = token;
        let started = Moment::now();
        let logits = session.step(token)?;
        token = sampler.sample(logits);
        instructions += started.instructions_until(Moment::now());
        digest.update(logits);
        let started = Moment::now();
        encoder.put(logits, token)?;
        encoding += started.instructions_until(Moment::now());
        for ((_, sampler), instructions) in samplers.iter_mut().zip(&mut sampled) {
            let started = Moment::now();
            black_box(sampler.sample(black_box(&mut *logits)));
            *instructions += started.instructions_until(Moment::now());
        }
    }
    println!("stack_bytes {}", paint.high_water());
    println!("token {}", instructions / TOKENS as u64);
    session.reset();
    let started = Moment::now();
    tokens.iter().try_for_each(|&token| session.feed(token))?;
    println!("fed {}", started.instructions_until(Moment::now()) / TOKENS as u64);
    for ((name, _), instructions) in samplers.iter().zip(sampled) {
        println!("sampler {name} {}", instructions / TOKENS as u64);
    }
    println!("coder encode {}", encoding / TOKENS as u64);
    let len = encoder.finish()?;
    pieces(&mut session, &tokens, &code[..len], digest.value())?;
    println!("digest {:08x}", digest.value());
    print!("code ");
    code[..len].iter().for_each(|byte| print!("{byte:02x}"));
    println!();
    Ok(())
}

/// Repeats the tokens piece by piece, decodes them from their code, and prints the instructions.
// Outlined so that its frame does not count as stack of a session.
#[inline(never)]
fn pieces(
    session: &mut Session<'_, &mut [u32]>,
    tokens: &[u32],
    code: &[u8],
    expected: u32,
) -> Result<(), Error> {
    let (mut laps, mut digest) = (Laps::new(), LogitsDigest::new());
    let (mut decoder, mut decoding) = (Decoder::new(code), 0);
    let mut following = tokens[1..].iter();
    session.reset();
    for &token in tokens {
        session.begin(token)?;
        laps.begin();
        while let Some(piece) = session.advance() {
            laps.lap(piece);
        }
        let logits = session.logits().unwrap_or_default();
        digest.update(logits);
        let started = Moment::now();
        let decoded = decoder.take(logits)?;
        decoding += started.instructions_until(Moment::now());
        if following.next().is_some_and(|&token| token != decoded) {
            println!("a token is not decoded as it was encoded");
            machine::exit(1);
        }
    }
    println!("coder decode {}", decoding / tokens.len() as u64);
    if !decoder.is_at_end()? {
        println!("the code does not end with its tokens");
        machine::exit(1);
    }
    if digest.value() != expected {
        println!("the pieces of a token give other logits than a step");
        machine::exit(1);
    }
    for (piece, kind) in laps.kinds() {
        println!("kind {} {}", piece.name(), kind.total / tokens.len() as u64);
        println!("piece {} {}", piece.name(), kind.longest);
    }
    Ok(())
}

/// Sampling methods.
const SAMPLERS: usize = 4;

/// The sampling methods with their names.
fn samplers() -> Result<[(&'static str, Sampler); SAMPLERS], Error> {
    let builder = Sampler::builder().temperature(TEMPERATURE).seed(1);
    Ok([
        ("greedy", Sampler::greedy()),
        ("top-k-40", builder.top_k(40).build()?),
        ("top-p-0.9", builder.top_p(0.9).build()?),
        ("unrestricted", builder.build()?),
    ])
}
