//! What the firmware does with the blob: continue a prompt, or score windows.

use resnet_bk_core::{Error, LogitsDigest, Model, Sampler, Tokenizer};

use crate::meter::Meter;
use crate::settings::{
    PROMPT, PROMPT_TOKENS, SEED, TEMPERATURE, TOKENS, TOP_K, TOP_P, WINDOW_TOKENS, WINDOWS,
};
use crate::storage;

/// What a run amounted to.
pub(crate) struct Outcome {
    /// Tokens that were generated or scored.
    pub(crate) tokens: u32,
    /// Digest of all logits that were computed: after the prompt and after every token but the last.
    pub(crate) digest: LogitsDigest,
    /// Instructions of these steps, inference alone: without sampling, digest and logging.
    pub(crate) instructions: u64,
    /// Tokens of the prompt before its last, whose logits nobody needs.
    pub(crate) fed: u32,
    /// Their instructions.
    pub(crate) fed_instructions: u64,
}

/// Continues the prompt. Its last token is the first whose logits are computed, and the last one of the
/// continuation is not fed back, so there are as many steps as tokens to generate.
pub(crate) fn generate(model: &Model<'_>, meter: &Meter) -> Result<Outcome, Error> {
    let tokenizer = match model.tokenizer() {
        Err(Error::NoTokenizer) => None,
        tokenizer => Some(tokenizer?),
    };
    // Encoding starts from a token per byte.
    let mut buffer = [0; PROMPT.len()];
    let prompt = match tokenizer {
        Some(tokenizer) => {
            defmt::println!("prompt {=[u8]:a}", PROMPT.as_bytes());
            let count = tokenizer.encode(PROMPT.as_bytes(), &mut buffer)?;
            &buffer[..count]
        }
        None => PROMPT_TOKENS,
    };

    let mut session = storage::session(model)?;
    let mut sampler = Sampler::new(TEMPERATURE, TOP_K, SEED)?.with_top_p(TOP_P)?;
    // The build script refuses an empty prompt.
    let (&last, first) = prompt.split_last().unwrap_or((&0, &[]));
    let started = meter.instructions();
    for &token in first {
        session.feed(u32::from(token))?;
    }
    let fed_instructions = meter.instructions() - started;
    let mut digest = LogitsDigest::new();
    let mut instructions = 0;
    let mut token = u32::from(last);
    for step in 0..TOKENS {
        let started = meter.instructions();
        let logits = session.step(token)?;
        instructions += meter.instructions() - started;
        digest.update(logits);
        defmt::debug!("step {=usize} token {=u32} digest {=u32:08x}", step, token, digest.value());
        token = sampler.sample(logits);
        print(tokenizer, token);
    }
    let (tokens, fed) = (TOKENS as u32, first.len() as u32);
    Ok(Outcome { tokens, digest, instructions, fed, fed_instructions })
}

/// Scores windows of pseudo-random tokens.
pub(crate) fn score(model: &Model<'_>, meter: &Meter) -> Result<Outcome, Error> {
    let mut window = storage::window(model)?;
    let mut digest = LogitsDigest::new();
    let mut instructions = 0;
    let mut generator = SEED;
    for index in 0..WINDOWS {
        let tokens: [u32; WINDOW_TOKENS] =
            core::array::from_fn(|_| random_token(&mut generator, model.dims().vocab));
        let mut aside = 0;
        let started = meter.instructions();
        window.score(&tokens, |_, logits| {
            let started = meter.instructions();
            digest.update(logits);
            aside += meter.instructions() - started;
        })?;
        instructions += meter.instructions() - started - aside;
        defmt::info!("window {=usize} digest {=u32:08x}", index, digest.value());
    }
    let tokens = (WINDOWS * WINDOW_TOKENS) as u32;
    Ok(Outcome { tokens, digest, instructions, fed: 0, fed_instructions: 0 })
}

/// Prints a token's number and, a few bytes at a time, its text.
fn print(tokenizer: Option<Tokenizer<'_>>, token: u32) {
    defmt::println!("token {=u32}", token);
    let Some(tokenizer) = tokenizer else { return };
    let mut bytes = [0; 32];
    let mut len = 0;
    // A token that the tokenizer does not know has no text.
    let _ = tokenizer.decode(token, |byte| {
        if len == bytes.len() {
            defmt::println!("text {=[u8]:a}", bytes);
            len = 0;
        }
        bytes[len] = byte;
        len += 1;
    });
    defmt::println!("text {=[u8]:a}", bytes[..len]);
}

/// The next token of a window: the high half of SplitMix64 (Steele, Lea and Flood, 2014), modulo the
/// vocabulary.
fn random_token(state: &mut u64, vocab: u32) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32 % vocab
}
