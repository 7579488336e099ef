//! Whole tokens of a blob, greedy: instructions in all and by kind of layer, of tokens without logits and of
//! every way to sample, memory, and a digest of every logit for the host to compare with.
//!
//! Lines: `token <instructions>`, `fed <instructions>`, `kind <name> <instructions>`, `sampler <name> <instructions>`
//! (all per token), `session_ram_bytes <n>`, `stack_bytes <n>`, `digest <hexadecimal>`.
#![no_std]
#![no_main]

use core::hint::black_box;

use resnet_bk_bench::machine::{self, Moment, Paint};
use resnet_bk_bench::walk::{Kind, Laps, Walk};
use resnet_bk_core::{Error, LogitsDigest, Model, Sampler, Session};
use semihosting::println;

resnet_bk_bench::entry!(run);

/// Tokens that are averaged over.
const TOKENS: usize = 16;
/// The first one.
const FIRST: u32 = 1;
/// Temperature of all samplers but the greedy one.
const TEMPERATURE: f32 = 0.8;
/// Words for a session.
const WORDS: usize = 8 << 10;

fn run() -> ! {
    static mut MEMORY: [u32; WORDS] = [0; WORDS];
    static mut WALK: Walk = Walk::new();
    machine::start();
    let (memory, walk) = (&raw mut MEMORY, &raw mut WALK);
    // SAFETY: this function is called once, and nothing else names the statics.
    let (memory, walk) = unsafe { (&mut *memory, &mut *walk) };
    let result = Model::from_bytes(resnet_bk_bench::blob::bytes())
        .and_then(|model| measure(&model, memory, walk));
    if let Err(error) = result {
        println!("{error}");
        machine::exit(1);
    }
    machine::exit(0)
}

fn measure(model: &Model<'_>, memory: &mut [u32], walk: &mut Walk) -> Result<(), Error> {
    let bytes = 4 * Session::<&mut [u32]>::words(model.dims());
    println!("session_ram_bytes {bytes}");
    let paint = Paint::new();
    let mut session = Session::new(model, memory)?;
    let mut sampler = Sampler::greedy();
    let mut samplers = samplers()?;
    let mut sampled = [0; SAMPLERS];
    let (mut token, mut instructions) = (FIRST, 0);
    let mut tokens = [0; TOKENS];
    let mut digest = LogitsDigest::new();
    let (mut laps, walks) = (Laps::new(), walk.admits(model));
    for taken in &mut tokens {
        *taken = token;
        let started = Moment::now();
        let logits = session.step(token)?;
        let chosen = sampler.sample(logits);
        instructions += started.instructions_until(Moment::now());
        digest.update(logits);
        for ((_, sampler), instructions) in samplers.iter_mut().zip(&mut sampled) {
            let started = Moment::now();
            black_box(sampler.sample(black_box(&mut *logits)));
            *instructions += started.instructions_until(Moment::now());
        }
        if walks && (walk.step(model, token, &mut laps) != chosen || walk.logits[..] != *logits) {
            println!("the parts of a token give other logits than the session");
            machine::exit(1);
        }
        token = chosen;
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
    if walks {
        for (kind, instructions) in Kind::ALL.iter().zip(laps.instructions) {
            println!("kind {} {}", kind.name(), instructions / TOKENS as u64);
        }
    }
    println!("digest {:08x}", digest.value());
    Ok(())
}

/// Ways to sample.
const SAMPLERS: usize = 4;

/// By their names.
fn samplers() -> Result<[(&'static str, Sampler); SAMPLERS], Error> {
    let builder = Sampler::builder().temperature(TEMPERATURE).seed(1);
    Ok([
        ("greedy", Sampler::greedy()),
        ("top-k-40", builder.top_k(40).build()?),
        ("top-p-0.9", builder.top_p(0.9).build()?),
        ("unrestricted", builder.build()?),
    ])
}
