//! Output of the programs about the blob and the run.

use resnet_bk_core::kernels::Reason;
use resnet_bk_core::{Error, LogitsDigest, Model};

use crate::meter::Meter;
use crate::{board, memory, settings};

/// Results of a run.
pub struct Outcome {
    /// Tokens that were generated or scored.
    pub tokens: u32,
    /// Digest of all computed logits: after the prompt and after every token but the last.
    pub digest: LogitsDigest,
    /// Instructions of these steps: inference only, without sampling, digest and logging.
    pub instructions: u64,
    /// Prompt tokens but the last, which need no logits.
    pub fed: u32,
    /// Their instructions.
    pub fed_instructions: u64,
}

/// Loads and describes the blob.
///
/// # Errors
///
/// As [`Model::from_bytes`].
pub fn load(meter: &Meter) -> Result<Model<'static>, Error> {
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
    kernels(&model);
    Ok(model)
}

/// Prints how many tensors have an optimized kernel, and warns of fallbacks due to misalignment.
fn kernels(model: &Model<'_>) {
    let (mut all, mut fast, mut unaligned) = (0u32, 0u32, 0u32);
    for (_, choice) in model.kernels() {
        all += 1;
        fast += u32::from(choice.fallback.is_none());
        unaligned += u32::from(choice.fallback == Some(Reason::Alignment));
    }
    defmt::info!("fast kernels for {=u32} of {=u32} tensors", fast, all);
    if unaligned > 0 {
        defmt::warn!(
            "{=u32} tensors are slow because the blob is unaligned: include it with include_blob!",
            unaligned
        );
    }
}

/// Prints the summary of a run with `summarize` and exits.
pub fn end<T>(result: Result<T, Error>, summarize: fn(&T)) -> ! {
    match result {
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

/// Prints what was generated or scored as `key=value` pairs.
pub fn summary(outcome: &Outcome) {
    defmt::println!(
        "summary tokens={=u32} steps={=u32} digest={=u32:08x} instructions_per_token={=u64} \
         fed={=u32} instructions_per_fed_token={=u64} {}",
        outcome.tokens,
        outcome.digest.steps(),
        outcome.digest.value(),
        outcome.instructions / u64::from(outcome.digest.steps().max(1)),
        outcome.fed,
        outcome.fed_instructions / u64::from(outcome.fed.max(1)),
        Footprint,
    );
}

/// Messages that were compressed, and codes that were decompressed.
#[derive(Default)]
pub struct Exchange {
    /// Bytes of the messages.
    pub text_bytes: u64,
    /// Bytes that they became.
    pub code_bytes: u64,
    /// Instructions of compression.
    pub compressing: u64,
    /// Bytes of the texts that the codes became.
    pub read_bytes: u64,
    /// Instructions of decompression.
    pub decompressing: u64,
}

/// Prints what was exchanged as `key=value` pairs.
pub fn exchanged(exchange: &Exchange) {
    defmt::println!(
        "exchanged text_bytes={=u64} code_bytes={=u64} compress_instructions_per_byte={=u64} \
         read_bytes={=u64} decompress_instructions_per_byte={=u64} {}",
        exchange.text_bytes,
        exchange.code_bytes,
        exchange.compressing / exchange.text_bytes.max(1),
        exchange.read_bytes,
        exchange.decompressing / exchange.read_bytes.max(1),
        Footprint,
    );
}

/// Prints the cost of suggestions as `key=value` pairs.
pub fn suggested(instructions: &u64) {
    defmt::println!("suggested instructions={=u64} {}", *instructions, Footprint);
}

/// The program's memory so far, as `key=value` pairs.
struct Footprint;

impl defmt::Format for Footprint {
    fn format(&self, f: defmt::Formatter<'_>) {
        let stack = memory::stack_high_water();
        defmt::write!(
            f,
            "session_bytes={=usize} stack_bytes={=usize} ram_bytes={=usize} flash_bytes={=usize}",
            4 * settings::MEMORY_WORDS,
            stack,
            memory::static_bytes() + stack,
            memory::flash_bytes(),
        );
    }
}
