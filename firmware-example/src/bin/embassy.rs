//! Inference alongside other work: one task of an embassy executor computes tokens piece by piece
//! and yields between pieces, another one blinks.
//!
//! The output and its digest are those of the main program. Before the summary, `blinks` counts
//! the iterations of the other task, `pieces` how often inference yielded, and `longest` the
//! instructions of the longest piece, during which no other task runs.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use embassy_executor::Executor;
use embassy_futures::yield_now;
use resnet_bk_core::{Error, LogitsDigest, Sampler, Session};
use resnet_bk_firmware::meter::Meter;
use resnet_bk_firmware::report::{self, Outcome};
use resnet_bk_firmware::settings::{
    PROMPT, RECENT, REPETITION_PENALTY, SEED, TEMPERATURE, TOKENS, TOP_K, TOP_P,
};
use resnet_bk_firmware::{board, prompt, storage};
use static_cell::StaticCell;

/// The pin that a board would toggle.
static LED: AtomicBool = AtomicBool::new(false);
/// How often it was toggled.
static BLINKS: AtomicU32 = AtomicU32::new(0);

#[cortex_m_rt::entry]
fn main() -> ! {
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let Some(peripherals) = cortex_m::Peripherals::take() else { board::exit(1) };
    board::protect_stack(peripherals.MPU);
    let meter = Meter::start(peripherals.SYST);
    EXECUTOR.init(Executor::new()).run(|spawner| {
        // Each task has one slot, which is still free.
        let (Ok(infer), Ok(blink)) = (infer(meter), blink()) else { board::exit(1) };
        spawner.spawn(infer);
        spawner.spawn(blink);
    })
}

/// Stands for other work.
#[embassy_executor::task]
async fn blink() {
    loop {
        LED.store(!LED.load(Ordering::Relaxed), Ordering::Relaxed);
        BLINKS.store(BLINKS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        yield_now().await;
    }
}

/// Continues the prompt and ends the program.
#[embassy_executor::task]
async fn infer(meter: Meter) {
    report::end(generate(&meter).await, report::summary)
}

async fn generate(meter: &Meter) -> Result<Outcome, Error> {
    let model = report::load(meter)?;
    let tokenizer = model.tokenizer().ok();
    let mut buffer = [0; PROMPT.len()];
    let prompt = prompt::encode(&model, &mut buffer)?;
    let mut session = storage::session(model)?;
    let sampler = Sampler::builder().temperature(TEMPERATURE).top_k(TOP_K).top_p(TOP_P);
    let sampler = sampler.repetition_penalty::<RECENT>(REPETITION_PENALTY).seed(SEED);
    let mut sampler = sampler.build()?;
    let mut decoder = tokenizer.map(|tokenizer| tokenizer.decoder());
    let (mut fed, mut stepped) = (Pieces::default(), Pieces::default());
    // `build.rs` refuses an empty prompt.
    let (&last, first) = prompt.split_last().unwrap_or((&0, &[]));
    prompt.iter().for_each(|&token| sampler.observe(token));
    for &token in first {
        session.begin_feed(token)?;
        fed.run(&mut session, meter).await;
    }
    let mut digest = LogitsDigest::new();
    let mut token = last;
    for _ in 0..TOKENS {
        session.begin(token)?;
        stepped.run(&mut session, meter).await;
        let logits = session.logits().unwrap_or_default();
        digest.update(logits);
        token = sampler.sample(logits);
        defmt::println!("token {=u32}", token);
        // Tokens unknown to the tokenizer have no text.
        let _ = decoder.as_mut().map(|decoder| decoder.decode(token, prompt::print));
    }
    if let Some(decoder) = &mut decoder {
        decoder.finish(prompt::print);
    }
    defmt::println!(
        "blinks {=u32} pieces {=u32} longest {=u64}",
        BLINKS.load(Ordering::Relaxed),
        fed.count + stepped.count,
        fed.longest.max(stepped.longest)
    );
    Ok(Outcome {
        tokens: TOKENS as u32,
        digest,
        instructions: stepped.instructions,
        fed: first.len() as u32,
        fed_instructions: fed.instructions,
    })
}

/// Statistics of the computed pieces.
#[derive(Default)]
struct Pieces {
    count: u32,
    instructions: u64,
    longest: u64,
}

impl Pieces {
    /// Computes the token in progress and yields to other tasks after every piece.
    async fn run(&mut self, session: &mut Session<'static, storage::Words>, meter: &Meter) {
        loop {
            let started = meter.instructions();
            let piece = session.advance();
            let instructions = meter.instructions() - started;
            if piece.is_none() {
                return;
            }
            self.count += 1;
            self.instructions += instructions;
            self.longest = self.longest.max(instructions);
            yield_now().await;
        }
    }
}
